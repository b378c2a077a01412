"""Rivals with rewards of their own: clusters, users, distributions of utility, neighbours in context, the oracle."""

from __future__ import annotations

import doctest
import pickle
import tracemalloc
import warnings
from collections import Counter
from copy import deepcopy
from importlib import import_module
from unittest import SkipTest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from micropref import MixtureBradleyTerry, baselines
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.baselines import (
    CategoricalRewards,
    ContextNeighbors,
    GroupRewards,
    HardMixture,
    MeanVarianceRewards,
    UserRewards,
)
from micropref.baselines._base import known_users
from micropref.baselines._categorical_objective import CategoricalObjective
from micropref.baselines._mean_variance_objective import MeanVarianceObjective
from micropref.baselines._nearest_rows import NearestRows
from micropref.baselines._profile_objective import ProfileObjective
from micropref.baselines._rowspace import deviations, row_basis
from micropref.pairs import swap_pairs

MODULES = ("hard_mixture", "user_rewards", "mean_variance", "categorical", "neighbors", "group_rewards")
CONTEXT = 2


def methods(**parameters):
    """One of each, well determined by few rows, for data with CONTEXT context columns."""
    common = {"n_context_features": CONTEXT, "tol": 1e-9, "alpha": 0.05} | parameters
    return [
        HardMixture(2, n_init=2, random_state=0, **common),
        UserRewards(2.0, **common),
        MeanVarianceRewards(1, variance_alpha=1e-4, random_state=0, **(common | {"alpha": 0.01})),
        CategoricalRewards(2, **common),
        ContextNeighbors(7, local_alpha=2.0, **common),
        GroupRewards(**common),
        GroupRewards(pooling=2.0, **common),
    ]


NAMES = [type(method).__name__ + "_pooled" * bool(getattr(method, "pooling", 0)) for method in methods()]
each = pytest.mark.parametrize("method", methods(), ids=NAMES)
linear = pytest.mark.parametrize(
    "method", [m for m in methods() if hasattr(m, "rewards")], ids=lambda m: type(m).__name__
)


def small(seed=0, n=40, d=3, users=6):
    """Comparisons with context, labels, users (−1: nobody), weights."""
    rng = np.random.default_rng([seed, n, d])
    X = rng.normal(size=(n, CONTEXT + d))
    user = rng.integers(-1, users, size=n)
    taste = np.sign(rng.normal(size=users + 1))[user]
    y = (taste * X[:, CONTEXT] + 0.7 * X[:, CONTEXT + 1] + 0.5 * rng.normal(size=n) > 0).astype(int)
    return X, y, user, rng.exponential(size=n) + 0.1


def votes_of(tastes, n_votes, seed, spread=1.0):
    """Comparisons by users with the tastes (n_users, d), labels, users."""
    rng = np.random.default_rng([seed, 7])
    user = np.repeat(np.arange(len(tastes)), n_votes)
    D = spread * rng.normal(size=(len(user), tastes.shape[1]))
    return D, (rng.random(len(user)) < expit((D * tastes[user]).sum(axis=1))).astype(int), user


def loss(model, X, y, groups=None):
    return -model.log_likelihood(X, y, groups=groups)


def plain(**parameters):
    return MixtureBradleyTerry(1, **parameters)


