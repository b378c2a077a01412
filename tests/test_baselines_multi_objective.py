"""MultiObjectiveRewards: what it minimises, where ratings help and where their bias hurts, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_cases import Rated, ratings_for
from scipy.optimize import check_grad
from scipy.special import expit, softmax
from sklearn.linear_model import Ridge
from sklearn_checks import assert_checks_pass

from micropref import ContextRouter, MixtureBradleyTerry, load, save
from micropref._engine.gates import Gate
from micropref.baselines import MultiObjectiveRewards
from micropref.baselines._gated_scores import GatedScores
from micropref.baselines._ridge import fit_score_heads
from micropref.pairs import swap_pairs

A, D = 3, 8


@pytest.mark.parametrize("n_context", [0, 1])
def test_scikit_learn_checks_pass(n_context):
    # The weights of a gate that hardly matter are found to the precision of the loss: 2e-7 apart, where 1e-7 is asked.
    loose = {"check_sample_weight_equivalence_on_dense_data"} if n_context else ()
    assert_checks_pass(Rated(n_context_features=n_context), 55, may_fail=loose)


def test_a_repeated_row_equals_weight_two():
    (X, y, _), (new, _, _), ratings, _ = world(0, 0.0, n=200)
    weight = np.where(np.arange(200) < 80, 2.0, 1.0)
    twice = np.r_[:80, :200]
    model = MultiObjectiveRewards(n_context_features=A, tol=1e-8)
    weighted = model.fit(X, y, weight, ratings=ratings).decision_function(new)
    repeated = model.fit(X[twice], y[twice], ratings=ratings).decision_function(new)
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- worlds


def world(seed: int, bias: float, n: int = 600):
    """Attributes that count in one context each; raters follow them, and `bias` times an unwanted attribute."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(D, D)))[0]
    attributes, halo = axes[:A], axes[A]
    responses = 2 * rng.normal(size=(500, D))
    scores = responses @ attributes.T + bias * (responses @ halo)[:, None] + 0.5 * rng.normal(size=(500, A))

    def comparisons(n):
        d, context = 2 * rng.normal(size=(n, D)), rng.integers(A, size=n)
        y = (rng.random(n) < expit(1.5 * (d * attributes[context]).sum(axis=1))).astype(int)
        return np.hstack([2 * np.eye(A)[context] + 0.1 * rng.normal(size=(n, A)), d]), y, context

    return comparisons(n), comparisons(3000), (responses, scores), attributes


def routed(train, labels) -> ContextRouter:
    """MiCRo: heads from annotators of six pairs each, who are in one context, and a router of 50 labels a context."""
    X, y, context = train
    order = np.argsort(context, kind="stable")
    X, y, context = X[order], y[order], context[order]
    annotator = 1000 * context + np.arange(len(y)) // 6
    heads = MixtureBradleyTerry(A, random_state=0).fit(X[:, A:], y, groups=annotator)
    return ContextRouter(heads, random_state=0).fit(*labels)


@pytest.mark.parametrize(("bias", "wins"), [(0.0, True), (3.0, False)])
def test_ratings_win_where_they_are_unbiased_and_lose_where_they_are_not(bias, wins):
    gains, shares = [], []
    for seed in range(3):
        train, (X, y, context), ratings, attributes = world(seed, bias)
        model = MultiObjectiveRewards(n_context_features=A).fit(*train[:2], ratings=ratings)
        few = np.concatenate([np.flatnonzero(train[2] == k)[:50] for k in range(A)])
        micro = routed(train, (train[0][few], train[1][few]))
        gains.append(model.score(X, y) - micro.score(X, y))
        planted = (((X[:, A:] * attributes[context]).sum(axis=1) > 0) == y).mean()
        shares.append(model.score(X, y) / planted)
        weights = model.mixture_weights(X)
        if wins:
            assert (weights.argmax(axis=1) == context).mean() > 0.99
    assert all(gain > 0.002 for gain in gains) if wins else all(gain < -0.03 for gain in gains), gains
    assert (min(shares) > 0.98) == wins, shares


