"""Rows of a source, as they came."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micropref.datasets._frames import narrow_floats

__all__ = ["Record", "Source", "record_of_object", "records_of_columns"]


class Record(NamedTuple):
    """One row as it came: its cells by column or, where `fault` says why not, whatever could be read of it.

    `kind` is the same for all rows with a fault of one kind, for counts.
    """

    number: int
    cells: Any
    fault: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Source:
    """All rows of one source, and how to say where one of them stands.

    Attributes
    ----------
    name, unit : str
        Of the source, and of its rows ("line", "row").
    records : list of Record
    path : Path, optional
        Of the file, where rows that are left out may be kept beside it.
    all_cells_are_text : bool
        Whether the source has no types, as CSV.
    notes : tuple of str
        What was found out about how the source is written, such as its encoding.
    annotators : tuple of str
        Columns whose labels became rows of their own, with the columns ``label`` and ``group`` that the source lacks.
    """

    name: str
    unit: str
    records: list[Record]
    path: Path | None = None
    all_cells_are_text: bool = False
    notes: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> list[str]:
        """Columns of all rows that can be read, in order of appearance."""
        return list(dict.fromkeys(name for record in self.records if not record.fault for name in record.cells))

    def place(self, record: Record) -> str:
        return f"{self.name}, {self.unit} {record.number}"


def records_of_columns(columns: Mapping[str, Any]) -> list[Record]:
    """Rows of a dict of columns; a ValueError where these are no lists of one length."""
    cells = {}
    for name, column in columns.items():
        if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
            raise ValueError(f"expected a list with a cell for each row, got {reprlib.repr(column)} in column {name!r}")
        if isinstance(column, np.ndarray):
            cells[name] = narrow_floats(column.tolist(), str(column.dtype))
        else:
            cells[name] = list(column)
    if len({len(column) for column in cells.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in cells.items())
        raise ValueError(f"expected columns of one length, got columns of different lengths ({lengths})")
    rows = zip(*cells.values(), strict=True)
    return [Record(number, dict(zip(cells, row, strict=True))) for number, row in enumerate(rows)]


def record_of_object(number: int, row: Any) -> Record:
    """A row that came as an object with named cells; one with a fault where it is none."""
    if not isinstance(row, dict | Mapping):  # dict first: asking an abstract class is slow
        return Record(
            number, row, f"expected an object with named cells, got {reprlib.repr(row)}", "no object with named cells"
        )
    return Record(number, row)
