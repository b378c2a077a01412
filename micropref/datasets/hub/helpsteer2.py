"""HelpSteer2: two responses to a prompt, rated on five attributes that often disagree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from micropref.datasets._chat import render
from micropref.datasets._sources import Record, Source
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, number_of, split_by, text_of
from micropref.datasets.preference_set import PreferenceSet
from micropref.datasets.rating_table import RatingTable
from micropref.datasets.table import PreferenceTable

__all__ = ["HELPSTEER2_CONTEXTS", "load_helpsteer2", "load_helpsteer2_ratings"]

#: What stands as the context of a comparison on each attribute, after the definitions on the set's card.
HELPSTEER2_CONTEXTS: Mapping[str, str] = MappingProxyType(
    {
        "helpfulness": "Prefer the response that is more helpful to the prompt overall.",
        "correctness": "Prefer the response that includes all pertinent facts and makes no errors.",
        "coherence": "Prefer the response that is clearer and more consistent in its expression.",
        "complexity": "Prefer the response that takes more intellectual depth and expertise to write.",
        "verbosity": "Prefer the response that gives more detail relative to what the prompt asks for.",
    }
)

_HUB_NAME = "nvidia/HelpSteer2"
_COLUMNS = ("prompt", "response", *HELPSTEER2_CONTEXTS)

# In prompts of several turns the speakers are divided by this mark of the model family that rated them.
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


class _Rated(NamedTuple):
    prompt: str
    response: str
    scores: dict[str, float]


def load_helpsteer2(
    source: Any = None,
    *,
    test_size: float | None = None,
    weight_by_margin: bool = False,
    keep_unanimous: bool = False,
    revision: str | None = None,
    random_state: Any = 0,
    skip_bad: bool = False,
) -> PreferenceSet:
    """Load HelpSteer2 as comparisons per attribute, split by prompt.

    Adjacent rows of the set are two responses to one prompt, each rated from 0 to 4 for helpfulness, correctness,
    coherence, complexity and verbosity. Every attribute on which the two differ gives a row in which the response
    rated higher is chosen and the context says what is asked for (`HELPSTEER2_CONTEXTS`). Equal ratings give no row.
    A pair is unanimous, and left out, if all attributes on which the two differ prefer the same response: it says
    nothing about who disagrees with whom. Published are 20 324 responses for training and 1 038 for validation.

    All rows of a prompt are on one side of the split, so no pair is in `train` under one attribute and in `test` under
    another. The published validation split is `test`; what `train` has of its prompts is left out.

    Licence: CC-BY-4.0. Citation: Zhilin Wang, Yi Dong, Olivier Delalleau, Jiaqi Zeng, Gerald Shen, Daniel Egert,
    Jimmy J. Zhang, Makesh Narsimhan Sreedhar and Oleksii Kuchaiev (2024), "HelpSteer2: Open-source dataset for training
    top-performing reward models", arXiv:2406.08673.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``nvidia/HelpSteer2`` on the hub. Rows in no named split become `train`.
    test_size : float, optional
        Share of the prompts in `test`, drawn anew from all rows. By default the published split is kept.
    weight_by_margin : bool, default=False
        Weigh a row by the difference of its ratings, 1 to 4.
    keep_unanimous : bool, default=False
        Keep unanimous pairs.
    revision : str, optional
        Commit, tag or branch on the hub.
    random_state : int, RandomState or None, default=0
        Seed of the split that `test_size` asks for.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train` and `test`. Extra columns are ``attribute``, ``chosen_score``, ``rejected_score`` and ``pair``, the
        same for all rows of two responses.

    Raises
    ------
    MalformedRowError
        At the first bad row; a row is bad, too, if neither neighbour answers the same prompt.
    ImportError
        If `datasets` is needed and not installed.
    """
    opened = open_splits(source, hub_name=_HUB_NAME, columns=_COLUMNS, revision=revision)
    names = ("train", "validation") if opened.is_named else ("train",)
    tables = [_table(opened.split(name), name, weight_by_margin, keep_unanimous, skip_bad) for name in names]
    train, test = tables[0], tables[1] if len(tables) == 2 else None
    if test_size is not None:
        together = PreferenceTable.concat(tables)
        train, test = split_by(together, together.prompt, test_size, random_state)
    elif test is not None:
        held_out = set(test.prompt)
        train = train[[row for row, prompt in enumerate(train.prompt) if prompt not in held_out]]
    return PreferenceSet(
        name="HelpSteer2",
        train=train,
        test=test,
        licence="CC-BY-4.0",
        citation="Wang, Dong, Delalleau, Zeng, Shen, Egert, Zhang, Sreedhar and Kuchaiev (2024), HelpSteer2: "
        "Open-source dataset for training top-performing reward models, arXiv:2406.08673",
        source=opened.source,
    )


def load_helpsteer2_ratings(
    source: Any = None, *, split: str = "train", revision: str | None = None, skip_bad: bool = False
) -> RatingTable:
    """Load the ratings of HelpSteer2 themselves: responses with their five scores, for `MultiObjectiveRewards`.

    Licence and citation are those of `load_helpsteer2`, whose prompts are the same texts, so that a split of its
    comparisons by prompt can be followed.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``nvidia/HelpSteer2`` on the hub.
    split : {"train", "validation"}, default="train"
        Which of the published splits, where the source has named splits.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    RatingTable
        Scores from 0 to 4 on helpfulness, correctness, coherence, complexity and verbosity.

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    if split not in ("train", "validation"):
        raise ValueError(f"expected split to be 'train' or 'validation', got {split!r}")
    opened = open_splits(source, hub_name=_HUB_NAME, columns=_COLUMNS, revision=revision)
    reading = Reading(opened.split(split), skip_bad)
    rated = [(one.prompt, one.response, one.scores) for _, one in reading.each(_rated, _COLUMNS)]
    return reading.ratings(rated, tuple(HELPSTEER2_CONTEXTS))


def _table(source: Source, split: str, weight_by_margin: bool, keep_unanimous: bool, skip_bad: bool) -> PreferenceTable:
    reading = Reading(source, skip_bad)
    rows: list[Comparison] = []
    for number, (record, first, second) in enumerate(_pairs(reading)):
        compared = reading.attempt(record, partial(_compare, first, second, f"{split}-{number}"))
        preferred = {one.chosen for one in compared or ()}
        if compared and (keep_unanimous or len(preferred) == 2):
            rows += compared
    if weight_by_margin:
        rows = [_weighed(row) for row in rows]
    return reading.table(rows, has_context=True, is_weighted=weight_by_margin)


def _pairs(reading: Reading) -> Iterator[tuple[Record, _Rated, _Rated]]:
    """Rows that follow one another and answer the same prompt, two by two."""
    rows = iter([*reading.each(_rated, _COLUMNS), None])
    waiting = next(rows)
    while waiting is not None:
        (record, first), following = waiting, next(rows)
        if following and following[0].number == record.number + 1 and following[1].prompt == first.prompt:
            yield record, first, following[1]
            waiting = next(rows)
        else:
            reading.attempt(record, _lonely)
            waiting = following


def _lonely() -> None:
    raise ValueError("expected a second response to the prompt in the next row, got one only")


def _rated(cells: Mapping[str, Any]) -> _Rated:
    scores = {attribute: number_of(cells, attribute) for attribute in HELPSTEER2_CONTEXTS}
    for attribute, score in scores.items():
        if not 0 <= score <= 4:
            raise ValueError(f"expected a rating from 0 to 4, got {score:g} in column {attribute!r}")
    return _Rated(_conversation(text_of(cells, "prompt")), text_of(cells, "response"), scores)


def _conversation(prompt: str) -> str:
    opening, *rest = _TURN.split(prompt)
    turns = [("user", opening), *((role.lower(), text) for role, text in zip(rest[::2], rest[1::2], strict=True))]
    return render(turns, "user")


def _compare(first: _Rated, second: _Rated, pair: str) -> list[Comparison]:
    compared = []
    for attribute, context in HELPSTEER2_CONTEXTS.items():
        better, worse = (first, second) if first.scores[attribute] > second.scores[attribute] else (second, first)
        scores = {"chosen_score": better.scores[attribute], "rejected_score": worse.scores[attribute]}
        if scores["chosen_score"] > scores["rejected_score"]:
            extra = {"attribute": attribute, **scores, "pair": pair}
            compared.append(Comparison(first.prompt, better.response, worse.response, context=context, extra=extra))
    return compared


def _weighed(row: Comparison) -> Comparison:
    return replace(row, weight=row.extra["chosen_score"] - row.extra["rejected_score"])
