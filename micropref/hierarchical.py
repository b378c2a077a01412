"""HierarchicalBradleyTerry: people are not K points."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._engine.gates import GATES, unflatten
from micropref._engine.gaussian_users import Scatter
from micropref._engine.held_out_factors import Factors
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.new_users import answering_like
from micropref._engine.population import Population, Shape, unscaled
from micropref._engine.population_fit import Settings, fit_heads, fit_scatter, without_dead_heads
from micropref._engine.population_selection import Candidate, Choices, choose, records_of
from micropref._engine.prediction import mean_weights
from micropref._engine.priors import HEAD_DEVIATION, gate_penalty
from micropref._engine.scaling import RunningNorms
from micropref._engine.starts import parameter_scale
from micropref._engine.user_votes import UserVotes
from micropref._estimator.dead_heads import warn_of_dead_heads
from micropref._estimator.determined import warn_of_undetermined
from micropref._estimator.fitting import check_same_parameters, frozen, learning, predicting
from micropref._estimator.gated_heads import fitted_gate
from micropref._estimator.parameters import check_choice, check_integer, check_penalty, check_real
from micropref._estimator.scattered_heads import SCATTERED_STATE, ScatteredHeads
from micropref._estimator.state import Arrays, describe, recover
from micropref._rows.comparisons import Comparisons
from micropref._support.warnings import level_of_caller
from micropref._users.scatter_stream import ScatterStream
from micropref._users.stream import Stream
from micropref.kernels._threads import blas_threads

__all__ = ["HierarchicalBradleyTerry"]

# What shapes the parameters that `partial_fit` goes on with.
_SHAPE = ("n_components", "rank", "n_directions", "n_context_features", "gate", "hidden_units")
_COMPONENTS = (1, 2, 3, 4, 6, 8)
# Of margins, in nats. A wider prior than the usual one is not tried: votes held out may be about the prompts of those
# that teach, which then speak for heads that predict no other prompts.
_PRIOR_SCALES = (0.6, 1.0, HEAD_DEVIATION)
_DIRECTIONS = 16
# Strengths of the prior under which users scatter alike in all directions, in numbers of users per direction.
_SHRINKAGES = (8.0, 2.0, 0.5)
_SCATTER = ("basis", "covariances", "residual")


class HierarchicalBradleyTerry(ScatteredHeads):
    r"""Users who scatter around reward heads: a hierarchical prior for the rewards of users.

    A mixture assumes that every annotator has one of K rewards. Here, the reward w_u of an annotator or user u is drawn
    around one of them,

    .. math:: w_u \sim \sum_k \pi_k(\bar c_u)\, \mathcal{N}(w_k, \Sigma_k), \qquad \Sigma_k = \tau_k^2 I + F_k F_k^\top,

    and the probability of a vote is σ(s w_uᵀd). Heads, gate and covariances maximise the marginal likelihood of groups,

    .. math:: J = -\frac{1}{\Omega} \sum_u g_u \ell_u, \qquad \ell_u = \log \sum_k \pi_k(\bar c_u)
        \int \mathcal{N}(w; w_k, \Sigma_k) \prod_{i \in u} \sigma(s_i w^\top d_i)^{\omega_i}\, dw,

    by EM, with the integrals and the posteriors of expectation propagation (`micropref._engine.gaussian_users`).
    Special cases are other models: with τ = 0 and rank 0 it is `MixtureBradleyTerry`; with one component and rank 0, a
    Gaussian prior for the rewards of users; with one component and τ = 0, a low-rank subspace of rewards.

    Parameters that are "auto" are chosen by the evidence of held-out groups. Every group is held out once (five folds,
    two beyond 20 000 rows). Among the candidates within one paired standard error of the best, the one with the fewest
    numbers per user is fitted to all groups. With few users a full covariance is shrunk towards τ² I, with a strength
    that is chosen in the same way.

    Users differ along q directions: all of them with at most `n_directions` features, otherwise those in which
    annotators differ most. One half of the annotators determines the axes, and the other half the variance along them;
    if τ is given, the leading axes of the differences are added. Variance outside these directions is estimated from
    pairs of votes; it enters every probability, but is never learned for a single user. With several heads, 95 %
    intervals of planted users cover 0.8. `ContextRouter` keeps K(1 + q + q(q + 1)/2) numbers per user.

    The computation uses NumPy, and numba if it is installed; torch tensors are converted to arrays, and results back to
    tensors. Without groups, or with one row per group, scatter cannot be distinguished from noise.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Number K of heads. "auto" tries 1, 2, 3, 4, 6, 8, with and without scatter, and stops after two numbers in a row
        without a gain; components with less than 2 % of the weight are dropped.
    rank : int or "auto", default="auto"
        Columns of every F_k, at most the number of features. "auto" chooses 0 or q.
    tau : float or "auto", default="auto"
        Standard deviation of a user's reward around the head along every direction, in units of the heads. "auto" is 0
        or the likeliest value; with more features than directions and a positive rank, it comes from pairs of votes.
    n_directions : int or "auto", default="auto"
        q, at least the rank. "auto": 16, or a larger rank, but at most the number of features.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context; the weights π depend on it.
    alpha : float or "auto", default="auto"
        L2 penalty of the heads, against the mean log-likelihood in nats. "auto" is a prior standard deviation s of
        margins, mean‖d‖² / (s²Ω), with s = 1.75 nats, as in `MixtureBradleyTerry`, unless the held-out groups prefer
        0.6 or 1 by more than a standard error. If users scatter more widely, the prior widens with them.
    gate_alpha : float or "auto", default="auto"
        L2 penalty of the gate's weights; its offsets are free. "auto" is the prior of `MixtureBradleyTerry`.
    gate : {"linear", "mlp"}, default="linear"
    hidden_units : int, default=128
        As in `MixtureBradleyTerry`.
    max_iter : int, default=200
        Largest number of iterations of EM.
    tol : float, default=1e-5
        EM stops once an iteration gains less, in nats per row.
    n_init : int, default=4
        Random starts of the heads.
    random_state : int, RandomState instance or None, default=None
        Seed of folds and starts.
    verbose : int, default=0
        1 prints a line for every candidate.

    Attributes
    ----------
    coef_ : ndarray of shape (K, n_features)
        The heads w_k, the most frequent component first.
    weights_ : ndarray of shape (K,)
        Mean mixture weights over the rows.
    gate_parameters_, new_user_coef_ : list of ndarray, ndarray or None
        As in `MixtureBradleyTerry`.
    scatter_ : Scatter or None
        Basis (d, q), covariances (K, q, q) within it, and variance outside it per component; None if users do not
        scatter around the heads.
    tau_ : ndarray of shape (K,)
        τ_k.
    rank_ : int
        Directions with more variance than τ_k².
    n_components_ : int
        K.
    alpha_ : float
        The penalty of the heads.
    evidence_ : float
        Log-likelihood of the groups of the fit, in nats per row.
    selection_ : list of dict
        Every candidate with its held-out evidence `nats_per_row`; the same with every vote as if it were the first of
        its user, `nats_of_first_votes`, and whether that is worse than of one head, `fails_new_users`; the
        `standard_error` of its distance from the best, `numbers_per_user`, and whether it was `chosen`. May be empty.
    selection_evidence_ : ndarray of shape (n_candidates, n_units)
        The same evidence of every group, then of every ungrouped row, in nats, for paired comparisons.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int
        Number of columns of X.

    See Also
    --------
    MixtureBradleyTerry : Users who do not scatter around the heads.
    ContextRouter : Learns users, and which head applies, from votes.

    References
    ----------
    Minka, "A family of algorithms for approximate Bayesian inference", PhD thesis, MIT, 2001. Shen et al., "MiCRo",
    EMNLP 2025, arXiv:2505.24846, for heads and gate.

    Examples
    --------
    All users like the first feature, and they differ about the second.

    >>> import numpy as np
    >>> from micropref import HierarchicalBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> user = np.arange(2000) // 20
    >>> X = rng.normal(size=(2000, 2))
    >>> taste = rng.normal(size=(100, 1))
    >>> y = X[:, 0] + (X[:, 1:] * 2 * taste[user]).ravel() + rng.logistic(size=2000) > 0
    >>> model = HierarchicalBradleyTerry(random_state=0).fit(X, y, groups=user)
    >>> model.n_components_
    1
    >>> deviation = np.sqrt(np.diag(model.scatter_.basis @ model.scatter_.covariances[0] @ model.scatter_.basis.T))
    >>> bool(deviation[1] > 3 * deviation[0])
    True
    """

    weights_: NDArray[np.float64]
    _stream: Stream | ScatterStream | None
    _learned: dict[str, Any]

    _LEARNS_FROM = ("_stream",)
    _NEW_USERS_FIRST: bool = False  # of a model that serves users without votes too

    def __init__(
        self,
        n_components: int | str = "auto",
        *,
        rank: int | str = "auto",
        tau: float | str = "auto",
        n_directions: int | str = "auto",
        n_context_features: int = 0,
        alpha: float | str = "auto",
        gate_alpha: float | str = "auto",
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
        """Fit heads, gate and scatter by the marginal likelihood of whole groups.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons: NumPy array, memory-mapped file or torch tensor, in half, single or double precision.
        y : array-like of shape (n_samples,), optional
            1, True: first preferred; 0, -1, False: second preferred. None: first preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
            Weights ω_i of rows within their group, not negative: 2 is the row twice. Of an ungrouped row it multiplies
            the log-likelihood.
        groups : array-like of shape (n_samples,), optional
            Id of the annotator of every row; None, NaN or -1 for an ungrouped row, an annotator of one vote.
        group_weight : array-like of shape (n_samples,), optional
            Weights g_u of annotators in the population, as in surveys; they multiply ℓ_u, and are the same in all rows
            of a group. Weights with mean 1 leave the priors unchanged.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As in `MixtureBradleyTerry.fit`, and if a group has two different weights.
        """
        self._check_parameters()
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=True, host=True)
        self._fit_rows(rows.with_group_weight(group_weight))
        return self

    def _fit_rows(self, rows: Comparisons) -> None:
        """Choose a population, and fit it."""
        rows.refuse_all_zero()
        votes = UserVotes(rows if rows.weight is None else rows.part(np.flatnonzero(rows.dense_weight > 0)))
        random = check_random_state(self.random_state)
        seed = int(random.randint(1 << 31)) if self._chooses() else 0
        settings = self._settings(rows.reader.n_features)
        # Products are of few columns: threads of BLAS would only wait for each other.
        with blas_threads(False):
            choices, report = self._choices(votes, settings), print if self.verbose else None
            candidate, factors, tried = choose(votes, choices, settings, seed, report)
            self._fit_chosen(votes, (candidate, factors), settings, random)
        self.selection_ = records_of(votes, candidate, tried)
        self.selection_evidence_ = np.array([one.evidence for one in tried]).reshape(len(tried), votes.n_users)
        assert rows.classes is not None
        self.classes_, self._stream = rows.classes, None
        warn_of_undetermined(rows, self.alpha, float(rows.norms[1]), rows.total_weight)

    @learning
    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        group_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn from one batch of a stream.

        The first call is `fit` on its batch, which also chooses the "auto" parameters; if the batch is too small for
        this choice, call `fit` on more votes first. Later calls take a step of online EM for every 512 rows: heads and
        gate move along the gradient of the evidence, and the covariances are those of all visits of annotators so far.
        The basis does not change. The rows of a group may be spread over several batches: the evidence of its votes is
        kept, in K(1 + q + q(q + 1)/2) numbers, and is combined with the current population when more of its votes
        arrive. A model whose users do not scatter learns as `MixtureBradleyTerry` does.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred"; needed only if they are not among 0, 1,
            False, True, -1 and the first batch has only one of them.
        sample_weight, groups, group_weight : array-like of shape (n_samples,), optional
            As in `fit`; the weight of a group may change between its visits.

        Returns
        -------
        self
        """
        started = hasattr(self, "coef_")
        self._check_parameters()
        check_same_parameters(self, _SHAPE)
        known = self._known_classes(classes)
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=not started, classes=known, host=True)
        rows = rows.with_group_weight(group_weight)
        if not started:
            rows.refuse_all_zero()
            self._fit_rows(rows)
            self._stream = self._begin_stream()
            if isinstance(self._stream, Stream):
                self._stream.remember(rows, fitted_gate(self), self._parameters())
            else:
                self._stream.remember(rows, self._scaled_population())
            return self
        self.new_user_coef_ = None  # of the votes before these
        learn = self._learn_heads if self.scatter_ is None else self._learn_scatter
        learn(rows)
        return self

    def _begin_stream(self) -> Stream | ScatterStream:
        """What is remembered of annotators; of none after `fit`, or from a file."""
        if self._stream is not None:
            return self._stream
        if self.scatter_ is None:
            return Stream.create(self.n_components_, fitted=RunningNorms())
        learned = self._learned
        shape = Shape.from_json(learned["shape"])
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
        seen = stream.norms
        penalties = Penalties(self.alpha_, gate_penalty(self.gate_alpha, gate, seen.context, seen.total_weight))
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
        self._set_scatter(unscaled(population.scatter, stream.norm))
        self.weights_ = mean_weights(rows.context, population.gate, population.gate_parameters, rows.weight)
        self.evidence_, self.n_iter_, self.converged_, self._stream = value, stream.adam.count, False, stream

    def _fit_chosen(self, votes: UserVotes, what: tuple[Candidate, Factors], settings: Settings, random: Any) -> None:
        (candidate, factors), alpha = what, what[0].penalty(votes)
        heads, minimum = fit_heads(
            votes, candidate.n_components, alpha, settings, random=random, n_starts=self.n_init, verbose=self.verbose
        )
        if self.n_components == "auto":
            heads = without_dead_heads(votes, heads)
        population, n_iter, converged = heads, minimum.n_iter, minimum.converged
        if candidate.shape is not None:
            found = fit_scatter(votes, heads, candidate.shape, alpha, settings)
            population = factors.applied(found.population)
            n_iter, converged = found.n_iter, converged and found.converged
        if self._NEW_USERS_FIRST:
            single = fit_heads(votes, 1, alpha, settings, random=random, n_starts=1)[0]
            population = answering_like(votes, population, single)
            self.new_user_coef_ = None if votes.rows.reader.n_context_features else single.heads[0]
        self.alpha_, self.n_iter_, self.converged_ = alpha, n_iter, bool(converged)
        self._set_population(votes, population)
        warn_of_dead_heads(self.weights_)
        self._learned = {
            "norm": votes.norm,
            "mass": votes.mass,
            "users": float(votes.outer.sum()),
            "prior_scale": candidate.prior_scale,
            "shape": None if candidate.shape is None else candidate.shape.to_json(),
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
        self._set_scatter(Scatter(scatter.basis, scatter.covariances[order], scatter.residual[order]))
        self.evidence_ = float(votes.outer @ self._evidence(UserVotes(votes.rows, 1.0))[0]) / votes.mass

    def _chooses(self) -> bool:
        return "auto" in (self.n_components, self.rank, self.tau) or self.alpha == "auto"

    def _settings(self, n_features: int) -> Settings:
        rank = 0 if self.rank == "auto" else min(int(self.rank), n_features)
        q = min(max(_DIRECTIONS, rank) if self.n_directions == "auto" else int(self.n_directions), n_features)
        if rank > q:
            raise ValueError(f"n_directions: expected at least the rank, {rank}, got {self.n_directions}")
        return Settings(q, self.gate, self.hidden_units, self.gate_alpha, self.max_iter, self.tol)

    def _choices(self, votes: UserVotes, settings: Settings) -> Choices:
        given = _COMPONENTS if self.n_components == "auto" else (int(self.n_components),)
        numbers = tuple(k for k in given if k <= votes.n_votes or len(given) == 1)
        alpha = None if self.alpha == "auto" else float(self.alpha)
        shapes = self._shapes_tried(votes.norm, votes.rows.reader.n_features, settings.n_directions)
        if votes.rounds.counts.max() < 2 and None in shapes:
            shapes = (None,)  # one vote says nothing of how users scatter
        return Choices(numbers, alpha, _PRIOR_SCALES, shapes, self._NEW_USERS_FIRST)

    def _shapes_tried(self, norm: float, n_features: int, q: int) -> tuple[Shape | None, ...]:
        tau = None if self.tau == "auto" else float(self.tau) * norm
        if q == 0:
            return (None,)
        ranks = (0, q) if self.rank == "auto" else (min(int(self.rank), q),)
        shapes: list[Shape | None] = []
        for rank in ranks:
            if rank:
                strengths = _SHRINKAGES if q == n_features else (0.0,)
                shapes += [Shape(rank, strength * q, tau) for strength in strengths]
            elif tau is None:
                shapes += [None, Shape(0, np.inf)]
            else:
                shapes.append(None if tau == 0 else Shape(0, 0.0, tau))
        return tuple(shapes)

    def _check_parameters(self) -> None:
        for name, minimum in (("n_components", 1), ("rank", 0), ("n_directions", 0)):
            if getattr(self, name) != "auto":
                check_integer(self, name, minimum)
        for name, minimum in (("n_context_features", 0), ("hidden_units", 1), ("max_iter", 1), ("n_init", 1)):
            check_integer(self, name, minimum)
        for name in ("alpha", "gate_alpha"):
            check_penalty(self, name)
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
        arrays = {**self._export_heads(), "tau": self.tau_, "evidence": self.selection_evidence_}
        if self.scatter_ is not None:
            arrays.update({f"scatter.{name}": getattr(self.scatter_, name) for name in _SCATTER})
        return arrays, describe(self, SCATTERED_STATE)

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The model that `_export` described."""
        model = cls(**description["parameters"])
        model._check_parameters()
        model._stream = None
        recover(model, description, SCATTERED_STATE)
        model._restore_scattered(arrays)
        return model
