"""LowRankRewards: its objective, what it equals, where it must win."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from heads_cases import assert_best, compare, drawn_labels, normal, rows, standard, training_rows
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from micropref.baselines import LowRankRewards
from micropref.baselines._base import known_users
from micropref.baselines._low_rank_objective import LowRankObjective, WeightObjective


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_gradient_of_low_rank_rewards(seed, n_components):
    data = training_rows(seed)
    objective = LowRankObjective(
        data, data.groups.index, data.groups.n_groups, n_components, alpha=0.3, weight_penalty=2.0
    )
    assert objective.has_weights == (n_components > 1)
    vector = np.random.default_rng(seed).normal(size=len(objective.scale()))
    value = lambda v: objective.value_and_gradient(v)[0]  # noqa: E731
    gradient = lambda v: objective.value_and_gradient(v)[1]  # noqa: E731
    error = check_grad(value, gradient, vector, epsilon=1e-6)
    assert error < 1e-6 * max(1.0, np.linalg.norm(gradient(vector)))


def test_objective_of_low_rank_rewards_is_its_equation():
    data = training_rows(1)
    objective = LowRankObjective(data, data.groups.index, data.groups.n_groups, 3, alpha=0.3, weight_penalty=2.0)
    vector = np.random.default_rng(0).normal(size=len(objective.scale()))
    basis, center, offsets = objective.unpack(vector)
    total = 0.0
    for i, user in enumerate(data.groups.index):
        weights = softmax(center + (offsets[user] if user >= 0 else 0))
        total += data.weight[i] * np.logaddexp(0, -data.signs[i] * weights @ basis @ data.difference[i])
    total += (offsets**2).sum() + (center**2).sum()
    expected = total / data.weight.sum() + 0.5 * 0.3 / 3 * (basis**2).sum()
    assert objective.value_and_gradient(vector)[0] == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_gradient_of_one_users_weights(seed, n_components, n_votes):
    rng = np.random.default_rng(seed)
    objective = WeightObjective(
        3 * rng.normal(size=(n_votes, n_components)),
        rng.uniform(0.1, 3, n_votes),
        rng.normal(size=n_components),
        rng.uniform(0, 3),
    )
    logits = rng.normal(size=n_components)
    error = check_grad(
        lambda v: objective.value_and_gradient(v)[0],
        lambda v: objective.value_and_gradient(v)[1],
        logits,
        epsilon=1e-6,
    )
    assert error < 1e-5


def test_identical_users_share_one_reward_whatever_the_rank():
    D, y, _ = rows(n_users=100)
    users = np.zeros(len(D), dtype=int)
    found = LowRankRewards(3, alpha=1e-3, weight_penalty=1e6, n_init=1, random_state=0).fit(D, y, groups=users)
    expected = LowRankRewards(1, alpha=1e-3).fit(D, y)
    np.testing.assert_allclose(found.decision_function(D), expected.decision_function(D), atol=1e-3)


def test_new_users_get_what_joint_training_gave_the_same_votes():
    D, y, users = rows(n_users=60, n_each=10)
    model = LowRankRewards(2, alpha=1e-3, weight_penalty=3.0, random_state=0, tol=1e-8, max_iter=3000).fit(
        D, y, groups=users
    )
    assert known_users(model) == list(range(60))
    joint = model.mixture_weights(D, groups=users)
    model.partial_fit(D, y, groups=users + 1000)
    np.testing.assert_allclose(model.mixture_weights(D, groups=users + 1000), joint, atol=1e-4)
    assert joint[:, 0].std() > 0.05
    # The mean of users is in their logits, and is what a stranger gets.
    stranger = model.mixture_weights(D[:1], groups=["stranger"])
    np.testing.assert_array_equal(stranger[0], model.weights_)
    each = np.log(joint[::10])
    center = (each - each.mean(axis=1, keepdims=True)).sum(axis=0) / 61  # and of one who is at equal weights
    np.testing.assert_allclose(softmax(center), model.weights_, atol=1e-4)
    assert model.weights_[0] >= model.weights_[1]


@pytest.mark.parametrize("seed", range(3))
def test_low_rank_rewards_win_where_users_combine_rewards(seed):
    rng = np.random.default_rng(seed)
    basis = 10 / np.sqrt(8) * rng.normal(size=(3, 8))
    users = np.repeat(np.arange(300), 30)
    X = rng.normal(size=(9000, 8))
    y = drawn_labels(rng, np.einsum("nd,nd->n", X, (rng.dirichlet(np.ones(3), 300) @ basis)[users]))
    candidates = standard(seed, X, y, users)
    found = compare(seed, 20, rng.dirichlet(np.ones(3), 100) @ basis, normal(8), candidates)
    assert_best(found, "lore", accuracy=0.008, nats=0.015)
    assert found["lore"][0] > found["single"][0] + 0.03


def test_more_heads_than_users_and_users_without_weight():
    D, y, users = rows(n_users=3)
    model = LowRankRewards(8, random_state=0).fit(D, y, groups=users)
    assert model.mixture_weights(D, groups=users).shape == (18, 8)
    weight = np.where(users == 1, 0.0, 1.0)
    some = LowRankRewards(3, random_state=0).fit(D, y, sample_weight=weight, groups=users)
    assert known_users(some) == [0, 2]
    np.testing.assert_array_equal(some.mixture_weights(D[:1], groups=[1])[0], some.weights_)
    left = LowRankRewards(3, random_state=0).fit(D[weight > 0], y[weight > 0], groups=users[weight > 0])
    np.testing.assert_allclose(some.coef_, left.coef_, rtol=1e-6, atol=1e-9)
    none = LowRankRewards(3).fit(D, y, sample_weight=np.r_[0, np.ones(17)], groups=["a"] + [None] * 17)
    assert known_users(none) == []
    assert none.n_iter_ > 0


def test_without_penalties_of_the_weights_one_vote_decides():
    D, y, users = rows(n_users=60, n_each=10)
    model = LowRankRewards(2, random_state=0, tol=1e-4).fit(D, y, groups=users)
    model.set_params(weight_penalty=0.0).partial_fit(D[:1], y[:1], groups=["ann"])
    assert model.mixture_weights(D[:1], groups=["ann"]).max() > 0.99  # the paper's rule: a corner of the simplex


def test_lore_starts_nobody_by_the_order_of_rows():
    """More components than kinds of users: another start would end elsewhere."""
    rng = np.random.default_rng(5)
    X, user = rng.normal(size=(400, 6)), np.arange(400) // 10
    y = (X[:, 0] * np.where(user % 2, 1, -1) + rng.normal(size=400) > 0).astype(int)
    order, names = rng.permutation(400), rng.permutation(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LowRankRewards(4, random_state=0, max_iter=2000).fit(X, y, groups=user)
        other = LowRankRewards(4, random_state=0, max_iter=2000).fit(X[order], y[order], groups=names[user[order]])
    found = model.decision_function(X, groups=user)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(other.decision_function(X, groups=names[user]), found, atol=0.05)


def test_votes_without_weight_were_never_cast():
    rng = np.random.default_rng(6)
    X, user = rng.normal(size=(60, 3)), np.arange(60) // 6
    model = LowRankRewards(2, random_state=0).fit(X, rng.integers(0, 2, 60), groups=user)
    before = model.decision_function(X, groups=["new"] * 60)
    model.partial_fit(X[:5], [1] * 5, sample_weight=[0.0] * 5, groups=["new"] * 5)
    np.testing.assert_array_equal(model.decision_function(X, groups=["new"] * 60), before)
