"""Single responses to be scored or ranked, from the same sources as comparisons."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from micropref.datasets.chat import read_cell, read_speech, render, split_explicit
from micropref.datasets.sources import MalformedRowError, open_source
from micropref.datasets.table import group_id, is_blank

# As in comparisons, so that the column in which somebody voted also names them here.
_USER_COLUMNS = ("group", "user", "user_id", "worker", "annotator", "annotator_id")


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
        For the first row that cannot be used: where it is, what was found, what was wanted.
    """
    opened = open_source(source)
    prompts: list[str] = []
    responses: list[str] = []
    contexts: list[str] = []
    users: list[Any] = []
    rows: list[int] = []
    has_context = has_user = False
    for number, record in enumerate(opened.records):
        try:
            if record.fault:
                raise ValueError(record.fault)
            cells = {name: cell for name, cell in record.cells.items() if not _is_missing(cell)}
            read = read_cell if opened.all_cells_are_text else (lambda cell: cell)
            if "response" not in cells and "responses" not in cells:
                found = ", ".join(map(repr, cells)) or "none"
                raise ValueError(f"found the columns {found}, wanted 'response' or 'responses'")
            candidates = [cells["response"]] if "response" in cells else cells["responses"]
            if isinstance(candidates, np.ndarray):  # how pandas holds the lists of a Parquet file
                candidates = candidates.tolist()
            if not isinstance(candidates, list) or not candidates:
                raise ValueError(f"found {reprlib.repr(candidates)} as 'responses', wanted a list of at least one")
            prompt = read_speech(read(cells.get("prompt", "")), "prompt")
            context = render(read_speech(read(cells.get("context", "")), "context"), "user")
            user = next((group_id(cells[name]) for name in _USER_COLUMNS if name in cells), None)
            has_context |= "context" in cells
            has_user |= user is not None
            for candidate in candidates:
                speech = read_speech(read(candidate), "response")
                shown_prompt, response, _ = split_explicit(prompt, speech, speech)
                if is_blank(response):
                    raise ValueError("found an empty response, wanted some text")
                prompts.append(shown_prompt)
                responses.append(response)
                contexts.append(context)
                users.append(user)
                rows.append(number)
        except ValueError as error:
            raise MalformedRowError(f"{opened.place(record)}: {error}") from None
    if not responses:
        raise ValueError(f"{opened.name}: found no responses, wanted at least one")
    return ResponseTable(prompts, responses, contexts if has_context else None, users if has_user else None, rows)
