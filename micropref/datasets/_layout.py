"""Which column of a source holds what, and the comparisons in its rows."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from micropref._rows.ids import text_id, user_id
from micropref._support.warnings import level_of_caller
from micropref.datasets._chat import Speech, read_cell, read_speech, render, split_explicit, split_implicit
from micropref.datasets._file_labels import LabelReader, check_labels_of, is_tie, reads_as_labels
from micropref.datasets._sources import MalformedRowError, Record, Source
from micropref.datasets._text import is_blank, listed

# Columns that may name who compared, the one that says so first.
USER_COLUMNS = ("group", "user", "user_id", "worker", "annotator", "annotator_id")

_CHOSEN = ("chosen", "rejected")
RESPONSE_PAIRS = (_CHOSEN, ("response_a", "response_b"), ("first", "second"), ("response_1", "response_2"))
_LABELS = ("label", "preference")
_EXPECTED_COLUMNS = (
    "chosen and rejected, or response_a and response_b (or first and second, or response_1 and response_2) with a label"
)


class Comparison(NamedTuple):
    """One row of the table to be."""

    prompt: str
    chosen: str
    rejected: str
    context: str
    group: Hashable | None
    weight: float
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """Which column of the source holds what."""

    first: str
    second: str
    prompt: str | None
    label: str | None
    tie: str | None
    context: str | None
    group: str | None
    weight: str | None
    extra: dict[str, str]
    all_cells_are_text: bool
    reader: LabelReader

    def comparisons(self, record: Record) -> list[Comparison]:
        """The comparison in a record, or both orders of a tie; ValueError "expected X, got Y" if it has none."""
        if record.fault:
            raise ValueError(record.fault)
        cells = record.cells
        missing = [name for name in (self.first, self.second, self.prompt, self.weight) if name and name not in cells]
        if missing:
            raise ValueError(f"expected the columns {listed(missing)} too, got {listed(cells)}")
        prompt, first, second = self._texts(cells)
        context = self._context(cells)
        group = None if self.group is None else user_of_cell(cells.get(self.group), self.group, self.all_cells_are_text)
        weight = 1.0 if self.weight is None else _weight(cells[self.weight], self.weight)
        share = self._share_of_first(cells)
        if share == 0.5:
            weight /= 2
        orders = [(first, second)] * (share > 0) + [(second, first)] * (share < 1)
        return [Comparison(prompt, better, worse, context, group, weight, cells) for better, worse in orders]

    def _texts(self, cells: Mapping[str, Any]) -> tuple[str, str, str]:
        one, other = self._speech(cells[self.first], self.first), self._speech(cells[self.second], self.second)
        if self.prompt is None:
            prompt, first, second = split_implicit(one, other)
        else:
            opening = self._speech(_or_empty(cells[self.prompt]), self.prompt)
            prompt, first, second = split_explicit(opening, one, other)
        for text, column in ((first, self.first), (second, self.second)):
            if is_blank(text):
                raise ValueError(f"expected text, got an empty response in column {column!r}")
        if first == second:
            raise ValueError(
                f"expected two different responses, got the same text in the columns {self.first!r} and {self.second!r}"
            )
        return prompt, first, second

    def _speech(self, cell: Any, column: str) -> Speech:
        return read_speech(read_cell(cell) if self.all_cells_are_text else cell, column)

    def _context(self, cells: Mapping[str, Any]) -> str:
        if self.context is None:
            return ""
        return render(self._speech(_or_empty(cells.get(self.context)), self.context), "user")

    def _share_of_first(self, cells: Mapping[str, Any]) -> float:
        if self.tie is not None and is_tie(cells.get(self.tie), self.tie):
            return 0.5
        if self.label is None:
            return 1.0
        label = cells.get(self.label)
        share = None if self.reader.is_missing(label, self.all_cells_are_text) else self.reader.share_of_first(label)
        if share is None:
            raise ValueError(f"expected a label in column {self.label!r}, got {reprlib.repr(label)}")
        return share


def find_layout(source: Source, renamed: Mapping[str, str], reader: LabelReader) -> Layout:
    """The layout of a source by its columns.

    Parameters
    ----------
    source : Source
    renamed : mapping of str to str
        New name to name in the source.
    reader : LabelReader

    Raises
    ------
    MalformedRowError
        If the columns are no layout, or a label is not understood.
    ValueError
        If columns contradict one another, or `renamed` or the mapping of `reader` does not fit the source.
    """
    readable = [record for record in source.records if not record.fault]
    present = list(dict.fromkeys(name for record in readable for name in record.cells))
    if readable:
        _check_renamed(source, renamed, present)
    new_name_of = {old: new for new, old in renamed.items()}
    column_of = {new_name_of.get(name, name): name for name in present}

    pairs = [pair for pair in RESPONSE_PAIRS if column_of.keys() >= set(pair)]
    labels = _labels(source, column_of, reader, is_chosen=_CHOSEN in pairs)
    if readable and reader.share_of_mapped and not labels:
        raise ValueError(
            f"{source.name}: expected a column 'label' or 'preference' with the labels that labels= explains, got the "
            f"columns {listed(column_of)}; leave labels= out, or say which column it is: columns={{'label': ...}}"
        )
    _refuse_two_answers(source, column_of, pairs, labels)
    if readable and (not pairs or not (pairs[0] == _CHOSEN or labels)):
        raise MalformedRowError(
            f"{source.place(readable[0])}: expected {_EXPECTED_COLUMNS}, got the columns {listed(column_of)}"
        )
    first, second = pairs[0] if pairs else _CHOSEN
    label = labels[0] if labels else None
    group = _find_group(source, column_of)
    if label is not None:
        check_labels_of(source, column_of[label], column_of.get("tie"), reader)
    used = {first, second, "prompt", label, "tie", "context", group, "weight"}
    return Layout(
        first=column_of.get(first, first),
        second=column_of.get(second, second),
        prompt=column_of.get("prompt"),
        label=column_of[label] if label else None,
        tie=column_of.get("tie"),
        context=column_of.get("context"),
        group=column_of[group] if group else None,
        weight=column_of.get("weight"),
        extra={name: column for name, column in column_of.items() if name not in used},
        all_cells_are_text=source.all_cells_are_text,
        reader=reader,
    )


def user_of_cell(cell: Any, column: str, all_cells_are_text: bool) -> Hashable | None:
    """The user in a cell. A list, which is how JSON and Parquet hold a tuple, is that tuple."""
    try:
        if all_cells_are_text and isinstance(cell, str):
            return text_id(cell)
        return user_id(_as_tuple(cell))
    except ValueError as error:
        raise ValueError(f"{error} (column {column!r})") from None


def _as_tuple(cell: Any) -> Any:
    return tuple(map(_as_tuple, cell)) if isinstance(cell, list) else cell


def _labels(source: Source, column_of: Mapping[str, str], reader: LabelReader, *, is_chosen: bool) -> list[str]:
    """Columns that say which response was preferred: the first that is called so, others if all their cells do."""
    labels = [name for name in _LABELS if name in column_of]
    sure = labels[:1] if labels[:1] == ["label"] or not is_chosen else []
    return [name for name in labels if name in sure or reads_as_labels(source, column_of[name], reader)]


def _refuse_two_answers(
    source: Source, column_of: Mapping[str, str], pairs: list[tuple[str, str]], labels: list[str]
) -> None:
    kept = set(pairs[0] if pairs else ())
    if not (pairs and pairs[0] == _CHOSEN):
        kept |= set(labels[:1])
    others = {name for pair in pairs for name in pair} | (set(labels) if pairs else set())
    others -= kept
    if not others:
        return
    claims = [name for name in column_of if name in kept | others]
    rename = {f"other_{name}": column_of[name] for name in column_of if name in others}
    raise ValueError(
        f"{source.name}: expected one answer to which response was preferred, got the columns {listed(claims)}; which "
        f"one counts? If it is {' and '.join(map(repr, sorted(kept)))}, give the others other names: columns={rename}"
    )


def _check_renamed(source: Source, renamed: Mapping[str, str], present: list[str]) -> None:
    for new, old in renamed.items():
        if old not in present:
            raise ValueError(
                f"{source.name}: expected a column that is there as {new!r}, got {old!r}; there are only "
                f"{listed(present)}"
            )
        if list(renamed.values()).count(old) > 1:
            raise ValueError(f"{source.name}: expected columns to give {old!r} one new name, got more")
        if new in present and new not in renamed.values():
            raise ValueError(
                f"{source.name}: expected a free name for {old!r} in columns, got {new!r}, but there is a column "
                f"{new!r} as well; give that one another name, too: {{{new!r}: {old!r}, 'other': {new!r}}}"
            )


def _find_group(source: Source, column_of: Mapping[str, str]) -> str | None:
    if "group" in column_of:
        return "group"
    aliases = [name for name in USER_COLUMNS if name in column_of]
    if len(aliases) > 1:
        warnings.warn(
            f"{source.name}: any of the columns {listed(aliases)} may be the group, so none is used as such; "
            f'choose with columns={{"group": {aliases[0]!r}}}',
            UserWarning,
            stacklevel=level_of_caller(),
        )
    return aliases[0] if len(aliases) == 1 else None


def _or_empty(cell: Any) -> Any:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell


def _weight(cell: Any, column: str) -> float:
    try:
        weight = float(cell)
    except (TypeError, ValueError, OverflowError):
        weight = float("nan")
    if isinstance(cell, bool) or not 0 <= weight < float("inf"):
        raise ValueError(
            f"expected a finite number that is not negative, got the weight {reprlib.repr(cell)} in column {column!r}"
        )
    return weight
