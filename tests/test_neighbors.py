"""The gate without parameters: nearest labelled contexts, what they vote for, with faiss and without, at any scale."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import micropref._users.neighbors
from micropref._users.neighbors import NeighborGate


def random_pairs(n: int, width: int = 3, n_components: int = 2, seed: int = 0):
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(n, width)).astype(np.float32)
    evidence = -rng.exponential(size=(n_components, n))
    weight = rng.uniform(0.2, 2, size=n)
    assert len(np.unique(contexts)) == contexts.size
    return contexts, evidence, weight


def filled(n: int, n_neighbors: int | None = None, *, scale: float = 1.0, **shape) -> NeighborGate:
    contexts, evidence, weight = random_pairs(n, **shape)
    gate = NeighborGate(contexts.shape[1], len(evidence), n_neighbors)
    gate.add(contexts * np.float32(scale), evidence, weight)
    return gate


def prior_of(n_queries: int, n_components: int = 2) -> np.ndarray:
    rng = np.random.default_rng(99)
    logits = rng.normal(size=(n_components, n_queries))
    return logits - np.log(np.exp(logits).sum(axis=0))


def by_loops(contexts, evidence, weight, queries, log_prior, count):
    """f after ten steps of Hedge from the prior, whose weights count as one more neighbour."""
    result = []
    for query, start in zip(queries, log_prior.T, strict=True):
        distance = [math.dist(query, context) for context in contexts]
        near = sorted(range(len(contexts)), key=distance.__getitem__)[:count]
        prior = [math.exp(value) for value in start]
        weights = prior
        for _ in range(10):
            votes = list(prior)
            for j in near:
                joint = [w * math.exp(e) for w, e in zip(weights, evidence[:, j], strict=True)]
                votes = [v + weight[j] * each / sum(joint) for v, each in zip(votes, joint, strict=True)]
            weights = [v / sum(votes) for v in votes]
        result.append([math.log(w) for w in weights])
    return np.array(result).T


@pytest.mark.parametrize("n_components", [1, 2, 4])
@pytest.mark.parametrize("n_neighbors", [1, 4, None, 500])
def test_weights_are_those_of_the_nearest(n_neighbors, n_components):
    contexts, evidence, weight = random_pairs(60, n_components=n_components)
    gate = NeighborGate(3, n_components, n_neighbors)
    gate.add(contexts, evidence, weight)
    queries = random_pairs(11, seed=1)[0]
    prior = prior_of(11, n_components)
    count = {None: 7, 500: 60}.get(n_neighbors, n_neighbors)  # 7² ≤ 60 < 8²
    expected = by_loops(contexts, evidence, weight, queries, prior, count)
    np.testing.assert_allclose(gate.log_weights(queries, prior), expected, atol=1e-9)


def test_few_labels_use_at_least_five_neighbours():
    contexts, evidence, weight = random_pairs(9)
    expected = by_loops(contexts, evidence, weight, contexts, prior_of(9), 5)
    np.testing.assert_allclose(filled(9).log_weights(contexts, prior_of(9)), expected, atol=1e-9)


def test_nothing_remembered_gives_the_prior():
    prior = prior_of(4)
    np.testing.assert_array_equal(NeighborGate(3, 2, None).log_weights(np.zeros((4, 3)), prior), prior)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_pieces_equal_the_whole(sizes):
    contexts, evidence, weight = random_pairs(sum(sizes))
    whole, pieces = (NeighborGate(3, 2, 4) for _ in range(2))
    whole.add(contexts, evidence, weight)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        pieces.add(contexts[rows], evidence[:, rows], weight[rows])
        start += size
    assert pieces.size == len(contexts)
    queries = random_pairs(5, seed=3)[0]
    np.testing.assert_allclose(
        pieces.log_weights(queries, prior_of(5)), whole.log_weights(queries, prior_of(5)), atol=1e-9
    )


def test_queries_in_blocks_equal_queries_at_once(monkeypatch):
    gate, queries, prior = filled(40), random_pairs(23, seed=5)[0], prior_of(23)
    whole = gate.log_weights(queries, prior)
    monkeypatch.setattr(micropref._users.neighbors, "_QUERY_ROWS", 4)
    np.testing.assert_allclose(gate.log_weights(queries, prior), whole, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_faiss_finds_the_same_neighbours(monkeypatch, scale):
    queries, prior = random_pairs(30, seed=5)[0] * np.float32(scale), prior_of(30)
    plain = filled(80, 6, scale=scale)
    assert plain._index is None
    monkeypatch.setattr(micropref._users.neighbors, "_FAISS_ROWS", 50)
    indexed = filled(80, 6, scale=scale)
    assert indexed._index.ntotal == 80
    np.testing.assert_allclose(indexed.log_weights(queries, prior), plain.log_weights(queries, prior), atol=1e-9)


def test_faiss_index_grows_with_the_memory(monkeypatch):
    monkeypatch.setattr(micropref._users.neighbors, "_FAISS_ROWS", 50)
    contexts, evidence, weight = random_pairs(90)
    gate = NeighborGate(3, 2, 6)
    for rows in (slice(0, 40), slice(40, 60), slice(60, 90)):
        gate.add(contexts[rows], evidence[:, rows], weight[rows])
        assert (gate._index is None) == (gate.size < 50)
    assert gate._index.ntotal == 90
    queries = random_pairs(10, seed=6)[0]
    expected = by_loops(contexts, evidence, weight, queries, prior_of(10), 6)
    np.testing.assert_allclose(gate.log_weights(queries, prior_of(10)), expected, atol=1e-9)


def test_without_faiss_large_memories_still_work(monkeypatch):
    monkeypatch.setattr(micropref._users.neighbors, "_FAISS_ROWS", 50)
    monkeypatch.setattr(micropref._users.neighbors.importlib.util, "find_spec", lambda name: None)
    gate = filled(80, 6)
    assert gate._index is None
    assert np.isfinite(gate.log_weights(random_pairs(5, seed=7)[0], prior_of(5))).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e20])
def test_units_of_the_context_do_not_matter(scale):
    queries, prior = random_pairs(20, seed=8)[0], prior_of(20)
    scaled = filled(60, scale=scale).log_weights(queries * np.float32(scale), prior)
    np.testing.assert_allclose(scaled, filled(60).log_weights(queries, prior), atol=1e-9)


def test_evidence_and_priors_of_any_size_stay_finite():
    gate = NeighborGate(1, 3, 5)
    gate.add(np.zeros((5, 1)), np.array([[-1e4] * 5, [-2e4] * 5, [0.0] * 5]), np.ones(5))
    prior = np.array([[-1000.0], [-2000.0], [np.log1p(-1e-10)]])
    found = gate.log_weights(np.zeros((1, 1)), prior)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(axis=0), 1)
    opposed = gate.log_weights(np.zeros((1, 1)), prior[[2, 1, 0]])  # five votes against a prior of e^-1000
    np.testing.assert_allclose(np.exp(opposed).sum(axis=0), 1)
    assert opposed[2, 0] > np.log(0.8)


def test_contexts_without_columns_are_all_the_same(monkeypatch):
    monkeypatch.setattr(micropref._users.neighbors, "_FAISS_ROWS", 5)
    gate = NeighborGate(0, 2, 4)
    gate.add(np.empty((6, 0)), -np.vstack([np.zeros(6), np.full(6, 3.0)]), np.ones(6))
    found = np.exp(gate.log_weights(np.empty((2, 0)), np.log(np.full((2, 2), 0.5))))
    assert found[0].min() > 0.8
    np.testing.assert_allclose(found.sum(axis=0), 1)


@pytest.mark.parametrize("faiss", [False, True])
def test_pickle_and_export_keep_everything_but_the_spare_room(monkeypatch, faiss):
    if faiss:
        monkeypatch.setattr(micropref._users.neighbors, "_FAISS_ROWS", 50)
    gate = filled(60, 6, scale=1e20)
    gate.add(*random_pairs(3, seed=4))
    assert len(gate._contexts) == 120
    again = pickle.loads(pickle.dumps(gate))
    restored = NeighborGate(3, 2, 6)
    restored.restore(gate.export())
    np.testing.assert_array_equal(gate.export()["contexts"][:60], random_pairs(60)[0] * np.float32(1e20))
    queries, prior = random_pairs(20, seed=9)[0] * np.float32(1e20), prior_of(20)
    for copy in (again, restored):
        assert copy.size == 63
        assert (copy._index is not None) == faiss
        np.testing.assert_array_equal(copy.log_weights(queries, prior), gate.log_weights(queries, prior))
        copy.add(*random_pairs(40, seed=10))
        assert copy.size == 103
        assert not faiss or copy._index.ntotal == 103
    assert len(again._contexts) <= 126
