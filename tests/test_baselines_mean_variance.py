"""MeanVarianceRewards: normal tastes, their posterior, where they must win."""

from __future__ import annotations

import numpy as np
import pytest
from rewards_cases import CONTEXT, SEEDS, calibration_error, loss, plain, small, votes_of
from scipy.special import expit

from micropref.baselines import MeanVarianceRewards, UserRewards


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


def test_sure_tastes_are_bradley_terry():
    X, y, _, weight = small(n=80)
    single = plain(n_context_features=CONTEXT, alpha=0.02, tol=1e-9).fit(X, y, weight)
    model = MeanVarianceRewards(1, n_context_features=CONTEXT, alpha=0.02, variance_alpha=1e6, tol=1e-9, random_state=0)
    np.testing.assert_allclose(model.fit(X, y, weight).decision_function(X), single.decision_function(X), atol=1e-4)
    assert model.hidden_context_share(X) < 1e-4


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
