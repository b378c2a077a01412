"""`micropref bench`: cells, splits, tables, and what must not change them."""

from __future__ import annotations

import csv
import gzip
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micropref.bench import _runner as runner
from micropref.bench import load_suite, run_suite
from micropref.bench._bootstrap import two_way_bootstrap
from micropref.bench._cells import read_cell, write_cell
from micropref.bench._config import DatasetSpec, MethodSpec
from micropref.bench._data import _without_shared_pairs, arranged, load_comparisons
from micropref.bench._document import Grid, Heading, Image, Paragraph, as_html, as_markdown
from micropref.bench._methods import KINDS, NotApplicable, Stages, effective
from micropref.bench._report import _against_rivals
from micropref.bench._scores import gather
from micropref.bench._tasks import make_task
from micropref.cli import main
from micropref.datasets import PreferenceTable
from micropref.metrics import paired_bootstrap

ROOT = Path(__file__).parents[1]
FAST = ("single", "static", "micro_history", "hyre_micro", "oracle")
WORLD = {
    "name": "groups",
    "kind": "world",
    "world": "groups",
    "n_samples": 300,
    "pairs_per_group": 10,
    "test_units": 0.5,
    "new_users": 0.4,
    "parameters": {"n_components": 2},
}


def config(*kinds, datasets=(WORLD,), **more):
    methods = [{"name": kind, "kind": kind} if isinstance(kind, str) else kind for kind in kinds]
    return {
        "name": "tiny",
        "seeds": [0],
        "budgets": [0, 2],
        "n_resamples": 50,
        "datasets": list(datasets),
        "methods": methods,
        **more,
    }


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def but_time(path):
    return [{k: v for k, v in row.items() if k not in ("seconds", "commit")} for row in table(path)]


def assert_filled(rows):
    """No NaN, and figures wherever a method is done."""
    assert rows
    for row in rows:
        assert not any("nan" in value.lower().split() for value in row.values())
        if row["status"] == "done":
            assert all(np.isfinite(float(row[name])) for name in ("accuracy", "log_loss", "brier", "mean_labels"))
        else:
            assert row["reason"]
            assert row["accuracy"] == ""


