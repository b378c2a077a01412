"""What a user's votes leave behind: the formula by loops, any batching, forgetting, many users, little memory."""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import sys
import threading
import tracemalloc
import types
from collections import defaultdict
from itertools import pairwise

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import micropref._users.evidence
from micropref._users.evidence import EvidenceTable
from micropref._users.history import UserHistory

K = 3


def random_votes(n: int, users, seed: int = 0):
    rng = np.random.default_rng(seed)
    who = [users[i] for i in rng.integers(len(users), size=n)]
    evidence = -rng.exponential(scale=2.0, size=(K, n))
    assert n < 2 or evidence.std() > 0
    return who, evidence


def votes_of(evidence) -> types.SimpleNamespace:
    """Votes of this evidence, which margins can only round."""
    return types.SimpleNamespace(evidence=evidence)


def feed(history: UserHistory, who, evidence, decay: float) -> None:
    """As the router does: distinct users, and positions among them."""
    distinct = list(dict.fromkeys(who))
    index = np.array([distinct.index(user) for user in who], dtype=np.int32)
    history.update(distinct, index, votes_of(evidence), decay)


def by_loops(who, evidence, decay: float) -> dict:
    """Σ decay^age e, up to what all heads have in common, which no weight depends on."""
    votes = defaultdict(list)
    for column, user in enumerate(who):
        votes[user].append(column)
    state = {}
    for user, columns in votes.items():
        total = [
            sum(decay ** (len(columns) - 1 - position) * evidence[k, column] for position, column in enumerate(columns))
            for k in range(len(evidence))
        ]
        state[user] = [value - max(total) for value in total]
    return state


def state_of(history: UserHistory, users) -> np.ndarray:
    return history.evidence(list(users), np.arange(len(users))).T


# ------------------------------------------------------------------------------------------------------------- history


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.3, 1e-3])
@pytest.mark.parametrize("users", [["ann"], [7, -3, 10**12], ["ann", 7, (1, "b"), None, 2.5]])
def test_state_is_the_formula(users, decay):
    who, evidence = random_votes(60, users)
    history = UserHistory(K)
    feed(history, who, evidence, decay)
    expected = by_loops(who, evidence, decay)
    assert len(history) == len(expected)
    np.testing.assert_allclose(state_of(history, expected), list(expected.values()), rtol=1e-6, atol=1e-6)


@given(
    cuts=st.lists(st.integers(0, 50), max_size=8),
    decay=st.sampled_from([1.0, 0.97, 0.5]),
    seed=st.integers(0, 1000),
)
def test_any_split_into_calls_gives_the_same_state(cuts, decay, seed):
    users = ["ann", "bob", 3]
    who, evidence = random_votes(50, users, seed)
    whole, pieces = UserHistory(K), UserHistory(K)
    feed(whole, who, evidence, decay)
    edges = [0, *sorted(cuts), 50]
    for start, end in pairwise(edges):
        feed(pieces, who[start:end], evidence[:, start:end], decay)
    np.testing.assert_allclose(state_of(pieces, users), state_of(whole, users), rtol=1e-5, atol=1e-5)


def test_one_vote_at_a_time_gives_the_same_state():
    who, evidence = random_votes(300, ["ann", "bob"])
    whole, single = UserHistory(K), UserHistory(K)
    feed(whole, who, evidence, 0.95)
    for column, user in enumerate(who):
        single.update([user], np.zeros(1, dtype=np.int32), votes_of(evidence[:, [column]]), 0.95)
    np.testing.assert_allclose(state_of(single, ["ann", "bob"]), state_of(whole, ["ann", "bob"]), rtol=1e-5, atol=1e-5)


def test_users_do_not_touch_each_other():
    history = UserHistory(K)
    feed(history, ["ann"] * 4, random_votes(4, ["ann"])[1], 0.5)
    before = state_of(history, ["ann"])
    feed(history, ["bob"] * 9, random_votes(9, ["bob"], seed=1)[1], 0.5)
    np.testing.assert_array_equal(state_of(history, ["ann"]), before)


def test_unknown_users_and_rows_without_one_have_no_evidence():
    history = UserHistory(K)
    feed(history, ["ann"] * 4, random_votes(4, ["ann"])[1], 1.0)
    np.testing.assert_array_equal(history.evidence(["bob"], np.array([0])), np.zeros((K, 1)))
    np.testing.assert_array_equal(history.evidence(["ann"], np.array([-1])), np.zeros((K, 1)))
    mixed = history.evidence(["bob", "ann"], np.array([1, -1, 0, 1]))
    assert (mixed[:, [0, 3]].min(axis=0) < 0).all()
    np.testing.assert_array_equal(mixed[:, [1, 2]], 0)
    assert len(history) == 1  # asking about a user does not create one


