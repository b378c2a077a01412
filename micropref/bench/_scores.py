"""From cells to rows of a table: figures with intervals, and paired tests; seeds pooled, clusters resampled whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from micropref.bench._cells import Cell
from micropref.bench._config import MethodSpec, Suite
from micropref.bench._methods import ANNOTATORS, CONTEXTS, KINDS, TARGETS, TRAINING_CONTEXTS, TRUTH, effective
from micropref.bench._runner import Job
from micropref.metrics import PairedDifference, adjust_p_values, group_metrics, paired_bootstrap

_ORDER = (ANNOTATORS, TRAINING_CONTEXTS, CONTEXTS, TARGETS, TRUTH)
BASE_KIND = "single"


@dataclass(frozen=True, eq=False)
class Pooled:
    """One method on one data set, the test rows of all seeds one after the other.

    Attributes
    ----------
    method : MethodSpec
    information : frozenset of str
    status, reason : str
    odds : ndarray of shape (n_draws, n_budgets, n), or None
        Log-odds of the preferred response.
    seconds : float
    warnings : tuple of str
    """

    method: MethodSpec
    information: frozenset[str]
    status: str
    reason: str
    odds: np.ndarray | None
    seconds: float
    warnings: tuple[str, ...]

    @property
    def family(self) -> str:
        return KINDS[self.method.kind].family

    def right(self, budget: int) -> np.ndarray:
        """Share of the draws that are right, for every row."""
        assert self.odds is not None
        odds = self.odds[:, budget]
        return ((odds > 0) + 0.5 * (odds == 0)).mean(axis=0)

    def loss(self, budget: int) -> np.ndarray:
        """Mean log-loss over draws, for every row, in nats."""
        assert self.odds is not None
        return np.logaddexp(0.0, -self.odds[:, budget].astype(np.float64)).mean(axis=0)


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """All methods on one data set."""

    name: str
    methods: tuple[Pooled, ...]
    cluster: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    mean_labels: np.ndarray
    notes: tuple[str, ...]
    n_train: int
    n_targets: int
    data_hash: str
    split_hash: str
    seeds: tuple[int, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    known: dict[bytes, PairedDifference] = field(default_factory=dict)

    @property
    def n_clusters(self) -> int:
        return len(np.unique(self.cluster))


def informed(information: frozenset[str]) -> str:
    """What a method is told beside the training comparisons, in words."""
    return " + ".join(one for one in _ORDER if one in information) or "none"


def gather(suite: Suite, jobs: Sequence[Job]) -> DatasetResult:
    """Pool the cells of one data set over its seeds, and judge them.

    Raises
    ------
    RuntimeError
        If a cell is missing.
    """
    tasks = [_present(job.stored_task(), job, "task") for job in jobs]
    methods = []
    for method in jobs[0].methods:
        cells = [_present(job.stored(method), job, method.name) for job in jobs]
        settings = effective(method.kind, method.settings, jobs[0].dataset.parameters)
        bad = next((cell for cell in cells if cell.meta["status"] != "done"), None)
        methods.append(
            Pooled(
                method,
                KINDS[method.kind].information(settings),
                "done" if bad is None else bad.meta["status"],
                "" if bad is None else bad.meta["reason"],
                np.concatenate([cell.arrays["log_odds"] for cell in cells], axis=2) if bad is None else None,
                sum(cell.meta["seconds"] for cell in cells),
                tuple(sorted({text for cell in cells for text in cell.meta["warnings"]})),
            )
        )
    splits = "".join(task.meta["split_hash"] for task in tasks)
    result = DatasetResult(
        jobs[0].dataset.name,
        tuple(methods),
        cluster=np.concatenate([task.arrays["cluster"] for task in tasks]),
        target=np.concatenate([task.arrays["target"] for task in tasks]),
        weight=np.concatenate([task.arrays["weight"] for task in tasks]),
        mean_labels=np.mean([task.arrays["mean_labels"] for task in tasks], axis=0),
        notes=tuple(
            f"seed {job.seed}: {note}" for job, task in zip(jobs, tasks, strict=True) for note in task.meta["notes"]
        ),
        n_train=round(np.mean([task.meta["n_train"] for task in tasks])),
        n_targets=max(task.meta["n_targets"] for task in tasks),
        data_hash=jobs[0].data_hash,
        split_hash=hashlib.sha256(splits.encode()).hexdigest(),
        seeds=tuple(job.seed for job in jobs),
    )
    for b in range(len(suite.budgets)):
        _judge(suite, result, b)
    return result


def _present(cell: Cell | None, job: Job, what: str) -> Cell:
    if cell is None:
        raise RuntimeError(f"{job.where}: {what} is missing or damaged; run the suite again")
    return cell


def _judge(suite: Suite, result: DatasetResult, b: int) -> None:
    """Rows and comparisons of one budget."""
    done = [one for one in result.methods if one.odds is not None]
    base = next((one for one in done if one.method.kind == BASE_KIND), None)
    accuracy = {one.method.name: float(np.average(one.right(b), weights=result.weight)) for one in done}
    loss = {one.method.name: float(np.average(one.loss(b), weights=result.weight)) for one in done}
    best_of: dict[str, dict[str, Any]] = {}
    tests = []
    for one in done:
        among = [other for other in done if _is_rival(one, other)]
        if not among:
            continue
        best = min(among, key=lambda other: (-accuracy[other.method.name], loss[other.method.name]))
        found = [_compared(suite, result, one, other, b) for other in (among if one.family == "micro" else [best])]
        for name in ("p", "log_loss_p"):
            known = [test for test in found if test[name] is not None]
            for test, p in zip(known, adjust_p_values([t[name] for t in known]) if known else (), strict=True):
                test[f"{name}_holm"] = float(p)
        best_of[one.method.name] = next(test for test in found if test["rival"] == best.method.name)
        tests += found if one.family == "micro" else []
    result.comparisons.extend(tests)
    # One test for each method and budget: those of the table are adjusted together.
    asked = [test for test in best_of.values() if test["p"] is not None]
    together: Any = adjust_p_values([test["p"] for test in asked]) if asked else []
    holm = {test["method"]: float(p) for test, p in zip(asked, together, strict=True)}
    for one in result.methods:
        row = _row(suite, result, one, b)
        if one.odds is not None:
            row |= _figures(suite, result, one, base, b)
            if one.method.name in best_of:
                test = best_of[one.method.name]
                row |= {"best_rival": test["rival"], "rival_p_holm": holm.get(one.method.name)}
                told = [name for name in test if name.startswith(("difference", "log_loss_"))]
                row |= {f"rival_{name}": test[name] for name in ("p", *told)}
        result.rows.append(row)


def _is_rival(one: Pooled, other: Pooled) -> bool:
    """Whether the other is a method that is told no more, and not of the same make."""
    if "micro" not in (one.family, other.family) and "rival" not in (one.family, other.family):
        return False
    compared = one.family in ("micro", "rival") and other.family in ("micro", "rival") and one is not other
    return compared and not one.family == other.family == "micro" and other.information <= one.information


def _compared(suite: Suite, result: DatasetResult, one: Pooled, other: Pooled, b: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": result.name,
        "budget": suite.budgets[b],
        "method": one.method.name,
        "rival": other.method.name,
        "information": informed(one.information),
        "rival_information": informed(other.information),
    }
    for prefix, a, c in (("", one.right(b), other.right(b)), ("log_loss_", other.loss(b), one.loss(b))):
        row |= _paired(suite, result, a, c, f"{prefix}difference", f"{prefix}p")
        row[f"{prefix}p_holm"] = None
    return row


def _paired(
    suite: Suite, result: DatasetResult, a: np.ndarray, b: np.ndarray, name: str, p_name: str
) -> dict[str, Any]:
    if result.n_clusters < 2:
        difference = float(np.average(a - b, weights=result.weight))
        return {name: difference, f"{name}_low": None, f"{name}_high": None, p_name: None}
    # Methods that no label changes have the same differences at every budget.
    key = hashlib.sha256((a - b).tobytes()).digest()
    if key not in result.known:
        result.known[key] = paired_bootstrap(
            a, b, result.cluster, result.weight, level=suite.level, n_resamples=suite.n_resamples, random_state=0
        )
    found = result.known[key]
    return {name: found.difference, f"{name}_low": found.low, f"{name}_high": found.high, p_name: found.p_value}


def _row(suite: Suite, result: DatasetResult, one: Pooled, b: int) -> dict[str, Any]:
    return {
        "dataset": result.name,
        "method": one.method.name,
        "kind": one.method.kind,
        "family": one.family,
        "information": informed(one.information),
        "budget": suite.budgets[b],
        "mean_labels": float(result.mean_labels[b]),
        "n_rows": len(result.weight),
        "n_clusters": result.n_clusters,
        "status": one.status,
        "reason": one.reason,
        "warnings": len(one.warnings),
        "seeds": " ".join(map(str, result.seeds)),
        "data_hash": result.data_hash[:16],
        "split_hash": result.split_hash[:16],
        "seconds": one.seconds,
    }


def _figures(suite: Suite, result: DatasetResult, one: Pooled, base: Pooled | None, b: int) -> dict[str, Any]:
    assert one.odds is not None
    odds = one.odds[:, b]
    n_draws = len(odds)
    scores = group_metrics(
        odds.ravel().astype(np.float64), None, np.tile(result.target, n_draws), np.tile(result.weight, n_draws)
    )
    row: dict[str, Any] = {
        "brier": scores.pooled.brier,
        "calibration_error": scores.pooled.calibration_error,
        "group_accuracy": scores.macro.accuracy,
    }
    for name, values in (("accuracy", one.right(b)), ("log_loss", one.loss(b))):
        row[name] = float(np.average(values, weights=result.weight))
        if result.n_clusters > 1:
            found = _paired(suite, result, values, np.zeros(len(values)), name, "p")
            row |= {f"{name}{end}": found[f"{name}{end}"] for end in ("_low", "_high")}
    if base is not None and one is not base:
        row |= _paired(suite, result, one.right(b), base.right(b), "gain", "gain_p")
        row |= _paired(suite, result, base.loss(b), one.loss(b), "log_loss_gain", "log_loss_gain_p")
    return row
