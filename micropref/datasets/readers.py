"""Preference data from files and in-memory tables, in the layouts that are in use, as a `PreferenceTable`."""

from __future__ import annotations

import json
import math
import os
import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from micropref.datasets.chat import Speech, read_cell, read_speech, render, split_explicit, split_implicit
from micropref.datasets.sources import MalformedRowError, Record, Source, listed, open_source
from micropref.datasets.table import PreferenceTable, group_id, is_blank

_RESPONSE_PAIRS = (
    ("chosen", "rejected"),
    ("response_a", "response_b"),
    ("first", "second"),
    ("response_1", "response_2"),
)
_WANTED_COLUMNS = (
    "chosen and rejected, or response_a and response_b (or first and second, or response_1 and response_2) with a label"
)
_GROUP_ALIASES = ("user", "user_id", "worker", "annotator", "annotator_id")

# Share of the preference that goes to the first response, by what the label says.
_SHARE_OF_FIRST = {
    **dict.fromkeys(("1", "true", "a", "first"), 1.0),
    **dict.fromkeys(("0", "-1", "false", "b", "second"), 0.0),
    **dict.fromkeys(("0.5", "tie"), 0.5),
}
_WANTED_LABEL = "1, true, 'a' or 'first'; 0, -1, false, 'b' or 'second'; or 0.5 or 'tie'"
_IS_TIE = {**dict.fromkeys(("1", "true"), True), **dict.fromkeys(("0", "false", "", "none", "nan"), False)}
_WHOLE_FLOATS = frozenset({"1.0", "0.0", "-1.0"})

# How tools spell a missing id in a CSV cell, where everything is text.
_NO_GROUP_CELLS = frozenset({"", "-1", "nan", "none", "null"})


def read_preferences(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    rejected_path: str | os.PathLike[str] | None = None,
) -> PreferenceTable:
    """Read comparisons of two responses from a file or from a table in memory.

    The layout is found from the columns present:

    - ``chosen`` and ``rejected``, with ``prompt`` or without. Without it the prompt is what both begin with.
      ``label`` and ``tie``, if there, are honoured: a label of 0 says that ``rejected`` was preferred after all.
    - ``response_a`` and ``response_b`` (or ``first`` and ``second``, or ``response_1`` and ``response_2``) with
      ``label`` or ``preference``: 1, true, "a" or "first" for the first; 0, -1, false, "b" or "second" for the
      second; 0.5 or "tie", or a column ``tie`` that is true, for neither.

    Prompts, contexts and responses are text, or lists of ``{"role", "content"}`` messages (in CSV: as JSON).
    Optional columns are ``context``, ``group`` (or one of ``user``, ``user_id``, ``worker``, ``annotator``,
    ``annotator_id``) and ``weight``. All others come along as ``extra``.

    A tie becomes two adjacent rows, one in each order, each of half the weight.

    Parameters
    ----------
    source : path, pandas.DataFrame, datasets.Dataset, list of dict, dict of columns, or PreferenceTable
        Paths end in ``.jsonl``, ``.ndjson``, ``.json`` (one list of objects), ``.csv``, ``.tsv``, each with ``.gz``
        or without, or in ``.parquet``. A PreferenceTable is returned as it is.
    columns : dict of str to str, optional
        New name to name in the source, for columns called otherwise: ``{"chosen": "better", "topic": "label"}``.
    skip_bad : bool, default=False
        Leave bad rows out, count them in a UserWarning and in ``n_rejected``, and write them to `rejected_path`,
        instead of stopping at the first.
    rejected_path : path, optional
        Where left-out rows go, as JSON lines ``{"line": number, "reason": ..., "row": ...}``. By default beside the
        source with ``.rejected.jsonl`` appended to its name; nowhere if the source is in memory.

    Returns
    -------
    PreferenceTable

    Raises
    ------
    MalformedRowError
        At the first bad row: "FILE, line 3: found X, wanted Y". Lines of text files count from 1, a CSV record stands
        where it begins; rows of other sources count from 0.
    ValueError
        If nothing can be read, all rows are bad, the suffix is unknown or `columns` does not fit the source.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> from micropref import read_preferences
    >>> table = read_preferences([
    ...     {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 0, "user": "ann"},
    ...     {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": "tie", "user": "bob"},
    ... ])
    >>> table.chosen, table.weight.tolist(), table.group.tolist()
    (['No.', 'Yes.', 'No.'], [1.0, 0.5, 0.5], ['ann', 'bob', 'bob'])
    """
    if isinstance(source, PreferenceTable):
        if columns:
            raise ValueError("found columns= with a PreferenceTable, whose columns have their names already")
        return source
    opened = open_source(source)
    if not opened.records:
        raise ValueError(f"{opened.name} is empty: found no rows of comparisons")
    layout = _find_layout(opened, columns or {})

    comparisons: list[_Comparison] = []
    rejected: list[tuple[Record, str]] = []
    for record in opened.records:
        try:
            comparisons += layout.comparisons(record)
        except ValueError as fault:
            if not skip_bad:
                raise MalformedRowError(f"{opened.place(record)}: {fault}") from None
            rejected.append((record, str(fault)))
    if rejected:
        _report_rejected(opened, rejected, rejected_path)

    is_weighted = layout.weight is not None or any(one.weight != 1.0 for one in comparisons)
    return PreferenceTable(
        prompt=[one.prompt for one in comparisons],
        chosen=[one.chosen for one in comparisons],
        rejected=[one.rejected for one in comparisons],
        context=None if layout.context is None else [one.context for one in comparisons],
        group=None if layout.group is None else [one.group for one in comparisons],
        weight=[one.weight for one in comparisons] if is_weighted else None,
        extra={name: [one.cells.get(column) for one in comparisons] for name, column in layout.extra.items()},
        n_rejected=len(rejected),
    )


