"""Rivals ask by their own rules: each rule is its equation, and its questions teach more than drawn pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from micropref import MixtureBradleyTerry
from micropref._rows.pair_keys import NoQuestionLeftError
from micropref.baselines import (
    DecomposedRewards,
    HypothesisReweighting,
    LowRankRewards,
    RewardFactorization,
    UserRewards,
)

D, K = 6, 3
AXES = np.eye(D)[:K] * 3.0


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(90), 10)
    X = generator.normal(size=(900, D))
    y = (generator.random(900) < expit((X * AXES[users % K]).sum(axis=1))).astype(int)
    return X, y, users


def make(name, rows):
    X, y, users = rows
    if name == "hyre":
        heads = MixtureBradleyTerry(K, n_init=2, random_state=0).fit(X, y, groups=users)
        return HypothesisReweighting(heads, temperature=1.5).fit(X, y)
    made = {
        "lore": LowRankRewards(K, random_state=0, weight_penalty=0.5),
        "users": UserRewards(user_alpha=2.0),
        "pref": RewardFactorization(K, refine=False),
    }[name]
    return made.fit(X, y, groups=users)


NAMES = ["hyre", "lore", "users", "pref"]


@pytest.fixture(scope="module", params=NAMES)
def model(request, rows):
    return request.param, make(request.param, rows)


def slope(margins):
    return expit(margins) * expit(-margins)


def ellipsoid(weights_of, theta, penalty, values, votes):
    """σ'² gᵀ P⁻¹ g with numerical gradients of the margins in θ."""

    def gradients(z):
        step = 1e-5 * np.eye(len(theta))
        return np.stack([z @ (weights_of(theta + e) - weights_of(theta - e)) / 2e-5 for e in step], axis=1)

    g, asked = gradients(values), gradients(votes)
    precision = penalty * np.eye(len(theta)) + (asked * slope(votes @ weights_of(theta))[:, None]).T @ asked
    return slope(values @ weights_of(theta)) ** 2 * np.einsum("np,pq,nq->n", g, np.linalg.inv(precision), g)


def softmax(theta):
    return np.exp(theta) / np.exp(theta).sum()


@pytest.mark.parametrize(("name", "weights_of", "penalty"), [("lore", softmax, 0.5), ("users", np.asarray, 2.0)])
def test_ellipsoids_are_their_equation(rows, name, weights_of, penalty):
    X, y, _ = rows
    model = make(name, rows).partial_fit(X[:6], y[:6], groups=["ann"] * 6)
    values = X @ model.coef_.T if name == "lore" else X
    expected = ellipsoid(weights_of, model._describe("ann"), penalty, values[10:40], values[:6])
    np.testing.assert_allclose(model.query_scores(X[10:40], ["ann"] * 30), expected, rtol=1e-4)


def test_disagreement_is_the_information_about_the_head(rows):
    X, y, _ = rows
    model = make("hyre", rows).partial_fit(X[:3], y[:3], groups=["ann"] * 3)
    weights, p = model.mixture_weights(X[:20], ["ann"] * 20), expit(X[:20] @ model.coef_.T / 1.5)
    entropy = lambda q: -q * np.log(q) - (1 - q) * np.log(1 - q)  # noqa: E731
    expected = entropy((weights * p).sum(axis=1)) - (weights * entropy(p)).sum(axis=1)
    np.testing.assert_allclose(model.query_scores(X[:20], ["ann"] * 20), expected, atol=1e-12)


def test_scores_and_suggestions(model, rows):
    X = rows[0]
    _, model = model
    scores = model.query_scores(X[:50])
    assert (scores >= 0).all()
    assert np.ptp(scores) > 0
    np.testing.assert_allclose(scores, model.query_scores(-X[:50]), rtol=1e-9)
    np.testing.assert_array_equal(scores, model.query_scores(X[:50], ["never seen"] * 50))
    assert model.suggest(X[:50], group="never seen").tolist() == [int(scores.argmax())]
    twice = np.concatenate([X[:6], -X[:6], X[:6]])
    chosen = model.suggest(twice, 6)
    assert sorted((chosen % 6).tolist()) == list(range(6))
    assert model.suggest(twice, 6).tolist() == chosen.tolist()


def test_a_pair_that_was_answered_is_not_asked_again(rows):
    X = rows[0]
    for name in NAMES:
        model = make(name, rows)
        for _ in range(4):
            row = model.suggest(X[:4], 1, "ann")
            model.partial_fit(-X[row], [1], groups=["ann"])
        with pytest.raises(NoQuestionLeftError):
            model.suggest(X[:4], 1, "ann")
        assert model.suggest(X[:5].astype(np.float32), 1, "ann").tolist() == [4]
        assert len(model.suggest(X[:4], 4, "bob")) == 4


def test_what_cannot_be_asked(model, rows):
    _, model = model
    for n_queries in (0, 6, 2.5, True, "1"):
        with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 5, .* got"):
            model.suggest(rows[0][:5], n_queries)
    with pytest.raises(ValueError, match="group: expected"):
        model.suggest(rows[0][:5], group=False)


def test_questions_teach_more_than_drawn_pairs(model):
    name, model = model
    generator = np.random.default_rng(1)
    test, found = generator.normal(size=(300, D)), {"asked": [], "drawn": []}
    for user in range(36):
        head, pool = AXES[user % K], generator.normal(size=(60, D))
        for how, scores in found.items():
            who = f"{how} {user}"
            for _ in range(3):
                row = model.suggest(pool, 1, who) if how == "asked" else generator.integers(60, size=1)
                model.partial_fit(pool[row], (pool[row] @ head > 0).astype(int), groups=[who])
            scores.append(model.score(test, test @ head > 0, groups=[who] * 300))
    difference = np.array(found["asked"]) - found["drawn"]
    assert difference.mean() > 1.5 * difference.std() / 6, (name, difference.mean(), difference.std() / 6)


def test_a_method_without_a_rule_has_none():
    assert not hasattr(DecomposedRewards(), "suggest")


@pytest.mark.parametrize("name", ["users", "pref"])
def test_a_batch_asks_in_several_directions(name, rows):
    """Each question counts as answered before the next one is chosen."""
    model = make(name, rows)
    best = rows[0][model.suggest(rows[0][:200], 1)]
    alike = best * np.array([[1.0], [1.001], [0.999]])
    others = np.random.default_rng(2).normal(size=(20, D))
    assert set(model.suggest(np.concatenate([alike, others]), 3).tolist()) - {0, 1, 2}
