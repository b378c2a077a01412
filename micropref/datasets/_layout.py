"""The comparisons in the rows of a source, once it is known which column holds what."""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from micropref._rows.ids import text_id, user_id
from micropref._support.cached import cached_property
from micropref._support.warnings import level_of_caller
from micropref.datasets._asked import is_missing
from micropref.datasets._chat import Speech, read_speech, render
from micropref.datasets._columns import (
    Named,
    expected_columns,
    find_label,
    find_prompt,
    find_responses,
    may_be_prompt,
    name_columns,
    refuse_single_responses,
)
from micropref.datasets._faults import RowFault, ways_to_name
from micropref.datasets._file_labels import (
    LabelReader,
    are_numbered_from_zero,
    check_labels_of,
    is_tie,
    refuse_numbers_of_columns,
)
from micropref.datasets._prompts import divided, with_system
from micropref.datasets._sources import Record, Source
from micropref.datasets._text import is_blank, listed
from micropref.datasets._unused import like_ids

_CHOSEN = ("chosen", "rejected")
# What no name of a user looks like: several words that end a sentence, several lines, or a long text.
_SENTENCE = re.compile(r"\s.*[.?!…]$|[。？！]$|\n|.{100}", re.DOTALL)
# What an extra column cannot be called in a table.
_RESERVED = (*_CHOSEN, "prompt", "context", "group", "weight", "label", "tie")


