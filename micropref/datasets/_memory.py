"""Rows of tables in memory, and of folders that hold one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from micropref._support.optional import require
from micropref.datasets._class_names import ClassNames
from micropref.datasets._frames import columns_of_frame, is_frame, narrow_floats
from micropref.datasets._records import Record, Source, record_of_object, records_of_columns
from micropref.datasets._text import listed

__all__ = ["open_in_memory", "open_saved"]


def open_in_memory(source: Any) -> Source:
    """All rows of a table in memory, or of an iterable of mappings."""
    if _is_a(source, "datasets", "Dataset"):
        kinds = {name: str(getattr(feature, "dtype", "")) for name, feature in source.features.items()}
        names = ClassNames.of_features(source.features)
        columns = {n: names.apply(n, narrow_floats(cells, kinds[n])) for n, cells in source.to_dict().items()}
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
    if _is_a(source, "datasets", "IterableDataset"):
        names = ClassNames.of_features(source.features)
        named = ({name: names.apply(name, [cell])[0] for name, cell in row.items()} for row in source)
        return Source("the IterableDataset", "row", _records_of_objects(named))
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
        opened = open_in_memory(datasets.load_from_disk(str(folder)))
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder}: expected what save_to_disk wrote, got a folder that cannot be read ({error})"
        ) from None
    return replace(opened, name=str(folder), path=folder)


def _is_a(source: object, module: str, name: str) -> bool:
    # What was not imported cannot have made the object, so nothing is imported to find out.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(source, kind)


def _records_of_objects(rows: Iterable[Any]) -> list[Record]:
    return [record_of_object(number, row) for number, row in enumerate(rows)]