def write_texts(folder, n, width, rng):
    folder.mkdir(parents=True)
    texts = [f"text {i} " + "x" * (i % 7) for i in range(n)]
    with gzip.open(folder / "texts.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    vectors = rng.normal(size=(n, width)) / np.sqrt(width)
    np.save(folder / "embeddings.npy", vectors.astype(np.float16))
    return texts, vectors


def write_contexts(folder, rng, n_queries=24):
    """Two contexts that reverse every pair; a third one that occurs with one query alone."""
    texts, vectors = write_texts(folder, 3 + 3 * n_queries, 8, rng)
    with gzip.open(folder / "pairs.jsonl.gz", "wt", encoding="utf-8") as file:
        for query in range(n_queries):
            prompt, a, b = (3 + 3 * query + i for i in range(3))
            for context in range(3 if query == 0 else 2):
                better, worse = (a, b) if (vectors[a, 0] > vectors[b, 0]) == (context == 0) else (b, a)
                row = {"prompt": prompt, "chosen": better, "rejected": worse, "context": context}
                cells = {name: texts[value] for name, value in row.items()}
                file.write(json.dumps({**cells, "query_id": f"q{query}"}) + "\n")
    return {
        "name": "contexts",
        "kind": "folder",
        "path": folder.name,
        "protocol": "contexts",
        "unit": "query_id",
        "test_units": 8,
        "difference_norm": 3.0,
        "parameters": {"n_components": 2},
    }


def write_votes(folder, rng, n_workers=16, n_votes=12):
    """Workers of two tastes, and one with a single vote."""
    texts, vectors = write_texts(folder, 30, 6, rng)
    assert len(texts) == 30
    with gzip.open(folder / "votes.csv.gz", "wt", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["prompt", "chosen", "rejected", "worker", "pair"])
        for worker in range(n_workers):
            for _ in range(1 if worker == 0 else n_votes):
                a, b = sorted(rng.choice(np.arange(1, 30), 2, replace=False))
                first = (vectors[a, 0] > vectors[b, 0]) == (worker % 2 == 0)
                better, worse = (a, b) if first else (b, a)
                out.writerow([0, better, worse, f"w{worker}", f"{a}_{b}"])
    return {
        "name": "votes",
        "kind": "folder",
        "path": folder.name,
        "unit": "pair",
        "test_units": 0.4,
        "min_votes": 5,
        "log_length": True,
        "parameters": {"n_components": 2},
    }


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


def test_rivals_are_told_no_more(folder):
    path, _, result = folder
    tests = table(path / "out" / "comparisons.csv")
    assert len(tests) == len(result.comparisons) > 100
    families = {kind: KINDS[kind].family for kind in KINDS} | {"both": "micro", "gated": "micro"}
    for test in tests:
        told, rival = (set(test[name].split(" + ")) - {"none"} for name in ("information", "rival_information"))
        if test["dataset"] == "contexts":  # to whom a label belongs is the context
            for one in (told, rival):
                one |= {"contexts", "label owners"} if one & {"contexts", "label owners"} else set()
        assert rival <= told
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
        assert "Where MiCRo loses" in text
        assert "1 of 3 contexts have no test rows and are left out" in text or "no labels" in text
    assert page.count("data:image/png;base64,") == 3
    assert 'src="http' not in page
    assert (out / "contexts.png").stat().st_size > 10_000
    about = json.loads((out / "suite.json").read_text(encoding="utf-8"))
    assert about["suite"]["budgets"] == [0, 1, 50]
    assert set(about["data"]) == {"contexts", "votes", "groups"}
    lengths = {line.count("|") for line in markdown.splitlines() if line.startswith("| single | none")}
    assert lengths == {2 + 3 + 1}
    assert {p.name for p in result.files} >= {"results.csv", "tables.md", "votes.png"}


def test_it_goes_on_after_an_interruption(tmp_path, monkeypatch):
    suite = config(*FAST, seeds=[0, 1])
    real, ran = runner.run_cell, []

    def interrupted(task, method, *more):
        if len(ran) == 6:
            raise KeyboardInterrupt
        ran.append(method.name)
        return real(task, method, *more)

    monkeypatch.setattr(runner, "run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path / "a")
    assert not list((tmp_path / "a").rglob(".*"))
    ran.clear()
    monkeypatch.setattr(runner, "run_cell", lambda *given: ran.append(given[1].name) or real(*given))
    result = run_suite(suite, tmp_path / "a")
    assert (result.n_run, result.n_kept) == (4, 6)
    assert ran == list(FAST[1:])
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
        def __init__(self, n_workers, mp_context):
            super().__init__(n_workers)

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Threads)
    (tmp_path / "cells").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        run_suite(config("single", seeds=[0, 1]), tmp_path, n_jobs=2)


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


def test_one_method_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    def broken(material, given, stages):
        raise FloatingPointError("no luck")

    def unbounded(material, given, stages):
        return np.full((1, len(material.budgets), len(material.test)), np.nan)

    monkeypatch.setitem(KINDS, "lore", replace(KINDS["lore"], run=broken))
    monkeypatch.setitem(KINDS, "drm", replace(KINDS["drm"], run=unbounded))
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
    assert "log-odds that are not finite" in next(r["reason"] for r in rows if r["method"] == "drm")
    assert "failed: seed 0: FloatingPointError: no luck" in (tmp_path / "out" / "tables.md").read_text()
    monkeypatch.undo()
    assert run_suite(path, tmp_path / "out").failed == []


def toml(suite):
    """The suite as a file, arrays and scalars alone."""

    def value(one):
        if isinstance(one, dict):
            return "{ " + ", ".join(f"{k} = {value(v)}" for k, v in one.items()) + " }"
        return json.dumps(one)

    lines = [f"{k} = {value(v)}" for k, v in suite.items() if k not in ("datasets", "methods")]
    for key in ("datasets", "methods"):
        for one in suite[key]:
            lines += [f"[[{key}]]", *(f"{k} = {value(v)}" for k, v in one.items())]
    return "\n".join(lines)


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
    assert "only: found nothing for groups/other" in error
    assert "methods single, micro_history, neighbors" in error


def main_returns(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0


# --------------------------------------------------------------------------------------- what must not change results


def comparisons(rng, n_users=10, n_rows=12, width=5, n_context=0):
    n = n_users * n_rows
    user = np.repeat(np.arange(n_users), n_rows)
    difference = rng.normal(size=(n, width))
    difference *= np.where(difference[:, 0] * np.where(user % 2, 1, -1) < 0, -1, 1)[:, None]
    return {
        "context": rng.normal(size=(n, n_context)),
        "difference": difference,
        "weight": np.ones(n),
        "user": user,
        "target": np.full(n, -1),
        "unit": rng.integers(0, n // 2, n),
    }


SPEC = DatasetSpec(name="made", kind="file", test_units=0.4, new_users=0.5, parameters={"n_components": 2})


def odds_of(data, kind, *, order_seed=0, spec=SPEC, **given):
    task = make_task(data, spec, seed=0, budgets=(0, 1, 3), n_draws=2, order_seed=order_seed)
    method = MethodSpec(name=kind, kind=kind, settings=given)
    arrays, meta = runner.run_cell(task, method, spec, Stages())
    assert meta["status"] == "done", meta
    return arrays["log_odds"], task


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(sorted(set(KINDS) - {"oracle"})))
def test_names_and_the_order_of_rows_change_nothing(seed, kind):
    rng = np.random.default_rng(seed)
    parts = comparisons(rng, n_context=2)
    data = arranged(**parts)
    order = rng.permutation(len(parts["user"]))
    names = rng.permutation([f"user {i}" for i in range(10)])
    units = rng.permutation(1000)
    other = arranged(
        **{
            **{name: part[order] for name, part in parts.items()},
            "user": names[parts["user"]][order],
            "unit": units[parts["unit"]][order],
        }
    )
    assert other.hash == data.hash
    for name in ("difference", "user", "unit", "is_tie"):
        np.testing.assert_array_equal(getattr(other, name), getattr(data, name))
    np.testing.assert_array_equal(odds_of(data, kind)[0], odds_of(other, kind)[0])


def test_users_who_are_alike_can_be_exchanged():
    """Many users cast the same votes: in whatever order their rows come, they are put in one."""
    rng = np.random.default_rng(11)
    votes = rng.normal(size=(6, 3))
    parts = {
        "context": np.zeros((24, 0)),
        "difference": np.tile(votes, (4, 1)),
        "weight": np.ones(24),
        "user": np.repeat(np.arange(4), 6),
        "target": np.full(24, -1),
        "unit": np.tile(np.arange(6), 4),
    }
    hashes = set()
    for _ in range(10):
        order = rng.permutation(24)
        hashes.add(arranged(**{name: part[order] for name, part in parts.items()}).hash)
    assert len(hashes) == 1


@settings(max_examples=8)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(sorted(set(KINDS) - {"oracle"})),
)
def test_swapping_pairs_changes_rounding_alone(seed, kind):
    data = arranged(**comparisons(np.random.default_rng(seed), n_context=2))
    found, other = (odds_of(data, kind, order_seed=order) for order in (0, 1))
    assert not np.array_equal(found[1].test_sign, other[1].test_sign)
    # Iterations end within `tol`, from wherever rounding led them.
    np.testing.assert_allclose(found[0], other[0], rtol=0.02, atol=0.02)


def test_test_labels_reach_no_method():
    data = arranged(**comparisons(np.random.default_rng(3), n_context=3))
    task = make_task(data, SPEC, seed=0, budgets=(0, 1, 3), n_draws=2)
    assert task.material.test.y is None
    poisoned = replace(task, test_sign=-task.test_sign)
    for kind in KINDS:
        if kind == "oracle":
            continue
        method = MethodSpec(name=kind, kind=kind, settings={})
        (clean, _), (turned, meta) = (runner.run_cell(one, method, SPEC, Stages()) for one in (task, poisoned))
        assert meta["status"] == "done", meta
        np.testing.assert_array_equal(clean["log_odds"], -turned["log_odds"])


@pytest.fixture(scope="module", params=["users", "contexts"])
def poisoned(request):
    """Raw rows before anything is done with them, and the same with the labels of all test rows turned round."""
    rng = np.random.default_rng(4)
    spec = SPEC if request.param == "users" else replace(SPEC, protocol="contexts", pairs_per_annotator=0)
    parts = comparisons(rng, n_context=2)
    if request.param == "contexts":
        parts["target"] = parts["user"] % 2
    data = arranged(**parts)
    task = make_task(data, spec, seed=0, budgets=(0, 3), n_draws=2)
    tested = {np.abs(row).tobytes() for row in task.material.test.difference}
    rows = np.array([np.abs(row).tobytes() in tested for row in parts["difference"].astype(np.float32)])
    assert 0 < rows.sum() < len(rows)
    turned = {**parts, "difference": np.where(rows[:, None], -parts["difference"], parts["difference"])}
    return spec, task, make_task(arranged(**turned), spec, seed=0, budgets=(0, 3), n_draws=2)


def test_labels_of_test_rows_decide_no_split(poisoned):
    _, clean, turned = poisoned
    assert turned.split_hash == clean.split_hash
    np.testing.assert_array_equal(turned.material.ranks, clean.material.ranks)
    np.testing.assert_array_equal(turned.material.train.difference, clean.material.train.difference)
    preferred = [task.test_sign * task.material.test.difference.T for task in (clean, turned)]
    np.testing.assert_array_equal(preferred[0], -preferred[1])


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"oracle"}))
def test_labels_of_test_rows_reach_no_fit(poisoned, kind):
    """Other labels of test rows in the raw data: every fit, and so every prediction, is the same."""
    spec, *tasks = poisoned
    method = MethodSpec(name=kind, kind=kind, settings={})
    (clean, meta), (turned, _) = (runner.run_cell(task, method, spec, Stages()) for task in tasks)
    assert meta["status"] == "done", meta
    np.testing.assert_array_equal(clean["log_odds"], -turned["log_odds"])


