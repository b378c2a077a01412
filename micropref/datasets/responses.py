"""Single responses to be scored or ranked, from the same sources as comparisons."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from micropref._support.renamed import moved
from micropref.datasets._chat import Speech, read_cell, read_speech, render, split_explicit
from micropref.datasets._layout import USER_COLUMNS, user_of_cell
from micropref.datasets._sources import MalformedRowError, Record, Source, open_source
from micropref.datasets._text import is_blank, listed

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
    """

    prompt: list[str]
    response: list[str]
    context: list[str] | None = None
    user: list[Any] | None = None
    row: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.response)


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def read_responses(source: Any) -> ResponseTable:
    """Read responses to be scored.

    Parameters
    ----------
    source : path, DataFrame, Dataset, list of dicts or dict of columns
        With the column `response`, or `responses` with a list of candidates per row; optionally `prompt`, `context`,
        and `group`, `user`, `user_id`, `worker`, `annotator` or `annotator_id`, the first of them that a row fills.
        Texts are strings or chat messages; a response that repeats the prompt's messages loses them.

    Returns
    -------
    ResponseTable

    Raises
    ------
    MalformedRowError
        For the first row that cannot be used: where it is, what was expected and what was found there.
    """
    opened = open_source(source)
    read: list[_Asked] = []
    for record in opened.records:
        try:
            read.append(_asked(opened, record))
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
    )


class _Asked(NamedTuple):
    """One row: prompt and text of every response, and for whom they are."""

    answers: list[tuple[str, str]]
    context: str | None
    user: Hashable | None


def _asked(source: Source, record: Record) -> _Asked:
    if record.fault:
        raise ValueError(record.fault)
    cells = {name: cell for name, cell in record.cells.items() if not _is_missing(cell)}

    def speech(cell: Any, column: str) -> Speech:
        return read_speech(read_cell(cell) if source.all_cells_are_text else cell, column)

    prompt = speech(cells.get("prompt", ""), "prompt")
    answers = []
    for candidate in _candidates(cells):
        one = speech(candidate, "response")
        shown_prompt, text, _ = split_explicit(prompt, one, one)
        if is_blank(text):
            raise ValueError("expected text, got an empty response")
        answers.append((shown_prompt, text))
    context = render(speech(cells["context"], "context"), "user") if "context" in cells else None
    ids = (user_of_cell(cells[name], name, source.all_cells_are_text) for name in USER_COLUMNS if name in cells)
    return _Asked(answers, context, next((user for user in ids if user is not None), None))


def _candidates(cells: Mapping[str, Any]) -> list[Any]:
    if "response" in cells:
        return [cells["response"]]
    if "responses" not in cells:
        raise ValueError(f"expected 'response' or 'responses', got the columns {listed(cells)}")
    candidates = cells["responses"]
    if isinstance(candidates, np.ndarray):  # how pandas holds the lists of a Parquet file
        candidates = candidates.tolist()
    if not isinstance(candidates, list) or not candidates:
        raise ValueError(f"expected a list of at least one as 'responses', got {reprlib.repr(candidates)}")
    return candidates