class Comparison(NamedTuple):
    """One row of the table to be."""

    prompt: str
    chosen: str
    rejected: str
    context: str
    group: Hashable | None
    weight: float
    cells: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which column of the source holds what."""

    first: str
    second: str
    prompt: tuple[str, ...] = ()
    system: str | None = None
    label: str | None = None
    tie: str | None = None
    context: str | None = None
    group: str | None = None
    weight: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    all_cells_are_text: bool = False
    reader: LabelReader = field(default_factory=LabelReader)
    is_settled: bool = True
    notes: tuple[str, ...] = ()

    def comparisons(self, record: Record) -> list[Comparison]:
        """The comparison in a record, or both orders of a tie; RowFault "expected X, got Y" if it has none."""
        if record.fault:
            raise RowFault(record.kind or "a row that cannot be read", record.fault)
        cells = record.cells
        if not self._needed.keys() <= cells.keys():
            missing = [name for name in self._needed if name not in cells]
            raise RowFault("a column missing", f"expected the columns {listed(missing)} too, got {listed(cells)}")
        prompt, first, second = self._texts(cells)
        context = self._context(cells)
        group = None if self.group is None else user_of_cell(cells.get(self.group), self.group, self.all_cells_are_text)
        weight = 1.0 if self.weight is None else _weight(cells[self.weight], self.weight)
        share = self.share_of_first(cells)
        if share == 0.5:
            weight /= 2
        orders = [(first, second)] * (share > 0) + [(second, first)] * (share < 1)
        return [Comparison(prompt, better, worse, context, group, weight, cells) for better, worse in orders]

    @cached_property
    def _needed(self) -> dict[str, None]:
        """Columns without which a row holds no comparison."""
        names = (self.first, self.second, *self.prompt, self.weight)
        return dict.fromkeys(name for name in names if name)

    def _texts(self, cells: Mapping[str, Any]) -> tuple[str, str, str]:
        one, other = read_speech(cells[self.first], self.first), read_speech(cells[self.second], self.second)
        opening, first, second = divided(self._opening(cells), one, other)
        if self.system is not None:
            opening = with_system(
                render(read_speech(_or_empty(cells.get(self.system)), self.system), "system"), opening
            )
        for text, column in ((first, self.first), (second, self.second)):
            if is_blank(text):
                raise RowFault("an empty response", f"expected text, got an empty response in column {column!r}")
        if first == second:
            raise RowFault(
                "the same response twice",
                f"expected two different responses, got the same text in the columns {self.first!r} and "
                f"{self.second!r}",
            )
        return render(opening, "user"), first, second

    def _opening(self, cells: Mapping[str, Any]) -> Speech | None:
        parts = [read_speech(_or_empty(cells[name]), name) for name in self.prompt]
        if len(parts) < 2:
            return parts[0] if parts else None
        return "\n\n".join(text for part in parts if not is_blank(text := render(part, "user")))

    def _context(self, cells: Mapping[str, Any]) -> str:
        if self.context is None:
            return ""
        return render(read_speech(_or_empty(cells.get(self.context)), self.context), "user")

    def share_of_first(self, cells: Mapping[str, Any]) -> float:
        """1 if a row prefers its first response, 0 the second, 0.5 neither; RowFault if it does not say."""
        if self.tie is not None and is_tie(cells.get(self.tie), self.tie):
            return 0.5
        if self.label is None:
            return 1.0
        label = cells.get(self.label)
        share = None if self.reader.is_missing(label, self.all_cells_are_text) else self.reader.share_of_first(label)
        if share is None:
            raise RowFault("no label", f"expected a label in column {self.label!r}, got {reprlib.repr(label)}")
        return share

    def recognised(self) -> dict[str, str]:
        """Column of the source by what it was taken for."""
        found = {"prompt": " and ".join(self.prompt), "system": self.system or ""}
        if self.is_settled:
            found |= {"chosen": self.first, "rejected": self.second}
        else:
            found["responses"] = f"{self.first}, {self.second}"
        for role, column in (("label", self.label), ("tie", self.tie), ("context", self.context)):
            found[role] = column or ""
        found |= {"user": self.group or "", "weight": self.weight or ""}
        return {role: column for role, column in found.items() if column}


def find_layout(source: Source, renamed: Mapping[str, str], reader: LabelReader, *, is_labelled: bool = True) -> Layout:
    """The layout of a source by its columns.

    Parameters
    ----------
    source : Source
    renamed : mapping of str to str
        New name to name in the source.
    reader : LabelReader
    is_labelled : bool, default=True
        Whether the source says which response was preferred; if not, labels and ties are not looked for.

    Raises
    ------
    MalformedRowError
        If the columns are no layout, or a label is not understood.
    ValueError
        If columns contradict one another, or `renamed` or the mapping of `reader` does not fit the source.
    """
    named = name_columns(source, renamed)
    is_readable = any(not record.fault for record in source.records)
    pairs, settled = find_responses(named)
    label = None
    if is_labelled:
        labels = find_label(named, pairs[0] if pairs else None, settled, reader)
        if settled and set(pairs[0]) <= named.explicit and "label" not in named.explicit:
            labels = []
        if is_readable and reader.share_of_mapped and not labels:
            raise ValueError(
                f"{source.name}: expected a column 'label' or 'preference' with the labels that labels= explains, got "
                f"the columns {listed(named.column_of)}; leave labels= out, or say which column it is: "
                f"{ways_to_name({'label': 'NAME'})}"
            )
        _refuse_two_answers(named, pairs, labels, settled)
        label = labels[0] if labels else None
        if label and pairs and are_numbered_from_zero(*pairs[0]):
            reader = reader.naming(*pairs[0])
    if is_readable and (not pairs or not (settled or label or not is_labelled)):
        refuse_single_responses(named)
        raise expected_columns(named, pairs, reader)
    layout = _layout_of(named, pairs[0] if pairs else _CHOSEN, label, reader, is_labelled=is_labelled)
    if layout.label is not None:
        check_labels_of(source, layout.label, layout.tie, reader)
        refuse_numbers_of_columns(source, (layout.first, layout.second), layout.label, reader)
    return layout


def _layout_of(
    named: Named, pair: tuple[str, str], label: str | None, reader: LabelReader, *, is_labelled: bool
) -> Layout:
    column_of = named.column_of
    taken = {*pair, *((label,) if label else ())}
    prompt, note = find_prompt(named, taken)
    context = next((name for name in named.called("context") if name not in prompt), None)
    system = next((name for name in named.called("system") if name not in taken), None)
    weight = next(iter(named.called("weight")), None)
    group = _find_group(named, taken) if is_labelled else None
    tie = next(iter(named.called("tie")), None)
    used = {*pair, *prompt, label, tie, system, context, group, weight}
    extra = {name: column for name, column in column_of.items() if name not in used}
    if is_labelled and not prompt and (column := may_be_prompt(named, pair, extra)):
        note = f"no prompt: if {column} holds it, {ways_to_name({'prompt': column_of[column]})}"
    unused = like_ids(named.source, list(extra.values()), has_user=group is not None) if is_labelled else ()
    return Layout(
        first=column_of.get(pair[0], pair[0]),
        second=column_of.get(pair[1], pair[1]),
        prompt=tuple(column_of[name] for name in prompt),
        system=column_of[system] if system else None,
        label=column_of[label] if label else None,
        tie=column_of[tie] if tie else None,
        context=column_of[context] if context else None,
        group=column_of[group] if group else None,
        weight=column_of[weight] if weight else None,
        extra={f"other_{name}" if name in _RESERVED else name: column for name, column in extra.items()},
        all_cells_are_text=named.source.all_cells_are_text,
        reader=reader,
        is_settled=label is None,
        notes=(*((note,) if note else ()), *unused),
    )


def user_of_cell(cell: Any, column: str, all_cells_are_text: bool) -> Hashable | None:
    """The user in a cell. A list, which is how JSON and Parquet hold a tuple, is that tuple.

    An object that describes a user, as annotation tools write it, is the user of its ``id`` or ``email``.
    """
    if isinstance(cell, Mapping):
        cell = next((cell[key] for key in ("id", "email") if key in cell), cell)
    try:
        if all_cells_are_text and isinstance(cell, str):
            return text_id(cell)
        return user_id(_as_tuple(cell))
    except ValueError as error:
        raise RowFault("an id that is none", f"{error} (column {column!r})") from None


def _as_tuple(cell: Any) -> Any:
    return tuple(map(_as_tuple, cell)) if isinstance(cell, list) else cell


def _refuse_two_answers(named: Named, pairs: list[tuple[str, str]], labels: list[str], settled: bool) -> None:
    kept = set(pairs[0] if pairs else ())
    if not settled:
        kept |= set(labels[:1])
    others = {name for pair in pairs for name in pair} | (set(labels) if pairs else set())
    others -= kept
    if not others:
        return
    by_label = "If"
    if settled and labels and len(pairs) == 1:
        first, second = (named.column_of[name] for name in pairs[0])
        way = ways_to_name({"response_a": first, "response_b": second, "label": named.column_of[labels[0]]})
        by_label = f"If it is {labels[0]!r}: {way}; if"
    claims = [name for name in named.column_of if name in kept | others]
    rename = {f"other_{name}": named.column_of[name] for name in named.column_of if name in others}
    raise ValueError(
        f"{named.source.name}: expected one answer to which response was preferred, got the columns {listed(claims)}; "
        f"which one counts? {by_label} it is {' and '.join(map(repr, sorted(kept)))}, give the others other names: "
        f"{ways_to_name(rename)}"
    )


def _find_group(named: Named, taken: set[str]) -> str | None:
    aliases = [name for name in named.called("group") if name not in taken]
    if len(aliases) > 1 and aliases[0] != "group":
        warnings.warn(
            f"{named.source.name}: any of the columns {listed(aliases)} may be the group, so none is used as such; "
            f'choose with columns={{"group": {aliases[0]!r}}}, in the shell --column group={aliases[0]}',
            UserWarning,
            stacklevel=level_of_caller(),
        )
        return None
    if aliases and aliases[0] not in named.explicit:
        refuse_text_as_users(named, aliases[0])
    return aliases[0] if aliases else None


def refuse_text_as_users(named: Named, name: str) -> None:
    """A ValueError for a column of users that holds what users say: each text would be a user.

    A column called group is left alone: the word never names a prompt, and what a table of ours writes there is read.
    """
    if named.column_of[name] == "group":
        return
    said = next((cell for cell in named.cells(name) if isinstance(cell, str) and _SENTENCE.search(cell.strip())), None)
    if said is not None:
        column = named.column_of[name]
        raise ValueError(
            f"{named.source.name}: expected names or numbers of users in column {column!r}, got {reprlib.repr(said)}; "
            f"if it is the prompt: {ways_to_name({'prompt': column})}; "
            f"if it names users: {ways_to_name({'user': column})}"
        )


def _or_empty(cell: Any) -> Any:
    return "" if is_missing(cell) else cell


def _weight(cell: Any, column: str) -> float:
    try:
        weight = float(cell)
    except (TypeError, ValueError, OverflowError):
        weight = float("nan")
    if isinstance(cell, bool) or not 0 <= weight < float("inf"):
        raise RowFault(
            "a weight that is none",
            f"expected a finite number that is not negative, got the weight {reprlib.repr(cell)} in column {column!r}",
        )
    return weight


__all__ = ["Comparison", "Layout", "find_layout", "refuse_text_as_users", "user_of_cell"]
