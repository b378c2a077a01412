"""From cells to rows of a table: metrics with intervals and paired tests, over all seeds, clusters resampled whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from micropref.bench._bootstrap import two_way_bootstrap
from micropref.bench._cells import Cell
from micropref.bench._jobs import Job, method_code
from micropref.bench._specs import (
    ANNOTATORS,
    CONTEXTS,
    INFORMATION,
    KINDS,
    TARGETS,
    DatasetSpec,
    MethodSpec,
    Suite,
    resolve_settings,
)
from micropref.bench._streams import ASKED, DRAWN, EPIG
from micropref.kernels._pointwise import log_sigmoid
from micropref.metrics import PairedDifference, adjust_p_values, group_metrics, paired_bootstrap
from micropref.metrics._accuracy import tie_half

BASE_KIND = "single"
_DIFFERENCE = ("difference", "difference_low", "difference_high")


@dataclass(frozen=True, eq=False)
class Pooled:
    """One method on one data set, the test rows of all seeds one after the other.

    Attributes
    ----------
    method : MethodSpec
    information : frozenset of str
        What it uses beside the comparisons of training, as the tables show it.
    comparable_information : frozenset of str
        The same for comparing methods: where labels belong to contexts, the context of a row and the owner of a label
        are the same information.
    status, reason : str
    odds : ndarray of shape (n_draws, n_budgets, n), or None
        Log-odds of the preferred response.
    seconds : float
    warnings : tuple of str
    code_hash : str
        Of the code that computed it.
    kept : tuple of dict
        What else the method left in the cell of each seed.
    """

    method: MethodSpec
    information: frozenset[str]
    comparable_information: frozenset[str]
    status: str
    reason: str
    odds: np.ndarray | None
    seconds: float
    warnings: tuple[str, ...]
    code_hash: str
    kept: tuple[dict[str, np.ndarray], ...] = ()

    @property
    def family(self) -> str:
        return KINDS[self.method.kind].family

    def right(self, budget: int) -> np.ndarray:
        """Whether each row is right in each draw of labels, (n_draws, n)."""
        assert self.odds is not None
        return tie_half(self.odds[:, budget])

    def loss(self, budget: int) -> np.ndarray:
        """Log-loss of each row in each draw of labels, (n_draws, n), in nats."""
        assert self.odds is not None
        return -np.asarray(log_sigmoid(self.odds[:, budget].astype(np.float64)))


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """All methods on one data set.

    Attributes
    ----------
    n_repeats : int
        How often each test row is among the rows: the number of seeds where all have the same test rows, else 1.
    """

    name: str
    methods: tuple[Pooled, ...]
    cluster: np.ndarray
    seed: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    mean_labels: np.ndarray
    notes: tuple[str, ...]
    reading: str
    n_train: int
    n_targets: int
    data_hash: str
    split_hash: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    target_names: tuple[str, ...] = ()
    n_repeats: int = 1
    rows: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    winners: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    known: dict[bytes, PairedDifference] = field(default_factory=dict)

    @property
    def n_clusters(self) -> int:
        return len(np.unique(self.cluster))


def in_words(information: frozenset[str]) -> str:
    """What a method uses beside the comparisons of training, as text."""
    return " + ".join(one for one in INFORMATION if one in information) or "none"


def gather(suite: Suite, jobs: Sequence[Job]) -> DatasetResult:
    """Pool the cells of one data set over its seeds, and score them.

    Raises
    ------
    RuntimeError
        If a cell is missing or damaged.
    """
    tasks = [_present(job.stored_task(), job, "task") for job in jobs]
    # What the data lack tells no method from another.
    absent = frozenset() if any(task.meta["has_annotators"] for task in tasks) else frozenset({ANNOTATORS})
    methods = []
    for method in jobs[0].methods:
        cells = [_present(job.stored(method), job, method.name) for job in jobs]
        settings = resolve_settings(method.kind, method.settings, jobs[0].dataset.parameters)
        bad = next(((job, cell) for job, cell in zip(jobs, cells, strict=True) if cell.meta["status"] != "done"), None)
        information = KINDS[method.kind].information_with(settings) - absent
        methods.append(
            Pooled(
                method,
                information,
                _comparable(information, jobs[0].dataset.protocol),
                "done" if bad is None else bad[1].meta["status"],
                "" if bad is None else _reason(*bad),
                np.concatenate([cell.arrays["log_odds"] for cell in cells], axis=2) if bad is None else None,
                sum(cell.meta["seconds"] for cell in cells),
                tuple(sorted({text for cell in cells for text in cell.meta["warnings"]})),
                method_code(method),
                tuple({name: one for name, one in cell.arrays.items() if name != "log_odds"} for cell in cells),
            )
        )
    splits = "".join(task.meta["split_hash"] for task in tasks)
    result = DatasetResult(
        jobs[0].dataset.name,
        tuple(methods),
        cluster=np.concatenate([task.arrays["cluster"] for task in tasks]),
        seed=np.repeat([job.seed for job in jobs], [len(task.arrays["cluster"]) for task in tasks]),
        target=np.concatenate([task.arrays["target"] for task in tasks]),
        weight=np.concatenate([task.arrays["weight"] for task in tasks]),
        mean_labels=np.mean([task.arrays["mean_labels"] for task in tasks], axis=0),
        notes=tuple(
            f"seed {job.seed}: {note}" for job, task in zip(jobs, tasks, strict=True) for note in task.meta["notes"]
        ),
        reading=tasks[0].meta["reading"],
        n_train=round(np.mean([task.meta["n_train"] for task in tasks])),
        n_targets=max(task.meta["n_targets"] for task in tasks),
        data_hash=jobs[0].data_hash,
        split_hash=hashlib.sha256(splits.encode()).hexdigest(),
        seeds=tuple(job.seed for job in jobs),
        budgets=jobs[0].budgets,
        target_names=tuple(tasks[0].meta["target_names"]),
        n_repeats=len(jobs) if has_one_test_part(jobs[0].dataset) else 1,
    )
    for b in range(len(result.budgets)):
        _score(suite, result, b)
    return result


def has_one_test_part(spec: DatasetSpec) -> bool:
    """Whether every seed tests the same rows: those of a published split, of users who are not drawn anew."""
    return spec.split == "given" and spec.protocol in ("contexts", "known_users") and not spec.n_users


def _comparable(information: frozenset[str], protocol: str) -> frozenset[str]:
    same = {CONTEXTS, TARGETS}
    return information | same if protocol == "contexts" and information & same else information


def _reason(job: Job, cell: Cell) -> str:
    reason = cell.meta["reason"]
    return f"seed {job.seed}: {reason}" if cell.meta["status"] == "failed" else reason


def _adjust(tests: Sequence[dict[str, Any]], name: str) -> None:
    known = [test for test in tests if test[name] is not None]
    for test, p in zip(known, adjust_p_values([t[name] for t in known]) if known else (), strict=True):
        test[f"{name}_holm"] = float(p)


def _present(cell: Cell | None, job: Job, what: str) -> Cell:
    if cell is None:
        raise RuntimeError(
            f"{job.where}: expected the result of {what}, got one that is missing or damaged; run the suite again"
        )
    return cell


def _score(suite: Suite, result: DatasetResult, b: int) -> None:
    """Rows and comparisons of one budget."""
    done = [one for one in result.methods if one.odds is not None]
    base = next((one for one in done if one.method.kind == BASE_KIND), None)
    # More is better in both.
    merit = {
        "": {one.method.name: _average(result, one.right(b)) for one in done},
        "log_loss_": {one.method.name: -_average(result, one.loss(b)) for one in done},
    }
    best_of: dict[str, dict[str, dict[str, Any]]] = {"": {}, "log_loss_": {}}
    for one in done:
        among = [other for other in done if _is_rival(one, other)]
        if not among:
            continue
        best = {prefix: max(among, key=lambda other: of[other.method.name]) for prefix, of in merit.items()}
        asked = among if one.family == "micro" else list(dict.fromkeys(best.values()))
        found = {other.method.name: _compared(suite, result, one, other, b) for other in asked}
        for prefix, rival in best.items():
            best_of[prefix][one.method.name] = dict(found[rival.method.name])
        if one.family == "micro":
            # Copies: the same tests are adjusted in another family for the table.
            against = [dict(test) for test in found.values()]
            for name in ("p", "log_loss_p"):
                _adjust(against, name)
            result.comparisons.extend(against)
    result.winners.extend(_winners(suite, result, done, merit, b))
    result.asked.extend(_compared(suite, result, one, other, b) for one in done if (other := _simpler(one, done)))
    for prefix, tests in best_of.items():
        # One test for each method: those of a column of a table are adjusted together.
        _adjust(list(tests.values()), f"{prefix}p")
    for one in result.methods:
        row = _row(suite, result, one, b)
        if one.odds is not None:
            row |= _figures(suite, result, one, base, b)
            for prefix, tests in best_of.items():
                if one.method.name in tests:
                    test = tests[one.method.name]
                    row[f"best_{prefix}rival"] = test["rival"]
                    names = [f"{prefix}{end}" for end in ("p", "p_holm", *_DIFFERENCE)]
                    row |= {f"rival_{name}": test[name] for name in names}
        result.rows.append(row)


def _winners(
    suite: Suite, result: DatasetResult, done: Sequence[Pooled], merit: Mapping[str, Mapping[str, float]], b: int
) -> list[dict[str, Any]]:
    """The best of micropref's own methods and the best rival, whatever they know, and their paired difference."""
    found = []
    for prefix, of in merit.items():
        ranked = sorted(done, key=lambda one, of=of: -of[one.method.name])  # type: ignore[misc]
        own, rival = (next((one for one in ranked if one.family == family), None) for family in ("micro", "rival"))
        if own is None or rival is None:
            continue
        values = (rival.loss(b), own.loss(b)) if prefix else (own.right(b), rival.right(b))
        found.append(
            {
                "dataset": result.name,
                "metric": "log-loss" if prefix else "accuracy",
                "budget": result.budgets[b],
                "own": own.method.name,
                "own_information": in_words(own.information),
                "own_value": abs(of[own.method.name]),
                "rival": rival.method.name,
                "rival_information": in_words(rival.information),
                "rival_value": abs(of[rival.method.name]),
                **_paired(suite, result, *values, "difference", "p"),
            }
        )
    return found


