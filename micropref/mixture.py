"""MixtureBradleyTerry: whose preferences does a comparison express?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, is_torch, like, namespace, place, precision, to_numpy, zeros
from micropref._arrays.blocks import row_blocks
from micropref._engine.gates import GATES, Gate, flatten, unflatten
from micropref._engine.objectives import MixtureObjective, log_odds, log_sigmoid, posterior
from micropref._engine.prediction import accuracy, gate_log_weights, head_margins, labels, probabilities
from micropref._engine.scaling import RunningNorms, gate_scale, gate_step, head_scale, head_step, with_penalties
from micropref._engine.solvers import Adam, Minimum, lbfgs
from micropref._parameters import check_choice, check_integer, check_real
from micropref._progress import FitProgress
from micropref._rows.layout import PairReader, root_mean_square_norms
from micropref._rows.validation import (
    Groups,
    check_groups,
    check_labels,
    check_matrix,
    check_sample_weight,
    distinct_labels,
)
from micropref._state import Arrays, describe, gathered, numbered, recover
from micropref._users.evidence import EvidenceTable
from micropref.distributed import Communicator, active_communicator
from micropref.distributed._agreement import Share, Whole
from micropref.distributed._communicator import ALONE
from micropref.distributed._groups import hash_ids, refuse_split_groups
from micropref.kernels._threads import blas_threads
from micropref.pairs import split_pairs

# Stochastic steps: rows of one step, and the size of a step relative to heads whose margins are of order one.
_STEP_ROWS = 512
_STEP_RATE = 0.1
_EVIDENCE_DISCOUNT = 3
# Age, in batches, of heads that come from `fit`.
_FITTED_BATCHES = 1000
# Standard deviation of the margins at a random start.
_START_MARGIN = 0.3
# What may differ between the ranks of one fit.
_OWN_SETTINGS = frozenset({"device", "random_state", "verbose"})
_ALL_ZERO = "every difference is zero: the two responses have equal features in every row"

_STATE = ("objective_", "n_iter_", "converged_")


class MixtureBradleyTerry(ClassifierMixin, BaseEstimator):
    """Mixture of Bradley-Terry reward heads with context-dependent weights.

    Stage 1 of MiCRo (Shen et al., EMNLP 2025, Eq. 1-4). K linear reward heads w_k share frozen features; a gate π(c)
    says how common each head's preferences are in context c. With d_i the difference of the features of the two
    responses and s_i = ±1 for first or second preferred,

        p(y_i | c_i) = Σ_k π_k(c_i) σ(s_i w_kᵀ d_i),        π(c) = softmax(g(c)),

        J = −(1/Ω) Σ_i ω_i log p(y_i | c_i) + balance · (1/Ω) Σ_i ω_i Σ_k π_k(c_i) log π_k(c_i)
            + ½ alpha ‖W‖² + ½ gate_alpha ‖gate weights‖²

    is minimised by L-BFGS from several random starts. With `groups` (who answered) the component is drawn once per
    group u, ℓ_u = log Σ_k π_k(c̄_u) Π_{i∈u} σ(m_ik)^{ω_i} with c̄_u the mean context of its rows: annotators who answer
    more than once are what makes heads identifiable where the population is split on every pair.

    Rows are comparisons, ``X = [context | difference]``; see `micropref.pairs.make_pairs`. A **tie** is two rows of
    weight ½, one in each order.

    Parameters
    ----------
    n_components : int, default=4
        Number K of heads. 1 is the Bradley-Terry model: logistic regression on differences without intercept.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context. 0: one set of weights for all rows.
    alpha : float, default=1e-3
        L2 penalty of the heads, against the mean log-likelihood in nats. `PairScaler` brings features to the scale for
        which the default is meant.
    gate_alpha : float, default=1e-3
        L2 penalty of the gate's weights; its offsets are free.
    balance : float, default=0.0
        Weight of the negative entropy of the mixture weights (the paper's α, 0.5 there): larger values keep the
        components equally used.
    gate : {"linear", "mlp"}, default="linear"
        g(c) is linear, or has one hidden layer of rectified units.
    hidden_units : int, default=128
        Width of the hidden layer of the "mlp" gate.
    max_iter : int, default=300
        Largest number of L-BFGS iterations of each start.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.
    n_init : int, default=4
        Number of random starts; the one with the smallest J is kept. With one component the problem is convex and one
        start, at zero, is enough.
    warm_start : bool, default=False
        Start `fit` from the previous solution, once.
    device : str or torch.device, optional
        Where to fit. None: where X is. With a device, `fit` moves X there as a torch tensor.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts.
    verbose : int, default=0
        1 shows a progress bar where standard error is a terminal and prints a line per start elsewhere; 2 prints one
        per iteration, too.

    Attributes
    ----------
    coef_ : ndarray of shape (n_components, n_features)
        The heads w_k, the most frequent component first.
    weights_ : ndarray of shape (n_components,)
        Mean mixture weights over the rows seen in `fit`, or in the last call of `partial_fit`.
    gate_parameters_ : list of ndarray
        Parameters of the gate: [weights (K, c), offsets (K,)] if linear, [offsets] without context, empty for K = 1.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
        Iterations of the start that was kept.
    converged_ : bool
    classes_ : ndarray of shape (2,)
        Labels that mean "second preferred" and "first preferred".
    n_features_in_ : int
        Number of columns of X.

    See Also
    --------
    ContextRouter : Learns which head applies from a few labelled contexts, or from a user's own history.
    PairScaler : Brings features of any size to the scale for which the penalties are meant.

    References
    ----------
    Shen et al., "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning", EMNLP 2025,
    arXiv:2505.24846.

    Examples
    --------
    Two annotators out of three like the first feature, the third dislikes it; each compares four pairs.

    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1200, 2))
    >>> annotator = np.arange(1200) // 4
    >>> y = (X[:, 0] * np.where(annotator % 3 == 0, -3, 3) > 0).astype(int)
    >>> model = MixtureBradleyTerry(n_components=2, random_state=0).fit(X, y, groups=annotator)
    >>> model.weights_.round(2)
    array([0.67, 0.33])
    >>> np.sign(model.coef_[:, 0])
    array([ 1., -1.])
    """

    def __init__(
        self,
        n_components: int = 4,
        *,
        n_context_features: int = 0,
        alpha: float = 1e-3,
        gate_alpha: float = 1e-3,
        balance: float = 0.0,
        gate: str = "linear",
        hidden_units: int = 128,
        max_iter: int = 300,
        tol: float = 1e-5,
        n_init: int = 4,
        warm_start: bool = False,
        device: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.balance = balance
        self.gate = gate
        self.hidden_units = hidden_units
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------------------------------------- learning

    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit heads and gate by maximum penalised likelihood.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons: NumPy array, memory-mapped file or torch tensor, in half, single or double precision.
        y : array-like of shape (n_samples,), optional
            1, True: first preferred; 0, -1, False: second preferred. None: first preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
            Weights ω_i, not negative.
        groups : array-like of shape (n_samples,), optional
            Id of the annotator of every row; None, NaN or -1 for an ungrouped row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For NaN or infinite entries (row and column are named), fewer rows than components, differences that are
            all zero, labels that are not two, negative or all-zero weights, or lengths that do not agree.
        """
        ranks = active_communicator()
        X, weight, members, share = ranks.together(lambda: self._read(X, y, sample_weight, groups, ranks))
        shares = ranks.exchange(share)
        whole = Whole.of(shares)
        if whole.n_samples < self.n_components:
            raise ValueError(f"n_samples={whole.n_samples} is fewer than n_components={self.n_components}")
        if ranks.world_size > 1:
            ids = np.empty(0) if members is None else members.ids
            refuse_split_groups(ids, share.hashes, [one.hashes for one in shares], ranks)
        if whole.norms[1] == 0:
            raise ValueError(_ALL_ZERO)
        signs, classes = ranks.together(lambda: check_labels(y, X.shape[0], classes=whole.classes))
        objective = ranks.together(
            lambda: MixtureObjective(
                PairReader(X, self.n_context_features),
                self._gate(),
                signs=signs,
                sample_weight=weight,
                groups=members,
                alpha=self.alpha,
                gate_alpha=self.gate_alpha,
                balance=self.balance,
                communicator=ranks,
                total_weight=whole.weight,
            )
        )
        random = check_random_state(self.random_state if ranks.rank == 0 else 0)
        if ranks.rank:
            random.set_state(shares[0].random_state)
        best = self._best_start(objective, _scale(whole.norms[0], whole.norms[1], objective), whole.precision, random)
        self.classes_ = classes
        self.objective_, self.n_iter_, self.converged_ = best.value, best.n_iter, best.converged
        self._set_parameters(unflatten(best.vector, objective.shapes))
        self._stream: _Stream | None = None
        self._set_mean_weights(X, weight, ranks)
        self._sort_components()
        if not best.converged:
            warnings.warn(
                f"L-BFGS stopped after {best.n_iter} iterations before the gradient fell below tol={self.tol} "
                f"({best.message}). Increase max_iter, or scale the features with PairScaler.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _read(
        self,
        X: Array,
        y: ArrayLike | None,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        ranks: Communicator,
    ) -> tuple[Array, np.ndarray | None, Groups | None, Share]:
        """X, weights and groups, checked, and what they add to the whole. One rank of several may have no rows."""
        self._check_parameters()
        is_part = ranks.world_size > 1
        X = place(check_matrix(self, X, reset=True, min_rows=0 if is_part else 1), self.device)
        n_samples = int(X.shape[0])
        weight = check_sample_weight(sample_weight, n_samples, may_be_zero=is_part)
        norms = root_mean_square_norms(X, self.n_context_features, weight)
        members = check_groups(groups, n_samples)
        settings = self.get_params(deep=False)
        settings["a start from an earlier fit"] = bool(self.warm_start and hasattr(self, "coef_"))
        share = Share(
            n_samples=n_samples,
            n_columns=int(X.shape[1]),
            settings={name: value for name, value in settings.items() if name not in _OWN_SETTINGS},
            labels=distinct_labels(y, n_samples) if is_part else None,
            norms=norms,
            weight=float(n_samples if weight is None else weight.sum()),
            precision=max(precision(X), self._gate().precision),
            hashes=hash_ids(members.ids) if is_part and members is not None else np.empty(0, dtype=np.uint64),
            random_state=check_random_state(self.random_state).get_state() if is_part and ranks.rank == 0 else None,
        )
        return X, weight, members, share

    def _best_start(
        self, objective: MixtureObjective, scale: np.ndarray, decisive: float, random: np.random.RandomState
    ) -> Minimum:
        verbose = self.verbose if objective.communicator.rank == 0 else 0
        warm = self.warm_start and hasattr(self, "coef_") and self._shapes() == objective.shapes
        n_starts = 1 if warm or self.n_components == 1 else self.n_init
        best: Minimum | None = None
        stiffness = with_penalties(scale, objective.penalties)
        # Only a hidden layer has products that are worth the threads of BLAS.
        with (
            blas_threads(bool(objective.gate.hidden_units)),
            FitProgress(verbose, n_starts, self.max_iter) as progress,
        ):
            for _ in range(n_starts):
                found = lbfgs(
                    objective.value_and_gradient,
                    self._parameters() if warm else _random_start(objective, scale, random),
                    scale=stiffness,
                    max_iter=self.max_iter,
                    tol=self.tol,
                    precision=decisive,
                    callback=progress.iteration if verbose else None,
                )
                progress.start_ended(found.value, found.n_iter)
                if best is None or found.value < best.value:
                    best = found
        assert best is not None
        return best

    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn from one batch of a stream: one stochastic step for every 512 rows.

        A group may come in pieces. Its accumulated log-likelihood under each head (K numbers) is kept, and is its prior
        when it comes again; batches that cut annotators therefore still tell the heads apart. What it said when the
        heads had seen t₀ batches counts (t₀ / t)³ when they have seen t: heads that had learned nothing knew little
        about anybody. Heads that come from `fit` count as 1 000 batches old.

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
        X = place(check_matrix(self, X, reset=not started), self.device)
        n_samples = X.shape[0]
        if started and classes is None:
            classes = self.classes_
        signs, classes = check_labels(y, n_samples, classes=classes)
        weight = check_sample_weight(sample_weight, n_samples)
        members = check_groups(groups, n_samples)
        norms = root_mean_square_norms(X, self.n_context_features, weight)
        if started and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes is {classes.tolist()} but was {self.classes_.tolist()} in the first call")
        stream = self._stream if started else None
        if stream is None:
            stream = _Stream.create(self.n_components, _FITTED_BATCHES if started else 1)
        if norms[1] == 0 and stream.norms.difference == 0:
            raise ValueError(_ALL_ZERO)
        stream.norms.observe(norms, n_samples if weight is None else weight.sum())
        gate = self._gate()
        whole = MixtureObjective(PairReader(X, self.n_context_features), gate)
        scale = _scale(stream.norms.context, stream.norms.difference, whole)
        size = flatten([head_step(whole.shapes[0]), *gate_step(gate)])
        vector = self._parameters() if started else _random_start(whole, scale, check_random_state(self.random_state))
        for begin in range(0, n_samples, _STEP_ROWS):
            rows = slice(begin, begin + _STEP_ROWS)
            part = None if weight is None else weight[rows]
            if part is not None and not part.any():
                continue
            batch = None if members is None else _subset(members, rows)
            keys = None if batch is None else stream.evidence.rows(batch.ids.tolist(), insert=True)
            objective = MixtureObjective(
                PairReader(X[rows], self.n_context_features),
                gate,
                signs=None if signs is None else signs[rows],
                sample_weight=part,
                groups=batch,
                alpha=self.alpha,
                gate_alpha=self.gate_alpha,
                balance=self.balance,
                prior_evidence=None if keys is None else stream.recall(keys).T,
            )
            value, gradient = objective.value_and_gradient(vector)
            vector = stream.adam.step(vector, gradient, scale, size)
            if batch is not None:
                heads = like(unflatten(vector, objective.shapes)[0], X, objective.dtype)
                evidence = to_numpy(objective.evidence(heads))[:, : batch.n_groups].T
                assert keys is not None
                stream.record(keys, evidence)
            self.objective_ = value
        self.classes_ = classes
        self._stream = stream
        self.n_iter_, self.converged_ = stream.adam.count, False
        self._set_parameters(unflatten(vector, whole.shapes))
        self._set_mean_weights(X, weight)
        return self

    # ------------------------------------------------------------------------------------------------------ prediction

    def decision_function(self, X: Array) -> Array:
        """Log-odds that the first response is preferred, log p̄ − log(1 − p̄).

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        log_odds : array of shape (n_samples,)
            In nats; changes its sign exactly when the two responses are swapped.
        """
        margins, log_weights = self._forward(X)
        return log_odds(log_weights, margins)

    def predict_proba(self, X: Array) -> Array:
        """Probabilities of the two labels, in the order of `classes_`.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        probabilities : array of shape (n_samples, 2)
            Column 1: the first response is preferred.
        """
        return probabilities(self.decision_function(X))

    def predict(self, X: Array) -> np.ndarray:
        """The label of the response more likely to be preferred.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return labels(self.decision_function(X), self.classes_)

    def score(self, X: Array, y: ArrayLike | None, sample_weight: ArrayLike | None = None) -> float:
        """Share of rows whose preferred response is predicted.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,) or None
            Labels; None means that the first response is preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        accuracy : float
        """
        return accuracy(self.decision_function(X), y, self.classes_, sample_weight)

    def component_scores(self, X: Array) -> Array:
        """Margins w_kᵀ d of every head.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        margins : array of shape (n_samples, n_components)
            Log-odds, in nats, that the first response is preferred by somebody of that component.
        """
        return self._forward(X)[0].T

    def mixture_weights(self, X: Array) -> Array:
        """Weights π_k(c) of the components in the context of every row.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        weights : array of shape (n_samples, n_components)
        """
        log_weights = self._forward(X)[1]
        return namespace(log_weights).exp(log_weights).T

    def responsibilities(self, X: Array, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Array:
        """Posterior probabilities of the components given the labels.

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
        members = None if groups is None else check_groups(groups, len(X))
        if members is None:
            margins, log_weights = self._forward(X)
            signs, _ = check_labels(y, margins.shape[1], classes=self.classes_)
            if signs is not None:
                margins = margins * like(signs, margins, margins.dtype)
            return posterior(log_weights, log_sigmoid(margins))[1].T
        objective = self._objective(X, y, None, members)
        return objective.responsibilities(self._parameters()).T

    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean log-likelihood per row, in nats.

        With `groups`, (1/Ω) (Σ_u ℓ_u + Σ_{ungrouped i} ω_i ℓ_i). This, on held-out groups, is what chooses the number
        of components: accuracy on pairs cannot, where some prefer every pair one way and others the other way.

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
        members = None if groups is None else check_groups(groups, len(X))
        return -self._objective(X, y, sample_weight, members).value_and_gradient(self._parameters())[0]

    def rewards(self, features: Array) -> Array:
        """Rewards w_kᵀ φ of single responses, for ranking any number of candidates.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.

        Returns
        -------
        rewards : array of shape (n_responses, n_components)
            Only differences between responses to the same prompt have a meaning.
        """
        check_is_fitted(self)
        features = features if is_torch(features) else np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.coef_.shape[1]:
            raise ValueError(
                f"features has shape {tuple(features.shape)}; expected (n_responses, {self.coef_.shape[1]}), "
                "the features of single responses without context"
            )
        return head_margins(PairReader(features, 0), self.coef_).T

    def context_log_weights(self, context: Array) -> Array:
        """Logarithms of the mixture weights in contexts alone, component-first, as a router starts from them.

        Parameters
        ----------
        context : array of shape (n_samples, n_context_features)

        Returns
        -------
        log_weights : array of shape (n_components, n_samples)
        """
        return gate_log_weights(context, self._gate(), self.gate_parameters_)

    # -------------------------------------------------------------------------------------------------------- internals

    def _check_parameters(self) -> None:
        for name, minimum in (("n_components", 1), ("n_context_features", 0), ("hidden_units", 1), ("max_iter", 1)):
            check_integer(self, name, minimum)
        check_integer(self, "n_init", 1)
        for name in ("alpha", "gate_alpha", "balance"):
            check_real(self, name, 0.0)
        check_real(self, "tol", 0.0, above_minimum=True)
        check_choice(self, "gate", GATES)

    def _gate(self) -> Gate:
        return Gate.create(self.gate, self.n_context_features, self.n_components, self.hidden_units)

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(p.shape for p in (self.coef_, *self.gate_parameters_))

    def _parameters(self) -> np.ndarray:
        return flatten([self.coef_, *self.gate_parameters_])

    def _set_parameters(self, parameters: list[np.ndarray]) -> None:
        self.coef_, *self.gate_parameters_ = (p.copy() for p in parameters)

    def _set_mean_weights(self, X: Array, sample_weight: np.ndarray | None, ranks: Communicator = ALONE) -> None:
        def sums() -> np.ndarray:
            total = np.zeros(self.n_components)
            for rows, context in row_blocks(split_pairs(X, self.n_context_features)[0]):
                weights = np.exp(to_numpy(self.context_log_weights(context)).astype(np.float64))
                total += weights.sum(axis=1) if sample_weight is None else weights @ sample_weight[rows]
            return total

        if self.n_context_features:
            total = ranks.sum(sums, self.n_components, self._parameters())
        else:  # the same in every row
            total = np.exp(to_numpy(self.context_log_weights(zeros((1, 0), X)))[:, 0].astype(np.float64))
        self.weights_ = total / total.sum()

    def _sort_components(self) -> None:
        order = np.argsort(-self.weights_, kind="stable")
        self.weights_, self.coef_ = self.weights_[order], self.coef_[order]
        # The last two parameters of every gate are its output weights and offsets.
        for i in range(max(0, len(self.gate_parameters_) - 2), len(self.gate_parameters_)):
            self.gate_parameters_[i] = self.gate_parameters_[i][order]

    def _objective(
        self, X: Array, y: ArrayLike | None, sample_weight: ArrayLike | None, groups: Groups | None
    ) -> MixtureObjective:
        """The unpenalised objective of the fitted parameters on other rows."""
        check_is_fitted(self)
        X = check_matrix(self, X, reset=False)
        weight = check_sample_weight(sample_weight, X.shape[0])
        root_mean_square_norms(X, self.n_context_features)  # names the first entry that is not finite
        return MixtureObjective(
            PairReader(X, self.n_context_features),
            self._gate(),
            signs=check_labels(y, X.shape[0], classes=self.classes_)[0],
            sample_weight=weight,
            groups=groups,
        )

    def _forward(self, X: Array) -> tuple[Array, Array]:
        """Margins and log-weights of every row, both (n_components, n_samples)."""
        check_is_fitted(self)
        X = check_matrix(self, X, reset=False)
        reader = PairReader(X, self.n_context_features)
        return head_margins(reader, self.coef_), self.context_log_weights(split_pairs(X, self.n_context_features)[0])

    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted mixture; what a stream remembers besides is left out."""
        check_is_fitted(self)
        arrays = {"coef": self.coef_, "weights": self.weights_, **numbered("gate", self.gate_parameters_)}
        return arrays, describe(self, _STATE)

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The mixture that `_export` described."""
        mixture = cls(**description["parameters"])
        mixture.coef_, mixture.weights_ = arrays["coef"], arrays["weights"]
        mixture.gate_parameters_ = gathered("gate", arrays)
        mixture._stream = None
        recover(mixture, description, _STATE)
        return mixture

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


