"""GroupRewards: the ceiling, alone and pooled."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from rewards_cases import CONTEXT, SEEDS, loss, plain, small, votes_of
from sklearn.exceptions import ConvergenceWarning

from micropref.baselines import GroupRewards, HardMixture, UserRewards


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
