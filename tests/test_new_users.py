"""Real people who have not voted: the first stage that users="auto" chooses serves them as well as one reward does."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from micropref import MixtureBradleyTerry, make_pairs
from micropref._reward.users import fit_first_stage

pytestmark = pytest.mark.data


class Split(NamedTuple):
    """Pairs to learn from, the preferred one first, with their annotators; and pairs of new people or prompts."""

    train: np.ndarray
    groups: np.ndarray | None
    test: np.ndarray


def folder(name: str) -> Path:
    return Path(os.environ["MICROPREF_DATA"]) / name


def read_lines(path: Path) -> list:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def vectors_of(name: str, keys: tuple[str, ...]) -> tuple[list, dict[str, np.ndarray]]:
    pairs, vectors = read_lines(folder(name) / "pairs.jsonl.gz"), np.load(folder(name) / "embeddings.npy").astype(float)
    row = {text: i for i, text in enumerate(read_lines(folder(name) / "texts.jsonl.gz"))}
    return pairs, {key: vectors[[row[pair[key]] for pair in pairs]] for key in keys}


def sushi(random: np.random.Generator) -> Split:
    """300 people with 15 pairs each; 500 others."""
    orders = random.permutation(np.load(folder("sushi2500") / "orders.npy").astype(int))
    a, b = np.triu_indices(10, 1)
    pairs = np.eye(10)[orders[:, a]] - np.eye(10)[orders[:, b]]
    asked = np.argsort(random.random((300, 45)), axis=1)[:, :15]
    train = np.take_along_axis(pairs[:300], asked[..., None], 1).reshape(-1, 10)
    return Split(train, np.repeat(np.arange(300), 15), pairs[-500:].reshape(-1, 10))


def prefeval10(random: np.random.Generator, annotators: bool = False) -> Split:
    """Eight topics, without annotators or with some who answer five rows; the other two topics."""
    pairs, part = vectors_of("prefeval10", ("chosen", "rejected"))
    topic = np.array([pair["topic"] for pair in pairs])
    test = np.isin(topic, random.permutation(np.unique(topic))[:2])
    X, n = make_pairs(part["chosen"], part["rejected"]), int((~test).sum())
    return Split(X[~test], random.permutation(n) // 5 if annotators else None, X[test])


SETS: dict[str, Callable[[np.random.Generator], Split]] = {
    "sushi2500": sushi,
    "prefeval10": prefeval10,
    "prefeval10, annotators who share prompts": lambda random: prefeval10(random, annotators=True),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*less than 2 %:UserWarning")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SETS)
def test_new_users_are_served_as_well_as_by_one_reward(name: str, seed: int) -> None:
    split = SETS[name](np.random.default_rng(seed))
    one = MixtureBradleyTerry(1).fit(split.train)
    stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (split.train, None, split.groups))
    assert stage.log_likelihood(split.test) > one.log_likelihood(split.test) - 0.002
    if name == "sushi2500":
        assert choice.chosen != "one"
