"""What users hand in, checked: matrices, labels, weights, groups. Errors say what was found and what was wanted."""

from __future__ import annotations

from contextlib import suppress
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from micropref._arrays.backend import Array, is_torch, to_numpy

_FLOATS = [np.float64, np.float32, np.float16]
UNGROUPED = -1
_CHUNK = 1 << 20
_FLOAT_IDS = np.float64(2**63)
# Of those that can be shifted within int64.
_LARGEST_ID = 1 << 62


def check_context_width(n_context_features: int, n_columns: int) -> None:
    """A ValueError unless the context leaves at least one column for the difference."""
    if not isinstance(n_context_features, Integral) or n_context_features < 0:
        raise ValueError(f"n_context_features must be an integer of at least 0; got {n_context_features!r}")
    if n_context_features >= n_columns:
        raise ValueError(
            f"n_context_features={n_context_features} leaves no column for the difference: "
            f"X has {n_columns} feature(s), the context's included"
        )


def check_matrix(estimator: Any, X: Array, *, reset: bool, min_rows: int = 1) -> Array:
    """X as a floating array of two dimensions, of the width seen in fit; its entries are checked where they are read.

    Half precision stays half precision, a memory-mapped file stays one, a torch tensor stays on its device.
    """
    if not reset and _is_ready(estimator, X):
        return X
    if not is_torch(X):
        return validate_data(
            estimator, X, reset=reset, dtype=_FLOATS, ensure_all_finite=False, ensure_min_samples=min_rows
        )
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D tensor instead")
    if X.shape[0] < min_rows or X.shape[1] == 0:
        raise ValueError(f"Found tensor of shape {tuple(X.shape)} while a minimum of 1 row and 1 column is required")
    if not X.dtype.is_floating_point:
        X = X.double()
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return X.detach()


def _is_ready(estimator: Any, X: Array) -> bool:
    """Whether X needs no conversion, warning or complaint; asking scikit-learn takes as long as a prediction."""
    return (
        type(X) in (np.ndarray, np.memmap)
        and X.ndim == 2
        and X.dtype in _FLOATS
        and X.shape[0] > 0
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    )


def check_sample_weight(
    sample_weight: ArrayLike | None, n_samples: int, *, may_be_zero: bool = False
) -> np.ndarray | None:
    """Weights as float64 of shape (n_samples,), or None; not negative, finite, and not all zero unless they may be."""
    if sample_weight is None:
        return None
    weight = np.asarray(to_numpy(sample_weight), dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n_samples, float(weight))
    if weight.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n_samples,)}!")
    if not np.isfinite(weight).all():
        raise ValueError(f"sample_weight contains NaN or infinity in row {int(np.argmin(np.isfinite(weight)))}")
    negative = np.flatnonzero(weight < 0)
    if len(negative):
        raise ValueError(f"sample_weight must not be negative; row {negative[0]} has {weight[negative[0]]}")
    if not may_be_zero and not (weight > 0).any():
        raise ValueError("sample_weight is zero in every row; at least one weight must be positive")
    return weight


# ---------------------------------------------------------------------------------------------------------- labels


def _conventional(labels: np.ndarray) -> np.ndarray | None:
    """Sign of labels from {0, 1}, {False, True} or {-1, 1}; None where a label is of no such kind."""
    if labels.dtype == bool:
        return _signs(labels)
    if labels.dtype.kind not in "iuf":
        return None
    first, zero, minus = labels == 1, labels == 0, labels == -1
    if not (first | zero | minus).all() or (zero.any() and minus.any()):
        return None
    return _signs(first)


def _signs(first_preferred: np.ndarray) -> np.ndarray:
    return first_preferred.astype(np.int8) * np.int8(2) - np.int8(1)


def _default_classes(labels: np.ndarray) -> np.ndarray:
    if labels.dtype == bool:
        return np.array([False, True])
    return np.array([-1 if (labels == -1).any() else 0, 1], dtype=labels.dtype)


