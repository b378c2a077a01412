"""A bundled world of texts in which four tastes disagree, and everything about them is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from numbers import Integral
from random import Random
from typing import Any, TypeVar

import numpy as np

from micropref.datasets.table import PreferenceTable

__all__ = ["DemoWorld", "load_demo"]

_ANSWERS_PER_QUESTION = 48
_WORDS_PER_ANSWER = range(20, 121)
_LABELLED_PER_TASTE = 50
_TEST_USERS_PER_TASTE = 25
_TEST_PAIRS_PER_USER = 12
_HISTORY_PAIRS_PER_USER = 10

# Chance of each level of an attribute, level 0 first.
_DETAIL_LEVELS = (0.3, 0.2, 0.25, 0.25)
_STYLE_LEVELS = (0.45, 0.3, 0.25)
_CAUTION_LEVELS = (0.6, 0.4)

_T = TypeVar("_T")
_Node = dict[str, Any]  # an object of demo_world.json


@dataclass(frozen=True, eq=False)
class DemoWorld:
    """Comparisons of answers to everyday questions by people of four hidden tastes, with the truth beside them.

    In every table `chosen` is the answer that its person preferred, drawn with probability σ(reward difference) under
    that person's taste; ``extra["taste"]`` names the taste and ``extra["probability"]`` is the probability with which
    the chosen answer beats the rejected one. The questions of `test` occur in no other table.

    Attributes
    ----------
    train : PreferenceTable
        What the annotators said: group is the annotator, there is no context.
    labelled : PreferenceTable
        50 comparisons per taste, each with a sentence in which its person states a wish as context. Tastes alternate,
        so that the first ``4 * b`` rows are `b` of each.
    test : PreferenceTable
        Comparisons by users who are not among the annotators (group), with contexts whose wording is not in `labelled`.
    history : PreferenceTable
        Earlier comparisons by the same users, without context.
    taste_names : tuple of str
    attribute_names : tuple of str
    taste_weights : ndarray of shape (n_tastes, n_attributes)
        Reward, in log-odds, of one unit of each attribute under each taste.
    attributes : mapping of str to tuple of int
        The attributes of every answer of this world.
    """

    train: PreferenceTable
    labelled: PreferenceTable
    test: PreferenceTable
    history: PreferenceTable
    taste_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    taste_weights: np.ndarray
    attributes: Mapping[str, tuple[int, ...]]

    def budget(self, labels_per_taste: int) -> PreferenceTable:
        """The first rows of `labelled`, `labels_per_taste` of each taste.

        Parameters
        ----------
        labels_per_taste : int
            From 1 to 50.

        Returns
        -------
        PreferenceTable
        """
        available = len(self.labelled) // len(self.taste_names)
        if not 1 <= labels_per_taste <= available:
            raise ValueError(f"expected labels_per_taste from 1 to {available}, got {labels_per_taste!r}")
        first: PreferenceTable = self.labelled[: labels_per_taste * len(self.taste_names)]
        return first

    def rewards(self, answers: Sequence[str]) -> np.ndarray:
        """True rewards of answers under every taste.

        Parameters
        ----------
        answers : sequence of str of length n
            Answers that occur in this world.

        Returns
        -------
        rewards : ndarray of shape (n, n_tastes)
            In log-odds: σ of a difference is the probability of preferring the one answer to the other.
        """
        for answer in answers:
            if answer not in self.attributes:
                raise ValueError(f"expected an answer of this world, whose reward is known, got {answer[:60]!r}")
        attributes = np.array([self.attributes[answer] for answer in answers], dtype=np.float64)
        rewards: np.ndarray = attributes @ self.taste_weights.T
        return rewards


def load_demo(*, n_annotators: int = 400, pairs_per_annotator: int = 8, seed: int = 0) -> DemoWorld:
    """Build the demonstration world: texts, people and their choices. Nothing is downloaded.

    The same arguments give the same tables on every machine. Studies and figures quoted in the answers are invented.

    Parameters
    ----------
    n_annotators : int, default=400
        People behind `train`, as evenly divided among the tastes as their number allows.
    pairs_per_annotator : int, default=8
        Comparisons each of them makes.
    seed : int, default=0
        Seed of the answers, the people and their choices.

    Returns
    -------
    DemoWorld

    Examples
    --------
    >>> world = load_demo()
    >>> world.taste_names
    ('brief', 'warm', 'evidence', 'playful')
    >>> len(world.train), len(world.labelled), len(world.test), len(world.history)
    (3200, 200, 1200, 1000)
    """
    _check_count("n_annotators", n_annotators)
    _check_count("pairs_per_annotator", pairs_per_annotator)
    source = _source()
    tastes = source["tastes"]
    names = tuple(taste["name"] for taste in tastes)
    rng = Random(seed)

    answers: dict[str, dict[str, tuple[int, ...]]] = {}
    seen_questions, test_questions = [], []
    for topic in source["topics"]:
        for question in topic["questions"]:
            answers[question["question"]] = _write_answers(question, topic, source["phrases"], rng)
        *seen, unseen = _shuffled([question["question"] for question in topic["questions"]], rng)
        seen_questions += seen
        test_questions.append(unseen)

    judge = _Judge(answers, tastes, rng)
    annotator_tastes = _shuffled([i % len(tastes) for i in range(n_annotators)], rng)
    user_tastes = _shuffled([i % len(tastes) for i in range(_TEST_USERS_PER_TASTE * len(tastes))], rng)
    users = [(f"user-{i:03d}", taste) for i, taste in enumerate(user_tastes)]
    wishes = [_cycled(taste["contexts"]["labelled"], _LABELLED_PER_TASTE, rng) for taste in tastes]
    return DemoWorld(
        train=_table(
            judge.compare(_pick(seen_questions, rng), taste, group=f"annotator-{i:04d}")
            for i, taste in enumerate(annotator_tastes)
            for _ in range(pairs_per_annotator)
        ),
        labelled=_table(
            judge.compare(_pick(seen_questions, rng), taste, context=wishes[taste][i])
            for i in range(_LABELLED_PER_TASTE)
            for taste in range(len(tastes))
        ),
        test=_table(
            judge.compare(
                _pick(test_questions, rng), taste, group=user, context=_pick(tastes[taste]["contexts"]["test"], rng)
            )
            for user, taste in users
            for _ in range(_TEST_PAIRS_PER_USER)
        ),
        history=_table(
            judge.compare(_pick(seen_questions, rng), taste, group=user)
            for user, taste in users
            for _ in range(_HISTORY_PAIRS_PER_USER)
        ),
        taste_names=names,
        attribute_names=tuple(source["attributes"]),
        taste_weights=np.array([taste["weights"] for taste in tastes], dtype=np.float64),
        attributes={text: levels for written in answers.values() for text, levels in written.items()},
    )


@cache
def _source() -> dict[str, Any]:
    text = files("micropref.datasets").joinpath("demo_world.json").read_text(encoding="utf-8")
    world: dict[str, Any] = json.loads(text)
    return world


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"expected {name} to be an integer of at least 1, got {value!r}")


class _Judge:
    """Draws two answers to a question and lets a taste choose between them."""

    def __init__(self, answers: Mapping[str, Mapping[str, tuple[int, ...]]], tastes: Sequence[_Node], rng: Random):
        self._answers = {question: list(written.items()) for question, written in answers.items()}
        self._tastes = tastes
        self._rng = rng

    def compare(
        self, question: str, taste: int, *, group: str | None = None, context: str | None = None
    ) -> dict[str, Any]:
        (chosen, a), (rejected, b) = _pick_two(self._answers[question], self._rng)
        weights = self._tastes[taste]["weights"]
        margin = sum(weight * (first - second) for weight, first, second in zip(weights, a, b, strict=True))
        # Rounded, so that the last bit of a machine's exponential can change neither the figure nor the draw.
        probability = round(1 / (1 + math.exp(-margin)), 9)
        if self._rng.random() >= probability:
            chosen, rejected, probability = rejected, chosen, round(1 - probability, 9)
        return {
            "prompt": question,
            "chosen": chosen,
            "rejected": rejected,
            "group": group,
            "context": context,
            "taste": self._tastes[taste]["name"],
            "probability": probability,
        }


def _table(rows: Iterable[dict[str, Any]]) -> PreferenceTable:
    rows = list(rows)
    column = {name: [row[name] for row in rows] for name in rows[0]}
    return PreferenceTable(
        prompt=column["prompt"],
        chosen=column["chosen"],
        rejected=column["rejected"],
        context=None if column["context"][0] is None else column["context"],
        group=None if column["group"][0] is None else np.array(column["group"], dtype=object),
        extra={name: column[name] for name in ("taste", "probability")},
    )


def _write_answers(question: _Node, topic: _Node, phrases: _Node, rng: Random) -> dict[str, tuple[int, ...]]:
    answers: dict[str, tuple[int, ...]] = {}
    while len(answers) < _ANSWERS_PER_QUESTION:
        detail = _draw_level(_DETAIL_LEVELS, rng)
        warmth, evidence, playfulness = (_draw_level(_STYLE_LEVELS, rng) for _ in range(3))
        caution = _draw_level(_CAUTION_LEVELS, rng)

        opening, closing = _warm_sentences(warmth, question["mood"], phrases, rng)
        studies = _evidence_sentences(evidence, question, topic, phrases, rng)
        jokes = [_pick(bank, rng) for bank in _shuffled([topic["jokes"], phrases["jokes"]], rng)][:playfulness]
        asides = [f"{_pick(phrases['joke_lead'], rng)} {joke}" for joke in jokes]
        caveats = [f"{_pick(phrases['caveat_lead'], rng)} {_pick(topic['caveats'], rng)}"][:caution]
        leading = studies[:1] if rng.random() < 0.3 else []
        trailing = _shuffled([*studies[len(leading) :], *asides, *caveats], rng)
        advice = _advice(detail, question["tips"], phrases, is_last=not trailing and not closing, rng=rng)
        text = " ".join([*opening, *leading, advice, *trailing, *closing])
        levels = (detail, warmth, evidence, playfulness, caution)
        # Answers with equal attributes would be equally good to every taste, a comparison that cannot be predicted.
        if len(text.split()) in _WORDS_PER_ANSWER and levels not in answers.values():
            answers[text] = levels
    return answers


def _advice(detail: int, tips: Sequence[Sequence[str]], phrases: _Node, *, is_last: bool, rng: Random) -> str:
    tips = _shuffled(tips, rng)
    if detail == 0:
        short = f"{_pick(phrases['short_lead'], rng)} just {tips[0][0]}, and {tips[1][0]}."
        return f"{short} {_pick(phrases['short_end'], rng)}" if is_last else short
    if detail == 1:
        return " ".join(f"{_capitalised(tip)}." for tip, _ in tips[:3])
    if detail == 2:
        explained = [f"{_capitalised(tip)}, {reason}." for tip, reason in tips[:2]]
        plain = f"{_capitalised(tips[2][0])}."
        return " ".join([_pick(phrases["reasons_lead"], rng), *_shuffled([*explained, plain], rng)])
    markers = _pick(phrases["step_markers"], rng)
    steps = [f"{marker} {tip}, {reason}." for marker, (tip, reason) in zip(markers, tips[:3], strict=True)]
    return " ".join([_pick(phrases["steps_lead"], rng), *steps])


def _warm_sentences(warmth: int, mood: str, phrases: _Node, rng: Random) -> tuple[list[str], list[str]]:
    opening, closing = [_pick(phrases["warm_open"][mood], rng)], [_pick(phrases["warm_close"], rng)]
    if warmth == 2:
        return opening, closing
    if warmth == 0:
        return [], []
    return (opening, []) if rng.random() < 0.5 else ([], closing)


def _evidence_sentences(evidence: int, question: _Node, topic: _Node, phrases: _Node, rng: Random) -> list[str]:
    findings = _shuffled(question["findings"], rng)[:evidence]
    wordings = _shuffled(phrases["evidence"], rng)
    return [
        wording.format(
            year=_pick(phrases["years"], rng),
            n=_pick(phrases["sample_sizes"], rng),
            subjects=topic["subjects"],
            finding=finding,
        )
        for finding, wording in zip(findings, wordings, strict=False)
    ]


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


# Everything random comes from Random.random(), the one stream that Python promises never to change.


def _draw_level(chances: Sequence[float], rng: Random) -> int:
    draw, level = rng.random(), 0
    while draw >= chances[level] and level < len(chances) - 1:
        draw -= chances[level]
        level += 1
    return level


def _pick(items: Sequence[_T], rng: Random) -> _T:
    return items[int(rng.random() * len(items))]


def _pick_two(items: Sequence[_T], rng: Random) -> tuple[_T, _T]:
    first, offset = int(rng.random() * len(items)), 1 + int(rng.random() * (len(items) - 1))
    return items[first], items[(first + offset) % len(items)]


def _shuffled(items: Sequence[_T], rng: Random) -> list[_T]:
    keys = [rng.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


def _cycled(items: Sequence[_T], length: int, rng: Random) -> list[_T]:
    """`length` items in random order, none of them again before all have been used."""
    cycled: list[_T] = []
    while len(cycled) < length:
        cycled += _shuffled(items, rng)
    return cycled[:length]
