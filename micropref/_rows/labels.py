"""Labels: which response was preferred."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from micropref._arrays.backend import is_torch, to_numpy

__all__ = ["check_labels", "distinct_labels"]


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
