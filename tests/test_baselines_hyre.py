"""HypothesisReweighting: its rule, its sources of heads, where it must win."""

from __future__ import annotations

import numpy as np
import pytest
from heads_cases import assert_best, compare, drawn_labels, normal, rows, standard
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from micropref.baselines import HypothesisReweighting, SharedBaseEnsemble
from micropref.baselines._base import known_users
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import make_pairs
from micropref.router import ContextRouter


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("average", ["rewards", "probabilities"])
def test_hyre_on_a_mixture_of_equal_weights_is_the_routers_history(temperature, average):
    D, y, users = rows()
    mixture = MixtureBradleyTerry(3, n_init=1, random_state=0).fit(D, y, groups=users)
    mixture.gate_parameters_ = [np.zeros(3)]
    names = np.where(np.arange(20) % 2, "ann", "bob").tolist()
    router = ContextRouter(mixture, history_temperature=temperature).partial_fit(D[:20], y[:20], groups=names)
    hyre = HypothesisReweighting(mixture, temperature=temperature, average=average)
    hyre.partial_fit(D[:20], y[:20], groups=names)
    # The router keeps its evidence in single precision.
    who = ["ann", "bob", "new"] * 20
    np.testing.assert_allclose(
        hyre.mixture_weights(D[:60], groups=who), router.mixture_weights(D[:60], groups=who), rtol=1e-5
    )
    np.testing.assert_allclose(
        hyre.rewards(D[:60], groups=who), router.rewards(D[:60], groups=who), rtol=1e-5, atol=1e-6
    )
    odds = hyre.decision_function(D[:60], groups=who)
    if average == "probabilities":
        np.testing.assert_allclose(odds, router.decision_function(D[:60], groups=who), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(odds, router.rewards(D[:60], groups=who), rtol=1e-5, atol=1e-6)


def test_weights_of_hyre_are_its_equation():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(3, n_init=1, random_state=0).fit(D, y, groups=users)
    hyre = HypothesisReweighting(mixture, temperature=1.7, prior="heads").fit(D, y)
    np.testing.assert_allclose(hyre.weights_, mixture.weights_, rtol=1e-12)
    weight = np.random.default_rng(0).uniform(0.1, 2, 7)
    hyre.partial_fit(D[:7], y[:7], sample_weight=weight, groups=["ann"] * 7)
    loss = np.logaddexp(0, -(2 * y[:7, None] - 1) * (D[:7] @ mixture.coef_.T))
    expected = mixture.weights_ * np.exp(-weight @ loss / 1.7)
    found = hyre.mixture_weights(D[:1], groups=["ann"])[0]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-10)


def test_hyre_of_its_own_is_the_ensemble():
    D, y, _ = rows()
    found = HypothesisReweighting(n_components=5, random_state=3).fit(D, y)
    ensemble = SharedBaseEnsemble(5, random_state=3).fit(D, y)
    given = HypothesisReweighting(ensemble).fit(D, y)
    for model in (found, ensemble, given):
        model.partial_fit(D[:9], y[:9], groups=[1] * 9)
    for model in (found, given):
        np.testing.assert_array_equal(model.coef_, ensemble.coef_)
        np.testing.assert_array_equal(
            model.decision_function(D, groups=np.ones(len(D))), ensemble.decision_function(D, groups=np.ones(len(D)))
        )


def test_random_heads_do_not_look_at_labels():
    D, y, _ = rows()
    first = HypothesisReweighting("random", n_components=50, random_state=1).fit(D, y)
    second = HypothesisReweighting("random", n_components=50, random_state=1).fit(D, 1 - y)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_allclose(np.sqrt((first.component_scores(D) ** 2).mean(axis=0)), 1, rtol=1e-9)
    assert first.heads_ is None


@pytest.mark.parametrize("seed", range(3))
def test_hypothesis_reweighting_wins_where_a_user_is_one_of_the_heads(seed):
    rng = np.random.default_rng(seed)
    heads = 5 / np.sqrt(8) * rng.normal(size=(6, 8))
    users = np.repeat(np.arange(300), 20)
    X = rng.normal(size=(6000, 8))
    y = drawn_labels(rng, np.einsum("nd,nd->n", X, heads[rng.integers(0, 6, 300)[users]]))
    candidates = standard(seed, X, y, users, n_components=6)
    found = compare(seed, 6, heads[rng.integers(0, 6, 100)], normal(8), candidates)
    assert_best(found, "hyre", accuracy=0.01, nats=0.025)
    assert found["hyre"][0] > found["single"][0] + 0.1


def test_given_heads_need_no_fit_and_lose_no_vote():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(D, y, groups=users)
    direct = HypothesisReweighting(mixture).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    first = HypothesisReweighting(mixture).fit(D, y, groups=users).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    for model in (direct, first):
        assert known_users(model) == ["ann"]
        np.testing.assert_array_equal(model.heads_.coef_, mixture.coef_)
        assert model.heads_ is not mixture
    np.testing.assert_array_equal(
        direct.decision_function(D, groups=["ann"] * len(D)), first.decision_function(D, groups=["ann"] * len(D))
    )
    words = HypothesisReweighting(mixture).partial_fit(D[:2], ["no", "no"], classes=["no", "yes"])
    assert words.classes_.tolist() == ["no", "yes"]
    assert set(words.predict(D)) == {"no", "yes"}


def test_heads_that_lost_their_fit_say_what_to_do():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(D, y, groups=users)
    model = HypothesisReweighting(mixture)
    for lost in (clone(model), HypothesisReweighting(FrozenEstimator(clone(mixture)))):
        with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
            lost.fit(D, y)
        with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
            lost.partial_fit(D, y)
    frozen = clone(HypothesisReweighting(FrozenEstimator(mixture), prefit=False)).fit(D, y)
    np.testing.assert_array_equal(frozen.coef_, mixture.coef_)


def test_heads_are_fitted_on_the_same_rows():
    D, y, users = rows()
    context = np.random.default_rng(0).normal(size=(len(D), 3))
    X = make_pairs(D, 0 * D, context=context)
    heads = MixtureBradleyTerry(2, n_context_features=2, n_init=1)
    model = HypothesisReweighting(heads, n_context_features=3, prefit=False, random_state=5)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(D))
    model.fit(X, y, sample_weight=weight, groups=users)
    by_hand = MixtureBradleyTerry(2, n_context_features=2, n_init=1, random_state=5)
    by_hand.fit(np.delete(X, 2, axis=1), y, sample_weight=weight, groups=users)
    np.testing.assert_allclose(model.coef_, by_hand.coef_, rtol=1e-9)
    assert not hasattr(heads, "coef_")
    # An estimator that knows nothing of annotators or seeds has heads, too.
    plain = HypothesisReweighting(LogisticRegression(fit_intercept=False), prefit=False, n_context_features=3)
    assert plain.fit(X, y).coef_.shape == (1, 4)


def test_heads_of_another_width():
    D, y, _ = rows()
    mixture = MixtureBradleyTerry(1).fit(D, y)
    with pytest.raises(ValueError, match=r"coef_ of shape \(n_components, 3\).*got \(1, 4\)"):
        HypothesisReweighting(mixture, n_context_features=1).fit(D, y)
