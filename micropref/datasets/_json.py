"""Rows in JSON: one object on each line, or one list of objects."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any

from micropref._support.strict_json import DuplicateKeyError, loads
from micropref.datasets._cells import is_message
from micropref.datasets._faults import MalformedRowError
from micropref.datasets._parsed import Parsed
from micropref.datasets._records import Record, record_of_object, records_of_columns
from micropref.datasets._text import listed

__all__ = ["parse_json", "parse_json_lines"]

_TWICE = "a key twice"  # the kind of a fault, for counts
# What a viewer of data sets writes around each row.
_OF_VIEWER = {"row", "row_idx", "truncated_cells"}


def parse_json_lines(lines: Iterable[tuple[int, str]], name: str) -> Parsed:
    """Rows of a file with one object on each line."""
    return Parsed([_json_line(number, line) for number, line in lines if line.strip()], "line")


def parse_json(lines: Iterable[tuple[int, str]], name: str) -> Parsed:
    """Rows of a file with one list of objects, of columns, or, whatever it is called, an object on each line."""
    numbered = list(lines)
    try:
        rows = loads("\n".join(line for _, line in numbered))
    except DuplicateKeyError as error:
        raise MalformedRowError(f"{name}, line {error.line}: {error}") from None
    except json.JSONDecodeError as error:
        as_lines = [_json_line(number, line) for number, line in numbered if line.strip()]
        if as_lines and not any(record.fault and record.kind != _TWICE for record in as_lines):
            return Parsed(as_lines, "line", notes=("one object on each line",))
        hint = "; a file with one object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise MalformedRowError(
            f"{name}, line {error.lineno}: expected one list of objects{hint}, got malformed JSON ({_reason(error)})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected one list of objects, got JSON that cannot be read ({error})") from None
    if isinstance(rows, list):
        return Parsed([record_of_object(number, row) for number, row in enumerate(rows)], "row")
    if not isinstance(rows, Mapping):
        raise ValueError(f"{name}: expected one list of objects, got {reprlib.repr(rows)}")
    return _document(rows, name, on_one_line=len(numbered) == 1)


def _document(value: Mapping[str, Any], name: str, *, on_one_line: bool) -> Parsed:
    """The rows that one object holds, in whichever of the usual ways."""
    key = _list_held_in(value)
    if key is not None:
        rows = [
            row["row"] if set(row) <= _OF_VIEWER and isinstance(row.get("row"), Mapping) else row for row in value[key]
        ]
        return Parsed(
            [record_of_object(number, row) for number, row in enumerate(rows)], "row", notes=(f"rows: {key}",)
        )
    columns = _columns_of(value)
    if columns is not None:
        return Parsed(records_of_columns(columns), "row", notes=("one object of columns",))
    by_number = _rows_by_number(value)
    if by_number is not None:
        return Parsed(
            [record_of_object(number, row) for number, row in enumerate(by_number)],
            "row",
            notes=("rows by their number",),
        )
    parts = [key for key, part in value.items() if _are_rows(part)]
    if len(parts) > 1:
        raise ValueError(
            f"{name}: expected one list of objects, got several in {listed(parts[:8])}; take one of them: "
            f"read_preferences(json.load(open({name!r}))[{parts[0]!r}]), in the shell: "
            f"jq '.[{json.dumps(parts[0])}]' {name} | micropref fit --format json - MODEL"
        )
    if on_one_line and value:
        return Parsed([record_of_object(1, value)], "line", notes=("one object on each line",))
    raise ValueError(f"{name}: expected one list of objects, got an object with the keys {listed(list(value)[:8])}")


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(r, Mapping) and not is_message(r) for r in value)


def _list_held_in(value: Mapping[str, Any]) -> str | None:
    """The key of the rows in an object with one list of objects, beside which only `features` is nested."""
    nested = [key for key, held in value.items() if isinstance(held, list | Mapping) and key != "features"]
    return nested[0] if len(nested) == 1 and _are_rows(value[nested[0]]) else None


def _columns_of(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Columns: lists of one length, none of them a conversation, or what pandas writes as "columns" or "split"."""
    names, table = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(table, list) and set(value) <= {"columns", "data", "index"}:
        if all(isinstance(row, list) and len(row) == len(names) for row in table):
            return {str(name): [row[place] for row in table] for place, name in enumerate(names)}
        return None
    columns = list(value.values())
    if len(columns) < 2:
        return None
    if all(isinstance(column, list) for column in columns):
        is_nested = any(isinstance(cell, Mapping) for column in columns for cell in column)
        return None if is_nested or len({len(column) for column in columns}) > 1 else value
    if _are_numbered(columns) and not _are_numbers(value):
        return {name: list(column.values()) for name, column in value.items()}
    return None


def _rows_by_number(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of ``{"0": {...}, "1": {...}}``, which pandas writes as "index"."""
    rows = list(value.values())
    are_rows = _are_numbers(value) and all(isinstance(row, Mapping) and not _are_numbers(row) for row in rows)
    return rows if are_rows else None


def _are_numbered(columns: list[Any]) -> bool:
    """Whether these are objects with the same numbers as keys, in the same order."""
    return all(isinstance(column, Mapping) for column in columns) and (
        _are_numbers(columns[0]) and all(list(column) == list(columns[0]) for column in columns)
    )


def _are_numbers(keys: Iterable[str]) -> bool:
    found = list(keys)
    return bool(found) and all(key.isdecimal() for key in found)


def _json_line(number: int, line: str) -> Record:
    try:
        row = loads(line)
        if isinstance(row, dict):
            # One name for all rows: the decoder makes new ones for each, which are as large as short cells.
            row = {intern(name): cell for name, cell in row.items()}
        return record_of_object(number, row)
    except DuplicateKeyError as error:
        return Record(number, line, str(error), _TWICE)
    except (ValueError, RecursionError) as error:
        return Record(
            number, line, f"expected one object on the line, got malformed JSON ({_reason(error)})", "malformed JSON"
        )


def _reason(error: Exception) -> str:
    # The decoder counts lines of what it was given, which are not those of the file.
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
