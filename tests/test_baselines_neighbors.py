"""ContextNeighbors: the nearest rows, the local problem, where it must win."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards_cases import CONTEXT, SEEDS, loss, plain, small
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from micropref import MixtureBradleyTerry
from micropref.baselines import ContextNeighbors, UserRewards
from micropref.baselines._nearest_rows import NearestRows


@SEEDS
def test_tastes_that_turn_with_the_context_are_found_by_neighbours(seed):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, size=3000)
    context = np.column_stack([np.cos(angle), np.sin(angle)])
    D = rng.normal(size=(3000, 4))
    y = (rng.random(3000) < expit(3 * (D[:, :2] * context).sum(axis=1) + D[:, 2])).astype(int)
    X, train = np.hstack([context, D]), np.arange(3000) < 2000
    model = ContextNeighbors(n_context_features=2, local_alpha=1.0).fit(X[train], y[train])
    found = loss(model, X[~train], y[~train])
    assert found < loss(UserRewards(n_context_features=2).fit(X[train], y[train]), X[~train], y[~train]) - 0.1
    gated = MixtureBradleyTerry(2, n_context_features=2, n_init=2, random_state=0).fit(X[train], y[train])
    assert found < -gated.log_likelihood(X[~train], y[~train]) - 0.01


def test_neighbours_without_context_are_bradley_terry_and_then_the_users_own():
    X, y, user, _ = small(n=80)
    D = X[:, CONTEXT:]
    single = plain(alpha=0.02, tol=1e-9).fit(D, y)
    model = ContextNeighbors(alpha=0.02, tol=1e-9).fit(D, y)
    np.testing.assert_allclose(model.decision_function(D), single.decision_function(D), atol=1e-6)
    users = UserRewards(alpha=0.02, tol=1e-9).fit(D, y)
    for each_model in (model, users):
        each_model.partial_fit(D[:30], y[:30], groups=user[:30])
    np.testing.assert_allclose(model.decision_function(D, user), users.decision_function(D, user), atol=1e-6)
    assert np.abs(model.decision_function(D, user) - single.decision_function(D)).max() > 0.01


@given(seed=st.integers(0, 1000), total=st.integers(1, 12), shift=st.sampled_from([0.0, 1e4]))
@settings(max_examples=20, deadline=None)
def test_nearest_rows_are_those_of_a_slow_search(seed, total, shift):
    rng = np.random.default_rng(seed)
    contexts, weight = rng.normal(size=(30, 3)) + shift, rng.choice([0.5, 1.0, 2.0], size=30)
    queries = rng.normal(size=(4, 3)) + shift
    index, kernel = NearestRows(contexts, weight, total).around(queries)
    for query, rows, found in zip(queries, index, kernel, strict=True):
        distance = np.linalg.norm(contexts - query, axis=1)
        expected, left, far = np.zeros(30), float(total), 0.0
        for row in np.argsort(distance):
            expected[row] = min(left, weight[row])
            left -= expected[row]
            far = distance[row] if expected[row] > 0 else far
        expected *= np.exp(-2 * np.minimum(distance / far, 1) ** 2)
        dense = np.zeros(30)
        dense[rows] = found
        np.testing.assert_allclose(dense, expected, atol=1e-3 if shift else 1e-5)


def test_neighbours_solve_a_local_problem_and_a_users_votes_are_theirs_everywhere():
    X, y, _, weight = small(n=50)
    model = ContextNeighbors(6, n_context_features=CONTEXT, local_alpha=0.7).fit(X, y, weight)
    model.partial_fit(X[:9], y[:9], groups=["ann"] * 9)
    far = X[:5].copy()
    far[:, :CONTEXT] += 3.0
    for query, own in [(far[0], False), (far[1], True)]:
        index, kernel = model._nearest.around(query[None, :CONTEXT])
        D, signs, ω = X[index[0], CONTEXT:], 2 * y[index[0]] - 1, kernel[0]
        if own:
            near = np.argsort(((X[:9, :CONTEXT] - query[:CONTEXT]) ** 2).sum(axis=1))[:6]
            D, signs = np.vstack([D, X[near, CONTEXT:]]), np.append(signs, 2 * y[near] - 1)
            ω = np.append(ω, np.ones(6))

        def slow(w, D=D, signs=signs, ω=ω):
            margins, v = signs * (D @ w), w - model.coef_
            return -ω @ log_expit(margins) + 0.35 * v @ v, 0.7 * v - (ω * signs * expit(-margins)) @ D

        w = minimize(slow, model.coef_, jac=True, method="BFGS", options={"gtol": 1e-9}).x
        who = ["ann"] if own else None
        assert model.decision_function(query[None], who)[0] == pytest.approx(query[CONTEXT:] @ w, abs=1e-5)
        rewards = model.rewards(np.eye(3), np.tile(query[:CONTEXT], (3, 1)), None if who is None else who * 3)
        np.testing.assert_allclose(rewards, w, atol=1e-5)


def test_ungrouped_votes_become_neighbours():
    X, y, _, _ = small(n=60)
    model = ContextNeighbors(5, n_context_features=CONTEXT, local_alpha=10.0, alpha=0.05).fit(X[:40], y[:40])
    whole = ContextNeighbors(5, n_context_features=CONTEXT, local_alpha=10.0, alpha=0.05).fit(X, y)
    model.partial_fit(X[40:50], y[40:50]).partial_fit(X[50:], y[50:])
    model.coef_ = whole.coef_
    np.testing.assert_allclose(model.decision_function(X), whole.decision_function(X), atol=1e-7)


def test_queries_in_many_blocks_get_what_one_block_gets(monkeypatch):
    X, y, user, _ = small(n=50)
    model = ContextNeighbors(5, n_context_features=CONTEXT).fit(X, y, groups=user)
    whole = model.decision_function(X, user)
    monkeypatch.setattr("micropref.baselines.neighbors._GATHERED_BYTES", 3000)
    np.testing.assert_allclose(model.decision_function(X, user), whole, atol=1e-9)


def test_identical_contexts_are_equally_near():
    X, y, _, _ = small(n=30)
    X[:, :CONTEXT] = 1.5
    model = ContextNeighbors(30, n_context_features=CONTEXT, local_alpha=2.0).fit(X, y)
    users = UserRewards(2.0, n_context_features=CONTEXT).fit(X, y)
    users.partial_fit(X, y, groups=["all"] * 30)
    np.testing.assert_allclose(model.decision_function(X), users.decision_function(X, ["all"] * 30), atol=1e-6)
