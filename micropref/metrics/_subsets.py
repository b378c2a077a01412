"""Accuracy and log-loss of several methods on all rows and on parts of them, with intervals over clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref.kernels._pointwise import log_sigmoid
from micropref.metrics._accuracy import tie_half
from micropref.metrics._intervals import mean_interval

__all__ = ["clusters_of", "rows_by_value", "score_subsets"]


def clusters_of(users: Sequence[Any] | NDArray[Any] | None, prompts: Sequence[str]) -> NDArray[Any]:
    """What the bootstrap draws: the user of each row; without one its prompt, and without both the row itself."""
    clusters = np.empty(len(prompts), dtype=object)
    for row, prompt in enumerate(prompts):
        user = None if users is None else users[row]
        # A user and a prompt of the same name are two clusters.
        clusters[row] = (0, user) if user is not None else (1, prompt) if prompt else None
    return clusters


def rows_by_value(column: Sequence[Any] | None, n_samples: int) -> list[tuple[str, NDArray[np.intp]]]:
    """All rows as "all", then those of every value of a column, in order of appearance."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate([] if column is None else column):
        rows.setdefault(str(value), []).append(row)
    return [("all", np.arange(n_samples)), *((value, np.array(members)) for value, members in rows.items())]


def score_subsets(
    log_odds: Mapping[str, NDArray[Any]],
    subsets: Sequence[tuple[str, NDArray[np.intp]]],
    *,
    clusters: NDArray[Any],
    weight: NDArray[np.float64] | None,
    random_state: int,
) -> list[dict[str, Any]]:
    """Means and 95 % intervals of every method on every subset.

    Parameters
    ----------
    log_odds : mapping of str to ndarray of shape (n_samples,)
        By method; of the response that was preferred.
    subsets : sequence of (str, ndarray)
        Names and positions of rows.
    clusters : ndarray of shape (n_samples,)
        What the bootstrap draws; None for a row by itself.
    weight : ndarray of shape (n_samples,), optional
    random_state : int

    Returns
    -------
    rows : list of dict
        As `PreferenceModel.evaluate` describes them.
    """
    found = []
    for subset, index in subsets:
        part = None if weight is None else weight[index]
        for method, odds in log_odds.items():
            row: dict[str, Any] = {"method": method, "subset": subset, "n": len(index)}
            log_loss = -log_sigmoid(odds[index].astype(np.float64))
            for name, each in (("accuracy", tie_half(odds[index])), ("log_loss", log_loss)):
                row[name], row[f"{name}_low"], row[f"{name}_high"] = _interval(
                    each, clusters[index], part, random_state
                )
            found.append(row)
    return found


def _interval(
    values: NDArray[Any], clusters: NDArray[Any], weight: NDArray[np.float64] | None, random_state: int
) -> tuple[float, float | None, float | None]:
    alone = None not in clusters and len(set(clusters)) < 2
    if alone or len(values) < 2:
        return float(np.average(values, weights=weight)), None, None
    return mean_interval(values, clusters, weight, random_state=random_state)
