"""Suites with ratings of single responses, and data sets that teach others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench_cases import cell_of, config

from micropref.bench import load_suite, run_suite
from micropref.bench._data import taught_by
from micropref.bench._loading import load_data
from micropref.bench._tasks import make_task

HELPSTEER2 = {
    "name": "rated",
    "kind": "hub",
    "loader": "helpsteer2",
    "stand_in": 240,
    "protocol": "contexts",
    "target": "attribute",
    "split": "given",
    "ratings": ["helpsteer2"],
    "difference_norm": 3.0,
    "parameters": {"n_components": 2},
}
RPR = HELPSTEER2 | {"name": "reversed", "loader": "rpr", "stand_in": 120, "target": "category", "unit": "id"}


def spec_of(*datasets):
    return load_suite(config("single", datasets=datasets)).datasets[0]


@pytest.fixture(scope="module")
def rated():
    return load_data(spec_of(HELPSTEER2), None)


def test_ratings_of_test_prompts_are_left_out(rated):
    task = make_task(rated, spec_of(HELPSTEER2), seed=0, budgets=(0, 2), n_draws=1)
    assert rated.ratings.scores.shape == (240, 5)
    assert np.isfinite(rated.ratings.scores).all()
    # The published validation part has other prompts; a random split has not.
    assert len(task.inputs.ratings.scores) == 240
    other = replace(rated, given_test=None)
    task = make_task(other, spec_of(HELPSTEER2 | {"split": "random"}), seed=0, budgets=(0, 2), n_draws=1)
    n_left = len(task.inputs.ratings.scores)
    assert 0 < n_left < 240
    of_tests = other.prompt[np.isin(other.unit, task.cluster)]
    assert len(np.unique(of_tests)) > 5
    assert not np.isin(task.inputs.ratings.prompt, of_tests).any()


def test_features_of_ratings_are_on_the_scale_of_the_differences(rated):
    spec = spec_of(HELPSTEER2)
    task = make_task(rated, spec, seed=0, budgets=(0,), n_draws=1)
    train = task.inputs.train.difference
    assert np.sqrt((train**2).sum(axis=1).mean()) == pytest.approx(3.0, rel=1e-3)
    factor = task.inputs.ratings.features / np.where(rated.ratings.features, rated.ratings.features, 1)
    assert np.unique(np.round(factor[rated.ratings.features != 0], 4)).size == 1


def test_attributes_of_several_sets_stand_side_by_side():
    data = load_data(spec_of(RPR | {"ratings": ["helpsteer2", "ultrafeedback"]}), None)
    scores = data.ratings.scores
    assert scores.shape[1] == 9
    assert (np.isfinite(scores[:, :5]).all(axis=1) ^ np.isnan(scores[:, :5]).all(axis=1)).all()
    assert np.isnan(scores[np.isfinite(scores[:, 0])][:, 5:]).all()


def test_ratings_count_for_the_methods_that_read_them_alone(tmp_path):
    """Cells of other methods are kept where ratings come, go, or change."""

    def run(**changes):
        suite = config("single", "multi_objective", datasets=(HELPSTEER2 | changes,), budgets=[0, 2])
        result = run_suite(suite, tmp_path)
        assert result.failed == []
        return result.n_run, result.n_kept

    assert run() == (2, 0)
    assert run() == (0, 2)
    assert run(ratings=["helpsteer2", "ultrafeedback"]) == (1, 1)
    without = {key: value for key, value in RPR.items() if key != "ratings"}
    plain, rated = (load_data(spec_of(one), None) for one in (without, RPR))
    assert (plain.hash, plain.ratings_hash) == (rated.hash, "")
    assert rated.ratings_hash


def test_one_data_set_teaches_and_another_is_tested(rated):
    spec = spec_of(RPR | {"taught_by": "rated", "ratings": ["helpsteer2"]}, HELPSTEER2)
    assert spec.teacher.loader == "helpsteer2"
    data = load_data(spec, None)
    own = load_data(replace(spec, teacher=None, taught_by=""), None)
    task = make_task(data, spec, seed=0, budgets=(0, 2), n_draws=2)
    plain = make_task(own, replace(spec, teacher=None, taught_by=""), seed=0, budgets=(0, 2), n_draws=2)
    assert len(task.inputs.train) == len(rated.weight)
    assert len(task.inputs.test) == len(plain.inputs.test)
    assert len(task.inputs.pool) == len(plain.inputs.pool)
    assert {data.target_names[one] for one in np.unique(task.target)} == set(own.target_names) & {
        own.target_names[one] for one in np.unique(plain.target)
    }
    assert any(name.endswith(", in training") for name in data.target_names)
    arrays, meta = cell_of(task, "multi_objective", spec)
    assert (meta["status"], arrays["log_odds"].shape[1]) == ("done", 2)
    # Synthetic annotators are of one attribute each, as where nothing else teaches.
    assert task.inputs.has_annotators
    with pytest.raises(ValueError, match=r"taught_by: expected a data set with .* columns of difference"):
        taught_by(own, replace(rated, difference=rated.difference[:, :5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"taught_by": "absent"},
            "datasets.reversed: taught_by: expected another data set, one of rated, got 'absent'",
        ),
        ({"taught_by": "reversed"}, "taught_by: expected another data set"),
        ({"protocol": "users", "taught_by": "rated"}, "taught_by: expected the protocol 'contexts' of both"),
        ({"ratings": "helpsteer2"}, "ratings: expected a list of names"),
        ({"kind": "world", "world": "groups"}, "expected only for the kinds hub"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(change, message):
    with pytest.raises(ValueError, match=message):
        spec_of(RPR | change, HELPSTEER2)
    with pytest.raises(ValueError, match="ratings: expected names among helpsteer2, ultrafeedback, got 'rpr'"):
        load_data(spec_of(HELPSTEER2 | {"ratings": ["rpr"]}), None)


def test_the_best_head_of_each_attribute_is_chosen_by_labels(rated):
    """With all labels it is at least as good as the heads together, and before any it is they."""
    spec = spec_of(HELPSTEER2)
    task = make_task(rated, spec, seed=0, budgets=(0, 10**6), n_draws=1)
    static = cell_of(task, "static", spec)[0]["log_odds"]
    best = cell_of(task, "best_head", spec)[0]["log_odds"]
    np.testing.assert_array_equal(best[:, 0], static[:, 0])
    assert (best[0, 1] > 0).mean() > (static[0, 1] > 0).mean()
    shared = cell_of(task, "ensemble_best", spec, n_components=4)[0]["log_odds"]
    assert not np.array_equal(shared[0, 0], shared[0, 1])


def test_a_router_leaves_its_mean_weights_and_a_gate_of_prompts_reads_nothing_else(rated):
    spec = spec_of(HELPSTEER2)
    task = make_task(rated, spec, seed=0, budgets=(0, 5), n_draws=1)
    weights = cell_of(task, "micro_context", spec)[0]["weights"]
    assert weights.shape == (len(np.unique(task.target)), 2)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    criteria = task.inputs.train.context.copy()
    criteria[:, rated.n_prompt :] = 0
    blind = replace(task, inputs=replace(task.inputs, train=replace(task.inputs.train, context=criteria)))
    odds = [cell_of(one, "static", spec, prompts=True)[0]["log_odds"] for one in (task, blind)]
    np.testing.assert_array_equal(*odds)
    assert not np.array_equal(odds[0], cell_of(task, "static", spec, training_contexts=True)[0]["log_odds"])
    without = replace(task, inputs=replace(task.inputs, n_prompt=0))
    assert cell_of(without, "static", spec, prompts=True)[1]["reason"] == "no prompts among the contexts"


def test_details_have_what_methods_keep_and_the_names_of_contexts(tmp_path):
    suite = config("micro_context", "multi_objective", datasets=(HELPSTEER2,), budgets=[5])
    result = run_suite(suite, tmp_path)
    detail = result.details[0]
    assert result.failed == []
    assert set(detail.target_names) == {"helpfulness", "correctness", "coherence", "complexity", "verbosity"}
    assert [set(one.kept[0]) for one in detail.methods] == [{"weights"}, set()]
    assert {row["information"] for row in result.rows if row["kind"] == "multi_objective"} == {
        "training contexts + contexts + label owners + ratings"
    }