@dataclass
class _Stream:
    """What `partial_fit` remembers besides the parameters."""

    adam: Adam
    evidence: EvidenceTable
    norms: RunningNorms
    initial_age: int

    @classmethod
    def create(cls, n_components: int, age: int) -> _Stream:
        return cls(Adam(_STEP_RATE), EvidenceTable(n_components + 1), RunningNorms(), age)

    @property
    def age(self) -> int:
        """Batches from which the heads have learned."""
        return self.initial_age + self.adam.count

    def recall(self, keys: np.ndarray) -> np.ndarray:
        """Evidence of groups seen before, (n_groups, n_components), discounted by how little was known then.

        Heads of step t₀ are worth (t₀ / t)³ of today's: without this, annotators who came first are held for ever to
        what heads that had learned nothing thought of them.
        """
        values = self.evidence.get(keys)
        taken_at = values[:, -1:]
        return values[:, :-1] * (taken_at / self.age) ** _EVIDENCE_DISCOUNT

    def record(self, keys: np.ndarray, evidence: np.ndarray) -> None:
        """Keep the evidence of groups, (n_groups, n_components), and when it was taken."""
        taken_at = np.full((len(evidence), 1), self.age)
        # Only differences between heads matter; kept relative to the best, they stay exact in single precision.
        self.evidence.set(keys, np.hstack([evidence - evidence.max(axis=1, keepdims=True), taken_at]))


