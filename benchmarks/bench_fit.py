"""How long does the fit take that people run, beside version 0.1, and how does it grow?

    python benchmarks/bench_fit.py [--data FOLDER] [--baseline REF | --wheel FILE] [--repeats 3] [--cases default ...]

Version 0.1 is built as a wheel from the history of this repository and installed in an environment of its own, beside
the same NumPy, SciPy and numba as this version. Each version runs in a process that stays, and the two take turns, so
that both see the same machine; the least of some repetitions counts. Penalties are those of version 0.1. Every fit has
four starts, and annotators are known. FOLDER holds ``dsp`` and ``ukpconvarg1`` as `micropref.datasets.load_folder`
reads them; without it these two are left out.

Other rows are this version alone: one evaluation in reads of X, against torch and LogisticRegression in the same
process. What files and texts take is in bench_files.py and bench_embed.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# The first state of the package that called itself 0.1.0 and was complete.
BASELINE = "5c53367"
ALPHA = 1e-3
VOTES = 5


class World(NamedTuple):
    """Rows, labels, annotators, and the number of heads to fit."""

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    n_components: int


# ------------------------------------------------------------------------------------------------------------- worlds


def planted(n: int = 50_000, d: int = 384, k: int = 4, seed: int = 0) -> World:
    """Annotators of five votes, each of whom has one of k heads."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(k, d)) / np.sqrt(d) * 3
    X = rng.standard_normal(size=(n, d), dtype=np.float32)
    groups = np.arange(n) // VOTES
    margins = np.einsum("nd,nd->n", X, heads[rng.integers(k, size=groups.max() + 1)[groups]])
    return World(X, (rng.random(n) < 1 / (1 + np.exp(-margins))).astype(int), groups, k)


