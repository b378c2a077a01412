"""Data sets of a suite: units, ties, published sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_cases import assert_filled, config, table, write_contexts

from micropref.bench import load_suite, run_suite
from micropref.bench._loading import _without_shared_pairs, load_data
from micropref.bench._tasks import make_task
from micropref.datasets import PreferenceTable


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Only the suite of the whole module is drawn."""
    monkeypatch.setattr("micropref.bench._suite.find_spec", lambda name: None)


def test_a_pair_under_two_names_is_one_unit():
    table = PreferenceTable(
        prompt=["q"] * 4 + ["r"], chosen=["a", "b", "c", "c", "a"], rejected=["b", "a", "b", "d", "b"]
    )
    units = _without_shared_pairs(table, ["u", "v", "w", "w", "x"])
    assert units[0] == units[1]
    assert len(set(units)) == 3
    assert units[2] == units[3]


def test_a_context_without_test_rows(tmp_path):
    dataset = write_contexts(tmp_path / "dsp", np.random.default_rng(0))
    spec = load_suite(config("single", datasets=[dataset])).datasets[0]
    data = load_data(spec, tmp_path)
    for seed in range(3):
        task = make_task(data, spec, seed=seed, budgets=(0, 1), n_draws=1)
        has_test = len(np.unique(task.target)) == 3
        expected = "1 of 3 contexts has no labels" if has_test else "1 of 3 contexts has no test rows"
        assert any(expected in note for note in task.notes)


def test_ties_alone_are_an_error(tmp_path):
    rows = [
        {
            "prompt": f"p{i}",
            "response_a": f"answer {i}",
            "response_b": f"reply {i}",
            "label": "tie",
            "user": f"u{i % 4}",
        }
        for i in range(20)
    ]
    (tmp_path / "ties.jsonl").write_text("\n".join(map(json.dumps, rows)))
    suite = config("single", datasets=[{"name": "ties", "kind": "file", "path": "ties.jsonl"}])
    with pytest.raises(ValueError, match="ties: expected comparisons with a preference, got ties only in 40 rows"):
        run_suite(suite, tmp_path / "out", tmp_path)
    for i in range(0, 20, 2):
        rows[i]["label"] = 1
    (tmp_path / "ties.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = run_suite(suite, tmp_path / "out", tmp_path)
    assert result.failed == []
    assert_filled(table(tmp_path / "out" / "results.csv"))
    assert "tied rows used neither as labels nor as test rows" in (tmp_path / "out" / "tables.md").read_text()


def test_published_sets_come_through_their_loaders(tmp_path):
    def record(i):
        return {
            "prompt": f"Say {i}.",
            "response_a": f"Short {i}.",
            "response_b": f"A longer answer to {i}.",
            "criteria_x": "be brief",
            "criteria_y": "be complete",
            "category_x": "brief",
            "category_y": "complete",
            "scenario_x": "in a hurry",
            "scenario_y": "at leisure",
            "id": i,
        }

    (tmp_path / "rpr.jsonl").write_text("\n".join(json.dumps(record(i)) for i in range(30)))
    dataset = {
        "name": "rpr",
        "kind": "hub",
        "loader": "rpr",
        "loader_settings": {"source": "rpr.jsonl"},
        "protocol": "contexts",
        "target": "category",
        "parameters": {"n_components": 2},
    }
    run_suite(config("single", "micro_context", datasets=[dataset]), tmp_path / "out", tmp_path)
    rows = table(tmp_path / "out" / "results.csv")
    assert_filled(rows)
    assert float(rows[0]["accuracy"]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="rpr: split: expected both a training and a test part for 'given'"):
        run_suite(config("single", datasets=[{**dataset, "split": "given"}]), tmp_path / "out", tmp_path)
    with pytest.raises(ValueError, match=r"rpr: loader: expected one of helpsteer2.*, got 'demo'"):
        run_suite(config("single", datasets=[{**dataset, "loader": "demo"}]), tmp_path / "out", tmp_path)
    bench = [
        {"user_id": f"u{i % 6}", "split": "train" if i % 5 else "test", "context": "Ask"}
        | {"chosen": f"yes {i}", "rejected": f"no {i}"}
        for i in range(72)
    ]
    given = {
        "name": "prb",
        "kind": "hub",
        "loader": "personal_reward_bench",
        "loader_settings": {"source": bench},
        "split": "given",
        "prompt_scale": 0.0,
    }
    spec = load_suite(config("single", datasets=[given])).datasets[0]
    data = load_data(spec, None)
    assert data.given_test is not None
    assert data.given_test.sum() == 15
    assert data.context.shape == (72, 0)
    task = make_task(data, spec, seed=0, budgets=(0, 1), n_draws=1)
    assert 0 < len(task.weight) < 15
    assert len(task.inputs.train) + len(task.inputs.pool) == 57


@pytest.mark.parametrize("n", [0, 1, 2])
def test_how_many_rows_were_read_and_left_out_is_said_with_the_reason(tmp_path, n):
    rows = [{"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}", "user": f"u{i % 4}"} for i in range(24)]
    for row in rows[:n]:
        row["chosen"] = " "
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    spec = load_suite(config("single", datasets=[{"name": "r", "kind": "file", "path": "rows.jsonl"}])).datasets[0]
    task = make_task(load_data(spec, tmp_path), spec, seed=0, budgets=(0,), n_draws=1)
    assert task.reading == f"24 rows read, {n} left out" + (f" ({n} an empty response)" if n else "")
    result = run_suite(
        config("single", datasets=[{"name": "r", "kind": "file", "path": "rows.jsonl"}]), tmp_path / "o", tmp_path
    )
    assert {row["reading"] for row in result.rows} == {task.reading}
    assert task.reading in (tmp_path / "o" / "tables.md").read_text(encoding="utf-8")


def test_a_file_takes_the_options_of_readers(tmp_path):
    rows = "".join(f"q{i};x{i} yes;y{i} no;{i % 3};u{i % 4}\n" for i in range(24))
    (tmp_path / "votes.txt").write_bytes(("task;left one;right one;mark;who é\n" + rows).encode("cp1252"))
    spec = {
        "name": "votes",
        "kind": "file",
        "path": "votes.txt",
        "format": "csv",
        "encoding": "cp1252",
        "columns": {
            "prompt": "task",
            "response_a": "left one",
            "response_b": "right one",
            "label": "mark",
            "user": "who é",
        },
        "labels": {"0": "first", "1": "second", "2": "tie"},
    }
    data = load_data(load_suite(config("single", datasets=[spec])).datasets[0], tmp_path)
    assert data.reading == "24 rows read, 0 left out"
    assert (len(data.weight), len(set(data.user))) == (32, 4)
    del spec["labels"]
    with pytest.raises(ValueError, match="--label"):
        load_data(load_suite(config("single", datasets=[spec])).datasets[0], tmp_path)
    wide = {"name": "w", "kind": "file", "path": "w.csv", "annotators": "l1,l2"}
    (tmp_path / "w.csv").write_text(
        "prompt,response_a,response_b,l1,l2\n" + "".join(f"q{i},x{i},y{i},a,b\n" for i in range(9))
    )
    assert len(load_data(load_suite(config("single", datasets=[wide])).datasets[0], tmp_path).weight) == 18
    with pytest.raises(ValueError, match="columns: expected only for the kinds file, got kind 'world'"):
        load_suite(config("single", datasets=[{"name": "x", "kind": "world", "world": "groups", "columns": {}}]))
