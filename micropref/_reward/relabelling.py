"""Comparisons turned so that the response with the higher reward is the chosen one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._support.text import counted
from micropref.datasets._report import ReadReport
from micropref.datasets.table import PreferenceTable

__all__ = ["check_margin", "relabelled"]


def check_margin(margin: Any) -> None:
    """A ValueError unless a margin is a number from 0."""
    if isinstance(margin, bool) or not isinstance(margin, int | float | np.number) or not 0 <= margin < math.inf:
        raise ValueError(f"min_margin: expected a finite number of nats from 0, got {margin!r}")


def relabelled(table: PreferenceTable, log_odds: NDArray[np.float64], min_margin: float) -> PreferenceTable:
    """The table with the preferred response first, without the rows that are decided by less than a margin.

    Parameters
    ----------
    table : PreferenceTable
        n rows.
    log_odds : ndarray of shape (n,)
        Of the first response of each row, in nats.
    min_margin : float

    Returns
    -------
    PreferenceTable
    """
    margin, turned = np.abs(log_odds), log_odds < 0
    rows = np.flatnonzero(margin >= min_margin)
    kept = table[rows]
    pairs = zip(kept.chosen, kept.rejected, turned[rows].tolist(), strict=True)
    ordered = [(second, first) if swap else (first, second) for first, second, swap in pairs]
    n_dropped, n_turned = len(table) - len(rows), int(turned[rows].sum())
    notes = [f"{counted(n_turned, 'row')} turned around"]
    if min_margin > 0:
        notes.append(f"{counted(n_dropped, 'row')} left out, decided by less than {min_margin:g} nats")
    return PreferenceTable(
        prompt=kept.prompt,
        chosen=[better for better, _ in ordered],
        rejected=[worse for _, worse in ordered],
        context=kept.context,
        group=kept.group,
        weight=kept.weight,
        extra={
            **kept.extra,
            "margin": margin[rows].tolist(),
            "row": rows.tolist(),
            "turned": turned[rows].tolist(),
        },
        n_rejected=n_dropped,
        report=ReadReport(
            source="a relabelled table",
            n_rows=len(table),
            n_rejected=n_dropped,
            faults={"decided by less than the margin": n_dropped} if n_dropped else {},
            notes=tuple(notes),
        ),
    )
