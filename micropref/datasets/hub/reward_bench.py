"""RewardBench, both versions: tests of reward models, with what every pair is about."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from micropref.datasets._chat import render
from micropref.datasets._prompts import split_explicit
from micropref.datasets._text import listed
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, speech_of
from micropref.datasets.preference_set import PreferenceSet

__all__ = ["load_reward_bench"]

_COLUMNS = {
    1: ("prompt", "chosen", "rejected", "subset", "id"),
    2: ("prompt", "chosen", "rejected", "subset", "id", "num_correct"),
}
_HUB_NAMES = {1: "allenai/reward-bench", 2: "allenai/reward-bench-2"}
_SPLITS = {1: ("filtered", "raw"), 2: ("test",)}
_CITATIONS = {
    1: "Lambert, Pyatkin, Morrison, Miranda, Lin, Chandu, Dziri, Kumar, Zick, Choi, Smith and Hajishirzi (2024), "
    "RewardBench: Evaluating Reward Models for Language Modeling, arXiv:2403.13787",
    2: "Malik, Pyatkin, Land, Morrison, Smith, Hajishirzi and Lambert (2025), RewardBench 2: Advancing Reward Model "
    "Evaluation, arXiv:2506.01937",
}
_TIES = "Ties"


def load_reward_bench(
    source: Any = None,
    *,
    version: int = 2,
    split: str | None = None,
    include_ties: bool = True,
    revision: str | None = None,
    skip_bad: bool = False,
) -> PreferenceSet:
    """Load RewardBench or RewardBench 2, which test reward models and have no training rows.

    Version 1 has one chosen and one rejected response to a prompt, 2 985 in the split "filtered" and 5 123 in "raw".

    Version 2 has a list of each, 1 865 prompts in the split "test": one right answer and three wrong ones, and in the
    subset Ties several right answers and more wrong ones. Every right answer is compared with every wrong one, and the
    weights of a prompt's rows sum to 1. Two right answers are a tie and give no row. The accuracy of pairs is not the
    published score, which looks at all answers to a prompt: `micropref.metrics.reward_bench_score` counts it.

    Licence: ODC-BY. Citation of version 1: Nathan Lambert, Valentina Pyatkin, Jacob Morrison, LJ Miranda, Bill Yuchen
    Lin, Khyathi Chandu, Nouha Dziri, Sachin Kumar, Tom Zick, Yejin Choi, Noah A. Smith and Hannaneh Hajishirzi (2024),
    "RewardBench: Evaluating Reward Models for Language Modeling", arXiv:2403.13787. Of version 2: Saumya Malik,
    Valentina Pyatkin, Sander Land, Jacob Morrison, Noah A. Smith, Hannaneh Hajishirzi and Nathan Lambert (2025),
    "RewardBench 2: Advancing Reward Model Evaluation", arXiv:2506.01937.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``allenai/reward-bench`` or ``allenai/reward-bench-2`` on the hub.
    version : {1, 2}, default=2
    split : str, optional
        In version 1 "filtered", which is the default, or "raw"; in version 2 "test".
    include_ties : bool, default=True
        Keep the subset Ties of version 2.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `test` only. Extra columns are ``subset`` and ``id`` and, in version 2, ``num_correct``.

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    if version not in _COLUMNS:
        raise ValueError(f"expected version to be 1 or 2, got {version!r}")
    split = _SPLITS[version][0] if split is None else split
    if split not in _SPLITS[version]:
        raise ValueError(f"expected split to be one of {listed(_SPLITS[version])} in version {version}, got {split!r}")
    opened = open_splits(source, hub_name=_HUB_NAMES[version], columns=_COLUMNS[version], revision=revision)
    reading = Reading(opened.split(split), skip_bad)
    compare = _one_pair if version == 1 else _all_pairs
    rows = [row for _, pairs in reading.each(compare, _COLUMNS[version]) for row in pairs]
    if not include_ties:
        rows = [row for row in rows if row.extra["subset"] != _TIES]
    return PreferenceSet(
        name="RewardBench" if version == 1 else "RewardBench 2",
        test=reading.table(rows, is_weighted=version == 2),
        licence="ODC-BY",
        citation=_CITATIONS[version],
        source=opened.source,
    )


def _one_pair(cells: Mapping[str, Any]) -> list[Comparison]:
    prompt, chosen, rejected = split_explicit(*(speech_of(cells, name) for name in ("prompt", "chosen", "rejected")))
    return [Comparison(prompt, chosen, rejected, extra={name: cells[name] for name in ("subset", "id")})]


def _all_pairs(cells: Mapping[str, Any]) -> list[Comparison]:
    prompt = render(speech_of(cells, "prompt"), "user")
    right, wrong = _answers(cells, "chosen"), _answers(cells, "rejected")
    return [
        Comparison(
            prompt,
            chosen,
            rejected,
            weight=1 / (len(right) * len(wrong)),
            extra={name: cells[name] for name in ("subset", "id", "num_correct")},
        )
        for chosen in right
        for rejected in wrong
    ]


def _answers(cells: Mapping[str, Any], column: str) -> Sequence[str]:
    answers = cells[column]
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"expected a list of at least one text, got {reprlib.repr(answers)} in column {column!r}")
    return answers
