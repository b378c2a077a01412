"""Killed hundreds of times at work: stores of vectors and folders of models, the figures of docs/reliability.md."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from stranger_cases import MAKE
from test_any_order import ESTIMATORS, N_SEQUENCES
from test_cli_endings import N_INTERRUPTS
from test_store import Counting, expected
from test_store_promises import N_COMPACTIONS, N_OTHER_BYTES
from test_strangers import EACH, SLOW_SEEDS

from micropref import MixtureBradleyTerry, load, save
from micropref.embed import EmbeddingStore

N_KILLS = {"store": 220, "model": 120}
N_SAVES = 200
ROOT = Path(__file__).parents[1]


def killed_at_work(work, seconds: float) -> bool:
    """Kill a process that repeats some work, so long after it began; False if it failed before."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, b"x")
            while True:
                work()
        finally:
            os._exit(1)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def models():
    """Models that differ."""
    D = np.random.default_rng(0).normal(size=(40, 3))
    return [MixtureBradleyTerry(2, n_init=1, random_state=seed).fit(D * (seed + 1)) for seed in range(4)]


def which(model, models) -> int:
    """The number of the model that another one is, to the last bit."""
    (found,) = [i for i, one in enumerate(models) if one.coef_.tobytes() == model.coef_.tobytes()]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_a_store_that_is_killed_loses_nothing(tmp_path):
    path, draw = tmp_path / "store", random.Random(0)
    texts = [f"text {i}" for i in range(2000)]
    truth = expected(texts)
    steps = iter(range(10**9))

    def work():
        start = 37 * next(steps) % len(texts)
        with EmbeddingStore(path, Counting(), shard_size=16, progress=False) as store:
            store.add(texts[start : start + 100])
            if start % 5 == 0:
                store.compact()

    n_kept = 0
    for kill in range(N_KILLS["store"]):
        for _ in range(draw.randrange(40)):
            next(steps)
        assert killed_at_work(work, draw.uniform(0.0, 0.1))
        with EmbeddingStore(path, Counting()) as store:
            absent = set(store.missing(texts))
            there = [i for i, text in enumerate(texts) if text not in absent]
            np.testing.assert_array_equal(store.lookup([texts[i] for i in there]), truth[there])
            assert len(there) == len(store) >= n_kept  # what was there is there
            n_kept = len(there)
            if kill % 20 == 0:
                assert store.verify() == []
    assert n_kept > 300
    with EmbeddingStore(path, Counting()) as store:
        np.testing.assert_array_equal(store.encode(texts), truth)
        assert len(store.encoder.asked) == len(texts) - n_kept
        assert (store.verify(), store.info()["n_damaged"]) == ([], 0)
    assert not list(path.glob("*.tmp"))


@pytest.mark.slow
def test_a_model_whose_saves_are_killed_is_there(tmp_path, models):
    path, draw = tmp_path / "model", random.Random(0)
    save(models[0], path)
    steps, seen = iter(range(10**9)), Counter()
    for _ in range(N_KILLS["model"]):
        next(steps)
        assert killed_at_work(lambda: save(models[next(steps) % len(models)], path), draw.uniform(0.0, 0.03))
        seen[which(load(path), models)] += 1
    assert len(seen) == len(models)  # the kills hit saves, and not only what is around them
    save(models[1], path)
    assert which(load(path), models) == 1
    assert len(list(path.iterdir())) == 2


@pytest.mark.slow
def test_two_hundred_saves_at_once(tmp_path, models):
    path, children = tmp_path / "model", []
    for i in range(N_SAVES):
        child = os.fork()
        if not child:
            code = 1
            try:
                save(models[i % len(models)], path)
                which(load(path), models)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert Counter(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == {0: N_SAVES}
    which(load(path), models)
    assert len(list(path.iterdir())) == 2


def test_the_page_names_tests_that_are_there():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"
    for file in re.findall(r"`(?:tests/)?(test_\w+\.py)", page):
        assert (ROOT / "tests" / file).exists(), file


def test_the_page_has_the_figures_of_the_tests():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for figure, found in {
        r"(\d+) kills at random times; kills at each system call": N_KILLS["store"],
        r"(\d+) kills at random times \|": N_KILLS["model"],
        r"one of their models is complete \| (\d+) processes": N_SAVES,
        r"nothing is lost \| (\d+) processes": N_COMPACTIONS,
        r"(\d+) alterations of each": EACH,
        r"of (\d+) kinds of models in every run": len(MAKE),
        r"([\d ]+) of each in the slow one": len(SLOW_SEEDS),
        r"(\d+) sequences for each of": N_SEQUENCES["every run"],
        r"sequences for each of (\d+) estimators": len(ESTIMATORS),
        r"in every run, (\d+) in the slow one": N_SEQUENCES["slow"],
        r"(\d+) times, from the first import on": N_INTERRUPTS,
        r"([\d ]+) random bytes of the other pages": 4 * N_OTHER_BYTES,
    }.items():
        (named,) = re.findall(figure, page)
        assert int(named.replace(" ", "")) == found, figure
    assert sum(N_KILLS.values()) >= 300
