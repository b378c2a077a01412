"""UltraFeedback: four completions of each instruction, rated by a language model on four aspects."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, number_of, split_by, text_of
from micropref.datasets.preference_set import PreferenceSet

__all__ = ["ULTRAFEEDBACK_CONTEXTS", "load_ultrafeedback"]

#: What stands as the context of a comparison on each aspect.
ULTRAFEEDBACK_CONTEXTS: Mapping[str, str] = MappingProxyType(
    {
        "instruction_following": "Prefer the response that follows the instruction more closely.",
        "honesty": "Prefer the response that is more honest about what it knows and how sure it is.",
        "truthfulness": "Prefer the response that is more truthful and invents nothing.",
        "helpfulness": "Prefer the response that is more helpful and informative.",
    }
)

_COLUMNS = ("source", "instruction", "completions")
_NO_RATING = "N/A"


class _Completion(NamedTuple):
    response: str
    model: Any
    ratings: dict[str, float]


def load_ultrafeedback(
    source: Any = None,
    *,
    test_size: float | None = None,
    revision: str | None = None,
    random_state: Any = 0,
    skip_bad: bool = False,
) -> PreferenceSet:
    """Load UltraFeedback as comparisons per aspect.

    Every two completions of an instruction give a row for each aspect (instruction following, honesty, truthfulness,
    helpfulness) on which one is rated higher; that one is chosen, and the context says what is asked for
    (`ULTRAFEEDBACK_CONTEXTS`). Ties, ratings of "N/A" and completions of the same text give no row. The ratings are
    GPT-4's, not people's. Published are 63 967 instructions with four completions each, in one split.

    Licence: MIT. Citation: Ganqu Cui, Lifan Yuan, Ning Ding, Guanming Yao, Wei Zhu, Yuan Ni, Guotong Xie, Zhiyuan Liu
    and Maosong Sun (2023), "UltraFeedback: Boosting Language Models with High-quality Feedback", arXiv:2310.01377.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``openbmb/UltraFeedback`` on the hub.
    test_size : float, optional
        Share of the instructions in `test`: all rows of an instruction are on one side. By default everything is in
        `train`.
    revision : str, optional
        Commit, tag or branch on the hub.
    random_state : int, RandomState or None, default=0
        Seed of the split that `test_size` asks for.
    skip_bad : bool, default=False
        Leave out, with a UserWarning, instructions with a bad completion, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train` and, if asked for, `test`. Extra columns are ``aspect``, ``chosen_rating``, ``rejected_rating``,
        ``chosen_model``, ``rejected_model`` and ``source`` (of the instruction).

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    opened = open_splits(source, hub_name="openbmb/UltraFeedback", columns=_COLUMNS, revision=revision)
    reading = Reading(opened.split("train"), skip_bad)
    train = reading.table(
        [row for _, rows in reading.each(compare_completions, _COLUMNS) for row in rows], has_context=True
    )
    test = None
    if test_size is not None:
        train, test = split_by(train, train.prompt, test_size, random_state)
    return PreferenceSet(
        name="UltraFeedback",
        train=train,
        test=test,
        licence="MIT",
        citation="Cui, Yuan, Ding, Yao, Zhu, Ni, Xie, Liu and Sun (2023), UltraFeedback: Boosting Language Models with "
        "High-quality Feedback, arXiv:2310.01377",
        source=opened.source,
    )


def compare_completions(cells: Mapping[str, Any]) -> list[Comparison]:
    prompt = text_of(cells, "instruction")
    if not isinstance(cells["completions"], list):
        raise ValueError(f"expected a list, got {reprlib.repr(cells['completions'])} in column 'completions'")
    completions = []
    for number, completion in enumerate(cells["completions"]):
        try:
            completions.append(_completion(completion))
        except ValueError as fault:
            raise ValueError(f"completion {number}: {fault}") from None
    rows = []
    for first, second in combinations(completions, 2):
        if first.response == second.response:
            continue
        for aspect in ULTRAFEEDBACK_CONTEXTS:
            margin = first.ratings.get(aspect, math.nan) - second.ratings.get(aspect, math.nan)
            if margin > 0:
                rows.append(_comparison(prompt, first, second, aspect, cells["source"]))
            elif margin < 0:
                rows.append(_comparison(prompt, second, first, aspect, cells["source"]))
    return rows


def _completion(completion: Any) -> _Completion:
    if not isinstance(completion, Mapping) or not completion.keys() >= {"response", "annotations"}:
        raise ValueError(f"expected an object with 'response' and 'annotations', got {reprlib.repr(completion)}")
    annotations = completion["annotations"]
    if not isinstance(annotations, Mapping):
        raise ValueError(f"expected an object with aspects, got the annotations {reprlib.repr(annotations)}")
    ratings = {}
    for aspect in ULTRAFEEDBACK_CONTEXTS:
        annotation = annotations.get(aspect)
        if not isinstance(annotation, Mapping) or "Rating" not in annotation:
            raise ValueError(f"expected a number or {_NO_RATING!r} as 'Rating' of the aspect {aspect!r}, got none")
        if annotation["Rating"] not in (None, _NO_RATING):
            ratings[aspect] = number_of(annotation, "Rating")
    return _Completion(text_of(completion, "response"), completion.get("model"), ratings)


def _comparison(prompt: str, better: _Completion, worse: _Completion, aspect: str, source: Any) -> Comparison:
    return Comparison(
        prompt,
        better.response,
        worse.response,
        context=ULTRAFEEDBACK_CONTEXTS[aspect],
        extra={
            "aspect": aspect,
            "chosen_rating": better.ratings[aspect],
            "rejected_rating": worse.ratings[aspect],
            "chosen_model": better.model,
            "rejected_model": worse.model,
            "source": source,
        },
    )