def test_splits_keep_their_promises():
    parts = comparisons(np.random.default_rng(5), n_users=20)
    data = arranged(**parts)
    task = make_task(data, SPEC, seed=2, budgets=(0, 1, 4), n_draws=3)
    material = task.material
    new = set((np.unique(task.target)).tolist())
    assert not new & set(material.annotators.tolist())
    assert not set(np.unique(material.pool_target).tolist()) & set(material.annotators.tolist())
    for draw in range(3):
        taken = [np.flatnonzero(material.ranks[draw] < budget) for budget in material.budgets]
        assert set(taken[1].tolist()) < set(taken[2].tolist())
        np.testing.assert_array_equal(np.sort(np.concatenate(list(material.steps(draw)))), taken[2])
        counts = np.unique(material.pool_target[taken[2]], return_counts=True)[1]
        assert counts.max() == 4
    other = make_task(data, SPEC, seed=3, budgets=(0, 1, 4), n_draws=3)
    assert other.split_hash != task.split_hash
    again = make_task(data, SPEC, seed=2, budgets=(0, 1, 4), n_draws=3)
    assert again.split_hash == task.split_hash
    np.testing.assert_array_equal(again.material.train.difference, material.train.difference)


def test_the_luck_of_the_draw_is_in_the_tests():
    """Nothing to gain, but every draw of labels moves all rows together: five seeds of ten draws, 400 times."""
    rng = np.random.default_rng(0)
    seed, cluster = np.repeat(np.arange(5), 60), np.tile(np.arange(60), 5)
    p, alone = [], []
    for _ in range(400):
        luck = rng.normal(size=(10, 5))[:, seed]
        values = luck + rng.normal(size=60)[cluster] * 0.5 + rng.normal(size=(10, 300))
        kwargs = {"level": 0.95, "n_resamples": 300, "random_state": 1}
        found = two_way_bootstrap(values, cluster, seed, np.ones(300), **kwargs)
        p.append(found.p_value)
        assert found.difference == pytest.approx(values.mean())
        assert found.low <= found.difference <= found.high
        alone.append(paired_bootstrap(values.mean(axis=0), np.zeros(300), cluster, **kwargs).p_value)
    assert 0.01 < np.mean(np.array(p) < 0.05) < 0.1
    assert np.mean(np.array(alone) < 0.05) > 0.2


