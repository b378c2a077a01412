"""In how many directions do users differ, and what does each cost? Users who did not teach, with 5 and 20 labels.

    python benchmarks/bench_users.py --data FOLDER [--seeds 2] [--sets dsp sushi2500 ukpconvarg1] [--output FILE]

FOLDER holds ``dsp`` and ``ukpconvarg1`` as `micropref.datasets.load_folder` reads them, and ``sushi2500/orders.npy``,
ten kinds of sushi in the order that each person prefers. One Gaussian population of users in q = 4, 8, 16 and 32
directions, and what "auto" makes of everything, get the first labels of new users and are asked about other pairs of
theirs. On dsp a user answers under one criterion, and the queries asked about are new; on ukpconvarg1 users are workers
of 40 and more votes, of whom one in five is held out, with half of all pairs. Nats are mean log-losses; gains are those
over q = 16, or over all directions where these are fewer, paired by user.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from micropref import ContextRouter, HierarchicalBradleyTerry
from micropref.datasets import load_folder
from micropref.pairs import make_pairs

DIRECTIONS = (4, 8, 16, 32)
USUAL = 16
BUDGETS = (5, 20)
N_ASKED = 20
N_TIMED = 200
NUMBER_BYTES = 4
CHUNK = 5

Row = dict[str, object]


class Split(NamedTuple):
    """Rows that teach with their groups, and of every new user labels and pairs to ask, preferred first."""

    X: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    asked: np.ndarray


def sushi2500(folder: Path, rng: np.random.Generator) -> Split:
    orders = np.load(folder / "orders.npy").astype(int)
    first, second = np.triu_indices(orders.shape[1], 1)
    kinds = np.eye(orders.shape[1])
    pairs = kinds[orders[:, first]] - kinds[orders[:, second]]
    people = rng.permutation(len(pairs))
    teachers, new = people[: len(people) * 4 // 5], people[len(people) * 4 // 5 :]
    order = np.argsort(rng.random((len(new), len(first))), axis=1)
    theirs = np.take_along_axis(pairs[new], order[..., None], axis=1)
    labels = theirs[:, : max(BUDGETS)]
    groups = np.repeat(teachers, len(first))
    return Split(pairs[teachers].reshape(len(groups), -1), groups, labels, theirs[:, max(BUDGETS) :][:, :N_ASKED])


def dsp(folder: Path, rng: np.random.Generator) -> Split:
    data = load_folder(folder, skip_bad=True)
    table = data.train
    assert table is not None
    X = make_pairs(data.vectors(table.chosen), data.vectors(table.rejected))
    queries, criterion = np.unique(table.prompt, return_inverse=True)[1], np.asarray(table.context)
    test = np.isin(queries, rng.permutation(queries.max() + 1)[: (queries.max() + 1) // 5])
    groups, labels, asked = np.full(len(X), -1), [], []
    for name in np.unique(criterion):
        rows = rng.permutation(np.flatnonzero(~test & (criterion == name)))
        groups[rows] = groups.max() + 1 + np.arange(len(rows)) // CHUNK
        others = np.flatnonzero(test & (criterion == name))
        for _ in range(20):
            labels.append(rng.choice(rows, max(BUDGETS), replace=False))
            asked.append(rng.choice(others, N_ASKED, replace=False))
    return Split(X[~test], groups[~test], X[np.array(labels)], X[np.array(asked)])


def ukpconvarg1(folder: Path, rng: np.random.Generator) -> Split:
    data = load_folder(folder, skip_bad=True)
    table = data.train
    assert table is not None
    assert table.group is not None
    X = make_pairs(data.vectors(table.chosen), data.vectors(table.rejected))
    worker = np.unique(table.group, return_inverse=True)[1]
    rows_of = [sorted(pair) for pair in zip(data.rows(table.chosen), data.rows(table.rejected), strict=True)]
    pair = np.unique(rows_of, axis=0, return_inverse=True)[1].ravel()
    often = np.flatnonzero(np.bincount(worker) >= max(BUDGETS) + N_ASKED)
    new = rng.permutation(often)[: len(often) // 5]
    unseen = np.isin(pair, rng.permutation(pair.max() + 1)[: (pair.max() + 1) // 2])
    labels, asked = [], []
    for one in new:
        seen, others = (rng.permutation(np.flatnonzero((worker == one) & part)) for part in (~unseen, unseen))
        if len(seen) >= max(BUDGETS) and len(others) >= N_ASKED:
            labels.append(seen[: max(BUDGETS)])
            asked.append(others[:N_ASKED])
    teach = ~unseen & ~np.isin(worker, new)
    return Split(X[teach], worker[teach], X[np.array(labels)], X[np.array(asked)])


SETS: dict[str, Callable[[Path, np.random.Generator], Split]] = {
    "dsp": dsp,
    "sushi2500": sushi2500,
    "ukpconvarg1": ukpconvarg1,
}


def losses(model: HierarchicalBradleyTerry, split: Split, budget: int) -> tuple[float, np.ndarray]:
    """Accuracy, and the mean log-loss of every new user after so many labels, in nats."""
    n, width = len(split.labels), split.X.shape[1]
    router = ContextRouter(copy.deepcopy(model))
    router.partial_fit(split.labels[:, :budget].reshape(-1, width), groups=np.repeat(np.arange(n), budget))
    users = np.repeat(np.arange(n), split.asked.shape[1])
    p = router.predict_proba(split.asked.reshape(-1, width), groups=users)[:, 1]
    return float(np.mean(p > 0.5)), -np.log(p).reshape(n, -1).mean(axis=1)


def microseconds_per_vote(model: HierarchicalBradleyTerry, split: Split) -> float:
    """Median CPU time of one vote of one user, given to a router."""
    votes = split.labels.reshape(-1, split.X.shape[1])
    router = ContextRouter(copy.deepcopy(model)).partial_fit(votes[:1], groups=[0])
    times = []
    for i in range(N_TIMED):
        start = time.thread_time()
        router.partial_fit(votes[i % len(votes)][None], groups=[i % 20])
        times.append(time.thread_time() - start)
    return float(np.median(times)) * 1e6


def models(n_features: int) -> Iterator[tuple[str, HierarchicalBradleyTerry]]:
    usual = min(USUAL, n_features)
    for q in (usual, *(q for q in DIRECTIONS if q < n_features and q != usual)):
        yield str(q), HierarchicalBradleyTerry(1, rank=q, n_directions=q, random_state=0)
    yield "auto", HierarchicalBradleyTerry(random_state=0)


def rows_of(name: str, seed: int, split: Split) -> Iterator[Row]:
    usual: dict[int, np.ndarray] = {}
    for label, model in models(split.X.shape[1]):
        start = time.process_time()
        model.fit(split.X, groups=split.groups)
        fit_seconds = time.process_time() - start
        q = 0 if model.scatter_ is None else model.scatter_.n_directions
        vote = microseconds_per_vote(model, split)
        for budget in BUDGETS:
            accuracy, nats = losses(model, split, budget)
            gain = usual.setdefault(budget, nats) - nats
            yield {
                "data": name,
                "seed": seed,
                "n_directions": label,
                "heads": model.n_components_,
                "q": q,
                "labels": budget,
                "users": len(nats),
                "accuracy": round(accuracy, 4),
                "nats": round(float(nats.mean()), 4),
                "gain": round(float(gain.mean()), 4),
                "gain_error": round(float(gain.std() / np.sqrt(len(gain))), 4),
                "bytes_per_user": NUMBER_BYTES * model.n_components_ * (1 + q + q * (q + 1) // 2),
                "vote_microseconds": round(vote),
                "fit_cpu_seconds": round(fit_seconds, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=sorted(SETS))
    parser.add_argument("--seeds", type=int, default=2, help="number of splits")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "users.csv")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of rows left out, and of fits that stopped early
    found: list[Row] = []
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            split = SETS[name](arguments.data / name, np.random.default_rng(seed))
            for row in rows_of(name, seed, split):
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                found.append(row)
    with open(arguments.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
