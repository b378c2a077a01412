"""RewardFactorization: its starts, its users, its questions, and where it must win."""

from __future__ import annotations

import numpy as np
import pytest
from heads_cases import compare, drawn_labels, normal, rows, training_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards_cases import SEEDS, plain
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.base import clone

from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.baselines import LowRankRewards, RewardFactorization, UserRewards
from micropref.baselines._factor_objective import FactorObjective
from micropref.baselines._factor_start import directions_of_shared_pairs, directions_of_votes, users_per_pair
from micropref.baselines._population import Population


def subspace(seed: int, n_users: int = 200, n_each: int = 15, d: int = 8, rank: int = 2, shared: bool = False):
    """Users whose rewards differ in `rank` directions."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(d, rank + 1)))[0].T
    tastes = 1.5 * axes[0] + 2.5 * rng.normal(size=(n_users, rank)) @ axes[1:]
    users = np.repeat(np.arange(n_users), n_each)
    pool = rng.normal(size=(20, d))
    D = pool[rng.integers(0, 20, len(users))] if shared else rng.normal(size=(len(users), d))
    return D, drawn_labels(rng, np.einsum("nd,nd->n", D, tastes[users])), users, axes, tastes


def overlap(found: np.ndarray, planted: np.ndarray) -> float:
    """Smallest cosine between planted directions and the space of those that were found."""
    return float(np.linalg.svd(np.linalg.qr(found.T)[0].T @ planted.T, compute_uv=False).min())


@SEEDS
@pytest.mark.parametrize("init", ["votes", "svd"])
def test_the_start_finds_the_planted_subspace(seed, init):
    D, y, users, axes, _ = subspace(seed, shared=init == "svd")
    model = RewardFactorization(3, init=init, refine=False).fit(D, y, groups=users)
    assert model.init_ == init
    assert not model.refined_
    assert overlap(model.coef_, axes) > (0.93 if init == "votes" else 0.8)  # directions of 20 pairs
    auto = RewardFactorization(3, refine=False).fit(D, y, groups=users)
    assert auto.init_ == init  # answers to shared pairs are recognised


def test_a_refined_basis_has_a_smaller_loss_and_is_nearer_the_truth():
    D, y, users, axes, _ = subspace(1, n_each=40)
    coarse, fine = (RewardFactorization(3, refine=r).fit(D, y, groups=users) for r in (False, True))
    assert fine.refined_
    assert fine.n_iter_ > coarse.n_iter_ > 0
    assert fine.converged_
    assert overlap(fine.coef_, axes) > overlap(coarse.coef_, axes)
    assert RewardFactorization(3).fit(D, y, groups=users).refined_ in (True, False)


@SEEDS
def test_it_wins_where_users_lie_in_a_subspace(seed):
    D, y, users, axes, _ = subspace(seed, d=24)
    rng = np.random.default_rng(seed + 1)
    heads = 1.5 * axes[0] + 2.5 * rng.normal(size=(100, 2)) @ axes[1:]
    candidates = {
        "pref": RewardFactorization(3).fit(D, y, groups=users),
        "users": UserRewards().fit(D, y, groups=users),
        "single": LowRankRewards(1).fit(D, y),
    }
    found = compare(seed, 8, heads, normal(24), candidates)
    for name in ("users", "single"):
        assert found["pref"][0] > found[name][0] + 0.02, found
        assert found["pref"][1] > found[name][1] + 0.03, found


def test_the_populations_prior_mends_the_first_labels():
    D, y, users, axes, _ = subspace(0)
    rng = np.random.default_rng(5)
    heads = 1.5 * axes[0] + 2.5 * rng.normal(size=(100, 2)) @ axes[1:]
    candidates = {
        prior: RewardFactorization(3, user_prior=prior).fit(D, y, groups=users) for prior in ("population", "none")
    }
    found = compare(0, 2, heads, normal(8), candidates)
    assert found["population"][1] > found["none"][1] + 0.1


def test_the_gradient_is_that_of_the_loss():
    train = training_rows(0)
    n_users = train.groups.n_groups
    objective = FactorObjective(train, train.groups.index, n_users, 2, 0.03)
    rng = np.random.default_rng(0)
    at, step = rng.normal(size=2 * 4 + 2 + 2 * n_users), rng.normal(size=2 * 4 + 2 + 2 * n_users)
    _, gradient = objective.value_and_gradient(at)
    for h in (1e-4, 1e-5):
        slope = (
            (objective.value_and_gradient(at + h * step)[0] - objective.value_and_gradient(at - h * step)[0]) / 2 / h
        )
        assert slope == pytest.approx(gradient @ step, rel=1e-6)
    basis, centre, apart = objective.unpack(at)
    weights = np.where(train.groups.index[:, None] >= 0, (centre + apart)[train.groups.index], centre)
    margins = train.dense_signs * np.einsum("nk,nk->n", weights, train.difference @ basis.T)
    expected = (train.dense_weight @ np.logaddexp(0, -margins) + 0.5 * (apart**2).sum() + 0.5 * centre @ centre) / (
        train.total_weight
    ) + 0.015 * (basis**2).sum()
    assert objective.value_and_gradient(at)[0] == pytest.approx(expected, rel=1e-10)


def test_a_users_weights_are_their_penalised_logistic_regression():
    D, y, users, _, _ = subspace(2)
    model = RewardFactorization(3, refine=False).fit(D, y, groups=users)
    votes, said = D[:7], y[:7]
    model.partial_fit(votes, said, groups=["ann"] * 7)
    values, precision = votes @ model.coef_.T, np.linalg.inv(model.covariance_)

    def slow(weights):
        apart = weights - model.weights_
        return np.logaddexp(0, -(2 * said - 1) * (values @ weights)).sum() + 0.5 * apart @ precision @ apart

    twin = minimize(slow, model.weights_, method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(model._describe("ann"), twin.x, atol=1e-4)
    np.testing.assert_allclose(
        model.decision_function(D[:50], groups=["ann"] * 50), D[:50] @ model.coef_.T @ twin.x, atol=1e-3
    )


def test_moments_of_planted_weights_are_found():
    rng = np.random.default_rng(0)
    mean, root = np.array([1.0, -0.5]), np.array([[1.2, 0.0], [0.6, 0.5]])
    weights = mean + rng.normal(size=(600, 2)) @ root.T
    index = np.repeat(np.arange(600), 30)
    values = rng.normal(size=(len(index), 2))
    signs = np.where(rng.random(len(index)) < expit(np.einsum("nk,nk->n", values, weights[index])), 1.0, -1.0)
    found = Population(values, signs, np.ones(len(index)), index, 600).fit()
    np.testing.assert_allclose(found.mean, mean, atol=0.25)  # Laplace's approximation shrinks it
    np.testing.assert_allclose(found.covariance, root @ root.T, atol=0.45)


def test_without_annotators_it_is_the_bradley_terry_model():
    D, y, _ = rows()
    model = RewardFactorization(3, alpha=0.01, tol=1e-9).fit(D, y)
    assert model.init_ == "none"
    assert model.n_components_ == 1
    np.testing.assert_allclose(
        model.decision_function(D), plain(alpha=0.01, tol=1e-9).fit(D, y).decision_function(D), atol=1e-4
    )


# ------------------------------------------------------------------------------------------------------------ questions


def test_scores_of_questions_are_the_equation():
    D, y, users, _, _ = subspace(3)
    model = RewardFactorization(3).fit(D, y, groups=users).partial_fit(D[:5], y[:5], groups=["ann"] * 5)
    Z, weights = D[:40] @ model.coef_.T, model._describe("ann")
    asked = D[:5] @ model.coef_.T
    slope = expit(asked @ weights) * expit(-asked @ weights)
    precision = np.linalg.inv(model.covariance_) + (asked * slope[:, None]).T @ asked
    expected = (expit(Z @ weights) * expit(-Z @ weights)) ** 2 * np.einsum(
        "nk,kl,nl->n", Z, np.linalg.inv(precision), Z
    )
    np.testing.assert_allclose(model.query_scores(D[:40], groups=["ann"] * 40), expected, rtol=1e-6)
    np.testing.assert_allclose(model.query_scores(-D[:40], groups=["ann"] * 40), expected, rtol=1e-6)
    assert model.suggest(D[:40], group="ann").tolist() == [int(expected.argmax())]
    unknown = model.query_scores(D[:40], groups=["nobody"] * 40)
    np.testing.assert_array_equal(unknown, model.query_scores(D[:40]))
    assert unknown.mean() > expected.mean()


def test_a_batch_of_questions_does_not_ask_the_same_twice():
    D, y, users, _, _ = subspace(4)
    model = RewardFactorization(3).fit(D, y, groups=users)
    best = int(model.suggest(D[:60])[0])
    pool = np.vstack([np.repeat(D[best : best + 1], 5, axis=0), D[:60]])
    chosen = model.suggest(pool, 4)
    assert len(set(chosen.tolist())) == 4
    assert sum(np.array_equal(pool[i], D[best]) for i in chosen[:2]) == 1


@pytest.mark.parametrize("n_queries", [0, 4, 1.5, True])
def test_a_number_of_questions_that_cannot_be(n_queries):
    D, y, users, _, _ = subspace(0, n_users=20)
    model = RewardFactorization(2, refine=False).fit(D, y, groups=users)
    with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 3, .* got"):
        model.suggest(D[:3], n_queries)


@SEEDS
def test_its_questions_teach_more_than_drawn_ones(seed):
    D, y, users, axes, _ = subspace(seed)
    model = RewardFactorization(3, refine=False).fit(D, y, groups=users)
    rng = np.random.default_rng(seed + 7)
    heads = 1.5 * axes[0] + 2.5 * rng.normal(size=(40, 2)) @ axes[1:]
    pool, test = rng.normal(size=(100, 8)), rng.normal(size=(400, 8))
    found = {}
    for strategy in ("ask", "draw"):
        learner, score = clone(model).fit(D, y, groups=users), []
        for u, head in enumerate(heads):
            name = f"{strategy}{u}"
            which = learner.suggest(pool, 4, name) if strategy == "ask" else rng.permutation(100)[:4]
            learner.partial_fit(pool[which], (pool[which] @ head > 0).astype(int), groups=[name] * 4)
            score.append(learner.score(test, test @ head > 0, groups=[name] * 400))
        found[strategy] = np.mean(score)
    assert found["ask"] > found["draw"] + 0.01, found


# --------------------------------------------------------------------------------------------------------------- starts


def test_the_two_starts_agree_where_all_answer_the_same_orthogonal_pairs():
    rng = np.random.default_rng(0)
    pool = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    users = np.repeat(np.arange(50), 12)
    tastes = rng.normal(size=(50, 3)) @ np.linalg.qr(rng.normal(size=(12, 3)))[0].T
    D = np.tile(pool, (50, 1))
    y = np.einsum("nd,nd->n", D, tastes[users]) > 0
    flipped = np.where(rng.random(len(D)) < 0.5, -1.0, 1.0)
    signs = (np.where(y, 1, -1) * flipped).astype(np.int8)
    train = Comparisons(PairReader(D * flipped[:, None], 0), signs, None, check_groups(users, len(D)))
    index = train.groups.index
    assert users_per_pair(train, index) == 50
    first, second = (start(train, index, 50, 3) for start in (directions_of_votes, directions_of_shared_pairs))
    assert overlap(first, second / np.linalg.norm(second, axis=1, keepdims=True)) > 1 - 1e-6


@given(seed=st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_scale_names_order_and_orientation_change_nothing(seed):
    D, y, users, _, _ = subspace(seed, n_users=40, n_each=6, d=4)
    rng = np.random.default_rng(seed)
    order, flip = rng.permutation(len(D)), np.where(rng.random(len(D)) < 0.5, -1, 1)
    model = RewardFactorization(3, refine=False)
    one = clone(model).fit(D, y, groups=users)
    other = clone(model).fit(
        10 * (flip[:, None] * D)[order], np.where(flip > 0, y, 1 - y)[order], groups=(users + 7)[order]
    )
    expected = one.predict_proba(D, groups=users)
    np.testing.assert_allclose(other.predict_proba(10 * D, groups=users + 7), expected, atol=1e-3)


def test_bad_parameters():
    D, y, users = rows()
    for parameter, value, wanted in (
        ("init", "best", "init: expected one of 'auto', 'svd', 'votes', got 'best'"),
        ("user_prior", "flat", "user_prior: expected one of"),
        ("refine", "yes", "refine: expected True, False or 'auto', got 'yes'"),
        ("n_components", 0, "n_components: expected an integer of at least 1"),
        ("alpha", 0, "alpha: expected .*a number"),
    ):
        with pytest.raises(ValueError, match=wanted):
            RewardFactorization(**{parameter: value}).fit(D, y, groups=users)
