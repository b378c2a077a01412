"""The directions in which users differ most, where there are more features than a belief can have directions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.sparse.linalg import ArpackError, eigsh

from micropref._arrays.blocks import row_blocks
from micropref._engine.user_votes import UserVotes
from micropref.kernels._pointwise import sigmoid

__all__ = ["axes_of_differences", "axes_of_users"]

Floats = NDArray[np.float64]

# Votes of one user beyond these say little more about directions, at a cost that grows with their square.
_MOST_VOTES = 300
_LEAST_CURVATURE = 1e-3
# Columns from which on a few eigenvectors are cheaper by Lanczos' method.
_WIDE = 256
# Of the eigenvalues; where as many as that of restarts are not enough, as among equal ones, LAPACK is as fast.
_EXACT, _RESTARTS = 1e-13, 10
# Rows of one product.
_ROWS = 2048


def axes_of_users(votes: UserVotes, margins: Floats, variance: float, n_axes: int) -> Floats:
    """Leading axes (d, n_axes) of the second moment of users' own rewards v_u, Σ_u E v_u v_uᵀ.

    One step of EM for a full covariance from variance · I (in units of the norm): the expectation is that of the
    Laplace approximation after one step of Newton from v = 0, computed in the space of each user's own votes.

    Parameters
    ----------
    votes : UserVotes
    margins : ndarray of shape (n_votes,)
        Of the head that each vote's user has, with the sign of the vote.
    variance : float
    n_axes : int
    """
    starts, counts, order = votes.rounds.starts, votes.rounds.counts, votes.rounds.order
    wrong = sigmoid(-margins)
    curvature = np.maximum(wrong * (1.0 - wrong), _LEAST_CURVATURE)
    if votes.weight is not None:
        wrong, curvature = wrong * votes.weight, curvature * votes.weight
    d = votes.rows.reader.n_features
    moment, pending = np.zeros((d, d)), _Pending()
    for user in np.flatnonzero((counts > 0) & (votes.outer > 0)):
        rows = order[starts[user] : starts[user] + min(counts[user], _MOST_VOTES)]
        rows = rows[curvature[rows] > 0]
        if not len(rows):
            continue
        differences = votes.differences(rows)
        gram = variance * differences @ differences.T
        gram.flat[:: len(rows) + 1] += 1.0 / curvature[rows]
        lower = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
        # The prior loses variance² DᵀG⁻¹D to what the votes say, and the mean is variance DᵀG⁻¹r.
        aside = np.column_stack([differences, wrong[rows] / curvature[rows]])
        halved = solve_triangular(lower, aside, lower=True, overwrite_b=True, check_finite=False)
        root = variance * math.sqrt(votes.outer[user])
        pending.add(root * halved[:, -1] @ halved[:, :-1], root * halved[:, :-1])
        if pending.size >= _ROWS:
            moment += pending.taken()
    if pending.size:
        moment += pending.taken()
    return _leading(moment, n_axes)


class _Pending:
    """Rows whose second moment is taken in one product: those of means add, the others subtract."""

    def __init__(self) -> None:
        self.means: list[Floats] = []
        self.rows: list[Floats] = []
        self.size = 0

    def add(self, mean: Floats, rows: Floats) -> None:
        self.means.append(mean)
        self.rows.append(rows)
        self.size += len(rows)

    def taken(self) -> Floats:
        means, rows = np.stack(self.means), np.concatenate(self.rows)
        self.__init__()  # type: ignore[misc]
        return np.asarray(means.T @ means - rows.T @ rows)


def axes_of_differences(votes: UserVotes, n_axes: int, beside: Floats) -> Floats:
    """Leading axes (d, n_axes) of the second moment of the differences, orthogonal to those `beside` them (d, m)."""
    d, c = votes.rows.reader.n_features, votes.rows.reader.n_context_features
    moment = np.zeros((d, d))
    for rows, block in row_blocks(votes.rows.reader.X):
        difference = np.asarray(block[:, c:], np.float64) / votes.norm
        moment += difference.T @ (difference * votes.rows.outer_weight[rows, None])
    within = moment @ beside
    moment -= within @ beside.T + beside @ within.T - beside @ (beside.T @ within) @ beside.T
    return _leading(0.5 * (moment + moment.T), n_axes)


def _leading(moment: Floats, n_axes: int) -> Floats:
    """Eigenvectors (d, n_axes) of the largest eigenvalues of a symmetric matrix."""
    vectors = _few_of_many(moment, n_axes) if len(moment) > max(_WIDE, 4 * n_axes) else None
    if vectors is None:
        vectors = eigh(moment, subset_by_index=(len(moment) - n_axes, len(moment) - 1))[1] if n_axes else moment[:, :0]
    vectors = vectors[:, ::-1]
    # The sign of an eigenvector is arbitrary, and may change with the last bit of the matrix.
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0))
    return np.asarray(vectors * np.where(signs == 0, 1.0, signs))


def _few_of_many(moment: Floats, n_axes: int) -> Floats | None:
    """The same by Lanczos' method, in a tenth of the time where the matrix is wide; None where that fails."""
    start = np.random.RandomState(0).normal(size=len(moment))
    try:
        vectors = (
            eigsh(moment, n_axes, which="LA", v0=start, tol=_EXACT, maxiter=_RESTARTS, ncv=4 * n_axes)[1]
            if n_axes
            else None
        )
    except ArpackError:
        return None
    return None if vectors is None else np.asarray(vectors)