def _simpler(one: Pooled, done: Sequence[Pooled]) -> Pooled | None:
    """Of a method that asks, the same with labels that are drawn; of another rule, the one with the usual rule."""
    simpler = {ASKED: DRAWN, EPIG: ASKED}.get(one.method.settings.get("labels", DRAWN))
    if simpler is None:
        return None
    for other in done:
        settings = {"labels": DRAWN, **other.method.settings}
        if other.method.kind == one.method.kind and settings == {**one.method.settings, "labels": simpler}:
            return other
    return None


def _average(result: DatasetResult, values: np.ndarray) -> float:
    return float(np.average(values.mean(axis=0), weights=result.weight))


def _is_rival(one: Pooled, other: Pooled) -> bool:
    """Whether the other method uses no additional information, and is not also one of MiCRo."""
    compared = one.family in ("micro", "rival") and other.family in ("micro", "rival") and one is not other
    return (
        compared
        and not one.family == other.family == "micro"
        and other.comparable_information <= one.comparable_information
    )


def _compared(suite: Suite, result: DatasetResult, one: Pooled, other: Pooled, b: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "dataset": result.name,
        "budget": result.budgets[b],
        "method": one.method.name,
        "rival": other.method.name,
        "information": in_words(one.information),
        "rival_information": in_words(other.information),
    }
    for prefix, a, c in (("", one.right(b), other.right(b)), ("log_loss_", other.loss(b), one.loss(b))):
        row |= _paired(suite, result, a, c, f"{prefix}difference", f"{prefix}p")
        row[f"{prefix}p_holm"] = None
    return row


