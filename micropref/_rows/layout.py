"""The layout of X: one comparison per row, ``[context | difference]``. No other module knows it.

The first `n_context_features` columns describe the context c of the comparison (an embedding of the prompt, of a stated
criterion, of a user profile); the remaining columns are the difference of the features of its two responses,
d = φ(first) − φ(second). Swapping the responses negates the difference and leaves the context alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micropref._arrays.backend import Array, compute_dtype, index_like, is_torch, namespace, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._rows.matrix import check_context_width
from micropref.kernels import _threads


class PairBlock(NamedTuple):
    """Consecutive rows of X in the dtype of computation."""

    rows: slice
    context: Array
    difference: Array


class PairReader:
    """Reads X in blocks of rows, so that nothing of its size is ever allocated.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
        Already checked by `micropref._rows.matrix.check_matrix`.
    n_context_features : int
        Number of leading context columns.
    """

    def __init__(self, X: Array, n_context_features: int):
        check_context_width(n_context_features, X.shape[1])
        self.X = X
        self.n_context_features = n_context_features
        self.n_samples = int(X.shape[0])
        self.n_features = int(X.shape[1]) - n_context_features

    def part(self, rows: slice | NDArray[Any]) -> PairReader:
        """Some of the rows."""
        where = index_like(rows, self.X) if isinstance(rows, np.ndarray) else rows
        return PairReader(self.X[where], self.n_context_features)

    def __iter__(self) -> Iterator[PairBlock]:
        for rows, block in row_blocks(self.X):
            yield PairBlock(rows, block[:, : self.n_context_features], block[:, self.n_context_features :])


def root_mean_square_norms(X: Array, n_context_features: int, sample_weight: ArrayLike | None = None) -> np.ndarray:
    """The norms of `measure` alone: one for the contexts and one for the differences."""
    return measure(X, n_context_features, sample_weight).norms


class Sizes(NamedTuple):
    """How large the entries of X are, each ``[of the contexts, of the differences]``.

    Attributes
    ----------
    norms : ndarray of shape (2,)
        Root mean square Euclidean norms.
    peaks : ndarray of shape (2,)
        Numbers that no entry exceeds in size: the largest entry where entries are extremely small or large, and the
        largest norm of a row elsewhere.
    """

    norms: NDArray[np.float64]
    peaks: NDArray[np.float64]


def measure(X: Array, n_context_features: int, sample_weight: ArrayLike | None = None) -> Sizes:
    """Sizes of the contexts and of the differences.

    Non-finite entries are an error that names the first one's row and column. Extremely small or large features
    neither under- nor overflow.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns.
    sample_weight : array-like of shape (n_samples,), optional
        Weights of the rows in the mean.

    Returns
    -------
    Sizes
    """
    reader = PairReader(X, n_context_features)
    weight = None if sample_weight is None else to_numpy(sample_weight)
    mass = float(X.shape[0] if weight is None else weight.sum())
    mass = max(mass, np.finfo(np.float64).tiny)
    quick = _sums_of_squares(reader, weight)
    if quick is not None:
        return Sizes(np.sqrt(quick[0] / mass), np.sqrt(quick[1]))
    total, largest = np.zeros(2), np.zeros(2)
    xp = namespace(X)
    for rows, *parts in reader:
        for which, part in enumerate(parts):
            peak = float(xp.max(xp.abs(part))) if part.shape[1] and part.shape[0] else 0.0
            if not np.isfinite(peak):
                raise non_finite(X, rows)
            if peak == 0.0:
                continue
            # Squares are taken relative to the largest entry so far: 1e-30 squared is 0 in float32, 1e30 is infinite.
            if peak > largest[which]:
                total[which] *= (largest[which] / peak) ** 2
                largest[which] = peak
            # In double precision: beside a peak of 1e25, the squares of ones would be 0 in single.
            unit = xp.astype(part, xp.float64) / peak
            squares = unit * unit
            if weight is None:
                sum_of_squares = float(xp.sum(squares))
            else:
                sum_of_squares = float(weight[rows] @ to_numpy(xp.sum(squares, axis=1)))
            total[which] += sum_of_squares * (peak / largest[which]) ** 2
    return Sizes(largest * np.sqrt(total / mass), largest)


def root_mean_square(norms: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square of all rows from that of parts and their weights; exact for one part."""
    largest = float(norms.max(initial=0.0))
    if largest == 0.0 or len(norms) == 1:
        return largest
    # Relative to the largest: squares of extremely small or large norms would under- or overflow.
    return largest * float(np.sqrt((norms / largest) ** 2 @ weights / weights.sum()))


def _sums_of_squares(reader: PairReader, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Weighted sums of squares of contexts and differences, and the largest of a row, in one read of X.

    None where a square may have lost digits: where one is not finite, or where they are so small that they underflow.
    """
    low, high = 1e-20, 1e30  # squares of float32 keep their digits well inside of these
    total, largest = np.zeros(2), np.zeros(2)
    for rows, *parts in reader:
        for which, part in enumerate(parts):
            if not part.shape[1]:
                continue
            squares = to_numpy(_row_squares(part))
            peak = float(squares.max(initial=0.0))
            if not peak < high:  # NaN is not less than anything
                return None
            largest[which] = max(largest[which], peak)
            total[which] += squares.sum(dtype=np.float64) if weight is None else weight[rows] @ squares
            # Rows of zeros only are what they are: nothing was lost where even the largest entry is zero.
            if peak < low and (peak > 0.0 or bool(namespace(part).any(part != 0.0))):
                return None
    return total, largest


def _row_squares(part: Array) -> Array:
    """Sum of squares of every row."""
    if is_torch(part):
        return namespace(part).vecdot(part, part, axis=1)
    out = np.empty(len(part), part.dtype)

    def some(rows: slice) -> None:
        np.einsum("ij,ij->i", part[rows], part[rows], out=out[rows])

    with np.errstate(over="ignore"):
        _threads.run(some, _threads.split(*part.shape))
    return out


def non_finite(X: Array, rows: slice) -> ValueError:
    """The error for the first entry of ``X[rows]`` that is NaN or infinite."""
    block = to_numpy(namespace(X).astype(X[rows], compute_dtype(X)))
    row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(block)))
    kind = "NaN" if np.isnan(block[row, column]) else "infinity"
    return ValueError(f"X contains NaN or infinity: {kind} in row {rows.start + row}, column {column}")


def narrow_context(X: Array, n_context_features: int, n_kept: int) -> Array:
    """Keep only the first `n_kept` context columns, as for a mixture whose gate sees less than its router.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns of X.
    n_kept : int
        Number of them to keep, from the left.

    Returns
    -------
    X : array of shape (n_samples, n_kept + n_features)
        A view where that is possible (all or none of the context kept).
    """
    if n_kept == n_context_features:
        return X
    check_context_width(n_context_features, X.shape[1])
    difference = X[:, n_context_features:]
    return difference if n_kept == 0 else namespace(X).concat([X[:, :n_kept], difference], axis=1)
