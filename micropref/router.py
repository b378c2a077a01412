"""ContextRouter: which preference applies here?"""

from __future__ import annotations

import warnings
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._engine.gate_solvers import TOL, tempered
from micropref._engine.gaussian_users import Scatter
from micropref._estimator.asking_heads import AskingHeads
from micropref._estimator.context_gates import CONTEXT_GATES, GateSettings, Labelled, create_context_gate
from micropref._estimator.fitting import check_same_parameters, frozen, learning, predicting, twin
from micropref._estimator.parameters import check_choice, check_integer, check_penalty, check_real
from micropref._estimator.routed_heads import ROUTED_STATE, restored_users, restored_width
from micropref._estimator.saveable import arrays_with_prefix, pack, unpack
from micropref._estimator.state import Arrays, describe, recover, store_ids
from micropref._rows.comparisons import Comparisons, covering_classes
from micropref._rows.layout import narrow_context
from micropref._support.renamed import moved
from micropref._support.warnings import level_of_caller
from micropref._users.history import UserHistory
from micropref._users.posteriors import UserPosteriors
from micropref._users.store import Pairs, Votes

__all__ = ["ContextRouter"]

__getattr__ = moved(__name__)

_SOLVERS = ("direct", "hedge")
# Losses of usual size over a temperature stay inside the range of single precision.
_TEMPERATURES = (1e-20, 1e20)
# What shapes the parameters that `partial_fit` goes on with.
_SHAPE = ("mixture", "gate", "hidden_units", "n_context_features", "n_neighbors", "prefit")
_SCATTER = ("basis", "covariances", "residual")
_MIXTURES = ("MixtureBradleyTerry", "HierarchicalBradleyTerry")


