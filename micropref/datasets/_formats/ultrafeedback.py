"""UltraFeedback as it was published: several completions of an instruction, each rated on several aspects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from micropref.datasets._faults import RowFault
from micropref.datasets._formats.protocol import Format, column_by_spelling, expanded
from micropref.datasets._sources import Record, Source

__all__ = ["FORMAT"]


def _fits(source: Source) -> bool:
    columns = column_by_spelling(source)
    if not {"instruction", "completions"} <= columns.keys():
        return False
    readable = [record.cells.get(columns["completions"]) for record in source.records if not record.fault]
    return any(
        isinstance(cell, list) and cell and isinstance(cell[0], Mapping) and "annotations" in cell[0]
        for cell in readable
    )


def _rows_of(record: Record) -> list[dict[str, Any]]:
    from micropref.datasets.hub._completions import compare_completions

    cells = {"source": None, **record.cells}
    missing = [name for name in ("instruction", "completions") if name not in cells]
    if missing:
        raise RowFault("a column missing", f"expected the column {missing[0]!r} too, got {list(cells)}")
    try:
        rows = compare_completions(cells)
    except ValueError as fault:
        raise RowFault("a completion that cannot be used", str(fault)) from None
    return [
        {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "context": row.context, **row.extra}
        for row in rows
    ]


FORMAT = Format(
    name="ultrafeedback",
    expected="instruction and completions with responses and rated annotations",
    columns=("prompt", "chosen", "rejected"),
    fits=_fits,
    rewrite=lambda source: expanded(source, _rows_of),
)
