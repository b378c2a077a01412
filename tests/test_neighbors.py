"""The gate without parameters: which labelled contexts are near, what they vote for, with faiss and without."""

from __future__ import annotations

import copy
import importlib.util
import math
import os
import pickle
import signal
import threading
import time
from itertools import pairwise
from typing import NamedTuple

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import micropref._users.nearest
import micropref._users.neighbors
from micropref._support.locks import Lock, inherited
from micropref._users.nearest import PointSet
from micropref._users.neighbors import NeighborGate


class Pairs(NamedTuple):
    """Labelled pairs as `NeighborGate.add` takes them."""

    contexts: np.ndarray
    evidence: np.ndarray
    weight: np.ndarray

    def __getitem__(self, rows) -> Pairs:
        return Pairs(self.contexts[rows], self.evidence[:, rows], self.weight[rows])


def random_pairs(n: int, width: int = 3, n_components: int = 2, seed: int = 0) -> Pairs:
    """Distinct contexts, and weights that differ."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(n, width)).astype(np.float32)
    assert contexts.size < 2 or contexts.std() > 0
    return Pairs(contexts, -rng.exponential(size=(n_components, n)), rng.uniform(0.2, 2, size=n))


def repeating_pairs(n: int, seed: int) -> tuple[Pairs, np.ndarray]:
    """Contexts on a small grid, so that many are equal and more equally far, with weights of which some are whole."""
    rng = np.random.default_rng(seed)
    width, n_components = rng.integers(1, 4, size=2)
    contexts = rng.integers(-1, 2, size=(n, width)) / 3
    weight = rng.choice([0.5, 1.0, 2.0, 3.0], size=n)
    queries = np.concatenate([contexts[:2], rng.integers(-4, 5, size=(5, width)) / 6, rng.normal(size=(2, width))])
    return Pairs(contexts, -rng.exponential(size=(n_components, n)), weight), queries


def gate_of(*parts: Pairs, n_neighbors: int | None = None) -> NeighborGate:
    gate = NeighborGate(parts[0].contexts.shape[1], len(parts[0].evidence), n_neighbors)
    for part in parts:
        gate.add(*part)
    return gate


def filled(n: int, n_neighbors: int | None = None, *, scale: float = 1.0, **shape) -> NeighborGate:
    pairs = random_pairs(n, **shape)
    return gate_of(pairs._replace(contexts=pairs.contexts * np.float32(scale)), n_neighbors=n_neighbors)


def prior_of(n_queries: int, n_components: int = 2) -> np.ndarray:
    rng = np.random.default_rng(99)
    logits = rng.normal(size=(n_components, n_queries))
    return logits - np.log(np.exp(logits).sum(axis=0))


def answer(gate: NeighborGate, queries: np.ndarray) -> np.ndarray:
    return gate.log_weights(queries, prior_of(len(queries), gate.export()["evidence"].shape[1]))


def by_loops(pairs: Pairs, queries, log_prior, count):
    """f after ten steps of Hedge from the prior, whose weights count as one more neighbour."""
    contexts, evidence, weight = pairs
    result = []
    for query, start in zip(np.asarray(queries, dtype=np.float32).astype(float), log_prior.T, strict=True):
        squares = [math.fsum((a - b) ** 2 for a, b in zip(query, c.astype(float), strict=True)) for c in contexts]
        counted, left = {}, count
        for distance in sorted(set(squares)):
            tied = [j for j, square in enumerate(squares) if square == distance]
            mass = sum(weight[j] for j in tied)
            counted.update({j: weight[j] * min(1.0, left / mass) for j in tied})
            left -= mass
            if left <= 0:
                break
        prior = [math.exp(value) for value in start]
        weights = prior
        for _ in range(10):
            votes = list(prior)
            for j, mass in counted.items():
                joint = [w * math.exp(e) for w, e in zip(weights, evidence[:, j], strict=True)]
                votes = [v + mass * each / sum(joint) for v, each in zip(votes, joint, strict=True)]
            weights = [v / sum(votes) for v in votes]
        result.append([math.log(w) for w in weights])
    return np.array(result).T


@pytest.fixture
def faiss_from_50(monkeypatch):
    monkeypatch.setattr(micropref._users.nearest, "_FAISS_ROWS", 50)


# --------------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("n_components", [1, 2, 4])
@pytest.mark.parametrize("n_neighbors", [1, 4, None, 500])
@pytest.mark.parametrize("unit_weights", [True, False])
def test_weights_are_those_of_the_nearest(n_neighbors, n_components, unit_weights):
    pairs = random_pairs(60, n_components=n_components)
    if unit_weights:
        pairs = pairs._replace(weight=np.ones(60))
    queries = random_pairs(11, seed=1).contexts
    prior = prior_of(11, n_components)
    count = max(5, math.isqrt(int(pairs.weight.sum()))) if n_neighbors is None else n_neighbors
    assert count in (n_neighbors, 7, 8)
    found = gate_of(pairs, n_neighbors=n_neighbors).log_weights(queries, prior)
    np.testing.assert_allclose(found, by_loops(pairs, queries, prior, count), atol=1e-9)


@given(n=st.integers(1, 40), seed=st.integers(0, 1000), n_neighbors=st.sampled_from([1, 2, 7, 30]))
def test_contexts_that_repeat_share_what_counts(n, seed, n_neighbors):
    pairs, queries = repeating_pairs(n, seed)
    pairs = pairs._replace(contexts=np.round(3 * pairs.contexts).astype(np.float32))  # distances of integers are exact
    queries = np.round(6 * queries) / 2
    prior = prior_of(len(queries), len(pairs.evidence))
    found = gate_of(pairs, n_neighbors=n_neighbors).log_weights(queries, prior)
    np.testing.assert_allclose(found, by_loops(pairs, queries, prior, n_neighbors), atol=1e-9)


def test_few_labels_use_at_least_five_neighbours():
    pairs = random_pairs(9)
    expected = by_loops(pairs, pairs.contexts, prior_of(9), 5)
    np.testing.assert_allclose(answer(gate_of(pairs), pairs.contexts), expected, atol=1e-9)


def test_the_root_of_the_total_weight_does_not_depend_on_rounding():
    pairs = random_pairs(120)
    thirds = pairs._replace(weight=np.tile([1 / 3, 1 / 5, 7 / 15], 40))  # 40, of which the root is above 6
    tenths = pairs._replace(weight=np.full(120, 0.3))  # 36, but for rounding
    assert thirds.weight.sum() != 40 or tenths.weight.sum() != 36
    queries = random_pairs(6, seed=2).contexts
    for each in (thirds, tenths):
        expected = by_loops(each, queries, prior_of(6), 6)
        np.testing.assert_allclose(answer(gate_of(each), queries), expected, atol=1e-9)


def test_nothing_remembered_gives_the_prior():
    prior = prior_of(4)
    np.testing.assert_array_equal(NeighborGate(3, 2, None).log_weights(np.zeros((4, 3)), prior), prior)


# ------------------------------------------------------------------------------------------- what must not matter

neighbors = st.sampled_from([None, 1, 3, 10])
seeds = st.integers(0, 10**6)


@pytest.fixture(params=[10**9, 1], ids=["numpy", "faiss"])
def proposer(request, monkeypatch):
    monkeypatch.setattr(micropref._users.nearest, "_FAISS_ROWS", request.param)


@pytest.mark.usefixtures("proposer")
class TestInvariance:
    """Each for contexts that repeat and for distinct ones, since the float distances of the latter are never equal."""

    @staticmethod
    def example(n: int, seed: int) -> tuple[Pairs, np.ndarray]:
        if seed % 3:
            return repeating_pairs(n, seed)
        return random_pairs(n, seed=seed), random_pairs(6, seed=seed + 1).contexts

    @settings(max_examples=80)
    @given(n=st.integers(1, 150), seed=seeds, n_neighbors=neighbors)
    def test_order_of_rows(self, n, seed, n_neighbors):
        pairs, queries = self.example(n, seed)
        order = np.random.default_rng(seed).permutation(n)
        gates = (gate_of(pairs[rows], n_neighbors=n_neighbors) for rows in (slice(None), order))
        first, second = (answer(gate, queries) for gate in gates)
        np.testing.assert_allclose(second, first, atol=1e-9)

    @settings(max_examples=80)
    @given(n=st.integers(1, 60), seed=seeds, n_neighbors=neighbors)
    def test_a_weight_is_a_number_of_rows(self, n, seed, n_neighbors):
        pairs, queries = self.example(n, seed)
        times = np.random.default_rng(seed).integers(1, 5, size=n)
        weighted = gate_of(pairs._replace(weight=times.astype(float)), n_neighbors=n_neighbors)
        repeated = gate_of(pairs._replace(weight=np.ones(n))[np.repeat(np.arange(n), times)], n_neighbors=n_neighbors)
        np.testing.assert_allclose(answer(weighted, queries), answer(repeated, queries), atol=1e-9)

    @given(n=st.integers(2, 60), seed=seeds, n_neighbors=neighbors)
    def test_a_weight_of_zero_is_no_row(self, n, seed, n_neighbors):
        pairs, queries = self.example(n, seed)
        pairs.weight[np.random.default_rng(seed).random(n) < 0.4] = 0.0
        pairs.weight[0] = 1.0
        with_zeros = gate_of(pairs, n_neighbors=n_neighbors)
        without = gate_of(pairs[pairs.weight > 0], n_neighbors=n_neighbors)
        assert with_zeros.size == without.size
        np.testing.assert_array_equal(answer(with_zeros, queries), answer(without, queries))

    @given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), seed=seeds, n_neighbors=neighbors)
    def test_pieces_equal_the_whole(self, sizes, seed, n_neighbors):
        pairs, queries = self.example(sum(sizes) + 1, seed)
        edges = np.cumsum([0, *sizes, 1])
        pieces = [pairs[slice(a, b)] for a, b in pairwise(edges)]
        gate = gate_of(*pieces, n_neighbors=n_neighbors)
        assert gate.size == len(pairs.contexts)
        np.testing.assert_allclose(
            answer(gate, queries), answer(gate_of(pairs, n_neighbors=n_neighbors), queries), atol=1e-9
        )

    @given(n=st.integers(2, 60), seed=seeds, n_neighbors=neighbors)
    def test_asking_between_two_pieces_changes_nothing(self, n, seed, n_neighbors):
        pairs, queries = self.example(n, seed)
        gate = gate_of(pairs[: n // 2], n_neighbors=n_neighbors)
        answer(gate, queries)
        gate.add(*pairs[n // 2 :])
        expected = answer(gate_of(pairs[: n // 2], pairs[n // 2 :], n_neighbors=n_neighbors), queries)
        np.testing.assert_array_equal(answer(gate, queries), expected)

    @given(n=st.integers(1, 100), seed=seeds, n_neighbors=neighbors)
    def test_queries_in_blocks_or_one_at_a_time(self, n, seed, n_neighbors):
        pairs, queries = self.example(n, seed)
        gate, prior = gate_of(pairs, n_neighbors=n_neighbors), prior_of(len(queries), len(pairs.evidence))
        whole = gate.log_weights(queries, prior)
        one = [gate.log_weights(queries[[i]], prior[:, [i]]) for i in range(len(queries))]
        np.testing.assert_allclose(np.hstack(one), whole, atol=1e-12)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(micropref._users.neighbors, "_BLOCK_PAIRS", 7)
            patch.setattr(micropref._users.nearest, "_PROPOSAL_ENTRIES", 2 * n)
            patch.setattr(micropref._users.nearest, "_EXACT_ROWS", 3)
            np.testing.assert_allclose(gate.log_weights(queries, prior), whole, atol=1e-12)

    @given(n=st.integers(1, 60), seed=seeds, power=st.integers(-140, 120))
    def test_units_of_the_context(self, n, seed, power):
        """Powers of two, so that even float32 contexts are the same numbers in other units."""
        pairs, queries = self.example(n, seed)
        pairs, queries = pairs._replace(contexts=np.float32(pairs.contexts).astype(float)), np.float32(queries)
        other = gate_of(pairs._replace(contexts=np.ldexp(pairs.contexts, power)))
        found = answer(other, np.ldexp(queries.astype(float), power))
        np.testing.assert_allclose(found, answer(gate_of(pairs), queries), atol=1e-9)

    @pytest.mark.parametrize("powers", [(0, 100), (100, 0), (-900, 900), (-1074, 0), (0, -1074)])
    def test_later_contexts_of_another_size(self, powers):
        small, large = sorted(powers)
        pairs, queries = random_pairs(60, width=2), random_pairs(8, width=2, seed=3).contexts.astype(float)
        parts = [pairs._replace(contexts=np.ldexp(pairs.contexts.astype(float), p)) for p in powers]
        whole = Pairs(
            *(np.concatenate(each, axis=-1 if i == 1 else 0) for i, each in enumerate(zip(*parts, strict=True)))
        )
        for power in (small, large, 1000):
            asked = np.ldexp(queries, power)
            found = answer(gate_of(*parts), asked)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, answer(gate_of(whole), asked), atol=1e-9)


@settings(max_examples=80)
@given(n=st.integers(1, 200), seed=seeds, n_neighbors=neighbors, spread=st.sampled_from([1.0, 1e-3, 1e-7]))
def test_faiss_and_numpy_give_the_same(n, seed, n_neighbors, spread):
    """Also where contexts are so close together that in single precision all distances seem equal."""
    pairs = random_pairs(n, width=8, seed=seed)
    pairs = pairs._replace(contexts=1 + spread * pairs.contexts)
    queries = (1 + spread * random_pairs(5, width=8, seed=seed + 1).contexts).astype(np.float32)
    found = []
    for rows in (1, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(micropref._users.nearest, "_FAISS_ROWS", rows)
            gate = gate_of(pairs, n_neighbors=n_neighbors)
            assert (gate._points._index is not None) == (rows == 1)
            found.append(answer(gate, queries))
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)
    count = n_neighbors or max(5, math.isqrt(int(pairs.weight.sum())))
    if spread >= 1e-3:  # below, the oracle's own distances tie
        expected = by_loops(pairs._replace(contexts=np.float32(pairs.contexts)), queries, prior_of(5), count)
        np.testing.assert_allclose(found[0], expected, atol=1e-9)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 33, 384, 1000])
def test_a_distance_does_not_depend_on_its_position(width):
    rng = np.random.default_rng(width)
    point, query = rng.normal(size=width).astype(np.float32), rng.normal(size=width)
    points = PointSet(width)
    points.add(rng.normal(size=(300, width)).astype(np.float32))
    last = points.add(point[None])
    alone = points._squared_distances(last, query)
    for n in (1, 2, 3, 64, 255, 299):
        for at in (0, n // 2, n):
            ids = np.insert(np.arange(n), at, last)
            assert points._squared_distances(ids, query)[at] == alone[0]


def test_equal_contexts_are_stored_once():
    gate = gate_of(*(random_pairs(20) for _ in range(3)))
    gate.add(np.array([[0.0, -0.0, 1.0], [-0.0, 0.0, 1.0]]), -np.ones((2, 2)), np.ones(2))
    assert (gate.size, gate._points.size) == (62, 21)
    assert gate.export()["contexts"].shape == (62, 3)


def test_skewed_weights_need_more_proposals_than_a_guess():
    """All contexts are light but one that is far away, so that a guess from the mean weight proposes too few."""
    pairs = random_pairs(400)
    weight = np.full(400, 1e-3)
    weight[0], pairs.contexts[0] = 1e4, 50.0
    pairs = pairs._replace(weight=weight)
    queries = random_pairs(7, seed=5).contexts
    expected = by_loops(pairs, queries, prior_of(7), 5)
    np.testing.assert_allclose(answer(gate_of(pairs, n_neighbors=5), queries), expected, atol=1e-9)


# -------------------------------------------------------------------------------------------------------------- faiss


@pytest.mark.usefixtures("faiss_from_50")
def test_faiss_index_grows_with_the_memory():
    pairs = random_pairs(90)
    gate = NeighborGate(3, 2, 6)
    for rows in (slice(0, 40), slice(40, 60), slice(60, 90)):
        gate.add(*pairs[rows])
        assert (gate._points._index is None) == (gate.size < 50)
    assert gate._points._index.ntotal == 90
    queries = random_pairs(10, seed=6).contexts
    np.testing.assert_allclose(answer(gate, queries), by_loops(pairs, queries, prior_of(10), 6), atol=1e-9)


@pytest.mark.usefixtures("faiss_from_50")
def test_without_faiss_large_memories_still_work(monkeypatch):
    with_faiss = filled(80, 6)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    gate = filled(80, 6)
    assert gate._points._index is None
    queries = random_pairs(5, seed=7).contexts
    np.testing.assert_array_equal(answer(gate, queries), answer(with_faiss, queries))


def in_child(work) -> int | None:
    """Exit status of a forked child that ran `work`; None if it had to be killed after 20 seconds."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.usefixtures("faiss_from_50")
