"""From the results of the suite to the tables: our figure with its interval, and what was published beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from micropref.bench._document import Block, Grid, Heading, Paragraph
from micropref.bench._grids import figure, interval
from micropref.bench._paper.published import Line, PaperTable, Part
from micropref.bench._scores import DatasetResult, Pooled
from micropref.metrics import paired_bootstrap

COLUMNS = (
    *("table", "dataset", "method", "label", "attribute", "labels", "accuracy", "accuracy_low", "accuracy_high"),
    *("n_pairs", "n_clusters", "seeds", "published", "protocol", "status", "reason"),
)
_READING = (
    "Our figures are accuracies with 95 % intervals by a bootstrap over whole prompts, or people where labels are "
    "theirs, seeds and draws of labels pooled; n is the number of test pairs. Every published figure is of another "
    "protocol, for the reasons beside it in tables 1 to 3 and 7; those of table 5 are the ones of table 2. It is shown "
    "for orientation, and no difference to it is a result. A row with annotators known learns its heads from who "
    "answered each training pair, which no published figure of MiCRo does."
)
_LEVEL, _RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class Results:
    """What the tables are made of.

    Attributes
    ----------
    rows : list of dict
        As in ``results.csv``.
    details : list of DatasetResult
    """

    rows: Sequence[Mapping[str, Any]]
    details: Sequence[DatasetResult] = ()

    def row(self, dataset: str, method: str, budget: int | None = None) -> Mapping[str, Any] | None:
        """The row of a method at a budget, the largest one for None."""
        found = [one for one in self.rows if (one["dataset"], one["method"]) == (dataset, method)]
        if budget is not None:
            found = [one for one in found if one["budget"] == budget]
        return max(found, key=lambda one: one["budget"], default=None)

    def budgets(self, dataset: str) -> list[int]:
        """All budgets of a data set, ascending."""
        return sorted({one["budget"] for one in self.rows if one["dataset"] == dataset})

    def detail(self, dataset: str) -> DatasetResult | None:
        return next((one for one in self.details if one.name == dataset), None)


def flat_rows(tables: Sequence[PaperTable], results: Results) -> list[dict[str, Any]]:
    """A row for every figure of these tables, as in ``paper.csv``."""
    found = []
    for table in tables:
        for part in table.parts:
            for line in part.lines:
                budgets = part.budgets or (None,)
                if table.shows == "by budget":
                    budgets = tuple(results.budgets(part.dataset))
                for budget in budgets:
                    row = results.row(part.dataset, line.method, budget)
                    if row is None:
                        continue
                    common = {"table": table.number, "dataset": part.dataset, "label": line.label}
                    at = _published_at(table, row["budget"])
                    said = {"published": line.published, "protocol": line.protocol} if at else {}
                    found.append({**row, **common, "labels": row["budget"], **said})
                    if table.shows == "by attribute":
                        found += [common | one for one in _by_attribute(results.detail(part.dataset), line)]
    return found


def _published_at(table: PaperTable, budget: int) -> bool:
    """Whether published figures belong to this budget: those of the curves are at 50 labels."""
    return table.shows != "by budget" or budget == 50


def _by_attribute(detail: DatasetResult | None, line: Line) -> Iterator[dict[str, Any]]:
    """The accuracy on each attribute, at the largest budget."""
    one = None if detail is None else next((m for m in detail.methods if m.method.name == line.method), None)
    if detail is None or one is None or one.odds is None:
        return
    right = one.right(len(detail.budgets) - 1).mean(axis=0)
    for number in np.unique(detail.target):
        rows = detail.target == number
        settings: Any = {"level": _LEVEL, "n_resamples": _RESAMPLES, "random_state": 0}
        row: dict[str, Any] = {
            "method": line.method,
            "attribute": _name(detail, number),
            "labels": detail.budgets[-1],
            "accuracy": float(np.average(right[rows], weights=detail.weight[rows])),
            "n_pairs": int(rows.sum()) // detail.n_repeats,
            "n_clusters": len(np.unique(detail.cluster[rows])),
            "status": "done",
        }
        if row["n_clusters"] > 1:
            found = paired_bootstrap(
                right[rows], np.zeros(rows.sum()), detail.cluster[rows], detail.weight[rows], **settings
            )
            row |= {"accuracy_low": found.low, "accuracy_high": found.high}
        yield row


def _name(detail: DatasetResult, number: int) -> str:
    return detail.target_names[number] if number < len(detail.target_names) else f"context {number}"


def document(tables: Sequence[PaperTable], results: Results, about: Sequence[str]) -> list[Block]:
    """All tables as one page; `about` are paragraphs that come first."""
    blocks: list[Block] = [Heading(1, "The tables of MiCRo"), *map(Paragraph, (*about, _READING))]
    rows = flat_rows(tables, results)
    for table in tables:
        blocks += [Heading(2, f"{table.number}. {table.title}"), Paragraph(table.about)]
        for part in table.parts:
            of = [row for row in rows if (row["table"], row["dataset"]) == (table.number, part.dataset)]
            if not of:
                continue
            if table.shows == "weights":
                blocks += _weights(part, results)
            elif table.shows == "by budget":
                blocks.append(_by_budget(part, of, results.budgets(part.dataset)))
            else:
                blocks.append(_accuracies(part, of))
    return blocks


def _accuracies(part: Part, rows: Sequence[Mapping[str, Any]]) -> Grid:
    cells = []
    for row in rows:
        name = f"– {row['attribute']}" if row.get("attribute") else row["label"]
        quoted = _quoted(part, row.get("published"))
        cells.append([name, _ours(row), str(row["n_pairs"]), quoted, row.get("protocol") or ""])
    return Grid(["method", "ours (95 % interval)", "n", "published", "another protocol"], cells, 1, part.title)


def _quoted(part: Part, published: float | None) -> str:
    """As it was published: with four decimals if any figure of the column has them, else with three."""
    decimals = 4 if any(round(one.published or 0.0, 3) != (one.published or 0.0) for one in part.lines) else 3
    return "" if published is None else f"{published:.{decimals}f}".removeprefix("0")


def _ours(row: Mapping[str, Any]) -> str:
    return interval(row, "accuracy") if row["status"] == "done" else f"{row['status']}: {row['reason']}"


def _by_budget(part: Part, rows: Sequence[Mapping[str, Any]], budgets: Sequence[int]) -> Grid:
    cells = []
    for line in part.lines:
        of = {row["labels"]: row for row in rows if row["method"] == line.method}
        if of:
            cells.append(
                [line.label, *(_ours(of[b]) if b in of else "" for b in budgets), _quoted(part, line.published)]
            )
    return Grid(["method", *map(str, budgets), "published, 50 (another protocol)"], cells, 1, part.title)


def _weights(part: Part, results: Results) -> list[Block]:
    """Attributes by heads; heads in the order of the attribute that each is for, as far as that goes."""
    detail = results.detail(part.dataset)
    blocks: list[Block] = []
    for line in part.lines:
        weights = None if detail is None else _kept_weights(detail, line.method)
        if detail is None or weights is None:
            continue
        order = np.argsort(weights.argmax(axis=0), kind="stable")
        names = [_name(detail, number) for number in np.unique(detail.target)]
        rows = [[name, *map(figure, of[order].tolist())] for name, of in zip(names, weights, strict=True)]
        heads = [f"head {place + 1}" for place in range(len(order))]
        blocks.append(Grid(["attribute", *heads], rows, 1, f"{part.title}, {line.label}"))
    return blocks


def _kept_weights(detail: DatasetResult, method: str) -> np.ndarray | None:
    """Mean weights (n_attributes, n_heads) of the first seed."""
    one: Pooled | None = next((m for m in detail.methods if m.method.name == method), None)
    if one is None or not one.kept or "weights" not in one.kept[0]:
        return None
    weights = one.kept[0]["weights"]
    return weights if len(weights) == len(np.unique(detail.target)) else None
