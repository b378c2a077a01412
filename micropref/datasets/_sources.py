"""Rows of preference data, as they come in files of several formats and in tables in memory."""

from __future__ import annotations

import csv
import gzip
import json
import os
import reprlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micropref._support.optional import require
from micropref.datasets._frames import columns_of_frame, is_frame, narrow_floats
from micropref.datasets._text import is_unicode, listed

_LONGEST_CSV_FIELD = 2**31 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class MalformedRowError(ValueError):
    """A row of preference data that cannot be used: where it is, what was expected and what was found there."""


class Record(NamedTuple):
    """One row as it came: its cells by column or, where `fault` says why not, whatever could be read of it."""

    number: int
    cells: Any
    fault: str = ""


@dataclass(frozen=True)
class Source:
    """All rows of one source, and how to say where one of them stands."""

    name: str
    unit: str
    records: list[Record]
    path: Path | None = None
    all_cells_are_text: bool = False

    def place(self, record: Record) -> str:
        return f"{self.name}, {self.unit} {record.number}"


def open_source(source: Any) -> Source:
    """All rows of a file or of a table in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing to read or no way to read it. A row that cannot be read is a record with a fault.
    TypeError
        If the source is of no known kind.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | os.PathLike):
        return _open_file(Path(source))
    if _is_a(source, "datasets", "Dataset"):
        kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in source.features.items()}
        columns = {name: narrow_floats(cells, kinds[name]) for name, cells in source.to_dict().items()}
        return Source("the Dataset", "row", _records_of_columns(columns))
    if _is_a(source, "datasets", "DatasetDict"):
        raise ValueError(f"expected one split, source[name], got a DatasetDict with the splits {listed(source)}")
    if isinstance(source, Mapping):
        return Source("the dict of columns", "row", _records_of_columns(source))
    if isinstance(source, list | tuple):
        return Source("the list", "row", _records_of_objects(source))
    if is_frame(source):
        return Source(f"the {type(source).__name__}", "row", _records_of_columns(columns_of_frame(source)))
    hint = "; .collect() makes a DataFrame of it" if hasattr(source, "collect") else ""
    raise TypeError(
        "expected a path, a DataFrame (pandas, Polars or Arrow), a datasets.Dataset, a list of dicts, a dict of "
        f"columns or a PreferenceTable, got a {type(source).__name__}{hint}"
    )


def _is_a(source: object, module: str, name: str) -> bool:
    # What was not imported cannot have made the object, so nothing is imported to find out.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(source, kind)


def _records_of_columns(columns: Mapping[str, Any]) -> list[Record]:
    cells = {}
    for name, column in columns.items():
        if isinstance(column, str) or not isinstance(column, Iterable):
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


def _records_of_objects(rows: Iterable[Any]) -> list[Record]:
    return [_record_of_object(number, row) for number, row in enumerate(rows)]


def _record_of_object(number: int, row: Any) -> Record:
    if not isinstance(row, dict | Mapping):  # dict first: asking an abstract class is slow
        return Record(number, row, f"expected an object with named cells, got {reprlib.repr(row)}")
    return Record(number, row)


def _open_file(path: Path) -> Source:
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file, got none: there is no such file")
    if suffix == ".parquet" and not name.endswith(".gz"):
        return Source(str(path), "row", _parquet_records(path), path)
    if suffix not in _TEXT_FORMATS:
        known = ", ".join(_TEXT_FORMATS)
        raise ValueError(f"{path}: expected one of {known} (each also .gz) or .parquet, got {path.suffix!r}")
    text_format = _TEXT_FORMATS[suffix]
    with gzip.open(path) if name.endswith(".gz") else open(path, "rb") as file:
        try:
            records = text_format.parse(file, path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: expected a gzip file, got a damaged or incomplete one ({error})") from None
    return Source(str(path), text_format.unit, records, path, text_format.all_cells_are_text)


def _parquet_records(path: Path) -> list[Record]:
    pyarrow = require("pyarrow", "Reading a Parquet file")
    parquet = require("pyarrow.parquet", "Reading a Parquet file")
    try:
        table = parquet.read_table(path)
        columns = {
            field.name: narrow_floats(table.column(place).to_pylist(), str(field.type))
            for place, field in enumerate(table.schema)
        }
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: expected a Parquet file, got one that cannot be read ({error})") from None
    return _records_of_columns(columns)


def _json_lines(lines: Iterable[bytes], path: Path) -> list[Record]:
    return [_json_line(number, line) for number, line in _numbered(lines) if line.strip()]


def _json_line(number: int, line: str) -> Record:
    fault = _fault_of_encoding(line)
    if fault:
        return Record(number, line, fault)
    try:
        return _record_of_object(number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return Record(number, line, f"expected one object on the line, got malformed JSON ({_reason(error)})")


def _json_array(lines: Iterable[bytes], path: Path) -> list[Record]:
    texts = []
    for number, line in _numbered(lines):
        texts.append(line)
        if fault := _fault_of_encoding(line):
            raise MalformedRowError(f"{path}, line {number}: {fault}")
    try:
        rows = json.loads("\n".join(texts))
    except json.JSONDecodeError as error:
        hint = "; a file with one object on each line is called .jsonl" if error.msg == "Extra data" else ""
        raise MalformedRowError(
            f"{path}, line {error.lineno}: expected one list of objects{hint}, got malformed JSON ({_reason(error)})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected one list of objects, got JSON that cannot be read ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected one list of objects, got {reprlib.repr(rows)}")
    return _records_of_objects(rows)


def _comma_separated(lines: Iterable[bytes], path: Path) -> list[Record]:
    return _separated(lines, path, ",")


def _tab_separated(lines: Iterable[bytes], path: Path) -> list[Record]:
    return _separated(lines, path, "\t")


def _separated(lines: Iterable[bytes], path: Path, delimiter: str) -> list[Record]:
    # The limit on a field, 131 072 characters, is module-wide: lifted to read and put back.
    limit = csv.field_size_limit(_LONGEST_CSV_FIELD)
    try:
        rows = list(_separated_rows(lines, delimiter))
    finally:
        csv.field_size_limit(limit)
    if not rows:
        return []
    number, header, fault = rows[0]
    if not fault and len(set(header)) < len(header):
        fault = f"expected column names that differ, got {listed(header)}"
    if fault:
        raise MalformedRowError(f"{path}, line {number}: {fault}")
    return [_name_cells(row, header) for row in rows[1:]]


def _separated_rows(lines: Iterable[bytes], delimiter: str) -> Iterator[Record]:
    """Every record with its cells as a list, and the line where it begins."""
    lines_of_record: list[str] = []

    def texts() -> Iterator[str]:
        for _, line in _numbered(lines):
            lines_of_record.append(line + "\n")
            yield lines_of_record[-1]

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        lines_of_record.clear()
        try:
            cells = next(reader)
            fault = _fault_of_encoding("".join(lines_of_record))
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"expected CSV with doubled quotes in quoted cells, got malformed CSV ({error})"
        if fault:
            yield Record(number, "".join(lines_of_record).rstrip("\r\n"), fault)
        elif cells:
            yield Record(number, cells)


def _name_cells(row: Record, header: list[str]) -> Record:
    if row.fault:
        return row
    if len(row.cells) != len(header):
        return row._replace(fault=f"expected {len(header)} cells as in the header, got {len(row.cells)}")
    return row._replace(cells=dict(zip(header, row.cells, strict=True)))


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Lines without their ends, counted from 1; bytes that are not UTF-8 come as lone surrogates."""
    for number, line in enumerate(lines, 1):
        start_of_file = _BYTE_ORDER_MARK if number == 1 else b""
        yield number, line.removeprefix(start_of_file).removesuffix(b"\n").decode(errors="surrogateescape")


class _TextFormat(NamedTuple):
    parse: Callable[[Iterable[bytes], Path], list[Record]]
    unit: str
    all_cells_are_text: bool = False


_TEXT_FORMATS = {
    ".jsonl": _TextFormat(_json_lines, "line"),
    ".ndjson": _TextFormat(_json_lines, "line"),
    ".json": _TextFormat(_json_array, "row"),
    ".csv": _TextFormat(_comma_separated, "line", all_cells_are_text=True),
    ".tsv": _TextFormat(_tab_separated, "line", all_cells_are_text=True),
}


def _fault_of_encoding(line: str) -> str:
    if is_unicode(line):
        return ""
    byte = next(ord(letter) - 0xDC00 for letter in line if "\udc80" <= letter <= "\udcff")
    return f"expected text in UTF-8, got the byte 0x{byte:02x}, which is not UTF-8 there"


def _reason(error: Exception) -> str:
    # The decoder counts lines of what it was given, which are not those of the file.
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
