"""Prompts, responses and contexts as text: one rule for calls, trainers and files.

- A conversation is text as `render` writes it; a response loses the messages of its prompt.
- Nothing (None, NaN), blank text, no messages, and a conversation whose last message is blank are an empty response.
- Nothing as a prompt or a context is blank text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from micropref.datasets._chat import Speech, read_speech, render
from micropref.datasets._faults import RowFault
from micropref.datasets._prompts import without_prompt
from micropref.datasets._text import is_blank

__all__ = ["Asked", "is_missing", "listed_rows", "read_asked", "read_contexts", "response_text"]


class Asked(NamedTuple):
    """What a model is asked, a row for each response.

    Attributes
    ----------
    prompts, contexts : list of n str, or None where none were given
    responses : list of n str
        Blank where a response is empty.
    """

    prompts: list[str] | None
    responses: list[str]
    contexts: list[str] | None

    @property
    def present(self) -> list[int]:
        """Rows whose response is not empty."""
        return [row for row, text in enumerate(self.responses) if not is_blank(text)]

    def of(self, rows: Sequence[int]) -> Asked:
        """Some of the rows."""
        prompts, responses, contexts = (None if texts is None else [texts[row] for row in rows] for texts in self)
        return Asked(prompts, responses or [], contexts)


def is_missing(cell: object) -> bool:
    """Whether a cell says that there is nothing: None, NaN of any type, ``pandas.NA``."""
    if isinstance(cell, float | np.floating):
        return math.isnan(cell)
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def response_text(opening: Speech, response: Speech) -> str:
    """Text of a response to an opening; blank where it is empty."""
    text = without_prompt(opening, response)
    return "" if is_blank(text) else text


def read_asked(prompts: Any, responses: Any, contexts: Any = None) -> Asked:
    """Values that a caller passes, as text; strings are text as they stand, and are not searched for messages.

    Parameters
    ----------
    prompts : sequence of n texts or conversations, or None
    responses : sequence of n texts or conversations
    contexts : sequence of n texts or conversations, or one text for all rows, optional

    Returns
    -------
    Asked

    Raises
    ------
    TypeError
        If one text takes the place of a list.
    ValueError
        If there are not as many of each, or one is neither text nor messages.
    """
    answers = listed_rows(responses, "responses")
    openings: list[Speech] = [""] * len(answers)
    if prompts is not None:
        openings = [_speech(prompt, row, "prompt") for row, prompt in enumerate(listed_rows(prompts, "prompts"))]
        _check_number("prompts", len(openings), len(answers))
    speeches = [_speech(answer, row, "response") for row, answer in enumerate(answers)]
    return Asked(
        None if prompts is None else [render(opening, "user") for opening in openings],
        [response_text(opening, speech) for opening, speech in zip(openings, speeches, strict=True)],
        read_contexts(contexts, len(answers)),
    )


def read_contexts(contexts: Any, n: int) -> list[str] | None:
    """Contexts of n rows, of which one text stands for all; None where there are none."""
    if contexts is None:
        return None
    rows = [contexts] * n if isinstance(contexts, str) else listed_rows(contexts, "contexts")
    _check_number("contexts", len(rows), n)
    return [render(_speech(context, row, "context"), "user") for row, context in enumerate(rows)]


def listed_rows(column: Any, name: str) -> list[Any]:
    """A column of any kind as a list; a TypeError for one text, or one message, in place of a list."""
    if isinstance(column, str | bytes):
        raise TypeError(f"{name}: expected a list, one for each row, got one string")
    if isinstance(column, Mapping):
        raise TypeError(f"{name}: expected a list, one for each row, got one object with {list(column)}")
    if isinstance(column, np.ndarray):
        return list(column.tolist()) if column.ndim else [column.item()]
    try:
        return list(column)
    except TypeError:
        raise TypeError(f"{name}: expected a list, one for each row, got {column!r}") from None


def _speech(value: object, row: int, what: str) -> Speech:
    if is_missing(value):
        return ""
    try:
        return read_speech(value, f"{what}s", spelled_out=False)
    except RowFault as fault:
        raise ValueError(f"{what} {row}: {fault}") from None


def _check_number(name: str, found: int, n: int) -> None:
    if found != n:
        raise ValueError(f"expected as many {name} as responses, got {found} {name} and {n} responses")
