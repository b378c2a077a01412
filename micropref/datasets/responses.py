"""Single responses to be scored or ranked, from the same sources as comparisons."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from micropref._support.renamed import moved
from micropref.datasets._asked import is_missing, response_text
from micropref.datasets._cells import parsed
from micropref.datasets._chat import read_speech, render
from micropref.datasets._columns import Named, find_prompt, holds_conversations, may_be_prompt, name_columns
from micropref.datasets._faults import MalformedRowError, ways_to_name
from micropref.datasets._formats import file_kind
from micropref.datasets._layout import refuse_text_as_users, user_of_cell
from micropref.datasets._names import columns_called, nearest
from micropref.datasets._prompts import with_system
from micropref.datasets._report import ReadReport
from micropref.datasets._sources import Record, Source, open_source
from micropref.datasets._text import listed

__all__ = ["ResponseTable", "read_responses"]

__getattr__ = moved(__name__)


@dataclass(frozen=True)
class ResponseTable:
    """Responses, one per row.

    Attributes
    ----------
    prompt, response : list of str
    context : list of str or None
        Stated criterion or user profile.
    user : list or None
        Id of the user for whom a response is scored; None in a cell where it is unknown.
    row : list of int
        Row of the source that each response came from.
    report : ReadReport, optional
        Which column of the source was taken for what.
    """

    prompt: list[str]
    response: list[str]
    context: list[str] | None = None
    user: list[Any] | None = None
    row: list[int] = field(default_factory=list)
    report: ReadReport | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.response)


def read_responses(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
) -> ResponseTable:
    """Read responses to be scored.

    Parameters
    ----------
    source : path, "-", DataFrame, Dataset, list or iterator of dicts, or dict of columns
        With the column `response`, or `responses` with a list of candidates per row; optionally a prompt, a `context`,
        and a user, under every name that `read_preferences` knows; of several users the first that a row fills.
        Texts are strings or chat messages; a response that repeats the prompt's messages loses them. Without a prompt,
        it is what a conversation says before its last message.
    columns : dict of str to str, optional
        New name to name in the source, for columns called otherwise: ``{"prompt": "task"}``.
    format : str, optional
        How a file is written, where its name does not say so: "jsonl", "json", "csv", "tsv", "parquet".
    encoding : str, optional
        Of a file of text.

    Returns
    -------
    ResponseTable

    Raises
    ------
    MalformedRowError
        For the first row that cannot be used: where it is, what was expected and what was found there.
    ValueError
        If there is no response, `columns` does not fit, or several columns may hold the prompt or the response.
    """
    kind = file_kind(format)
    if format is not None and kind is None:
        raise ValueError(f"format: expected how the file is written, such as 'jsonl' or 'csv', got {format!r}")
    opened = open_source(source, encoding=encoding, kind=kind)
    layout = _layout_of(opened, columns or {})
    read: list[_Asked] = []
    for record in opened.records:
        try:
            read.append(layout.asked(record))
        except ValueError as error:
            raise MalformedRowError(f"{opened.place(record)}: {error}") from None
    answers = [(row, one, prompt, text) for row, one in enumerate(read) for prompt, text in one.answers]
    if not answers:
        raise ValueError(f"{opened.name}: expected at least one response, got none")
    has_context, has_user = any(one.context is not None for one in read), any(one.user is not None for one in read)
    return ResponseTable(
        prompt=[prompt for _, _, prompt, _ in answers],
        response=[text for _, _, _, text in answers],
        context=[one.context or "" for _, one, _, _ in answers] if has_context else None,
        user=[one.user for _, one, _, _ in answers] if has_user else None,
        row=[row for row, _, _, _ in answers],
        report=ReadReport(
            source=opened.name,
            n_rows=len(opened.records),
            columns=layout.recognised(),
            notes=(*opened.notes, *layout.notes),
        ),
    )


class _Asked(NamedTuple):
    """One row: prompt and text of every response, and for whom they are."""

    answers: list[tuple[str, str]]
    context: str | None
    user: Hashable | None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Which column holds what."""

    response: str | None
    responses: str | None
    prompt: tuple[str, ...]
    system: str | None
    context: str | None
    users: tuple[str, ...]
    all_cells_are_text: bool
    notes: tuple[str, ...]

    def asked(self, record: Record) -> _Asked:
        """What a row asks to be scored; a ValueError "expected X, got Y" if it has no response."""
        if record.fault:
            raise ValueError(record.fault)
        cells = {name: cell for name, cell in record.cells.items() if not is_missing(cell)}
        parts = [read_speech(cells.get(name, ""), name) for name in self.prompt]
        opening = parts[0] if len(parts) == 1 else "\n\n".join(filter(None, (render(part, "user") for part in parts)))
        system = ""
        if self.system is not None:
            system = render(read_speech(cells.get(self.system, ""), self.system), "system")
        prompt = render(with_system(system, opening), "user")
        answers = []
        for candidate in self._candidates(cells):
            speech = read_speech(candidate, self.response or "response")
            asked = prompt
            if not self.prompt and not isinstance(speech, str) and len(speech) > 1:
                # Without a column for the prompt, it is all that is said before the last message.
                asked, speech = render(with_system(system, speech[:-1]), "user"), speech[-1:]
            text = response_text(opening, speech)
            if not text:
                raise ValueError("expected text, got an empty response")
            answers.append((asked, text))
        context = None
        if self.context in cells:
            context = render(read_speech(cells[self.context], self.context or ""), "user")
        ids = (user_of_cell(cells[name], name, self.all_cells_are_text) for name in self.users if name in cells)
        return _Asked(answers, context, next((user for user in ids if user is not None), None))

    def _candidates(self, cells: Mapping[str, Any]) -> list[Any]:
        if self.response is not None and self.response in cells:
            return [cells[self.response]]
        if self.responses is None or self.responses not in cells:
            raise ValueError(f"expected 'response' or 'responses', got the columns {listed(cells)}")
        candidates = cells[self.responses]
        if isinstance(candidates, np.ndarray):  # how pandas holds the lists of a Parquet file
            candidates = candidates.tolist()
        if isinstance(candidates, str) and candidates.lstrip().startswith("["):
            candidates = parsed(candidates)
        if not isinstance(candidates, list) or not candidates:
            raise ValueError(f"expected a list of at least one as 'responses', got {reprlib.repr(candidates)}")
        return candidates

    def recognised(self) -> dict[str, str]:
        """Column of the source by what it was taken for."""
        found = {"prompt": " and ".join(self.prompt), "system": self.system, "response": self.response}
        found |= {"responses": self.responses, "context": self.context, "user": ", ".join(self.users)}
        return {role: column for role, column in found.items() if column}