def calibration_error(p, y, bins=10):
    """Largest distance of the frequency from the mean probability over bins of equally many rows."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return max(abs(p[part].mean() - y[part].mean()) for part in parts)


def test_the_generators_of_these_tests_vary():
    X, y, user, weight = small()
    assert np.unique(X).size == X.size
    assert set(y) == {0, 1}
    assert set(user) == set(range(-1, 6))
    assert np.unique(weight).size == len(weight)
    assert not np.array_equal(small(1)[0], X)
    D, y, user = votes_of(np.eye(3), 4, 0)
    assert np.unique(D).size == D.size
    assert Counter(user.tolist()) == {0: 4, 1: 4, 2: 4}


# ---------------------------------------------------------------------------------------------- scikit-learn's checks

CLASSIFIERS = [
    HardMixture(2, n_init=1),
    UserRewards(),
    MeanVarianceRewards(rank=2),
    CategoricalRewards(),
    ContextNeighbors(n_neighbors=3, n_context_features=1),
    GroupRewards(),
]


@parametrize_with_checks(CLASSIFIERS)
def test_scikit_learn_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        if "SCIPY_ARRAY_API" not in str(reason):
            raise


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=str)
def test_so_many_checks_ran(estimator):
    status = Counter(result["status"] for result in check_estimator(estimator, on_skip=None, on_fail=None))
    assert status["failed"] == 0
    assert status["passed"] >= 55


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    failed, attempted = doctest.testmod(import_module(f"micropref.baselines.{module}"))
    assert failed == 0
    assert attempted >= 6


def test_all_are_exported():
    assert {type(method).__name__ for method in methods()} <= set(baselines.__all__)


# ----------------------------------------------------------------------------------------- gradients and inner solvers


def training_rows(seed=0, n=30, d=4):
    X, y, user, weight = small(seed, n=n, d=d)
    return Comparisons(PairReader(X, CONTEXT), (2 * y - 1).astype(np.int8), weight, check_groups(user, n))


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("objective", "n_parameters"),
    [
        (lambda rows: MeanVarianceObjective(rows, 0, 0.1, 0.2), 8),
        (lambda rows: MeanVarianceObjective(rows, 2, 0.1, 0.2), 16),
        (lambda rows: CategoricalObjective(rows, np.array([0.5, 2.0, 3.0]), 0.1), 15),
        (lambda rows: ProfileObjective(rows, 0.1, 1.5), 4),
    ],
    ids=["diagonal", "low rank", "categorical", "profile"],
)
def test_gradients_are_finite_differences(objective, n_parameters, size):
    rng = np.random.default_rng(int(10 * size))
    function = objective(training_rows()).value_and_gradient
    for _ in range(5):
        at, direction = size * rng.normal(size=n_parameters), rng.normal(size=n_parameters)
        step = 1e-5
        slope = (function(at + step * direction)[0] - function(at - step * direction)[0]) / (2 * step)
        assert slope == pytest.approx(function(at)[1] @ direction, rel=1e-5, abs=1e-8)


@given(seed=st.integers(0, 1000), m=st.integers(1, 9), d=st.integers(1, 5), penalty=st.sampled_from([0.01, 1.0, 50.0]))
@settings(max_examples=30, deadline=None)
def test_newton_in_row_space_finds_the_minimum_of_all_features(seed, m, d, penalty):
    rng = np.random.default_rng(seed)
    D, base = 3 * rng.normal(size=(2, m, d)), rng.normal(size=(2, m))
    signs, weight = rng.choice([-1.0, 1.0], size=(2, m)), rng.exponential(size=(2, m))
    weight[1, -1] = 0  # filled up
    D[1, -1] = 0
    basis, root = row_basis(D)
    np.testing.assert_allclose(root @ np.swapaxes(basis, 1, 2), D, atol=1e-12)
    found = deviations(root, base, signs, weight, penalty)
    assert found.converged
    for problem in range(2):

        def slow(v, i=problem):
            margins = signs[i] * (base[i] + D[i] @ v)
            value = -weight[i] @ log_expit(margins) + 0.5 * penalty * v @ v
            return value, penalty * v - (weight[i] * signs[i] * expit(-margins)) @ D[i]

        v = basis[problem] @ found.variables[problem]
        margins = signs[problem] * (base[problem] + D[problem] @ v)
        np.testing.assert_allclose(found.pull[problem], (weight * signs)[problem] * expit(-margins), atol=1e-9)
        assert np.abs(slow(v)[1]).max() < 1e-6 * (1 + penalty)
        assert found.loss[problem] == pytest.approx(slow(v)[0], rel=1e-9)
        twin = minimize(slow, np.zeros(d), jac=True, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(v, twin.x, atol=2e-5)


def test_newton_survives_a_start_from_where_a_whole_step_leads_upwards():
    rng = np.random.default_rng(0)
    D, base = 5 * rng.normal(size=(1, 12, 3)), 30 * rng.normal(size=(1, 12))
    found = deviations(row_basis(D)[1], base, np.ones((1, 12)), np.ones((1, 12)), 1e-3, np.full((1, 3), 40.0))
    again = deviations(row_basis(D)[1], base, np.ones((1, 12)), np.ones((1, 12)), 1e-3)
    assert found.converged
    assert found.loss == pytest.approx(again.loss)


# ----------------------------------------------------------------------------------- what each finds better than others

SEEDS = pytest.mark.parametrize("seed", [0, 1])


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


@SEEDS
def test_rewards_around_a_common_one_are_found_by_shrinkage(seed):
    rng = np.random.default_rng(seed)
    tastes = 1.5 * np.eye(5)[0] + rng.normal(size=(120, 5))
    D, y, user = votes_of(tastes, 50, seed)
    train = np.arange(len(y)) % 50 < 40
    model = UserRewards(1.0).fit(D[train], y[train], groups=user[train])
    found = loss(model, D[~train], y[~train], user[~train])
    assert found < loss(plain().fit(D[train], y[train]), D[~train], y[~train]) - 0.05
    for other in (HardMixture(3, random_state=0), GroupRewards()):
        rival = other.fit(D[train], y[train], groups=user[train])
        assert found < loss(rival, D[~train], y[~train], user[~train]) - 0.02
    assert model.coef_[0] > 0.97 * np.linalg.norm(model.coef_)


@SEEDS
def test_normal_tastes_are_found_with_their_variance(seed):
    rng = np.random.default_rng(seed)
    mean, deviation = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 3.0])
    D, y, _ = votes_of(mean + deviation * rng.normal(size=(6000, 3)), 1, seed, spread=2.0)
    model = MeanVarianceRewards(alpha=1e-5, variance_alpha=1e-5).fit(D, y)
    new = mean + deviation * rng.normal(size=(300, 3))
    T, z, user = votes_of(new, 30, seed + 10, spread=2.0)
    single = plain(alpha=1e-5).fit(D, y)
    assert loss(model, T, z) < -single.log_likelihood(T, z) - 0.01
    assert calibration_error(model.predict_proba(T)[:, 1], z) < 0.06
    agreed = np.abs(T[:, 2]) < 0.5
    p, q = (m.predict_proba(T[agreed])[:, 1] for m in (model, single))
    assert calibration_error(p, z[agreed], 4) < 0.07 < calibration_error(q, z[agreed], 4)
    assert model.scale_[2] > 3 * model.scale_[:2].max()
    # With votes, the prior knows which features to learn.
    asked = np.arange(len(z)) % 30 < 6
    model.partial_fit(T[asked], z[asked], groups=user[asked])
    own = UserRewards(1.0).fit(D, y).partial_fit(T[asked], z[asked], groups=user[asked])
    found = loss(model, T[~asked], z[~asked], user[~asked])
    assert found < loss(model, T[~asked], z[~asked]) - 0.1
    assert found < loss(own, T[~asked], z[~asked], user[~asked]) - 0.02
    assert calibration_error(model.predict_proba(T[~asked], user[~asked])[:, 1], z[~asked]) < 0.06


@SEEDS
def test_split_opinions_are_found_by_categories(seed):
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(6000) < 0.25, -1, 1)
    D, y, user = votes_of(side[:, None] * np.array([3.0, 0.0]), 1, seed, spread=2.0)
    train = np.arange(len(y)) < 3000
    model = CategoricalRewards(alpha=1e-4).fit(D[train], y[train])
    found, p = loss(model, D[~train], y[~train]), model.predict_proba(D[~train])[:, 1]
    assert p.max() < 0.82
    assert calibration_error(p, y[~train]) < 0.06
    single = plain(alpha=1e-4).fit(D[train], y[train])
    assert found < -single.log_likelihood(D[~train], y[~train]) - 0.01
    hard = HardMixture(2, random_state=0).fit(D[train], y[train], groups=user[train])
    assert found < loss(hard, D[~train], y[~train]) - 0.05


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


@SEEDS
def test_nobody_is_better_than_who_knows_the_groups(seed):
    rng = np.random.default_rng(seed)
    D, y, group = votes_of(rng.normal(size=(4, 6)) * 1.5, 300, seed)
    user = np.arange(len(y)) // 3
    train = rng.random(len(y)) < 0.7
    oracle = GroupRewards().fit(D[train], y[train], groups=group[train])
    found = loss(oracle, D[~train], y[~train], group[~train])
    hard = HardMixture(4, n_init=2, random_state=0).fit(D[train], y[train], groups=user[train])
    assert found < loss(hard, D[~train], y[~train], user[~train]) - 0.05
    assert found < loss(plain().fit(D[train], y[train]), D[~train], y[~train]) - 0.1


# -------------------------------------------------------------------------------------------------- equal to each other


def test_one_cluster_is_bradley_terry():
    X, y, user, weight = small(n=80)
    single = plain(n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight)
    model = HardMixture(1, n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight, user)
    np.testing.assert_allclose(model.coef_, single.coef_, atol=1e-7)
    assert model.objective_ == pytest.approx(single.objective_, rel=1e-12)
    np.testing.assert_allclose(model.decision_function(X), single.decision_function(X), atol=1e-6)


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


def test_sure_tastes_are_bradley_terry():
    X, y, _, weight = small(n=80)
    single = plain(n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight)
    model = MeanVarianceRewards(1, n_context_features=CONTEXT, alpha=0.02, variance_alpha=1e6, tol=1e-9, random_state=0)
    np.testing.assert_allclose(model.fit(X, y, weight).decision_function(X), single.decision_function(X), atol=1e-4)
    assert model.hidden_context_share(X) < 1e-4


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


# ----------------------------------------------------------------------------------------------------- parts of methods


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


def test_votes_shrink_a_normal_taste_as_bayes_says():
    X, y, _, weight = small(n=60)
    D = X[:, CONTEXT:]
    model = MeanVarianceRewards(1, random_state=0, variance_alpha=1e-6).fit(D, y)
    covariance = np.diag(model.scale_**2) + model.factors_ @ model.factors_.T
    np.testing.assert_allclose(model.utility_variance(D), np.einsum("nd,de,ne->n", D, covariance, D), rtol=1e-9)
    np.testing.assert_allclose(model.utility_mean(D), D @ model.coef_)
    votes = slice(0, 9)
    model.partial_fit(D[votes], y[votes], sample_weight=weight[votes], groups=["ann"] * 9)
    ann = ["ann"] * len(D)
    w = model.rewards(np.eye(3), groups=ann[:3])
    signs, inverse = 2 * y[votes] - 1, np.linalg.inv(covariance)
    pull = (weight[votes] * signs * expit(-signs * (D[votes] @ w))) @ D[votes]
    np.testing.assert_allclose(pull, inverse @ (w - model.coef_), atol=1e-6)
    p = expit(D[votes] @ w)
    posterior = np.linalg.inv(inverse + (D[votes].T * (weight[votes] * p * (1 - p))) @ D[votes])
    variance = model.utility_variance(D, ann)
    np.testing.assert_allclose(variance, np.einsum("nd,de,ne->n", D, posterior, D), rtol=1e-6)
    np.testing.assert_allclose(model.decision_function(D, ann), D @ w / np.sqrt(1 + np.pi / 8 * variance), rtol=1e-6)
    assert (variance < model.utility_variance(D)).all()
    np.testing.assert_array_equal(model.utility_variance(D, ["bob"] * len(D)), model.utility_variance(D))


def test_share_of_hidden_context_is_what_it_says():
    rng = np.random.default_rng(0)
    D, y, _ = votes_of(np.array([2.0, 0.0]) + rng.normal(size=(3000, 2)) * [0.0, 4.0], 1, 0, spread=2.0)
    model = MeanVarianceRewards(alpha=1e-5, variance_alpha=1e-5).fit(D, y)
    mean, variance = model.utility_mean(D), model.utility_variance(D)
    assert model.hidden_context_share(D) == pytest.approx(variance.sum() / (variance + mean**2).sum())
    agreed, disputed = D * [1, 0], D * [0, 1]
    assert model.hidden_context_share(agreed) < 0.2 < 0.8 < model.hidden_context_share(disputed)
    first = np.arange(len(D)) < 10
    assert model.hidden_context_share(D, sample_weight=first) == pytest.approx(model.hidden_context_share(D[:10]))
    assert model.hidden_context_share(0 * D) == 0


def test_categories_mirror_exactly_for_every_user():
    X, y, _, _ = small(n=60)
    model = CategoricalRewards(3, n_context_features=CONTEXT).fit(X, y)
    model.partial_fit(X[:20], 1 - model.predict(X[:20]), groups=["no"] * 20)
    model.partial_fit(X[:20], model.predict(X[:20]), groups=["yes"] * 20)
    for who in (None, ["no"] * 60, ["yes"] * 60):
        there, back = model.decision_function(X, who), model.decision_function(swap_pairs(X, CONTEXT), who)
        np.testing.assert_array_equal(there, -back)
        np.testing.assert_allclose(
            model.utility_mean(X, who), -model.utility_mean(swap_pairs(X, CONTEXT), who), atol=1e-12
        )
        np.testing.assert_allclose(
            model.utility_variance(X, who), model.utility_variance(swap_pairs(X, CONTEXT), who), atol=1e-12
        )
        assert np.abs(there).max() <= model.largest
    everybody = model.decision_function(X)
    assert (everybody * model.decision_function(X, ["no"] * 60) < 0).mean() > 0.9
    assert model._describe("no")[0] < 0 < 1 < model._describe("yes")[0]
    # The likelihood of an agreement has several maxima, one of them near 0 for who says no.
    for who in ("no", "yes"):
        votes = model._votes_of[who]

        def plausibility(agreement, votes=votes):
            odds = model._log_odds(votes.values, np.array([[agreement]]))
            return votes.weight @ log_expit(votes.signs * odds) - 0.5 * (agreement - 1) ** 2

        best = max(plausibility(agreement) for agreement in np.linspace(-3, 5, 401))
        assert plausibility(model._describe(who)[0]) >= best - 1e-9


def test_categories_are_the_probabilities_that_they_state():
    X, y, _, _ = small(n=60)
    D = X[:, CONTEXT:]
    model = CategoricalRewards(3, largest=4.5).fit(D, y)
    np.testing.assert_allclose(model.atoms_, [1.5, 3.0, 4.5])
    raw = np.exp(model.intercept_ + D @ model.coef_.T), np.exp(model.intercept_ - D @ model.coef_.T)
    total = raw[0].sum(axis=1) + raw[1].sum(axis=1)
    p = (raw[0] @ expit(model.atoms_) + raw[1] @ expit(-model.atoms_)) / total
    np.testing.assert_allclose(model.predict_proba(D)[:, 1], p, rtol=1e-9)
    mean = (raw[0] - raw[1]) @ model.atoms_ / total
    np.testing.assert_allclose(model.utility_mean(D), mean, rtol=1e-9)
    np.testing.assert_allclose(model.utility_variance(D), (raw[0] + raw[1]) @ model.atoms_**2 / total - mean**2)


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
    model = ContextNeighbors(5, n_context_features=CONTEXT, alpha=0.05).fit(X[:40], y[:40])
    whole = ContextNeighbors(5, n_context_features=CONTEXT, alpha=0.05).fit(X, y)
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


def test_groups_take_in_votes_and_unknown_ones_get_the_pooled_reward():
    X, y, user, weight = small(n=60)
    D, old = X[:, CONTEXT:], np.arange(60) < 40
    model = GroupRewards(0.05, tol=1e-10).fit(D[old], y[old], weight[old], user[old])
    assert model.groups_ == sorted(set(user[old]) - {-1})
    assert model.coef_.shape == (len(model.groups_), 3)
    np.testing.assert_allclose(
        model.pooled_coef_, plain(alpha=0.05, tol=1e-10).fit(D[old], y[old], weight[old]).coef_[0], atol=1e-7
    )
    np.testing.assert_allclose(model.rewards(D, groups=["nobody"] * 60), D @ model.pooled_coef_)
    model.partial_fit(D[~old], y[~old], sample_weight=weight[~old], groups=user[~old])
    for name in range(6):
        mine = user == name
        alone = plain(alpha=0.05, tol=1e-10).fit(D[mine], y[mine], weight[mine])
        np.testing.assert_allclose(model.rewards(np.eye(3), groups=[name] * 3), alone.coef_[0], atol=1e-6)
    again = GroupRewards(0.05, tol=1e-10).fit(D[old], y[old], weight[old])
    again.partial_fit(D[~old], y[~old], sample_weight=weight[~old])
    np.testing.assert_allclose(
        again.rewards(np.eye(3)), plain(alpha=0.05, tol=1e-10).fit(D, y, weight).coef_[0], atol=1e-6
    )


@SEEDS
def test_pooled_groups_of_few_rows_are_the_ceiling(seed):
    """Groups alike but for a little: each alone is worse than everybody, and pooled ones are better than both."""
    rng = np.random.default_rng(seed)
    tastes = 2 * np.eye(12)[0] + 0.5 * rng.normal(size=(20, 12))
    D, y, group = votes_of(tastes, 230, seed)
    train = np.arange(len(y)) % 230 < 30
    losses = {}
    for pooling in (0.0, 5.0, 1e9):
        model = GroupRewards(pooling=pooling).fit(D[train], y[train], groups=group[train])
        losses[pooling] = loss(model, D[~train], y[~train], group[~train])
        everybody = loss(model, D[~train], y[~train])
    assert losses[5.0] < min(losses[0.0], everybody) - 0.02
    assert losses[1e9] == pytest.approx(everybody, abs=1e-4)


def test_pooling_is_the_prior_of_users_around_a_fixed_reward():
    X, y, user, weight = small(n=60)
    D, old = X[:, CONTEXT:], np.arange(60) < 40
    model = GroupRewards(0.05, pooling=1.5, tol=1e-10).fit(D[old], y[old], weight[old], user[old])
    single = UserRewards(1.5, alpha=0.05, tol=1e-10).fit(D[old], y[old], weight[old])
    np.testing.assert_allclose(model.pooled_coef_, single.coef_, atol=1e-7)
    named = user >= 0
    for each_model, votes in ((single, named), (model, named & ~old)):
        each_model.partial_fit(D[votes], y[votes], sample_weight=weight[votes], groups=user[votes])
    np.testing.assert_allclose(model.rewards(D, groups=user), single.rewards(D, groups=user), atol=1e-5)
    # Rows without a group move the pooled reward, and with it what groups are pulled to.
    before = model.rewards(D, groups=user)
    model.partial_fit(5 * D, 1 - y)
    assert np.abs(model.rewards(D, groups=user) - before).max() > 0.01


def test_asking_does_not_change_what_fit_found():
    X, y, user, _ = small(n=60)
    hard, easy = X[:, CONTEXT:], np.array([[1.0, 0.0, 0.0]])
    model = GroupRewards(0.05, tol=1e-9).fit(hard, y, groups=user)
    public = {name: value for name, value in vars(model).items() if name.endswith("_")}
    model.set_params(max_iter=1)
    model.partial_fit(np.vstack([5 * hard[:20], easy]), [*y[:20], 1], groups=["new"] * 21)
    with pytest.warns(ConvergenceWarning, match="The reward of a group stopped after 1 iterations"):
        model.predict(hard, groups=["new"] * 60)
    assert public["converged_"]
    assert all(getattr(model, name) is value for name, value in public.items())


@each
def test_numbers_in_many_blocks_answer_as_in_one(method, monkeypatch):
    X, y, user, weight = small(n=50)
    model = clone(method).fit(X, y, weight, user)
    whole = model.decision_function(X, user)
    assert np.abs(whole - model.decision_function(X)).max() > 1e-3
    rewards = model.rewards(X[:, CONTEXT:], X[:, :CONTEXT], user) if hasattr(model, "rewards") else None
    monkeypatch.setattr("micropref.baselines._base._NUMBERS_BYTES", 200)
    np.testing.assert_allclose(model.decision_function(X, user), whole, atol=1e-9)
    if rewards is not None:
        np.testing.assert_allclose(model.rewards(X[:, CONTEXT:], X[:, :CONTEXT], user), rewards, atol=1e-9)


@pytest.mark.parametrize(("ask", "most"), [("decision_function", 0.5), ("rewards", 1.5)])
def test_rewards_of_users_are_not_laid_out_beside_all_rows(ask, most, monkeypatch):
    monkeypatch.setattr("micropref.baselines._base._NUMBERS_BYTES", 1 << 16)
    rng = np.random.default_rng(0)
    D = rng.normal(size=(20_000, 40))
    user = rng.integers(5, size=len(D))
    model = GroupRewards(0.1).fit(D[:500], (D[:500, 0] > 0).astype(int), groups=user[:500])
    getattr(model, ask)(D[:9], groups=user[:9])
    tracemalloc.start()
    getattr(model, ask)(D, groups=user)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most * D.nbytes


@each
def test_models_and_their_pickles_hold_rows_once(method):
    X, y, _, _ = small(n=600, d=30)
    user = np.arange(600) % 9 - 1
    method = clone(method).set_params(tol=1e-3)
    few, model = (clone(method).fit(X[:n], y[:n], groups=user[:n]) for n in (60, 600))
    bytes_of_row = X.itemsize * (X.shape[1] + 2)  # features, sign and weight
    assert len(pickle.dumps(model)) - len(pickle.dumps(few)) < 1.2 * 540 * bytes_of_row
    for held in (model, pickle.loads(pickle.dumps(model)), deepcopy(model)):
        wholes = {id(votes.source): votes.source for votes in held._votes_of.values()}
        assert len(wholes) == 1
        assert all(np.shares_memory(votes.values, votes.source.values) for votes in held._votes_of.values())
        assert not np.shares_memory(next(iter(wholes.values())).values, X)
        np.testing.assert_array_equal(held.decision_function(X, user), model.decision_function(X, user))


# -------------------------------------------------------------------------------------------------------- invariances


def fitted(method, X, y, weight=None, user=None):
    return clone(method).fit(X, y, weight, user)


@each
@given(seed=st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_a_repeated_row_is_a_row_of_weight_two(method, seed):
    X, y, user, weight = small(seed)
    twice = np.random.default_rng(seed).random(len(y)) < 0.3
    rows = np.repeat(np.arange(len(y)), 1 + twice)
    one = fitted(method, X, y, weight * (1 + twice), user)
    two = fitted(method, X[rows], y[rows], weight[rows], user[rows])
    for who in (None, user):
        np.testing.assert_allclose(one.decision_function(X, who), two.decision_function(X, who), atol=2e-5)


@each
@given(seed=st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_swapping_responses_changes_nothing(method, seed):
    X, y, user, weight = small(seed)
    swapped = np.random.default_rng(seed).random(len(y)) < 0.5
    Z, z = np.where(swapped[:, None], swap_pairs(X, CONTEXT), X), np.where(swapped, 1 - y, y)
    one, two = fitted(method, X, y, weight, user), fitted(method, Z, z, weight, user)
    for who in (None, user):
        odds = one.decision_function(X, who)
        np.testing.assert_allclose(odds, two.decision_function(X, who), atol=2e-5)
        np.testing.assert_allclose(one.decision_function(swap_pairs(X, CONTEXT), who), -odds, atol=1e-12)


@each
@given(seed=st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_names_of_users_do_not_matter(method, seed):
    X, y, user, weight = small(seed)
    names = np.random.default_rng(seed).permutation([f"user {i}" for i in range(6)]).tolist()
    called = [None if i < 0 else names[i] for i in user]
    one, two = fitted(method, X, y, weight, user), fitted(method, X, y, weight, called)
    np.testing.assert_allclose(one.decision_function(X, user), two.decision_function(X, called), atol=2e-5)
    np.testing.assert_allclose(one.decision_function(X), two.decision_function(X), atol=2e-5)


@each
def test_the_same_seed_gives_the_same_bits(method):
    X, y, user, weight = small()
    one, two = (fitted(method, X, y, weight, user) for _ in range(2))
    for who in (None, user):
        np.testing.assert_array_equal(one.decision_function(X, who), two.decision_function(X, who))
    copy = pickle.loads(pickle.dumps(one)).partial_fit(X[:5], y[:5], groups=["new"] * 5)
    two.partial_fit(X[:5], y[:5], groups=["new"] * 5)
    np.testing.assert_array_equal(copy.decision_function(X, ["new"] * 40), two.decision_function(X, ["new"] * 40))


@each
def test_what_is_asked_teaches_nothing(method):
    X, y, user, weight = small()
    model = fitted(method, X[:25], y[:25], weight[:25], user[:25])
    before = model.decision_function(X[25:30], user[25:30])
    model.score(X[25:], y[25:], groups=user[25:])
    model.log_likelihood(X[25:], 1 - y[25:], groups=user[25:])
    model.predict(X, user)
    np.testing.assert_array_equal(model.decision_function(X[25:30], user[25:30]), before)
    np.testing.assert_allclose(model.decision_function(X[25:], user[25:])[:5], before, atol=1e-9)


# -------------------------------------------------------------------------------------------------------------- edges


@each
def test_votes_teach_their_user_and_nobody_else(method):
    X, y, user, _ = small(2, n=60)
    model = fitted(method, X[:40], y[:40], None, user[:40])
    others = model.decision_function(X, user), model.decision_function(X)
    votes, wanted = X[40:52], 1 - model.predict(X[40:52])
    before = model.log_likelihood(votes, wanted, groups=["ann"] * 12)
    assert before == model.log_likelihood(votes, wanted)
    model.partial_fit(votes, wanted, groups=["ann"] * 12)
    assert model.log_likelihood(votes, wanted, groups=["ann"] * 12) > before + 0.02
    np.testing.assert_array_equal(model.decision_function(X, user), others[0])
    np.testing.assert_array_equal(model.decision_function(X), others[1])
    assert known_users(model)[-1] == "ann"
    anybody = model.log_likelihood(votes, wanted)
    model.partial_fit(np.repeat(votes, 5, axis=0), np.repeat(wanted, 5))
    assert model.log_likelihood(votes, wanted) > anybody + 0.02
    assert model.log_likelihood(votes, wanted, groups=["nobody knows"] * 12) == model.log_likelihood(votes, wanted)


@each
def test_a_single_vote_of_a_new_user_is_enough(method):
    X, y, user, _ = small()
    model = fitted(method, X, y, None, user).partial_fit(X[:1], y[:1], groups=["ann"])
    assert np.isfinite(model.decision_function(X, ["ann"] * 40)).all()
    once = model.decision_function(X, ["ann"] * 40)
    model.partial_fit(X[:1], y[:1], groups=["ann"], sample_weight=[0.5])
    other = fitted(method, X, y, None, user).partial_fit(X[:1], y[:1], groups=["ann"], sample_weight=[1.5])
    np.testing.assert_allclose(
        model.decision_function(X, ["ann"] * 40), other.decision_function(X, ["ann"] * 40), atol=1e-5
    )
    assert once.shape == (40,)


@each
def test_without_groups_all_are_anybody(method):
    X, y, _, weight = small()
    model = fitted(method, X, y, weight)
    assert model.converged_
    assert model.n_iter_ >= 1
    assert known_users(model) == []
    np.testing.assert_array_equal(model.decision_function(X, np.arange(40)), model.decision_function(X))


@each
def test_rows_without_weight_were_never_there(method):
    X, y, user, weight = small()
    gone = (user == 3) | (np.arange(40) % 7 == 0)
    model = fitted(method, X, y, np.where(gone, 0, weight), user)
    other = fitted(method, X[~gone], y[~gone], weight[~gone], user[~gone])
    np.testing.assert_allclose(model.decision_function(X, user), other.decision_function(X, user), atol=2e-5)


@each
def test_ties_are_nobodys_preference(method):
    X, _, user, _ = small()
    both, y = np.vstack([X, X]), np.repeat([1, 0], 40)
    if isinstance(method, HardMixture):  # to which a row without a user is an annotator with an opinion
        user = np.abs(user)
    model = fitted(method, both, y, np.full(80, 0.5), np.tile(user, 2))
    np.testing.assert_allclose(model.predict_proba(X, user), 0.5, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), 0.5, atol=1e-6)


def test_more_heads_than_users():
    X, y, _, _ = small()
    model = HardMixture(5, n_context_features=CONTEXT, random_state=0).fit(X, y, groups=np.arange(40) % 3)
    assert model.converged_
    assert model.weights_.sum() == pytest.approx(1)
    assert (model.weights_ > 0).sum() <= 3
    assert np.isfinite(model.log_likelihood(X, y))


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lower_precision_is_nearly_as_good(method, dtype):
    X, y, user, weight = small(n=80)
    loose = clone(method).set_params(tol=1e-5)
    stored = X.astype(dtype)
    low, high = fitted(loose, stored, y, weight, user), fitted(loose, stored.astype(float), y, weight, user)
    np.testing.assert_allclose(
        low.predict_proba(stored, user), high.predict_proba(stored.astype(float), user), atol=5e-3
    )


@each
def test_tensors_are_arrays(method):
    X, y, user, weight = small()
    tensor = torch.tensor(X)
    one = fitted(method, tensor, torch.tensor(y), torch.tensor(weight), torch.tensor(user))
    two = fitted(method, X, y, weight, user)
    np.testing.assert_array_equal(one.decision_function(tensor, user), two.decision_function(X, user))
    if hasattr(one, "rewards"):
        np.testing.assert_array_equal(
            one.rewards(tensor[:, CONTEXT:], tensor[:, :CONTEXT]), two.rewards(X[:, CONTEXT:], X[:, :CONTEXT])
        )


@linear
def test_differences_of_rewards_are_log_odds(method):
    X, y, user, weight = small()
    model = fitted(method, X, y, weight, user)
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 40, 3))
    pairs = np.hstack([X[:, :CONTEXT], first - second])
    for who in (None, user):
        found = model.rewards(first, X[:, :CONTEXT], who) - model.rewards(second, X[:, :CONTEXT], who)
        if isinstance(model, MeanVarianceRewards):
            np.testing.assert_allclose(found, model.utility_mean(pairs, who), atol=1e-12)
            assert (found * model.decision_function(pairs, who) > 0).all()
        else:
            np.testing.assert_allclose(found, model.decision_function(pairs, who), atol=1e-12)
    with pytest.raises(ValueError, match=r"expected features of shape \(n_responses, 3\).*got \(40, 5\)"):
        model.rewards(X)
    with pytest.raises(ValueError, match=r"expected context of shape \(40, 2\), got \(40, 3\)"):
        model.rewards(first, first)
    with pytest.raises(ValueError, match="NaN in row 0, column 0"):
        model.rewards(np.full((2, 3), np.nan))
    with pytest.raises(NotFittedError):
        clone(method).rewards(first)


def test_categories_have_no_rewards_of_single_responses():
    assert not hasattr(CategoricalRewards(), "rewards")


@each
def test_differences_of_zero_prefer_nothing_and_teach_nothing(method):
    X, y, user, _ = small()
    model = fitted(method, X, y, None, user)
    X[:, CONTEXT:] = 0
    np.testing.assert_array_equal(model.decision_function(X, user), 0)
    with pytest.raises(ValueError, match="every difference is zero"):
        fitted(method, X, y, None, user)


# --------------------------------------------------------------------------------------------------------- complaints


@each
def test_stopping_early_is_a_warning(method):
    X, y, user, _ = small(n=60)
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 (iterations|rounds).*Increase max_iter"):
        model = fitted(clone(method).set_params(max_iter=1), X, y, None, user)
    assert not model.converged_
    assert model.n_iter_ == 1


def test_newton_that_stops_early_is_a_warning(monkeypatch):
    X, y, user, _ = small()
    monkeypatch.setattr("micropref.baselines._rowspace._MAX_STEPS", 1)
    for method in (UserRewards(0.01), MeanVarianceRewards(variance_alpha=1e-6)):
        model = method.fit(10 * X, y)
        model.partial_fit(10 * X, y, groups=user)
        with pytest.warns(ConvergenceWarning, match="Newton's method for one user stopped"):
            model.decision_function(X, user)
    model = ContextNeighbors(n_context_features=CONTEXT, local_alpha=0.01).fit(10 * X, y)
    with pytest.warns(ConvergenceWarning, match="Newton's method around a context stopped"):
        model.decision_function(X)


BAD = [
    (method, name, value, wanted)
    for method in methods()
    for name, value, wanted in [
        ("alpha", 0.0, r"alpha: expected a number in \(0, 1e\+30\], got 0.0"),
        ("tol", -1, r"tol: expected a number in \(0, 1e\+30\]"),
        ("max_iter", 0, "max_iter: expected an integer of at least 1, got 0"),
        ("n_context_features", -1, "n_context_features: expected an integer of at least 0"),
        ("n_context_features", 5, "got n_context_features=5"),
        ("n_components", 0, "n_components: expected an integer of at least 1"),
        ("n_init", 0, "n_init: expected an integer of at least 1"),
        ("user_alpha", 0, "user_alpha: expected a number in"),
        ("variance_alpha", 0, "variance_alpha: expected a number in"),
        ("local_alpha", "big", "local_alpha: expected a number in"),
        ("rank", -1, "rank: expected an integer of at least 0"),
        ("n_atoms", 0, "n_atoms: expected an integer of at least 1"),
        ("largest", np.inf, "largest: expected a number in"),
        ("pooling", -0.1, r"pooling: expected a number in \[0, 1e\+30\], got -0.1"),
        ("n_neighbors", 0, "n_neighbors: expected an integer of at least 1"),
    ]
    if name in method.get_params()
]


@pytest.mark.parametrize(
    ("method", "name", "value", "wanted"), BAD, ids=lambda value: getattr(value, "alpha", None) and type(value).__name__
)
def test_parameters_out_of_range(method, name, value, wanted):
    X, y, _, _ = small()
    with pytest.raises(ValueError, match=wanted):
        clone(method).set_params(**{name: value}).fit(X, y)
