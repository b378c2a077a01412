"""Rows of CSV: the separator that the header shows, and records that may go over several lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from micropref.datasets._faults import MalformedRowError
from micropref.datasets._parsed import Parsed
from micropref.datasets._records import Record
from micropref.datasets._text import listed

__all__ = ["parse_separated"]

_LONGEST_FIELD = 2**31 - 1
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
# How Excel says which separator a file has.
_DIRECTIVE = re.compile(r"sep=(.)\r?")


def parse_separated(lines: Iterable[tuple[int, str]], name: str, expected: str) -> Parsed:
    """Rows of a file whose first line names the columns.

    Parameters
    ----------
    lines : iterable of (int, str)
    name : str
        Of the file, for messages.
    expected : str
        The separator by the name of the file; another one is used where the header has only one column with it.
    """
    separator, start, lines = _separator_of(iter(lines), expected)
    # The limit on a field, 131 072 characters, is module-wide: lifted to read and put back.
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        rows = list(_separated_rows(lines, separator, start, name))
    finally:
        csv.field_size_limit(limit)
    notes = () if separator == expected else (f"separated by {_SEPARATORS.get(separator, repr(separator))}",)
    if not rows:
        return Parsed([], "line", True, notes)
    number, header, fault, _ = rows[0]
    if not fault and len(set(header)) < len(header):
        fault = f"expected column names that differ, got {listed(header)}"
    if fault:
        raise MalformedRowError(f"{name}, line {number}: {fault}")
    return Parsed([_name_cells(row, header) for row in rows[1:]], "line", True, notes)


def _separator_of(lines: Iterator[tuple[int, str]], expected: str) -> tuple[str, int, Iterator[tuple[int, str]]]:
    """The separator, the lines before the header, and the lines from it on."""
    for number, line in lines:
        if not line.strip():
            continue
        directive = _DIRECTIVE.fullmatch(line)
        if directive:
            return directive[1], number, lines
        widths = {one: _width(line, one) for one in _SEPARATORS}
        wider = [one for one in _SEPARATORS if widths[one] > 1]
        separator = wider[0] if widths[expected] == 1 and len(wider) == 1 else expected
        return separator, number - 1, chain([(number, line)], lines)
    return expected, 0, iter(())


def _width(header: str, separator: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=separator)))
    except (csv.Error, StopIteration):
        return 1


def _separated_rows(lines: Iterator[tuple[int, str]], separator: str, start: int, name: str) -> Iterator[Record]:
    """Every record with its cells as a list, and the line where it begins."""
    first = next(lines, None)
    if first is None:
        return
    # Spaces after the separators of the header are no part of the cells, whose quotes they would hide.
    is_spaced = re.search(rf"{re.escape(separator)}(?! )", first[1]) is None
    lines = chain([first], lines)
    lines_of_record: list[str] = []

    def texts() -> Iterator[str]:
        for _, line in lines:
            lines_of_record.append(line + "\n")
            yield lines_of_record[-1]

    reader = csv.reader(texts(), delimiter=separator, strict=True, skipinitialspace=is_spaced)
    while True:
        number = start + reader.line_num + 1
        lines_of_record.clear()
        try:
            cells = next(reader)
            fault = ""
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                # All rows to the end of the file are in that cell: no fault of one row.
                raise MalformedRowError(
                    f"{name}, line {number}: expected CSV with doubled quotes in quoted cells, got a quote that is "
                    "never closed and takes in the rest of the file; double it, or close it"
                ) from None
            fault = f"expected CSV with doubled quotes in quoted cells, got malformed CSV ({error})"
            if "new-line character" in str(error):
                fault = (
                    "expected lines that end in a line feed, got a carriage return alone in a cell without quotes; "
                    "save the file with line feeds, or quote the cell"
                )
        if fault:
            yield Record(number, "".join(lines_of_record).rstrip("\r\n"), fault, "malformed CSV")
        elif cells:
            yield Record(number, cells)


def _name_cells(row: Record, header: list[str]) -> Record:
    if row.fault:
        return row
    if len(row.cells) != len(header):
        fault = f"expected {len(header)} cells as in the header, got {len(row.cells)}"
        return row._replace(fault=fault, kind="another number of cells than the header")
    return row._replace(cells=dict(zip(header, row.cells, strict=True)))
