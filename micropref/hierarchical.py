"""HierarchicalBradleyTerry: people are not K points."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, to_numpy
from micropref._engine.gates import GATES, unflatten
from micropref._engine.gaussian_users import Scatter
from micropref._engine.logistic_normal import expected_log_odds
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.population import Population, Shape, beliefs_of, log_prior, unscaled
from micropref._engine.population_fit import Settings, fit_heads, fit_scatter, without_dead_heads
from micropref._engine.population_selection import Candidate, Choices, Tried, choose
from micropref._engine.prediction import mean_weights, scatter_coordinates
from micropref._engine.scaling import RunningNorms
from micropref._engine.starts import parameter_scale
from micropref._engine.user_votes import UserVotes
from micropref._estimator.fitting import check_same_parameters, frozen, learning, predicting
from micropref._estimator.gated_heads import GatedHeads, fitted_gate
from micropref._estimator.parameters import LARGEST_PENALTY, check_choice, check_integer, check_real
from micropref._estimator.state import Arrays, describe, gathered, numbered, recover
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref._support.warnings import level_of_caller
from micropref._users.scatter_stream import ScatterStream
from micropref._users.stream import Stream
from micropref.kernels._pointwise import posterior
from micropref.kernels._threads import blas_threads

__all__ = ["HierarchicalBradleyTerry"]

# What shapes the parameters that `partial_fit` goes on with.
_SHAPE = ("n_components", "rank", "n_directions", "n_context_features", "gate", "hidden_units")
_COMPONENTS = (1, 2, 3, 4, 6, 8)
_PRIOR_SCALES = (1.6, 1.0, 2.5)
_DIRECTIONS = 16
# Strengths of the prior under which users scatter alike in all directions, in numbers of users per direction.
_SHRINKAGES = (8.0, 2.0, 0.5)
_STATE = ("rank_", "n_components_", "alpha_", "evidence_", "n_iter_", "converged_", "selection_", "_learned")
_SCATTER = ("basis", "covariances", "residual")


class HierarchicalBradleyTerry(GatedHeads):
    """Users who scatter around heads."""

    weights_: NDArray[np.float64]
    _stream: Stream | ScatterStream | None
    _learned: dict[str, Any]

    _LEARNS_FROM = ("_stream",)

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        rank: int | str = "auto",
        tau: float | str = "auto",
        n_directions: int | str = "auto",
        n_context_features: int = 0,
        alpha: float | str = "auto",
        gate_alpha: float = 1e-3,
        gate: str = "linear",
        hidden_units: int = 128,
        max_iter: int = 200,
        tol: float = 1e-5,
        n_init: int = 4,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.rank = rank
        self.tau = tau
        self.n_directions = n_directions
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.gate = gate
        self.hidden_units = hidden_units
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state
        self.verbose = verbose

    @learning
    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        group_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit."""
        self._check_parameters()
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=True, host=True)
        self._fit_rows(rows.with_group_weight(group_weight))
        return self

    def _fit_rows(self, rows: Comparisons) -> None:
        """Choose a population, and fit it."""
        rows.refuse_all_zero()
        votes = UserVotes(rows)
        random = check_random_state(self.random_state)
        seed = int(random.randint(1 << 31)) if self._chooses() else 0
        settings = self._settings(rows.reader.n_features)
        report = print if self.verbose else None
        # Products are of few columns: threads of BLAS would only wait for each other.
        with blas_threads(False):
            candidate, tried = choose(votes, self._choices(votes, settings), settings, seed, report)
            self._fit_candidate(votes, candidate, settings, random)
        self.selection_ = _selection(votes, candidate, tried)
        assert rows.classes is not None
        self.classes_ = rows.classes
        self._stream = None

    @learning
    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn from one batch of a stream.

        The first call is `fit` on its batch, which also chooses what is "auto"; where that is too little to choose by,
        call `fit` on more votes first. Later calls take a step of online EM for every 512 rows: heads and gate move
        along the gradient of the evidence, and the covariances are those of all visits of annotators so far. The basis
        stays. A group may come in pieces: what its votes have said is kept, in K(1 + q + q(q + 1)/2) numbers, and is
        combined with what is believed of the population when it comes again. A model whose users sit on its heads
        learns as `MixtureBradleyTerry` does.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred"; needed only if they are none of 0, 1, False,
            True, -1 and the first batch holds one of them alone.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        self
        """
        started = hasattr(self, "coef_")
        self._check_parameters()
        check_same_parameters(self, _SHAPE)
        known = self._known_classes(classes)
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=not started, classes=known, host=True)
        if not started:
            rows.refuse_all_zero()
            self._fit_rows(rows)
            self._stream = self._begin_stream()
            if isinstance(self._stream, Stream):
                self._stream.remember(rows, fitted_gate(self), self._parameters())
            else:
                self._stream.remember(rows, self._scaled_population())
            return self
        if self.scatter_ is None:
            self._learn_heads(rows)
        else:
            self._learn_scatter(rows)
        return self

    def _begin_stream(self) -> Stream | ScatterStream:
        """What is remembered of annotators; of none after `fit`, or from a file."""
        if self._stream is not None:
            return self._stream
        if self.scatter_ is None:
            return Stream.create(self.n_components_, fitted=RunningNorms())
        learned = self._learned
        shape = Shape(**{**learned["shape"], "shrinkage": learned["shape"]["shrinkage"] or 0.0})
        if learned["shape"]["shrinkage"] is None:
            shape = replace(shape, shrinkage=np.inf)
        users = self.weights_ * learned["users"]
        return ScatterStream.create(
            self._scaled_population(), shape, norm=learned["norm"], users=users, mass=learned["mass"]
        )

    def _scaled_population(self) -> Population:
        """The population in the unit of length of its fit."""
        population = self._population()
        return replace(population, scatter=unscaled(population.scatter, 1.0 / self._learned["norm"]))

    def _learn_heads(self, rows: Comparisons) -> None:
        """Stochastic steps on heads around which no user scatters."""
        stream = self._begin_stream().forked()
        assert isinstance(stream, Stream)
        stream.observe(rows)
        gate = fitted_gate(self)
        penalties = Penalties(self.alpha_, self.gate_alpha)
        objective = MixtureObjective(Comparisons(rows.reader), gate, penalties)
        scale = parameter_scale(objective, stream.feature_norms)
        vector, value = stream.descend(rows, gate, penalties, self._parameters(), scale)
        self.coef_, *self.gate_parameters_ = (p.copy() for p in unflatten(vector, objective.shapes))
        self.weights_ = mean_weights(rows.context, gate, self.gate_parameters_, rows.weight)
        self.evidence_, self.n_iter_, self.converged_, self._stream = -value, stream.adam.count, False, stream

    def _learn_scatter(self, rows: Comparisons) -> None:
        """Steps of online EM."""
        stream = self._begin_stream().forked()
        assert isinstance(stream, ScatterStream)
        population = self._scaled_population()
        scale = self._learned["prior_scale"]
        population, value = stream.learn(rows, population, scale, self.alpha_, self.gate_alpha)
        self.coef_, self.gate_parameters_ = population.heads, population.gate_parameters
        self.scatter_ = unscaled(population.scatter, stream.norm)
        self.tau_, self.rank_ = _isotropic_part(self.scatter_)
        self.weights_ = mean_weights(rows.context, population.gate, population.gate_parameters, rows.weight)
        self.evidence_, self.n_iter_, self.converged_, self._stream = value, stream.adam.count, False, stream

    def _fit_candidate(self, votes: UserVotes, candidate: Candidate, settings: Settings, random: Any) -> None:
        alpha = candidate.penalty(votes)
        heads, minimum = fit_heads(
            votes, candidate.n_components, alpha, settings, random=random, n_starts=self.n_init, verbose=self.verbose
        )
        converged, n_iter = minimum.converged, minimum.n_iter
        if self.n_components == "auto":
            heads = without_dead_heads(votes, heads)
        population = heads
        if candidate.shape is not None:
            found = fit_scatter(votes, heads, candidate.shape, settings)
            population, n_iter = found.population, found.n_iter
            converged = converged and found.converged
        self.alpha_, self.n_iter_, self.converged_ = alpha, n_iter, bool(converged)
        self._set_population(votes, population)
        self._learned = {
            "norm": votes.norm,
            "mass": votes.mass,
            "users": float(votes.outer.sum()),
            "prior_scale": candidate.prior_scale,
            "shape": None if candidate.shape is None else _shape_for_json(candidate.shape),
        }
        if not converged:
            warnings.warn(
                f"The fit stopped after {n_iter} iterations of EM, or of L-BFGS before it, while there was still "
                f"something to gain (tol={self.tol}, max_iter={self.max_iter}). Increase max_iter.",
                ConvergenceWarning,
                stacklevel=level_of_caller(),
            )

    def _set_population(self, votes: UserVotes, population: Population) -> None:
        weights = mean_weights(votes.rows.context, population.gate, population.gate_parameters, votes.rows.outer_weight)
        order = np.argsort(-weights, kind="stable")
        self.weights_, self.coef_ = weights[order], population.heads[order]
        self.gate_parameters_ = list(population.gate_parameters)
        for i in range(max(0, len(self.gate_parameters_) - 2), len(self.gate_parameters_)):
            self.gate_parameters_[i] = self.gate_parameters_[i][order]
        self.n_components_ = len(order)
        scatter = unscaled(population.scatter, votes.norm)
        scatter = Scatter(scatter.basis, scatter.covariances[order], scatter.residual[order])
        self.scatter_ = scatter if scatter.n_directions else None
        self.tau_, self.rank_ = _isotropic_part(scatter)
        self.evidence_ = float(votes.outer @ self._evidence(UserVotes(votes.rows, 1.0))[0]) / votes.mass

    # ------------------------------------------------------------------------------------------------------- answers

    @predicting
    def responsibilities(self, X: Array, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Array:
        """Posterior probabilities of the components given the labels, the scatter of users included.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        responsibilities : array of shape (n_samples, n_components) or (n_units, n_components)
            One row for every row of X; with `groups`, first one for every group in ascending order of its id (in order
            of appearance where ids have no order), then one for every ungrouped row.
        """
        if self.scatter_ is None:
            return super().responsibilities(X, y, groups)
        return like(self._evidence(self._votes(X, y, None, groups))[1].T, X, None)

    @predicting
    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean evidence per row, in nats: (1/Ω) (Σ_u ℓ_u + Σ_{ungrouped i} ω_i ℓ_i) of whole groups.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            All as in `fit`.

        Returns
        -------
        log_likelihood : float
        """
        if self.scatter_ is None:
            return super().log_likelihood(X, y, sample_weight, groups)
        votes = self._votes(X, y, sample_weight, groups)
        return float(votes.outer @ self._evidence(votes)[0]) / votes.mass

    def _votes(self, X: Array, y: Any, sample_weight: Any, groups: Any) -> UserVotes:
        check_is_fitted(self)
        width = self.n_context_features_
        kind: dict[str, Any] = {"first": False, "n_context_features": width, "classes": self.classes_, "host": True}
        return UserVotes(Comparisons.read(self, X, y, sample_weight, groups, **kind), 1.0)

    def _effective(self, reader: PairReader, margins: Array) -> Array:
        """Margins that heads without scatter would need for the same probabilities of a new user."""
        scatter = self.scatter_
        if scatter is None:
            return margins
        variance = scatter.prior_variance(*scatter_coordinates(reader, scatter))
        return like(expected_log_odds(to_numpy(margins), variance), margins, margins.dtype)

    def _population(self) -> Population:
        k, d = self.coef_.shape
        scatter = Scatter.none(k, d) if self.scatter_ is None else self.scatter_
        return Population(self.coef_, fitted_gate(self), self.gate_parameters_, scatter)

    def _evidence(self, votes: UserVotes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood of every user, and the responsibilities (K, n_users)."""
        population = self._population()
        found = posterior(log_prior(votes, population), beliefs_of(votes, population).evidence)
        return np.asarray(found[0]), np.asarray(found[1])

    # ----------------------------------------------------------------------------------------------------- internals

    def _chooses(self) -> bool:
        return "auto" in (self.n_components, self.rank, self.tau) or self.alpha == "auto"

    def _settings(self, n_features: int) -> Settings:
        q = min(_DIRECTIONS, n_features) if self.n_directions == "auto" else min(int(self.n_directions), n_features)
        return Settings(q, self.gate, self.hidden_units, self.gate_alpha, self.max_iter, self.tol)

    def _choices(self, votes: UserVotes, settings: Settings) -> Choices:
        numbers: tuple[int, ...]
        if self.n_components == "auto":
            numbers = tuple(k for k in _COMPONENTS if k <= votes.n_votes)
        else:
            numbers = (int(self.n_components),)
        alpha = None if self.alpha == "auto" else float(self.alpha)
        return Choices(
            numbers,
            alpha,
            _PRIOR_SCALES,
            self._shapes_tried(votes.norm, votes.rows.reader.n_features, settings.n_directions),
        )

    def _shapes_tried(self, norm: float, n_features: int, q: int) -> tuple[Shape | None, ...]:
        tau = None if self.tau == "auto" else float(self.tau) * norm
        if q == 0:
            return (None,)
        ranks = (0, q) if self.rank == "auto" else (min(int(self.rank), q),)
        shapes: list[Shape | None] = []
        for rank in ranks:
            if rank == 0:
                if tau is None:
                    shapes += [None, Shape(0, np.inf)]
                else:
                    shapes.append(None if tau == 0 else Shape(0, 0.0, tau))
            else:
                strengths = _SHRINKAGES if q == n_features else (0.0,)
                shapes += [Shape(rank, strength * q, tau) for strength in strengths]
        return tuple(shapes)

    def _check_parameters(self) -> None:
        for name, minimum in (("n_components", 1), ("rank", 0), ("n_directions", 0)):
            if getattr(self, name) != "auto":
                check_integer(self, name, minimum)
        for name, minimum in (("n_context_features", 0), ("hidden_units", 1), ("max_iter", 1), ("n_init", 1)):
            check_integer(self, name, minimum)
        for name in ("alpha", "gate_alpha"):
            if getattr(self, name) != "auto":
                check_real(self, name, 0.0, LARGEST_PENALTY, smallest=0.0)
        if self.tau != "auto":
            check_real(self, "tau", 0.0)
        check_real(self, "tol", 0.0, np.finfo(np.float64).max, above_minimum=True, smallest=0.0)
        check_choice(self, "gate", GATES)

    def _forked(self) -> Self:
        """The same model, whose learning leaves this one as it is."""
        other = frozen(self)
        stream = getattr(self, "_stream", None)
        if stream is not None:
            other._stream = stream.isolated() if isinstance(stream, Stream) else stream.forked()
        return other

    @predicting
    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted model; what a stream remembers besides is left out."""
        check_is_fitted(self)
        arrays = {"coef": self.coef_, "weights": self.weights_, "tau": self.tau_}
        arrays.update(numbered("gate", self.gate_parameters_))
        if self.scatter_ is not None:
            arrays.update({f"scatter.{name}": getattr(self.scatter_, name) for name in _SCATTER})
        return arrays, describe(self, _STATE)

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The model that `_export` described."""
        model = cls(**description["parameters"])
        model.coef_, model.weights_, model.tau_ = arrays["coef"], arrays["weights"], arrays["tau"]
        model.gate_parameters_ = gathered("gate", arrays)
        scatters = "scatter.basis" in arrays
        model.scatter_ = Scatter(*(arrays[f"scatter.{name}"] for name in _SCATTER)) if scatters else None
        model._stream = None
        recover(model, description, _STATE)
        return model


def _shape_for_json(shape: Shape) -> dict[str, Any]:
    """The fields of a shape; JSON knows no infinity."""
    return {**asdict(shape), "shrinkage": None if np.isinf(shape.shrinkage) else shape.shrinkage}


def _isotropic_part(scatter: Scatter) -> tuple[NDArray[np.float64], int]:
    """τ_k of every component, and the number of directions along which one of them has more variance than τ_k²."""
    q, d = scatter.n_directions, len(scatter.basis)
    if not q:
        return np.sqrt(scatter.residual), 0
    values = np.linalg.eigvalsh(scatter.covariances)
    least = values[:, 0] if q == d else scatter.residual
    least = np.maximum(least, 0.0)
    return np.sqrt(least), int((values > least[:, None] * (1 + 1e-9)).sum(axis=1).max())


def _selection(votes: UserVotes, chosen: Candidate, tried: list[Tried]) -> list[dict[str, Any]]:
    """What was tried, in nats per row."""
    best = max((float(votes.outer @ one.evidence) for one in tried), default=0.0)
    top = next((one for one in tried if float(votes.outer @ one.evidence) == best), None)
    found = []
    for one in tried:
        assert top is not None
        behind = votes.outer * (top.evidence - one.evidence)
        found.append(
            {
                **one.candidate.describe(),
                "numbers_per_user": one.size,
                "nats_per_row": float(votes.outer @ one.evidence) / votes.mass,
                "standard_error": float(np.sqrt(len(behind)) * behind.std()) / votes.mass,
                "chosen": one.candidate == chosen,
            }
        )
    return found
