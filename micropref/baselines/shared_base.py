"""SharedBaseEnsemble: many heads on the same features, kept apart by fixed random priors."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from micropref._arrays.backend import compute_dtype, precision
from micropref._engine.scaling import head_scale, with_penalties
from micropref._engine.solvers import lbfgs
from micropref._estimator.fitting import twin
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._cross_fitting import adapted_losses, most_cautious
from micropref.baselines._heads import ReweightedHeads, difference_norm, diversity, scaled_to_margin, uniform
from micropref.baselines._voters import held_out_users
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.kernels._products import linear_gradient, linear_products

__all__ = ["SharedBaseEnsemble"]

# Penalties in shares of the mean square of a difference, among which "auto" chooses, and the one that it takes where
# annotators say nothing about it; iterations by which it chooses.
_SHARES = (8e-5, 4e-4, 2e-3, 0.01, 0.05)
_USUAL_SHARE = 0.01
_ITERATIONS = 30
_MOST_USERS = 100


class SharedBaseEnsemble(ReweightedHeads):
    r"""Ensemble of reward heads on shared features, each a fixed random head plus a trained one.

    The "shared-base" ensemble of HyRe (Lee et al., 2024), which MiCRo (Shen et al., 2025) compares with: randomised
    prior functions (Osband et al., 2018) on one frozen base. Head k is w_k = p_k + θ_k with a random p_k that is never
    trained, and

    .. math::

        J = \frac{1}{K} \sum_k \Bigl[ -\frac{1}{\Omega} \sum_i \omega_i \log \sigma(s_i w_k^\top d_i)
            + \tfrac12\, \mathtt{alpha}\, \lVert \theta_k \rVert^2 \Bigr]

    is minimised over all θ_k. The heads agree in directions that the data determine, and remain p_k in the others. A
    user's votes weight the heads by the rule of HyRe,

    .. math::

        \pi_{uk} \propto \exp\Bigl( \frac{1}{\tau} \sum_{i \in u} \omega_i \log \sigma(s_i w_k^\top d_i) \Bigr),
            \qquad
        \text{reward of } u = \sum_k \pi_{uk}\, w_k^\top \varphi.

    Differences from the paper: the base is the frozen embedding, so that heads and priors are linear, the problem is
    convex and L-BFGS solves it, where the paper fine-tunes a network by stochastic steps; θ_k is penalised, which says
    how strongly p_k persists; priors are scaled to the data.

    Parameters
    ----------
    n_components : int, default=100
        Number K of heads, as in the paper; they are trained at once, in time that grows with K.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context, which this method does not read.
    alpha : float or "auto", default="auto"
        L2 penalty of each θ_k, against the mean log-likelihood in nats: how far the heads stay apart. One head with
        prior size 0 is the Bradley-Terry model of the same penalty. "auto": c · mean_ω ‖d‖² with c chosen among 8e-5,
        4e-4, 2e-3, 0.01 and 0.05 by cross-fitting. An ensemble is learned from one half of the annotators, the heads
        are weighted by an eighth and by half of the votes of up to 100 of the others, and the smallest c is taken under
        which their other votes are as likely as under the best, to within a standard error. 0.01 where annotators are
        too few.
    prior_margin : float, default=3.0
        Root mean square of the margins p_kᵀd of the priors over the training rows, in nats. 0: no priors, equal heads.
        With 1 and a small `alpha` the heads are equal up to rounding, and no vote can tell them apart. The default was
        chosen, as the candidates for c, on the annotators who teach in three sets of real preferences.
    temperature : float, default=1.0
        τ.
    average : {"rewards", "probabilities"}, default="rewards"
        Predict by the weighted mean of the rewards, as the paper does, or of the heads' probabilities.
    max_iter : int, default=300
        Largest number of L-BFGS iterations.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size, of a single head.
    random_state : int, RandomState instance or None, default=None
        Seed of the priors.

    Attributes
    ----------
    coef_ : ndarray of shape (n_components, n_features)
        The heads w_k.
    prior_coef_ : ndarray of shape (n_components, n_features)
        Their fixed parts p_k.
    weights_ : ndarray of shape (n_components,)
        Weights of the heads for an unknown user: equal.
    alpha_ : float
        The penalty that was used.
    diversity_ : float
        One minus the mean correlation, about zero, of the margins of two heads over the training rows: 0 if all heads
        agree, 1 for independent directions.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    See Also
    --------
    HypothesisReweighting : The same rule for any heads.

    References
    ----------
    Lee et al., "Test-Time Alignment via Hypothesis Reweighting", 2024, arXiv:2412.08812.

    Osband, Aslanides and Cassirer, "Randomized Prior Functions for Deep Reinforcement Learning", NeurIPS 2018,
    arXiv:1806.03335.

    Examples
    --------
    All annotators like the first feature; in training the second one never differs: heads keep their priors of it.

    >>> import numpy as np
    >>> from micropref.baselines import SharedBaseEnsemble
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) * [1, 0]
    >>> y = (X[:, 0] > 0).astype(int)
    >>> X[0, 1] = 0.1
    >>> model = SharedBaseEnsemble(random_state=0).fit(X, y)
    >>> bool((model.coef_[:, 0] > 0).all()), bool(model.coef_[:, 1].std() > model.coef_[:, 0].std())
    (True, True)

    Ann's two votes say what she thinks of it.

    >>> new = np.array([[0.0, 1.0], [0.0, 2.0]])
    >>> model = model.partial_fit(new, [0, 0], groups=["ann", "ann"])
    >>> model.predict(new, groups=["ann", "ann"])
    array([0, 0])
    """

    _SHAPE = ("n_context_features", "n_components")
    _STATE_ARRAYS = listed(coef_="KD", prior_coef_="KD", weights_="K", _log_prior="K")
    _STATE_VALUES = listed(alpha_=REAL, diversity_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        n_components: int = 100,
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        prior_margin: float = 3.0,
        temperature: float = 1.0,
        average: str = "rewards",
        max_iter: int = 300,
        tol: float = 1e-5,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.prior_margin = prior_margin
        self.temperature = temperature
        self.average = average
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_components", "max_iter"):
            check_integer(self, name, 1)
        check_real(self, "alpha", 0.0, auto=True)
        check_real(self, "prior_margin", 0.0)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        random = check_random_state(self.random_state)
        drawn = random.normal(size=(self.n_components, rows.difference.shape[1]))
        self.alpha_ = self._chosen(rows, drawn) if isinstance(self.alpha, str) else float(self.alpha)
        self._solve(rows, drawn)
        self.diversity_ = diversity(self.coef_, rows)
        warn_if_stopped(self.converged_, f"L-BFGS stopped after {self.n_iter_} iterations")

    def _solve(self, rows: Comparisons, drawn: np.ndarray) -> None:
        """Set the heads, from directions (K, d) of their priors."""
        prior = scaled_to_margin(drawn, rows, self.prior_margin)
        # Solved as K separate problems side by side, so that convergence does not depend on K.
        objective = _EnsembleObjective(rows, prior, self.alpha_)
        penalties = np.full(prior.shape, self.alpha_)
        found = lbfgs(
            objective.value_and_gradient,
            np.zeros(prior.size),
            scale=with_penalties(head_scale(difference_norm(rows), prior.shape), penalties).ravel(),
            max_iter=self.max_iter,
            tol=self.tol,
            precision=precision(rows.difference),
        )
        self.prior_coef_ = prior
        self.coef_ = prior + found.vector.reshape(prior.shape)
        self.weights_ = np.full(self.n_components, 1 / self.n_components)
        self._log_prior = uniform(self.n_components)
        self.objective_ = found.value / self.n_components
        self.n_iter_, self.converged_ = found.n_iter, found.converged

    def _chosen(self, rows: Comparisons, drawn: np.ndarray) -> float:
        """What "auto" is for these rows."""
        usual, square = _USUAL_SHARE, float(rows.norms[1]) ** 2
        if self.n_components > 1:
            for part in held_out_users(rows, n_folds=1, most_users=_MOST_USERS):
                other, losses = twin(self), []
                other.max_iter = min(self.max_iter, _ITERATIONS)
                for share in _SHARES:
                    other.alpha_ = share * square
                    other._solve(part.teachers, drawn)
                    losses.append(adapted_losses(other, "temperature", (self.temperature,), rows, part))
                usual = _SHARES[most_cautious(np.concatenate(losses))]
        return usual * square


class _EnsembleObjective:
    """K J as a function of the trained parts θ (K, d): the sum of the heads' own penalised losses."""

    def __init__(self, rows: Comparisons, prior: np.ndarray, alpha: float):
        self.rows = rows
        self.prior = prior
        self.alpha = alpha
        self.dtype = compute_dtype(rows.difference)
        self.share = rows.dense_weight / rows.total_weight

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        trained = vector.reshape(self.prior.shape)
        difference = self.rows.difference
        signs = self.rows.dense_signs.astype(self.dtype)
        margins = linear_products(difference, (self.prior + trained).astype(self.dtype)) * signs
        loss = -float((log_sigmoid(margins).astype(np.float64, copy=False) @ self.share).sum())
        outer = sigmoid(-margins) * (-self.share * self.rows.dense_signs).astype(self.dtype)
        gradient = linear_gradient(outer, difference, 0, difference.shape[1]) + self.alpha * trained
        return loss + 0.5 * self.alpha * float(np.vdot(trained, trained)), gradient.ravel()