def test_a_user_listed_without_votes_keeps_what_was_known():
    history = UserHistory(K)
    feed(history, ["ann"] * 4, random_votes(4, ["ann"])[1], 0.5)
    before = state_of(history, ["ann"])
    history.update(["ann", "bob"], np.array([1]), votes_of(-np.ones((K, 1))), 0.5)
    np.testing.assert_array_equal(state_of(history, ["ann"]), before)


def test_five_thousand_votes_stay_exact_without_decay_and_bounded_with_it():
    evidence = np.log([[0.9], [0.1], [0.6]])
    history, forgetful = UserHistory(K), UserHistory(K)
    for _ in range(5000):
        history.update(["ann"], np.zeros(1, dtype=np.int32), votes_of(evidence), 1.0)
        forgetful.update(["ann"], np.zeros(1, dtype=np.int32), votes_of(evidence), 0.9)
    gaps = math.log(0.1 / 0.9), math.log(0.6 / 0.9)
    np.testing.assert_allclose(state_of(history, ["ann"])[0], [0, 5000 * gaps[0], 5000 * gaps[1]], rtol=1e-4)
    np.testing.assert_allclose(state_of(forgetful, ["ann"])[0], [0, 10 * gaps[0], 10 * gaps[1]], rtol=1e-5)
    feed(history, ["ann"] * 5000, np.repeat(evidence, 5000, axis=1), 0.9)  # 0.9^5000 is zero, and no warning
    np.testing.assert_allclose(state_of(history, ["ann"])[0], [0, 10 * gaps[0], 10 * gaps[1]], rtol=1e-5)


def test_export_and_restore_are_inverse():
    users = ["ann", 7, (1, "b")]
    history, again = UserHistory(K), UserHistory(K)
    feed(history, *random_votes(30, users), 0.9)
    again.restore(*history.export())
    np.testing.assert_array_equal(state_of(again, users), state_of(history, users))
    assert again.export()[0] == history.export()[0]


def test_a_million_integer_users_fit_in_200_megabytes():
    # A fifth of them; benchmarks/bench_memory.py counts them all.
    n_users, batch, n_components = 200_000, 20_000, 10
    rng = np.random.default_rng(0)
    evidence = -rng.random((n_components, batch))
    tracemalloc.start()
    try:
        history = UserHistory(n_components)
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, n_users, batch):
            users = (7 * np.arange(start, start + batch) + 10**9).tolist()
            history.update(users, np.arange(batch), votes_of(evidence), 0.9)
            del users
        state = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(history) == n_users
    assert 5 * state < 200e6
    assert 5 * state > 5 * n_users * n_components * 4  # measured at all
    np.testing.assert_allclose(
        state_of(history, [10**9, 10**9 + 7 * (n_users - 1)]),
        (evidence - evidence.max(axis=0)).T[[0, -1]],
        atol=1e-6,
    )


# -------------------------------------------------------------------------------------------- threads, children, copies


def vote(history: UserHistory, user, evidence) -> None:
    history.update([user], np.zeros(1, dtype=np.int32), votes_of(np.asarray(evidence)[:, None]), 1.0)


