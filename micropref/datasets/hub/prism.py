"""PRISM: people from 75 countries rate answers in conversations of their own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from micropref.datasets._chat import render
from micropref.datasets._sources import Record
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, number_of, split_by, text_of
from micropref.datasets.preference_set import PreferenceSet

__all__ = ["load_prism"]

_COLUMNS = (
    *("utterance_id", "interaction_id", "conversation_id", "user_id", "turn", "within_turn_id"),
    *("included_in_balanced_subset", "conversation_type", "user_prompt", "model_response", "model_name"),
    *("score", "if_chosen"),
)


class _Utterance(NamedTuple):
    prompt: str
    response: str
    is_chosen: bool
    score: float
    turn: int
    cells: Mapping[str, Any]


def load_prism(
    source: Any = None,
    *,
    test_size: float | None = None,
    revision: str | None = None,
    random_state: Any = 0,
    skip_bad: bool = False,
) -> PreferenceSet:
    """Load the PRISM Alignment Dataset: within each turn the answer a person chose, against each of the others.

    The group is the person (``user_id``). The prompt of a later turn is the whole conversation so far, with the answers
    that were chosen. Answers are rated from 1 to 100; where the chosen and another answer have the same score, or the
    same text, nobody knows which was preferred, and the two give no row. Where a person scored the chosen answer lower
    than another one, the choice decides, and ``choice_below_score`` is true in that row: its sum counts such rows, and
    a `sample_weight` of 0 in `fit` leaves them out. Published are 68 371 rated answers in 8 011 conversations of 1 396
    people, in one split.

    Licence: texts by people, prompts among them, CC-BY-4.0; answers of models CC-BY-NC-4.0 and the terms of each model.
    Citation: Hannah Rose Kirk, Alexander Whitefield, Paul Röttger, Andrew Bean, Katerina Margatina, Juan Ciro, Rafael
    Mosquera, Max Bartolo, Adina Williams, He He, Bertie Vidgen and Scott A. Hale (2024), "The PRISM Alignment Project:
    What Participatory, Representative and Individualised Human Feedback Reveals About the Subjective and Multicultural
    Alignment of Large Language Models", arXiv:2404.16019.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default the configuration ``utterances`` of ``HannahRoseKirk/prism-alignment`` on the hub.
    test_size : float, optional
        Share of the people in `test`: all rows of a person are on one side. By default everything is in `train`.
    revision : str, optional
        Commit, tag or branch on the hub.
    random_state : int, RandomState or None, default=0
        Seed of the split that `test_size` asks for.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train` and, if asked for, `test`. Extra columns are ``conversation_id``, ``interaction_id``, ``turn``,
        ``conversation_type``, ``included_in_balanced_subset``, ``chosen_score``, ``rejected_score``,
        ``choice_below_score``, ``chosen_model`` and ``rejected_model``.

    Raises
    ------
    MalformedRowError
        At the first bad row; a row is bad, too, if no answer of its turn, or of one before, was chosen.
    ImportError
        If `datasets` is needed and not installed.
    """
    opened = open_splits(
        source,
        hub_name="HannahRoseKirk/prism-alignment",
        columns=_COLUMNS,
        revision=revision,
        config="utterances",
    )
    reading = Reading(opened.split("train"), skip_bad)
    conversations: dict[Any, dict[int, list[tuple[Record, _Utterance]]]] = {}
    for record, said in reading.each(_utterance, _COLUMNS):
        turns = conversations.setdefault(said.cells["conversation_id"], {})
        turns.setdefault(said.turn, []).append((record, said))
    rows = [row for turns in conversations.values() for row in _compare(turns, reading)]
    train = reading.table(rows, has_group=True)
    test = None
    if test_size is not None:
        train, test = split_by(train, list(train.group if train.group is not None else ()), test_size, random_state)
    return PreferenceSet(
        name="PRISM",
        train=train,
        test=test,
        licence="texts by people CC-BY-4.0; answers of models CC-BY-NC-4.0 and the terms of each model",
        citation="Kirk, Whitefield, Röttger, Bean, Margatina, Ciro, Mosquera, Bartolo, Williams, He, Vidgen and Hale "
        "(2024), The PRISM Alignment Project, arXiv:2404.16019",
        source=opened.source,
    )


def _utterance(cells: Mapping[str, Any]) -> _Utterance:
    if not isinstance(cells["if_chosen"], bool):
        raise ValueError(f"expected true or false, got {cells['if_chosen']!r} in column 'if_chosen'")
    turn = number_of(cells, "turn")
    if turn < 0 or turn != int(turn):
        raise ValueError(f"expected an integer that is not negative, got {turn:g} in column 'turn'")
    prompt, response = text_of(cells, "user_prompt"), text_of(cells, "model_response")
    return _Utterance(prompt, response, cells["if_chosen"], number_of(cells, "score"), int(turn), cells)


def _compare(turns: dict[int, list[tuple[Record, _Utterance]]], reading: Reading) -> list[Comparison]:
    """All comparisons of one conversation, turn by turn."""
    rows: list[Comparison] = []
    history: list[tuple[str, str]] = []
    for turn in sorted(turns):
        answers = turns[turn]
        record, asked = answers[0]
        chosen = next((said for _, said in answers if said.is_chosen), None)
        if chosen is None or len(history) != 2 * turn:
            reading.attempt(record, partial(_refuse, chosen, turn))
            continue
        history.append(("user", asked.prompt))
        prompt = render(history, "user")
        for _, said in answers:
            if not said.is_chosen and said.score != chosen.score and said.response != chosen.response:
                rows.append(_comparison(prompt, chosen, said))
        history.append(("assistant", chosen.response))
    return rows


def _refuse(chosen: _Utterance | None, turn: int) -> None:
    if chosen is None:
        raise ValueError(f"expected one chosen answer in turn {turn} of its conversation, got none")
    raise ValueError(f"expected all earlier turns of its conversation, got turn {turn} after an incomplete one")


def _comparison(prompt: str, chosen: _Utterance, rejected: _Utterance) -> Comparison:
    kept = ("conversation_id", "interaction_id", "turn", "conversation_type", "included_in_balanced_subset")
    return Comparison(
        prompt,
        chosen.response,
        rejected.response,
        group=chosen.cells["user_id"],
        extra={name: chosen.cells[name] for name in kept}
        | {"chosen_score": chosen.score, "rejected_score": rejected.score}
        | {"choice_below_score": chosen.score < rejected.score}
        | {"chosen_model": chosen.cells["model_name"], "rejected_model": rejected.cells["model_name"]},
    )
