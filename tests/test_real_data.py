"""Real comparisons, in the folder MICROPREF_DATA: reversing preferences (dsp), votes of many workers (ukpconvarg1)."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from micropref import ContextRouter, MixtureBradleyTerry, PairScaler, make_pairs

pytestmark = pytest.mark.data


def folder(name: str) -> Path:
    return Path(os.environ["MICROPREF_DATA"]) / name


def read_lines(path: Path) -> list:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def dsp() -> dict:
    """One split by query: differences scaled by PairScaler, contexts, annotators who answer five pairs each."""
    texts, pairs = read_lines(folder("dsp") / "texts.jsonl.gz"), read_lines(folder("dsp") / "pairs.jsonl.gz")
    vectors = np.load(folder("dsp") / "embeddings.npy").astype(np.float32)
    row = {text: i for i, text in enumerate(texts)}
    part = {key: vectors[[row[pair[key]] for pair in pairs]] for key in ("prompt", "context", "chosen", "rejected")}
    context = np.hstack([part["prompt"], part["context"]])
    label, query = np.array([pair["context"] for pair in pairs]), np.array([pair["query_id"] for pair in pairs])
    random = np.random.default_rng(0)
    test = np.isin(query, random.permutation(np.unique(query))[:200])
    groups = np.full(len(label), -1)
    for name in np.unique(label):
        rows = random.permutation(np.flatnonzero(~test & (label == name)))
        groups[rows] = groups.max() + 1 + np.arange(len(rows)) // 5
    raw = make_pairs(part["chosen"], part["rejected"], context=context)
    X = PairScaler(context.shape[1]).fit(raw[~test]).transform(raw)
    return {"X": X, "D": X[:, context.shape[1] :], "label": label, "test": test, "groups": groups, "random": random}


def best_head(coef: np.ndarray, dsp: dict) -> float:
    """Mean over contexts of the accuracy of the head that suits the context best."""
    right = dsp["D"][dsp["test"]] @ coef.T > 0
    label = dsp["label"][dsp["test"]]
    return float(np.mean([right[label == name].mean(axis=0).max() for name in np.unique(label)]))


@pytest.fixture(scope="module")
def heads(dsp: dict) -> MixtureBradleyTerry:
    train = ~dsp["test"]
    return MixtureBradleyTerry(n_components=4, random_state=0).fit(dsp["D"][train], groups=dsp["groups"][train])


def test_annotators_reveal_the_hidden_criteria(dsp: dict, heads: MixtureBradleyTerry) -> None:
    alone = MixtureBradleyTerry(n_components=4, n_init=1, random_state=0).fit(dsp["D"][~dsp["test"]])
    assert best_head(heads.coef_, dsp) >= 0.72
    assert best_head(heads.coef_, dsp) >= best_head(alone.coef_, dsp) + 0.04


def test_stream_that_cuts_annotators_ends_near_the_full_fit(dsp: dict, heads: MixtureBradleyTerry) -> None:
    rows, random = np.flatnonzero(~dsp["test"]), np.random.default_rng(0)
    found = []
    for seed in range(3):
        stream = MixtureBradleyTerry(n_components=4, random_state=seed)
        for _ in range(20):
            for batch in np.array_split(random.permutation(rows), len(rows) // 500):
                stream.partial_fit(dsp["D"][batch], groups=dsp["groups"][batch])
        found.append(best_head(stream.coef_, dsp))
    assert np.mean(found) >= best_head(heads.coef_, dsp) - 0.02


@pytest.mark.parametrize(("gate", "labels", "floor"), [("linear", 50, 0.71), ("knn", 50, 0.71), ("knn", 5, 0.66)])
def test_a_few_labels_route(dsp: dict, heads: MixtureBradleyTerry, gate: str, labels: int, floor: float) -> None:
    random, label, test = np.random.default_rng(1), dsp["label"], dsp["test"]
    rows = np.concatenate(
        [random.choice(np.flatnonzero(~test & (label == name)), labels, replace=False) for name in np.unique(label)]
    )
    router = ContextRouter(heads, gate=gate).fit(dsp["X"][rows])
    assert router.score(dsp["X"][test], None) >= floor


@pytest.mark.parametrize("labels", [2, 5, 20])
def test_criteria_that_repeat_are_as_good_as_known_ones(dsp: dict, heads: MixtureBradleyTerry, labels: int) -> None:
    """The criterion in its many wordings is twice as long as the prompt; a user's history knows which one it is."""
    random, label, test = np.random.default_rng(2), dsp["label"], dsp["test"]
    width = (dsp["X"].shape[1] - dsp["D"].shape[1]) // 2
    X = dsp["X"].copy()
    X[:, width : 2 * width] *= 2
    gaps = []
    for _ in range(4):
        rows = np.concatenate(
            [random.choice(np.flatnonzero(~test & (label == name)), labels, replace=False) for name in np.unique(label)]
        )
        router = ContextRouter(heads, gate="cluster").fit(X[rows])
        assert router.clusters_ is not None
        known = ContextRouter(heads, history_temperature=1.0).partial_fit(dsp["D"][rows], groups=label[rows])
        odds = known.decision_function(dsp["D"][test], groups=label[test])
        gaps.append(np.logaddexp(0, -router.decision_function(X[test])).mean() - np.logaddexp(0, -odds).mean())
    assert np.mean(gaps) < 0.006


def test_a_workers_own_votes_help() -> None:
    texts = read_lines(folder("ukpconvarg1") / "texts.jsonl.gz")
    vectors = np.load(folder("ukpconvarg1") / "embeddings.npy").astype(np.float32) * 5
    features = np.hstack([vectors, np.log1p([len(text) for text in texts])[:, None]]).astype(np.float32)
    with gzip.open(folder("ukpconvarg1") / "votes.csv.gz", "rt", encoding="utf-8") as file:
        votes = list(csv.DictReader(file))
    X = make_pairs(*(features[[int(vote[key]) for vote in votes]] for key in ("chosen", "rejected")))
    worker = np.unique([vote["worker"] for vote in votes], return_inverse=True)[1]
    pair = np.unique([vote["pair"] for vote in votes], return_inverse=True)[1]
    test = np.isin(pair, np.random.default_rng(0).permutation(pair.max() + 1)[: pair.max() // 5])
    probe = test & (np.bincount(worker)[worker] >= 30)
    single = MixtureBradleyTerry(n_components=1).fit(X[~test])
    heads = MixtureBradleyTerry(n_components=2, n_init=1, random_state=0).fit(X[~test], groups=worker[~test])
    router = ContextRouter(heads).partial_fit(X[~test], groups=worker[~test])
    gained = router.log_likelihood(X[probe], groups=worker[probe]) - single.log_likelihood(X[probe])
    assert gained >= 0.003