@pytest.fixture
def hasty_threads():
    """Threads that are interrupted between any two steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_every_vote_of_four_threads_is_counted():
    """Also where at the same time others ask, copy and pickle, and users appear."""
    history, errors = UserHistory(K), []

    def cast(thread: int) -> None:
        try:
            for i in range(1000):
                vote(history, "ann", [0.0, -1.0, -2.0])
                if i % 10 == 0:
                    vote(history, (thread, i), [0.0, -1.0, -2.0])
                    found = history.evidence(["ann"], np.zeros(1, dtype=int))[:, 0]
                    assert found[0] == 0
                    assert found[2] == 2 * found[1]
                if i % 100 == 0:
                    for other in (history.copy(), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
                        vote(other, "ann", [0.0, -1e6, 0.0])
        except Exception as error:  # a thread's error is not the test's
            errors.append(error)

    threads = [threading.Thread(target=cast, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    np.testing.assert_array_equal(state_of(history, ["ann"])[0], [0, -4000, -8000])
    assert len(history) == 401
    np.testing.assert_array_equal(state_of(history, [(3, 990)])[0], [0, -1, -2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_thread_votes_votes_too():
    history = UserHistory(K)
    vote(history, "ann", [0.0, -1.0, -2.0])
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with history._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that waits
            vote(history, "ann", [0.0, -1.0, -2.0])
            os._exit(0 if state_of(history, ["ann"])[0].tolist() == [0, -2, -4] else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(state_of(history, ["ann"])[0], [0, -1, -2])


@pytest.mark.parametrize("how", [UserHistory.copy, copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
@pytest.mark.parametrize("first", ["original", "copy"])
def test_a_copy_changes_on_its_own(how, first, monkeypatch):
    monkeypatch.setattr(micropref._users.evidence, "_MOST_CHUNK_ROWS", 2)
    users = ["ann", "bob", "cid", 4, 5]
    history = UserHistory(K)
    feed(history, *random_votes(30, users), 0.9)
    other = how(history)
    before = state_of(history, users)
    changed, kept = (history, other) if first == "original" else (other, history)
    for user in ("ann", "eve", 6, 7):
        vote(changed, user, [0.0, -1.0, -2.0])
    np.testing.assert_array_equal(state_of(kept, users), before)
    assert len(kept) == 5
    assert len(changed) == 8
    vote(kept, "eve", [0.0, -3.0, 0.0])
    np.testing.assert_array_equal(state_of(kept, ["eve", 6]), [[0, -3, 0], [0, 0, 0]])
    np.testing.assert_array_equal(state_of(changed, ["eve", 6]), [[0, -1, -2], [0, -1, -2]])
    np.testing.assert_array_equal(state_of(changed, users)[1:], before[1:])


def test_a_copy_of_many_users_takes_neither_time_nor_memory():
    users = list(range(300_000))
    history = UserHistory(K)
    history.restore(users, np.zeros((len(users), K)))
    tracemalloc.start()
    try:
        other = history.copy()
        vote(other, 7, [0.0, -1.0, -2.0])
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 1e6
    assert len(other) == 300_000


def test_an_update_that_is_refused_leaves_no_user_behind():
    history = UserHistory(K)
    with pytest.raises(TypeError, match="unhashable"):
        history.update(["ann", ["bob"]], np.array([0, 1]), votes_of(-np.ones((K, 2))), 1.0)
    with pytest.raises(ValueError, match="length"):
        history.update(["ann"], np.array([0]), votes_of(-np.ones((K, 2))), 1.0)
    assert len(history) == 0
    assert history.export()[1].shape == (0, K)


def test_a_history_read_from_a_file_that_must_not_change_takes_votes(tmp_path):
    users = list(range(200_000))
    history = UserHistory(K)
    history.restore(users, -np.random.default_rng(0).random((len(users), K)))
    joblib.dump(history, tmp_path / "history")
    mapped = joblib.load(tmp_path / "history", mmap_mode="r")
    for each in (history, mapped):
        vote(each, 7, [0.0, -1.0, -2.0])
        vote(each, -1, [0.0, -1.0, -2.0])
    np.testing.assert_array_equal(state_of(mapped, [-1, *users]), state_of(history, [-1, *users]))


def test_evidence_beyond_single_precision_is_the_largest():
    history = UserHistory(K)
    vote(history, "ann", [0.0, -1e60, -2.0])
    vote(history, "ann", [0.0, -1e60, -2.0])
    assert state_of(history, ["ann"])[0].tolist() == [0, float(np.finfo(np.float32).min), -4]


# --------------------------------------------------------------------------------------------------------------- table


@given(
    operations=st.lists(
        st.tuples(st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True), st.integers(0, 10**6)),
        max_size=12,
    )
)
def test_table_behaves_as_a_dictionary(operations):
    table, plain = EvidenceTable(2), {}
    original = micropref._users.evidence._MOST_CHUNK_ROWS
    micropref._users.evidence._MOST_CHUNK_ROWS = 5
    try:
        for keys, seed in operations:
            values = np.random.default_rng(seed).normal(size=(len(keys), 2)).astype(np.float32)
            table.set(table.rows(keys, insert=True), values)
            plain.update(zip(keys, values, strict=True))
        asked = list(range(-45, 46))
        expected = [plain.get(key, np.zeros(2)) for key in asked]
        np.testing.assert_array_equal(table.get(table.rows(asked)), expected)
        for key in asked[::7]:
            np.testing.assert_array_equal(table.get(table.rows([key]))[0], plain.get(key, np.zeros(2)))
        keys, values = table.export()
        assert keys == list(plain)
        np.testing.assert_array_equal(values, np.array(list(plain.values())).reshape(-1, 2))
        assert len(table) == len(plain)
        assert all((key in table) == (key in plain) for key in asked)
        for other in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
            np.testing.assert_array_equal(other.get(other.rows(asked)), expected)
            other.set(other.rows([999], insert=True), np.ones((1, 2)))
            assert 999 not in table
    finally:
        micropref._users.evidence._MOST_CHUNK_ROWS = original


def test_nothing_asked_gives_nothing():
    table = EvidenceTable(4)
    assert table.get(table.rows([])).shape == (0, 4)
    assert table.export()[1].shape == (0, 4)
    assert table.get(np.array([-1])).tolist() == [[0.0] * 4]


def test_inserted_rows_begin_at_zero():
    table = EvidenceTable(2)
    np.testing.assert_array_equal(table.get(table.rows(["ann", "bob", "ann"], insert=True)), np.zeros((3, 2)))
    assert len(table) == 2
    assert "ann" in table
    assert "eve" not in table
