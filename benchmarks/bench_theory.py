"""Do the intervals of `estimate_irreducible_error` cover, and does `single_reward_test` keep its level?

    python benchmarks/bench_theory.py [--sets 200] [--tests 400] [--output benchmarks/results/theory.csv]

Coverage: planted mixtures of K = 2 and 3 with 2 000 rows of 6 features, five pairs per annotator, alpha = 1e-5; the
truth is the decomposition of the planted heads over the same rows; 92 to 98 % of the intervals should hold it.
Test: data sets of one reward (at most 7 % may be called several at level 5 %) and of two equal groups (at least 80 %
should be, from 2 000 rows), 6 features.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
from collections.abc import Iterator

import numpy as np
import scipy
import sklearn
from scipy.special import expit

import micropref
from micropref import MixtureBradleyTerry
from micropref.theory import error_decomposition, estimate_irreducible_error, single_reward_test

PAIRS_PER_ANNOTATOR = 5
N_ROWS = 2000
TERMS = ("label_noise", "group_information", "misspecification", "cross_entropy")


def planted(seed: int, k: int, n: int, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Differences, labels, annotators, and what every group would answer."""
    rng = np.random.default_rng([seed, k])
    heads = 1.5 * rng.normal(size=(k, d))
    difference = rng.normal(size=(n, d))
    annotator = np.arange(n) // PAIRS_PER_ANNOTATOR
    z = rng.integers(0, k, annotator[-1] + 1)[annotator]
    y = (rng.random(n) < expit((difference * heads[z]).sum(axis=1))).astype(int)
    return difference, y, annotator, expit(difference @ heads.T)


def coverage(k: int, sets: int) -> Iterator[dict[str, object]]:
    found, truths = [], []
    for seed in range(sets):
        X, y, groups, probs = planted(seed, k, N_ROWS)
        model = MixtureBradleyTerry(k, alpha=1e-5, random_state=seed).fit(X, y, groups=groups)
        found.append(estimate_irreducible_error(model, X, y, groups=groups))
        truths.append(error_decomposition(np.full(k, 1 / k), probs, features=X))
    for term in TERMS:
        truth = np.array([getattr(one, term) for one in truths])
        error = np.array([getattr(one, term) for one in found]) - truth
        low, high = np.array([getattr(one, f"{term}_interval") for one in found]).T
        yield {
            "question": f"coverage of {term}, 95 % interval",
            "components": k,
            "rows": N_ROWS,
            "data_sets": sets,
            "share": np.mean((low <= truth) & (truth <= high)),
            "goal": "0.92 to 0.98",
            "bias_nats": error.mean(),
            "rmse_nats": np.sqrt(np.square(error).mean()),
            "width_nats": np.mean(high - low),
            "truth_nats": truth.mean(),
        }


def called_several(k: int, n: int, sets: int) -> dict[str, object]:
    called = []
    for seed in range(sets):
        X, y, groups, _ = planted(seed, k, n)
        called.append(single_reward_test(MixtureBradleyTerry(2, random_state=0), X, y, groups).p_value < 0.05)
    return {
        "question": "power of single_reward_test at 5 %" if k > 1 else "size of single_reward_test at 5 %",
        "components": k,
        "rows": n,
        "data_sets": sets,
        "share": np.mean(called),
        "goal": {1: "at most 0.07"}.get(k, "at least 0.80" if n >= 2000 else ""),
    }


def rows(sets: int, tests: int) -> Iterator[dict[str, object]]:
    for k in (2, 3):
        yield from coverage(k, sets)
    yield called_several(1, 400, tests)
    yield called_several(1, 2000, tests)
    for n in (400, 1000, 2000):
        yield called_several(2, n, max(1, tests // 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--tests", type=int, default=400)
    parser.add_argument("--output", help="CSV to write")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = {
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": f"micropref {micropref.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
    }
    found = []
    for row in rows(options.sets, options.tests):
        found.append({name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()} | where)
        print({name: value for name, value in found[-1].items() if name not in where}, flush=True)
    if options.output:
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    main()
