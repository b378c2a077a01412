"""UserRewards: a reward for every user, shrunk towards the common one."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from micropref._arrays.backend import precision
from micropref._engine.priors import head_penalty
from micropref._engine.scaling import head_scale, with_penalties
from micropref._engine.solvers import lbfgs
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref._support.renamed import moved
from micropref.baselines._asking import AskingRewards, Ellipsoid
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._cross_fitting import most_cautious, shrunk_losses
from micropref.baselines._linear import LinearRewards, bradley_terry, remember_annotators, shrunk_reward
from micropref.baselines._profile_objective import ProfileObjective
from micropref.baselines._voters import held_out_users
from micropref.baselines._votes import Votes

__all__ = ["UserRewards"]

__getattr__ = moved(__name__)

# Standard deviations of users' margins about the common ones, in nats, among which "auto" chooses, and the one that it
# takes where annotators say nothing about it.
_DEVIATIONS = (0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0)
_USUAL_DEVIATION = 1.0
_MOST_USERS = 200


class UserRewards(AskingRewards, LinearRewards):
    r"""One reward per user, w_u = w_0 + v_u, with a Gaussian prior around the common reward w_0.

    With margins s_i w_uᵀd_i for the rows of user u and s_i w_0ᵀd_i for rows without a user, w_0 and all v_u minimise

    .. math::

        J = -\frac{1}{\Omega} \sum_i \omega_i \log \sigma(\text{margin}_i) + \tfrac12\, \mathtt{alpha}\, \lVert w_0
            \rVert^2
            + \frac{1}{\Omega} \sum_u \tfrac12\, \mathtt{user\_alpha}\, \lVert v_u \rVert^2,

    jointly. J is convex. Ω J is, up to a constant, minus the log-posterior under w_u ~ N(w_0, I / user_alpha): what a
    user's votes say is weighed against the prior in nats, not in shares of all rows, so that the shrinkage of one user
    does not depend on how many others there are. ``user_alpha → ∞`` is the plain Bradley-Terry model; without a common
    reward (``alpha → ∞``), every user has a model of their own with penalty user_alpha / Ω_u.

    L-BFGS minimises the profile min_v J over w_0, whose gradient is the partial one at the minimal v; every v_u is
    found by Newton's method in the space that the user's own rows span, with no more variables than votes. A new user's
    v_u is found in the same way from their votes, with w_0 fixed; rows without a group in `partial_fit` move
    the population's reward so. Annotators in `fit` are known by their votes, of which the model and its pickles carry
    one copy.

    **How much users differ.** With ``user_alpha="auto"`` it is λ = mean_ω ‖d‖² / t², t the standard deviation in nats
    of users' margins about the common ones, and t is chosen among nine values from 0.1 to 10 by cross-fitting: the
    common reward is learned from one half of the annotators; each of up to 200 of the others gets their own reward from
    an eighth and from half of their votes, and the smallest t is taken under which the votes left out are as likely as
    under the best, to within a standard error over annotators. Without annotators of several votes t is 1.

    The model is the hierarchical ("multi-task") prior of Evgeniou and Pontil (2004), with Bradley-Terry's loss in place
    of the hinge. Context columns of X are not used.

    Parameters
    ----------
    user_alpha : float or "auto", default="auto"
        Precision of the prior of users' rewards around the common one; positive. With differences of norm 3, as
        `PairScaler` makes them, 10 means that a user's log-odds lie about one nat from the common ones. "auto": chosen
        by cross-fitting, see above.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    alpha : float or "auto", default="auto"
        L2 penalty of the common reward, against the mean log-likelihood in nats; positive. "auto": as in
        `MixtureBradleyTerry`, a prior standard deviation of its margins of 1.75 nats.
    max_iter : int, default=300
        Largest number of L-BFGS iterations.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        The common reward w_0.
    alpha_, user_alpha_ : float
        The penalties that were used: given, or chosen by "auto".
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004.

    Examples
    --------
    All users like the first feature; they differ about the second one.

    >>> import numpy as np
    >>> from micropref.baselines import UserRewards
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 2))
    >>> user = np.arange(2000) // 50
    >>> y = (X[:, 0] + np.where(user % 2, 2, -2) * X[:, 1] > 0).astype(int)
    >>> model = UserRewards(user_alpha=1.0).fit(X, y, groups=user)
    >>> model.score(X, y) < 0.75 < 0.9 < model.score(X, y, groups=user)
    True
    >>> new = model.partial_fit(X[:20], y[:20], groups=["ann"] * 20)
    >>> model.rewards([[0.0, 1.0]], groups=["ann"]) < 0
    array([ True])
    """

    _ADAPTS_BY = ("user_alpha",)
    _STATE_VALUES = listed(alpha_=REAL, user_alpha_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        user_alpha: float | str = "auto",
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-5,
    ):
        self.user_alpha = user_alpha
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "max_iter", 1)
        for name in ("user_alpha", "alpha"):
            check_real(self, name, 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        self.alpha_ = float(head_penalty(self.alpha, rows.norms[1], rows.total_weight))
        self.user_alpha_ = self._chosen(rows) if isinstance(self.user_alpha, str) else float(self.user_alpha)
        objective = ProfileObjective(rows, self.alpha_, self.user_alpha_)
        width = rows.difference.shape[1]
        found = lbfgs(
            objective.value_and_gradient,
            np.zeros(width),
            scale=with_penalties(head_scale(rows.norms[1], (1, width)).ravel(), np.full(width, self.alpha_)),
            max_iter=self.max_iter,
            tol=self.tol,
            precision=precision(rows.difference),
        )
        self.coef_, self.objective_, self.n_iter_ = found.vector, found.value, found.n_iter
        self.converged_ = found.converged and objective.converged
        warn_if_stopped(self.converged_, f"L-BFGS stopped after {found.n_iter} iterations")
        remember_annotators(self, rows, rows.difference)

    def _chosen(self, rows: Comparisons) -> float:
        """What "auto" is for these rows."""
        precisions = (rows.norms[1] / np.array(_DEVIATIONS)) ** 2
        losses = []
        for part in held_out_users(rows, n_folds=2, most_users=_MOST_USERS // 2):
            teachers = part.teachers
            votes = Votes(teachers.difference, teachers.dense_signs, teachers.dense_weight)
            alpha = head_penalty(self.alpha, teachers.norms[1], teachers.total_weight)
            common = bradley_terry(votes, alpha, max_iter=self.max_iter, tol=self.tol).vector
            losses.append(shrunk_losses(common, precisions, rows, part))
        if not losses:
            return float((rows.norms[1] / _USUAL_DEVIATION) ** 2)
        return float(precisions[most_cautious(np.concatenate(losses, axis=1))])

    def _start(self) -> np.ndarray:
        return self.coef_

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        return shrunk_reward(votes, start, self._in_force("user_alpha"))

    def _rule(self, user: Hashable | None) -> Ellipsoid:
        """With the precision user_alpha · I + Σ_{i∈u} ω_i σ'(m_i) d_i d_iᵀ of the user's reward."""
        reward = self._describe(user)
        prior = self._in_force("user_alpha") * np.eye(len(reward))
        return Ellipsoid(reward, prior).after(self._votes_of.get(user))