def test_without_contexts_the_weights_are_the_same_for_all():
    (X, y, _), _, ratings, _ = world(0, 0.0)
    model = MultiObjectiveRewards().fit(X[:, A:], y, ratings=ratings)
    weights = model.mixture_weights(X[:5, A:])
    np.testing.assert_allclose(weights, np.repeat(weights[:1], 5, axis=0))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights > 0).all()


def test_an_attribute_that_counts_against_a_response_cannot_be_learned():
    rng = np.random.default_rng(0)
    d, responses = rng.normal(size=(400, 2)), rng.normal(size=(200, 2))
    model = MultiObjectiveRewards().fit(d, d[:, 0] < 0, ratings=(responses, responses[:, :1]))
    assert model.score(d, d[:, 0] < 0) < 0.05  # one attribute, and its weight is one
    assert model.scale_ < 0.05


# ------------------------------------------------------------------------------------------------------- mathematics


def test_heads_are_ridge_regressions_in_units_of_the_scores():
    rng = np.random.default_rng(1)
    features, scores = rng.normal(size=(60, 5)) + 3, rng.normal(size=(60, 2)) * [1, 20] + [5, -3]
    scores[:20, 1] = np.nan
    heads = fit_score_heads(features, scores, 0.1)
    for one, rows in ((0, slice(None)), (1, slice(20, None))):
        spread = scores[rows, one].std()
        theirs = Ridge(0.1 * len(features[rows])).fit(features[rows], scores[rows, one] / spread)
        np.testing.assert_allclose(heads.coef[one], theirs.coef_ * spread, rtol=1e-9)
        np.testing.assert_allclose(heads.intercept[one], theirs.intercept_ * spread, rtol=1e-9)


@pytest.mark.parametrize("n", [30, 200])
def test_the_penalty_is_that_of_generalised_cross_validation(n):
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, 60)) * np.linspace(2, 0.1, 60)
    scores = features[:, :1] + 2 * rng.normal(size=(n, 1))
    auto = fit_score_heads(features, scores, "auto")
    centred, values = features - features.mean(axis=0), (scores[:, 0] - scores.mean()) / scores.std()

    def criterion(alpha):
        hat = centred @ np.linalg.solve(centred.T @ centred / n + alpha * np.eye(60), centred.T) / n
        return ((values - hat @ values) ** 2).mean() / (1 - (1 + np.trace(hat)) / n) ** 2

    chosen = auto.alpha[0]
    assert criterion(chosen) <= min(criterion(chosen * 10**0.5), criterion(chosen / 10**0.5)) + 1e-12
    np.testing.assert_allclose(auto.coef, fit_score_heads(features, scores, chosen).coef, rtol=1e-9)


@pytest.mark.parametrize("n_context", [0, 2])
def test_the_gradient_is_that_of_the_loss(n_context):
    rng = np.random.default_rng(2)
    n, gate = 30, Gate(n_context, A)
    size = sum(int(np.prod(shape)) for shape in gate.shapes)
    objective = GatedScores(
        gate=gate,
        context=rng.normal(size=(n, n_context)),
        margins=rng.normal(size=(A, n)),
        signs=rng.choice([-1.0, 1.0], n),
        share=rng.dirichlet(np.ones(n)),
        penalties=rng.random(size),
        scale_penalty=0.3,
    )
    start = rng.normal(size=size + 1)
    error = check_grad(
        lambda v: objective.value_and_gradient(v)[0], lambda v: objective.value_and_gradient(v)[1], start
    )
    assert error < 1e-6
    value = objective.value_and_gradient(start)[0]
    logits = start[-1 - A : -1, None] + (start[:-1][: A * n_context].reshape(A, -1) @ objective.context.T)
    odds = np.exp(start[-1]) * (softmax(logits, axis=0) * objective.margins).sum(axis=0) * objective.signs
    expected = -(np.log(expit(odds)) @ objective.share) + 0.5 * objective.penalties @ start[:-1] ** 2
    assert value == pytest.approx(expected + 0.15 * np.exp(2 * start[-1]))


