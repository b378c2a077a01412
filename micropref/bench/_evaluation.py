"""One cell of a suite: the predictions of one method on one task, or the reason why there are none."""

from __future__ import annotations

import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from micropref.bench._methods.steps import NotApplicable, Run, Stages
from micropref.bench._streams import ASKED, DRAWN, EPIG
from micropref.bench._tasks import Task

_THREADS = "OMP_NUM_THREADS"
# How labels are chosen, as a strategy of `budget_curve`.
_STRATEGIES = {ASKED: "information", EPIG: "epig"}


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for everything, so that sums are taken in the same order wherever a cell is run."""
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


def run_cell(
    run: Run, task: Task, settings: Mapping[str, Any], stages: Stages, *, n_draws: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run one method.

    Parameters
    ----------
    run : callable
        From `RUNNERS`.
    task : Task
    settings : dict
        All settings of the method.
    stages : Stages
    n_draws : int, default=0
        Use only the first draws of the labels; 0: all.

    Returns
    -------
    arrays : dict
        "log_odds", (n_draws, n_budgets, n_test), of the preferred response of every test row, and what else the method
        keeps; empty if the method failed or is not applicable.
    meta : dict
        "status", "reason", "warnings", "seconds", and "traceback" of a failure.
    """
    start, stages.seconds, stages.kept = time.perf_counter(), 0.0, {}
    meta: dict[str, Any] = {"status": "done", "reason": "", "warnings": []}
    arrays: dict[str, np.ndarray] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            inputs = task.inputs
            if n_draws:
                inputs = replace(inputs, ranks=inputs.ranks[:n_draws])
            inputs = replace(inputs, asked=_STRATEGIES.get(settings.get("labels", DRAWN), ""))
            own = {name: value for name, value in settings.items() if name != "labels"}
            odds = np.asarray(run(inputs, own, stages), dtype=np.float64)
            if not np.isfinite(odds).all():
                raise ValueError(f"expected finite log-odds, got {int((~np.isfinite(odds)).sum())} that are not")
            arrays = {**stages.kept, "log_odds": (odds * task.test_sign).astype(np.float32)}
        except NotApplicable as lacking:
            meta |= {"status": "not applicable", "reason": str(lacking)}
        except Exception as error:
            # One method that fails must not stop the others.
            meta |= {
                "status": "failed",
                "reason": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
    meta["warnings"] = sorted({f"{one.category.__name__}: {one.message}" for one in caught})
    meta["seconds"] = round(time.perf_counter() - start + stages.seconds, 3)
    return arrays, meta