def test_two_ways_of_resampling_find_what_is_there():
    rng = np.random.default_rng(1)
    values = 0.3 + rng.normal(size=(10, 3))[:, np.repeat(np.arange(3), 50)] * 0.1 + rng.normal(size=(10, 150)) * 0.3
    seed, cluster, weight = np.repeat(np.arange(3), 50), np.tile(np.arange(50), 3), rng.uniform(0.5, 2, 150)
    found = two_way_bootstrap(values, cluster, seed, weight, level=0.95, n_resamples=500)
    assert found.difference == pytest.approx(np.average(values.mean(axis=0), weights=weight))
    assert found.low > 0.2
    assert found.p_value == pytest.approx(1 / 501)


def test_other_code_or_versions_make_other_cells(tmp_path, monkeypatch):
    suite = config("single")
    assert run_suite(suite, tmp_path).n_run == 1
    assert run_suite(suite, tmp_path).n_run == 0
    runner.code_and_versions.cache_clear()
    monkeypatch.setattr(runner, "version", lambda name: "0")
    assert run_suite(suite, tmp_path).n_run == 1
    runner.code_and_versions.cache_clear()


def test_a_pair_under_two_names_is_one_unit():
    table = PreferenceTable(
        prompt=["q"] * 4 + ["r"], chosen=["a", "b", "c", "c", "a"], rejected=["b", "a", "b", "d", "b"]
    )
    units = _without_shared_pairs(table, ["u", "v", "w", "w", "x"])
    assert units[0] == units[1]
    assert len(set(units)) == 3
    assert units[2] == units[3]


