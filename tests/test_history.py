"""What a user's votes leave behind: the formula by loops, any batching, forgetting, many users, little memory."""

from __future__ import annotations

import copy
import math
import pickle
import tracemalloc
from collections import defaultdict
from itertools import pairwise

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


def feed(history: UserHistory, who, evidence, decay: float) -> None:
    """As the router does: distinct users, and positions among them."""
    distinct = list(dict.fromkeys(who))
    index = np.array([distinct.index(user) for user in who], dtype=np.int32)
    history.update(distinct, index, evidence, decay)


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
        single.update([user], np.zeros(1, dtype=np.int32), evidence[:, [column]], 0.95)
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
    history.update(["ann", "bob"], np.array([1]), -np.ones((K, 1)), 0.5)
    np.testing.assert_array_equal(state_of(history, ["ann"]), before)


def test_five_thousand_votes_stay_exact_without_decay_and_bounded_with_it():
    evidence = np.log([[0.9], [0.1], [0.6]])
    history, forgetful = UserHistory(K), UserHistory(K)
    for _ in range(5000):
        history.update(["ann"], np.zeros(1, dtype=np.int32), evidence, 1.0)
        forgetful.update(["ann"], np.zeros(1, dtype=np.int32), evidence, 0.9)
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
            history.update(users, np.arange(batch), evidence, 0.9)
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


# --------------------------------------------------------------------------------------------------------------- table


@given(
    operations=st.lists(
        st.tuples(st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True), st.integers(0, 10**6)),
        max_size=12,
    )
)
def test_table_behaves_as_a_dictionary(operations):
    table, plain = EvidenceTable(2), {}
    original = micropref._users.evidence._CHUNK_ROWS
    micropref._users.evidence._CHUNK_ROWS = 5
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
        micropref._users.evidence._CHUNK_ROWS = original


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
