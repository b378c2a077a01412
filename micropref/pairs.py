"""The layout of X: one comparison per row, ``[context | difference]``. No other module knows it.

The first `n_context_features` columns describe the context c of the comparison (an embedding of the prompt, of a stated
criterion, of a user profile); the remaining columns are the difference of the features of its two responses,
d = φ(first) − φ(second). Swapping the responses negates the difference and leaves the context alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from micropref._backend import Array, compute_dtype, is_torch, namespace, to_numpy
from micropref._blocks import row_blocks
from micropref._parameters import check_real
from micropref._validation import check_context_width, check_matrix, check_sample_weight
from micropref.distributed import active_communicator
from micropref.kernels import _threads


def make_pairs(first: ArrayLike, second: ArrayLike, context: ArrayLike | None = None) -> Array:
    """Put two sets of response features, and optionally contexts, into the layout of X.

    Parameters
    ----------
    first, second : array-like of shape (n_samples, n_features)
        Features φ of the first and of the second response of every comparison. NumPy arrays or torch tensors.
    context : array-like of shape (n_samples, n_context_features), optional
        Features of the context of every comparison.

    Returns
    -------
    X : array of shape (n_samples, n_context_features + n_features)
        ``[context | first - second]`` in the widest floating dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not agree.
    TypeError
        If NumPy arrays and torch tensors are mixed.

    Examples
    --------
    >>> make_pairs([[1.0, 2.0]], [[0.5, 4.0]], context=[[7.0]])
    array([[ 7. ,  0.5, -2. ]])
    """
    preferred, other = _as_features(first, "first"), _as_features(second, "second")
    if tuple(preferred.shape) != tuple(other.shape):
        raise ValueError(f"first has shape {tuple(preferred.shape)} but second has shape {tuple(other.shape)}")
    if is_torch(preferred) != is_torch(other):
        raise TypeError("first and second must both be NumPy arrays or both be torch tensors")
    difference = preferred - other
    if context is None:
        return difference
    about = _as_features(context, "context")
    if about.shape[0] != difference.shape[0]:
        raise ValueError(f"context has {about.shape[0]} rows but the responses have {difference.shape[0]}")
    if is_torch(about) != is_torch(difference):
        raise TypeError("context and responses must both be NumPy arrays or both be torch tensors")
    xp = namespace(difference)
    # The wider of the two types: a context of 1e5 would be infinite beside differences in half precision.
    dtype = xp.result_type(about, difference)
    return xp.concat([xp.astype(part, dtype, copy=False) for part in (about, difference)], axis=1)


def split_pairs(X: Array, n_context_features: int) -> tuple[Array, Array]:
    """Split X into views of its context and its difference columns.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    context : array of shape (n_samples, n_context_features)
    difference : array of shape (n_samples, n_features)
    """
    check_context_width(n_context_features, X.shape[1])
    return X[:, :n_context_features], X[:, n_context_features:]


def swap_pairs(X: Array, n_context_features: int) -> Array:
    """Exchange the first and the second response of every row: the difference changes its sign, the context stays.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    X : array of the same shape and dtype
    """
    context, difference = split_pairs(X, n_context_features)
    return namespace(X).concat([context, -difference], axis=1)


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
    context, difference = split_pairs(X, n_context_features)
    if n_kept == 0:
        return difference
    return namespace(X).concat([context[:, :n_kept], difference], axis=1)


def _as_features(values: ArrayLike, name: str) -> Array:
    array: Any = values if is_torch(values) else np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n_samples, n_features); got {array.ndim} dimension(s)")
    if is_torch(array):
        return array if array.dtype.is_floating_point else array.double()
    return array if array.dtype.kind == "f" else array.astype(np.float64)


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
        Already checked by `micropref._validation.check_matrix`.
    n_context_features : int
        Number of leading context columns.
    """

    def __init__(self, X: Array, n_context_features: int):
        check_context_width(n_context_features, X.shape[1])
        self.X = X
        self.n_context_features = n_context_features
        self.n_samples = int(X.shape[0])
        self.n_features = int(X.shape[1]) - n_context_features

    def __iter__(self) -> Iterator[PairBlock]:
        for rows, block in row_blocks(self.X):
            yield PairBlock(rows, block[:, : self.n_context_features], block[:, self.n_context_features :])


def root_mean_square_norms(X: Array, n_context_features: int, sample_weight: ArrayLike | None = None) -> np.ndarray:
    """Root mean square Euclidean norm of the contexts and of the differences, as ``[context, difference]``.

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
    norms : ndarray of shape (2,)
    """
    reader = PairReader(X, n_context_features)
    weight = None if sample_weight is None else to_numpy(sample_weight)
    mass = float(X.shape[0] if weight is None else weight.sum())
    quick = _sums_of_squares(reader, weight)
    if quick is not None:
        return np.sqrt(quick / max(mass, np.finfo(np.float64).tiny))
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
            unit = part / peak
            squares = unit * unit
            if weight is None:
                sum_of_squares = float(xp.sum(squares, dtype=xp.float64))
            else:
                sum_of_squares = float(weight[rows] @ to_numpy(xp.sum(squares, axis=1)))
            total[which] += sum_of_squares * (peak / largest[which]) ** 2
    return largest * np.sqrt(total / max(mass, np.finfo(np.float64).tiny))


