"""Rows in JSON: one object on each line, or one list of objects."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any

from micropref.datasets._cells import is_message
from micropref.datasets._faults import MalformedRowError
from micropref.datasets._parsed import Parsed
from micropref.datasets._records import Record, record_of_object, records_of_columns
from micropref.datasets._text import listed

__all__ = ["parse_json", "parse_json_lines"]


def parse_json_lines(lines: Iterable[tuple[int, str]], name: str) -> Parsed:
    """Rows of a file with one object on each line."""
    return Parsed([_json_line(number, line) for number, line in lines if line.strip()], "line")


def parse_json(lines: Iterable[tuple[int, str]], name: str) -> Parsed:
    """Rows of a file with one list of objects, of columns, or, whatever it is called, an object on each line."""
    numbered = list(lines)
    try:
        rows = json.loads("\n".join(line for _, line in numbered))
    except json.JSONDecodeError as error:
        as_lines = [_json_line(number, line) for number, line in numbered if line.strip()]
        if as_lines and not any(record.fault for record in as_lines):
            return Parsed(as_lines, "line", notes=("one object on each line",))
        hint = "; a file with one object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise MalformedRowError(
            f"{name}, line {error.lineno}: expected one list of objects{hint}, got malformed JSON ({_reason(error)})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected one list of objects, got JSON that cannot be read ({error})") from None
    held = _list_held_in(rows)
    if held is not None:
        return Parsed(
            [record_of_object(number, row) for number, row in enumerate(rows[held])], "row", notes=(f"rows: {held}",)
        )
    if isinstance(rows, Mapping) and len(numbered) == 1 and rows and not _are_columns(rows):
        return Parsed([record_of_object(1, rows)], "line", notes=("one object on each line",))
    if isinstance(rows, Mapping) and _are_columns(rows):
        return Parsed(records_of_columns(rows), "row", notes=("one object of columns",))
    if not isinstance(rows, list):
        keys = f" with the keys {listed(list(rows)[:8])}" if isinstance(rows, Mapping) else ""
        raise ValueError(f"{name}: expected one list of objects, got {reprlib.repr(rows)}{keys}")
    return Parsed([record_of_object(number, row) for number, row in enumerate(rows)], "row")


def _list_held_in(value: Any) -> str | None:
    """The key of the rows in an object with one list of objects and nothing else nested: ``{"data": [...]}``."""
    if not isinstance(value, Mapping):
        return None
    lists = [key for key, held in value.items() if isinstance(held, list | Mapping)]
    if len(lists) != 1 or not isinstance(value[lists[0]], list) or not value[lists[0]]:
        return None
    are_rows = all(isinstance(row, Mapping) and not is_message(row) for row in value[lists[0]])
    return lists[0] if are_rows else None


def _are_columns(value: Mapping[str, Any]) -> bool:
    """Whether an object holds columns: at least two lists of one length, none of them a conversation."""
    columns = list(value.values())
    if len(columns) < 2 or not all(isinstance(column, list) for column in columns):
        return False
    return len({len(column) for column in columns}) == 1 and not any(
        isinstance(cell, Mapping) for column in columns for cell in column
    )


def _json_line(number: int, line: str) -> Record:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            # One name for all rows: the decoder makes new ones for each, which are as large as short cells.
            row = {intern(name): cell for name, cell in row.items()}
        return record_of_object(number, row)
    except (ValueError, RecursionError) as error:
        return Record(
            number, line, f"expected one object on the line, got malformed JSON ({_reason(error)})", "malformed JSON"
        )


def _reason(error: Exception) -> str:
    # The decoder counts lines of what it was given, which are not those of the file.
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
