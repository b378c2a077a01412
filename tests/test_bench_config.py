"""The configuration of a suite: defaults, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_cases import WORLD, config

from micropref.bench import load_suite
from micropref.bench._specs import KINDS, resolve_settings

ROOT = Path(__file__).parents[1]


def test_shipped_suites():
    quick, whole = (load_suite(ROOT / "benchmarks" / name) for name in ("suite_quick.toml", "suite.toml"))
    # Those that need ratings, or all labels, are of the paper's suite alone.
    special = {"multi_objective", "best_head", "ensemble_best"}
    assert {one.kind for one in whole.methods} == set(KINDS) - special == {one.kind for one in quick.methods}
    assert special < {one.kind for one in load_suite(ROOT / "benchmarks/paper.toml").methods}
    assert {one.kind for one in quick.datasets} == {"world"}
    assert len(whole.seeds) == 5
    assert whole.budgets == (0, 1, 2, 5, 10, 20)
    of = {one.name: one for one in whole.datasets}
    assert {"dsp", "ukpconvarg1", "sushi2500", "prefeval10"} < of.keys()
    assert {"world-discrete", "world-continuous", "world-mixed", "world-stated"} < of.keys()
    assert whole.budgets_of(of["sushi2500"]) == (0, 1, 2, 5, 10, 20, 31)
    assert whole.budgets_of(of["dsp"]) == whole.budgets
    for suite in (quick, whole):
        for dataset in suite.datasets:
            assert not {"alpha", "gate_alpha"} & set(dataset.parameters)  # penalties are chosen on training rows
    assert load_suite(whole) is whole


def test_settings_come_from_the_method_then_the_data_set_then_the_kind():
    assert resolve_settings("lore", {}, {"n_components": 7})["n_components"] == 7
    assert resolve_settings("lore", {"n_components": 5}, {"n_components": 7})["n_components"] == 5
    # The size of an ensemble or a basis is no number of populations.
    assert resolve_settings("hyre", {}, {"n_components": 7, "alpha": 1e-2}) == {
        **resolve_settings("hyre", {}, {}),
        "alpha": 1e-2,
    }
    assert resolve_settings("drm", {}, {"n_components": 7})["n_components"] == 20


CHANGES = [
    ({"seed": [1]}, r"config: expected keys among budgets, datasets.*, got 'seed'"),
    ({"name": " "}, r"config: name: expected text, got ' '"),
    ({"seeds": []}, r"config: seeds: expected whole numbers of at least 0, got \[\]"),
    ({"seeds": [1, 1]}, r"config: seeds: expected each number once, got \[1, 1\]"),
    ({"budgets": [2, 1]}, r"config: budgets: expected ascending order, got \[2, 1\]"),
    ({"budgets": [-1]}, r"config: budgets: expected .*, got \[-1\]"),
    ({"methods": [{"name": "a", "kind": "lore", "n_draws": -1}]}, r"methods.a: n_draws: expected .*, got \[-1\]"),
    (
        {"methods": [{"name": "a", "kind": "lore", "alpha": "big"}]},
        r"methods.a: alpha: expected a value like 'auto', got 'big'",
    ),
    ({"datasets": [{**WORLD, "methods": ["b*"]}]}, r"datasets.groups: methods: expected names among single, got 'b\*'"),
    ({"n_draws": 0}, r"config: n_draws: expected whole numbers of at least 1, got \[0\]"),
    ({"level": 95}, r"config: level: expected a number between 0 and 1, got 95"),
    ({"methods": []}, r"config: methods: expected at least one \[\[methods\]\], got \[\]"),
    ({"methods": None}, r"config: methods: expected .*, got nothing"),
    ({"methods": [{"name": "a", "kind": "b"}]}, r"config: methods.a: kind: expected one of single.*, got 'b'"),
    ({"methods": [{"kind": "lore"}]}, r"config: methods\[0\]: name: expected text, got nothing"),
    ({"methods": [{"name": "a", "kind": "single"}] * 2}, r"methods: expected every name once, got 'a' twice"),
    ({"methods": [{"name": "a/b", "kind": "single"}]}, r"methods: expected a name of letters.*, got 'a/b'"),
    (
        {"methods": [{"name": "a", "kind": "lore", "x": 1}]},
        r"a: x: expected a setting of the kind 'lore' \(alpha, .*got 'x'",
    ),
    (
        {"methods": [{"name": "a", "kind": "lore", "n_init": "1"}]},
        r"methods.a: n_init: expected a value like 1, got '1'",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_bad_configuration_names_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        load_suite({**config("single"), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "world2"}, r"datasets.groups: kind: expected one of folder, file, hub, orders, world, got 'world2'"),
        ({"world": "moon"}, r"datasets.groups: world: expected one of groups.*, got 'moon'"),
        ({"path": "x"}, r"datasets.groups: path: expected only for the kinds folder, file, orders, got kind 'world'"),
        ({"colour": 1}, r"datasets.groups: expected keys among .*, got 'colour'"),
        ({"protocol": "x"}, r"datasets.groups: protocol: expected one of contexts, users, known_users, got 'x'"),
        ({"split": "given"}, r"datasets.groups: split: expected 'given' only for the kind hub, got kind 'world'"),
        ({"split": "x"}, r"datasets.groups: split: expected one of random, given, folds, got 'x'"),
        ({"budgets": [3, 1]}, r"datasets.groups: budgets: expected ascending order, got \[3, 1\]"),
        ({"budgets": 3}, r"datasets.groups: budgets: expected whole numbers of at least 0, got 3"),
        ({"methods": "single"}, r"datasets.groups: methods: expected a list of names, got 'single'"),
        ({"n_users": -1}, r"datasets.groups: n_users: expected a whole number of at least 0, got -1"),
        ({"test_units": 0}, r"datasets.groups: test_units: expected a number above 0, got 0"),
        ({"new_users": 2.0}, r"datasets.groups: new_users: expected a number above 0 and at most 1, got 2.0"),
        ({"n_samples": 1.5}, r"datasets.groups: n_samples: expected a whole number of at least 0, got 1.5"),
        ({"log_length": 1}, r"datasets.groups: log_length: expected true or false, got 1"),
        ({"min_votes": True}, r"datasets.groups: min_votes: expected a whole number of at least 0, got True"),
        ({"parameters": 3}, r"datasets.groups: parameters: expected a table, got 3"),
        (
            {"parameters": {"x": 3}},
            r"groups: parameters.x: expected a setting that a kind of method has, got 'x'",
        ),
    ],
)
def test_a_bad_data_set_names_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        load_suite(config("single", datasets=[{**WORLD, **change}]))


@pytest.mark.parametrize("key", ["methods", "targets", "ratings"])
def test_a_name_that_a_data_set_lists_twice_is_refused(key):
    hub = {"name": "rated", "kind": "hub", "loader": "helpsteer2", "protocol": "contexts", key: ["a", "single", "a"]}
    with pytest.raises(ValueError, match=rf"datasets.rated: {key}: expected every name once, got 'a' twice"):
        load_suite(config("single", datasets=[hub]))


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text("name = ")
    with pytest.raises(ValueError, match=r"suite.toml: expected a TOML file"):
        load_suite(path)
    with pytest.raises(ValueError, match=r"datasets.a: path: expected text, got nothing"):
        load_suite(config("single", datasets=[{"name": "a", "kind": "folder"}]))
