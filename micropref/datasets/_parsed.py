"""What the parser of a format of files makes of the lines of one."""

from __future__ import annotations

from typing import NamedTuple

from micropref.datasets._records import Record

__all__ = ["Parsed"]


class Parsed(NamedTuple):
    """The rows of a file, the word for one of them, and what was found out on the way."""

    records: list[Record]
    unit: str
    all_cells_are_text: bool = False
    notes: tuple[str, ...] = ()
