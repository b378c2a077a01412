"""MixtureBradleyTerry: whose preferences does a comparison express?"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._engine.gates import GATES, Gate, unflatten
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.prediction import mean_weights
from micropref._engine.priors import gate_penalty, head_penalty
from micropref._engine.scaling import RunningNorms
from micropref._engine.solvers import Minimum
from micropref._engine.starts import best_minimum, parameter_scale, random_start
from micropref._engine.vote_temperature import vote_temperature
from micropref._estimator.dead_heads import is_candidate_fit, warn_of_dead_heads
from micropref._estimator.determined import warn_of_undetermined
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import check_same_parameters, frozen, learning, predicting
from micropref._estimator.parameters import check_choice, check_integer, check_penalty, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, list_of
from micropref._estimator.state import Arrays, describe, recover
from micropref._estimator.uncertain_heads import UncertainHeads
from micropref._rows.comparisons import Comparisons
from micropref._support.progress import say
from micropref._support.renamed import moved
from micropref._support.warnings import level_of_caller
from micropref._users.stream import Stream
from micropref.distributed import Communicator, active_communicator
from micropref.distributed._agreement import Agreement, agree

__all__ = ["MixtureBradleyTerry"]

__getattr__ = moved(__name__)

# What may differ between the ranks of one fit.
_OWN_SETTINGS = frozenset({"device", "random_state", "verbose"})
# What shapes the parameters that `partial_fit` goes on with.
_SHAPE = ("n_components", "n_context_features", "gate", "hidden_units")
# Times the largest weights, it stays inside the range of single precision.
_LARGEST_BALANCE = 1e10
_STATE = {
    **dict.fromkeys(("alpha_", "gate_alpha_", "history_temperature_", "objective_"), REAL),
    "n_iter_": COUNT,
    "converged_": FLAG,
    "_seen": list_of(REAL, 3),
}


class MixtureBradleyTerry(UncertainHeads):
    r"""Mixture of Bradley-Terry reward heads with context-dependent weights.

    Stage 1 of MiCRo (Shen et al., EMNLP 2025, Eq. 1-4). K linear reward heads w_k share frozen features; a gate π(c)
    says how common each head's preferences are in context c. With d_i the difference of the features of the two
    responses and s_i = ±1 for first or second preferred,

    .. math::

        p(y_i \mid c_i) = \sum_k \pi_k(c_i)\, \sigma(s_i w_k^\top d_i), \qquad \pi(c) = \operatorname{softmax}(g(c)),

    .. math::

        J = {} & -\frac{1}{\Omega} \sum_i \omega_i \log p(y_i \mid c_i)
            + \mathtt{balance} \cdot \frac{1}{\Omega} \sum_i \omega_i \sum_k \pi_k(c_i) \log \pi_k(c_i) \\
            & + \tfrac12\, \mathtt{alpha}\, \lVert W \rVert^2
            + \tfrac12\, \mathtt{gate\_alpha}\, \lVert \text{gate weights} \rVert^2

    is minimised by L-BFGS from several random starts. With `groups` (the annotators), the component is drawn once per
    group u, and the likelihood of the group replaces the likelihoods of its rows,

    .. math::

        \ell_u = \log \sum_k \pi_k(\bar c_u) \prod_{i \in u} \sigma(s_i w_k^\top d_i)^{\omega_i},

    with c̄_u the mean context of its rows. Annotators who answer more than once make heads identifiable even if the
    population is split on every pair.

    Rows are comparisons, ``X = [context | difference]``; see `micropref.pairs.make_pairs`. A **tie** is two rows of
    weight ½, one in each order.

    Parameters
    ----------
    n_components : int, default=4
        Number K of heads. 1 is the Bradley-Terry model: logistic regression on differences without intercept. `fit`
        warns about a head with less than 2 % of the weight; `select_n_components` chooses K on held-out annotators.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context. 0: one set of weights for all rows.
    alpha : float or "auto", default="auto"
        L2 penalty of the heads, against the mean log-likelihood in nats. "auto": mean_ω ‖d‖² / (s² Ω), with Ω the total
        weight of the rows: the prior standard deviation of a margin wᵀd is s = 1.75 nats, whatever the scale of the
        features and the amount of data.
    gate_alpha : float or "auto", default="auto"
        L2 penalty of the gate's weights; its offsets are free. "auto": mean_ω ‖c‖² / (s² Ω) with s = 5.5 nats of
        log-odds.
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
        1 shows a progress bar if standard error is a terminal, and otherwise prints a line per start; 2 also prints a
        line per iteration.

    Attributes
    ----------
    coef_ : ndarray of shape (n_components, n_features)
        The heads w_k, the most frequent component first.
    weights_ : ndarray of shape (n_components,)
        Mean mixture weights over the rows seen in `fit`, or in the last call of `partial_fit`.
    gate_parameters_ : list of ndarray
        Parameters of the gate: [weights (K, c), offsets (K,)] if linear, [offsets] without context, empty for K = 1.
    new_user_coef_ : ndarray of shape (n_features,) or None
        One reward that serves users who have not voted, in `decision_function` and in a router that has not learned
        from contexts. Only ``PreferenceModel.fit(users="auto")`` sets it; None: all heads are used.
    alpha_, gate_alpha_ : float
        The penalties that were used: given, or chosen by "auto" for the rows so far. The output layer of an
        "mlp" gate has the prior of `gate_alpha_`, on the scale of its hidden units.
    history_temperature_ : float
        The temperature under which the votes of one annotator predict each other best, measured on held-out annotators
        of a short second fit; ``ContextRouter(history_temperature="auto")`` uses it. It is 1 (Bayes' rule) without
        groups, for one component, in a stream, and unless another value is better by more than one standard error.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
        Iterations of the start that was kept.
    converged_ : bool
    classes_ : ndarray of shape (2,)
        Labels that mean "second preferred" and "first preferred".
    n_features_in_ : int
        Number of columns of X.
    n_context_features_ : int
        Number of leading columns that are context.

    See Also
    --------
    ContextRouter : Learns which head applies, from a few labelled contexts or from a user's own votes.
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

    weights_: NDArray[np.float64]
    alpha_: float
    gate_alpha_: float
    history_temperature_: float
    objective_: float
    n_iter_: int
    converged_: bool
    _stream: Stream | None
    _seen: list[float]

    _LEARNS_FROM = ("_stream",)
    _SAVED_ENTRIES, _SAVED_SINCE = (), ("uncertainty",)
    _SAVED_TENSORS = r"coef|weights|new_user|gate\.[0-3]|uncertainty\.(covariance|unidentified|scale|deviations)"

    def __init__(
        self,
        n_components: int = 4,
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        gate_alpha: float | str = "auto",
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

    @learning
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
        rows = ranks.together(lambda: self._check(X, y, sample_weight, groups, is_share=ranks.world_size > 1))
        rows, agreed = agree(rows, self._settings(), self.random_state, ranks)
        objective = ranks.together(lambda: self._objective(rows, agreed, ranks))
        best = self._solve(objective, agreed)
        scale = parameter_scale(objective, agreed.norms)
        self.history_temperature_ = (
            1.0 if is_candidate_fit() else vote_temperature(objective, best.vector, scale, agreed.n_samples)
        )
        self._set_fitted(best, objective, rows, ranks)
        warn_of_undetermined(rows, self.alpha, float(agreed.norms[1]), agreed.weight, heads=self.coef_)
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
        """Learn from one batch of a stream: one stochastic step for every 512 rows.

        The rows of a group may be spread over several batches. The accumulated log-likelihood of the group under each
        head (K numbers) is kept, and is its prior when more of its rows arrive, so the heads are still identified.
        Evidence that was collected after t₀ batches has the weight (t₀ / t)³ after t batches, because the heads of
        early batches were inaccurate. Heads from `fit` count as 1 000 batches old.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred"; needed only if they are not among 0, 1,
            False, True, -1 and the first batch has only one of them.
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
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=not started, classes=known, device=self.device)
        before = getattr(self, "_stream", None)
        if before is not None:
            stream = before.forked()
        else:
            stream = Stream.create(self.n_components, fitted=RunningNorms.of(self._seen) if started else None)
        stream.observe(rows)
        gate, penalties = self._gate(), self._penalties(stream.norms)
        ungrouped = MixtureObjective(Comparisons(rows.reader), gate, penalties)
        scale = parameter_scale(ungrouped, stream.feature_norms)
        random = check_random_state(self.random_state)
        vector = self._parameters() if started else random_start(ungrouped, scale, random)
        vector, self.objective_ = stream.descend(rows, gate, penalties, vector, scale)
        assert rows.classes is not None
        self.classes_ = rows.classes
        self._stream = stream
        self.history_temperature_ = getattr(self, "history_temperature_", 1.0)
        self.n_iter_, self.converged_ = stream.adam.count, False
        self._set_parameters(unflatten(vector, ungrouped.shapes))
        self.weights_ = mean_weights(rows.context, gate, self.gate_parameters_, rows.weight)
        return self

    def _check(self, X: Array, y: Any, sample_weight: Any, groups: Any, *, is_share: bool) -> Comparisons:
        self._check_parameters()
        return Comparisons.read(self, X, y, sample_weight, groups, first=True, device=self.device, is_share=is_share)

    def _settings(self) -> dict[str, Any]:
        """What has to be the same on all ranks of a fit."""
        settings = {name: value for name, value in self.get_params(deep=False).items() if name not in _OWN_SETTINGS}
        settings["start from an earlier fit"] = bool(self.warm_start and hasattr(self, "coef_"))
        return settings

    def _objective(self, rows: Comparisons, agreed: Agreement, ranks: Communicator) -> MixtureObjective:
        penalties = self._penalties(RunningNorms(agreed.norms, agreed.weight))
        return MixtureObjective.of_fit(rows, self._gate(), penalties, communicator=ranks, total_weight=agreed.weight)

    def _solve(self, objective: MixtureObjective, agreed: Agreement) -> Minimum:
        if agreed.n_samples < self.n_components:
            raise ValueError(
                f"expected at least n_components={self.n_components} rows, got n_samples={agreed.n_samples}"
            )
        scale = parameter_scale(objective, agreed.norms)
        warm = self.warm_start and hasattr(self, "coef_") and self._shapes() == objective.shapes
        return best_minimum(
            objective,
            scale,
            self._parameters if warm else lambda: random_start(objective, scale, agreed.random),
            n_starts=1 if warm or self.n_components == 1 else self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            precision=max(agreed.precision, objective.gate.precision),
            verbose=self.verbose if objective.communicator.rank == 0 else 0,
        )

    def _set_fitted(self, best: Minimum, objective: MixtureObjective, rows: Comparisons, ranks: Communicator) -> None:
        """Set the attributes of a fit."""
        assert rows.classes is not None
        self.classes_ = rows.classes
        self.objective_, self.n_iter_, self.converged_ = best.value, best.n_iter, best.converged
        self._set_parameters(unflatten(best.vector, objective.shapes))
        self._stream = None
        self.weights_ = mean_weights(rows.context, objective.gate, self.gate_parameters_, rows.weight, ranks)
        chosen = f"alpha {self.alpha_:.3g}, gate_alpha {self.gate_alpha_:.3g}"
        say(self.verbose * (ranks.rank == 0), f"{chosen}, history_temperature {self.history_temperature_:g}")
        self._sort_components()
        warn_of_dead_heads(self.weights_)
        if not best.converged:
            warnings.warn(
                f"L-BFGS stopped after {best.n_iter} iterations before the gradient fell below tol={self.tol} "
                f"({best.message}). Increase max_iter, or scale the features with PairScaler.",
                ConvergenceWarning,
                stacklevel=level_of_caller(),
            )

    # -------------------------------------------------------------------------------------------------------- internals

    def _check_parameters(self) -> None:
        for name, minimum in (("n_components", 1), ("n_context_features", 0), ("hidden_units", 1), ("max_iter", 1)):
            check_integer(self, name, minimum)
        check_integer(self, "n_init", 1)
        for name in ("alpha", "gate_alpha"):
            check_penalty(self, name)
        check_real(self, "balance", 0.0, _LARGEST_BALANCE, smallest=0.0)
        check_real(self, "tol", 0.0, np.finfo(np.float64).max, above_minimum=True, smallest=0.0)
        check_choice(self, "gate", GATES)

    def _gate(self) -> Gate:
        """The gate to be learned."""
        return Gate.create(self.gate, self.n_context_features, self.n_components, self.hidden_units)

    def _penalties(self, seen: RunningNorms) -> Penalties:
        """Penalties for rows of these norms, which are kept."""
        gate_alpha = gate_penalty(self.gate_alpha, self._gate(), seen.context, seen.total_weight)
        self.alpha_ = head_penalty(self.alpha, seen.difference, seen.total_weight)
        self.gate_alpha_, self._seen = gate_alpha.inputs, seen.seen
        return Penalties(self.alpha_, gate_alpha, self.balance)

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(p.shape for p in (self.coef_, *self.gate_parameters_))

    def _forked(self) -> Self:
        """The same mixture, whose learning leaves this one as it is."""
        other = frozen(self)
        stream = getattr(self, "_stream", None)
        if stream is not None:
            other._stream = stream.isolated()
        return other

    def _set_parameters(self, parameters: list[NDArray[np.float64]]) -> None:
        self.coef_, *self.gate_parameters_ = (p.copy() for p in parameters)
        for of_heads_before in ("uncertainty_", "new_user_coef_"):
            self.__dict__.pop(of_heads_before, None)

    def _sort_components(self) -> None:
        order = np.argsort(-self.weights_, kind="stable")
        self.weights_, self.coef_ = self.weights_[order], self.coef_[order]
        # The last two parameters of every gate are its output weights and offsets.
        for i in range(max(0, len(self.gate_parameters_) - 2), len(self.gate_parameters_)):
            self.gate_parameters_[i] = self.gate_parameters_[i][order]

    @predicting
    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted mixture; what a stream remembers besides is left out."""
        check_is_fitted(self)
        of_uncertainty, kind = self._export_uncertainty()
        return {**self._export_heads(), **of_uncertainty}, {**describe(self, _STATE), "uncertainty": kind}

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The mixture that `_export` described."""
        mixture = cls(**description["parameters"])
        mixture._check_parameters()
        mixture._stream, mixture.history_temperature_ = None, 1.0
        # Version 0.1 had numbers only, and kept no total of the rows.
        given = description["parameters"]
        mixture.alpha_, mixture.gate_alpha_, mixture._seen = given["alpha"], given["gate_alpha"], [0.0, 0.0, 0.0]
        recover(mixture, description, _STATE)
        if isinstance(mixture.alpha_, str) or isinstance(mixture.gate_alpha_, str):
            raise ModelFileError("state.alpha_: expected the penalties that were chosen in a saved model, got none")
        mixture._restore_heads(arrays)
        mixture._restore_uncertainty(arrays, description.get("uncertainty"))
        return mixture
