"""The scorer that knows annotators, intervals that know clusters, and the choice of the number of components."""

from __future__ import annotations

import doctest
import pickle

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, GroupShuffleSplit, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline

import micropref.metrics
import micropref.selection
from micropref.metrics import accuracy_interval, grouped_log_likelihood, mean_interval
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import PairScaler
from micropref.selection import select_n_components


@pytest.fixture(scope="module")
def opposed():
    """Annotators of two kinds that disagree on every pair: one pair says nothing, four of one annotator say it all."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(480, 3))
    annotator = np.arange(480) // 4
    taste = np.where(annotator % 2 == 0, -3.0, 3.0)
    y = (rng.random(480) < 1 / (1 + np.exp(-X[:, 0] * taste))).astype(int)
    assert 0.4 < y.mean() < 0.6
    return X, y, annotator


def mixture(n_components: int = 2, **parameters) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(n_components, n_init=2, random_state=0, **parameters)


# ------------------------------------------------------------------------------------------------------------- scorer


def test_scorer_is_the_grouped_log_likelihood(opposed):
    X, y, annotator = opposed
    model = mixture().fit(X, y, groups=annotator)
    weight = np.linspace(0.1, 2, len(y))
    expected = model.log_likelihood(X, y, sample_weight=weight, groups=annotator)
    assert grouped_log_likelihood(model, X, y, sample_weight=weight, groups=annotator) == expected
    assert grouped_log_likelihood(model, X, y) == model.log_likelihood(X, y) != expected


def test_scorer_looks_through_pipelines_and_searches(opposed):
    X, y, annotator = opposed
    pipeline = make_pipeline("passthrough", PairScaler(), mixture()).fit(X, y, mixturebradleyterry__groups=annotator)
    scaled = pipeline[1].transform(X)
    expected = pipeline[-1].log_likelihood(scaled, y, groups=annotator)
    assert grouped_log_likelihood(pipeline, X, y, groups=annotator) == expected
    assert grouped_log_likelihood(make_pipeline(pipeline[-1]), scaled, y, groups=annotator) == expected
    search = GridSearchCV(mixture(), {"alpha": [1e-2]}, cv=2).fit(X, y)
    assert grouped_log_likelihood(search, X, y) == search.best_estimator_.log_likelihood(X, y)


def test_scorer_refuses_other_estimators(opposed):
    X, y, _ = opposed
    with pytest.raises(TypeError, match=r"expected an estimator with log_likelihood, .*, got LogisticRegression"):
        grouped_log_likelihood(LogisticRegression().fit(X, y), X, y)


def test_requests_make_a_new_scorer():
    with sklearn.config_context(enable_metadata_routing=True):
        asking = grouped_log_likelihood.set_score_request(groups=True)
        both = asking.set_score_request(sample_weight="importance")
    assert grouped_log_likelihood.get_metadata_routing().score.requests == {}
    assert repr(grouped_log_likelihood) == "grouped_log_likelihood"
    assert asking.get_metadata_routing().score.requests["groups"] is True
    assert asking.get_metadata_routing().score.requests["sample_weight"] is None
    assert both.get_metadata_routing().score.requests == {"groups": True, "sample_weight": "importance"}
    assert repr(both) == "grouped_log_likelihood.set_score_request(groups=True, sample_weight='importance')"
    assert repr(pickle.loads(pickle.dumps(both))) == repr(both)


def test_requests_that_would_not_be_heard_are_errors():
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        grouped_log_likelihood.set_score_request(groups=True)
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(TypeError, match="expected metadata groups or sample_weight, got users"),
    ):
        grouped_log_likelihood.set_score_request(users=True)


@pytest.mark.parametrize("scale", [False, True])
def test_cross_validate_hands_annotators_to_fit_splitter_and_scorer(opposed, scale):
    X, y, annotator = opposed
    with sklearn.config_context(enable_metadata_routing=True):
        model = mixture().set_fit_request(groups=True)
        result = cross_validate(
            make_pipeline(PairScaler(), model) if scale else model,
            X,
            y,
            cv=GroupKFold(3),
            scoring=grouped_log_likelihood.set_score_request(groups=True),
            params={"groups": annotator},
            return_estimator=True,
            return_indices=True,
            error_score="raise",
        )
    for fitted, score, train, test in zip(
        result["estimator"], result["test_score"], result["indices"]["train"], result["indices"]["test"], strict=True
    ):
        assert not set(annotator[train]) & set(annotator[test])
        scaler = PairScaler().fit(X[train])
        A, B = (scaler.transform(X[rows]) if scale else X[rows] for rows in (train, test))
        by_hand = mixture().fit(A, y[train], groups=annotator[train])
        np.testing.assert_array_equal((fitted[-1] if scale else fitted).coef_, by_hand.coef_)
        assert score == by_hand.log_likelihood(B, y[test], groups=annotator[test])
        assert score > by_hand.log_likelihood(B, y[test]) + 0.05


# ---------------------------------------------------------------------------------------------------------- intervals


def test_mean_is_the_weighted_mean_and_lies_inside():
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=300), rng.random(300)
    found = mean_interval(values, sample_weight=weight)
    assert found.mean == pytest.approx(np.average(values, weights=weight), abs=1e-12)
    assert found.low < found.mean < found.high


def test_unclustered_interval_is_the_normal_one_for_many_rows():
    values = np.random.default_rng(1).normal(size=4000)
    found = mean_interval(values, n_resamples=4000)
    half = 1.959964 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)
    narrow = mean_interval(values, level=0.5, n_resamples=4000)
    assert narrow.high - narrow.low == pytest.approx(2 * half * 0.674490 / 1.959964, rel=0.1)


def test_copies_of_a_row_in_its_cluster_add_no_certainty():
    rng = np.random.default_rng(2)
    values = rng.normal(size=60)
    alone = mean_interval(values)
    copied = mean_interval(np.repeat(values, 50), clusters=np.repeat(np.arange(60), 50))
    np.testing.assert_allclose(copied, alone, atol=1e-12)
    fooled = mean_interval(np.repeat(values, 50))
    assert (fooled.high - fooled.low) < 0.25 * (copied.high - copied.low)


def test_bootstrap_equals_loops_over_clusters():
    rng = np.random.default_rng(3)
    values, weight = rng.normal(size=40), rng.random(40)
    clusters = np.array([f"user {i}" for i in rng.integers(0, 9, size=40)])
    names = np.unique(clusters)
    drawn = np.random.RandomState(5).randint(len(names), size=(200, len(names)), dtype=np.int32)
    means = []
    for resample in drawn:
        rows = np.concatenate([np.flatnonzero(clusters == names[i]) for i in resample])
        means.append(np.average(values[rows], weights=weight[rows]))
    expected = np.quantile(means, [0.05, 0.95])
    found = mean_interval(values, clusters, weight, level=0.9, n_resamples=200, random_state=5)
    np.testing.assert_allclose(found[1:], expected, atol=1e-12)


def test_blocks_of_resamples_change_nothing(monkeypatch):
    values = np.random.default_rng(4).normal(size=50)
    whole = mean_interval(values, n_resamples=101)
    monkeypatch.setattr(micropref.metrics._intervals, "_RESAMPLED_ROWS", 120)
    assert mean_interval(values, n_resamples=101) == whole
    monkeypatch.setattr(micropref.metrics._intervals, "_RESAMPLED_ROWS", 1)
    assert mean_interval(values, n_resamples=101) == whole


def test_rows_without_a_cluster_are_clusters_of_one():
    values = np.random.default_rng(5).normal(size=30)
    assert mean_interval(values, clusters=[None] * 30) == mean_interval(values)
    mixed = mean_interval(values, clusters=["ann"] * 10 + [None] * 20)
    loners_last = mean_interval(values, clusters=["ann"] * 10 + [f"alone {i:02}" for i in range(20)])
    assert mixed.mean == pytest.approx(values.mean())
    spread = [found.high - found.low for found in (mixed, loners_last)]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)


def test_clusters_without_weight_are_left_out():
    values, weight = np.array([1.0, 2.0, 3.0, 1e9]), np.array([1.0, 1.0, 1.0, 0.0])
    clusters = ["a", "b", "c", "d"]
    assert mean_interval(values, clusters, weight) == mean_interval(values[:3], clusters[:3])


def test_accuracy_interval_is_the_interval_of_ones_and_zeros():
    correct = np.random.default_rng(6).random(200) < 0.8
    clusters = np.arange(200) // 3
    assert accuracy_interval(correct, clusters) == mean_interval(correct.astype(float), clusters)
    assert accuracy_interval(correct, level=0.5, n_resamples=10, random_state=3) == mean_interval(
        correct, level=0.5, n_resamples=10, random_state=3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1.0, np.nan]}, "values: expected finite numbers, got nan in row 1"),
        ({"values": [[1.0]]}, r"shape \(n_samples,\).*got shape \(1, 1\)"),
        ({"values": []}, "at least one row"),
        ({"values": [1.0]}, "expected at least two clusters with positive weight for an interval, got 1"),
        ({"values": [1.0, 2.0], "clusters": ["a", "a"]}, "at least two clusters"),
        ({"values": [1.0, 2.0], "clusters": ["a"]}, "inconsistent numbers of samples"),
        ({"values": [1.0, 2.0], "sample_weight": [1.0, -1.0]}, "expected no negative number, got -1.0 in row 1"),
        ({"values": [1.0, 2.0], "level": 95}, "level: expected a number between 0 and 1, got 95"),
        ({"values": [1.0, 2.0], "n_resamples": 0}, "n_resamples: expected at least 1, got 0"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(**arguments)


def test_accuracy_of_something_else_is_an_error():
    with pytest.raises(ValueError, match=r"expected True and False only, got .*0\.5"):
        accuracy_interval([1, 0, 0.5])


# ---------------------------------------------------------------------------------------------------------- selection


def test_one_fold_has_no_standard_error(opposed):
    X, y, annotator = opposed
    once = GroupShuffleSplit(n_splits=1, random_state=0)
    with pytest.raises(ValueError, match="cv: expected at least 2 folds, got 1"):
        select_n_components(mixture(), X, y, groups=annotator, candidates=(1, 2), cv=once)


def test_annotators_held_out_choose_two_kinds(opposed):
    X, y, annotator = opposed
    found = select_n_components(mixture(), X, y, groups=annotator, candidates=(1, 2, 3), cv=4)
    assert found.n_components == 2
    assert found.fold_log_likelihood.shape == (3, 4)
    np.testing.assert_allclose(found.mean_log_likelihood, found.fold_log_likelihood.mean(axis=1))
    behind = found.fold_log_likelihood[1] - found.fold_log_likelihood
    np.testing.assert_allclose(found.standard_error, behind.std(axis=1, ddof=1) / 2)
    assert found.mean_log_likelihood[1] > found.mean_log_likelihood[0] + 0.1
    # Refitted to all rows, with the annotators, and without a trace of the search.
    np.testing.assert_array_equal(found.estimator.coef_, mixture(2).fit(X, y, groups=annotator).coef_)
    with sklearn.config_context(enable_metadata_routing=True):
        assert found.estimator.get_metadata_routing().fit.requests == {"groups": None, "sample_weight": None}
    train, test = next(GroupKFold(4).split(X, y, annotator))
    by_hand = mixture(2).fit(X[train], y[train], groups=annotator[train])
    assert found.fold_log_likelihood[1, 0] == by_hand.log_likelihood(X[test], y[test], groups=annotator[test])


def test_selection_leaves_the_estimator_alone(opposed):
    X, y, annotator = opposed
    model = mixture(5)
    select_n_components(model, X, y, groups=annotator, candidates=(1, 2), cv=2)
    assert model.n_components == 5
    assert not hasattr(model, "coef_")
    with sklearn.config_context(enable_metadata_routing=True):
        assert model.get_metadata_routing().fit.requests["groups"] is None
    assert not sklearn.get_config()["enable_metadata_routing"]


def test_selection_through_a_pipeline_with_weights_and_rows_on_their_own(opposed):
    X, y, annotator = opposed
    groups = annotator.astype(object)
    groups[::40] = None
    weight = np.random.default_rng(0).random(len(y))
    pipeline = Pipeline([("scale", PairScaler()), ("nothing", "passthrough"), ("heads", mixture())])
    found = select_n_components(
        pipeline, X, y, groups=groups.tolist(), sample_weight=weight, candidates=[1, 2], cv=GroupKFold(3)
    )
    assert found.n_components == 2
    scaler = PairScaler().fit(X, sample_weight=weight)
    np.testing.assert_array_equal(found.estimator["scale"].scale_, scaler.scale_)
    heads = mixture(2).fit(scaler.transform(X), y, sample_weight=weight, groups=groups)
    np.testing.assert_array_equal(found.estimator["heads"].coef_, heads.coef_)


def test_rows_on_their_own_may_all_be_so(opposed):
    X, y, _ = opposed
    found = select_n_components(mixture(), X, y, groups=np.full(len(y), -1), candidates=(1, 2), cv=3)
    assert abs(np.diff(found.mean_log_likelihood)[0]) < 0.05


def test_the_splitter_sees_every_row_on_its_own_as_a_group_of_one(opposed):
    X, y, annotator = opposed
    groups = annotator.astype(float)
    groups[:120] = np.nan
    seen = []

    class Watching(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(groups)
            return super().split(X, y, groups)

    select_n_components(mixture(), X, y, groups=groups, candidates=(1,), cv=Watching(2))
    assert len(np.unique(seen[0][:120])) == 120
    assert not set(seen[0][:120]) & set(seen[0][120:])
    np.testing.assert_array_equal(np.diff(seen[0][120:]) != 0, np.diff(annotator[120:]) != 0)


def test_one_standard_error_prefers_fewer_components():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(160, 2))
    annotator = np.arange(160) // 2
    taste = np.where(annotator % 2 == 0, 0.2, 2.2)
    y = (rng.random(160) < 1 / (1 + np.exp(-X[:, 0] * taste))).astype(int)
    common = {"groups": annotator, "candidates": (2, 1), "cv": 4}
    model = MixtureBradleyTerry(n_init=1, random_state=0, alpha=3e-3)
    best = select_n_components(model, X, y, rule="best", **common)
    cautious = select_n_components(model, X, y, **common)
    assert 0.002 < best.mean_log_likelihood[0] - best.mean_log_likelihood[1] < best.standard_error[1]
    assert (best.n_components, cautious.n_components) == (2, 1)
    assert cautious.estimator.coef_.shape == (1, 2)


def test_one_standard_error_keeps_components_that_are_needed(opposed):
    X, y, annotator = opposed
    found = select_n_components(mixture(), X, y, groups=annotator, candidates=(1, 2), cv=3, rule="one_se")
    assert found.n_components == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rule": "two_se"}, ValueError, "rule: expected one of 'one_se', 'best', got 'two_se'"),
        ({"candidates": ()}, ValueError, "at least one number"),
        ({"groups": [1, 2]}, ValueError, "inconsistent numbers of samples"),
        ({"cv": 130}, ValueError, "n_splits=130 greater than the number of groups"),
        ({"cv": KFold(3)}, TypeError, "groups"),
        (
            {"estimator": LogisticRegression()},
            TypeError,
            "expected an estimator with n_components .* got LogisticRegression",
        ),
    ],
)
def test_selection_says_what_is_wrong(opposed, arguments, error, message):
    X, y, annotator = opposed
    arguments = {"estimator": mixture(), "groups": annotator} | arguments
    with pytest.raises(error, match=message):
        select_n_components(X=X, y=y, **arguments)


@pytest.mark.parametrize(
    ("module", "least"),
    [(micropref.metrics._scorer, 3), (micropref.metrics._intervals, 2), (micropref.selection, 3)],
)
def test_examples_run(module, least):
    failed, attempted = doctest.testmod(module)
    assert attempted > least
    assert failed == 0
