"""Labels: which response of a comparison won. The vocabulary is one for arrays and files."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from micropref._arrays.backend import is_torch, to_numpy
from micropref._rows.masks import refuse_masked

__all__ = [
    "FIRST_NAMES",
    "SECOND_NAMES",
    "TIE_NAMES",
    "TIE_RECIPE",
    "check_labels",
    "distinct_labels",
    "meaning_of",
    "normalized",
]

TIE_RECIPE = "a tie is two rows of weight 1/2, one in each order"

# --------------------------------------------------------------------------------------------------------- vocabulary

_NOUNS = (
    *("agent", "answer", "assistant", "bot", "candidate", "chat", "choice", "completion", "conversation", "document"),
    *("generation", "item", "llm", "message", "model", "option", "output", "passage", "player", "reply", "response"),
    *("result", "sample", "side", "solution", "story", "summary", "system", "text"),
)
_VERDICTS = ("win", "wins", "won", "better", "is_better", "preferred", "is_preferred", "chosen", "much_better")
_LOSSES = ("lose", "loses", "lost", "worse", "is_worse", "rejected", "is_rejected")
_PREFIXES = ("prefer", "prefers", "preferred", "better", "best", "winner", "chosen", "choose")


def _names(letter: str, number: str, *ordinals: str) -> set[str]:
    """Names of one of two responses: by itself and with a noun (model_a, response1, first_answer)."""
    marks = (letter, number, *ordinals)
    nouns = {f"{noun}{joint}{mark}" for noun in _NOUNS for mark in marks for joint in ("_", "")}
    nouns |= {f"{ordinal}_{noun}" for noun in _NOUNS for ordinal in ordinals}
    return {letter, *ordinals, *nouns, *(f"the_{ordinal}" for ordinal in ordinals)}


def _verdicts(winner: set[str], loser: set[str]) -> set[str]:
    """What says that a response won: its name, alone (a number is none) or with a verdict on either of the two."""
    won = {f"{name}_{verdict}" for name in winner for verdict in _VERDICTS}
    won |= {f"{prefix}_{name}" for name in winner for prefix in _PREFIXES}
    return winner - {"1", "2"} | won | {f"{name}_{verdict}" for name in loser for verdict in _LOSSES}


def _relations(pairs: Iterable[tuple[str, str]], signs: tuple[str, ...]) -> set[str]:
    return {f"{left}{sign}{right}" for left, right in pairs for sign in signs}


_PAIRS = (
    *(("a", "b"), ("1", "2"), ("first", "second"), ("left", "right"), ("model_a", "model_b")),
    *(("response_a", "response_b"), ("response_1", "response_2"), ("assistant_a", "assistant_b")),
)
_FIRST = _names("a", "1", "first", "1st", "left") | {"1"}
_SECOND = _names("b", "2", "second", "2nd", "right") | {"2"}
_SWAPPED = tuple((second, first) for first, second in _PAIRS)

#: Normalized names that say that the first response won.
FIRST_NAMES = frozenset(
    _verdicts(_FIRST, _SECOND)
    | {"accept", "accepted", "better", "chosen", "preferred"}
    | _relations(_PAIRS, (">", ">>"))
    | _relations(_SWAPPED, ("<", "<<"))
)
#: Normalized names that say that the second response won.
SECOND_NAMES = frozenset(
    _verdicts(_SECOND, _FIRST)
    | {"dispreferred", "reject", "rejected", "worse"}
    | _relations(_PAIRS, ("<", "<<"))
    | _relations(_SWAPPED, (">", ">>"))
)
#: Normalized names that say that neither won.
TIE_NAMES = frozenset(
    {
        *("tie", "tied", "ties", "draw", "drawn", "equal", "equals", "equally_good", "equally_bad", "same", "the_same"),
        *("both", "neither", "both_bad", "bothbad", "both_good", "bothgood", "both_equal", "both_equally_good"),
        *("neither_is_better", "no_preference", "no_difference", "about_the_same", "indifferent", "neutral"),
        *(f"tie{joint}({kind})" for joint in ("", "_") for kind in ("bothbad", "both_bad", "bothgood", "both_good")),
        *(f"tie_{kind}" for kind in ("bothbad", "both_bad", "bothgood", "both_good")),
    }
    | _relations(_PAIRS + _SWAPPED, ("=", "==", "~", "≈"))
)


def normalized(label: str) -> str:
    """A label as the vocabulary spells it: without case, outer space and brackets; spaces and hyphens as underscores.

    Parameters
    ----------
    label : str

    Returns
    -------
    str
    """
    text = re.sub(r"[\s\-_]+", "_", label.casefold().strip(" \t\r\n[]"))
    return re.sub(r"_?([<>=~≈]+)_?", r"\1", text)


def meaning_of(label: object) -> Literal["first", "second", "tie"] | None:
    """What a name says about which response won. Numbers have their own rules and no meaning here.

    Parameters
    ----------
    label : object
        Text, or bytes of text; anything else has no meaning.

    Returns
    -------
    "first", "second", "tie" or None
    """
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if not isinstance(label, str):
        return None
    name = normalized(label)
    if name in FIRST_NAMES:
        return "first"
    if name in SECOND_NAMES:
        return "second"
    return "tie" if name in TIE_NAMES else None


# ------------------------------------------------------------------------------------------------------------- arrays


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
            f"labels {smaller!r} and {larger!r}: {larger!r} was taken for 'first preferred', because it is the larger; "
            f"pass y == {larger!r} to confirm this, or y == {smaller!r} to say otherwise",
            UserWarning,
            stacklevel=_level_of_caller(),
        )
    return reading.signs, reading.classes


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
    _read(column)
    return np.unique(column)


def _check_classes(classes: ArrayLike) -> np.ndarray:
    pair = np.array(to_numpy(classes))  # a copy, which the caller cannot change
    if pair.shape != (2,) or pair[0] == pair[1]:
        raise ValueError(f"classes must hold two different labels, second-preferred first; got {pair.tolist()}")
    second, first = map(meaning_of, pair.tolist())
    if second in ("first", "tie") or first in ("second", "tie"):
        raise ValueError(
            f"expected classes=[second, first], got {pair.tolist()}, which says the opposite; {_fix(pair)}"
        )
    return pair


def _signs_by_classes(column: np.ndarray, classes: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "iub" and classes.dtype.kind in "iub":
        first = column == classes[1]
        if (first | (column == classes[0])).all():
            return _signs(first)
    y = _plain(column)
    conventional, known = _conventional(y), _conventional(classes)
    if conventional is not None and known is not None and known[0] < known[1]:
        return conventional
    unknown = ~np.isin(y, classes)
    if unknown.any():
        label = y[unknown].tolist()[0]
        is_tie = meaning_of(label) == "tie" or label == 0.5 or (y.dtype.kind in "if" and {-1, 0} <= set(y.tolist()))
        recipe = f"; {TIE_RECIPE}" if is_tie else ""
        raise ValueError(
            f"y has the label {label!r} in row {int(np.argmax(unknown))}; the classes are {classes.tolist()}{recipe}"
        )
    return _signs(y == classes[1])


def _read(y: np.ndarray) -> _Reading:
    """Signs and classes of labels of which nothing is known."""
    conventional = _conventional(y)
    if conventional is not None:
        return _Reading(conventional, _default_classes(y))
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"y contains NaN or infinity: {y[~np.isfinite(y)][0]} in row {int(np.argmin(np.isfinite(y)))}")
    _refuse_missing(y)
    _refuse_names(y)
    kind = type_of_target(y)
    if kind == "continuous":
        row = int(np.argmax(y != np.round(y)))
        raise ValueError(
            f"Unknown label type: continuous. expected two labels, got {y[row]} in row {row}; {TIE_RECIPE}"
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
    given: Any = to_numpy(y) if is_torch(y) else y
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


def _plain(y: np.ndarray) -> np.ndarray:
    """Whole columns of booleans or integers as such, as from a nullable column of pandas."""
    if y.dtype != object:
        return y
    values = y.tolist()
    if len({isinstance(value, str) for value in values}) > 1:
        return y
    plain = np.asarray(values)
    return plain if plain.ndim == 1 and plain.dtype.kind in "bifU" else y


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
    signs: np.ndarray = first_preferred.astype(np.int8) * np.int8(2) - np.int8(1)
    return signs


def _default_classes(labels: np.ndarray) -> np.ndarray:
    if labels.dtype == bool:
        return np.array([False, True])
    return np.array([-1 if (labels == -1).any() else 0, 1], dtype=labels.dtype)


def _level_of_caller() -> int:
    """The level of the first frame outside of the library, which is the line that a warning is about."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("micropref."):
        level, frame = level + 1, frame.f_back
    return level
