"""`micropref bench` from a suite to tables: every method on every kind of data, interruptions, failures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bench_cases import (
    FAST,
    WORLD,
    assert_filled,
    but_time,
    config,
    main_returns,
    preference_rows,
    table,
    toml,
    write_contexts,
    write_votes,
)

from micropref.bench import _runner as runner
from micropref.bench import load_suite, run_suite
from micropref.bench._cells import write_cell
from micropref.bench._data import in_canonical_order
from micropref.bench._grids import losses
from micropref.bench._jobs import Job
from micropref.bench._loading import load_data
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._scores import gather
from micropref.bench._specs import KINDS
from micropref.cli import main


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Only the suite of the whole module is drawn."""
    monkeypatch.setattr("micropref.bench._suite.find_spec", lambda name: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite of all kinds of data with every kind of method, run once."""
    path = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    datasets = [write_contexts(path / "data" / "dsp", rng), write_votes(path / "data" / "ukp", rng), WORLD]
    methods = [*KINDS, {"name": "both", "kind": "micro_context", "history": True}]
    methods += [{"name": "gated", "kind": "micro_history", "training_contexts": True}]
    methods += [{"name": "permuted-labels", "kind": "micro_permuted", "permute": "labels"}]
    suite = config(*methods, datasets=datasets, budgets=[0, 1, 50])
    result = run_suite(suite, path / "out", path / "data")
    return path, suite, result


def test_every_method_on_every_kind_of_data(folder):
    path, suite, result = folder
    assert result.failed == []
    rows = table(path / "out" / "results.csv")
    assert len(rows) == 3 * 3 * len(suite["methods"])
    assert_filled(rows)
    missing = {(r["dataset"], r["method"]): r["reason"] for r in rows if r["status"] != "done"}
    assert missing["votes", "oracle"] == "true groups unknown"
    assert missing["groups", "neighbors"] == "no contexts"
    assert missing.pop(("contexts", "planted")) == "users are not planted"
    assert missing.pop(("contexts", "multi_objective")) == "no ratings of single responses"
    assert {name for name, _ in missing} == {"votes", "groups"}
    of = {(r["dataset"], r["method"], r["budget"]): r for r in rows}
    assert float(of["contexts", "single", "50"]["accuracy"]) == pytest.approx(0.5, abs=0.1)
    assert float(of["contexts", "micro_history", "50"]["accuracy"]) > 0.65
    assert float(of["contexts", "both", "50"]["accuracy"]) > 0.65
    assert float(of["contexts", "oracle", "0"]["accuracy"]) > float(of["contexts", "single", "0"]["accuracy"]) + 0.1
    # A budget above what exists takes what there is.
    assert 1 < float(of["groups", "single", "50"]["mean_labels"]) < 10
    assert of["contexts", "single", "0"]["gain"] == ""
    assert of["groups", "oracle", "0"]["best_rival"] == ""


def test_rivals_use_no_additional_information(folder):
    path, _, result = folder
    tests = table(path / "out" / "comparisons.csv")
    assert len(tests) == len(result.comparisons) > 100
    families = {kind: KINDS[kind].family for kind in KINDS} | {"both": "micro", "gated": "micro"}
    for test in tests:
        used, rival = (set(test[name].split(" + ")) - {"none"} for name in ("information", "rival_information"))
        if test["dataset"] == "contexts":  # the owner of a label is its context
            for one in (used, rival):
                one |= {"contexts", "label owners"} if one & {"contexts", "label owners"} else set()
        assert rival <= used
        assert families[test["method"]] == "micro"
        assert families[test["rival"]] == "rival"
        assert float(test["p"]) <= float(test["p_holm"]) <= 1
        assert float(test["difference_low"]) <= float(test["difference"]) <= float(test["difference_high"])
    pairs = {(test["dataset"], test["method"], test["rival"]) for test in tests}
    assert ("votes", "micro_history", "lore") in pairs
    assert ("votes", "micro_context", "lore") not in pairs
    assert ("contexts", "micro_context", "lore") in pairs
    assert ("contexts", "gated", "neighbors") in pairs
    rows = table(path / "out" / "results.csv")
    for row in rows:
        known = float(row["rival_log_loss_p_holm"]) if row["best_log_loss_rival"] and row["rival_log_loss_p"] else None
        assert known is None or known >= float(row["rival_log_loss_p"])
    for name in ("rival_p_holm", "rival_log_loss_p_holm"):  # both are adjusted over the methods of a column
        assert any(float(row[name]) > float(row[name.removesuffix("_holm")]) for row in rows if row[name])


def test_pages_are_whole(folder):
    path, _, result = folder
    out = path / "out"
    markdown, page = ((out / name).read_text(encoding="utf-8") for name in ("tables.md", "tables.html"))
    for text in (markdown, page):
        assert "nan" not in re.findall(r"[a-z]+", re.sub('base64,[^"]*', "", text).lower())
        assert "not applicable: true groups unknown" in text
        assert "Where micropref loses" in text
        assert text.count("Who wins") == 3
        assert "1 of 3 contexts has no test rows and is left out" in text or "no labels" in text
    assert page.count("data:image/png;base64,") == 3
    assert 'src="http' not in page
    assert not re.search(r"\b1 (seeds|rows|draws|labels|units|contexts|cells|test rows|new users)\b(?! ha)", markdown)
    assert "over 1 seed," in markdown
    assert "1 draw of the labels for each seed" in markdown
    assert (out / "contexts.png").stat().st_size > 10_000
    about = json.loads((out / "suite.json").read_text(encoding="utf-8"))
    assert about["suite"]["budgets"] == [0, 1, 50]
    assert set(about["data"]) == {"contexts", "votes", "groups"}
    lines = markdown.splitlines()
    # Columns are aligned in every table, but for headings of groups and a last column of words.
    for above, below in pairwise(lines):
        if above.startswith("| ") and below.startswith("| ") and "**" not in above + below:
            starts = [[i for i, c in enumerate(line) if c == "|"][:-1] for line in (above, below)]
            assert starts[0] == starts[1]
    assert {p.name for p in result.files} >= {"results.csv", "winners.csv", "tables.md", "votes.png"}


def test_losses_are_reported(folder):
    """A rival that is always right, against rows of a coin: the page says who loses."""
    path, content, _ = folder
    suite = load_suite(config("single", "micro_history", "lore"))
    suite = replace(suite, datasets=load_suite(content).datasets[1:2], budgets=(0, 1, 50), n_resamples=1000)
    spec = suite.datasets[0]
    digest = load_data(spec, path / "data").hash
    job = Job(suite, spec, 0, suite.methods, path / "out", path / "data", digest)
    task = job.stored_task()
    assert task is not None
    n = len(task.arrays["weight"])
    other = replace(job, folder=path / "rigged")
    many = {**task.arrays, "cluster": np.arange(n)}
    write_cell(other.where / "task.npz", job.task_key(), many, task.meta)
    rng = np.random.default_rng(0)
    for method in suite.methods:
        odds = np.ones((1, 3, n)) if method.kind == "lore" else rng.choice([-1.0, 1.0], (1, 3, n))
        meta = {"status": "done", "reason": "", "warnings": ["UserWarning: x"], "seconds": 1.0}
        write_cell(other.where / f"{method.name}.npz", job.key(method), {"log_odds": odds}, meta)
    result = gather(suite, [other])
    heading, grid = losses(result)
    assert heading.text == "Where micropref loses"
    lost = [["micro_history", str(budget), "lore"] for budget in (0, 1, 50)]
    assert [row[:3] for row in grid.rows] == [["accuracy"], *lost, ["log-loss"], *lost]
    assert all(row[3].startswith("-.") for row in grid.rows if len(row) > 1)
    lore = [row for row in result.rows if row["method"] == "lore"]
    assert {row["accuracy"] for row in lore} == {1.0}
    assert all(row["rival_difference"] > 0 and row["rival_p_holm"] < 0.1 for row in lore)
    (other.where / "lore.npz").unlink()
    with pytest.raises(
        RuntimeError, match="expected the result of lore, got one that is missing or damaged; run the suite again"
    ):
        gather(suite, [other])


PINNED = {
    ("single", "0"): (0.660377, 1.433039),
    ("single", "2"): (0.660377, 1.433039),
    ("micro_history", "0"): (0.622642, 1.000414),
    ("micro_history", "2"): (0.641509, 1.184386),
    ("lore", "0"): (0.584906, 1.929818),
    ("lore", "2"): (0.584906, 2.187650),
}


def test_results_are_those_of_version_0_1(tmp_path):
    """Numbers that 0.1 wrote: a change of the code of bench must not change what a suite finds."""
    lore = {"name": "lore", "kind": "lore", "alpha": 1e-3, "weight_penalty": 3.0}
    single = {"name": "single", "kind": "single", "alpha": 1e-3}
    history = {"name": "micro_history", "kind": "micro_history", "alpha": 1e-3, "history_temperature": 1.0}
    run_suite(config(single, history, lore), tmp_path)
    rows = table(tmp_path / "results.csv")
    assert {row["split_hash"] for row in rows} == {"d34c5d4ba92599c3"}
    found = {(row["method"], row["budget"]): (float(row["accuracy"]), float(row["log_loss"])) for row in rows}
    assert found.keys() == PINNED.keys()
    for cell, numbers in PINNED.items():
        assert found[cell] == pytest.approx(numbers, abs=1e-4), cell


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    suite = config(*FAST, seeds=[0, 1])
    real, ran = runner.run_cell, []

    def interrupted(run, *given, **more):
        if len(ran) == 6:
            raise KeyboardInterrupt
        ran.append(run)
        return real(run, *given, **more)

    monkeypatch.setattr(runner, "run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path / "a")
    assert not list((tmp_path / "a").rglob(".*"))
    ran.clear()
    monkeypatch.setattr(runner, "run_cell", lambda run, *given, **more: ran.append(run) or real(run, *given, **more))
    result = run_suite(suite, tmp_path / "a")
    assert (result.n_run, result.n_kept) == (4, 6)
    assert ran == [RUNNERS[kind] for kind in FAST[1:]]
    run_suite(suite, tmp_path / "b")
    for name in ("results.csv", "comparisons.csv"):
        assert but_time(tmp_path / "a" / name) == but_time(tmp_path / "b" / name)
    # What is on disk is enough, and gives the same bits.
    before = {p: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    assert run_suite(suite, tmp_path / "a").n_run == 0
    assert {p: p.read_bytes() for p in before} == before


def test_several_processes_find_the_same(tmp_path):
    suite = config("single", "micro_history", "hyre_random", seeds=[0, 1])
    lines = []
    run_suite(suite, tmp_path / "one", report=lines.append)
    run_suite(suite, tmp_path / "two", n_jobs=2, report=lines.append)
    for name in ("results.csv", "comparisons.csv"):
        assert but_time(tmp_path / "one" / name) == but_time(tmp_path / "two" / name)
    assert {"groups, seed 0: hyre_random", "groups, seed 0: done", "groups, seed 1: done"} <= set(lines)


def test_a_process_that_fails_ends_the_run(tmp_path, monkeypatch):
    class Threads(ThreadPoolExecutor):
        def __init__(self, n_workers, mp_context, initializer):
            super().__init__(n_workers)

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Threads)
    (tmp_path / "cells").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        run_suite(config("single", seeds=[0, 1]), tmp_path, n_jobs=2)


def test_one_method_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    def broken(inputs, given, stages):
        raise FloatingPointError("no luck")

    def unbounded(inputs, given, stages):
        return np.full((1, len(inputs.budgets), len(inputs.test)), np.nan)

    monkeypatch.setitem(RUNNERS, "lore", broken)
    monkeypatch.setitem(RUNNERS, "drm", unbounded)
    path = tmp_path / "suite.toml"
    path.write_text(toml(config("lore", "single", "drm")))
    with pytest.raises(SystemExit) as left:
        main(["bench", str(path), "-o", str(tmp_path / "out")])
    assert left.value.code == 1
    printed = capsys.readouterr().out
    assert "failed: groups/lore: seed 0: FloatingPointError: no luck" in printed
    rows = table(tmp_path / "out" / "results.csv")
    assert_filled(rows)
    assert {r["method"]: r["status"] for r in rows} == {"lore": "failed", "single": "done", "drm": "failed"}
    assert "expected finite log-odds, got " in next(r["reason"] for r in rows if r["method"] == "drm")
    assert "failed: seed 0: FloatingPointError: no luck" in (tmp_path / "out" / "tables.md").read_text()
    monkeypatch.undo()
    assert run_suite(path, tmp_path / "out").failed == []


def test_the_command_says_what_it_found(tmp_path, capsys):
    path = tmp_path / "suite.toml"
    path.write_text(toml(config("single", "micro_history", "neighbors", datasets=[WORLD, {**WORLD, "name": "more"}])))
    out = str(tmp_path / "out")
    main_returns(["bench", str(path), "-o", out, "--only", "groups/single", "--only", "more/*history", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["suite"] == "tiny"
    assert (found["cells_run"], found["cells_kept"], found["failed"]) == (2, 0, [])
    assert {(row["dataset"], row["method"]) for row in found["rows"]} == {
        ("groups", "single"),
        ("more", "micro_history"),
    }
    main_returns(["bench", str(path), "-o", out, "--only", "/single", "--only", "groups"])
    printed = capsys.readouterr().out
    assert "more: accuracy by labels" in printed
    assert "not applicable" in printed
    assert "3 cells run, 1 kept" in printed
    with pytest.raises(SystemExit):
        main(["bench", str(path), "-o", out, "--only", "groups/other"])
    error = capsys.readouterr().err
    assert "only: expected data sets among groups, more, methods among single, micro_history, neighbors" in error
    assert "got groups/other" in error


def test_a_part_of_a_suite_leaves_the_tables_of_the_whole(tmp_path):
    suite = config("single", "lore")
    run_suite(suite, tmp_path)
    whole = but_time(tmp_path / "results.csv")
    result = run_suite(suite, tmp_path, only=["/single"])
    assert but_time(tmp_path / "results.csv") == whole
    assert {row["method"] for row in table(tmp_path / "only" / "results.csv")} == {"single"}
    assert result.n_run == 0


def test_a_slow_method_is_spared_some_draws(tmp_path):
    slow = {"name": "slow", "kind": "micro_history", "n_draws": 1}
    suite = config("single", "micro_history", slow, datasets=[{**WORLD, "n_draws": 3}])
    run_suite(suite, tmp_path)
    found = {}
    for name in ("micro_history", "slow"):
        with np.load(tmp_path / "cells" / "groups" / "seed0" / f"{name}.npz") as file:
            found[name] = file["log_odds"]
    assert [len(odds) for odds in found.values()] == [3, 1]
    np.testing.assert_array_equal(found["micro_history"][:1], found["slow"])
    assert not np.array_equal(found["micro_history"][0, 1], found["micro_history"][1, 1])
    assert "3 draws of the labels for each seed, averaged (of slow 1)." in (tmp_path / "tables.md").read_text()
    slow["n_draws"] = 2
    assert run_suite(suite, tmp_path).n_run == 1


def test_one_cluster_has_no_interval(tmp_path):
    rng = np.random.default_rng(8)
    data = in_canonical_order(**preference_rows(rng, n_users=3, n_rows=30))
    assert data.user.max() == 2
    suite = config("single", "static", "micro_history", datasets=[{**WORLD, "n_samples": 30, "new_users": 0.34}])
    run_suite(suite, tmp_path)
    rows = table(tmp_path / "results.csv")
    assert_filled(rows)
    assert {row["n_clusters"] for row in rows} == {"1"}
    assert {row["accuracy_low"] for row in rows} == {""}
    tests = table(tmp_path / "comparisons.csv")
    assert {test["p"] for test in tests} == {""}
    assert {test["difference"] for test in tests} != {""}


def test_without_matplotlib_there_are_tables(tmp_path):
    result = run_suite(config("single"), tmp_path)
    assert not list(tmp_path.glob("*.png"))
    assert "img alt" not in (tmp_path / "tables.html").read_text()
    assert len(result.files) == 6


def test_committed_tables_fit_a_terminal():
    """The tables of the suite are of its methods, and at most 80 columns wide."""
    folder = Path(__file__).parents[1] / "benchmarks"
    lines = (folder / "results" / "suite" / "tables.md").read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("| ")]
    assert len(tables) > 500
    assert max(map(len, tables)) <= 80
    suite = load_suite(folder / "suite.toml")
    rows = table(folder / "results" / "suite" / "results.csv")
    assert {row["dataset"] for row in rows} == {one.name for one in suite.datasets}
    assert {row["method"] for row in rows} == {one.name for one in suite.methods}
    assert {row["seeds"] for row in rows} == {" ".join(map(str, suite.seeds))}


HOLDER = """
import multiprocessing, os, sys, time
from micropref.bench._runner import end_with_parent

def work(pipe):
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    mine, other = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=work, args=(other,)).start()
    print(mine.recv(), flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "holder.py").write_text(HOLDER, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(tmp_path / "holder.py")], stdout=subprocess.PIPE, text=True) as holder:
        worker = int(holder.stdout.readline())
        holder.kill()
    deadline = time.monotonic() + 60
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(pid):
    """Whether a process is there and has not ended: what has lost its parent may wait to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("place", ["file", "file/results"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_read(tmp_path, capsys, place):
    (tmp_path / "file").touch()
    absent = {"name": "votes", "kind": "folder", "path": "absent"}
    (tmp_path / "suite.toml").write_text(toml(config("single", datasets=[absent])))
    commands = (
        ["bench", tmp_path / "suite.toml", "-o", tmp_path / place],
        ["reproduce", "paper", "--small", "-o", tmp_path / place],
        ["reproduce", "paper", "--dry-run", "-o", tmp_path / place],
    )
    for command in commands:
        with pytest.raises(SystemExit) as left:
            main(list(map(str, command)))
        printed = capsys.readouterr()
        assert left.value.code == 1
        assert printed.err.count("expected a folder that can be written to, got ") == 1
        assert "Errno" not in printed.err
        assert "enough" not in printed.out
