"""Questions: the server's own pairs to ask users about, and what its page offers to pick."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from micropref.datasets._unoriented import read_unoriented

__all__ = ["Questions", "read_questions"]

_MOST_PAIRS, _MOST_WISHES, _MOST_TOPICS, _MOST_RESPONSES = 200, 5, 12, 6
_LONGEST_WISH = 120


class Questions(NamedTuple):
    """Pairs of responses without labels.

    Attributes
    ----------
    prompts, first, second : list of n str
    wishes : list of str
        Contexts that the page offers.
    topics : list of tuple
        Prompts with the responses that the page ranks.
    """

    prompts: list[str]
    first: list[str]
    second: list[str]
    wishes: list[str]
    topics: list[tuple[str, list[str]]]


def read_questions(source: Any = None) -> Questions:
    """Questions of a file, or of the bundled world.

    Parameters
    ----------
    source : table of comparisons, optional
        As `read_preferences` takes it; labels are not read. Of more than 200 distinct pairs a seeded draw is taken.
    """
    table = _bundled() if source is None else read_unoriented(source)
    wishes = dict.fromkeys(text.strip() for text in table.context or () if text.strip())
    short = [wish for wish in wishes if len(wish) <= _LONGEST_WISH]
    pairs: dict[Any, tuple[str, str, str]] = {}
    for row in zip(table.prompt, table.chosen, table.rejected, strict=True):
        pairs.setdefault((row[0], frozenset(row[1:])), row)
    distinct = list(pairs.values())
    kept = np.sort(np.random.RandomState(0).permutation(len(distinct))[:_MOST_PAIRS])
    prompts, first, second = (list(column) for column in zip(*(distinct[i] for i in kept), strict=True))
    return Questions(prompts, first, second, short[:_MOST_WISHES], _topics(distinct))


def _bundled() -> Any:
    from micropref.datasets import load_demo

    return load_demo().labelled


def _topics(pairs: list[tuple[str, str, str]]) -> list[tuple[str, list[str]]]:
    """Prompts with the most responses, at least two."""
    responses: dict[str, dict[str, None]] = {}
    for prompt, first, second in pairs:
        responses.setdefault(prompt, {}).update({first: None, second: None})
    largest = sorted(responses.items(), key=lambda one: -len(one[1]))[:_MOST_TOPICS]
    return [(prompt, list(found)[:_MOST_RESPONSES]) for prompt, found in largest]
