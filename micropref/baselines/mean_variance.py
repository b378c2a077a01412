"""MeanVarianceRewards: tastes are normally distributed around a common one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, precision
from micropref._engine.gates import flatten, unflatten
from micropref._engine.priors import head_penalty
from micropref._engine.scaling import head_scale, with_penalties
from micropref._engine.solvers import lbfgs
from micropref._estimator.fitting import predicting
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref._support.renamed import moved
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._linear import remember_annotators
from micropref.baselines._mean_variance_objective import FLATTENING, MeanVarianceObjective
from micropref.baselines._responses import response_rows
from micropref.baselines._rowspace import deviations, row_basis
from micropref.baselines._utility import UtilityDistribution, boxed, unboxed
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import sigmoid
from micropref.kernels._threads import blas_threads

__all__ = ["MeanVarianceRewards"]

__getattr__ = moved(__name__)


class MeanVarianceRewards(UtilityDistribution):
    r"""Distributional preference learning with a normal distribution of tastes.

    Siththaranjan, Laidlaw and Hadfield-Menell (2024) let a network give every response a a utility N(μ(a), σ²(a)),
    whose spread stands for context that the model cannot see, and p = Φ((μ_a − μ_b) / sqrt(σ_a² + σ_b²)). Rows of X are
    differences d = φ(a) − φ(b) and hold no single responses, so this is the linear version *for the difference in
    utility*: the reward is w ~ N(μ, Σ) with Σ = diag(τ²) + L Lᵀ, so that

    .. math::

        w^\top d \sim \mathcal{N}(\mu^\top d,\; d^\top \Sigma d), \qquad
        p(\text{first preferred}) = \mathbb{E}\, \sigma(w^\top d)
            \approx \sigma\biggl(\frac{\mu^\top d}{\sqrt{1 + \frac{\pi}{8}\, d^\top \Sigma d}}\biggr),

    MacKay's approximation (1992) of the logistic-normal integral. Unlike in the paper, both responses share one draw of
    the taste; what they have in common cancels, and equal responses have no variance. The loss is

    .. math::

        J = -\frac{1}{\Omega} \sum_i \omega_i \log p(y_i) + \tfrac12\, \mathtt{alpha}\, \lVert \mu \rVert^2
            + \tfrac12\, \mathtt{variance\_alpha} \operatorname{tr} \Sigma,

    minimised by L-BFGS from μ = 0 and a small Σ. Rows are judged one by one, as in the paper: annotators play no part
    in learning. Single comparisons show variance only by how it flattens choices, so it is found where some differences
    are more controversial than others, and not where all are alike; where none is found, Σ is zero.

    **Users.** The paper has no users; N(μ, Σ) is a natural prior for a user's taste. A user's votes give the Laplace
    approximation N(w_u, Σ_u) of their posterior: w_u maximises Σ_i ω_i log σ(s_i wᵀd_i) + log N(w; μ, Σ), Σ_u⁻¹ is the
    curvature there, and predictions use both in the equation above; with Σ = 0, votes change nothing. Annotators in
    `fit` are known by their votes afterwards, of which the model and its pickles carry one copy. Rows without a group
    in `partial_fit` move the population in the same way; a user then starts from there, with the prior's Σ. Context
    columns of X are not used.

    Parameters
    ----------
    rank : int, default=0
        Number of columns of L. 0: tastes for different features are independent.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    alpha : float or "auto", default="auto"
        L2 penalty of μ, against the mean log-likelihood in nats; positive. "auto": as in `MixtureBradleyTerry`, a prior
        standard deviation of its margins of 1.75 nats.
    variance_alpha : float or "auto", default="auto"
        Penalty of the trace of Σ; positive. Towards infinity, this is the Bradley-Terry model. "auto": the same as that
        of μ.
    max_iter : int, default=500
        Largest number of L-BFGS iterations.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.
    random_state : int, RandomState instance or None, default=None
        Seed of the start of L; not used with ``rank=0``.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Mean μ of the tastes.
    scale_ : ndarray of shape (n_features,)
        Standard deviations τ, not negative.
    factors_ : ndarray of shape (n_features, rank)
        L.
    alpha_, variance_alpha_ : float
        The penalties that were used.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Siththaranjan, Laidlaw and Hadfield-Menell, "Distributional Preference Learning: Understanding and Accounting for
    Hidden Context in RLHF", ICLR 2024, arXiv:2312.08358.

    MacKay, "The Evidence Framework Applied to Classification Networks", Neural Computation 4(5), 1992.

    Examples
    --------
    All agree on the first feature, and no two on the second one.

    >>> import numpy as np
    >>> from micropref.baselines import MeanVarianceRewards
    >>> rng = np.random.default_rng(0)
    >>> X = 2 * rng.normal(size=(4000, 2))
    >>> tastes = np.array([1.0, 0.0]) + rng.normal(size=(4000, 2)) * [0.0, 3.0]
    >>> y = (rng.random(4000) < 1 / (1 + np.exp(-(X * tastes).sum(axis=1)))).astype(int)
    >>> model = MeanVarianceRewards(alpha=1e-4, variance_alpha=1e-4).fit(X, y)
    >>> model.scale_[1] > 5 * model.scale_[0]
    np.True_
    >>> agreed, disputed = model.utility_variance(np.eye(2))
    >>> bool(agreed < disputed)
    True
    """

    _SHAPE = ("n_context_features", "rank")
    _STATE_ARRAYS = listed(coef_="D", scale_="D", factors_="DR")
    _STATE_VALUES = listed(alpha_=REAL, variance_alpha_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        rank: int = 0,
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        variance_alpha: float | str = "auto",
        max_iter: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
    ):
        self.rank = rank
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.variance_alpha = variance_alpha
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "rank", 0)
        check_integer(self, "max_iter", 1)
        for name in ("alpha", "variance_alpha"):
            check_real(self, name, 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        width, norm = rows.difference.shape[1], float(rows.norms[1])
        self.alpha_ = head_penalty(self.alpha, norm, rows.total_weight)
        self.variance_alpha_ = head_penalty(self.variance_alpha, norm, rows.total_weight)
        objective = MeanVarianceObjective(rows, self.rank, self.alpha_, self.variance_alpha_)
        size = 1 / norm if norm > 0 else 1.0  # a variance of one nat² for a difference of usual size
        random = check_random_state(self.random_state)
        start = [np.zeros(width), np.full(width, size), size * random.normal(size=(width, self.rank))]
        usual = np.concatenate([head_scale(norm, (1, width * (2 + self.rank))).ravel()]) * np.sqrt(2 + self.rank)
        found = lbfgs(
            objective.value_and_gradient,
            flatten(start),
            scale=with_penalties(usual, objective.penalties),
            max_iter=self.max_iter,
            tol=self.tol,
            precision=precision(rows.difference),
        )
        self.coef_, scale, self.factors_ = (part.copy() for part in unflatten(found.vector, objective.shapes))
        self.scale_ = np.abs(scale)
        self.objective_, self.n_iter_, self.converged_ = found.value, found.n_iter, found.converged
        warn_if_stopped(found.converged, f"L-BFGS stopped after {found.n_iter} iterations")
        remember_annotators(self, rows, rows.difference)

    @predicting
    def rewards(self, features: Array, context: ArrayLike | None = None, groups: ArrayLike | None = None) -> np.ndarray:
        """Mean utilities w_uᵀ φ of single responses for a user.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array-like of shape (n_responses, n_context_features), optional
            Not used but checked.
        groups : array-like of shape (n_responses,), optional
            User of every response, as in `decision_function`.

        Returns
        -------
        rewards : ndarray of shape (n_responses,)
            In nats. Only differences between responses to the same prompt have a meaning.

        Raises
        ------
        ValueError
            If features or contexts are not of the width seen in `fit`.
        """
        check_is_fitted(self)
        _, values = response_rows(self, features, context)
        return self._moments(values, self._numbers(groups, len(values)))[0]

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        return difference

    def _start(self) -> np.ndarray:
        return boxed(_Taste(self.coef_, np.empty((0, self.scale_.size + self.factors_.shape[1]))))

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        mean, rows = start[0].mean, self._spread(votes.values.astype(np.float64))
        base = votes.values @ mean
        with blas_threads(False):
            basis, root = row_basis(rows[None])
            found = deviations(root, base[None], votes.signs[None], votes.weight[None], 1.0)
        warn_if_stopped(found.converged, "Newton's method for one user stopped")
        change = basis[0] @ found.variables[0]
        probability = sigmoid(base + rows @ change)
        curvature = votes.weight * probability * (1 - probability)
        # The posterior covariance of w = mean + A z, (I + H)⁻¹ with H = Σ_i curvature_i z_i z_iᵀ, is I − CᵀC.
        _, singular, directions = np.linalg.svd(np.sqrt(curvature)[:, None] * rows, full_matrices=False)
        known = (singular / np.sqrt(1 + singular**2))[:, None] * directions
        width = self.scale_.size
        return boxed(_Taste(mean + self.scale_ * change[:width] + self.factors_ @ change[width:], known))

    def _spread(self, difference: np.ndarray) -> np.ndarray:
        """Aᵀd of every row, with Σ = A Aᵀ, A = [diag(τ), L]."""
        return np.hstack([difference * self.scale_, difference @ self.factors_])

    def _moments(self, values: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.empty(len(values)), np.empty(len(values))
        for taste, rows in unboxed(numbers):
            spread = self._spread(values[rows].astype(np.float64))
            mean[rows] = values[rows] @ taste.mean
            variance[rows] = (spread**2).sum(axis=1) - ((spread @ taste.known.T) ** 2).sum(axis=1)
        return mean, np.maximum(variance, 0.0)

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        mean, variance = self._moments(values, numbers)
        return mean / np.sqrt(1 + FLATTENING * variance)


@dataclass(frozen=True)
class _Taste:
    """A normal distribution of tastes: mean (d,), covariance A (I − CᵀC) Aᵀ with `known` C (n, d + rank) from votes."""

    mean: np.ndarray
    known: np.ndarray
