"""Labels that methods ask for in a suite: the setting, the steps, and what it refuses."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from bench_cases import WORLD

from micropref.bench._evaluation import run_cell
from micropref.bench._loading import load_data
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._methods.steps import Stages
from micropref.bench._specs import KINDS, DatasetSpec, check_settings, resolve_settings
from micropref.bench._suite import run_suite
from micropref.bench._tasks import make_task

ASKING = sorted(kind for kind, value in KINDS.items() if "labels" in value.settings)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    spec = DatasetSpec(**WORLD)
    data = load_data(spec, tmp_path_factory.mktemp("world"))
    return make_task(data, spec, seed=0, budgets=(0, 1, 2), n_draws=2)


def test_who_can_ask():
    assert {"micro_history", "hierarchical", "reward_factorization", "lore", "user_rewards", "hyre"} <= set(ASKING)
    for kind in ASKING:
        assert KINDS[kind].settings["labels"] == "drawn"
        check_settings(kind, {"labels": "asked"})
        with pytest.raises(ValueError, match=r"labels: expected one of 'drawn', 'asked'.*, got 'best'"):
            check_settings(kind, {"labels": "best"})
    check_settings("micro_history", {"labels": "epig"})
    with pytest.raises(ValueError, match="labels: expected one of 'drawn', 'asked', got 'epig'"):
        check_settings("lore", {"labels": "epig"})


@pytest.mark.parametrize("kind", ["micro_history", "hyre_micro", "reward_factorization", "user_rewards"])
def test_labels_that_are_asked_for(kind, task):
    found = {}
    for labels in ("drawn", "asked"):
        settings = resolve_settings(kind, {"labels": labels}, {"n_components": 2})
        arrays, meta = run_cell(RUNNERS[kind], task, settings, Stages())
        assert meta["status"] == "done", meta
        found[labels] = arrays["log_odds"]
        assert found[labels].shape == (2, 3, len(task.test_sign))
    np.testing.assert_array_equal(found["drawn"][:, 0], found["asked"][:, 0])
    assert not np.array_equal(found["drawn"][:, 2], found["asked"][:, 2])
    again = run_cell(RUNNERS[kind], task, resolve_settings(kind, {"labels": "asked"}, {"n_components": 2}), Stages())
    np.testing.assert_array_equal(again[0]["log_odds"], found["asked"])


def test_two_rules_of_asking_choose_different_labels(task):
    found = {}
    for labels in ("asked", "epig"):
        settings = resolve_settings("micro_history", {"labels": labels}, {"n_components": 4})
        arrays, meta = run_cell(RUNNERS["micro_history"], task, settings, Stages())
        assert meta["status"] == "done", meta
        found[labels] = arrays["log_odds"]
    np.testing.assert_array_equal(found["epig"][:, 0], found["asked"][:, 0])
    assert not np.array_equal(found["epig"][:, 1:], found["asked"][:, 1:])


def test_what_asking_gains_is_paired(tmp_path):
    """A method beside the same that asks: the table and comparisons.csv hold the paired difference of the two."""
    methods = "".join(
        f'[[methods]]\nname = "{name}"\nkind = "micro_history"\n{more}\n'
        for name, more in (
            ("history", ""),
            ("history-asked", 'labels = "asked"'),
            ("history-epig", 'labels = "epig"'),
            ("lonely", 'alpha = 0.1\nlabels = "asked"'),
        )
    )
    (tmp_path / "suite.toml").write_text(
        'name = "asking"\nseeds = [0]\nbudgets = [0, 2]\nn_resamples = 50\n'
        '[[datasets]]\nname = "people"\nkind = "world"\nworld = "discrete"\nn_samples = 800\nnew_users = 0.3\n'
        f"test_rows = 10\nparameters = {{ n_components = 2 }}\n{methods}"
    )
    run_suite(tmp_path / "suite.toml", tmp_path / "out")
    with (tmp_path / "out" / "comparisons.csv").open(encoding="utf-8") as file:
        pairs = {(row["method"], row["rival"], row["budget"]): row for row in csv.DictReader(file)}
    assert set(pairs) == {
        (*of, budget)
        for of in (("history-asked", "history"), ("history-epig", "history-asked"))
        for budget in ("0", "2")
    }
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        accuracy = {(row["method"], row["budget"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    for (method, other, budget), row in pairs.items():
        gain = accuracy[method, budget] - accuracy[other, budget]
        assert float(row["difference"]) == pytest.approx(gain, abs=1e-5)
    page = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert page.count("### What asking gains") == 1
    assert page.partition("### What asking gains")[2].partition("###")[0].count("against history") == 2
