"""Rows of preference data, as they come in files and in tables in memory."""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from micropref._support.optional import require
from micropref.datasets._faults import MalformedRowError
from micropref.datasets._frames import columns_of_frame, is_frame, narrow_floats
from micropref.datasets._text import listed

__all__ = ["MalformedRowError", "Record", "Source", "open_source", "record_of_object", "records_of_columns"]


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
    """

    name: str
    unit: str
    records: list[Record]
    path: Path | None = None
    all_cells_are_text: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> list[str]:
        """Columns of all rows that can be read, in order of appearance."""
        return list(dict.fromkeys(name for record in self.records if not record.fault for name in record.cells))

    def place(self, record: Record) -> str:
        return f"{self.name}, {self.unit} {record.number}"


def open_source(source: Any, *, encoding: str | None = None, kind: str | None = None) -> Source:
    """All rows of a file or of a table in memory.

    Parameters
    ----------
    source : path, "-" for standard input, table in memory, or iterable of mappings
    encoding : str, optional
        Of the text of a file; by default what its first bytes say, else UTF-8.
    kind : str, optional
        How a file is written ("jsonl", "csv", …), where its name does not say so.

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
        from micropref.datasets._files import open_path

        return open_path(os.fspath(source), encoding, kind)
    if encoding is not None:
        raise ValueError(f"encoding: expected only for a file, got {encoding!r} with a {type(source).__name__}")
    return _open_in_memory(source)


def _open_in_memory(source: Any) -> Source:
    if _is_a(source, "datasets", "Dataset"):
        kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in source.features.items()}
        columns = {name: narrow_floats(cells, kinds[name]) for name, cells in source.to_dict().items()}
        return Source("the Dataset", "row", records_of_columns(columns))
    if _is_a(source, "datasets", "DatasetDict") or _is_a(source, "datasets", "IterableDatasetDict"):
        raise ValueError(
            f"expected one split, source[name], got a {type(source).__name__} with the splits {listed(source)}"
        )
    if isinstance(source, Mapping):
        return Source("the dict of columns", "row", records_of_columns(source))
    if isinstance(source, list | tuple):
        return Source("the list", "row", _records_of_objects(source))
    if _is_a(source, "pyarrow", "RecordBatchReader"):
        source = source.read_all()
    elif _is_a(source, "pyarrow", "RecordBatch"):
        source = sys.modules["pyarrow"].Table.from_batches([source])
    if is_frame(source):
        return Source(f"the {type(source).__name__}", "row", records_of_columns(columns_of_frame(source)))
    hint = "; .collect() makes a DataFrame of it" if hasattr(source, "collect") else ""
    if isinstance(source, Iterable) and not (hint or isinstance(source, bytes | set | np.ndarray)):
        return Source(f"the {type(source).__name__}", "row", _records_of_objects(source))
    raise TypeError(
        "expected a path, a DataFrame (pandas, Polars or Arrow), a datasets.Dataset, a list or an iterator of dicts, "
        f"a dict of columns or a PreferenceTable, got a {type(source).__name__}{hint}"
    )


def open_saved(folder: Path) -> Source:
    """The rows of a folder that ``datasets.Dataset.save_to_disk`` wrote.

    Raises
    ------
    ValueError
        If it holds several splits, or is no such folder.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = sorted(child.name for child in folder.iterdir() if child.is_dir())
        first = folder / (names[0] if names else "train")
        raise ValueError(
            f"{folder}: expected one split, got a folder with the splits {listed(names)}; name one: {first}"
        )
    if not (folder / "state.json").is_file():
        found = sorted(child.name for child in folder.iterdir())
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise ValueError(
            f"{folder}: expected a file, or a folder that save_to_disk wrote, got a folder with {listed(found[:8])}"
            f"{more}; name one of its files"
        )
    datasets = require("datasets", f"Reading the folder {folder}")
    try:
        opened = _open_in_memory(datasets.load_from_disk(str(folder)))
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder}: expected what save_to_disk wrote, got a folder that cannot be read ({error})"
        ) from None
    return replace(opened, name=str(folder), path=folder)


def _is_a(source: object, module: str, name: str) -> bool:
    # What was not imported cannot have made the object, so nothing is imported to find out.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(source, kind)


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


def _records_of_objects(rows: Iterable[Any]) -> list[Record]:
    return [record_of_object(number, row) for number, row in enumerate(rows)]


def record_of_object(number: int, row: Any) -> Record:
    """A row that came as an object with named cells; one with a fault where it is none."""
    if not isinstance(row, dict | Mapping):  # dict first: asking an abstract class is slow
        return Record(
            number, row, f"expected an object with named cells, got {reprlib.repr(row)}", "no object with named cells"
        )
    return Record(number, row)
