"""The score of the subset Ties of RewardBench 2: several right answers shall be level, and above all wrong ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answers", "ties_score"]

# A prompt with several right answers, and its twin with one, have the same number.
_ID = re.compile(r"(ref|tied):(\d+)")


class Answers(NamedTuple):
    """Rewards of the answers to one prompt.

    Attributes
    ----------
    right, wrong : ndarray
    """

    right: NDArray[np.float64]
    wrong: NDArray[np.float64]

    @property
    def margin(self) -> float:
        """Of the worst right answer over the best wrong one."""
        return float(self.right.min() - self.wrong.max())

    @property
    def spread(self) -> float:
        """Between the best and the worst right answer."""
        return float(np.ptp(self.right))


def ties_score(prompts: Mapping[str, Answers]) -> float:
    """The score of the subset, as `reward_bench_score` describes it.

    Parameters
    ----------
    prompts : mapping of str to Answers
        By id: "ref:7" of the prompt with one right answer, "tied:7" of that with several.

    Returns
    -------
    score : float

    Raises
    ------
    ValueError
        For other ids, a prompt "tied" with one right answer, or no number with both prompts.
    """
    one: dict[int, Answers] = {}
    several: dict[int, Answers] = {}
    for name, answers in prompts.items():
        found = _ID.fullmatch(name)
        if found is None:
            raise ValueError(f"Ties: expected an id such as 'ref:7' or 'tied:7', got {name!r}")
        if found[1] == "tied" and len(answers.right) < 2:
            raise ValueError(f"Ties, id {name!r}: expected several right answers, got {len(answers.right)}")
        (one if found[1] == "ref" else several)[int(found[2])] = answers
    both = sorted(one.keys() & several.keys())
    if not both:
        raise ValueError(
            f"Ties: expected prompts with the ids 'ref:N' and 'tied:N' of one N, got {sorted(prompts)[:4]}"
        )
    spread, margin, margin_of_one = np.array(
        [(several[number].spread, several[number].margin, one[number].margin) for number in both]
    ).T
    harder = np.minimum(margin, margin_of_one)
    with np.errstate(divide="ignore", invalid="ignore"):  # a spread of 0 counts as ±1, and 0 over 0 as 0
        relative = np.nan_to_num(np.tanh(harder / spread - 1.0), nan=0.0)
    return float(
        0.3 * np.mean([answers.margin > 0 for answers in several.values()])
        + 0.3 * np.mean([answers.margin > 0 for answers in one.values()])
        + 0.2 * np.mean(margin > spread)
        + 0.2 * np.mean(harder > spread)
        + 0.01 * np.mean(relative)
    )