def test_a_part_of_a_suite_leaves_the_tables_of_the_whole(tmp_path):
    suite = config("single", "lore")
    run_suite(suite, tmp_path)
    whole = but_time(tmp_path / "results.csv")
    result = run_suite(suite, tmp_path, only=["/single"])
    assert but_time(tmp_path / "results.csv") == whole
    assert {row["method"] for row in table(tmp_path / "only" / "results.csv")} == {"single"}
    assert result.n_run == 0


def test_controls_are_permuted():
    data = arranged(**comparisons(np.random.default_rng(6), n_users=20))
    material = make_task(data, SPEC, seed=0, budgets=(0, 2), n_draws=1).material
    permuted = material.with_permuted_annotators()
    assert not np.array_equal(permuted.annotators, material.annotators)
    np.testing.assert_array_equal(np.sort(permuted.annotators), np.sort(material.annotators))
    first, second = replace(material, ranks=np.repeat(material.ranks, 2, axis=0)).with_permuted_labels()
    owner = {row.tobytes(): user for row, user in zip(material.pool.difference, material.pool_target, strict=True)}
    for shuffled in (first, second):
        np.testing.assert_array_equal(shuffled.pool_target, material.pool_target)
        pairs = zip(shuffled.pool.difference, shuffled.pool_target, strict=True)
        assert np.mean([owner[row.tobytes()] == user for row, user in pairs]) < 0.5
    assert not np.array_equal(first.pool.difference, second.pool.difference)
    with pytest.raises(ValueError, match="permute: found 'x', wanted 'annotators'"):
        KINDS["micro_history"].run(material, effective("micro_history", {"permute": "x"}, {}), Stages())


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


def test_what_methods_share_is_fitted_once_and_charged_to_each():
    stages, calls = Stages(), []
    for _ in range(2):
        stages.seconds = 0.0
        assert stages.get("key", lambda: calls.append(1) or "fit") == "fit"
    assert calls == [1]
    assert stages.seconds >= 0


