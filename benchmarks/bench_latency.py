"""What does one routed prediction, and one vote, cost? Against LogisticRegression on the same row in the same run.

    python benchmarks/bench_latency.py [--json] [--repeats 2000]

Goals: a prediction at most 200 µs above LogisticRegression.predict_proba, a partial_fit of one pair at most 500 µs, and
one of a user who is a posterior at most 1 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from itertools import cycle

import numpy as np
import scipy
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import micropref
from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry

N_COMPONENTS, N_FEATURES, N_CONTEXT = 4, 384, 768
N_ROWS, N_USERS = 1000, 100
PREDICTION_GOAL, UPDATE_GOAL, POSTERIOR_GOAL = 200.0, 500.0, 1000.0
DIRECTIONS = (4, 10)


def measure(calls: dict[str, Callable[[int], object]], repeats: int) -> dict[str, np.ndarray]:
    """Microseconds of every call, taken in turns so that a busy moment of the machine meets all of them."""
    times = {name: np.empty(repeats) for name in calls}
    rows = cycle(range(N_ROWS))
    for _ in range(50):
        for call in calls.values():
            call(next(rows))
    for repeat in range(repeats):
        for name, call in calls.items():
            row = next(rows)
            start = time.perf_counter()
            call(row)
            times[name][repeat] = (time.perf_counter() - start) * 1e6
    return times


def make_calls() -> dict[str, Callable[[int], object]]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_ROWS, N_CONTEXT + N_FEATURES)).astype(np.float32) / 10
    y = rng.integers(0, 2, size=N_ROWS)
    users = rng.integers(0, N_USERS, size=N_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is changes no time
        logistic = LogisticRegression(max_iter=20).fit(X, y)
        heads = MixtureBradleyTerry(N_COMPONENTS, n_init=1, max_iter=20, random_state=0).fit(X[:, N_CONTEXT:], y)
    posteriors = {q: around_heads(X, y, users, q) for q in DIRECTIONS}
    asked, context_learner, user_learner = (
        ContextRouter(heads).fit(X[:200], y[:200]).partial_fit(X, y, groups=users) for _ in range(3)
    )
    return {
        "LogisticRegression.predict_proba": lambda i: logistic.predict_proba(X[i : i + 1]),
        "predict_proba": lambda i: asked.predict_proba(X[i : i + 1]),
        "predict_proba, known user": lambda i: asked.predict_proba(X[i : i + 1], groups=users[i : i + 1]),
        "predict_proba, user by name": lambda i: asked.predict_proba(X[i : i + 1], groups=["ann"]),
        "partial_fit, a label in context": lambda i: context_learner.partial_fit(X[i : i + 1], y[i : i + 1]),
        "partial_fit, a vote of a user": lambda i: user_learner.partial_fit(
            X[i : i + 1], y[i : i + 1], groups=users[i : i + 1]
        ),
        **{
            f"posterior, a vote, q = {q}": lambda i, router=router: router.partial_fit(
                X[i : i + 1, N_CONTEXT:], y[i : i + 1], groups=users[i : i + 1]
            )
            for q, router in posteriors.items()
        },
    }


def around_heads(X: np.ndarray, y: np.ndarray, users: np.ndarray, n_directions: int) -> ContextRouter:
    """A router whose users scatter around the heads in so many directions, after their votes."""
    model = HierarchicalBradleyTerry(
        N_COMPONENTS, rank=n_directions, n_directions=n_directions, n_init=1, max_iter=3, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:, N_CONTEXT:], y, groups=users)
    return ContextRouter(model).partial_fit(X[:, N_CONTEXT:], y, groups=users)


def report(times: dict[str, np.ndarray]) -> dict:
    base = float(np.median(times["LogisticRegression.predict_proba"]))
    rows = []
    for name, values in times.items():
        p20, median, p80 = np.percentile(values, [20, 50, 80])
        row = {"call": name, "median_us": float(median), "p20_us": float(p20), "p80_us": float(p80)}
        if name.startswith("predict_proba"):
            row |= {"above_baseline_us": float(median) - base, "goal_us": PREDICTION_GOAL}
            row["holds"] = row["above_baseline_us"] <= PREDICTION_GOAL
        elif name.startswith("partial_fit"):
            row |= {"goal_us": UPDATE_GOAL, "holds": float(median) <= UPDATE_GOAL}
        elif name.startswith("posterior"):
            row |= {"goal_us": POSTERIOR_GOAL, "holds": float(median) <= POSTERIOR_GOAL}
        rows.append(row)
    versions = {"python": platform.python_version(), "micropref": micropref.__version__}
    versions |= {module.__name__: module.__version__ for module in (np, scipy, sklearn)}
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    shape = {"n_components": N_COMPONENTS, "n_features": N_FEATURES, "n_context_features": N_CONTEXT}
    return {"machine": machine, "versions": versions, "shape": shape, "rows": rows}


def print_table(found: dict) -> None:
    print(f"{found['machine']}; " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    print(f"one row, K = {N_COMPONENTS}, d = {N_FEATURES}, context {N_CONTEXT}; microseconds")
    print(f"{'call':34}{'median':>8}{'p20':>8}{'p80':>8}{'above':>8}{'goal':>8}")
    for row in found["rows"]:
        above = f"{row['above_baseline_us']:8.0f}" if "above_baseline_us" in row else " " * 8
        goal = f"{row['goal_us']:8.0f}  {'holds' if row['holds'] else 'MISSED'}" if "goal_us" in row else ""
        print(f"{row['call']:34}{row['median_us']:8.0f}{row['p20_us']:8.0f}{row['p80_us']:8.0f}{above}{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000, help="measurements of every call")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    found = report(measure(make_calls(), arguments.repeats))
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