@pytest.mark.parametrize("work", ["search", "search of a copy", "add"])
def test_a_child_forked_after_a_search_gives_the_same(work):
    """OpenMP's threads do not survive a fork, and a search with faiss in the child would wait for them for ever."""
    faiss = pytest.importorskip("faiss")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(4)
    try:
        gate = filled(20_000, 6, width=8)
        queries = random_pairs(2000, width=8, seed=5).contexts
        more = random_pairs(5, width=8, seed=6)
        expected = answer(gate, queries)
        assert gate._points._index is not None
        grown = copy.deepcopy(gate)
        grown.add(*more)

        def child() -> None:
            assert inherited("faiss")
            if work == "add":
                gate.add(*more)
                np.testing.assert_array_equal(answer(gate, queries), answer(grown, queries))
                return
            asked = gate if work == "search" else pickle.loads(pickle.dumps(gate))
            assert asked is gate or asked._points._index is None
            np.testing.assert_array_equal(answer(asked, queries), expected)

        assert in_child(child) == 0
        assert not inherited("faiss")
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_lock_held_at_a_fork_is_open_in_the_child():
    lock = Lock()

    def child() -> None:
        with lock, copy.deepcopy(lock), pickle.loads(pickle.dumps(lock)):
            pass

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(child) == 0
    finally:
        done.set()
        thread.join()


