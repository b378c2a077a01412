"""ContextRouter: which preference applies here?"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, is_torch, like, namespace, place, precision, to_numpy
from micropref._engine.gates import GATES, Gate, flatten, unflatten
from micropref._engine.objectives import GateObjective, log_odds, log_sigmoid, log_softmax
from micropref._engine.prediction import accuracy, gate_log_weights, head_margins, labels, probabilities
from micropref._engine.scaling import RunningNorms, gate_scale, gate_step
from micropref._engine.solvers import Adam, lbfgs
from micropref._parameters import check_choice, check_integer, check_real
from micropref._rows.layout import PairReader, narrow_context, root_mean_square_norms
from micropref._rows.validation import check_groups, check_labels, check_matrix, check_sample_weight
from micropref._saveable import pack, under, unpack
from micropref._state import Arrays, describe, gathered, numbered, recover, restore_ids, store_ids
from micropref._users.history import UserHistory
from micropref._users.merging import merged_users
from micropref._users.neighbors import NeighborGate
from micropref.kernels._threads import blas_threads

_SOLVERS = ("direct", "hedge")
_MAX_ITER = 500
_TOL = 1e-6
_STEP_RATE = 0.1

_STATE = ("objective_", "n_iter_", "converged_")


class ContextRouter(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Learns which head of a mixture applies, from a few labelled contexts or from a user's own votes.

    Stage 2 of MiCRo (Shen et al., EMNLP 2025, Eq. 5 and Algorithm 1). The heads are frozen. With
    L_ik = −log σ(s_i w_kᵀ d_i), labelled pairs with context teach the weights f(c) by minimising

        J_τ(f) = −(1/Ω) Σ_i ω_i log Σ_k f_k(c_i) exp(−L_ik / τ) + ½ alpha ‖gate weights‖²,
        f(c) = softmax(log f⁰(c) + g(c)),

    where f⁰ is the mixture's own gate, or its weights where it has none, and g starts at zero. τ = 1 is Bayes' rule;
    τ → 0 asks which head wins a pair.

    A user's own votes need no context: with the context as the prior and the history as evidence,

        log-weight of head k for user u  =  log f_k(c) − Σ_{i seen from u} decay^{age_i} L_ik / history_temperature.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Fitted (``prefit=True``), or to be cloned and fitted on the same rows (``prefit=False``).
    n_context_features : int, optional
        Number of leading columns of X that describe the context. None: all columns but the last d, which are the
        difference; as many as the mixture's own where the mixture is not fitted yet. The mixture's own context must be
        empty or the first columns of this one.
    temperature : float, default=1.0
        τ.
    history_temperature : float, default=1.0
        Temperature of a user's votes; larger values trust them less.
    history_decay : float, default=1.0
        Factor in (0, 1] by which each later vote of a user discounts the earlier ones, for users who change.
    gate : {"linear", "mlp", "knn"}, default="linear"
        g is linear; has one hidden layer; or f is learned from the nearest labelled contexts alone.
    hidden_units : int, default=128
        Width of the hidden layer of the "mlp" gate.
    solver : {"direct", "hedge"}, default="direct"
        Minimise J_τ by L-BFGS, or by the paper's algorithm: targets t_ik ∝ f_k(c_i) exp(−L_ik / τ), then cross-entropy,
        `n_iter` times. Every such step lowers J_τ, and both end at the same place.
    n_iter : int, default=20
        Steps of the "hedge" solver.
    alpha : float, default=1e-3
        L2 penalty of the gate's weights.
    n_neighbors : int, optional
        Neighbours of the "knn" gate; None: the square root of the number of labelled contexts, at least 5.
    prefit : bool, default=True
        Use the fitted mixture as it is. False makes the router a whole two-stage estimator.
    device : str or torch.device, optional
        Where to fit; None: where X is.
    random_state : int, RandomState instance or None, default=None
        Seed of the "mlp" gate's hidden layer, and with ``prefit=False`` of a mixture that has none.

    Attributes
    ----------
    mixture_ : MixtureBradleyTerry
        The fitted mixture.
    n_context_features_ : int
        Context columns of X.
    gate_parameters_ : list of ndarray
        Parameters of g: weights (K, c) and offsets (K,) if linear.
    objective_ : float
        J_τ, in nats per row; after `fit` with a parametric gate.
    loss_curve_ : list of float
        J_τ before the first step of Hedge and after each; empty for the direct solver.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Shen et al., "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning", EMNLP 2025,
    arXiv:2505.24846.

    Examples
    --------
    Whoever writes the first context likes the first feature, the second one dislikes it.

    >>> import numpy as np
    >>> from micropref import ContextRouter, MixtureBradleyTerry, make_pairs
    >>> rng = np.random.default_rng(0)
    >>> D = rng.normal(size=(800, 2))
    >>> annotator = np.arange(800) // 4
    >>> y = (D[:, 0] * np.where(annotator % 2 == 0, -3, 3) > 0).astype(int)
    >>> heads = MixtureBradleyTerry(n_components=2, random_state=0).fit(D, y, groups=annotator)
    >>> context = np.eye(2)[annotator % 2]
    >>> X = make_pairs(D, 0 * D, context=context)
    >>> router = ContextRouter(heads).fit(X[:20], y[:20])
    >>> float(router.score(X[20:], y[20:])) > 0.95
    True

    A user who votes is known from then on, without context; another one gets the prior.

    >>> router = ContextRouter(heads).partial_fit(D[:4], y[:4], groups=["ann"] * 4)
    >>> router.mixture_weights(D[:2], groups=["ann", "bob"]).max(axis=1).round(1)
    array([1. , 0.5])
    """

    def __init__(
        self,
        mixture: Any,
        *,
        n_context_features: int | None = None,
        temperature: float = 1.0,
        history_temperature: float = 1.0,
        history_decay: float = 1.0,
        gate: str = "linear",
        hidden_units: int = 128,
        solver: str = "direct",
        n_iter: int = 20,
        alpha: float = 1e-3,
        n_neighbors: int | None = None,
        prefit: bool = True,
        device: Any = None,
        random_state: Any = None,
    ):
        self.mixture = mixture
        self.n_context_features = n_context_features
        self.temperature = temperature
        self.history_temperature = history_temperature
        self.history_decay = history_decay
        self.gate = gate
        self.hidden_units = hidden_units
        self.solver = solver
        self.n_iter = n_iter
        self.alpha = alpha
        self.n_neighbors = n_neighbors
        self.prefit = prefit
        self.device = device
        self.random_state = random_state

    # ------------------------------------------------------------------------------------------------------- learning

    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn f from labelled pairs with context; forget all users.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
        y : array-like of shape (n_samples,), optional
            1, True: first preferred; 0, -1, False: second preferred. None: first preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            Annotators of the rows, for the mixture; only with ``prefit=False``. The votes of known users are learned by
            `partial_fit`.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            If ``prefit=True`` and the mixture is not fitted.
        ValueError
            If the context of X is not an extension of the mixture's, and for bad input as in
            `MixtureBradleyTerry.fit`.
        """
        self.check_parameters()
        X = place(check_matrix(self, X, reset=True), self.device)
        signs, classes = check_labels(y, X.shape[0])
        weight = check_sample_weight(sample_weight, X.shape[0])
        if self.prefit:
            if groups is not None:
                raise ValueError(
                    "groups are the annotators of stage 1, which is fitted already; "
                    "use partial_fit for the votes of known users, or prefit=False"
                )
            self.mixture_ = self._fitted_mixture()
        else:
            stage_one = narrow_context(X, self._expected_context(X), self.mixture.n_context_features)
            self.mixture_ = self._cloned_mixture().fit(stage_one, y, sample_weight=weight, groups=groups)
        self._begin(X, classes)
        reader = PairReader(X, self.n_context_features_)
        norms = root_mean_square_norms(X, self.n_context_features_, weight)
        evidence = self._evidence(reader, signs)
        offset = self._log_prior(reader)
        if self.gate == "knn":
            self._remember(reader, evidence, weight)
            return self
        objective = GateObjective(
            reader, self._gate(), evidence=evidence, offset=offset, sample_weight=weight, alpha=self.alpha
        )
        scale = self._scale(norms[0])
        start = self._initial_parameters(scale)
        solve = self._solve_hedge if self.solver == "hedge" else self._solve_direct
        with blas_threads(bool(objective.gate.hidden_units)):
            self._set_parameters(solve(objective, start, scale))
        if not self.converged_ and self.solver == "direct":
            warnings.warn(
                f"L-BFGS stopped after {self.n_iter_} iterations before the gradient fell below {_TOL}. "
                "Scale the contexts with PairScaler, or increase alpha.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _solve_direct(self, objective: GateObjective, start: np.ndarray, scale: np.ndarray) -> np.ndarray:
        found = lbfgs(
            objective.value_and_gradient,
            start,
            scale=scale,
            max_iter=_MAX_ITER,
            tol=_TOL,
            precision=self._precision(objective),
        )
        self.objective_, self.n_iter_, self.converged_ = found.value, found.n_iter, found.converged
        return found.vector

    def _solve_hedge(self, objective: GateObjective, start: np.ndarray, scale: np.ndarray) -> np.ndarray:
        vector = start
        self.loss_curve_.append(objective.value_and_gradient(vector)[0])
        for _ in range(self.n_iter):
            targets = objective.targets(vector)
            vector = lbfgs(
                partial(objective.cross_entropy, targets=targets),
                vector,
                scale=scale,
                max_iter=_MAX_ITER,
                tol=_TOL,
                precision=self._precision(objective),
            ).vector
            self.loss_curve_.append(objective.value_and_gradient(vector)[0])
        value, gradient = objective.value_and_gradient(vector)
        self.objective_, self.n_iter_ = value, self.n_iter
        self.converged_ = bool(gradient.size == 0 or np.abs(gradient / scale).max() <= np.sqrt(_TOL))
        return vector

    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Take in votes: rows with a group update that user's history, the others take a stochastic step on f.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Votes, oldest first.
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred"; needed only if they are none of 0, 1, False,
            True, -1 and the first batch holds one of them alone.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            User of every row; None, NaN or -1 where there is none.

        Returns
        -------
        self
        """
        started = hasattr(self, "history_")
        if not started:
            self.check_parameters()
        X = place(check_matrix(self, X, reset=not started), self.device)
        if started and classes is None:
            classes = self.classes_
        signs, classes = check_labels(y, X.shape[0], classes=classes)
        if started and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes is {classes.tolist()} but was {self.classes_.tolist()} in the first call")
        weight = check_sample_weight(sample_weight, X.shape[0])
        users = check_groups(groups, X.shape[0])
        if not self._is_prefit():
            # Nothing is learned from rows that stage 2 refuses.
            root_mean_square_norms(X, self._expected_context(X))
            context = self.n_context_features_ if started else self._expected_context(X)
            stage_one = narrow_context(X, context, self.mixture.n_context_features)
            mixture = self.mixture_ if started else self._cloned_mixture()
            mixture.partial_fit(stage_one, y, classes=classes, sample_weight=weight, groups=groups)
            self.mixture_ = mixture
        if not started:
            if self._is_prefit():
                self.mixture_ = self._fitted_mixture()
            self._begin(X, classes)
            norms = root_mean_square_norms(X, self.n_context_features_, weight)
            self._set_parameters(self._initial_parameters(self._scale(norms[0])))
        reader = PairReader(X, self.n_context_features_)
        votes = self._evidence(reader, signs, 1.0)
        if users is None:
            self._step(reader, votes / self.temperature, weight)
            return self
        grouped = users.index >= 0
        rest = np.flatnonzero(~grouped)
        if weight is not None:
            grouped &= weight > 0  # a vote without weight was never cast, and makes no other vote older
        seen = to_numpy(votes) if weight is None else to_numpy(votes) * weight
        self.history_.update(users.ids.tolist(), users.index[grouped], seen[:, grouped], self.history_decay)
        if len(rest) and (weight is None or weight[rest].any()):
            where = like(rest, X) if is_torch(X) else rest
            part = PairReader(X[where], self.n_context_features_)
            self._step(part, votes[:, where] / self.temperature, None if weight is None else weight[rest])
        return self

    def _step(self, reader: PairReader, evidence: Array, weight: np.ndarray | None) -> None:
        """Learn f from labelled pairs of a stream."""
        if self.gate == "knn":
            self._remember(reader, evidence, weight)
            return
        gate = self._gate()
        if not gate.shapes:
            return
        self._norms.observe(root_mean_square_norms(reader.X, reader.n_context_features, weight), reader.n_samples)
        objective = GateObjective(
            reader, gate, evidence=evidence, offset=self._log_prior(reader), sample_weight=weight, alpha=self.alpha
        )
        vector = flatten(self.gate_parameters_)
        self.objective_, gradient = objective.value_and_gradient(vector)
        scale = self._scale(self._norms.context)
        self._set_parameters(self._adam.step(vector, gradient, scale, flatten(gate_step(gate))))

    # ------------------------------------------------------------------------------------------------------ prediction

    def decision_function(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Log-odds that the first response is preferred, in this context and by this user.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            User of every row; an unknown user, None, NaN or -1 gets what the context says.

        Returns
        -------
        log_odds : array of shape (n_samples,)
            In nats.
        """
        margins, log_weights = self._forward(X, groups)
        return log_odds(log_weights, margins)

    def predict_proba(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Probabilities of the two labels, in the order of `classes_`.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        probabilities : array of shape (n_samples, 2)
        """
        return probabilities(self.decision_function(X, groups))

    def predict(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """The label of the response more likely to be preferred.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return labels(self.decision_function(X, groups), self.classes_)

    def score(
        self,
        X: Array,
        y: ArrayLike | None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Share of rows whose preferred response is predicted.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,) or None
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        accuracy : float
        """
        return accuracy(self.decision_function(X, groups), y, self.classes_, sample_weight)

    def mixture_weights(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Weights of the heads for every row.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        weights : array of shape (n_samples, n_components)
        """
        log_weights = self._forward(X, groups)[1]
        return namespace(log_weights).exp(log_weights).T

    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean log-probability of the labels per row, in nats, each row on its own.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        log_likelihood : float
        """
        odds = to_numpy(self.decision_function(X, groups)).astype(np.float64)
        weight = check_sample_weight(sample_weight, len(odds))
        signs, _ = check_labels(y, len(odds), classes=self.classes_)
        return float(np.average(log_sigmoid(odds if signs is None else odds * signs), weights=weight))

    def rewards(self, features: Array, context: Array | None = None, groups: ArrayLike | None = None) -> Array:
        """Rewards Σ_k f_k(c) w_kᵀ φ of single responses, in this context and for this user.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array of shape (n_responses, n_context_features), optional
            Needed if the router has a context.
        groups : array-like of shape (n_responses,), optional
            As in `decision_function`.

        Returns
        -------
        rewards : array of shape (n_responses,)
            Only differences between responses to the same prompt have a meaning.
        """
        check_is_fitted(self, "history_")
        if context is None and self.n_context_features_:
            raise ValueError(f"this router reads {self.n_context_features_} context features; pass context=...")
        each = self.mixture_.rewards(features)
        xp = namespace(each)
        X = features if context is None else xp.concat([xp.asarray(context), xp.asarray(features)], axis=1)
        return xp.sum(each * self.mixture_weights(X, groups), axis=1)

    # -------------------------------------------------------------------------------------------------------- internals

    def check_parameters(self) -> None:
        """A ValueError for the first parameter that is out of range, as `fit` would raise it."""
        for name in ("temperature", "history_temperature"):
            check_real(self, name, 0.0, above_minimum=True)
        check_real(self, "history_decay", 0.0, 1.0, above_minimum=True)
        check_real(self, "alpha", 0.0)
        check_choice(self, "gate", (*GATES, "knn"))
        check_choice(self, "solver", _SOLVERS)
        for name in ("hidden_units", "n_iter"):
            check_integer(self, name, 1)
        if self.n_neighbors is not None:
            check_integer(self, "n_neighbors", 1)
        if self.n_context_features is not None:
            check_integer(self, "n_context_features", 0)

    def _is_prefit(self) -> bool:
        """Whether the mixture is used as it is; a frozen one never learns."""
        return self.prefit or isinstance(self.mixture, FrozenEstimator)

    def _fitted_mixture(self) -> Any:
        try:
            check_is_fitted(self.mixture, "coef_")
        except NotFittedError:
            raise NotFittedError(
                "The mixture of this ContextRouter is not fitted, or was cloned and lost its fit. Fit it first, wrap "
                "it in sklearn.frozen.FrozenEstimator so that clones keep it, or use prefit=False"
            ) from None
        return self.mixture

    def _cloned_mixture(self) -> Any:
        mixture = clone(self.mixture)
        # One seed makes both stages repeatable. A frozen mixture has no seed of its own to set.
        if mixture.get_params(deep=False).get("random_state", self) is None:
            mixture.set_params(random_state=self.random_state)
        return mixture

    def _expected_context(self, X: Array) -> int:
        """Context columns of X before the mixture is fitted."""
        return self.mixture.n_context_features if self.n_context_features is None else self.n_context_features

    def _begin(self, X: Array, classes: np.ndarray) -> None:
        n_features = self.mixture_.coef_.shape[1]
        own = self.mixture_.n_context_features
        found = X.shape[1] - n_features
        wanted = found if self.n_context_features is None else self.n_context_features
        if found != wanted or found < own:
            raise ValueError(
                f"X has {X.shape[1]} columns, of which the last {n_features} are the difference (as the mixture was "
                f"fitted), so that {found} are context; expected "
                f"{f'at least {own}' if self.n_context_features is None else wanted}. The mixture's own context "
                f"({own} columns) must be empty or the first columns of the router's"
            )
        self._start(found, classes)

    def _start(self, n_context_features: int, classes: np.ndarray) -> None:
        """Nothing learned and no user known."""
        n_components = self.mixture_.coef_.shape[0]
        self.n_context_features_ = n_context_features
        self.classes_ = classes
        self.history_ = UserHistory(n_components)
        self.loss_curve_: list[float] = []
        self._neighbors = (
            NeighborGate(n_context_features, n_components, self.n_neighbors) if self.gate == "knn" else None
        )
        self._adam = Adam(_STEP_RATE)
        self._norms = RunningNorms()
        self.gate_parameters_: list[np.ndarray] = []

    def _gate(self) -> Gate:
        n_components = self.mixture_.coef_.shape[0]
        kind = "linear" if self.gate == "knn" else self.gate
        return Gate.create(kind, self.n_context_features_, n_components, self.hidden_units)

    def _scale(self, context_norm: float) -> np.ndarray:
        """One over the usual size of every parameter of g."""
        return np.empty(0) if self.gate == "knn" else flatten(gate_scale(context_norm, self._gate()))

    def _initial_parameters(self, scale: np.ndarray) -> np.ndarray:
        """Parameters of g = 0, with a hidden layer of random directions if there is one."""
        if self.gate == "knn":
            return np.empty(0)
        parameters = self._gate().initial(check_random_state(self.random_state))
        for output in parameters[-2:]:
            output[...] = 0.0
        return flatten(parameters) / scale

    @staticmethod
    def _precision(objective: GateObjective) -> float:
        return max(precision(objective.contexts), objective.gate.precision)

    def _set_parameters(self, vector: np.ndarray) -> None:
        shapes = () if self.gate == "knn" else self._gate().shapes
        self.gate_parameters_ = [p.copy() for p in unflatten(vector, shapes)]

    def _evidence(self, reader: PairReader, signs: np.ndarray | None, temperature: float | None = None) -> Array:
        """−L_ik / τ of every row, (n_components, n_samples)."""
        margins = head_margins(reader, self.mixture_.coef_)
        if signs is not None:
            margins = margins * like(signs, margins, margins.dtype)
        return log_sigmoid(margins) / (self.temperature if temperature is None else temperature)

    def _log_prior(self, reader: PairReader) -> Array:
        """log f⁰ of every row, (n_components, n_samples)."""
        return self.mixture_.context_log_weights(reader.X[:, : self.mixture_.n_context_features])

    def _remember(self, reader: PairReader, evidence: Array, weight: np.ndarray | None) -> None:
        assert self._neighbors is not None
        contexts, votes = to_numpy(reader.X[:, : self.n_context_features_]), to_numpy(evidence)
        if weight is None:
            self._neighbors.add(contexts, votes, np.ones(len(contexts)))
        else:
            counted = weight > 0
            self._neighbors.add(contexts[counted], votes[:, counted], weight[counted])

    def _forward(self, X: Array, groups: ArrayLike | None) -> tuple[Array, Array]:
        """Margins and log-weights of every row, both (n_components, n_samples)."""
        check_is_fitted(self, "history_")
        X = check_matrix(self, X, reset=False)
        users = check_groups(groups, X.shape[0])
        reader = PairReader(X, self.n_context_features_)
        margins = head_margins(reader, self.mixture_.coef_)
        prior = self._log_prior(reader)
        if self._neighbors is not None:
            contexts = to_numpy(X[:, : self.n_context_features_])
            log_weights = like(self._neighbors.log_weights(contexts, to_numpy(prior)), margins, margins.dtype)
        else:
            contexts = X[:, : self.n_context_features_]
            log_weights = gate_log_weights(contexts, self._gate(), self.gate_parameters_, prior)
        if users is not None:
            votes = self.history_.evidence(users.ids.tolist(), users.index) / self.history_temperature
            updated = log_softmax(log_weights + like(votes, margins, margins.dtype))
            # Whoever has no evidence gets the prior to the last bit, which normalising again might not leave.
            has_evidence = like(np.asarray(np.any(votes, axis=0)), margins)
            log_weights = namespace(updated).where(has_evidence, updated, log_weights)
        return margins, log_weights

    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted router, its mixture and its users."""
        check_is_fitted(self, "history_")
        of_mixture, mixture = pack(self.mixture_)
        arrays = {f"mixture.{name}": array for name, array in of_mixture.items()}
        arrays.update(numbered("gate", self.gate_parameters_))
        if self._neighbors is not None:
            arrays.update({f"neighbors.{name}": array for name, array in self._neighbors.export().items()})
        users, arrays["history"] = self.history_.export()
        description = describe(self, (*_STATE, "n_context_features_", "loss_curve_"))
        description["parameters"]["mixture"] = None
        return arrays, {**description, "mixture": mixture, "users": store_ids(users, arrays)}

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The router that `_export` described; its first stage comes fitted, also where it had fitted it by itself."""
        mixture = unpack(under("mixture", arrays), description["mixture"])
        router = cls(**{**description["parameters"], "mixture": mixture, "prefit": True})
        router.mixture_ = mixture
        router._start(description["state"]["n_context_features_"], np.empty(0))
        recover(router, description, (*_STATE, "loss_curve_"))
        router.gate_parameters_ = gathered("gate", arrays)
        router.history_.restore(*merged_users(restore_ids(description["users"], arrays), arrays["history"]))
        if router._neighbors is not None:
            router._neighbors.restore({name: arrays[f"neighbors.{name}"] for name in NeighborGate.ARRAYS})
        return router

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
