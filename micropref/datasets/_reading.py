"""From a source to a table: what every reader of comparisons does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from micropref.datasets._faults import MalformedRowError
from micropref.datasets._formats import file_kind, rewritten
from micropref.datasets._layout import Comparison, Layout
from micropref.datasets._report import ReadReport, report_rejected
from micropref.datasets._sources import Record, Source, open_source
from micropref.datasets._wide import by_annotator
from micropref.datasets.table import PreferenceTable

__all__ = ["opened_for_reading", "table_of"]


def opened_for_reading(
    source: Any,
    columns: Mapping[str, str],
    *,
    format: str | None = None,
    annotators: str | Sequence[str] | None = None,
    encoding: str | None = None,
) -> Source:
    """The rows of a source, rewritten to plain columns where it has a format of its own.

    Raises
    ------
    ValueError
        If there is no row, or no way to read it.
    """
    opened = open_source(source, encoding=encoding, kind=file_kind(format))
    if not opened.records:
        raise ValueError(f"{opened.name}: expected rows of comparisons, got an empty source")
    opened = rewritten(opened, format)
    if not opened.records:
        raise ValueError(f"{opened.name}: expected rows with comparisons, got rows without any")
    return opened if annotators is None else by_annotator(opened, annotators, columns)


def table_of(
    source: Source,
    layout: Layout,
    *,
    skip_bad: bool = False,
    rejected_path: str | os.PathLike[str] | None = None,
    way_out: str = "",
) -> PreferenceTable:
    """The comparisons of all good rows; a bad one is an error that ends in `way_out`, unless such rows are skipped."""
    found: list[Comparison] = []
    rejected: list[tuple[Record, ValueError]] = []
    for record in source.records:
        try:
            found += layout.comparisons(record)
        except ValueError as fault:
            if not skip_bad:
                raise MalformedRowError(f"{source.place(record)}: {fault}{way_out}") from None
            rejected.append((record, fault))
    faults = report_rejected(source, rejected, rejected_path) if rejected else {}
    is_weighted = layout.weight is not None or any(one.weight != 1.0 for one in found)
    return PreferenceTable(
        prompt=[one.prompt for one in found],
        chosen=[one.chosen for one in found],
        rejected=[one.rejected for one in found],
        context=None if layout.context is None else [one.context for one in found],
        group=None if layout.group is None else [one.group for one in found],
        weight=[one.weight for one in found] if is_weighted else None,
        extra={name: [one.cells.get(column) for one in found] for name, column in layout.extra.items()},
        n_rejected=len(rejected),
        report=ReadReport(
            source=source.name,
            n_rows=len(source.records),
            n_rejected=len(rejected),
            faults=faults,
            columns=_recognised(source, layout),
            notes=(*source.notes, *layout.notes),
        ),
    )


def _recognised(source: Source, layout: Layout) -> dict[str, str]:
    """Column of the source by what it was taken for; labels and users of several annotators have columns of theirs."""
    found = layout.recognised()
    if not source.annotators:
        return found
    return {role: column for role, column in found.items() if role not in ("label", "user")} | {
        "annotators": ", ".join(source.annotators)
    }
