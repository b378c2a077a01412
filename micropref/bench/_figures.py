"""Figures of accuracy and log-loss against the number of labels, one for each data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from micropref._support.optional import require
from micropref.bench._scores import DatasetResult, Pooled
from micropref.bench._specs import Suite
from micropref.bench._words import counted
from micropref.plotting._style import style, tidy

_MOST_OWN, _MOST_RIVALS = 5, 4


def draw(path: Path, suite: Suite, result: DatasetResult) -> None:
    """Save the curves of the most accurate of micropref's own methods and of the rivals, the controls and the ceiling.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "drawing the curves").Figure(figsize=(11.0, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    cells = {(row["method"], row["budget"]): row for row in result.rows}
    places = np.arange(len(result.budgets))
    for ax, name, label in zip(panels, ("accuracy", "log_loss"), ("accuracy", "log-loss (nats)"), strict=True):
        for one, look in _lines(suite, result):
            values = [cells[one.method.name, budget][name] for budget in result.budgets]
            ax.plot(places, values, label=one.method.name, **look)
            low = [cells[one.method.name, budget].get(f"{name}_low") for budget in result.budgets]
            high = [cells[one.method.name, budget].get(f"{name}_high") for budget in result.budgets]
            if one.family == "micro" and None not in low:
                ax.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)
        ax.set_xticks(places, list(map(str, result.budgets)))
        ax.set_xlabel("labels per context or new user")
        ax.set_ylabel(label)
        tidy(ax)
    # One method that is overconfident without labels would leave no room for the differences of all others.
    seen = [cells[one.method.name, b]["log_loss"] for one, _ in _lines(suite, result) for b in result.budgets]
    if seen:
        panels[1].set_ylim(top=min(max(seen), 0.85) + 0.01)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    rows, seeds = counted(len(result.weight), "test row"), counted(len(result.seeds), "seed")
    figure.suptitle(f"{result.name}: {rows}, {seeds}", fontsize=11)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _lines(suite: Suite, result: DatasetResult) -> list[tuple[Pooled, dict[str, Any]]]:
    mean: dict[str, float] = {}
    for row in result.rows:
        mean[row["method"]] = mean.get(row["method"], 0.0) + row.get("accuracy", 0.0)
    done = [one for one in result.methods if one.odds is not None]
    ours, rivals = (
        sorted((one for one in done if one.family == family), key=lambda one: -mean[one.method.name])
        for family in ("micro", "rival")
    )
    ours = ours[:_MOST_OWN]
    base = [one for one in rivals if one.method.kind == "single"]
    lines = []
    for i, one in enumerate([*ours, *rivals[:_MOST_RIVALS]]):
        bold = {"linewidth": 2.2, "markersize": 5} if one in ours else {"linewidth": 1.2, "markersize": 4, "ls": "--"}
        lines.append((one, style(i) | bold))
    lines += [(one, {"color": "0.2", "ls": "-.", "linewidth": 1.2}) for one in base if one not in rivals[:_MOST_RIVALS]]
    controls = [one for one in done if one.family == "control"]
    lines += [
        (one, {"color": "0.6", "ls": ":", "linewidth": 1.4, "marker": "1234"[i % 4]}) for i, one in enumerate(controls)
    ]
    lines += [(one, {"color": "0.0", "ls": (0, (1, 3)), "linewidth": 1.2}) for one in done if one.family == "ceiling"]
    return lines
