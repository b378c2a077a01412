"""Runs the cells of a suite, several data sets and seeds side by side."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from micropref.bench._cells import key_of, write_cell
from micropref.bench._data import BenchData
from micropref.bench._evaluation import one_thread, run_cell
from micropref.bench._jobs import Job
from micropref.bench._loading import load_data
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._methods.steps import Stages
from micropref.bench._specs import DatasetSpec, resolve_settings
from micropref.bench._tasks import describe_task, make_task


def run_jobs(jobs: Sequence[Job], n_workers: int, report: Callable[[str], None]) -> None:
    """Run jobs in this process, or in several new ones."""
    if n_workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            run_job(job, report)
        return
    context = multiprocessing.get_context("spawn")
    n = min(n_workers, len(jobs))
    with ProcessPoolExecutor(n, mp_context=context, initializer=end_with_parent) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                job = futures[future]
                report(f"{job.dataset.name}, seed {job.seed}: done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """End this process when the one that started it does: a parent that is killed says nothing to its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="waits for the parent", daemon=True).start()


def run_job(job: Job, report: Callable[[str], None] = lambda line: None) -> None:
    """Run the methods of a job, and write each cell as soon as it is computed."""
    with one_thread():
        task = make_task(
            cached_data(job.dataset, job.data, job.store),
            job.dataset,
            seed=job.seed,
            budgets=job.budgets,
            n_draws=job.n_draws,
        )
        write_cell(job.where / "task.npz", job.task_key(), *describe_task(task))
        stages = Stages()
        for method in job.methods:
            report(f"{job.dataset.name}, seed {job.seed}: {method.name}")
            settings = resolve_settings(method.kind, method.settings, job.dataset.parameters)
            found = run_cell(RUNNERS[method.kind], task, settings, stages, n_draws=method.n_draws)
            write_cell(job.where / f"{method.name}.npz", job.key(method), *found)


def cached_data(spec: DatasetSpec, folder: Path | None, store: Path | None = None) -> BenchData:
    """The rows of a data set, which stay in memory until others are read."""
    return _loaded(_Hashable(spec), folder, store)


def forget_data() -> None:
    """Read data again the next time: they may have changed."""
    _loaded.cache_clear()


class _Hashable:
    """A specification that can be the key of a cache."""

    def __init__(self, spec: DatasetSpec):
        self.spec, self._key = spec, key_of(asdict(spec))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self._key == other._key


@lru_cache(maxsize=1)
def _loaded(dataset: _Hashable, folder: Path | None, store: Path | None) -> BenchData:
    return load_data(dataset.spec, folder, store)
