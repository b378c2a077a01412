"""UserRewards: what shrinkage equals at its ends, and where it must win."""

from __future__ import annotations

import numpy as np
import pytest
from rewards_cases import CONTEXT, SEEDS, loss, plain, small, votes_of
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from micropref.baselines import GroupRewards, HardMixture, UserRewards


@SEEDS
def test_rewards_around_a_common_one_are_found_by_shrinkage(seed):
    rng = np.random.default_rng(seed)
    tastes = 1.5 * np.eye(5)[0] + rng.normal(size=(120, 5))
    D, y, user = votes_of(tastes, 50, seed)
    train = np.arange(len(y)) % 50 < 40
    model = UserRewards(1.0, alpha=1e-3).fit(D[train], y[train], groups=user[train])
    found = loss(model, D[~train], y[~train], user[~train])
    assert found < loss(plain().fit(D[train], y[train]), D[~train], y[~train]) - 0.05
    for other in (HardMixture(3, alpha=1e-3, random_state=0), GroupRewards(1e-3)):
        rival = other.fit(D[train], y[train], groups=user[train])
        assert found < loss(rival, D[~train], y[~train], user[~train]) - 0.02
    assert model.coef_[0] > 0.97 * np.linalg.norm(model.coef_)


@pytest.mark.parametrize("groups", [False, True])
def test_users_without_freedom_are_bradley_terry(groups):
    X, y, user, weight = small(n=80)
    single = plain(n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight)
    model = UserRewards(1e12 if groups else 1.0, n_context_features=CONTEXT, alpha=0.02, tol=1e-9)
    model.fit(X, y, weight, user if groups else None)
    np.testing.assert_allclose(model.coef_, single.coef_[0], atol=1e-7)
    np.testing.assert_allclose(model.decision_function(X, user), single.decision_function(X), atol=1e-6)


def test_users_without_a_common_reward_are_groups_of_their_own():
    rng = np.random.default_rng(0)
    D, y, user = votes_of(rng.normal(size=(6, 3)), 15, 0)
    alone = GroupRewards(0.1, tol=1e-10).fit(D, y, groups=user)
    model = UserRewards(15 * 0.1, alpha=1e12, tol=1e-10).fit(D, y, groups=user)
    np.testing.assert_allclose(model.coef_, 0, atol=1e-9)
    np.testing.assert_allclose(model.decision_function(D, user), alone.decision_function(D, user), atol=1e-5)
    for name in range(6):
        mine = user == name
        np.testing.assert_allclose(
            alone.coef_[name], plain(alpha=0.1, tol=1e-10).fit(D[mine], y[mine]).coef_[0], atol=1e-6
        )


def test_users_without_shrinkage_are_groups_of_their_own():
    rng = np.random.default_rng(1)
    D, y, user = votes_of(0.5 * rng.normal(size=(4, 2)), 60, 1)
    model = UserRewards(1e-7, alpha=1e-3, tol=1e-10).fit(D, y, groups=user)
    alone = GroupRewards(1e-9, tol=1e-10).fit(D, y, groups=user)
    np.testing.assert_allclose(model.decision_function(D, user), alone.decision_function(D, user), atol=1e-4)


def test_users_are_fitted_jointly():
    X, y, user, weight = small(n=60)
    D, known = X[:, CONTEXT:], user >= 0
    model = UserRewards(2.0, alpha=0.05, tol=1e-10).fit(D, y, weight, user)

    def slow(vector):
        common, own = vector[:3], vector[3:].reshape(6, 3)
        w = common + np.where(known[:, None], own[user], 0)
        signs = 2 * y - 1
        margins = signs * (D * w).sum(axis=1)
        pull = -(weight * signs * expit(-margins))[:, None] * D / weight.sum()
        value = -weight @ log_expit(margins) / weight.sum() + 0.025 * common @ common + (own**2).sum() / weight.sum()
        gradient = np.zeros((6, 3))
        np.add.at(gradient, user[known], pull[known])
        return value, np.concatenate([pull.sum(axis=0) + 0.05 * common, (gradient + 2 * own / weight.sum()).ravel()])

    twin = minimize(slow, np.zeros(21), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(model.coef_, twin.x[:3], atol=1e-5)
    assert model.objective_ == pytest.approx(twin.fun, rel=1e-9)
    for name in range(6):
        own = model.rewards(np.eye(3), groups=[name] * 3) - model.coef_
        np.testing.assert_allclose(own, twin.x[3 + 3 * name : 6 + 3 * name], atol=1e-5)