def test_a_swap_negates_and_rewards_are_those_of_single_responses():
    (X, y, _), _, ratings, _ = world(0, 0.0, n=200)
    model = MultiObjectiveRewards(n_context_features=A).fit(X, y, ratings=ratings)
    model.partial_fit(X[:9], y[:9], groups=["ann"] * 9)
    user = np.array(["ann", "bob"] * 100)
    for groups in (None, user):
        odds = model.decision_function(X, groups)
        np.testing.assert_array_equal(model.decision_function(swap_pairs(X, A), groups), -odds)
        first, second = X[:, A:] + 1.0, np.ones((len(X), D))
        gap = model.rewards(first, X[:, :A], groups) - model.rewards(second, X[:, :A], groups)
        np.testing.assert_allclose(gap, odds, atol=1e-9)
    assert np.abs(model.decision_function(X, user) - model.decision_function(X)).max() > 0.05
    features, scores = ratings
    assert np.corrcoef(model.predict_scores(features).ravel(), scores.ravel())[0, 1] > 0.9
    assert model.score_alpha_.shape == model.score_deviation_.shape == (A,)


def test_votes_move_the_weights_of_their_user_alone_and_by_bayes_rule():
    (X, y, context), _, ratings, _ = world(1, 0.0)
    D_only = X[:, A:]
    model = MultiObjectiveRewards(user_precision=0.5).fit(D_only, y, ratings=ratings)
    before = model.decision_function(D_only)
    ann = np.flatnonzero(context == 1)[:60]
    model.partial_fit(D_only[ann], y[ann], groups=["ann"] * len(ann))
    np.testing.assert_array_equal(model.decision_function(D_only), before)
    weights = model.mixture_weights(D_only[:1], ["ann"])[0]
    assert weights.argmax() == 1
    # The gradient of the log-posterior is zero: change = user_precision⁻¹ Σ ∂ log σ(…)/∂ logits.
    change = np.log(weights) - np.log(model.mixture_weights(D_only[:1])[0])
    margins = model.scale_ * D_only[ann] @ (model.coef_ / model.score_deviation_[:, None]).T
    mean = margins @ weights
    signs = 2 * y[ann] - 1
    pull = ((signs * expit(-signs * mean))[:, None] * weights * (margins - mean[:, None])).sum(axis=0)
    np.testing.assert_allclose(0.5 * (change - change.mean()), pull - pull.mean(), atol=1e-3)


# ---------------------------------------------------------------------------------------------------------- complaints


def test_without_ratings_it_says_what_it_needs():
    X, y = np.eye(4), [1, 0, 1, 0]
    model = MultiObjectiveRewards()
    for call in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"ratings: expected \(features, scores\).*fit\(X, y, ratings="):
            call(X, y)
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (np.ones((2, 3)), r"expected \(features, scores\), got a ndarray"),
        ("ab", r"expected \(features, scores\), got a str"),
        ((np.ones((3, 5)), np.ones(3)), r"expected features of shape \(n_responses, 4\)"),
        ((np.ones((3, 4)), np.ones(2)), r"expected scores of shape \(3, n_attributes\).*got \(2, 1\)"),
        ((np.ones((3, 4)), np.ones((3, 0))), "expected scores of shape"),
        ((np.ones((3, 4)), ["a", "b", "c"]), "expected scores that are numbers"),
        ((np.ones((3, 4)), [1, 2, np.inf]), "expected scores of at most 1e\\+30, or NaN"),
        ((np.ones((3, 4)), [2.0, 2.0, np.nan]), "two different scores of every attribute at least, got 2 equal ones"),
        ((np.ones((3, 4)), [np.nan] * 3), "at least, got no score in column 0"),
        ((np.ones((3, 4)), np.ma.array([1.0, 2, 3], mask=True)), "at least, got no score in column 0"),
        ((np.ones((3, 4)), [[1, np.nan], [2, 5], [3, np.nan]]), "at least, got one score in column 1"),
        ((np.ones((3, 4)), [0.1, 0.1, 0.1]), "at least, got 3 equal ones in column 0"),
        ((np.ones((3, 4)), np.array([0, 1, 2]) + 1e10), "at least, got scores whose spread is lost to rounding"),
        ((np.ones((3, 4)), np.array([0, 1, 2]) * 1e-300), "at least, got scores whose spread is lost to rounding"),
        ((np.ma.array(np.ones((3, 4)), mask=np.eye(3, 4)), [1, 2, 3]), "expected an array without masked entries"),
        ((np.full((3, 4), np.nan), [1, 2, 3]), "NaN"),
    ],
)
def test_bad_ratings_are_refused(ratings, message):
    with pytest.raises(ValueError, match=message):
        MultiObjectiveRewards().fit(np.eye(4), [1, 0, 1, 0], ratings=ratings)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("flat", [True, False])
