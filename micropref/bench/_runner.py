"""Run the cells of a suite, several data sets and seeds side by side; what is on disk already is not run again."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import micropref
from micropref.bench._cells import Cell, key_of, read_cell, write_cell
from micropref.bench._config import DatasetSpec, MethodSpec, Suite
from micropref.bench._data import Comparisons, load_comparisons
from micropref.bench._methods import KINDS, NotApplicable, Stages, effective
from micropref.bench._tasks import Task, make_task

_THREADS = "OMP_NUM_THREADS"
# What reads cells and makes none.
_JUDGES = ("bootstrap", "document", "figures", "provenance", "report", "scores", "suite")


@dataclass(frozen=True)
class Job:
    """The cells of one data set and seed: they share the task and what is fitted for several methods."""

    suite: Suite
    dataset: DatasetSpec
    seed: int
    methods: tuple[MethodSpec, ...]
    folder: Path
    data: Path | None
    data_hash: str

    @property
    def where(self) -> Path:
        return self.folder / "cells" / self.dataset.name / f"seed{self.seed}"

    @property
    def n_draws(self) -> int:
        return self.dataset.n_draws or self.suite.n_draws

    def task_key(self) -> str:
        # Draws count, wherever their number comes from.
        spec = {name: value for name, value in asdict(self.dataset).items() if name != "n_draws"}
        return key_of([code_and_versions(), spec, self.data_hash, self.seed, self.suite.budgets, self.n_draws])

    def key(self, method: MethodSpec) -> str:
        settings = effective(method.kind, method.settings, self.dataset.parameters)
        few = [method.n_draws] if 0 < method.n_draws < self.n_draws else []
        return key_of([self.task_key(), method.kind, settings, *few])

    def stored(self, method: MethodSpec) -> Cell | None:
        return read_cell(self.where / f"{method.name}.npz", self.key(method))

    def stored_task(self) -> Cell | None:
        return read_cell(self.where / "task.npz", self.task_key())


@lru_cache(maxsize=1)
def code_and_versions() -> str:
    """A hash of the code that cells depend on and of the versions of what it computes with."""
    package = Path(micropref.__file__).parent
    apart = {package / "bench" / f"_{name}.py" for name in _JUDGES}
    parts = [version(name) for name in ("numpy", "scipy", "scikit-learn")]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted({*package.rglob("*.py")} - apart)]
    return key_of(parts)


@lru_cache(maxsize=1)
def loaded(dataset: _Hashable, data: Path | None) -> Comparisons:
    """The rows of a data set; the last one stays in memory."""
    return load_comparisons(dataset.spec, data)


class _Hashable:
    """A specification that can be the key of a cache."""

    def __init__(self, spec: DatasetSpec):
        self.spec, self._key = spec, key_of(asdict(spec))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self._key == other._key


def load_data(spec: DatasetSpec, data: Path | None) -> Comparisons:
    """The rows of a data set, which stay in memory until others are read."""
    return loaded(_Hashable(spec), data)


def forget_data() -> None:
    """Read data again, that may have changed."""
    loaded.cache_clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for everything: sums are then taken in one order, wherever a cell is run."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        with threadpool_limits(1):
            yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def pending(jobs: Sequence[Job]) -> list[Job]:
    """Jobs with the methods whose cells are missing, failed or are out of date."""
    left = []
    for job in jobs:
        todo = []
        for method in job.methods:
            cell = job.stored(method)
            if cell is None or cell.meta["status"] == "failed":
                todo.append(method)
        if todo or job.stored_task() is None:
            left.append(Job(**{**vars(job), "methods": tuple(todo)}))
    return left


def run_jobs(jobs: Sequence[Job], n_workers: int, report: Callable[[str], None]) -> None:
    """Run jobs in this process, or in several new ones."""
    if n_workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            run_job(job, report)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(n_workers, len(jobs)), mp_context=context) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                job = futures[future]
                report(f"{job.dataset.name}, seed {job.seed}: done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_job(job: Job, report: Callable[[str], None] = lambda line: None) -> None:
    """Run the methods of a job, each cell being written as soon as it is known."""
    with one_thread():
        task = make_task(
            load_data(job.dataset, job.data),
            job.dataset,
            seed=job.seed,
            budgets=job.suite.budgets,
            n_draws=job.n_draws,
        )
        write_cell(job.where / "task.npz", job.task_key(), *described(task))
        stages = Stages()
        for method in job.methods:
            report(f"{job.dataset.name}, seed {job.seed}: {method.name}")
            write_cell(job.where / f"{method.name}.npz", job.key(method), *run_cell(task, method, job.dataset, stages))


def run_cell(
    task: Task, method: MethodSpec, dataset: DatasetSpec, stages: Stages
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Log-odds of the preferred response of every test row, or why there are none."""
    settings = effective(method.kind, method.settings, dataset.parameters)
    start, stages.seconds = time.perf_counter(), 0.0
    meta: dict[str, Any] = {"method": method.name, "status": "done", "reason": "", "warnings": []}
    arrays: dict[str, np.ndarray] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            material = task.material
            if method.n_draws:
                material = replace(material, ranks=material.ranks[: method.n_draws])
            odds = np.asarray(KINDS[method.kind].run(material, settings, stages), dtype=np.float64)
            if not np.isfinite(odds).all():
                raise ValueError(f"found {int((~np.isfinite(odds)).sum())} log-odds that are not finite")
            arrays["log_odds"] = (odds * task.test_sign).astype(np.float32)
        except NotApplicable as lacking:
            meta |= {"status": "not applicable", "reason": str(lacking)}
        except Exception as error:
            # One method that fails takes no other with it.
            meta |= {
                "status": "failed",
                "reason": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
    meta["warnings"] = sorted({f"{one.category.__name__}: {one.message}" for one in caught})
    meta["seconds"] = round(time.perf_counter() - start + stages.seconds, 3)
    return arrays, meta


def described(task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the tables need to know of a task."""
    arrays = {"cluster": task.cluster, "target": task.target, "weight": task.weight, "mean_labels": task.mean_labels}
    material = task.material
    return arrays, {
        "notes": list(task.notes),
        "split_hash": task.split_hash,
        "n_train": len(material.train),
        "n_test": len(material.test),
        "n_targets": len(np.unique(task.target)),
    }
