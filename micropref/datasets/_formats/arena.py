"""Votes of an arena: two models answer, in conversations or in lists of turns, and a judge names the winner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref._rows.vocabulary import meaning_of
from micropref.datasets._cells import parsed
from micropref.datasets._faults import RowFault
from micropref.datasets._formats.protocol import Format, column_by_spelling, expanded
from micropref.datasets._sources import Record, Source

__all__ = ["FORMAT"]

_WINNERS = {"winnermodela": "a", "winnermodelb": "b", "winnertie": "tie"}
_TURNS = ("prompt", "responsea", "responseb")
_FLAG = {**dict.fromkeys(("1", "1.0", "true"), True), **dict.fromkeys(("0", "0.0", "false"), False)}


def _fits(source: Source) -> bool:
    columns = column_by_spelling(source)
    if _WINNERS.keys() <= columns.keys() or {"conversationa", "conversationb", "winner"} <= columns.keys():
        return True
    return {"modela", "modelb", "winner"} <= columns.keys() and (
        {"responsea", "responseb"} <= columns.keys() or {"answera", "answerb"} <= columns.keys()
    )


def _rewrite(source: Source) -> Source:
    columns = column_by_spelling(source)
    turns = [columns[name] for name in _TURNS] if columns.keys() >= set(_TURNS) else []
    readable = [record for record in source.records if not record.fault]
    if 2 * sum(_turns_of(record.cells, turns) is not None for record in readable) <= len(readable):
        turns = []

    def rows_of(record: Record) -> list[dict[str, Any]]:
        cells = dict(record.cells)
        if _WINNERS.keys() <= columns.keys():
            cells["winner"] = _flagged(cells, columns)
            for name in _WINNERS:
                cells.pop(columns[name], None)
        elif "winner" in columns:
            cells[columns["winner"]] = _winner(cells, columns)
        if turns:
            prompt, first, second = _turns_of(record.cells, turns) or ([], [], [])
            if not prompt or not len(prompt) == len(first) == len(second):
                raise RowFault(
                    "turns that do not match",
                    f"expected as many turns in {turns[0]!r}, {turns[1]!r} and {turns[2]!r}, as lists of text, got "
                    f"{len(prompt)}, {len(first)} and {len(second)}",
                )
            cells[turns[1]], cells[turns[2]] = _conversation(prompt, first), _conversation(prompt, second)
            del cells[turns[0]]
        return [cells]

    return expanded(source, rows_of)


def _flagged(cells: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    flags = {one: _FLAG.get(str(cells.get(columns[name])).strip().lower()) for name, one in _WINNERS.items()}
    won = [one for one, flag in flags.items() if flag]
    if len(won) != 1 or None in flags.values():
        shown = ", ".join(f"{columns[name]}={cells.get(columns[name])!r}" for name in _WINNERS)
        raise RowFault("no winner", f"expected one winner, got {shown}")
    return won[0]


def _winner(cells: Mapping[str, Any], columns: Mapping[str, str]) -> Any:
    """The winner; where it names one of the two models, which of them it is."""
    winner = cells.get(columns["winner"])
    models = [cells.get(columns.get(name, "")) for name in ("modela", "modelb")]
    if isinstance(winner, str) and meaning_of(winner) is None and models.count(winner) == 1:
        return ("model_a", "model_b")[models.index(winner)]
    return winner


def _turns_of(cells: Mapping[str, Any], turns: list[str]) -> tuple[list[str], list[str], list[str]] | None:
    """The questions and the answers of both models, turn by turn; None where the cells are no such lists."""
    lists = []
    for name in turns:
        cell: Any = cells.get(name)
        if isinstance(cell, str):
            cell = parsed(cell) if cell.lstrip().startswith("[") else None
        elif isinstance(cell, np.ndarray):
            cell = cell.tolist()
        if not isinstance(cell, list) or not cell or not all(one is None or isinstance(one, str) for one in cell):
            return None
        lists.append([one or "" for one in cell])
    return (lists[0], lists[1], lists[2]) if lists else None


def _conversation(questions: list[str], answers: list[str]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": text}
        for turn in zip(questions, answers, strict=True)
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


FORMAT = Format(
    name="arena",
    expected="conversation_a and conversation_b (or prompt, response_a and response_b) with winner, or with "
    "winner_model_a, winner_model_b and winner_tie",
    columns=("response_a", "response_b", "label"),
    fits=_fits,
    rewrite=_rewrite,
)
