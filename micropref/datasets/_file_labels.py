"""Labels in files and tables: which response was preferred, as the share of the preference that the first one gets."""

from __future__ import annotations

import math
import re
import reprlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Number

import numpy as np

from micropref._rows.ids import NO_USER_CELLS, integer_of_float
from micropref._rows.labels import PROBABILITY_RECIPE
from micropref._rows.vocabulary import meaning_of
from micropref.datasets._faults import MalformedRowError, RowFault
from micropref.datasets._sources import Record, Source
from micropref.datasets._text import listed

EXPECTED_LABEL = (
    "1, true or a name of the first response ('a', 'model_a', 'first', ...); 0, -1, 2, false or a name of the second; "
    "or 0.5 or 'tie'"
)

_SHARE_OF_NUMBER = {
    **dict.fromkeys(("1", "true"), 1.0),
    **dict.fromkeys(("0", "-1", "2", "false"), 0.0),
    "0.5": 0.5,
}
_SHARE_OF_NAME = {"first": 1.0, "second": 0.0, "tie": 0.5}
_IS_TIE = {**dict.fromkeys(("1", "true"), True), **dict.fromkeys(("0", "false", "", "none", "nan"), False)}
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
_PROBABILITY = re.compile(r"0?\.[0-9]+(e-[0-9]+)?|[0-9](\.[0-9]+)?e-[0-9]+")
# Numbers with a meaning of their own that files use for other things, too: 0 and 2 may be ties, 1 the second response.
_DOUBTFUL = ("0", "-1", "2", "1")
# Labels that a message lists.
_MOST_SHOWN = 8
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class LabelReader:
    """What the labels of a source mean: first what a mapping says of them, then their built-in meaning.

    Parameters
    ----------
    share_of_mapped : mapping of str to float, optional
        A label as readers spell it, to the share of the preference that the first response gets.
    reverses : bool, default=False
        Whether the mapping gives a label the opposite of its built-in meaning. The source then has conventions of its
        own, by which 2 may be a tie beside 0 and 1, so that only ties keep their built-in meaning.
    """

    share_of_mapped: Mapping[str, float] = field(default_factory=dict)
    reverses: bool = False

    @classmethod
    def of(cls, labels: Mapping[object, str] | None) -> LabelReader:
        """The reader of a mapping of labels to "first", "second" or "tie"."""
        if labels is None:
            return cls()
        if not isinstance(labels, Mapping):
            raise TypeError(
                f"labels: expected a mapping of labels to 'first', 'second' or 'tie', got {reprlib.repr(labels)}"
            )
        mapped: dict[str, float] = {}
        reverses = False
        for label, meaning in labels.items():
            _check_entry(label, meaning)
            spelled, share = _spelled(label), _SHARE_OF_NAME[meaning]
            if mapped.setdefault(spelled, share) != share:
                raise ValueError(f"labels: expected one meaning of each label, got two of {spelled!r}")
            built_in = _built_in_share(label)
            reverses |= built_in is not None and abs(share - built_in) == 1
        return cls(mapped, reverses)

    def share_of_first(self, label: object) -> float | None:
        """1 for the first response, 0 for the second, 0.5 for a tie; None where the label is not understood."""
        spelled = _spelled(label)
        if spelled in self.share_of_mapped:
            return self.share_of_mapped[spelled]
        share = _built_in_share(label)
        return None if self.reverses and share != 0.5 else share

    def is_missing(self, label: object, all_cells_are_text: bool) -> bool:
        """Whether a cell has no label: a fault of its row, where a label that is not understood is one of the file."""
        if label is None or (isinstance(label, float) and math.isnan(label)):
            return True
        if not isinstance(label, str) or _spelled(label) in self.share_of_mapped:
            return False
        return not label.strip() or (all_cells_are_text and label in NO_USER_CELLS)

    def naming(self, first: str, second: str) -> LabelReader:
        """This reader, for labels that may also be the names of the columns of responses."""
        return replace(self, share_of_mapped={_spelled(first): 1.0, _spelled(second): 0.0, **self.share_of_mapped})

    @property
    def expected(self) -> str:
        """What a label may be, for messages."""
        if self.reverses:
            return "a label in labels= (which reverses a usual meaning, so that no other label but a tie keeps its own)"
        return f"a label in labels=, or {EXPECTED_LABEL}" if self.share_of_mapped else EXPECTED_LABEL