def _layout_of(source: Source, renamed: Mapping[str, str]) -> _Layout:
    named = name_columns(source, renamed)
    column_of = named.column_of
    response, responses = _only(named, "response"), _only(named, "responses")
    if column_of and response is None and responses is None:
        raise MalformedRowError(
            f"{source.name}, {source.unit} {_first_readable(source)}: expected 'response' or 'responses', got the "
            f"columns {listed(column_of)}{nearest('response', column_of)}; say which one it is: "
            f"{ways_to_name({'response': 'NAME'})}"
        )
    taken = {name for name in (response, responses) if name}
    prompt, note = find_prompt(named, taken)
    if column_of and not prompt and not (response and holds_conversations(named, response)):
        note = _without_prompt(named, taken)
    for name in named.called("group"):
        if name not in named.explicit:
            refuse_text_as_users(named, name)
    context = next((name for name in named.called("context") if name not in prompt), None)
    system = next(iter(named.called("system")), None)
    return _Layout(
        response=column_of[response] if response else None,
        responses=column_of[responses] if responses else None,
        prompt=tuple(column_of[name] for name in prompt),
        system=column_of[system] if system else None,
        context=column_of[context] if context else None,
        users=tuple(column_of[name] for name in named.called("group")),
        all_cells_are_text=source.all_cells_are_text,
        notes=(note,) if note else (),
    )


def _only(named: Named, role: str) -> str | None:
    """The one column of a role, that with the library's own name before others."""
    found = [role] if role in named.column_of else columns_called(role, named.column_of)
    if len(found) > 1:
        raise ValueError(
            f"{named.source.name}: expected one column with the {role}, got {listed(found)}; say which one to use: "
            f"{ways_to_name({role: found[0]})}"
        )
    return found[0] if found else None


def _without_prompt(named: Named, taken: set[str]) -> str:
    """A note that all responses are ranked together; a ValueError where another column may hold the prompt."""
    known = {*named.called("context"), *named.called("group"), *named.called("system")}
    column = may_be_prompt(named, taken, [name for name in named.column_of if name not in taken | known])
    if column is not None:
        raise ValueError(
            f"{named.source.name}: expected a column with the prompt, within which responses are ranked, got the "
            f"columns {listed(named.column_of)}; if {column} holds it: "
            f"{ways_to_name({'prompt': named.column_of[column]})}; if nothing does, leave {column} out"
        )
    return "no prompt: all responses are ranked against one another"


def _first_readable(source: Source) -> int:
    return next((record.number for record in source.records if not record.fault), 0)
