"""What a basis of few directions leaves out: the heads outside it, and how widely users scatter there.

EM learns of users, and so of heads, within the basis alone. Two estimates see all features.

Heads maximise the likelihood of votes that are judged one by one, with the prior variance of their margins,

    Σ_u Σ_k r_uk Σ_{i∈u} ω_i log E σ(x_i),        x_i ~ N(w_kᵀd_i, z_iᵀS_k z_i + v_k ‖d_i − Bz_i‖²),

where r_uk are the responsibilities of whole users. Without that variance heads are too small, by a factor of about
√(1 + π/8 · variance): that is how they come out of a fit in which users sit on the heads.

A single vote cannot tell the variance v outside the basis from smaller heads. Two votes of one user can: with the
residuals e_i = 1 − E σ(x_i) and the slopes s_i of E σ in the margin, to first order in the covariance of the margins,

    E e_i e_j = s_i s_j (z_iᵀS_k z_j + v d_iᵀ(I − BBᵀ)d_j),        i ≠ j,

from which v follows by least squares over all pairs of votes of a user (the method of moments, as Henderson's for
components of variance), and its standard error from the differences between users.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from micropref._engine.gaussian_users import Scatter
from micropref._engine.logistic_normal import moments
from micropref._engine.population import Population, beliefs_of, head_variance, log_prior
from micropref._engine.solvers import lbfgs
from micropref._engine.user_votes import UserVotes
from micropref.kernels._pointwise import posterior
from micropref.kernels._products import linear_gradient

__all__ = ["isotropic_start", "with_refitted_heads"]

Floats = NDArray[np.float64]

# Votes of one user beyond these add little, at a cost that grows with their square.
_MOST_VOTES = 200
_STEPS = 15
_TURNS = 3
# What is left, at least, of 1 − π/8 · variance.
_LEAST_LEFT = 0.25
# A variance of fewer standard errors than these is noise.
_ERRORS = 2.0


def _variance(votes: UserVotes, population: Population) -> tuple[Floats, Floats]:
    """Prior variances (K, n) of the margins, and the coordinates (n, q)."""
    z, outside = votes.coordinates(population.scatter)
    return population.scatter.prior_variance(z, outside), z


def isotropic_start(
    votes: UserVotes, heads: Population, alpha: float, tau: float | None = None, compiled: bool | None = None
) -> Population:
    """Users who scatter alike in all directions, and none of it in a basis, around heads on which they were thought to
    sit; with the standard deviation τ if it is given.
    """
    k, d = heads.heads.shape
    population = heads
    for turn in range(_TURNS):
        share = _responsibilities(votes, population, compiled)
        if tau is not None:
            variance = tau**2
        else:
            variance = float(variances_of_pairs(votes, population, share)[0][1])
            if not turn:  # the slopes at the heads of users without scatter are too large
                variance /= max(1.0 - math.pi / 8.0 * variance, _LEAST_LEFT)
        scatter = Scatter(np.zeros((d, 0)), np.zeros((k, 0, 0)), np.full(k, variance))
        population = replace(population, scatter=scatter)
        population = replace(population, heads=refitted_heads(votes, population, share, alpha))
    return population


def with_refitted_heads(
    votes: UserVotes, population: Population, alpha: float, learned: bool, compiled: bool | None = None
) -> Population:
    """The population with heads that are learned in all directions, and the variance outside the basis, if `learned`.

    Of a variance that is not larger than twice its standard error there is none.
    """
    share = _responsibilities(votes, population, compiled)
    if learned:
        found, error = variances_of_pairs(votes, population, share)
        variance = found[1] if found[1] > _ERRORS * error[1] else 0.0
        residual = np.full(population.n_components, variance)
        population = replace(population, scatter=replace(population.scatter, residual=residual))
    return replace(population, heads=refitted_heads(votes, population, share, alpha))


def _responsibilities(votes: UserVotes, population: Population, compiled: bool | None) -> Floats:
    """Of the components for every user, (K, n_users), times the weights of users."""
    if population.n_components == 1:
        return votes.outer[None]
    found = posterior(log_prior(votes, population), beliefs_of(votes, population, compiled, passes=1).evidence)[1]
    return np.asarray(found) * votes.outer


def refitted_heads(votes: UserVotes, population: Population, share: Floats, alpha: float) -> Floats:
    """Heads (K, d), in units of the features.

    Parameters
    ----------
    votes : UserVotes
    population : Population
    share : ndarray of shape (K, n_users)
        Responsibilities of the components, times the weights of users.
    alpha : float
        Penalty of the heads in nats per row.
    """
    variance, _ = _variance(votes, population)
    weight = share[:, votes.index]
    if votes.weight is not None:
        weight = weight * votes.weight
    d = population.heads.shape[1]
    reader = votes.rows.reader
    X = np.asarray(reader.X)
    shape = population.heads.shape
    precision = _head_precision(votes, population, alpha)

    def objective(vector: Floats) -> tuple[float, Floats]:
        heads = vector.reshape(shape)
        log_z, slope, _ = moments(votes.margins(heads), variance)
        per_row = weight * slope
        if votes.rows.signs is not None:
            per_row = per_row * votes.rows.signs
        uphill = np.asarray(linear_gradient(per_row.astype(X.dtype), X, reader.n_context_features, d), np.float64)
        pull = precision(heads)
        value = (float((weight * log_z).sum()) - 0.5 * float((heads * pull).sum())) / votes.mass
        return -value, ((pull - uphill) / votes.mass).ravel()

    found = lbfgs(objective, population.heads.ravel(), scale=votes.norm, max_iter=_STEPS, tol=1e-5)
    return np.asarray(found.vector.reshape(shape))


def _head_precision(votes: UserVotes, population: Population, alpha: float) -> Callable[[Floats], Floats]:
    """Heads (K, d) times the inverse of the covariance of their prior.

    Within the basis it is wider by the covariance of users, as in EM. Outside, where there are many more directions,
    the same would let few votes make heads of noise.
    """
    scatter, basis = population.scatter, population.scatter.basis
    own = head_variance(votes, alpha)
    inside = np.linalg.inv(scatter.covariances + own * np.eye(scatter.n_directions))

    def precision(heads: Floats) -> Floats:
        z = heads @ basis
        along = np.matmul(z[:, None], inside)[:, 0] @ basis.T
        found = votes.norm**2 * (along + (heads - z @ basis.T) / own)
        return np.asarray(found)

    return precision


def variances_of_pairs(votes: UserVotes, population: Population, share: Floats) -> tuple[Floats, Floats]:
    """The factor by which users differ more in the basis than S_k says, and the variance outside; their errors.

    Returns
    -------
    found : ndarray of shape (2,)
        Neither is negative.
    error : ndarray of shape (2,)
        Standard errors over users.
    """
    margins = votes.margins(population.heads)
    variance, z = _variance(votes, population)
    log_z, slope, _ = moments(margins, variance)
    right = np.exp(log_z)
    residual, slope = 1.0 - right, right * slope
    k, (d, q) = len(margins), population.scatter.basis.shape
    rounds = votes.rounds
    users = np.flatnonzero((rounds.counts > 1) & (votes.outer > 0))
    # Normal equations of every user: the products of the two regressors, and of each with the residuals.
    squares, products = np.zeros((len(users), 2, 2)), np.zeros((len(users), 2))
    for u, user in enumerate(users):
        start = rounds.starts[user]
        rows = rounds.order[start : start + min(rounds.counts[user], _MOST_VOTES)]
        inside = z[rows]
        outside = np.zeros((len(rows), len(rows)))
        if q < d:
            difference = votes.differences(rows)
            outside = difference @ difference.T - inside @ inside.T
        for of in range(k):
            s = slope[of, rows] if votes.weight is None else slope[of, rows] * votes.weight[rows]
            e = residual[of, rows] if votes.weight is None else residual[of, rows] * votes.weight[rows]
            pairs = np.stack([inside @ population.scatter.covariances[of] @ inside.T, outside]) * np.outer(s, s)
            pairs[:, np.arange(len(rows)), np.arange(len(rows))] = 0.0
            flat = pairs.reshape(2, -1)
            squares[u] += share[of, user] * flat @ flat.T
            products[u] += share[of, user] * flat @ np.outer(e, e).ravel()
    return _solved(squares, products)


def _solved(squares: Floats, products: Floats) -> tuple[Floats, Floats]:
    """Least squares without negative answers, and standard errors over users."""
    total, uphill = squares.sum(axis=0), products.sum(axis=0)
    free = np.diag(total) > 0
    found, error = np.zeros(2), np.full(2, math.inf)
    for _ in range(2):
        places = np.flatnonzero(free)
        if not len(places):
            break
        inverse = np.linalg.pinv(total[np.ix_(places, places)])
        found[:] = 0.0
        found[places] = inverse @ uphill[places]
        score = products[:, places] - squares[:, places][:, :, places] @ found[places]
        error[places] = np.sqrt(np.maximum(np.diag(inverse @ (score.T @ score) @ inverse), 0.0))
        if (found >= 0).all():
            break
        free &= found > 0
    return np.maximum(found, 0.0), error