def is_tie(cell: object, column: str) -> bool:
    """What a cell of a column of ties says."""
    spelled = _spelled(cell)
    if spelled not in _IS_TIE:
        raise RowFault(
            "a tie that is neither true nor false",
            f"expected true, false, 1 or 0, got {reprlib.repr(cell)} in column {column!r}",
        )
    return _IS_TIE[spelled]


def check_labels_of(source: Source, column: str, column_of_ties: str | None, reader: LabelReader) -> None:
    """An error, whether bad rows may be skipped or not, where the labels of a source cannot be understood.

    Raises
    ------
    MalformedRowError
        At the first label without a meaning.
    ValueError
        If numbers are used of which one may mean something else than it usually does.
    """
    seen: dict[str, float] = {}
    for record in source.records:
        if record.fault or _is_tied(record.cells, column_of_ties):
            continue
        label = record.cells.get(column)
        if reader.is_missing(label, source.all_cells_are_text):
            continue
        share = reader.share_of_first(label)
        if share is None:
            raise _not_understood(source, record, column, reader)
        seen[_spelled(label)] = share
    _check_numbers(source, column, seen, reader)


# Columns by these names say which response won; 0 and 1 in them may be its number.
_NAMES_WINNER = re.compile(r"winner|winning|better|best|choice|chosen|preferred|select|index|idx", re.IGNORECASE)


def are_numbered_from_zero(first: str, second: str) -> bool:
    """Whether two columns are called like ``response_0`` and ``response_1``."""
    return [re.sub(r"\D", "", name) for name in (first, second)] == ["0", "1"]


def refuse_numbers_of_columns(source: Source, pair: tuple[str, str], column: str, reader: LabelReader) -> None:
    """A ValueError for the labels 0 and 1 where 0 may be the number of the first response.

    It may be if the responses are called 0 and 1, or if the column names the winner, such as ``choice``.

    Raises
    ------
    ValueError
        If `labels` does not name them.
    """
    cells = [record.cells.get(column) for record in source.records if not record.fault]
    column = ", ".join(source.annotators) or column
    from_zero = are_numbered_from_zero(*pair)
    if not from_zero and not _NAMES_WINNER.search(column):
        return
    spellings = dict.fromkeys(
        _spelled(cell) for cell in cells if not reader.is_missing(cell, source.all_cells_are_text)
    )
    numbers = [one for one in spellings if re.sub(r"\D", "", one) in ("0", "1") and one not in reader.share_of_mapped]
    if not from_zero and (
        # Neither -1 nor 0.5 numbers a response, and where they are numbered from 1 the first of them is 1.
        {"-1", "0.5"} & spellings.keys()
        or ("0" not in numbers and ("2" in spellings or re.sub(r"\D", "", pair[0]) == "1"))
    ):
        return
    if numbers:
        raise ValueError(
            f"{source.name}: expected labels that say which of {pair[0]!r} and {pair[1]!r} was preferred, got "
            f"{numbers[0]!r} in column {column!r}, which may be the number of a response or mean that the first was "
            f"not preferred; say what they mean: if they are numbers, {_fix_of({'0': 'first', '1': 'second'})}; "
            f"if 1 means the first, {_fix_of({'1': 'first', '0': 'second'})}"
        )


def reads_as_labels(source: Source, column: str, reader: LabelReader) -> bool:
    """Whether every cell of a column that is not missing is a label, and there is one."""
    cells = [record.cells.get(column) for record in source.records if not record.fault]
    present = [cell for cell in cells if not reader.is_missing(cell, source.all_cells_are_text)]
    return bool(present) and all(reader.share_of_first(cell) is not None for cell in present)


