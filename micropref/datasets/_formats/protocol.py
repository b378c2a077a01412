"""What a format is: how it is known, and what makes plain rows of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from micropref.datasets._faults import RowFault
from micropref.datasets._names import spelled
from micropref.datasets._sources import Record, Source

__all__ = ["Format", "column_by_spelling", "expanded", "same"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout of public files.

    Attributes
    ----------
    name : str
        As ``format=`` and ``--format`` take it.
    expected : str
        What its rows have, for messages and for the page of the documentation.
    columns : tuple of str
        Roles that a file of other columns would have to name.
    fits : callable
        Whether a source has this format.
    rewrite : callable
        The source with plain columns.
    is_detected : bool
        Whether it is looked for where no format is named.
    """

    name: str
    expected: str
    columns: tuple[str, ...]
    fits: Callable[[Source], bool]
    rewrite: Callable[[Source], Source]
    is_detected: bool = True


def same(source: Source) -> Source:
    """The source as it is, for formats that the names of columns explain."""
    return source


def column_by_spelling(source: Source) -> dict[str, str]:
    """Columns of a source by their names as `spelled` writes them."""
    return {spelled(name): name for name in source.columns}


def expanded(source: Source, rows_of: Callable[[Record], Iterable[dict[str, Any]]]) -> Source:
    """The source with the rows that each of its records holds; a ValueError becomes the fault of the record."""
    records: list[Record] = []
    for record in source.records:
        if record.fault:
            records.append(record)
            continue
        try:
            records += [record._replace(cells=cells) for cells in rows_of(record)]
        except RowFault as fault:
            records.append(record._replace(fault=str(fault), kind=fault.kind))
    return replace(source, records=records)
