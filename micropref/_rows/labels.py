"""Labels of rows: which response won. A name that says so is never taken in sorted order."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from micropref._arrays.backend import is_torch, to_numpy
from micropref._rows.masks import refuse_masked
from micropref._rows.vocabulary import meaning_of
from micropref._support.warnings import level_of_caller

__all__ = ["PROBABILITY_RECIPE", "TIE_RECIPE", "check_labels", "distinct_labels", "signs_as_fit_reads_them"]

TIE_RECIPE = "a tie is two rows of weight 1/2, one in each order"
PROBABILITY_RECIPE = (
    "a probability p that the first response is preferred is two rows of weights p and 1 - p, one in each order"
)


class _Reading(NamedTuple):
    signs: np.ndarray
    classes: np.ndarray
    is_by_order: bool = False


def check_labels(
    y: ArrayLike | None, n_samples: int, *, classes: ArrayLike | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Signs and classes: +1 where the first response is preferred, −1 where the second is.

    {0, 1}, {False, True} and {−1, 1} mean second and first. Names that say which response won are refused: in sorted
    order, as scikit-learn takes labels, they would be reversed. Of two other labels the larger means first, and a
    UserWarning says so.

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

    Raises
    ------
    ValueError
        If the labels are not two, or their meaning is not known; the message has the line that resolves it.
    """
    if classes is not None:
        classes = _check_classes(classes)
    if y is None:
        return None, np.array([0, 1]) if classes is None else classes
    column = _label_column(y, n_samples)
    if classes is not None:
        return _signs_by_classes(column, classes), classes
    reading = _read(_plain(column))
    if reading.is_by_order:
        smaller, larger = reading.classes.tolist()
        warnings.warn(
            f"labels {smaller!r} and {larger!r}: {larger!r} was read as 'first preferred', because it is the larger; "
            f"pass y == {larger!r} to confirm this, or y == {smaller!r} for the opposite",
            UserWarning,
            stacklevel=level_of_caller(),
        )
    return reading.signs, reading.classes


def distinct_labels(y: ArrayLike | None, n_samples: int) -> np.ndarray | None:
    """The labels that occur in some of the rows of a fit, for `check_labels` to judge them beside those of the others.

    One alone may be any: it is the others that say what it means. Else errors are those of `check_labels`.
    """
    if y is None:
        return None
    column = _plain(_label_column(y, n_samples))
    if _conventional_signs(column) is not None:
        return np.array([label for label in (-1, 0, 1) if (column == label).any()], dtype=column.dtype)
    if len(column) and (column == column[0]).all():
        return column[:1]
    _read(column)
    return np.unique(column)


