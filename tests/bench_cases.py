"""Small suites, data sets and tasks for the tests of `micropref bench`."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest

from micropref.bench._evaluation import run_cell
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._methods.steps import Stages
from micropref.bench._specs import KINDS, DatasetSpec, resolve_settings
from micropref.bench._tasks import make_task
from micropref.cli import main

# Kinds of methods that need no truth, no ratings, and no contexts of the space of responses.
PLAIN = tuple(sorted(set(KINDS) - {"oracle", "planted", "multi_objective", "interactions", "interactions_permuted"}))
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


SPEC = DatasetSpec(name="made", kind="file", test_units=0.4, new_users=0.5, parameters={"n_components": 2})


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


def preference_rows(rng, n_users=10, n_rows=12, width=5, n_context=0):
    """Rows of users of two populations with opposite preferences."""
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


def cell_of(task, kind, spec=SPEC, **given):
    """Arrays and meta of one method on a task."""
    return run_cell(RUNNERS[kind], task, resolve_settings(kind, given, spec.parameters), Stages())


def odds_of(data, kind, *, order_seed=0, spec=SPEC, **given):
    task = make_task(data, spec, seed=0, budgets=(0, 1, 3), n_draws=2, order_seed=order_seed)
    arrays, meta = cell_of(task, kind, spec, **given)
    assert meta["status"] == "done", meta
    return arrays["log_odds"], task


def main_returns(arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
