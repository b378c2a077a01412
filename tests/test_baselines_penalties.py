"""Penalties that adapt: what "auto" chooses, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from baseline_cases import RIVALS, rows
from heads_cases import drawn_labels, training_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from micropref.baselines import (
    CategoricalRewards,
    DecomposedRewards,
    HypothesisReweighting,
    LowRankRewards,
    SharedBaseEnsemble,
    UserRewards,
)
from micropref.baselines._cross_fitting import adapted_losses, most_cautious, shrunk_losses
from micropref.baselines._voters import N_TRIALS, held_out_users


def people(seed: int, spread: float, n_users: int = 80, n_each: int = 24, d: int = 6):
    """Users whose rewards scatter around a common one, by so many nats."""
    rng = np.random.default_rng(seed)
    tastes = np.eye(d)[0] * 1.5 + spread / np.sqrt(d) * rng.normal(size=(n_users, d))
    users = np.repeat(np.arange(n_users), n_each)
    D = rng.normal(size=(len(users), d))
    return D, drawn_labels(rng, np.einsum("nd,nd->n", D, tastes[users])), users


# Heads that are given, and numbers of pooled models, have a scale of their own.
@pytest.mark.parametrize("name", [name for name in RIVALS if "given" not in name and "pooled" not in name])
def test_features_ten_times_as_large_change_no_prediction(name):
    X, y, annotator = rows(180)
    auto = {p: "auto" for p in RIVALS[name].get_params(deep=False) if p.endswith("alpha") or p == "weight_penalty"}
    settings = {"tol": 1e-7} if "tol" in RIVALS[name].get_params() else {}
    one, ten = (clone(RIVALS[name]).set_params(**auto, **settings) for _ in range(2))
    width = RIVALS[name].n_context_features
    scaled = X * np.r_[np.ones(width), np.full(X.shape[1] - width, 10.0)]
    one.fit(X, y, groups=annotator)
    ten.fit(scaled, y, groups=annotator)
    votes = np.arange(12)
    one.partial_fit(X[votes], y[votes], groups=["ann"] * 12)
    ten.partial_fit(scaled[votes], y[votes], groups=["ann"] * 12)
    for who in (None, annotator, ["ann"] * 180):
        expected = one.predict_proba(X, groups=who)[:, 1]
        np.testing.assert_allclose(ten.predict_proba(scaled, groups=who)[:, 1], expected, atol=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_users_who_differ_more_are_shrunk_less(seed):
    chosen = []
    for spread in (0.0, 1.5, 6.0):
        D, y, users = people(seed, spread)
        model = UserRewards().fit(D, y, groups=users)
        chosen.append(np.sqrt((D**2).sum(axis=1).mean() / model.user_alpha_))
    assert chosen[0] <= 0.56 < 1.0 <= chosen[1] < chosen[2]


def test_the_penalty_that_is_chosen_predicts_new_users_nearly_as_well_as_the_best():
    D, y, users = people(3, 3.0, n_users=120)
    known, test = users < 80, (users >= 80) & (np.arange(len(users)) % 24 >= 12)
    votes = (users >= 80) & ~test

    def nats(model):
        model.fit(D[known], y[known], groups=users[known]).partial_fit(D[votes], y[votes], groups=users[votes])
        return model.log_likelihood(D[test], y[test], groups=users[test])

    found = nats(UserRewards())
    best = max(nats(UserRewards(6 / t**2)) for t in (0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0))
    assert found > best - 0.02


def test_agreement_is_not_doubted_where_annotators_agree():
    D, y, users = people(0, 0.0)
    model = CategoricalRewards().fit(D, y, groups=users)
    assert model.user_alpha_ >= 30
    assert CategoricalRewards(user_alpha=2.0).fit(D, y, groups=users).user_alpha_ == 2.0


def test_weights_are_free_where_users_are_one_of_two():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(80), 20)
    D = rng.normal(size=(1600, 4))
    y = drawn_labels(rng, 4 * D[np.arange(1600), users % 2])
    free = LowRankRewards(2, random_state=0).fit(D, y, groups=users)
    same = LowRankRewards(2, random_state=0).fit(D, drawn_labels(rng, 2 * D[:, 0]), groups=users)
    assert free.weight_penalty_ <= 3 < same.weight_penalty_


def test_heads_of_an_ensemble_differ_by_default():
    D, y, users = people(0, 3.0)
    fair = HypothesisReweighting(random_state=0).fit(D, y, groups=users)
    straw = HypothesisReweighting(
        SharedBaseEnsemble(32, alpha=1e-3, prior_margin=1.0, random_state=0).fit(D, y), prefit=True
    ).fit(D, y)
    assert fair.coef_.shape[0] == 100
    assert fair.diversity_ > 0.1 > straw.diversity_
    margins = fair.component_scores(D)
    unit = margins / np.linalg.norm(margins, axis=0)
    assert fair.diversity_ == pytest.approx(1 - (unit.T @ unit)[~np.eye(100, dtype=bool)].mean(), rel=1e-6)
    votes = np.arange(24)
    before = fair.predict_proba(D[:200])[:, 1]
    fair.partial_fit(D[votes], y[votes], groups=["ann"] * 24)
    assert np.abs(fair.predict_proba(D[:200], groups=["ann"] * 200)[:, 1] - before).max() > 0.05


def test_no_evidence_means_the_usual_penalty():
    D, y, users = people(0, 1.0)
    square = (D**2).sum(axis=1).mean()
    assert UserRewards().fit(D, y).user_alpha_ == pytest.approx(square)
    assert UserRewards().fit(D, y, groups=np.arange(len(D))).user_alpha_ == pytest.approx(square)
    assert LowRankRewards(2, random_state=0).fit(D[:48], y[:48], groups=users[:48]).weight_penalty_ == 1.0
    assert CategoricalRewards().fit(D, y).user_alpha_ == 30.0


# ------------------------------------------------------------------------------------------------------- the machinery


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_held_out_users_never_teach_and_equal_votes_stay_together(seed):
    train = training_rows(seed, n_users=12, n_each=7)
    parts = held_out_users(train, n_folds=2, most_users=100)
    assert len(parts) == 2
    for part in parts:
        teach = set(part.teachers.groups.ids[part.teachers.groups.index[part.teachers.groups.index >= 0]].tolist())
        asked = {train.groups.ids[train.groups.index[i]] for trial in part.trials for half in trial for i in half}
        assert asked
        assert not teach & asked
        assert len(part.trials) % N_TRIALS == 0
        for known, later in part.trials:
            assert not set(known) & set(later)
            assert len(set(train.groups.index[np.r_[known, later]])) == 1
    twice = np.repeat(np.arange(train.n_samples), 2)
    for part, doubled in zip(parts, held_out_users(train.part(twice), n_folds=2, most_users=100), strict=True):
        for (known, later), (known2, later2) in zip(part.trials, doubled.trials, strict=True):
            np.testing.assert_array_equal(np.sort(np.repeat(known, 2)), np.sort(twice[known2]))
            np.testing.assert_array_equal(np.sort(np.repeat(later, 2)), np.sort(twice[later2]))


def test_losses_in_batches_are_those_of_the_model():
    D, y, users = people(1, 2.0, n_users=20)
    from micropref._rows.comparisons import Comparisons
    from micropref._rows.groups import check_groups
    from micropref._rows.layout import PairReader

    train = Comparisons(PairReader(D, 0), (2 * y - 1).astype(np.int8), None, check_groups(users, len(D)))
    part = held_out_users(train, n_folds=1, most_users=5)[0]
    model = UserRewards(1.0).fit(D, y)
    penalties = np.array([10.0, 1.0, 0.1])
    fast = shrunk_losses(model.coef_, penalties, train, part)
    slow = adapted_losses(model, "user_alpha", penalties.tolist(), train, part)
    assert fast.shape == (3, 5)
    np.testing.assert_allclose(fast, slow, atol=1e-6)


def test_the_most_cautious_value_within_a_standard_error():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100)
    assert most_cautious(np.stack([noise + 1, noise, noise + 1])) == 1
    assert most_cautious(np.stack([noise + 0.01 * rng.normal(size=100), noise, noise + 1])) in (0, 1)
    assert most_cautious(np.stack([noise, noise, noise])) == 0


# ------------------------------------------------------------------------------------------ decomposed, wide and short


@pytest.mark.parametrize("center", [False, True])
def test_wide_rows_are_decomposed_as_tall_ones(center):
    rng = np.random.default_rng(0)
    D = rng.normal(size=(30, 12)) * np.linspace(3, 1, 12)
    y = rng.integers(0, 2, 30)
    axes = np.linalg.qr(rng.normal(size=(80, 12)))[0]
    tall = DecomposedRewards(5, center=center).fit(D, y)
    wide = DecomposedRewards(5, center=center).fit(D @ axes.T, y)
    np.testing.assert_allclose(wide.explained_variance_, tall.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(np.abs(wide.component_scores(D @ axes.T)), np.abs(tall.component_scores(D)), atol=1e-8)


def test_no_matrix_of_features_times_features():
    import tracemalloc

    n, d = 40, 6000
    D = np.random.default_rng(0).normal(size=(n, d))
    tracemalloc.start()
    DecomposedRewards(5).fit(D, D[:, 0] > 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * n * d * 8 < d * d * 8 / 10
