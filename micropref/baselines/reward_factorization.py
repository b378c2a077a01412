"""RewardFactorization (PReF): rewards are a shared basis times weights of every user."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from micropref._arrays.backend import compute_dtype, precision
from micropref._engine.priors import head_penalty
from micropref._engine.solvers import lbfgs
from micropref._estimator.fitting import twin
from micropref._estimator.parameters import check_choice, check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, TEXT, listed
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups
from micropref.baselines._asking import AskingRewards, Ellipsoid
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._cross_fitting import adapted_losses, most_cautious
from micropref.baselines._factor_objective import FactorObjective
from micropref.baselines._factor_start import directions_of_shared_pairs, directions_of_votes, users_per_pair
from micropref.baselines._heads import oriented, scaled_to_margin
from micropref.baselines._linear import LinearRewards, bradley_terry, remember_annotators
from micropref.baselines._population import Population, cholesky
from micropref.baselines._rowspace import deviations
from micropref.baselines._voters import held_out_users, in_order_of_votes
from micropref.baselines._votes import Votes
from micropref.kernels._products import linear_products
from micropref.kernels._threads import blas_threads

__all__ = ["RewardFactorization"]

_STARTS = ("auto", "svd", "votes")
_PRIORS = ("population", "none")
_MOST_USERS = 200
# Users per pair from which answers to the same pairs say more than the differences of the pairs.
_SHARED = 3.0
# Prior standard deviation of a user's weights with user_prior="none", in nats per unit of margin: next to none, and yet
# votes that one reward separates have a finite one.
_FLAT = 10.0
_EXACT = 1e-7
# Share of the largest singular value below which a direction holds rounding errors.
_NEGLIGIBLE = 1e-9


class RewardFactorization(AskingRewards, LinearRewards):
    r"""Rewards λ_uᵀ B φ with a shared basis B of K reward heads and weights λ_u per user, of either sign.

    PReF (Shenfeld et al., 2025). Where `LowRankRewards` weights heads by a simplex, weights are free here, so that
    users lie in a subspace of rewards. Learning has the three steps of the paper:

    1. *Start.* A singular value decomposition gives the basis: of the matrix of answers, pairs × users, whose left
       factors are regressed on the differences (``init="svd"``, for pairs that several users answered), or of one row
       Σ_i ω_i (y_i − ½) d_i per user (``init="votes"``, for which no two users need share a pair). The first head is
       the Bradley-Terry reward of all rows.
    2. *Bilinear likelihood* (`refine`). From there, L-BFGS minimises over B, the mean μ and all deviations δ_u

       .. math::

           J = -\frac{1}{\Omega} \sum_i \omega_i \log \sigma\bigl(s_i (\mu + \delta_{u(i)})^\top B d_i\bigr)
               + \tfrac12\, \mathtt{alpha}\, \lVert B \rVert^2
               + \frac{1}{2\Omega} \Bigl(\sum_u \lVert \delta_u \rVert^2 + \lVert \mu \rVert^2\Bigr).

    3. *Users.* With B fixed and its heads scaled to margins of root mean square one over the training rows, a user's
       weights are the logistic regression of their votes,

       .. math::

           \lambda_u = \operatorname*{argmin}_\lambda \Bigl[ -\sum_{i \in u} \omega_i \log \sigma(s_i \lambda^\top B
               d_i)
               + \tfrac12 (\lambda - m)^\top P (\lambda - m) \Bigr].

       With ``user_prior="population"`` m and P⁻¹ are mean and covariance of users' weights, estimated from the
       annotators by the EM algorithm with Laplace's approximation; with "none", as in the paper, m = 0 and P = I / 100,
       which only keeps weights finite where one reward separates all votes.

    Users without votes have the mean weights; rows without a group in `partial_fit` move them. Without annotators in
    `fit`, this is the Bradley-Terry model with penalty `alpha`.

    **Questions.** `query_scores` and `suggest` are the paper's rule for what to ask a user next: the score of a pair d
    is σ'(λ_uᵀ z)² zᵀ M_u⁻¹ z with z = B d, to first order the variance of p(first preferred) over the ellipsoid
    M_u = P + Σ_{i∈u} ω_i σ'(λ_uᵀ z_i) z_i z_iᵀ of weights that the user's votes leave plausible.

    Differences from the paper: rewards are linear on frozen features, where the paper trains a language model's head
    by stochastic steps; the common reward is a head of its own; missing answers are zeros rather than imputed;
    penalties are Gaussian priors; the start without shared pairs, the choice whether to refine, and the population's
    prior are ours. Context columns of X are not used.

    Parameters
    ----------
    n_components : int, default=6
        Number K of heads, the common reward among them; fewer are kept where votes vary in fewer directions.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    init : {"auto", "svd", "votes"}, default="auto"
        Start of the basis. "auto": "svd" where a pair was answered by three users on average, else "votes".
    refine : bool or "auto", default="auto"
        Fit the basis by the bilinear likelihood, or use it as it starts. "auto": both are learned from one half of the
        annotators, and the basis is refined if that makes the votes of the others, predicted from an eighth and from
        half of their own, likelier by more than a standard error. With few votes per annotator it often does not.
    user_prior : {"population", "none"}, default="population"
        Prior of a user's weights, see above.
    alpha : float or "auto", default="auto"
        L2 penalty of the heads, against the mean log-likelihood in nats; positive. "auto": as in `MixtureBradleyTerry`,
        a prior standard deviation of their margins of 1.75 nats.
    max_iter : int, default=1000
        Largest number of L-BFGS iterations.
    tol : float, default=1e-3
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    coef_ : ndarray of shape (K, n_features)
        The basis B, heads scaled to margins of root mean square one.
    weights_ : ndarray of shape (K,)
        Mean weights of users, those of an unknown user.
    covariance_ : ndarray of shape (K, K)
        Covariance of users' weights.
    n_components_ : int
        Heads kept.
    init_ : str
        The start that was used; "none" without annotators.
    refined_ : bool
        Whether the basis was fitted by the bilinear likelihood.
    alpha_ : float
        The penalty that was used.
    n_iter_ : int
        Iterations of L-BFGS: for the common reward, and for the basis where it was fitted.
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    See Also
    --------
    LowRankRewards : Weights on a simplex.
    UserRewards : A reward of all features for every user.

    References
    ----------
    Shenfeld, Faltings, Agrawal and Pacchiano, "Language Model Personalization via Reward Factorization", 2025,
    arXiv:2503.06358.

    Examples
    --------
    Annotators agree on the first feature and differ, more or less, about the second one.

    >>> import numpy as np
    >>> from micropref.baselines import RewardFactorization
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(3000, 5))
    >>> annotator = np.repeat(np.arange(200), 15)
    >>> taste = rng.normal(size=200)[annotator]
    >>> y = (X[:, 0] + 2 * taste * X[:, 1] + 0.2 * rng.normal(size=3000) > 0).astype(int)
    >>> model = RewardFactorization(2).fit(X, y, groups=annotator)
    >>> model.score(X, y, groups=annotator) > model.score(X, y) + 0.1
    True

    What to ask a new user: a pair that differs in the second feature.

    >>> model.suggest([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]], group="ann")
    array([1])
    """

    _SHAPE = ("n_context_features", "n_components", "init", "refine")
    _ADAPTS_BY = ("user_prior",)
    _STATE_ARRAYS = listed(coef_="KD", weights_="K", covariance_="KK")
    _STATE_VALUES = listed(n_components_=COUNT, init_=TEXT, refined_=FLAG, alpha_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        n_components: int = 6,
        *,
        n_context_features: int = 0,
        init: str = "auto",
        refine: bool | str = "auto",
        user_prior: str = "population",
        alpha: float | str = "auto",
        max_iter: int = 1000,
        tol: float = 1e-3,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.init = init
        self.refine = refine
        self.user_prior = user_prior
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_components", "max_iter"):
            check_integer(self, name, 1)
        check_choice(self, "init", _STARTS)
        check_choice(self, "user_prior", _PRIORS)
        if not isinstance(self.refine, bool | np.bool_) and self.refine != "auto":
            raise ValueError(f"refine: expected True, False or 'auto', got {self.refine!r}")
        check_real(self, "alpha", 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    # ------------------------------------------------------------------------------------------------------ learning

    def _learn(self, rows: Comparisons) -> None:
        with blas_threads(False):
            self._solve(rows, bool(self._is_refined(rows)))
        warn_if_stopped(self.converged_, f"L-BFGS stopped after {self.n_iter_} iterations")
        remember_annotators(self, rows, self._represent(rows.context, rows.difference))

    def _is_refined(self, rows: Comparisons) -> bool | str:
        if self.refine != "auto":
            return self.refine
        for part in held_out_users(rows, n_folds=1, most_users=_MOST_USERS):
            other, losses = twin(self), []
            for refined in (False, True):
                other._solve(part.teachers, refined)
                losses.append(adapted_losses(other, "user_prior", (self.user_prior,), rows, part))
            return most_cautious(np.concatenate(losses)) == 1
        return False

    def _solve(self, rows: Comparisons, refined: bool) -> None:
        """Set basis, mean and covariance."""
        self.alpha_ = float(head_penalty(self.alpha, rows.norms[1], rows.total_weight))
        users = in_order_of_votes(rows)
        votes = Votes(rows.difference, rows.dense_signs, rows.dense_weight)
        # Exactly, since the basis depends on its direction.
        common = bradley_terry(votes, self.alpha_, max_iter=self.max_iter, tol=min(self.tol, _EXACT))
        self.n_iter_, self.converged_, self.refined_ = common.n_iter, common.converged, False
        self.init_ = "none" if users is None else self._kind_of_start(rows, users)
        basis = common.vector[None] if users is None else self._started(rows, users, common.vector)
        population = self._set_basis(rows, users, basis)
        if users is not None and refined:
            self._refine(rows, users, population)

    def _kind_of_start(self, rows: Comparisons, users: Groups) -> str:
        if self.init != "auto":
            return self.init
        return "svd" if users_per_pair(rows, users.index) >= _SHARED else "votes"

    def _started(self, rows: Comparisons, users: Groups, common: np.ndarray) -> np.ndarray:
        """The common reward and the directions of the decomposition that are orthogonal to it, (K, d)."""
        start = directions_of_shared_pairs if self.init_ == "svd" else directions_of_votes
        found = start(rows, users.index, users.n_groups, self.n_components)
        length = np.linalg.norm(common)
        unit = common / length if length > 0 else common
        _, size, axes = np.linalg.svd(found - np.outer(found @ unit, unit), full_matrices=False)
        apart = axes[size > _NEGLIGIBLE * max(float(size[0]), np.finfo(float).tiny)]
        both = np.vstack([unit[None], apart]) if length > 0 else apart
        return both[: self.n_components] if len(both) else unit[None]

    def _set_basis(self, rows: Comparisons, users: Groups | None, basis: np.ndarray) -> Population | None:
        """Scale and orient the heads, and estimate the distribution of users' weights of them."""
        mean = (rows.dense_weight * rows.dense_signs / rows.total_weight) @ rows.difference
        self.coef_ = oriented(scaled_to_margin(basis, rows, 1.0), mean, float(rows.norms[1]))
        self.n_components_ = len(self.coef_)
        if users is None:
            size = float(np.vdot(self.coef_, self.coef_))
            self.weights_ = self.coef_ @ basis[0] / size if size > 0 else np.ones(1)
            self.covariance_ = np.eye(1)
            return None
        index = np.where(rows.dense_weight > 0, users.index, -1)
        values = self._represent(rows.context, rows.difference)
        population = Population(values, rows.dense_signs, rows.dense_weight, index, users.n_groups).fit()
        self.weights_, self.covariance_ = population.mean, population.covariance
        return population

    def _refine(self, rows: Comparisons, users: Groups, population: Population | None) -> None:
        """Fit the basis by the bilinear likelihood, from where it is."""
        assert population is not None
        # In the variables whose covariance is I, the prior of J.
        root = cholesky(population.covariance)
        centre = np.linalg.solve(root, population.mean)
        apart = np.linalg.solve(root, (population.weights - population.mean).T).T
        objective = FactorObjective(rows, users.index, users.n_groups, self.n_components_, self.alpha_)
        found = lbfgs(
            objective.value_and_gradient,
            np.concatenate([(root.T @ self.coef_).ravel(), centre, apart.ravel()]),
            scale=objective.scale(),
            max_iter=self.max_iter,
            tol=self.tol,
            precision=precision(rows.difference),
        )
        self.n_iter_ += found.n_iter
        self.converged_, self.refined_ = self.converged_ and found.converged, True
        self._set_basis(rows, users, objective.unpack(found.vector)[0])

    # -------------------------------------------------------------------------------------------------------- users

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """B d of every row, (n, K)."""
        margins: np.ndarray = linear_products(difference, self.coef_.astype(compute_dtype(difference))).T
        return margins

    def _start(self) -> np.ndarray:
        return self.weights_

    def _prior(self, votes: Votes | None, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and a root of the covariance of the weights of a user with these votes."""
        if self.user_prior == "none" and votes is not None and votes is not self._votes_of_all:
            return np.zeros_like(start), _FLAT * np.eye(len(start))
        return start, cholesky(self.covariance_)

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        mean, root = self._prior(votes, start)
        values = votes.values.astype(np.float64)
        with blas_threads(False):
            found = deviations((values @ root)[None], (values @ mean)[None], votes.signs[None], votes.weight[None], 1.0)
        warn_if_stopped(found.converged, "Newton's method for one user stopped")
        weights: np.ndarray = mean + root @ found.variables[0]
        return weights

    # ---------------------------------------------------------------------------------------------------- questions

    def _rule(self, user: Hashable | None) -> Ellipsoid:
        """With precision M_u = P + Σ_{i∈u} ω_i σ'(λ_uᵀ z_i) z_i z_iᵀ of λ_u, P of `user_prior`: the paper's rule."""
        votes = self._votes_of.get(user)
        weights = self._describe(user)
        inverse = np.linalg.inv(self._prior(votes, weights)[1])
        return Ellipsoid(weights, inverse.T @ inverse).after(votes)
