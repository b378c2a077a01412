"""Rivals made of linear heads: what each equals, and what must not matter to any of them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from heads_cases import adapted, identify, models, rows, votes_world
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn_checks import assert_checks_pass

from micropref.baselines import DecomposedRewards, HypothesisReweighting, LowRankRewards, SharedBaseEnsemble
from micropref.baselines._base import known_users
from micropref.baselines._votes import Votes
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import make_pairs, swap_pairs

LEARNERS = [
    SharedBaseEnsemble(4),
    HypothesisReweighting(n_components=4),
    HypothesisReweighting(MixtureBradleyTerry(2, n_init=1), prefit=False),
    DecomposedRewards(),
    DecomposedRewards(3, center=False, average="probabilities"),
    LowRankRewards(2, n_init=1),
    LowRankRewards(1),
]


# What learns no label in `fit` cannot know that there was only one.
LABEL_FREE = [
    HypothesisReweighting("random", random_state=0),
    DecomposedRewards(prior="uniform"),
    DecomposedRewards(basis="random", random_state=0),
]


@pytest.mark.parametrize("estimator", LEARNERS + LABEL_FREE, ids=identify)
def test_scikit_learn_checks(estimator):
    assert_checks_pass(estimator, 58, ("check_classifiers_one_label",) if estimator in LABEL_FREE else ())


@pytest.mark.parametrize("alpha", [1e-3, 0.1])
@pytest.mark.parametrize(
    "make",
    [
        lambda alpha: LowRankRewards(1, alpha=alpha, tol=1e-9),
        lambda alpha: LowRankRewards(3, alpha=alpha, tol=1e-9),  # without groups
        lambda alpha: SharedBaseEnsemble(3, alpha=alpha, prior_margin=0.0, tol=1e-9),
    ],
    ids=["K=1", "no groups", "no prior"],
)
def test_is_the_bradley_terry_model_of_that_penalty(make, alpha):
    D, y, users = rows()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(D))
    model = make(alpha)
    model.fit(D, y, sample_weight=weight, groups=users if model.n_components == 1 else None)
    bradley_terry = MixtureBradleyTerry(1, alpha=alpha, tol=1e-9).fit(D, y, sample_weight=weight)
    by_hand = LogisticRegression(C=1 / (alpha * weight.sum()), fit_intercept=False, tol=1e-10)
    by_hand.fit(D, y, sample_weight=weight)
    for head in model.coef_:
        np.testing.assert_allclose(head, by_hand.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(model.decision_function(D), bradley_terry.decision_function(D), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_the_same_seed_gives_the_same_bits(model):
    D, y, users = rows()
    first, second = (clone(model).fit(D, y, groups=users) for _ in range(2))
    np.testing.assert_array_equal(first.coef_, second.coef_)
    first.partial_fit(D[:9], y[:9], groups=[99] * 9)
    second.partial_fit(D[:9], y[:9], groups=[99] * 9)
    who = np.where(users % 2, users, 99)
    np.testing.assert_array_equal(first.decision_function(D, groups=who), second.decision_function(D, groups=who))
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy.decision_function(D, groups=who), first.decision_function(D, groups=who))


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1))
def test_swapped_pairs_change_nothing(seed, which):
    D, y, users = votes_world(seed)
    X = make_pairs(D, 0 * D, context=np.random.default_rng(seed).normal(size=(len(D), 2)))
    model = models(seed, n_context_features=2)[which]
    flip = np.random.default_rng(seed + 1).random(len(X)) < 0.5
    swapped = np.where(flip[:, None], swap_pairs(X, 2), X)
    expected = adapted(model, X, y, users)
    found = adapted(model, swapped, np.where(flip, 1 - y, y), users)
    odds = expected.decision_function(X, groups=users)
    np.testing.assert_allclose(found.decision_function(X, groups=users), odds, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        expected.decision_function(swap_pairs(X, 2), groups=users), -odds, rtol=1e-12, atol=1e-14
    )


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1))
def test_a_repeated_row_equals_weight_two(seed, which):
    D, y, users = votes_world(seed)
    weight = np.random.default_rng(seed).integers(1, 3, len(D))
    again = np.repeat(np.arange(len(D)), weight)
    model = models(seed)[which]
    expected = adapted(model, D, y, users, weight)
    last = int(weight[-20:].sum())
    found = clone(model).fit(D[again[:-last]], y[again[:-last]], groups=users[again[:-last]])
    found.partial_fit(D[again[-last:]], y[again[-last:]], groups=users[again[-last:]])
    np.testing.assert_allclose(
        found.decision_function(D, groups=users), expected.decision_function(D, groups=users), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1), st.permutations(range(30)))
def test_names_of_users_do_not_matter(seed, which, permutation):
    D, y, users = votes_world(seed)
    renamed = np.array([permutation[u] if isinstance(u, int) else u for u in users.tolist()], dtype=object)
    model = models(seed)[which]
    expected = adapted(model, D, y, users).decision_function(D, groups=users)
    np.testing.assert_array_equal(adapted(model, D, y, renamed).decision_function(D, groups=renamed), expected)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_votes_never_reach_what_was_learned_nor_other_users(model):
    D, y, users = rows()
    model.fit(D, y, groups=users)
    coef, before = model.coef_.copy(), model.decision_function(D, groups=users)
    model.partial_fit(D[:50], 1 - y[:50], groups=["new"] * 50)
    np.testing.assert_array_equal(model.coef_, coef)
    np.testing.assert_array_equal(model.decision_function(D, groups=users), before)
    np.testing.assert_array_equal(model.decision_function(D, groups=["stranger"] * len(D)), model.decision_function(D))
    if len(coef) > 1:
        moved = np.abs(model.decision_function(D, groups=["new"] * len(D)) - model.decision_function(D)).max()
        assert moved > (1e-6 if np.ptp(coef, axis=0).max() < 0.01 else 0.01)  # trained heads hardly differ
    model.fit(D, y, groups=users)
    np.testing.assert_array_equal(model.decision_function(D, groups=["new"] * len(D)), model.decision_function(D))


@pytest.mark.parametrize("model", models(), ids=identify)
def test_rows_without_a_user_move_everybody(model):
    D, y, users = rows()
    model.fit(D, y, groups=users)
    before = model.mixture_weights(D[:1])[0]
    one, two = clone(model).fit(D, y, groups=users), clone(model).fit(D, y, groups=users)
    one.partial_fit(D[:6], 1 - y[:6])
    two.partial_fit(D[:3], 1 - y[:3]).partial_fit(D[3:6], 1 - y[3:6], groups=[np.nan, -1, np.nan])
    np.testing.assert_allclose(two.decision_function(D), one.decision_function(D), rtol=1e-9, atol=1e-12)
    if len(before) > 1:
        assert np.abs(one.mixture_weights(D[:1])[0] - before).max() > 1e-3
    two.partial_fit(D[:6], y[:6], sample_weight=np.r_[1, np.zeros(5)], groups=["a", "b", "b", "b", "b", "b"])
    assert "a" in known_users(two)
    assert "b" not in known_users(two)  # a vote without weight was never cast


@pytest.mark.parametrize("model", models()[:-1], ids=identify)
def test_everybodys_votes_are_where_every_user_starts_whichever_came_first(model):
    D, y, users = rows()
    one, two = (clone(model).fit(D, y, groups=users) for _ in range(2))
    one.partial_fit(D[:6], 1 - y[:6], groups=["ann"] * 6)
    before = one.mixture_weights(D[:1], groups=["ann"])[0]
    one.partial_fit(D[6:12], 1 - y[6:12])
    two.partial_fit(D[6:12], 1 - y[6:12]).partial_fit(D[:6], 1 - y[:6], groups=["ann"] * 6)
    found = one.mixture_weights(D[:1], groups=["ann"])[0]
    np.testing.assert_array_equal(found, two.mixture_weights(D[:1], groups=["ann"])[0])
    assert np.abs(found - before).max() > 1e-6


@pytest.mark.parametrize("model", models(), ids=identify)
@pytest.mark.parametrize("kind", ["float16", "float32", "memmap", "torch", "torch.half", "strided"])
def test_any_kind_of_matrix(model, kind, tmp_path):
    D, y, users = rows()
    D = D.astype(np.float16).astype(np.float64)  # values that every kind holds
    if kind.startswith("torch"):
        import torch

        X = torch.tensor(D, dtype=torch.float16 if kind == "torch.half" else torch.float32)
    elif kind == "memmap":
        X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=D.shape)
        X[...] = D
    elif kind == "strided":
        X = np.asfortranarray(np.repeat(D, 2, axis=1))[:, ::2]
    else:
        X = D.astype(kind)
    if isinstance(model, LowRankRewards):
        model = model.set_params(tol=1e-5)
    expected = clone(model).fit(D, y, groups=users).partial_fit(D[:5], y[:5], groups=["ann"] * 5)
    found = clone(model).fit(X, y, groups=users).partial_fit(X[:5], y[:5], groups=["ann"] * 5)
    for who in (None, ["ann"] * len(D)):
        odds = found.decision_function(X, groups=who)
        assert isinstance(odds, np.ndarray)
        np.testing.assert_allclose(odds, expected.decision_function(D, groups=who), rtol=0.02, atol=0.02)
        np.testing.assert_allclose(found.rewards(X, groups=who), expected.rewards(D, groups=who), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_ties_everywhere_teach_nothing(model):
    D, _, users = rows()
    X, weight, names = np.vstack([D, -D]), np.full(2 * len(D), 0.5), np.tile(users, 2)
    model.fit(X, np.ones(len(X)), sample_weight=weight, groups=names)
    trained = not (isinstance(model, HypothesisReweighting) and model.heads == "random")
    if trained:
        np.testing.assert_allclose(model.predict_proba(X, groups=names), 0.5, atol=5e-3)
    before = model.mixture_weights(D[:1])
    model.partial_fit(X, np.ones(len(X)), sample_weight=weight, groups=["tied"] * len(X))
    assert np.isfinite(model.decision_function(X, groups=["tied"] * len(X))).all()
    if isinstance(model, DecomposedRewards):
        np.testing.assert_allclose(model.mixture_weights(D[:1], groups=["tied"])[0, :3], before[0, :3], atol=0.5)
        assert np.abs(model.decision_function(X, groups=["tied"] * len(X))).max() < 1e-9


@pytest.mark.parametrize("model", models(), ids=identify)
def test_few_rows_and_few_users(model):
    D, y, _ = rows()
    for n, users in ((1, ["a"]), (2, ["a", "b"]), (3, ["a", None, "a"]), (4, None)):
        fitted = clone(model).fit(D[:n], y[:n], groups=users)
        assert np.isfinite(fitted.decision_function(D, groups=["a"] * len(D))).all()
        fitted.partial_fit(D[9:10], [1], groups=["once"])
        up = fitted.decision_function(D[9:10], groups=["once"])
        assert up >= fitted.decision_function(D[9:10]) - 1e-9  # one vote moves its pair the voter's way


@pytest.mark.parametrize("model", models(), ids=identify)
def test_scores_are_of_the_labels_predicted(model):
    D, y, users = rows()
    weight = np.random.default_rng(0).uniform(0.1, 2, len(D))
    model.fit(D, y, groups=users).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    who = np.array(["ann", None] * 90, dtype=object)
    p = model.predict_proba(D, groups=who)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    expected = np.average(np.log(p[np.arange(len(D)), y]), weights=weight)
    assert model.log_likelihood(D, y, sample_weight=weight, groups=who) == pytest.approx(expected, rel=1e-9)
    assert model.log_likelihood(D, groups=who) == pytest.approx(np.log(p[:, 1]).mean(), rel=1e-9)
    assert model.score(D, y, sample_weight=weight, groups=who) == pytest.approx(
        np.average(model.predict(D, groups=who) == y, weights=weight)
    )


def test_rewards_rank_as_pairs_are_decided():
    D, y, users = rows()
    first, second = np.random.default_rng(0).normal(size=(2, 40, 4))
    who = (["ann"] * 20) + [None] * 20
    for model in models():
        model.fit(D, y, groups=users).partial_fit(D[:7], y[:7], groups=["ann"] * 7)
        apart = model.rewards(first, groups=who) - model.rewards(second, groups=who)
        if model.average == "rewards":
            np.testing.assert_allclose(apart, model.decision_function(first - second, groups=who), atol=1e-9)
        np.testing.assert_array_equal(model.rewards(first), model.rewards(first, np.ones((40, 2))))
        assert model.rewards([[1, 0, 0, 0]]).shape == (1,)
        np.testing.assert_allclose(model.mixture_weights(first, groups=who).sum(axis=1), np.ones(40), rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SharedBaseEnsemble(0), "n_components: expected an integer of at least 1, got 0"),
        (SharedBaseEnsemble(2, prior_margin=-1), r"prior_margin: expected a number in \[0, 1e\+30\]"),
        (SharedBaseEnsemble(2, tol=0), r"tol: expected a number in \(0"),
        (SharedBaseEnsemble(2, temperature=0), r"temperature: expected a number in \(0"),
        (SharedBaseEnsemble(2, average="votes"), "average: expected one of 'rewards', 'probabilities', got 'votes'"),
        (SharedBaseEnsemble(2, n_context_features=-1), "n_context_features: expected an integer of at least 0"),
        (SharedBaseEnsemble(2, n_context_features=4), "got n_context_features=4"),
        (HypothesisReweighting("mlp"), "heads: expected one of 'random', got 'mlp'"),
        (HypothesisReweighting(3), 'expected an estimator, "random" or None as heads, got 3'),
        (
            HypothesisReweighting(prior="heads"),
            'whose weights prior="heads" can take, got heads=None',
        ),
        (HypothesisReweighting(prior="flat"), "prior: expected one of 'uniform', 'heads'"),
        (
            HypothesisReweighting(MixtureBradleyTerry(2, n_context_features=1), prefit=False),
            r"at most the first 0 context column\(s\), as n_context_features says, got 1",
        ),
        (DecomposedRewards(basis="ica"), "basis: expected one of 'pca', 'random', got 'ica'"),
        (DecomposedRewards(prior="flat"), "prior: expected one of 'population', 'uniform'"),
        (DecomposedRewards(margin=0), r"margin: expected a number in \(0"),
        (LowRankRewards(2, n_init=0), "n_init: expected an integer of at least 1"),
        (LowRankRewards(2, alpha=-1), "alpha: expected a number"),
        (LowRankRewards(2, weight_penalty=np.inf), "weight_penalty: expected a number"),
        (LowRankRewards(2, tol=0), "tol: expected a number"),
    ],
)
def test_bad_parameters(model, message):
    D, y, _ = rows()
    with pytest.raises(ValueError, match=message):
        model.fit(D, y)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_bad_input(model):
    D, y, users = rows()
    with pytest.raises(ValueError, match="every difference is zero"):
        clone(model).fit(0 * D, y)
    with pytest.raises(ValueError, match="every difference is zero"):
        clone(model).fit(np.vstack([0 * D[:1], D[1:]]), y, sample_weight=np.r_[1, np.zeros(len(D) - 1)])
    broken = D.copy()
    broken[7, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in row 7, column 2"):
        clone(model).fit(broken, y)
    with pytest.raises(NotFittedError):
        clone(model).rewards(D)
    with pytest.raises(NotFittedError):
        clone(model).component_scores(D)
    with pytest.raises(NotFittedError):
        clone(model).mixture_weights(D)
    model.fit(D, y, groups=users)
    with pytest.raises(ValueError, match=r"expected features of shape \(n_responses, 4\).*got \(2, 3\)"):
        model.rewards(np.ones((2, 3)))
    with pytest.raises(ValueError, match="NaN in row 7, column 2"):
        model.rewards(broken)
    with pytest.raises(ValueError, match=r"expected classes=\[0, 1\], as in the first call, got \['a', 'b'\]"):
        model.partial_fit(D, y, classes=["a", "b"])


@pytest.mark.parametrize("model", [SharedBaseEnsemble(3, max_iter=1), LowRankRewards(2, max_iter=1)], ids=identify)
def test_stopping_early_is_a_warning(model):
    D, y, users = rows()
    with pytest.warns(ConvergenceWarning, match="L-BFGS stopped after 1 iterations before the gradient fell below tol"):
        model.fit(D, y, groups=users)
    assert not model.converged_
    assert model.n_iter_ == 1
    model.set_params(max_iter=2000).fit(D, y, groups=users)
    assert model.converged_


def test_votes_add_up():
    votes = Votes(np.ones((2, 3)), np.array([1.0, -1.0]), np.ones(2))
    both = votes + votes.of(np.array([1]))
    assert len(both) == 3
    assert both.signs.tolist() == [1, -1, -1]
