"""Exports of Label Studio: tasks with data, and the annotations of several people on each."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from micropref.datasets._cells import parsed
from micropref.datasets._faults import RowFault
from micropref.datasets._formats.protocol import Format, column_by_spelling, expanded
from micropref.datasets._names import GIVEN_PAIRS, pairs_called, spelled
from micropref.datasets._sources import Record, Source

__all__ = ["FORMAT"]

_SIDES = ("left", "right")


def _fits(source: Source) -> bool:
    readable = [record.cells for record in source.records if not record.fault]
    if not readable:
        return False
    columns = column_by_spelling(source)
    if {"data", "annotations"} <= columns.keys():
        return all(isinstance(cells.get(columns["data"]), Mapping) for cells in readable)
    return any(_selected(cells.get(name)) is not None for name in source.columns for cells in readable[:100])


def _rewrite(source: Source) -> Source:
    columns = column_by_spelling(source)
    if {"data", "annotations"} <= columns.keys():
        return expanded(source, lambda record: _annotated(record, columns["data"], columns["annotations"]))
    return expanded(source, _plain)


def _plain(record: Record) -> list[dict[str, Any]]:
    """A row of an export without nesting, in which only the verdict is an object."""
    cells = dict(record.cells)
    for name, cell in record.cells.items():
        selected = _selected(cell)
        if selected is not None:
            del cells[name]
            cells["label"] = selected
    return [cells]


def _selected(cell: Any) -> Any:
    if isinstance(cell, str) and cell.lstrip().startswith("{") and "selected" in cell:
        cell = parsed(cell)
    return cell["selected"] if isinstance(cell, Mapping) and list(cell) == ["selected"] else None


def _annotated(record: Record, data: str, annotations: str) -> list[dict[str, Any]]:
    task, done = record.cells[data], record.cells.get(annotations)
    if not isinstance(done, Sequence) or isinstance(done, str):
        raise RowFault("no annotations", f"expected a list of annotations, got {reprlib.repr(done)}")
    kept = [one for one in done if isinstance(one, Mapping) and not one.get("was_cancelled")]
    if not kept:
        raise RowFault("no annotations", "expected an annotation of the task, got none that was not cancelled")
    pairs = pairs_called(GIVEN_PAIRS, task)
    others = {name: cell for name, cell in record.cells.items() if name not in (data, annotations) and name not in task}
    simple = {name: cell for name, cell in others.items() if not isinstance(cell, Mapping | list)}
    return [{**simple, **task, "label": _verdict(one, pairs), "completed_by": one.get("completed_by")} for one in kept]


def _verdict(annotation: Mapping[str, Any], pairs: list[tuple[str, str]]) -> Any:
    """What an annotation selected: a side of a pairwise comparison, or its one choice."""
    results = annotation.get("result")
    verdicts = []
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, Mapping) else None
        if not isinstance(value, Mapping):
            continue
        if "selected" in value:
            verdicts.append(_side(value["selected"], str(result.get("to_name", "")), pairs))
        elif isinstance(value.get("choices"), list) and len(value["choices"]) == 1:
            verdicts.append(value["choices"][0])
    if len(verdicts) > 1:
        raise RowFault("several verdicts", f"expected one verdict in an annotation, got {reprlib.repr(verdicts)}")
    return verdicts[0] if verdicts else None


def _side(selected: Any, shown: str, pairs: list[tuple[str, str]]) -> Any:
    """Left or right, turned where the second response was shown on the left.

    What is shown may have names of its own. Where these are in no order, such as "text-2,text-1", it is the name of
    what was selected, whose meaning, if that is not known, is for the caller to say.
    """
    names = [spelled(name) for name in shown.split(",")]
    if selected not in _SIDES or not pairs or len(names) != 2:
        return selected
    first, second = map(spelled, pairs[0])
    if names == [second, first]:
        return _SIDES[1 - _SIDES.index(selected)]
    if names != [first, second] and names != sorted(names):
        return shown.split(",")[_SIDES.index(selected)].strip()
    return selected


FORMAT = Format(
    name="label-studio",
    expected="tasks with data (two responses) and annotations of the type pairwise or choices, or rows with "
    '{"selected": "left"}',
    columns=("response_a", "response_b", "label"),
    fits=_fits,
    rewrite=_rewrite,
)