def _check_numbers(source: Source, column: str, seen: Mapping[str, float], reader: LabelReader) -> None:
    """Beside another number of the same meaning, one that the mapping does not name may mean anything."""
    column = ", ".join(source.annotators) or column
    numbers = [spelled for spelled in (*_DOUBTFUL, *seen) if spelled in seen and _NUMBER.fullmatch(spelled)]
    for number in numbers:
        if number not in _DOUBTFUL or number in reader.share_of_mapped:
            continue
        same = [other for other in numbers if other != number and seen[other] == seen[number]]
        if same:
            meaning, named = ("first", "1") if seen[number] else ("second", "0, -1 or 2")
            raise ValueError(
                f"{source.name}: expected one label for the {meaning} response ({named}), got both {number} and "
                f"{same[0]} in column {column!r}, so that one of them may be a tie; say what they mean, such as "
                f"{_fix_of({number: 'tie', same[0]: meaning})}"
            )


def _not_understood(source: Source, record: Record, column: str, reader: LabelReader) -> MalformedRowError:
    label = record.cells.get(column)
    unknown = _without_meaning(source, column, reader)
    others = f"; all without a meaning: {listed(unknown[:_MOST_SHOWN])}" if len(unknown) > 1 else ""
    hint = f"; {PROBABILITY_RECIPE}" if unknown and all(_PROBABILITY.fullmatch(one) for one in unknown) else ""
    if source.annotators:
        column = str(record.cells.get("group"))
    text = str(label).strip()
    key = text if text.isprintable() and len(text) <= _LONGEST_SHOWN else "..."
    return MalformedRowError(
        f"{source.place(record)}: expected {reader.expected}, got the label {reprlib.repr(label)} in column "
        f"{column!r}{others}{hint}; say what {'each' if others else 'it'} means, such as {_fix_of({key: 'first'})} "
        f"(if the column says something else, give it another name: columns={{'other': {column!r}}})"
    )


def _without_meaning(source: Source, column: str, reader: LabelReader) -> list[str]:
    """The distinct labels that are not understood, those too long to be labels aside."""
    cells = (record.cells.get(column) for record in source.records if not record.fault)
    unknown = (
        str(cell).strip()
        for cell in cells
        if not reader.is_missing(cell, source.all_cells_are_text) and reader.share_of_first(cell) is None
    )
    return [text for text in dict.fromkeys(unknown) if text.isprintable() and len(text) <= _LONGEST_SHOWN]


def _fix_of(meanings: Mapping[str, str]) -> str:
    """How to say what labels mean, in Python and in the shell."""
    options = " ".join(f"--label {shlex.quote(f'{label}={meaning}')}" for label, meaning in meanings.items())
    return f"labels={dict(meanings)}, in the shell {options}"


def _check_entry(label: object, meaning: object) -> None:
    is_number = isinstance(label, Number | np.bool_) and label == label
    if not (is_number or (isinstance(label, str) and label.strip())):
        raise ValueError(f"labels: expected text, numbers or booleans as labels, got {reprlib.repr(label)}")
    if not (isinstance(meaning, str) and meaning in _SHARE_OF_NAME):
        raise ValueError(
            f"labels: expected 'first', 'second' or 'tie' as the meaning of {reprlib.repr(label)}, got "
            f"{reprlib.repr(meaning)}"
        )


def _built_in_share(label: object) -> float | None:
    number = _spelled(label)
    if number in _SHARE_OF_NUMBER:
        return _SHARE_OF_NUMBER[number]
    meaning = meaning_of(label)
    return None if meaning is None else _SHARE_OF_NAME[meaning]


def _is_tied(cells: Mapping[str, object], column: str | None) -> bool:
    return column is not None and _IS_TIE.get(_spelled(cells.get(column)), False)


def _spelled(label: object) -> str:
    text = str(label).strip().casefold()
    return integer_of_float(text) or text