def _scale(context_norm: float, difference_norm: float, objective: MixtureObjective) -> np.ndarray:
    """One over the usual size of every parameter in the flat vector."""
    return flatten([head_scale(difference_norm, objective.shapes[0]), *gate_scale(context_norm, objective.gate)])


def _random_start(objective: MixtureObjective, scale: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Heads with random directions and small margins, and equal weights; zero where the problem is convex.

    Parameters are drawn, never rows: a repeated row must equal a row of weight 2.
    """
    shapes, gate = objective.shapes, objective.gate
    if gate.n_components == 1:
        return np.zeros(int(np.prod(shapes[0])))
    heads = random.normal(size=shapes[0]) * (_START_MARGIN / np.sqrt(shapes[0][1]))
    variables = [heads, *gate.initial(random)]
    return flatten(variables) / scale


def _subset(groups: Groups, rows: slice) -> Groups | None:
    """The groups of some rows only; None where all of them are ungrouped."""
    index = groups.index[rows]
    present = np.unique(index[index >= 0])
    if not len(present):
        return None
    position = np.full(groups.n_groups, -1, dtype=np.int32)
    position[present] = np.arange(len(present), dtype=np.int32)
    return Groups(groups.ids[present], np.where(index >= 0, position[index], np.int32(-1)))
