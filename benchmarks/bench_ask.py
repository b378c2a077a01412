"""What does it cost to choose the next question, for heads and for posteriors of users around heads?

    python benchmarks/bench_ask.py [--output benchmarks/results/ask.csv] [--repeats 20]

Goals, at K = 8: one of 1 000 candidates for one user in 5 ms, ten of 10 000 jointly in 1 s.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning

import micropref
from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry

N_COMPONENTS, N_FEATURES, N_DIRECTIONS = 8, 384, 8
GOALS = {(1, 1000): 5.0, (10, 10_000): 1000.0}


def make_routers() -> dict[str, ContextRouter]:
    """Routers that know five votes of a user, over heads and over users who scatter around heads."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, N_FEATURES)).astype(np.float32) / N_FEATURES**0.5 * 3
    heads = rng.normal(size=(N_COMPONENTS, N_FEATURES))
    users = np.arange(3000) // 5
    y = ((X * heads[users % N_COMPONENTS]).sum(axis=1) > 0).astype(int)
    settings = {"n_init": 1, "random_state": 0}
    models = {
        "heads": MixtureBradleyTerry(N_COMPONENTS, max_iter=20, **settings),
        "posteriors": HierarchicalBradleyTerry(
            N_COMPONENTS, rank=N_DIRECTIONS, n_directions=N_DIRECTIONS, max_iter=3, **settings
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is changes no time
        warnings.simplefilter("ignore", UserWarning)
        fitted = {name: model.fit(X, y, groups=users) for name, model in models.items()}
    return {name: ContextRouter(one).partial_fit(X[:5], y[:5], groups=["ann"] * 5) for name, one in fitted.items()}


def measure(call: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Milliseconds of a call: 20 %, median, 80 %."""
    call()
    times = np.empty(repeats)
    for repeat in range(repeats):
        start = time.perf_counter()
        call()
        times[repeat] = (time.perf_counter() - start) * 1e3
    low, median, high = np.percentile(times, [20, 50, 80])
    return float(low), float(median), float(high)


def rows_of(repeats: int) -> list[dict[str, object]]:
    """One row for every router, strategy and size."""
    rng = np.random.default_rng(1)
    candidates = rng.normal(size=(10_000, N_FEATURES)).astype(np.float32) / N_FEATURES**0.5 * 3
    found = []
    for users, router in make_routers().items():
        for strategy in ("expected_information", "information", "epig"):
            for (n_queries, size), goal in GOALS.items():
                X = candidates[:size]
                if strategy == "expected_information":
                    if n_queries > 1:
                        continue
                    names = ["ann"] * size
                    p20, median, p80 = measure(
                        lambda r=router, X=X, names=names: r.expected_information(X, names), repeats
                    )
                else:
                    p20, median, p80 = measure(
                        lambda r=router, X=X, n=n_queries, s=strategy: r.suggest(X, n, "ann", s),
                        repeats if n_queries == 1 else max(3, repeats // 10),
                    )
                times = {"median_ms": round(median, 3), "p20_ms": round(p20, 3), "p80_ms": round(p80, 3)}
                row = {"users": users, "call": strategy, "n_queries": n_queries, "n_candidates": size, **times}
                found.append({**row, "goal_ms": goal if strategy == "information" and users == "heads" else ""})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="measurements of every call")
    parser.add_argument("--output", type=Path, help="file of the table (CSV)")
    arguments = parser.parse_args()
    versions = {"python": platform.python_version(), "micropref": micropref.__version__, "numpy": np.__version__}
    versions["sklearn"] = sklearn.__version__
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    about = {"n_components": N_COMPONENTS, "n_features": N_FEATURES, "machine": machine}
    about["versions"] = " ".join(f"{name} {version}" for name, version in versions.items())
    rows = [{**row, **about} for row in rows_of(arguments.repeats)]
    for row in rows:
        goal = row["goal_ms"]
        verdict = "" if goal == "" else f"  goal {goal:g}: {'holds' if row['median_ms'] <= goal else 'MISSED'}"
        what = f"{row['users']:11}{row['call']:21}{row['n_queries']:3} of {row['n_candidates']:6}"
        print(f"{what}{row['median_ms']:10.2f} ms{verdict}")
    if arguments.output is not None:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