class _Comparison(NamedTuple):
    prompt: str
    chosen: str
    rejected: str
    context: str
    group: str | int | None
    weight: float
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class _Layout:
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

    def comparisons(self, record: Record) -> list[_Comparison]:
        """The comparison in a record, or both orders of a tie; ValueError "found X, wanted Y" if it has none."""
        if record.fault:
            raise ValueError(record.fault)
        cells = record.cells
        missing = [name for name in (self.first, self.second, self.prompt, self.weight) if name and name not in cells]
        if missing:
            raise ValueError(f"found the columns {listed(cells)}, wanted {listed(missing)} too")
        first = self._speech(cells[self.first], self.first)
        second = self._speech(cells[self.second], self.second)
        if self.prompt is None:
            prompt, first, second = split_implicit(first, second)
        else:
            opening = self._speech(_or_empty(cells[self.prompt]), self.prompt)
            prompt, first, second = split_explicit(opening, first, second)
        for text, column in ((first, self.first), (second, self.second)):
            if is_blank(text):
                raise ValueError(f"found an empty response in column {column!r}, wanted text")
        if first == second:
            raise ValueError(
                f"found the same text in the columns {self.first!r} and {self.second!r}, wanted two different responses"
            )
        context = self._context(cells)
        group = self._group(cells)
        weight = 1.0 if self.weight is None else _weight(cells[self.weight], self.weight)
        share = self._share_of_first(cells)
        if share == 0.5:
            weight /= 2
        orders = [(first, second)] * (share > 0) + [(second, first)] * (share < 1)
        return [_Comparison(prompt, better, worse, context, group, weight, cells) for better, worse in orders]

    def _speech(self, cell: Any, column: str) -> Speech:
        return read_speech(read_cell(cell) if self.all_cells_are_text else cell, column)

    def _context(self, cells: Mapping[str, Any]) -> str:
        if self.context is None:
            return ""
        return render(self._speech(_or_empty(cells.get(self.context)), self.context), "user")

    def _group(self, cells: Mapping[str, Any]) -> str | int | None:
        if self.group is None:
            return None
        cell = cells.get(self.group)
        is_missing = self.all_cells_are_text and _spelled(cell) in _NO_GROUP_CELLS
        return None if is_missing else group_id(cell)

    def _share_of_first(self, cells: Mapping[str, Any]) -> float:
        if self.tie is not None:
            spelled = _spelled(cells.get(self.tie))
            if spelled not in _IS_TIE:
                raise ValueError(
                    f"found {reprlib.repr(cells[self.tie])} in column {self.tie!r}, wanted true, false, 1 or 0"
                )
            if _IS_TIE[spelled]:
                return 0.5
        if self.label is None:
            return 1.0
        share = _SHARE_OF_FIRST.get(_spelled(cells.get(self.label)))
        if share is None:
            found = reprlib.repr(cells.get(self.label))
            raise ValueError(
                f"found the label {found} in column {self.label!r}, wanted {_WANTED_LABEL} "
                "(a column that says something else needs another name through columns=)"
            )
        return share


