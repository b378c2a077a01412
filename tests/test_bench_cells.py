"""Cells of a suite on disk: when they are kept and when they are computed again."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from bench_cases import WORLD, but_time, config, table

from micropref.bench import _jobs as jobs
from micropref.bench import run_suite
from micropref.bench._cells import read_cell, write_cell
from micropref.bench._methods.registry import RUNNERS


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Only the suite of the whole module is drawn."""
    monkeypatch.setattr("micropref.bench._suite.find_spec", lambda name: None)


def test_only_what_changed_is_run_again(tmp_path):
    suite = config("single", "hyre_random", "drm")
    run_suite(suite, tmp_path)
    suite["methods"][2]["margin"] = 1.0
    assert run_suite(suite, tmp_path).n_run == 1
    suite["n_resamples"], suite["level"] = 60, 0.9
    assert run_suite(suite, tmp_path).n_run == 0
    suite["seeds"] = [0, 3]
    assert run_suite(suite, tmp_path).n_run == 3
    suite["budgets"] = [0, 1, 2]
    assert run_suite(suite, tmp_path).n_run == 6
    suite["datasets"] = [{**WORLD, "new_users": 0.3}]
    assert run_suite(suite, tmp_path).n_run == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "bit"])
def test_a_damaged_cell_is_computed_again(tmp_path, damage):
    suite = config("single", "static")
    run_suite(suite, tmp_path)
    before = but_time(tmp_path / "results.csv")
    path = tmp_path / "cells" / "groups" / "seed0" / "static.npz"
    content = path.read_bytes()
    bit = content[:400] + bytes([content[400] ^ 1]) + content[401:]
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello", "bit": bit}[damage])
    assert run_suite(suite, tmp_path).n_run == 1
    assert but_time(tmp_path / "results.csv") == before


def test_a_cell_knows_its_key_and_its_numbers(tmp_path):
    path = tmp_path / "cell.npz"
    write_cell(path, "key", {"a": np.arange(3.0)}, {"status": "done"})
    found = read_cell(path, "key")
    assert found is not None
    assert found.arrays["a"].tolist() == [0, 1, 2]
    assert read_cell(path, "other") is None
    with np.load(path) as file:
        meta = str(file["meta"])
    np.savez(path, a=np.arange(1.0, 4.0), meta=np.array(meta))
    assert read_cell(path, "key") is None


def test_other_versions_make_other_cells(tmp_path, monkeypatch):
    suite = config("single")
    assert run_suite(suite, tmp_path).n_run == 1
    assert run_suite(suite, tmp_path).n_run == 0
    monkeypatch.setattr(jobs, "_versions", lambda: ["0"])
    assert run_suite(suite, tmp_path).n_run == 1


def test_other_code_of_a_method_makes_its_cells_alone_new(tmp_path, monkeypatch):
    suite = config("single", "lore")
    run_suite(suite, tmp_path)
    before = {row["method"]: row["code_hash"] for row in table(tmp_path / "results.csv")}
    monkeypatch.setitem(RUNNERS, "lore", partial(RUNNERS["lore"], max_iter=200))
    assert run_suite(suite, tmp_path).n_run == 1
    after = {row["method"]: row["code_hash"] for row in table(tmp_path / "results.csv")}
    assert {name for name in before if before[name] != after[name]} == {"lore"}
    monkeypatch.setattr(jobs, "_task_code", lambda: "other")
    assert run_suite(suite, tmp_path).n_run == 2