def root_mean_square(norms: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square of all rows from that of parts and their weights; exact for one part."""
    largest = float(norms.max(initial=0.0))
    if largest == 0.0 or len(norms) == 1:
        return largest
    # Relative to the largest: squares of extremely small or large norms would under- or overflow.
    return largest * float(np.sqrt((norms / largest) ** 2 @ weights / weights.sum()))


def _sums_of_squares(reader: PairReader, weight: np.ndarray | None) -> np.ndarray | None:
    """Weighted sums of squares of contexts and differences in one read of X; None where a square may have lost digits.

    That is where one is not finite, or where they are so small that squares underflow.
    """
    low, high = 1e-20, 1e30  # squares of float32 keep their digits well inside of these
    total = np.zeros(2)
    for rows, *parts in reader:
        for which, part in enumerate(parts):
            if not part.shape[1]:
                continue
            squares = to_numpy(_row_squares(part))
            peak = float(squares.max(initial=0.0))
            if not peak < high:  # NaN is not less than anything
                return None
            total[which] += squares.sum(dtype=np.float64) if weight is None else weight[rows] @ squares
            # Rows of zeros only are what they are: nothing was lost where even the largest entry is zero.
            if peak < low and (peak > 0.0 or bool(namespace(part).any(part != 0.0))):
                return None
    return total


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


class PairScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Scale contexts and differences, each by one number, to a given root mean square norm.

    The penalties of the estimators are stated for features of a usual size; this brings embeddings of any size there.
    One scale per block keeps the geometry of the embedding, and differences are never centred: a shift would prefer
    the first response for being first, so that swapping two responses would no longer swap their probabilities.

    Parameters
    ----------
    n_context_features : int, default=0
        Number of leading context columns.
    context_norm : float, default=1.0
        Root mean square Euclidean norm of the scaled contexts.
    difference_norm : float, default=3.0
        Root mean square Euclidean norm of the scaled differences.

    Attributes
    ----------
    scale_ : ndarray of shape (2,)
        Factors of the contexts and of the differences; 1 for a block without columns or with zeros only.
    n_features_in_ : int
        Number of columns seen in `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[3.0, 4.0], [-3.0, 4.0]])
    >>> PairScaler(difference_norm=10.0).fit_transform(X)
    array([[ 6.,  8.],
           [-6.,  8.]])
    """

    def __init__(self, n_context_features: int = 0, *, context_norm: float = 1.0, difference_norm: float = 3.0):
        self.n_context_features = n_context_features
        self.context_norm = context_norm
        self.difference_norm = difference_norm

    def fit(self, X: Array, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Measure the two norms.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons; a memory-mapped file is read in blocks.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        self
        """
        ranks = active_communicator()
        everywhere = ranks.exchange(ranks.together(lambda: self._measure(X, sample_weight)))
        weights = np.array([weight for _, weight in everywhere])
        norms = np.array([root_mean_square(np.array([one[i] for one, _ in everywhere]), weights) for i in (0, 1)])
        wanted = np.array([self.context_norm, self.difference_norm])
        self.scale_ = np.divide(wanted, norms, out=np.ones(2), where=norms > 0)
        return self

    def _measure(self, X: Array, sample_weight: ArrayLike | None) -> tuple[np.ndarray, float]:
        """The two norms and the weight of these rows."""
        for name in ("context_norm", "difference_norm"):
            check_real(self, name, 0.0, above_minimum=True)
        X = check_matrix(self, X, reset=True)
        weight = check_sample_weight(sample_weight, X.shape[0])
        norms = root_mean_square_norms(X, self.n_context_features, weight)
        return norms, float(X.shape[0] if weight is None else weight.sum())

    def transform(self, X: Array) -> Array:
        """Scale comparisons.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)

        Returns
        -------
        X : array of the same shape
            float64 for float64 input, float32 for all else.
        """
        check_is_fitted(self)
        X = check_matrix(self, X, reset=False)
        xp = namespace(X)
        dtype = compute_dtype(X)
        kind = {"device": X.device} if is_torch(X) else {}
        scaled = xp.empty(tuple(X.shape), dtype=dtype, **kind)
        for rows, context, difference in PairReader(X, self.n_context_features):
            if not bool(xp.all(xp.isfinite(context))) or not bool(xp.all(xp.isfinite(difference))):
                raise non_finite(X, rows)
            scaled[rows, : self.n_context_features] = context * float(self.scale_[0])
            scaled[rows, self.n_context_features :] = difference * float(self.scale_[1])
        return scaled

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