def _find_layout(source: Source, renamed: Mapping[str, str]) -> _Layout:
    readable = [record for record in source.records if not record.fault]
    present = list(dict.fromkeys(name for record in readable for name in record.cells))
    if readable:
        _check_renamed(source, renamed, present)
    new_name_of = {old: new for new, old in renamed.items()}
    column_of = {new_name_of.get(name, name): name for name in present}

    pair = next((pair for pair in _RESPONSE_PAIRS if column_of.keys() >= set(pair)), None)
    says_which = pair == ("chosen", "rejected")
    label_names = ("label",) if says_which else ("label", "preference")
    label = next((name for name in label_names if name in column_of), None)
    if readable and (pair is None or not (says_which or label)):
        raise MalformedRowError(
            f"{source.place(readable[0])}: found the columns {listed(column_of)}, wanted {_WANTED_COLUMNS}"
        )
    first, second = pair or _RESPONSE_PAIRS[0]
    group = _find_group(source, column_of)
    if label is not None:
        _refuse_two_meanings_of_zero(source, column_of[label])
    used = {first, second, "prompt", label, "tie", "context", group, "weight"}
    return _Layout(
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
    )


def _check_renamed(source: Source, renamed: Mapping[str, str], present: list[str]) -> None:
    for new, old in renamed.items():
        if old not in present:
            raise ValueError(f"columns says that {new!r} is {old!r}, but {source.name} has only {listed(present)}")
        if list(renamed.values()).count(old) > 1:
            raise ValueError(f"columns gives {old!r} more than one new name, wanted one")
        if new in present and new not in renamed.values():
            raise ValueError(
                f"columns says that {new!r} is {old!r}, but there is a column {new!r} as well; "
                f"give that one another name, too: {{{new!r}: {old!r}, 'other': {new!r}}}"
            )


def _find_group(source: Source, column_of: Mapping[str, str]) -> str | None:
    if "group" in column_of:
        return "group"
    aliases = [name for name in _GROUP_ALIASES if name in column_of]
    if len(aliases) > 1:
        warnings.warn(
            f"{source.name}: any of the columns {listed(aliases)} may be the group, so none is used as such; "
            f'choose with columns={{"group": {aliases[0]!r}}}',
            UserWarning,
            stacklevel=4,
        )
    return aliases[0] if len(aliases) == 1 else None


def _refuse_two_meanings_of_zero(source: Source, column: str) -> None:
    labels = {_spelled(record.cells.get(column)) for record in source.records if not record.fault}
    if {"0", "-1"} <= labels:
        raise ValueError(
            f"{source.name}: found both 0 and -1 in column {column!r}, so that 0 may be a tie or not; "
            "wanted ties as 0.5 or 'tie', and the second response as either 0 or -1"
        )


def _report_rejected(
    source: Source, rejected: list[tuple[Record, str]], rejected_path: str | os.PathLike[str] | None
) -> None:
    if rejected_path is None and source.path is not None:
        rejected_path = f"{source.path}.rejected.jsonl"
    if rejected_path is not None:
        # A lone surrogate becomes \udXXX, which inside a JSON string is its escape.
        with open(rejected_path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for record, reason in rejected:
                row = {"line": record.number, "reason": reason, "row": record.cells}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    kept_in = "" if rejected_path is None else f"; they are kept in {os.fspath(rejected_path)}"
    first = f"the first is {source.unit} {rejected[0][0].number}: {rejected[0][1]}"
    if len(rejected) == len(source.records):
        raise ValueError(f"{source.name}: all {len(rejected)} rows are bad{kept_in}; {first}")
    warnings.warn(
        f"{source.name}: {len(rejected)} of {len(source.records)} rows are left out{kept_in}; {first}",
        UserWarning,
        stacklevel=3,
    )


def _spelled(label: object) -> str:
    text = str(label).strip().casefold()
    return text.removesuffix(".0") if text in _WHOLE_FLOATS else text


def _or_empty(cell: Any) -> Any:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell


def _weight(cell: Any, column: str) -> float:
    try:
        weight = float(cell)
    except (TypeError, ValueError, OverflowError):
        weight = float("nan")
    if isinstance(cell, bool) or not 0 <= weight < float("inf"):
        raise ValueError(
            f"found the weight {reprlib.repr(cell)} in column {column!r}, wanted a finite number that is not negative"
        )
    return weight