def test_scores_behind_a_mask_are_missing_ones(dtype, flat):
    (X, y, _), _, (features, scores), _ = world(0, 0.0, n=100)
    scores = np.round(10 * scores[:, 0] if flat else 10 * scores).astype(dtype)
    hidden = np.random.default_rng(0).random(scores.shape) < 0.3
    masked = np.ma.array(np.where(hidden, 99, scores).astype(dtype), mask=hidden)
    missing = np.where(hidden, np.nan, scores.astype(np.float64))
    models = [MultiObjectiveRewards(n_context_features=A).fit(X, y, ratings=(features, s)) for s in (masked, missing)]
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
    with pytest.raises(ValueError, match="context: expected an array without masked entries"):
        models[0].rewards(features[:2], np.ma.array(np.ones((2, A)), mask=np.eye(2, A)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3])
@pytest.mark.parametrize("alpha", ["auto", 1e-3])
def test_a_head_that_learned_nothing_is_reported(value, alpha):
    rng = np.random.default_rng(0)
    features, scores = rng.normal(size=(200, 3)), rng.normal(size=(200, 2))
    features[:100], scores[:100, 0], scores[100:, 1] = value, np.nan, np.nan
    d = rng.normal(size=(50, 3))
    with pytest.warns(UserWarning, match="expected features that vary with the scores of every attribute.* column 1:"):
        model = MultiObjectiveRewards(score_alpha=alpha).fit(d, d[:, 0] > 0, ratings=(features, scores))
    assert model.coef_[0].any()
    np.testing.assert_array_equal(model.coef_[1], 0)


def test_comparisons_that_no_head_rates_are_reported():
    features, d = np.zeros((40, 2)), np.zeros((40, 2))
    features[:, 0], d[:, 1] = np.arange(40), np.arange(40) - 20.5
    with pytest.warns(UserWarning, match="expected differences in some attribute, got none"):
        MultiObjectiveRewards().fit(d, d[:, 1] > 0, ratings=(features, np.arange(40)))


@pytest.mark.parametrize("parameter", ["score_alpha", "user_precision", "gate_alpha", "tol", "max_iter"])
def test_bad_parameters_are_refused(parameter):
    with pytest.raises(ValueError, match=f"{parameter}: expected"):
        MultiObjectiveRewards(**{parameter: -1}).fit(np.eye(4), [1, 0, 1, 0], ratings=ratings_for(4))


def test_a_saved_model_is_the_same(tmp_path):
    (X, y, _), (new, _, _), ratings, _ = world(0, 0.0, n=200)
    model = MultiObjectiveRewards(n_context_features=A).fit(X, y, ratings=ratings)
    model.partial_fit(X[:9], y[:9], groups=["ann"] * 9)
    save(model, tmp_path / "model")
    loaded, user = load(tmp_path / "model"), ["ann"] * 50
    np.testing.assert_array_equal(loaded.decision_function(new[:50], user), model.decision_function(new[:50], user))
    np.testing.assert_array_equal(loaded.predict_scores(new[:50, A:]), model.predict_scores(new[:50, A:]))