# ------------------------------------------------------------------------------------------------------ extreme inputs


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e20])
def test_float32_contexts_of_any_size(scale):
    queries, prior = random_pairs(20, seed=8).contexts, prior_of(20)
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


def test_a_component_below_the_range_of_doubles_comes_back():
    """From e^-1000 in ten steps, each of which multiplies it by at most e^150: in linear space it would stay zero."""
    gate = NeighborGate(1, 2, 5)
    gate.add(np.zeros((5, 1)), np.array([[-150.0] * 5, [0.0] * 5]), np.ones(5))
    found = gate.log_weights(np.zeros((1, 1)), np.array([[0.0], [-1000.0]]))
    assert found[1, 0] > np.log(0.8)


def test_contexts_without_columns_are_all_the_same():
    gate = NeighborGate(0, 2, 4)
    gate.add(np.empty((6, 0)), -np.vstack([np.zeros(6), np.full(6, 3.0)]), np.ones(6))
    found = np.exp(gate.log_weights(np.empty((2, 0)), np.log(np.full((2, 2), 0.5))))
    assert found[0].min() > 0.8
    np.testing.assert_allclose(found.sum(axis=0), 1)


# -------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("faiss", [False, True])
def test_pickle_and_export_keep_everything_but_the_spare_room(monkeypatch, faiss):
    if faiss:
        monkeypatch.setattr(micropref._users.nearest, "_FAISS_ROWS", 50)
    gate = filled(60, 6, scale=1e20)
    gate.add(*random_pairs(3, seed=4))
    assert len(gate._evidence) == 120
    again = pickle.loads(pickle.dumps(gate))
    restored = NeighborGate(3, 2, 6)
    restored.restore(gate.export())
    exported = gate.export()
    assert exported["contexts"].dtype == np.float32
    np.testing.assert_array_equal(exported["contexts"][:60], random_pairs(60).contexts * np.float32(1e20))
    np.testing.assert_array_equal(exported["evidence"][60:], random_pairs(3, seed=4).evidence.T)
    np.testing.assert_array_equal(exported["weight"][60:], random_pairs(3, seed=4).weight)
    queries = random_pairs(20, seed=9).contexts * np.float32(1e20)
    for other in (again, restored):
        assert other.size == 63
        assert (other._points._index is not None) == faiss
        np.testing.assert_array_equal(answer(other, queries), answer(gate, queries))
        other.add(*random_pairs(40, seed=10))
        assert other.size == 103
        assert not faiss or other._points._index.ntotal == 103
    assert gate.size == 63
    assert len(again._evidence) <= 126


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_contexts_outside_of_single_precision_are_exported_in_double(scale):
    pairs = random_pairs(30)
    contexts = pairs.contexts.astype(float) * scale
    gate = gate_of(pairs._replace(contexts=contexts))
    again = NeighborGate(3, 2, None)
    again.restore(gate.export())
    queries = random_pairs(6, seed=1).contexts.astype(float) * scale
    np.testing.assert_array_equal(answer(again, queries), answer(gate, queries))
    np.testing.assert_allclose(gate.export()["contexts"], contexts, rtol=1e-6)


def test_a_gate_read_from_a_file_that_must_not_change_learns_on(tmp_path):
    shape = {"width": 16, "n_components": 8}
    gate = filled(20_000, 6, **shape)
    joblib.dump(gate, tmp_path / "gate")
    mapped = joblib.load(tmp_path / "gate", mmap_mode="r")
    assert not mapped._evidence.flags.writeable
    assert not mapped._points.points.flags.writeable
    for each in (gate, mapped):
        for more in (random_pairs(0, **shape), random_pairs(20_000, **shape)[:2], random_pairs(3, seed=1, **shape)):
            each.add(*more)
    queries = random_pairs(5, seed=3, width=16).contexts
    np.testing.assert_array_equal(answer(mapped, queries), answer(gate, queries))
    assert (mapped.size, mapped._points.size) == (20_005, 20_003)
