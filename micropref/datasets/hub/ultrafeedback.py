"""UltraFeedback: four completions of each instruction, rated by a language model on four aspects."""

from __future__ import annotations

from typing import Any

from micropref.datasets.hub._completions import ULTRAFEEDBACK_CONTEXTS, compare_completions, rate_completions
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Reading, split_by
from micropref.datasets.preference_set import PreferenceSet
from micropref.datasets.rating_table import RatingTable

__all__ = ["ULTRAFEEDBACK_CONTEXTS", "load_ultrafeedback", "load_ultrafeedback_ratings"]

_HUB_NAME = "openbmb/UltraFeedback"
_COLUMNS = ("source", "instruction", "completions")


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
    opened = open_splits(source, hub_name=_HUB_NAME, columns=_COLUMNS, revision=revision)
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


def load_ultrafeedback_ratings(
    source: Any = None, *, revision: str | None = None, skip_bad: bool = False
) -> RatingTable:
    """Load the ratings of UltraFeedback themselves: completions with their scores, for `MultiObjectiveRewards`.

    Licence and citation are those of `load_ultrafeedback`.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``openbmb/UltraFeedback`` on the hub.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave out, with a UserWarning, instructions with a bad completion, instead of stopping at the first.

    Returns
    -------
    RatingTable
        Scores from 1 to 5 on instruction following, honesty, truthfulness and helpfulness; NaN where GPT-4 gave none.

    Raises
    ------
    MalformedRowError
        At the first bad row.
    ImportError
        If `datasets` is needed and not installed.
    """
    opened = open_splits(source, hub_name=_HUB_NAME, columns=_COLUMNS, revision=revision)
    reading = Reading(opened.split("train"), skip_bad)
    rated = [one for _, rows in reading.each(rate_completions, _COLUMNS) for one in rows]
    return reading.ratings(rated, tuple(ULTRAFEEDBACK_CONTEXTS))
