"""Labels in files and tables: which response was preferred, as the share of the preference that the first one gets."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping

from micropref._rows.ids import NO_USER_CELLS
from micropref._rows.vocabulary import meaning_of
from micropref.datasets._sources import MalformedRowError, Record, Source

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
_INTEGER_OF_FLOATS = re.compile(r"(-?[0-9]+)\.0+")
# Numbers that mean the second response, of which a file may use one only: beside another, 0 or 1 may be anything.
_SECONDS = ("0", "-1", "2")


def share_of_first(label: object) -> float | None:
    """1 for the first response, 0 for the second, 0.5 for a tie; None where the label is not understood."""
    number = _spelled(label)
    if number in _SHARE_OF_NUMBER:
        return _SHARE_OF_NUMBER[number]
    meaning = meaning_of(label)
    return None if meaning is None else _SHARE_OF_NAME[meaning]


def is_tie(cell: object, column: str) -> bool:
    """What a cell of a column of ties says."""
    spelled = _spelled(cell)
    if spelled not in _IS_TIE:
        raise ValueError(f"expected true, false, 1 or 0, got {reprlib.repr(cell)} in column {column!r}")
    return _IS_TIE[spelled]


def is_missing(label: object, all_cells_are_text: bool) -> bool:
    """Whether a cell has no label: a fault of its row, where a label that is not understood is one of the file."""
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return True
    return isinstance(label, str) and (not label.strip() or (all_cells_are_text and label in NO_USER_CELLS))


def check_labels_of(source: Source, column: str, column_of_ties: str | None) -> None:
    """An error, whether bad rows may be skipped or not, where the labels of a source cannot be understood.

    Raises
    ------
    MalformedRowError
        At the first label without a meaning.
    ValueError
        If numbers are used of which one may mean a tie.
    """
    seen: dict[str, None] = {}
    for record in source.records:
        if record.fault or _is_tied(record.cells, column_of_ties):
            continue
        label = record.cells.get(column)
        if is_missing(label, source.all_cells_are_text):
            continue
        if share_of_first(label) is None:
            raise _not_understood(source, record, column)
        seen[_spelled(label)] = None
    seconds = [number for number in _SECONDS if number in seen]
    if len(seconds) > 1:
        raise ValueError(
            f"{source.name}: expected one label for the second response (0, -1 or 2), got both {seconds[0]} and "
            f"{seconds[1]} in column {column!r}, so that one of them may be a tie; write ties as 0.5 or 'tie'"
        )


def reads_as_labels(source: Source, column: str) -> bool:
    """Whether every cell of a column that is not missing is a label, and there is one."""
    cells = [record.cells.get(column) for record in source.records if not record.fault]
    present = [cell for cell in cells if not is_missing(cell, source.all_cells_are_text)]
    return bool(present) and all(share_of_first(cell) is not None for cell in present)


def _not_understood(source: Source, record: Record, column: str) -> MalformedRowError:
    return MalformedRowError(
        f"{source.place(record)}: expected {EXPECTED_LABEL}, got the label "
        f"{reprlib.repr(record.cells.get(column))} in column {column!r} "
        f"(if the column says something else, give it another name: columns={{'other': {column!r}}})"
    )


def _is_tied(cells: Mapping[str, object], column: str | None) -> bool:
    return column is not None and _IS_TIE.get(_spelled(cells.get(column)), False)


def _spelled(label: object) -> str:
    text = str(label).strip().casefold()
    integer = _INTEGER_OF_FLOATS.fullmatch(text)
    return integer[1] if integer else text