def _paired(
    suite: Suite, result: DatasetResult, a: np.ndarray, b: np.ndarray, name: str, p_name: str
) -> dict[str, Any]:
    if result.n_clusters < 2:
        difference = _average(result, a - b)
        return {name: difference, f"{name}_low": None, f"{name}_high": None, p_name: None}
    # A method with fewer draws is averaged over its own.
    values = (a if len(a) >= len(b) else a.mean(axis=0)) - (b if len(b) >= len(a) else b.mean(axis=0))
    if len(values) > 1 and (values == values[0]).all():
        values = values[:1]
    # Methods that no label changes have the same differences at every budget.
    key = hashlib.sha256(values.tobytes()).digest()
    if key not in result.known:
        settings: Any = {"level": suite.level, "n_resamples": suite.n_resamples, "random_state": 0}
        zeros = np.zeros(values.shape[1])
        result.known[key] = (
            paired_bootstrap(values[0], zeros, result.cluster, result.weight, **settings)
            if len(values) == 1
            else two_way_bootstrap(values, result.cluster, result.seed, result.weight, **settings)
        )
    found = result.known[key]
    return {name: found.difference, f"{name}_low": found.low, f"{name}_high": found.high, p_name: found.p_value}


def _row(suite: Suite, result: DatasetResult, one: Pooled, b: int) -> dict[str, Any]:
    return {
        "dataset": result.name,
        "method": one.method.name,
        "kind": one.method.kind,
        "family": one.family,
        "information": in_words(one.information),
        "budget": result.budgets[b],
        "mean_labels": float(result.mean_labels[b]),
        "n_rows": len(result.weight),
        "n_pairs": len(result.weight) // result.n_repeats,
        "n_clusters": result.n_clusters,
        "reading": result.reading,
        "status": one.status,
        "reason": one.reason,
        "warnings": len(one.warnings),
        "seeds": " ".join(map(str, result.seeds)),
        "data_hash": result.data_hash[:16],
        "split_hash": result.split_hash[:16],
        "code_hash": one.code_hash[:16],
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
        row[name] = _average(result, values)
        if result.n_clusters > 1:
            found = _paired(suite, result, values, np.zeros_like(values), name, "p")
            row |= {f"{name}{end}": found[f"{name}{end}"] for end in ("_low", "_high")}
    if base is not None and one is not base:
        row |= _paired(suite, result, one.right(b), base.right(b), "gain", "gain_p")
        row |= _paired(suite, result, base.loss(b), one.loss(b), "log_loss_gain", "log_loss_gain_p")
    return row
