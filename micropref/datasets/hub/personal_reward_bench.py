"""PersonalRewardBench: pairs of people in Chatbot Arena and PRISM whose own history is enough to learn from."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from micropref.datasets._prompts import split_explicit
from micropref.datasets._text import listed
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, speech_of
from micropref.datasets.preference_set import PreferenceSet
from micropref.datasets.table import PreferenceTable

__all__ = ["load_personal_reward_bench"]

_HUB_NAMES = {
    "prism": "MichaelR207/prism_personalized_0125",
    "chatbot_arena": "MichaelR207/chatbot_arena_personalized_0125",
}
_LICENCES = {
    "prism": "unknown; made from PRISM, whose human texts are CC-BY-4.0 and whose answers of models are CC-BY-NC-4.0",
    "chatbot_arena": "unknown; made from Chatbot Arena conversations, whose prompts are CC-BY-4.0 and whose answers of "
    "models are CC-BY-NC-4.0",
}
_COLUMNS = ("user_id", "split", "context", "chosen", "rejected")
_SPLITS = ("train", "val", "test")


def load_personal_reward_bench(
    source: Any = None, *, part: str = "prism", revision: str | None = None, skip_bad: bool = False
) -> PreferenceSet:
    """Load PersonalRewardBench: pairs by person, with each person's own split.

    What the set calls ``context`` is the conversation before the two answers, that is, our `prompt`; the table has no
    context of its own, the person is the group. The column ``split`` divides the pairs of every person into train,
    val and test, which become `train`, `validation` and `test`. The splits on the hub divide people instead; all of
    them are read, and ``extra["user_split"]`` says where a person stood.

    Licence: unknown to us; made from PRISM (texts by people CC-BY-4.0, answers of models CC-BY-NC-4.0) and from Chatbot
    Arena conversations (prompts CC-BY-4.0, answers of models CC-BY-NC-4.0). Citation: Michael J. Ryan, Omar Shaikh,
    Aditri Bhagirath, Daniel Frees, William Held and Diyi Yang (2025), "SynthesizeMe! Inducing Persona-Guided Prompts
    for Personalized Reward Models in LLMs", arXiv:2506.05598.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``MichaelR207/prism_personalized_0125`` or ``MichaelR207/chatbot_arena_personalized_0125``.
    part : {"prism", "chatbot_arena"}, default="prism"
        Which of the two parts, for the name on the hub and the licence.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train`, `validation` and `test`, None where no row belongs to one. Extra column: ``user_split``, None for
        rows in no named split.

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    if part not in _HUB_NAMES:
        raise ValueError(f"expected part to be {' or '.join(map(repr, _HUB_NAMES))}, got {part!r}")
    opened = open_splits(source, hub_name=_HUB_NAMES[part], columns=_COLUMNS, revision=revision)
    found: dict[str, list[PreferenceTable]] = {split: [] for split in _SPLITS}
    for user_split, rows in opened.splits.items():
        reading = Reading(rows, skip_bad)
        read = reading.each(lambda cells: (_split(cells), _comparison(cells, user_split)), _COLUMNS)  # noqa: B023
        table = reading.table([row for _, (_, row) in read], has_group=True)
        for split in _SPLITS:
            places = [place for place, (_, (own, _)) in enumerate(read) if own == split]
            if places:
                found[split].append(table[places])
    parts = {split: PreferenceTable.concat(tables) if tables else None for split, tables in found.items()}
    return PreferenceSet(
        name=f"PersonalRewardBench ({part})",
        train=parts["train"],
        validation=parts["val"],
        test=parts["test"],
        licence=_LICENCES[part],
        citation="Ryan, Shaikh, Bhagirath, Frees, Held and Yang (2025), SynthesizeMe! Inducing Persona-Guided Prompts "
        "for Personalized Reward Models in LLMs, arXiv:2506.05598",
        source=opened.source,
    )


def _split(cells: Mapping[str, Any]) -> str:
    if cells["split"] not in _SPLITS:
        raise ValueError(f"expected one of {listed(_SPLITS)}, got {reprlib.repr(cells['split'])} in column 'split'")
    split: str = cells["split"]
    return split


def _comparison(cells: Mapping[str, Any], user_split: str | None) -> Comparison:
    prompt, chosen, rejected = split_explicit(*(speech_of(cells, name) for name in ("context", "chosen", "rejected")))
    return Comparison(prompt, chosen, rejected, group=cells["user_id"], extra={"user_split": user_split})