def check_labels(
    y: ArrayLike | None, n_samples: int, *, classes: ArrayLike | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Signs and classes: +1 where the first response is preferred, −1 where the second is.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or None
        Labels; None means that the first response is preferred in every row.
    n_samples : int
        Number of rows of X.
    classes : array-like of shape (2,), optional
        The label of "second preferred" and the label of "first preferred", where they are known already.

    Returns
    -------
    signs : ndarray of int8 of shape (n_samples,), or None where every sign is +1
    classes : ndarray of shape (2,)
    """
    if classes is not None:
        classes = np.asarray(to_numpy(classes))
        if classes.shape != (2,) or classes[0] == classes[1]:
            raise ValueError(f"classes must hold two different labels, second-preferred first; got {classes.tolist()}")
    if y is None:
        return None, np.array([0, 1]) if classes is None else classes
    y = _label_column(y, n_samples)
    if classes is not None and y.dtype.kind in "iub" and classes.dtype.kind in "iub":
        first = y == classes[1]
        if (first | (y == classes[0])).all():
            return _signs(first), classes
    y = _plain(y)
    conventional = _conventional(y)
    if classes is not None:
        known = _conventional(classes)
        if conventional is not None and known is not None and known[0] < known[1]:
            return conventional, classes
        unknown = ~np.isin(y, classes)
        if unknown.any():
            raise ValueError(
                f"y has the label {y[unknown][0]!r} in row {int(np.argmax(unknown))}; "
                f"the classes are {classes.tolist()}"
            )
        return _signs(y == classes[1]), classes
    if conventional is not None:
        return conventional, _default_classes(y)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"y contains NaN or infinity: {y[~np.isfinite(y)][0]} in row {int(np.argmin(np.isfinite(y)))}")
    check_classification_targets(y)
    found = np.unique(y)
    if len(found) > 2:
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {type_of_target(y)}; "
            f"a comparison has two outcomes, y has {len(found)} different labels"
        )
    if y.dtype.kind in "if" and np.array_equal(found, (-1, 0)):
        raise ValueError(
            "y has the labels 0 and -1, which both mean that the second response is preferred; "
            "use 0 and 1, or -1 and 1. A tie is two rows of weight 1/2, one in each order"
        )
    if len(found) == 1:
        raise ValueError(
            f"y has only one class, {found.tolist()[0]!r}, and it is none of 0, 1, False, True, -1: "
            "whether it means the first or the second response cannot be known. Pass labels with that meaning, "
            "or `classes=[second, first]` to partial_fit"
        )
    return _signs(y == found[1]), found


def _label_column(y: ArrayLike, n_samples: int) -> np.ndarray:
    given: Any = to_numpy(y) if is_torch(y) else y
    column: np.ndarray = given if isinstance(given, np.ndarray) and given.ndim == 1 else column_or_1d(given, warn=True)
    if column.shape[0] != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_samples} rows, "
            f"y has {column.shape[0]}"
        )
    return column


def _plain(y: np.ndarray) -> np.ndarray:
    """Whole columns of booleans or integers as such, as from a nullable column of pandas."""
    if y.dtype != object:
        return y
    plain = np.asarray(y.tolist())
    return plain if plain.ndim == 1 and plain.dtype.kind in "bifU" else y


def distinct_labels(y: ArrayLike | None, n_samples: int) -> np.ndarray | None:
    """The labels that occur in some of the rows of a fit, for `check_labels` to judge them beside those of the others.

    One alone may be any: it is the others that say what it means. Else errors are those of `check_labels`.
    """
    if y is None:
        return None
    column = _plain(_label_column(y, n_samples))
    if _conventional(column) is not None:
        return np.array([label for label in (-1, 0, 1) if (column == label).any()], dtype=column.dtype)
    if len(column) and (column == column[0]).all():
        return column[:1]
    check_labels(column, n_samples)
    return np.unique(column)


# ---------------------------------------------------------------------------------------------------------- groups


class Groups(NamedTuple):
    """Which rows were answered by the same group (annotator).

    Attributes
    ----------
    ids : ndarray of shape (n_groups,)
        The distinct group ids.
    index : ndarray of int32 of shape (n_samples,)
        Position of every row's id in `ids`, or -1 for an ungrouped row.
    """

    ids: np.ndarray
    index: np.ndarray  # type: ignore[assignment]

    @property
    def n_groups(self) -> int:
        return len(self.ids)


def check_groups(groups: ArrayLike | None, n_samples: int) -> Groups | None:
    """Groups of the rows, or None where every row is ungrouped.

    None, NaN, -1 and missing values mean ungrouped. Ids may be integers, strings, or any hashable objects.
    """
    if groups is None:
        return None
    values = to_numpy(groups) if is_torch(groups) else np.asarray(groups)
    if values.dtype.kind == "U" and values.ndim == 1 and not isinstance(groups, np.ndarray):
        raw = np.array(groups, dtype=object)
        if not all(isinstance(value, str) for value in raw):
            values = raw  # NumPy had made "7" of 7 beside "ann", and "nan" of NaN
    if values.ndim != 1:
        raise ValueError(f"groups must have shape (n_samples,); got {values.ndim} dimension(s)")
    if values.shape[0] != n_samples:
        check_consistent_length(np.empty(n_samples), values)
    if values.dtype.kind in "iub":
        grouped = values != UNGROUPED
    elif values.dtype.kind == "f":
        grouped = ~np.isnan(values) & (values != UNGROUPED)
    else:
        # An id that is not equal to itself is a NaN, whatever its type; pandas.NA has no truth value.
        grouped = np.array([not _is_missing(value) for value in values.tolist()], dtype=bool)
    if not grouped.any():
        return None
    if n_samples == 1 and values.dtype.kind in "iuU":  # one vote at a time, as in a running service
        return Groups(values.copy(), np.zeros(1, dtype=np.int32))
    index = np.full(n_samples, -1, dtype=np.int32)
    if values.dtype.kind in "iu":
        low, high = int(values[grouped].min()), int(values[grouped].max())
        if high - low <= 4 * n_samples and low >= -_LARGEST_ID and high <= _LARGEST_ID:
            return _index_by_table(values, grouped, low, high - low + 1, index)
    if values.dtype.kind in "iubfU":
        ids, index[grouped] = np.unique(values[grouped], return_inverse=True)
        if values.dtype.kind == "f" and (np.abs(ids) < _FLOAT_IDS).all() and (ids == np.round(ids)).all():
            ids = ids.astype(np.int64)  # ids that passed through a column with gaps: 7.0 is the group 7
        return Groups(ids, index)
    present = values[grouped].tolist()
    known = list(dict.fromkeys(present))
    with suppress(TypeError):  # ids of several types may have no order
        known = sorted(known)
    position = {value: i for i, value in enumerate(known)}
    index[grouped] = [position[value] for value in present]
    ids = np.empty(len(known), dtype=object)
    ids[:] = known
    return Groups(ids, index)


def _index_by_table(values: np.ndarray, grouped: np.ndarray, low: int, span: int, index: np.ndarray) -> Groups:
    """Integer ids without gaps worth sorting for; np.unique would need five arrays of the length of the data."""
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(values), _CHUNK)]
    seen = np.zeros(span, dtype=bool)
    for rows in chunks:
        seen[values[rows][grouped[rows]].astype(np.int64) - low] = True
    position = np.cumsum(seen, dtype=np.int32) - 1
    for rows in chunks:
        index[rows][grouped[rows]] = position[values[rows][grouped[rows]].astype(np.int64) - low]
    return Groups(np.flatnonzero(seen) + low, index)


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, Real) and not isinstance(value, bool) and value == UNGROUPED):
        return True
    try:
        return bool(value != value)
    except TypeError:
        return True