class ContextRouter(MetaEstimatorMixin, AskingHeads):  # type: ignore[misc]
    r"""Route to the heads of a mixture, by a few labelled contexts or by a user's own votes.

    Stage 2 of MiCRo (Shen et al., EMNLP 2025, Eq. 5 and Algorithm 1). The heads are frozen. The weights f(c) are
    learned from labelled pairs with context: with L_ik = −log σ(s_i w_kᵀ d_i), they minimise

    .. math::

        J_\tau(f) &= -\frac{1}{\Omega} \sum_i \omega_i \log \sum_k f_k(c_i)\, e^{-L_{ik} / \tau}
            + \tfrac12\, \mathtt{alpha}\, \lVert \text{gate weights} \rVert^2, \\
        f(c) &= \operatorname{softmax}\bigl(\log f^0(c) + g(c)\bigr),

    where f⁰ is the mixture's own gate, or its weights if it has no gate, and g starts at zero. τ = 1 is Bayes' rule; as
    τ → 0, only the winning head of each pair matters.

    A user's own votes need no context: with the context as the prior and the history as evidence,
    the log-weight of head k for user u is

    .. math::

        \log f_k(c) - \sum_{i \text{ seen from } u} \mathtt{history\_decay}^{\text{age}_i}\,
            \frac{L_{ik}}{\mathtt{history\_temperature}}.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Fitted (``prefit=True``), or to be cloned and fitted on the same rows (``prefit=False``).
    n_context_features : int, optional
        Number of leading columns of X that describe the context. None: all columns but the last d, which are the
        difference; with an unfitted mixture, the number of its own context columns. The mixture's own context must be
        empty or the first columns of this one.
    temperature : float, default=1.0
        τ.
    history_temperature : float or "auto", default="auto"
        Temperature of a user's votes; larger values trust them less. "auto": the temperature at which the votes of the
        mixture's own annotators predict each other best (`MixtureBradleyTerry.history_temperature_`), or 1 if the
        mixture was fitted without annotators.
    history_decay : float, default=1.0
        Factor in (0, 1] by which each later vote of a user reduces the weight of the earlier ones, for users whose
        tastes change.
    gate : {"linear", "mlp", "knn", "cluster"}, default="linear"
        "linear": g is linear. "mlp": g has one hidden layer. "knn": f depends on the nearest labelled contexts alone.
        "cluster": labelled contexts share their evidence within clusters (`clusters_`); without clusters g is linear.
    hidden_units : int, default=128
        Width of the hidden layer of the "mlp" gate.
    solver : {"direct", "hedge"}, default="direct"
        Minimise J_τ by L-BFGS, or by the paper's algorithm: targets t_ik ∝ f_k(c_i) exp(−L_ik / τ), then cross-entropy,
        `n_iter` times. No such step raises J_τ, and both solvers converge to the same solution.
    n_iter : int, default=20
        Steps of the "hedge" solver.
    alpha : float or "auto", default="auto"
        L2 penalty of the gate's weights. "auto": mean_ω ‖c‖² / (s² Ω), with Ω the total weight of the labelled rows:
        the prior standard deviation of a logit is s = 5.5 nats, whatever the scale of the contexts and the number of
        labels.
    n_neighbors : int, optional
        Neighbours of the "knn" gate, counted by weight; None: the square root of the total weight, at least 5.
    prefit : bool, default=True
        Use the fitted mixture unchanged. False makes the router a complete two-stage estimator. In a stream of both
        stages, users keep the scatter of the first batch: make that batch large, or fit the mixture first.
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
    alpha_ : float
        The penalty that was used, once a parametric gate has learned from labelled rows.
    history_temperature_ : float
        The temperature of votes that was used.
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
    Annotators of the first context like the first feature, those of the second dislike it.

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

    objective_: float
    loss_curve_: list[float]
    n_iter_: int
    converged_: bool

    _SAVED_ENTRIES, _SAVED_SINCE = ("mixture", "users"), ("users_scatter",)
    _SAVED_TENSORS = (
        r"mixture\..+|gate\.[0-3]|gate_prior|neighbors\.(contexts|evidence|weight)|clusters\..+|history|users"
        r"|answered\.(users|pairs)|users\.(basis|covariances|residual)"
    )

    def __init__(
        self,
        mixture: Any,
        *,
        n_context_features: int | None = None,
        temperature: float = 1.0,
        history_temperature: float | str = "auto",
        history_decay: float = 1.0,
        gate: str = "linear",
        hidden_units: int = 128,
        solver: str = "direct",
        n_iter: int = 20,
        alpha: float | str = "auto",
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

    @learning
    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        contexts: Array | None = None,
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
        contexts : array of shape (n_contexts, n_context_features), optional
            Contexts without labels, among which, and those of X, the "cluster" gate looks for clusters; other gates do
            not read them.

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
        self.__dict__.pop("mixture_", None)
        if self._is_prefit() and groups is not None:
            raise ValueError(
                "groups: expected None, since the annotators of stage 1 have been learned from already, got groups; "
                "use partial_fit for the votes of known users, or prefit=False"
            )
        if self._is_prefit():
            self.mixture_ = self._fitted_mixture()
        rows = self._read(X, y, sample_weight, groups, first=True)
        if not self._is_prefit():
            self.mixture_ = self._cloned_mixture().fit(
                self._stage_one(rows), y, sample_weight=sample_weight, groups=groups
            )
            self._context_width(rows.reader.X.shape[1])
        self._start(rows.reader.n_context_features, rows.classes)
        self._set_history_temperature()
        labelled = self._labelled(rows, self._pairs(rows.reader).signed(rows.signs))._replace(unlabelled=contexts)
        found = self._context_gate.fit(labelled, self._gate_settings())
        if found is None:
            return self
        self.objective_, self.n_iter_, self.converged_ = found.value, found.n_iter, found.converged
        self.loss_curve_ = found.loss_curve
        if not self.converged_ and self.solver == "direct":
            warnings.warn(
                f"L-BFGS stopped after {self.n_iter_} iterations before the gradient fell below {TOL}. "
                "Scale the contexts with PairScaler, or increase alpha.",
                ConvergenceWarning,
                stacklevel=level_of_caller(),
            )
        return self

    @learning
    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn votes: rows with a group update that user's history; the other rows take a stochastic step on f.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Votes, oldest first.
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred"; needed only if they are not among 0, 1,
            False, True, -1 and the first batch has only one of them.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            User of every row; None, NaN or -1 for a row without a user.

        Returns
        -------
        self
        """
        started = hasattr(self, "history_")
        self.check_parameters()
        check_same_parameters(self, _SHAPE)
        if not started and self._is_prefit():
            self.mixture_ = self._fitted_mixture()
        rows = self._read(X, y, sample_weight, groups, first=not started, classes=self._known_classes(classes))
        if not self._is_prefit():
            mixture = twin(self.mixture_) if started else self._cloned_mixture()
            self.mixture_ = mixture.partial_fit(
                self._stage_one(rows),
                y,
                classes=rows.classes,
                sample_weight=sample_weight,
                groups=groups,
            )
        if not started:
            self._context_width(rows.reader.X.shape[1])
            self._start(rows.reader.n_context_features, rows.classes)
            self._context_gate.begin(rows, self._gate_settings())
        self._set_history_temperature()
        self._learn_votes(rows)
        return self

    def _learn_votes(self, rows: Comparisons) -> None:
        """Rows with a user go into that user's history, the others teach f."""
        pairs = self._pairs(rows.reader).signed(rows.signs)
        users = rows.groups
        if users is None:
            self._step(rows, pairs)
            return
        voted = users.index >= 0
        rest = np.flatnonzero(~voted)
        if len(rest):
            labelled = rows.part(rest)
            if labelled.total_weight:
                self._step(labelled, pairs.part(rest))
        if rows.weight is not None:
            voted &= rows.weight > 0  # a vote without weight was never cast, and makes no other vote older
        votes = Votes(pairs.part(np.flatnonzero(voted)), None if rows.weight is None else rows.weight[voted])
        settings = self.history_decay, self.history_temperature_
        self.history_.update(users.ids.tolist(), users.index[voted], votes, *settings)
        self._remember_pairs(rows.reader, users, voted)

    def _step(self, rows: Comparisons, pairs: Pairs) -> None:
        """Learn f from labelled pairs of a stream."""
        self._context_gate = copy(self._context_gate)
        value = self._context_gate.step(self._labelled(rows, pairs), self._gate_settings())
        if value is not None:
            self.objective_ = value

    def _labelled(self, rows: Comparisons, pairs: Pairs) -> Labelled:
        return Labelled(rows, tempered(self._evidence(pairs), self.temperature), self._log_prior(rows.reader))

    # -------------------------------------------------------------------------------------------------------- internals

    def check_parameters(self) -> None:
        """Raise the ValueError that `fit` would raise for the first parameter out of range."""
        check_real(self, "temperature", *_TEMPERATURES, smallest=0.0)
        check_real(self, "history_temperature", *_TEMPERATURES, smallest=0.0, auto=True)
        check_real(self, "history_decay", 0.0, 1.0, above_minimum=True, smallest=0.0)
        check_penalty(self, "alpha")
        check_choice(self, "gate", CONTEXT_GATES)
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
        """A copy of the mixture's fit: fitting the caller's object again changes no router."""
        try:
            check_is_fitted(self.mixture, "coef_")
        except NotFittedError:
            raise NotFittedError(
                "The mixture of this ContextRouter is not fitted, or was cloned and lost its fit. Fit it first, wrap "
                "it in sklearn.frozen.FrozenEstimator so that clones keep it, or use prefit=False"
            ) from None
        return frozen(self.mixture)

    def _cloned_mixture(self) -> Any:
        mixture = clone(self.mixture)
        # One seed makes both stages repeatable. A frozen mixture has no seed of its own to set.
        if mixture.get_params(deep=False).get("random_state", self) is None:
            mixture.set_params(random_state=self.random_state)
        return mixture

    def _read(
        self, X: Array, y: Any, sample_weight: Any, groups: Any, *, first: bool, classes: Any = None
    ) -> Comparisons:
        width: Any = self._context_width if first else self.n_context_features_
        if first and classes is None and self._is_prefit():
            classes = covering_classes(self.mixture_.classes_, y)
        kind: dict[str, Any] = {"first": first, "n_context_features": width, "classes": classes, "device": self.device}
        return Comparisons.read(self, X, y, sample_weight, groups, **kind)

    def _context_width(self, n_columns: int) -> int:
        """Context columns of X; a ValueError where they are no extension of the mixture's."""
        if not hasattr(self, "mixture_"):  # yet to be fitted on the same rows
            own = self.mixture.n_context_features
            return int(own if self.n_context_features is None else self.n_context_features)
        n_features, own = self.mixture_.coef_.shape[1], self.mixture_.n_context_features_
        width = n_columns - n_features
        expected = width if self.n_context_features is None else self.n_context_features
        if width != expected or width < own:
            raise ValueError(
                f"X: expected {f'at least {own}' if self.n_context_features is None else expected} columns of context, "
                f"got {width} of {n_columns}, since the last {n_features} are the difference (as the mixture was "
                f"fitted). The mixture's own context ({own} columns) must be empty or the first columns of the router's"
            )
        return int(width)

    def _stage_one(self, rows: Comparisons) -> Array:
        """The rows as the mixture takes them."""
        own = self.mixture_.n_context_features_ if hasattr(self, "mixture_") else self.mixture.n_context_features
        return narrow_context(rows.reader.X, rows.reader.n_context_features, own)

    def _start(self, n_context_features: int, classes: NDArray[Any] | None) -> None:
        """Nothing learned and no user known."""
        n_components = self.mixture_.coef_.shape[0]
        self.n_context_features_ = n_context_features
        assert classes is not None
        self.classes_ = classes
        self._know_users(self.mixture_.scatter_)
        self.loss_curve_ = []
        self._context_gate = create_context_gate(
            self.gate,
            n_context_features,
            n_components,
            hidden_units=self.hidden_units,
            n_neighbors=self.n_neighbors,
        )

    def _set_history_temperature(self) -> None:
        chosen = self.history_temperature
        # A frozen mixture of version 0.1, or of another kind, has no annotators to ask.
        self.history_temperature_ = float(
            getattr(self.mixture_, "history_temperature_", 1.0) if isinstance(chosen, str) else chosen
        )

    def _know_users(self, scatter: Scatter | None) -> None:
        """No user yet, around heads with this scatter; in a stream of both stages that of the first batch stays."""
        self.history_ = UserHistory(len(self.mixture_.coef_)) if scatter is None else UserPosteriors(scatter)

    def _gate_settings(self) -> GateSettings:
        return GateSettings(self.alpha, self.solver, self.n_iter, self.random_state)

    def _forked(self) -> Self:
        """The same router, whose learning leaves this one as it is; the table of users is copied where it changes."""
        other = twin(self)
        other.history_, other._context_gate = self.history_.copy(), self._context_gate.isolated()
        other.mixture_ = self.mixture_._forked()
        return other

    @predicting
    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted router, its mixture and its users."""
        check_is_fitted(self, "history_")
        of_mixture, mixture = pack(self.mixture_)
        arrays = {f"mixture.{name}": array for name, array in of_mixture.items()}
        arrays.update(self._context_gate.export())
        arrays.update({f"answered.{name}": array for name, array in self.history_.export_answered().items()})
        users, arrays["history"] = self.history_.export()
        # In a stream of both stages, users keep the scatter around which their votes were read.
        own = self.history_.scatter
        if own is not None and own is not self.mixture_.scatter_:
            arrays.update({f"users.{name}": getattr(own, name) for name in _SCATTER})
        description = describe(self, ROUTED_STATE)
        description["parameters"]["mixture"] = None
        return arrays, {
            **description,
            "mixture": mixture,
            "users": store_ids(users, arrays),
            "users_scatter": own is not None,
        }

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The router that `_export` described; its first stage comes fitted, also where it had fitted it by itself."""
        mixture = unpack(arrays_with_prefix("mixture", arrays), description["mixture"], _MIXTURES)
        router = cls(**{**description["parameters"], "mixture": mixture, "prefit": True})
        router.check_parameters()
        router.mixture_ = mixture
        router._start(restored_width(description, mixture), np.empty(0))
        router._set_history_temperature()
        recover(router, description, ROUTED_STATE)
        router._context_gate.restore(arrays)
        router.history_ = restored_users(arrays, description, mixture)
        return router
