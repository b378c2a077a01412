"""LowRankRewards (LoRe): every user's reward is a convex combination of a few shared ones."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.utils import check_random_state

from micropref._arrays.backend import precision
from micropref._engine.priors import head_penalty
from micropref._engine.solvers import Minimum, lbfgs
from micropref._estimator.fitting import twin
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups
from micropref.baselines._asking import AskingRewards, Ellipsoid
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._cross_fitting import adapted_losses, most_cautious
from micropref.baselines._heads import HeadRewards
from micropref.baselines._low_rank_objective import LowRankObjective, WeightObjective
from micropref.baselines._voters import held_out_users, in_order_of_votes
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_softmax

__all__ = ["LowRankRewards"]

# Sizes of the margins of random heads and of users' logits at the start.
_START_MARGIN = 3.0
_START_LOGIT = 2.0
# How precisely one user's weights are solved.
_WEIGHT_ITERATIONS = 500
_WEIGHT_TOL = 1e-8
# Of the prior of a user's logits where there is no penalty: next to none.
_LEAST_PRECISION = 1e-2
# Penalties of users' logits among which "auto" chooses, and the one that is taken without evidence;
# iterations of the basis by which it chooses.
_PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
_USUAL_PENALTY = 1.0
_ITERATIONS = 100
_MOST_USERS = 100


class LowRankRewards(AskingRewards, HeadRewards):
    r"""A basis of K reward heads, learned together with the weights of every annotator.

    LoRe (Bose et al., 2025). User u has the reward r_u(φ) = Σ_k π_uk b_kᵀ φ with π_u in the simplex: a combination of
    rewards, where a mixture of Bradley-Terry models (`MixtureBradleyTerry`) combines probabilities, one head being each
    annotator's true one. With π_u = softmax(θ_0 + δ_u), and θ_0 alone for ungrouped rows,

    .. math::

        J = {} & -\frac{1}{\Omega} \sum_i \omega_i \log \sigma\Bigl(s_i \sum_k \pi_{u(i)k}\, b_k^\top d_i\Bigr) \\
            & + \frac{\mathtt{alpha}}{2K} \sum_k \lVert b_k \rVert^2
            + \frac{\mathtt{weight\_penalty}}{2\Omega} \Bigl(\sum_u \lVert \delta_u \rVert^2 + \lVert \theta_0
                \rVert^2\Bigr)

    is minimised over basis and weights at once. A new user's few votes give δ_u alone, the basis and θ_0 being frozen:

    .. math::

        \delta_u = \operatorname*{argmin}_\delta \Bigl[ -\sum_{i \in u} \omega_i
            \log \sigma\Bigl(s_i \sum_k \pi_{uk}\, b_k^\top d_i\Bigr)
            + \tfrac12\, \mathtt{weight\_penalty}\, \lVert \delta \rVert^2 \Bigr],

    that is, exactly what joint training would do to a user too few to move the basis. An unknown user has
    π = softmax(θ_0), the mean weights (of the users' logits). The users of `fit` are known from then on.

    Differences from the paper: both penalties are ours. The paper pulls the basis to the reward head of the language
    model, which frozen embeddings do not have, and lets the number of steps of Adam keep the weights of a user with few
    labels from a corner of the simplex; here a Gaussian prior of the logits does, the same in training and for new
    users, and L-BFGS minimises to convergence. The paper's code weights users equally, this one rows. Without any
    groups all heads are equal, and the Bradley-Terry model with penalty `alpha`, whatever K.

    Parameters
    ----------
    n_components : int, default=4
        Number K of heads, the rank.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context, which this method does not read.
    alpha : float or "auto", default="auto"
        L2 penalty of the mean head, against the mean log-likelihood in nats. K = 1 is the Bradley-Terry model of that
        penalty. "auto": every head has a prior standard deviation of its margins of 1.75 nats, as in
        `MixtureBradleyTerry`.
    weight_penalty : float or "auto", default="auto"
        Inverse variance of the logits of users about the mean user's, in nats against a user's summed log-likelihood.
        Larger values trust a user's few votes less. "auto": chosen among 100, 30, 10, 3, 1, 0.3 and 0.1 by
        cross-fitting. A basis is learned with the penalty 1 from one half of the annotators, up to 100 of the others
        get weights from an eighth and from half of their votes, and the largest penalty is taken under which their
        other votes are as likely as under the best, to within a standard error. 1 where annotators are too few.
    max_iter : int, default=300
        Largest number of L-BFGS iterations of each start.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.
    n_init : int, default=1
        Number of random starts; the one with the smallest J is kept. With one component, or without groups, the problem
        is convex and one start, at zero, is enough.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts.

    Attributes
    ----------
    coef_ : ndarray of shape (n_components, n_features)
        The basis b_k, the heads of largest `weights_` first.
    weights_ : ndarray of shape (n_components,)
        softmax(θ_0), the weights of an unknown user.
    alpha_, weight_penalty_ : float
        The penalties that were used: given, or chosen by "auto".
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
        Iterations of the start that was kept.
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Bose et al., "LoRe: Personalizing LLMs via Low-Rank Reward Modeling", COLM 2025, arXiv:2504.14439.

    Examples
    --------
    Annotators care about the first feature, the second, or something between.

    >>> import numpy as np
    >>> from micropref.baselines import LowRankRewards
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(3000, 4))
    >>> annotator = np.repeat(np.arange(300), 10)
    >>> share = rng.random(300)[annotator]
    >>> y = (share * X[:, 0] + (1 - share) * X[:, 1] + 0.2 * rng.normal(size=3000) > 0).astype(int)
    >>> model = LowRankRewards(2, random_state=0).fit(X, y, groups=annotator)
    >>> np.sort(np.abs(model.coef_).argmax(axis=1))
    array([0, 1])
    >>> model.score(X, y, groups=annotator) > model.score(X, y) + 0.05
    True

    Ann's votes follow the second feature.

    >>> votes = X[:20]
    >>> model = model.partial_fit(votes, votes[:, 1] > 0, groups=["ann"] * 20)
    >>> model.score(X, X[:, 1] > 0, groups=["ann"] * 3000) > 0.9
    True
    """

    _SHAPE = ("n_context_features", "n_components")
    _ADAPTS_BY = ("weight_penalty",)
    _STATE_ARRAYS = listed(coef_="KD", weights_="K", _log_prior="K")
    _STATE_VALUES = listed(alpha_=REAL, weight_penalty_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        n_components: int = 4,
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        weight_penalty: float | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-5,
        n_init: int = 1,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.weight_penalty = weight_penalty
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_components", "max_iter", "n_init"):
            check_integer(self, name, 1)
        for name in ("alpha", "weight_penalty"):
            check_real(self, name, 0.0, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        if isinstance(self.weight_penalty, str):
            self.weight_penalty_ = self._chosen(rows)
        else:
            self.weight_penalty_ = float(self.weight_penalty)
        users = in_order_of_votes(rows)
        weights = self._solve(rows, users)
        votes = Votes(self._represent(rows.context, rows.difference), rows.dense_signs, rows.dense_weight)
        # Ungrouped rows have done their part to the centre; as votes of the population they would count twice.
        if users is not None:
            index = users.index
            shown = index[index >= 0]
            _, first = np.unique(shown, return_index=True)
            place = np.argsort(np.argsort(first))
            ids = users.ids[np.argsort(first)]
            self._remember(votes.of(index >= 0), Groups(ids, place[shown]))  # known in the order of their first votes
            for name, one in zip(users.ids.tolist(), weights, strict=True):
                self._keep(name, one)
        warn_if_stopped(self.converged_, f"L-BFGS stopped after {self.n_iter_} iterations")

    def _solve(self, rows: Comparisons, users: Groups | None) -> np.ndarray:
        """Set the basis and the centre; log-weights (n_users, K) of the users."""
        each = self.n_components if isinstance(self.alpha, str) else 1
        self.alpha_ = float(each * head_penalty(self.alpha, rows.norms[1], rows.total_weight))
        index, n_users = (np.full(rows.n_samples, -1), 0) if users is None else (users.index, users.n_groups)
        objective = LowRankObjective(
            rows, index, n_users, self.n_components, alpha=self.alpha_, weight_penalty=self.weight_penalty_
        )
        best = self._best_start(objective, precision(rows.difference))
        basis, center, offsets = objective.unpack(best.vector)
        order = np.argsort(-center, kind="stable")
        self.coef_ = basis[order]
        self._log_prior = log_softmax(center[order, None])[:, 0]
        self.weights_ = np.exp(self._log_prior)
        self.objective_, self.n_iter_, self.converged_ = best.value, best.n_iter, best.converged
        weights: np.ndarray = log_softmax((center + offsets)[:, order].T).T
        return weights

    def _chosen(self, rows: Comparisons) -> float:
        """What "auto" is for these rows."""
        if self.n_components > 1:
            for part in held_out_users(rows, n_folds=1, most_users=_MOST_USERS):
                other = twin(self)
                other.n_init, other.weight_penalty_, other.max_iter = 1, _USUAL_PENALTY, min(self.max_iter, _ITERATIONS)
                other._solve(part.teachers, in_order_of_votes(part.teachers))
                return _PENALTIES[most_cautious(adapted_losses(other, "weight_penalty", _PENALTIES, rows, part))]
        return _USUAL_PENALTY

    def _best_start(self, objective: LowRankObjective, precision: float) -> Minimum:
        random = check_random_state(self.random_state)
        best: Minimum | None = None
        for _ in range(self.n_init if objective.has_weights else 1):
            found = lbfgs(
                objective.value_and_gradient,
                objective.random_start(random, _START_MARGIN, _START_LOGIT),
                scale=objective.scale(),
                max_iter=self.max_iter,
                tol=self.tol,
                precision=precision,
            )
            if best is None or found.value < best.value:
                best = found
        assert best is not None
        return best

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        if self.coef_.shape[0] == 1:
            return start
        margins = votes.values.astype(np.float64) * votes.signs[:, None]
        objective = WeightObjective(margins, votes.weight, start, self._in_force("weight_penalty"))
        found = lbfgs(objective.value_and_gradient, start, max_iter=_WEIGHT_ITERATIONS, tol=_WEIGHT_TOL)
        log_weights: np.ndarray = np.log(softmax(found.vector))
        return log_weights

    def _rule(self, user: Hashable | None) -> Ellipsoid:
        """With the precision weight_penalty · I + Σ_{i∈u} ω_i σ'(m_i) g_i g_iᵀ of the logits θ_u of the weights."""
        weights = np.exp(self._describe(user))
        penalty = max(self._in_force("weight_penalty"), _LEAST_PRECISION)
        # ∂π/∂θ of π = softmax(θ).
        slopes = np.diag(weights) - np.outer(weights, weights)
        return Ellipsoid(weights, penalty * np.eye(len(weights)), slopes).after(self._votes_of.get(user))
