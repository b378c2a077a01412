"""Several annotators in each row: a column for the label of each of them becomes a row for each of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from micropref.datasets._file_labels import LabelReader, reads_as_labels
from micropref.datasets._names import columns_called, nearest, spelled
from micropref.datasets._sources import Record, Source
from micropref.datasets._text import listed

__all__ = ["by_annotator", "hint_of_annotators"]

_STEM = re.compile(r"(label|vote|annotator|annotation|rater|judge|worker|preference|choice|winner)s?(\d+|[a-z])")


def by_annotator(source: Source, annotators: str | Sequence[str], renamed: Mapping[str, str]) -> Source:
    """The source with a row for each annotator of each row, whose name is that of the column; an empty cell is none.

    Parameters
    ----------
    source : Source
    annotators : str or sequence of str
        Columns with the labels of one annotator each; text separates them by commas.
    renamed : mapping of str to str
        New names that the caller gives to columns.

    Raises
    ------
    ValueError
        If a column is not there, or the rows name a user as well.
    """
    names = [one.strip() for one in annotators.split(",")] if isinstance(annotators, str) else list(annotators)
    present = source.columns
    for name in names:
        if name not in present:
            raise ValueError(
                f"{source.name}: expected columns with the labels of one annotator each in annotators= (in the shell "
                f"--annotators), got {name!r}; there are only {listed(present)}{nearest(str(name), present)}"
            )
    if len(set(names)) < len(names):
        raise ValueError(f"annotators: expected each column once, got {listed(names)}")
    if "label" in present and "label" not in names:
        raise ValueError(
            f"{source.name}: expected labels in the columns of annotators= alone, got a column 'label' as well; give "
            "that one another name: columns={'other': 'label'}, in the shell --column other=label"
        )
    users = [name for name in columns_called("group", present) if name not in names]
    if "group" in renamed or "user" in renamed or users:
        found = renamed.get("group") or renamed.get("user") or users[0]
        raise ValueError(
            f"{source.name}: expected users in the columns of annotators= alone, got the column {found!r} with users "
            f"as well; give that one another name: columns={{'other': {found!r}}}, in the shell --column other={found}"
        )
    records = [one for record in source.records for one in _rows_of(record, names)]
    return replace(source, records=records, annotators=tuple(names))


def _rows_of(record: Record, names: list[str]) -> list[Record]:
    if record.fault:
        return [record]
    rest = {name: cell for name, cell in record.cells.items() if name not in names}
    rows = [
        record._replace(cells={**rest, "label": record.cells[name], "group": name})
        for name in names
        if not _is_empty(record.cells.get(name))
    ]
    return rows or [record._replace(cells={**rest, "label": None, "group": None})]


def _is_empty(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def hint_of_annotators(source: Source, reader: LabelReader) -> str:
    """How to name the columns that look like the labels of several annotators; empty where there are none."""
    columns_of_stem: dict[str, list[str]] = defaultdict(list)
    for name in source.columns:
        found = _STEM.fullmatch(spelled(name))
        if found and reads_as_labels(source, name, reader):
            columns_of_stem[found[1]].append(name)
    names = next((names for names in columns_of_stem.values() if len(names) > 1), [])
    if not names:
        return ""
    return f"; for the labels of several annotators: annotators={names}, in the shell --annotators {','.join(names)}"
