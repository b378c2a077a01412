"""Are heads found sooner from answers that `suggest_annotations` asks for than from random ones, at equal cost?

    python benchmarks/bench_annotations.py [--output benchmarks/results/annotations.csv] [--seeds 20]

Planted worlds of 90 annotators who have answered twice. Three times, 90 of 800 offered (annotator, pair) are answered:
those that are asked for, or as many at random. The error is that of the heads, matched with the planted ones: the root
mean square difference of their probabilities on 1 000 new pairs.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

import micropref
from micropref import MixtureBradleyTerry, suggest_annotations

N_ANNOTATORS, ROUNDS, ASKED, OFFERED, N_TEST = 90, 3, 90, 800, 1000

# Shares of the heads, number of features, and by how much the margins of the heads are multiplied.
WORLDS = {
    "two heads": ([1 / 2, 1 / 2], 6, 3.0),
    "three heads": ([1 / 3, 1 / 3, 1 / 3], 6, 3.0),
    "three heads, one rare": ([0.6, 0.3, 0.1], 6, 3.0),
    "three heads, 20 features": ([1 / 3, 1 / 3, 1 / 3], 20, 3.0),
    "three heads, noisy answers": ([1 / 3, 1 / 3, 1 / 3], 6, 1.5),
}

Floats = NDArray[np.float64]


def fitted(X: Floats, y: Any, users: Any, n_components: int, seed: int) -> MixtureBradleyTerry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a head may find no annotator before there are answers
        return MixtureBradleyTerry(n_components, n_init=4, random_state=seed).fit(X, y, groups=users)


def error_of(mixture: MixtureBradleyTerry, heads: Floats, test: Floats) -> float:
    difference = expit(test @ heads.T)[:, :, None] - expit(test @ mixture.coef_.T)[:, None]
    cost = (difference**2).mean(axis=0)
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def errors_of(world: str, seed: int) -> dict[str, list[float]]:
    """Errors after every round, of answers that were asked for and of random ones."""
    shares, width, size = WORLDS[world]
    rng = np.random.default_rng(seed)
    heads = size * rng.normal(size=(len(shares), width)) / np.sqrt(width)
    head_of = rng.choice(len(shares), size=N_ANNOTATORS, p=shares)

    def answers(X: Floats, users: Any) -> Any:
        return (rng.random(len(X)) < expit((X * heads[head_of[users]]).sum(axis=1))).astype(int)

    users = np.repeat(np.arange(N_ANNOTATORS), 2)
    X = rng.normal(size=(len(users), width))
    first: Any = X, answers(X, users), users
    offers = []
    for _ in range(ROUNDS):
        pairs, who = rng.normal(size=(OFFERED, width)), rng.integers(N_ANNOTATORS, size=OFFERED)
        offers.append((pairs, answers(pairs, who), who))
    test = rng.normal(size=(N_TEST, width))
    found: dict[str, list[float]] = {}
    for how in ("asked", "random"):
        known, errors = first, []
        for pairs, labels, who in offers:
            rows = np.arange(ASKED)
            if how == "asked":
                mixture = fitted(*known, len(shares), seed)
                rows = suggest_annotations(mixture, pairs, who, ASKED, labelled=known)
            known = tuple(
                np.concatenate([old, new[rows]]) for old, new in zip(known, (pairs, labels, who), strict=True)
            )
            errors.append(error_of(fitted(*known, len(shares), seed), heads, test))
        found[how] = errors
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/annotations.csv"))
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for world in WORLDS:
        each = [errors_of(world, seed) for seed in range(arguments.seeds)]
        asked, random = (np.array([one[how] for one in each]) for how in ("asked", "random"))
        gain = random - asked
        half = 1.96 * gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
        for turn in range(ROUNDS):
            row = {"world": world, "answers": (turn + 1) * ASKED, "random": random[:, turn].mean()}
            row |= {"asked": asked[:, turn].mean(), "gain": gain[:, turn].mean(), "half_width": half[turn]}
            rows.append(
                {name: round(float(one), 4) if isinstance(one, np.floating) else one for name, one in row.items()}
            )
            print(
                f"{world:<27} {row['answers']:>4} answers: random {row['random']:.3f}, asked {row['asked']:.3f}, "
                f"gain {row['gain']:+.3f} ± {row['half_width']:.3f}"
            )
    about = f"micropref {micropref.__version__}, NumPy {np.__version__}, Python {platform.python_version()}"
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {platform.processor() or platform.machine()}, {os.cpu_count()} cores; {about}; ")
        file.write(f"{arguments.seeds} seeds; half_width of a 95 % interval, paired over seeds\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
