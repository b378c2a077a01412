"""HardMixture: clusters of annotators, and how they are found."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from rewards_cases import CONTEXT, SEEDS, loss, plain, small, votes_of
from scipy.special import log_expit
from sklearn.exceptions import ConvergenceWarning

from micropref.baselines import HardMixture, UserRewards


@SEEDS
def test_separate_clusters_are_found_by_hard_assignments(seed):
    rng = np.random.default_rng(seed)
    heads = 3 * np.linalg.qr(rng.normal(size=(10, 10)))[0][:3]
    tastes = heads[rng.integers(3, size=200)]
    D, y, user = votes_of(tastes, 16, seed)
    train = np.arange(len(y)) % 16 < 10
    model = HardMixture(3, random_state=seed, alpha=1e-4).fit(D[train], y[train], groups=user[train])
    table = heads @ model.coef_.T / np.linalg.norm(model.coef_, axis=1) / 3
    assert table.max(axis=1).min() > 0.95
    found = loss(model, D[~train], y[~train], user[~train])
    own = UserRewards(1.0).fit(D[train], y[train], groups=user[train])
    assert found < loss(own, D[~train], y[~train], user[~train]) - 0.05
    assert found < loss(plain().fit(D[train], y[train]), D[~train], y[~train]) - 0.15
    # Ten votes tell the head of somebody new.
    D, y, user = votes_of(heads[rng.integers(3, size=50)], 30, seed + 10)
    asked = np.arange(len(y)) % 30 < 10
    model.partial_fit(D[asked], y[asked], groups=user[asked] + 1000)
    assert loss(model, D[~asked], y[~asked], user[~asked] + 1000) < loss(model, D[~asked], y[~asked]) - 0.1


def test_one_cluster_is_bradley_terry():
    X, y, user, weight = small(n=80)
    single = plain(n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight)
    model = HardMixture(1, n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight, user)
    np.testing.assert_allclose(model.coef_, single.coef_, atol=1e-7)
    assert model.objective_ == pytest.approx(single.objective_, rel=1e-12)
    np.testing.assert_allclose(model.decision_function(X), single.decision_function(X), atol=1e-6)


def test_the_loss_of_hard_assignments_never_rises():
    rng = np.random.default_rng(3)
    D, y, user = votes_of(2 * rng.normal(size=(60, 6)), 8, 3)
    found = []
    for rounds in range(1, 30):
        model = HardMixture(4, n_init=1, max_iter=rounds, tol=1e-8, random_state=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(model.fit(D, y, groups=user).objective_)
        if model.n_iter_ < rounds:
            break
    assert 4 < len(found) < 30
    assert model.converged_
    assert np.diff(found).max() <= 1e-9
    evidence = [log_expit((2 * y - 1) * (D @ w)) @ (user[:, None] == np.arange(60)) for w in model.coef_]
    best = np.argmax(evidence, axis=0)
    np.testing.assert_allclose(model.weights_, np.bincount(best, minlength=4) / 60)
    assert (np.diff(model.weights_) <= 0).all()
    rewards = np.array([model.rewards(np.eye(6), groups=[name] * 6) for name in range(60)])
    np.testing.assert_allclose(rewards, model.coef_[best])


def test_the_best_of_several_starts_is_kept():
    rng = np.random.default_rng(0)
    D, y, user = votes_of(2 * rng.normal(size=(40, 6)), 8, 0)
    random = np.random.RandomState(0)
    alone = [HardMixture(4, n_init=1, random_state=random).fit(D, y, groups=user).objective_ for _ in range(4)]
    assert len(set(alone)) > 1
    assert HardMixture(4, n_init=4, random_state=0).fit(D, y, groups=user).objective_ == min(alone)


def test_an_empty_head_takes_whom_a_coin_describes_better():
    # Nine say yes, one says no; whatever the start, the two opinions end in two heads and the third stays empty.
    D = np.abs(np.random.default_rng(0).normal(size=(100, 1))) + 0.5
    user = np.arange(100) // 10
    y = (user > 0).astype(int)
    for seed in range(5):
        model = HardMixture(3, n_init=1, random_state=seed).fit(D, y, groups=user)
        np.testing.assert_allclose(model.weights_, [0.9, 0.1, 0.0])
        assert model.coef_[0, 0] > 1 > 0 > model.coef_[1, 0]
        assert model.coef_[2, 0] == 0


def test_equally_likely_heads_leave_a_user_where_everybody_is():
    X, y, user, _ = small(n=60)
    model = HardMixture(2, n_context_features=CONTEXT, random_state=0).fit(X, y, groups=user)
    no_difference = np.hstack([X[:1, :CONTEXT], np.zeros((1, 3))])
    model.partial_fit(no_difference, [1], groups=["ann"])
    features = np.eye(3)
    np.testing.assert_array_equal(model.rewards(features, groups=["ann"] * 3), model.coef_[0])
    for_second = np.hstack([np.zeros((1, CONTEXT)), (model.coef_[1] - model.coef_[0])[None]])
    model.partial_fit(for_second, [1])
    np.testing.assert_allclose(model.rewards(features), model.coef_[1])
    np.testing.assert_allclose(model.rewards(features, groups=["ann"] * 3), model.coef_[1])


def test_more_heads_than_users():
    X, y, _, _ = small()
    model = HardMixture(5, n_context_features=CONTEXT, random_state=0).fit(X, y, groups=np.arange(40) % 3)
    assert model.converged_
    assert model.weights_.sum() == pytest.approx(1)
    assert (model.weights_ > 0).sum() <= 3
    assert np.isfinite(model.log_likelihood(X, y))
