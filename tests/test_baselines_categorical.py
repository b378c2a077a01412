"""CategoricalRewards: distributions that mirror exactly, and where they must win."""

from __future__ import annotations

import numpy as np
from rewards_cases import CONTEXT, SEEDS, calibration_error, loss, plain, small, votes_of
from scipy.special import expit, log_expit

from micropref.baselines import CategoricalRewards, HardMixture
from micropref.pairs import swap_pairs


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


def test_categories_mirror_exactly_for_every_user():
    X, y, _, _ = small(n=60)
    model = CategoricalRewards(3, n_context_features=CONTEXT, alpha=1e-3, user_alpha=1.0).fit(X, y)
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


def test_categories_have_no_rewards_of_single_responses():
    assert not hasattr(CategoricalRewards(), "rewards")
