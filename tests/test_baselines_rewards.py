"""Rivals with rewards of their own: what must not matter to any of them, edges, complaints."""

from __future__ import annotations

import doctest
import pickle
from collections import Counter
from copy import deepcopy
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards_cases import CONTEXT, each, fitted, linear, methods, small, votes_of
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn_checks import assert_checks_pass

from micropref import baselines
from micropref.baselines import (
    CategoricalRewards,
    ContextNeighbors,
    GroupRewards,
    HardMixture,
    MeanVarianceRewards,
    RewardFactorization,
    UserRewards,
)
from micropref.baselines._base import known_users
from micropref.pairs import swap_pairs

MODULES = (
    "hard_mixture",
    "user_rewards",
    "mean_variance",
    "categorical",
    "neighbors",
    "group_rewards",
    "reward_factorization",
)


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


CLASSIFIERS = [
    HardMixture(2, n_init=1),
    UserRewards(),
    MeanVarianceRewards(rank=2),
    CategoricalRewards(),
    ContextNeighbors(n_neighbors=3, n_context_features=1),
    GroupRewards(),
    RewardFactorization(),
]


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=str)
def test_scikit_learn_checks(estimator):
    assert_checks_pass(estimator, 55)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    failed, attempted = doctest.testmod(import_module(f"micropref.baselines.{module}"))
    assert failed == 0
    assert attempted >= 6


def test_all_are_exported():
    assert {type(method).__name__ for method in methods()} <= set(baselines.__all__)


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


@each
def test_differences_of_zero_prefer_nothing_and_teach_nothing(method):
    X, y, user, _ = small()
    model = fitted(method, X, y, None, user)
    X[:, CONTEXT:] = 0
    np.testing.assert_array_equal(model.decision_function(X, user), 0)
    with pytest.raises(ValueError, match="every difference is zero"):
        fitted(method, X, y, None, user)


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
        ("alpha", 0.0, r"alpha: expected a number in \(0, 1e\+30\].*, got 0.0"),
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