def _turned(chosen: np.ndarray, rejected: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Differences in which the preferred response stands on either side, and labels."""
    first = rng.random(len(chosen)) < 0.5
    return np.where(first[:, None], chosen - rejected, rejected - chosen), first.astype(int)


def dsp(folder: Path) -> World:
    from micropref.datasets import load_folder

    data, rng = load_folder(folder, skip_bad=True), np.random.default_rng(0)
    table = data.train
    assert table is not None
    X, y = _turned(data.vectors(table.chosen), data.vectors(table.rejected), rng)
    groups, criterion = np.full(len(X), -1), np.asarray(table.context)
    for name in np.unique(criterion):
        rows = rng.permutation(np.flatnonzero(criterion == name))
        groups[rows] = groups.max() + 1 + np.arange(len(rows)) // VOTES
    return World((10 * X).astype(np.float64), y, groups, 4)


def ukpconvarg1(folder: Path) -> World:
    from micropref.datasets import load_folder

    data = load_folder(folder, skip_bad=True)
    table = data.train
    assert table is not None
    assert table.group is not None
    X, y = _turned(data.vectors(table.chosen), data.vectors(table.rejected), np.random.default_rng(0))
    worker = np.unique([str(one) for one in table.group], return_inverse=True)[1]
    return World((5 * X).astype(np.float64), y, worker, 2)


def cases(data: Path | None) -> dict[str, Callable[[], World]]:
    """What is fitted by both versions, by name."""
    found: dict[str, Callable[[], World]] = {"default": planted}
    if data is not None:
        found |= {"ukpconvarg1": lambda: ukpconvarg1(data / "ukpconvarg1"), "dsp": lambda: dsp(data / "dsp")}
    for n in (12_500, 25_000, 100_000):
        found[f"n={n}"] = lambda n=n: planted(n=n)
    for d in (96, 192, 768):
        found[f"d={d}"] = lambda d=d: planted(n=25_000, d=d)
    for k in (1, 2, 8):
        found[f"K={k}"] = lambda k=k: planted(n=25_000, k=k)
    return found


# -------------------------------------------------------------------------------------------- one process per version


def serve() -> None:
    """Fit the files that standard input names; a line of JSON for each."""
    import micropref
    from micropref import MixtureBradleyTerry

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        with np.load(line.strip()) as file:
            world = World(file["X"], file["y"], file["groups"], int(file["k"]))
        model = MixtureBradleyTerry(world.n_components, alpha=ALPHA, gate_alpha=ALPHA, random_state=0)
        start = time.perf_counter()
        model.fit(world.X, world.y, groups=world.groups)
        found = {"seconds": time.perf_counter() - start, "objective": model.objective_, "n_iter": model.n_iter_}
        print(json.dumps({**found, "version": micropref.__version__}), flush=True)


class Version:
    """A version of the package in a process of its own."""

    def __init__(self, python: str, path: str | None):
        environment = {**os.environ, "PYTHONPATH": path or ""}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def fit(self, file: Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("expected the time of a fit, got the end of the process")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def build_baseline(ref: str, folder: Path) -> Path:
    """A wheel of the package as it was at a commit."""
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", ref], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    arguments = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
    return next(folder.glob("*.whl"))


def install(wheel: Path, folder: Path) -> str:
    """The interpreter of a new environment: the wheel, and what else this interpreter has."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
    (packages / "beside.pth").write_text("\n".join(site.getsitepackages()))
    return python


# ---------------------------------------------------------------------------------------------------------- measuring


def compared(name: str, world: World, before: Version, now: Version, repeats: int, folder: Path) -> dict[str, Any]:
    """One row: the least times of both versions, which take turns."""
    file = folder / "world.npz"
    np.savez(file, X=world.X, y=world.y, groups=world.groups, k=world.n_components)
    # The first fit of a process compiles.
    runs = [(before.fit(file), now.fit(file)) for _ in range(repeats + 1)][1:]
    old, new = (min((run[i] for run in runs), key=lambda one: one["seconds"]) for i in range(2))
    return {
        "case": name,
        "n": len(world.X),
        "d": world.X.shape[1],
        "K": world.n_components,
        "dtype": str(world.X.dtype),
        "seconds_0.1": round(old["seconds"], 3),
        "seconds": round(new["seconds"], 3),
        "ratio": round(old["seconds"] / new["seconds"], 2),
        "objective_0.1": old["objective"],
        "objective_gained": old["objective"] - new["objective"],
        "iterations_0.1": old["n_iter"],
        "iterations": new["n_iter"],
    }


def least(run: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of some repetitions, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def evaluations() -> Iterator[dict[str, Any]]:
    """One grouped evaluation in reads of X, alone and four at once; one head beside LogisticRegression."""
    from sklearn.linear_model import LogisticRegression

    from micropref import MixtureBradleyTerry
    from micropref._engine.gates import Gate
    from micropref._engine.mixture_objective import MixtureObjective
    from micropref._rows.comparisons import Comparisons
    from micropref.kernels import _threads

    world = planted()
    rows = Comparisons.read(MixtureBradleyTerry(4), world.X, world.y, groups=world.groups, first=True)
    objective = MixtureObjective(rows, Gate.create("linear", 0, 4, 0))
    vectors = np.random.default_rng(0).normal(size=(4, 4 * world.X.shape[1] + 4)) * 0.01
    # A read sums numbers as fast as they come, in all threads.
    read = least(lambda: _threads.run(lambda some: world.X[some].sum(), _threads.split(*world.X.shape)), 10)
    alone = least(lambda: objective.value_and_gradient(vectors[0]), 10)
    four = least(lambda: objective.values_and_gradients(vectors), 10)
    yield {"case": "one grouped evaluation, in reads of X", "ratio": round(alone / read, 2), "seconds": alone}
    yield {"case": "four grouped evaluations at once, in reads of X", "ratio": round(four / read, 2), "seconds": four}
    single = planted(d=256, k=1)
    settings = {"fit_intercept": False, "tol": 1e-6, "max_iter": 500}
    rival = LogisticRegression(C=1 / (ALPHA * len(single.X)), **settings)
    usual = least(lambda: rival.fit(single.X, single.y), 3)
    one = MixtureBradleyTerry(1, alpha=ALPHA, tol=1e-6, max_iter=500)
    own = least(lambda: one.fit(single.X, single.y), 3)
    yield {"case": "K=1 over LogisticRegression", "ratio": round(own / usual, 2), "seconds": own}


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions() -> str:
    names = ("micropref", "numpy", "scipy", "scikit-learn", "numba")
    return " ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the table, one after the other."""
    wheel = arguments.wheel or build_baseline(arguments.baseline, folder)
    before = Version(install(wheel, folder / "environment"), None)
    now = Version(sys.executable, str(ROOT))
    try:
        for name, world in cases(arguments.data).items():
            if not arguments.cases or name in arguments.cases:
                yield compared(name, world(), before, now, arguments.repeats, folder)
    finally:
        before.close()
        now.close()
    if not arguments.cases or "evaluations" in arguments.cases:
        yield from evaluations()


def write(rows: list[dict[str, Any]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(max(rows, key=len)))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with dsp and ukpconvarg1")
    parser.add_argument("--baseline", default=BASELINE, help="commit of version 0.1")
    parser.add_argument("--wheel", type=Path, help="a wheel of version 0.1, instead of building one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="*", help="names of rows; default: all")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "fit.csv")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    folder = Path(tempfile.mkdtemp())
    about = {"hardware": hardware(), "versions": versions(), "baseline": arguments.baseline, "date": str(date.today())}
    rows: list[dict[str, Any]] = []
    try:
        for row in measure(arguments, folder):
            rows.append({**row, **about})
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            # After every row: some of version 0.1 take minutes, and what was measured should outlive an interruption.
            write(rows, arguments.output)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
