"""Where a factorisation of rewards starts: directions in which users' answers differ, before any likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, svds

from micropref._rows.comparisons import Comparisons

__all__ = ["directions_of_shared_pairs", "directions_of_votes", "users_per_pair"]

# Up to so many entries, a matrix is decomposed as a whole.
_WHOLE = 1 << 21
# Ridge of the regression of pairs' factors on their differences, in shares of the mean variance of a feature.
_RIDGE = 1e-3
# Two rows whose projections agree to so many digits compare the same responses.
_SAME_PAIR = 1e-5
_NEGLIGIBLE = 1e-9


def directions_of_votes(rows: Comparisons, index: np.ndarray, n_users: int, n_components: int) -> np.ndarray:
    """Top right singular vectors (r, d), r ≤ n_components, of one row Σ_i ω_i (y_i − ½) d_i per user, times √S.

    No two users need have compared the same pair.
    """
    mine = np.flatnonzero(index >= 0)
    answers = csr_array(
        (0.5 * (rows.dense_weight * rows.dense_signs)[mine], (index[mine], mine)), shape=(n_users, rows.n_samples)
    )
    D = rows.difference
    if n_users * D.shape[1] <= _WHOLE:
        return _right_singular(answers @ D.astype(np.float64, copy=False), n_components)
    dtype = D.dtype
    product = LinearOperator(
        (n_users, D.shape[1]),
        matvec=lambda v: answers @ (D @ np.ravel(v).astype(dtype)).astype(np.float64),
        rmatvec=lambda v: ((answers.T @ np.ravel(v)).astype(dtype) @ D).astype(np.float64),
        dtype=np.float64,
    )
    return _right_singular(product, n_components)


def directions_of_shared_pairs(rows: Comparisons, index: np.ndarray, n_users: int, n_components: int) -> np.ndarray:
    """Directions (r, d) whose products with the pairs' differences resemble the left singular vectors of answers.

    The matrix of answers has a row for every distinct pair and a column for every user, y − ½ or their mean where it is
    known and 0 where it is not. Its factors U √S are regressed on the differences.
    """
    mine = np.flatnonzero(index >= 0)
    pair, orientation, first = _distinct_pairs(np.asarray(rows.difference[mine]))
    weight, shape = rows.dense_weight[mine], (len(first), n_users)
    total = csr_array((weight, (pair, index[mine])), shape=shape)
    answers = csr_array((0.5 * weight * rows.dense_signs[mine] * orientation, (pair, index[mine])), shape=shape)
    total.sum_duplicates()
    answers.sum_duplicates()
    answers.data = answers.data / total.data
    left = _right_singular(answers.T.tocsr(), n_components).T  # (n_pairs, r)
    D = np.asarray(rows.difference[mine[first]], dtype=np.float64)
    ridge = max(_RIDGE * float(np.vdot(D, D)) / D.shape[1], np.finfo(float).tiny)
    if D.shape[0] >= D.shape[1]:
        found = np.linalg.solve(D.T @ D + ridge * np.eye(D.shape[1]), D.T @ left)
    else:
        found = D.T @ np.linalg.solve(D @ D.T + ridge * np.eye(D.shape[0]), left)
    directions: np.ndarray = found.T
    return directions


def users_per_pair(rows: Comparisons, index: np.ndarray) -> float:
    """Mean number of users over the distinct pairs that users compared."""
    mine = np.flatnonzero(index >= 0)
    pair, _, first = _distinct_pairs(np.asarray(rows.difference[mine]))
    return len(np.unique(pair * (int(index.max()) + 1) + index[mine])) / len(first)


def _distinct_pairs(D: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of every row's pair, +1 or −1 for its orientation, and the first row of every pair; signs are ignored."""
    directions = np.asarray(np.random.RandomState(1).normal(size=(2, D.shape[1])), D.dtype)
    # Row by row, so that equal rows have equal projections.
    along = np.einsum("nd,kd->nk", D, directions).astype(np.float64)
    orientation = np.where(along[:, 0] < 0, -1.0, 1.0)
    unit = _SAME_PAIR * np.sqrt(np.mean(along**2)) or 1.0
    key = np.rint(along * orientation[:, None] / unit)
    _, first, pair = np.unique(key, axis=0, return_index=True, return_inverse=True)
    pair = np.ravel(pair)
    return pair, orientation * orientation[first][pair], first


def _right_singular(matrix: Any, count: int) -> np.ndarray:
    """Top right singular vectors (r, n_columns), times the roots of their values."""
    count = min(count, *matrix.shape)
    if matrix.shape[0] * matrix.shape[1] <= _WHOLE or count >= min(matrix.shape) - 1:
        dense = matrix if isinstance(matrix, np.ndarray) else matrix @ np.eye(matrix.shape[1])
        _, values, vectors = np.linalg.svd(dense, full_matrices=False)
    else:
        start = np.random.RandomState(0).normal(size=min(matrix.shape))
        _, values, vectors = svds(matrix, k=count, v0=start)
        values, vectors = values[::-1], vectors[::-1]
    kept = values[:count] > _NEGLIGIBLE * max(float(values[0]), np.finfo(float).tiny)
    found: np.ndarray = vectors[:count][kept] * np.sqrt(values[:count][kept])[:, None]
    return found
