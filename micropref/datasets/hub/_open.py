"""The splits of a published set, whichever way they come: hub, disk or memory."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from micropref._support.hub import hub_faults
from micropref._support.optional import require
from micropref.datasets._sources import Source, open_source
from micropref.datasets._text import listed

_SAVED_TO_DISK = ("dataset_dict.json", "state.json")


class Opened(NamedTuple):
    """Rows by split, and where they came from. Rows that came in no named split stand under None."""

    splits: dict[str | None, Source]
    source: str

    def split(self, name: str) -> Source:
        """One split; rows in no named split are any that is asked for.

        Raises
        ------
        ValueError
            If it is not there.
        """
        found = self.splits.get(name, self.splits.get(None))
        if found is None:
            raise ValueError(f"{self.source}: expected the split {name!r}, got the splits {listed(self.splits)}")
        return found

    @property
    def is_named(self) -> bool:
        """Whether the rows came in named splits."""
        return None not in self.splits


def open_splits(
    source: Any,
    *,
    hub_name: str,
    columns: tuple[str, ...],
    revision: str | None = None,
    config: str | None = None,
    data_dir: str | None = None,
) -> Opened:
    """Open a set from the hub, from disk or from memory.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict
        None is `hub_name`. A mapping holds a source for each split. A path is a file of rows, a folder written by
        ``save_to_disk``, or a folder with a copy of the files on the hub. Text that is no path but reads "owner/name"
        is another name on the hub.
    hub_name : str
    columns : tuple of str
        Columns that are needed; others are not read from a Dataset that has all of these.
    revision : str, optional
        Commit, tag or branch on the hub.
    config, data_dir : str, optional
        Configuration or folder of the set on the hub.

    Returns
    -------
    Opened

    Raises
    ------
    ImportError
        If `datasets` is needed and not installed.
    FileNotFoundError, TypeError, ValueError
        If there is nothing to read, no way to read it, or what was loaded lacks a column.
    ConnectionError, PermissionError, OSError
        If the hub cannot be reached, refuses access, or the disk is full.
    """
    if isinstance(source, str | os.PathLike) and Path(source).is_file():
        _refuse_revision(revision, source)
        return Opened({None: open_source(source)}, str(source))
    if source is None or isinstance(source, str | os.PathLike):
        source, origin = _load(source, hub_name, revision, config, data_dir)
        _refuse_other_columns(source, columns, origin)
    else:
        _refuse_revision(revision, source)
        origin = f"a {type(source).__name__}"
    if isinstance(source, Mapping):
        if not source:
            raise ValueError(f"{origin}: expected at least one split, got none")
        splits = {split: _open_one(rows, columns, f"{origin}, split {split!r}") for split, rows in source.items()}
        return Opened(splits, origin)
    return Opened({None: _open_one(source, columns, origin)}, origin)


def has_files(source: Any) -> bool:
    """Whether the source holds files as on the hub, in which a configuration or a folder can be chosen."""
    if source is None:
        return True
    if not isinstance(source, str | os.PathLike) or Path(source).is_file():
        return False
    return not any((Path(source) / name).exists() for name in _SAVED_TO_DISK)


def _load(
    source: str | os.PathLike[str] | None, hub_name: str, revision: str | None, config: str | None, data_dir: str | None
) -> tuple[Any, str]:
    name = hub_name if source is None else os.fspath(source)
    if Path(name).is_dir():
        _refuse_revision(revision, name)
        datasets = require("datasets", f"Reading the folder {name}")
        if not has_files(name):
            return datasets.load_from_disk(name), name
    elif source is not None and (not isinstance(source, str) or name.count("/") != 1 or name.startswith((".", "/"))):
        raise FileNotFoundError(
            f"{name}: expected a file, a folder or the name of a set on the hub, got none: there is no such file"
        )
    else:
        datasets = require("datasets", f"Loading {name} from the hub")
    arguments: dict[str, Any] = {"name": config, "data_dir": data_dir, "revision": revision}
    if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:
        # Releases that could still run a set's own code did so unless told otherwise.
        arguments["trust_remote_code"] = False
    given = {key: value for key, value in arguments.items() if value is not None}
    origin = name if revision is None else f"{name}@{revision}"
    with hub_faults(origin, "datasets", "give a copy of the set as source"):
        return datasets.load_dataset(name, **given), origin


def _refuse_other_columns(source: Any, columns: tuple[str, ...], origin: str) -> None:
    """A ValueError if a split of a set that was loaded lacks a column, before its rows are read."""
    for split, rows in source.items() if isinstance(source, Mapping) else [(None, source)]:
        present = getattr(rows, "column_names", None) or columns
        missing = [name for name in columns if name not in present]
        if missing:
            place = origin if split is None else f"{origin}, split {split!r}"
            raise ValueError(
                f"{place}: expected the columns {listed(columns)}, got {listed(present)}, without {listed(missing)}; "
                "if the set has changed, revision= takes an earlier commit of it"
            )


def _open_one(rows: Any, columns: tuple[str, ...], place: str) -> Source:
    present = getattr(rows, "column_names", ())
    if set(columns) < set(present):
        rows = rows.select_columns([name for name in present if name in columns])
    opened = open_source(rows)
    return Source(place, opened.unit, opened.records, opened.path, opened.all_cells_are_text)


def _refuse_revision(revision: str | None, source: Any) -> None:
    if revision is not None:
        what = os.fspath(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"
        raise ValueError(f"expected revision=None with {what}, which has no revisions, got {revision!r}")
