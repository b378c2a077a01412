"""What does one evaluation of loss and gradient cost on one process, and on two that share the rows?

    python benchmarks/bench_distributed.py [--rows 200000] [--width 768] [--components 4] [--dtype float16] [--ranks 2]

One process has the threads of all cores; the ranks share them, and reduce over gloo on this machine. Both do the same
fit from the same start, and the heads are compared. `reduction` is the all-reduce alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from micropref import MixtureBradleyTerry, __version__
from micropref._engine.gates import Gate
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.distributed import Communicator, distributed_fit, shard_rows

_CHUNK = 10_000


def rows_of(arguments: argparse.Namespace, rank: int, world_size: int) -> np.ndarray:
    """This rank's rows of data that any rank can make: every 10 000 rows have a seed of their own."""
    rows = shard_rows(arguments.rows, None, rank, world_size)
    X = np.empty((len(rows), arguments.width), dtype=arguments.dtype)
    for chunk in range(rows[0] // _CHUNK, rows[-1] // _CHUNK + 1):
        made = np.random.default_rng(chunk).normal(size=(_CHUNK, arguments.width)) * 3 / arguments.width**0.5
        made[:, 0] += 0.1
        first, last = max(rows[0], chunk * _CHUNK), min(rows[-1] + 1, (chunk + 1) * _CHUNK)
        X[first - rows[0] : last - rows[0]] = made[first - chunk * _CHUNK : last - chunk * _CHUNK]
    return X


def median(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def measure(arguments: argparse.Namespace, ranks: Communicator) -> dict:
    X = rows_of(arguments, ranks.rank, ranks.world_size)
    objective = MixtureObjective(
        Comparisons(PairReader(X, 0)),
        Gate.create("linear", 0, arguments.components, 1),
        Penalties(1e-3),
        communicator=ranks,
        total_weight=arguments.rows,
    )
    size = objective.stiffness.size
    vector = np.random.default_rng(0).normal(size=size) / arguments.width**0.5
    found = {
        "evaluation_ms": median(lambda: objective.value_and_gradient(vector), arguments.repeats),
        "reduction_ms": median(lambda: ranks.reduce(np.ones(4 + size)), 20 * arguments.repeats),
        "reduction_bytes": 8 * (4 + size),
        "X_MB": X.nbytes / 1e6,
    }
    model = MixtureBradleyTerry(
        arguments.components, n_init=1, max_iter=arguments.max_iter, balance=0.1, random_state=0
    )
    start = time.perf_counter()
    with warnings.catch_warnings(), distributed_fit(ranks):
        warnings.simplefilter("ignore", ConvergenceWarning)  # as many iterations for both
        model.fit(X)
    return found | {
        "fit_s": time.perf_counter() - start,
        "n_iter": model.n_iter_,
        "objective": model.objective_,
        "coef": model.coef_.ravel()[:1000].tolist(),
    }


def run_ranks(arguments: argparse.Namespace, threads: int) -> dict:
    """Ranks as processes of their own, which meet in a file."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, *sys.argv[1:], "--meeting", str(Path(folder) / "meeting"), "--rank"]
        ranks = [
            subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE)
            for rank in range(arguments.ranks)
        ]
        outputs = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise SystemExit("a rank failed")
        return json.loads(outputs[0])


def as_rank(arguments: argparse.Namespace) -> None:
    import torch

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{arguments.meeting}", rank=arguments.rank, world_size=arguments.ranks
    )
    with distributed_fit() as ranks:
        print(json.dumps(measure(arguments, ranks)))
    torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--components", type=int, default=4)
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32", "float64"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--max-iter", type=int, default=10)
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        as_rank(arguments)
        return
    cores = os.cpu_count() or 1
    alone = measure(arguments, Communicator())
    shared = run_ranks(arguments, max(1, cores // arguments.ranks))
    difference = np.abs(np.array(alone["coef"]) - shared["coef"]).max()
    print(
        f"{platform.machine()}, {cores} CPUs, load {os.getloadavg()[0]:.1f}; micropref {__version__}, "
        f"numpy {np.__version__}, python {platform.python_version()}"
    )
    print(f"{arguments.rows} x {arguments.width} {arguments.dtype}, K = {arguments.components}")
    print(f"{'':14}{'X MB':>8}{'evaluation ms':>15}{'reduction ms':>14}{'fit s':>8}{'iterations':>12}")
    for name, found in (("one process", alone), (f"{arguments.ranks} ranks, each", shared)):
        print(
            f"{name:14}{found['X_MB']:8.0f}{found['evaluation_ms']:15.1f}{found['reduction_ms']:14.3f}"
            f"{found['fit_s']:8.2f}{found['n_iter']:12}"
        )
    print(f"a reduction has {shared['reduction_bytes']} bytes; largest difference of the heads {difference:.1e}")


if __name__ == "__main__":
    main()