# ----------------------------------------------------------------------------------------------------------- bad input


def test_users_with_little_to_say(tmp_path):
    """One pair alone, votes on test units alone, nobody else's pair: figures, and notes of what was done."""
    rng = np.random.default_rng(7)
    parts = comparisons(rng, n_users=12)
    parts["user"][:3] = [100, 101, 102]
    data = arranged(**parts)
    spec = replace(SPEC, min_votes=1, new_users=1.0)
    with pytest.raises(ValueError, match="made: found no training rows for seed 0"):
        make_task(data, spec, seed=0, budgets=(0, 1), n_draws=1)
    spec = replace(spec, new_users=0.9)
    task = make_task(data, spec, seed=0, budgets=(0, 1, 100), n_draws=1)
    assert any(re.fullmatch(r"\d of \d+ new users have no (test rows.*|labels.*)", note) for note in task.notes)
    assert task.mean_labels[0] == 0
    assert task.mean_labels[2] < 20
    for kind in ("micro_history", "lore", "user_rewards", "hyre_random"):
        assert np.isfinite(odds_of(data, kind, spec=spec)[0]).all()


def test_an_attribute_without_test_pairs(folder):
    path, suite, _ = folder
    spec = load_suite(suite).datasets[0]
    data = load_comparisons(spec, path / "data")
    for seed in range(3):
        task = make_task(data, spec, seed=seed, budgets=(0, 1), n_draws=1)
        has_test = len(np.unique(task.target)) == 3
        expected = "1 of 3 contexts have no labels" if has_test else "1 of 3 contexts have no test rows"
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
    with pytest.raises(ValueError, match="ties: found ties only, 40 rows"):
        run_suite(suite, tmp_path / "out", tmp_path)
    for i in range(0, 20, 2):
        rows[i]["label"] = 1
    (tmp_path / "ties.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = run_suite(suite, tmp_path / "out", tmp_path)
    assert result.failed == []
    assert_filled(table(tmp_path / "out" / "results.csv"))
    assert "rows of ties are neither labels nor test rows" in (tmp_path / "out" / "tables.md").read_text()


def test_one_cluster_has_no_interval(tmp_path):
    rng = np.random.default_rng(8)
    data = arranged(**comparisons(rng, n_users=3, n_rows=30))
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


def test_data_that_a_protocol_cannot_cut(tmp_path):
    data = arranged(**comparisons(np.random.default_rng(9)))
    with pytest.raises(ValueError, match="made: found nobody with 50 votes, at most 1"):
        make_task(data, replace(SPEC, min_votes=50), seed=0, budgets=(0,), n_draws=1)
    with pytest.raises(ValueError, match=r"made: test_units: found 500 of \d+, wanted some left for training"):
        make_task(data, replace(SPEC, test_units=500), seed=0, budgets=(0,), n_draws=1)
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    spec = DatasetSpec(name="rows", kind="file", path="rows.jsonl")
    with pytest.raises(ValueError, match="rows: found no column of users"):
        load_comparisons(spec, tmp_path)
    with pytest.raises(ValueError, match="rows: target: found no column 'context', wanted one of prompt"):
        load_comparisons(replace(spec, protocol="contexts"), tmp_path)


# ------------------------------------------------------------------------------------------------------ published sets


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
    with pytest.raises(ValueError, match="rpr: split: found no training and test parts"):
        run_suite(config("single", datasets=[{**dataset, "split": "given"}]), tmp_path / "out", tmp_path)
    with pytest.raises(ValueError, match="rpr: loader: found 'demo', wanted one of helpsteer2"):
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
    data = load_comparisons(spec, None)
    assert data.given_test is not None
    assert data.given_test.sum() == 15
    assert data.context.shape == (72, 0)
    task = make_task(data, spec, seed=0, budgets=(0, 1), n_draws=1)
    assert 0 < len(task.weight) < 15
    assert len(task.material.train) + len(task.material.pool) == 57


# ------------------------------------------------------------------------------------------------------- configuration


def test_shipped_suites():
    quick, whole = (load_suite(ROOT / "benchmarks" / name) for name in ("suite_quick.toml", "suite.toml"))
    assert {one.kind for one in whole.methods} == set(KINDS) == {one.kind for one in quick.methods}
    assert {one.kind for one in quick.datasets} == {"world"}
    assert len(whole.seeds) == 5
    assert whole.budgets == (0, 1, 2, 5, 10, 20, 50)
    assert {"dsp", "ukpconvarg1"} < {one.name for one in whole.datasets}
    assert load_suite(whole) is whole


def test_settings_come_from_the_method_then_the_data_set_then_the_kind():
    assert effective("lore", {}, {"n_components": 7})["n_components"] == 7
    assert effective("lore", {"n_components": 5}, {"n_components": 7})["n_components"] == 5
    # The size of an ensemble or a basis is no number of populations.
    assert effective("hyre", {}, {"n_components": 7, "alpha": 1e-2}) == {
        **effective("hyre", {}, {}),
        "alpha": 1e-2,
    }
    assert effective("drm", {}, {"n_components": 7})["n_components"] == 20


CHANGES = [
    ({"seed": [1]}, r"config: seed: unknown key; wanted one of budgets, datasets"),
    ({"name": " "}, r"config: name: found ' ', wanted text"),
    ({"seeds": []}, r"config: seeds: found \[\], wanted whole numbers"),
    ({"seeds": [1, 1]}, r"config: seeds: found \[1, 1\], wanted each once"),
    ({"budgets": [2, 1]}, r"config: budgets: found \[2, 1\], wanted them in ascending order"),
    ({"budgets": [-1]}, r"config: budgets: found \[-1\]"),
    ({"methods": [{"name": "a", "kind": "lore", "n_draws": -1}]}, r"methods.a: n_draws: found \[-1\]"),
    ({"n_draws": 0}, r"config: n_draws: found \[0\], wanted whole numbers of at least 1"),
    ({"level": 95}, r"config: level: found 95, wanted a number between 0 and 1"),
    ({"methods": []}, r"config: methods: found \[\], wanted at least one \[\[methods\]\]"),
    ({"methods": None}, r"config: methods: found nothing"),
    ({"methods": [{"name": "a", "kind": "b"}]}, r"config: methods.a: kind: found 'b', wanted one of single"),
    ({"methods": [{"kind": "lore"}]}, r"config: methods\[0\]: name: found nothing, wanted text"),
    ({"methods": [{"name": "a", "kind": "single"}] * 2}, r"methods: found the name 'a' twice"),
    ({"methods": [{"name": "a/b", "kind": "single"}]}, r"methods: found the name 'a/b', wanted letters"),
    ({"methods": [{"name": "a", "kind": "lore", "x": 1}]}, r"methods.a: x: unknown setting of the kind 'lore'"),
    (
        {"methods": [{"name": "a", "kind": "lore", "alpha": "1"}]},
        r"methods.a: alpha: found '1', wanted a value like",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_bad_configuration_names_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        load_suite({**config("single"), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "world2"}, r"datasets.groups: kind: found 'world2', wanted one of folder, file, hub, world"),
        ({"world": "moon"}, r"datasets.groups: world: found 'moon', wanted one of groups"),
        ({"path": "x"}, r"datasets.groups: path: found in a data set of kind 'world', wanted only in folder, file"),
        ({"colour": 1}, r"datasets.groups: colour: unknown key"),
        ({"protocol": "x"}, r"datasets.groups: protocol: found 'x'"),
        ({"split": "given"}, r"datasets.groups: split: found 'given' in a data set of kind 'world'"),
        ({"split": "x"}, r"datasets.groups: split: found 'x', wanted one of random, given"),
        ({"test_units": 0}, r"datasets.groups: test_units: found 0, wanted a number above 0"),
        ({"new_users": 2.0}, r"datasets.groups: new_users: found 2.0, wanted a number above 0 and at most 1"),
        ({"n_samples": 1.5}, r"datasets.groups: n_samples: found 1.5, wanted a whole number"),
        ({"log_length": 1}, r"datasets.groups: log_length: found 1, wanted true or false"),
        ({"min_votes": True}, r"datasets.groups: min_votes: found True, wanted a whole number"),
        ({"parameters": 3}, r"datasets.groups: parameters: found 3, wanted a table"),
        ({"parameters": {"x": 3}}, r"datasets.groups: parameters.x: unknown setting"),
    ],
)
def test_a_bad_data_set_names_the_key(change, message):
    with pytest.raises(ValueError, match=message):
        load_suite(config("single", datasets=[{**WORLD, **change}]))


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text("name = ")
    with pytest.raises(ValueError, match=r"suite.toml: not a TOML file"):
        load_suite(path)
    with pytest.raises(ValueError, match=r"datasets.a: path: found nothing, wanted text"):
        load_suite(config("single", datasets=[{"name": "a", "kind": "folder"}]))


# ------------------------------------------------------------------------------------------------------------- writing


def test_markdown_and_html_escape(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    blocks = [
        Heading(2, "a & b"),
        Paragraph("1 < 2"),
        Grid(["m", "x"], [["a|b", "<1>"]], 1, "A caption."),
        Grid(["m"], [["a"]], 1),
        Image(tmp_path / "a.png", "alt"),
    ]
    text = as_markdown(blocks)
    assert "| a\\|b | <1> |" in text
    assert "| --- | --: |" in text
    assert "![alt](a.png)" in text
    page = as_html("t", blocks)
    assert "&lt;1&gt;" in page
    assert "1 &lt; 2" in page
    assert "prefers-color-scheme: dark" in page


def test_losses_are_told(folder):
    """A rival that is always right, against rows of a coin: the page says who loses."""
    path, content, _ = folder
    suite = load_suite(config("single", "micro_history", "lore"))
    suite = replace(suite, datasets=load_suite(content).datasets[1:2], budgets=(0, 1, 50), n_resamples=1000)
    spec = suite.datasets[0]
    digest = load_comparisons(spec, path / "data").hash
    job = runner.Job(suite, spec, 0, suite.methods, path / "out", path / "data", digest)
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
    heading, grid = _against_rivals(result)
    assert heading.text == "Where MiCRo loses"
    assert {(row[0], row[1]) for row in grid.rows} == {("micro_history", "accuracy"), ("micro_history", "log-loss")}
    assert all(row[2].count("to lore") == 3 and "to single" not in row[2] for row in grid.rows)
    lore = [row for row in result.rows if row["method"] == "lore"]
    assert {row["accuracy"] for row in lore} == {1.0}
    assert all(row["rival_difference"] > 0 and row["rival_p_holm"] < 0.1 for row in lore)
    (other.where / "lore.npz").unlink()
    with pytest.raises(RuntimeError, match="lore is missing or damaged; run the suite again"):
        gather(suite, [other])


def test_without_matplotlib_there_are_tables(tmp_path):
    result = run_suite(config("single"), tmp_path)
    assert not list(tmp_path.glob("*.png"))
    assert "img alt" not in (tmp_path / "tables.html").read_text()
    assert len(result.files) == 5


def test_not_applicable_is_no_error():
    assert issubclass(NotApplicable, Exception)
    data = arranged(**comparisons(np.random.default_rng(1)))
    nobody = replace(data, user=np.full(len(data.user), -1), target=np.zeros(len(data.user), dtype=int))
    spec = replace(SPEC, protocol="contexts", pairs_per_annotator=0)
    task = make_task(nobody, spec, seed=0, budgets=(0, 1), n_draws=1)
    for kind, reason in (("micro_permuted", "no annotators to permute"), ("micro_context", "no contexts")):
        meta = runner.run_cell(task, MethodSpec(name=kind, kind=kind, settings={}), spec, Stages())[1]
        assert (meta["status"], meta["reason"]) == ("not applicable", reason)
    gated = MethodSpec(name="gated", kind="static", settings={"training_contexts": True})
    assert runner.run_cell(task, gated, spec, Stages())[1]["reason"] == "no contexts"