def signs_as_fit_reads_them(y: ArrayLike, n_samples: int) -> np.ndarray | None:
    """Signs by which a first `fit` would learn from y, without its warning; None where it would refuse y."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return check_labels(y, n_samples)[0]
        except ValueError:
            return None


def _check_classes(classes: ArrayLike) -> np.ndarray:
    pair = np.array(_without_enums(to_numpy(classes)))  # a copy, which the caller cannot change
    if pair.shape != (2,) or pair[0] == pair[1]:
        raise ValueError(
            f"classes: expected two different labels, the one for 'second preferred' first, got {pair.tolist()}"
        )
    second, first = map(meaning_of, pair.tolist())
    if second in ("first", "tie") or first in ("second", "tie"):
        raise ValueError(
            f"expected classes=[second, first], got {pair.tolist()}, which means the opposite; {_fix(pair)}"
        )
    return pair


def _signs_by_classes(column: np.ndarray, classes: np.ndarray) -> np.ndarray:
    if column.dtype == bool and _conventional_signs(classes) is None:
        raise ValueError(
            f"y: expected the labels {classes.tolist()}, got True or False, which may equal a label by chance; "
            f"pass np.where(y, {classes.tolist()[1]!r}, {classes.tolist()[0]!r})"
        )
    if column.dtype.kind in "iub" and classes.dtype.kind in "iub":
        first = column == classes[1]
        if (first | (column == classes[0])).all():
            return _signs(first)
    y = _plain(column)
    conventional, known = _conventional_signs(y), _conventional_signs(classes)
    if conventional is not None and known is not None and known[0] < known[1]:
        return conventional
    unknown = ~np.isin(y, classes)
    if unknown.any():
        label = y[unknown].tolist()[0]
        is_tie = meaning_of(label) == "tie" or label == 0.5 or (y.dtype.kind in "if" and {-1, 0} <= set(y.tolist()))
        recipe = f"; {TIE_RECIPE}" if is_tie else ""
        raise ValueError(
            f"y: expected one of the classes {classes.tolist()}, got the label {label!r} "
            f"in row {int(np.argmax(unknown))}{recipe}"
        )
    return _signs(y == classes[1])


def _read(y: np.ndarray) -> _Reading:
    """Signs and classes of labels of which nothing is known."""
    conventional = _conventional_signs(y)
    if conventional is not None:
        return _Reading(conventional, _default_classes(y))
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = int(np.argmin(np.isfinite(y)))
        raise ValueError(f"y: expected labels that are finite, got {y[row]} in row {row}")
    _refuse_missing(y)
    _refuse_names(y)
    kind = type_of_target(y)
    if kind == "continuous":
        row = int(np.argmax(y != np.round(y)))
        recipe = PROBABILITY_RECIPE if _are_probabilities(y) else TIE_RECIPE
        raise ValueError(f"Unknown label type: continuous. expected two labels, got {y[row]} in row {row}; {recipe}")
    if kind == "unknown":
        shown = list(dict.fromkeys(map(repr, y.tolist())))
        raise ValueError(
            f"Unknown label type: unknown. expected two labels of one type, got {', '.join(shown[:4])}"
            f"{', ...' if len(shown) > 4 else ''}"
        )
    check_classification_targets(y)
    found = np.unique(y)
    if len(found) > 2:
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {kind}; expected two labels, one for "
            f"each outcome of a comparison, got {len(found)} different labels: {_listed(found)}; {TIE_RECIPE}"
        )
    if y.dtype.kind in "if" and np.array_equal(found, (-1, 0)):
        raise ValueError(
            "expected labels 0 and 1, or -1 and 1, got 0 and -1, which both mean that the second response is "
            f"preferred; {TIE_RECIPE}"
        )
    if len(found) == 1:
        raise ValueError(
            f"expected two labels, or one of 0, 1, False, True, -1, got only one class, {found.tolist()[0]!r}: "
            "whether it means the first or the second response cannot be known; pass labels with that meaning, "
            "or `classes=[second, first]` to partial_fit"
        )
    return _Reading(_signs(y == found[1]), found, is_by_order=True)


def _are_probabilities(y: np.ndarray) -> bool:
    """Whether numbers lie between 0 and 1, and some are no halves."""
    return bool(((y >= 0) & (y <= 1)).all() and (2 * y != np.round(2 * y)).any())


def _refuse_missing(y: np.ndarray) -> None:
    if y.dtype == object:
        for row, label in enumerate(y.tolist()):
            if label is None or (isinstance(label, float) and label != label):
                raise ValueError(f"expected a label in every row of y, got {label!r} in row {row}; leave such rows out")


def _refuse_names(y: np.ndarray) -> None:
    if y.dtype.kind not in "OUST":
        return
    with suppress(TypeError):  # labels that are no keys are refused by scikit-learn
        labels = np.empty(len(distinct := dict.fromkeys(y.tolist())), dtype=object)
        labels[:] = list(distinct)
        if any(meaning_of(label) for label in labels):
            raise ValueError(
                f"expected labels that say whether the first response is preferred, got {_listed(labels)}; "
                f"{_fix(labels)}"
            )


def _fix(labels: np.ndarray) -> str:
    """The line that turns names into labels."""
    meanings = {label: meaning_of(label) for label in labels.tolist()}
    first = [label for label, meaning in meanings.items() if meaning == "first"]
    second = [label for label, meaning in meanings.items() if meaning == "second"]
    recipe = f"; {TIE_RECIPE}" if "tie" in meanings.values() else ""
    if None in meanings.values() or not (first or second):
        return f"pass y == L with the label L that means 'first preferred'{recipe}"
    if not first:
        first, second = second, first
    sign = "==" if meanings[first[0]] == "first" else "!="
    if len(first) == 1:
        return f"pass y {sign} {first[0]!r}{recipe}"
    return f"pass {'' if sign == '==' else '~'}np.isin(y, {first}){recipe}"


def _listed(labels: np.ndarray, most: int = 4) -> str:
    shown = [repr(label) for label in labels.tolist()[:most]]
    if len(labels) > most:
        return f"{', '.join(shown)}, ..."
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _label_column(y: ArrayLike, n_samples: int) -> np.ndarray:
    if sparse.issparse(y) or (is_torch(y) and str(y.layout) != "torch.strided"):  # type: ignore[union-attr]
        raise ValueError("expected y as a dense column of labels, got a sparse one; pass y.toarray().ravel()")
    refuse_masked(y, "y")
    given: Any = to_numpy(y) if is_torch(y) else _without_enums(y)
    if isinstance(given, list | tuple) and len({isinstance(label, str) for label in given}) > 1:
        # NumPy would make "1" of 1 beside a text.
        given, labels = np.empty(len(given), dtype=object), given
        given[:] = labels
    column: np.ndarray = given if isinstance(given, np.ndarray) and given.ndim == 1 else column_or_1d(given, warn=True)
    if column.shape[0] != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: X has {n_samples} rows, "
            f"y has {column.shape[0]}"
        )
    return column


def _without_enums(labels: Any) -> Any:
    """Labels in which members of an enumeration of texts are their texts, which NumPy would call by their names."""
    is_text = isinstance(labels, list | tuple) or (isinstance(labels, np.ndarray) and labels.dtype == object)
    if not is_text or not any(type(label) is not str and isinstance(label, str) for label in labels):
        return labels
    texts = [str.__str__(label) if isinstance(label, str) else label for label in labels]
    return texts if isinstance(labels, list | tuple) else np.array(texts, dtype=object)


def _plain(y: np.ndarray) -> np.ndarray:
    """Whole columns of booleans or integers as such, as from a nullable column of pandas."""
    if y.dtype != object:
        return y
    values = y.tolist()
    if len({isinstance(value, str) for value in values}) > 1:
        return y
    plain = np.asarray(values)
    return plain if plain.ndim == 1 and plain.dtype.kind in "bifU" else y


def _conventional_signs(labels: np.ndarray) -> np.ndarray | None:
    """Signs of labels from {0, 1}, {False, True} or {-1, 1}; None where a label is of no such kind."""
    if labels.dtype == bool:
        return _signs(labels)
    if labels.dtype.kind not in "iuf":
        return None
    first, zero, minus = labels == 1, labels == 0, labels == -1
    if not (first | zero | minus).all() or (zero.any() and minus.any()):
        return None
    return _signs(first)


def _signs(first_preferred: np.ndarray) -> np.ndarray:
    signs: np.ndarray = first_preferred.astype(np.int8) * np.int8(2) - np.int8(1)
    return signs


def _default_classes(labels: np.ndarray) -> np.ndarray:
    if labels.dtype == bool:
        return np.array([False, True])
    return np.array([-1 if (labels == -1).any() else 0, 1], dtype=labels.dtype)
