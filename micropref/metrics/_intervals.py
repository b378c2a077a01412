"""Means with intervals that know clusters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from micropref._rows.groups import check_groups
from micropref._rows.weights import check_sample_weight

_RESAMPLED_ROWS = 1 << 20


class Interval(NamedTuple):
    """A mean and the ends of its interval.

    Attributes
    ----------
    mean : float
    low, high : float
    """

    mean: float
    low: float
    high: float


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> Interval:
    """Mean with a percentile bootstrap interval that resamples whole clusters.

    Rows of one user, or of one prompt, are not independent: an interval from single rows would be too narrow.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
    clusters : array-like of shape (n_samples,), optional
        Cluster of every row, such as its user or prompt; None, NaN or -1 for a row on its own.
    sample_weight : array-like of shape (n_samples,), optional
    level : float, default=0.95
        Nominal coverage of the interval.
    n_resamples : int, default=1000
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    interval : Interval
        ``(mean, low, high)``, in the units of `values`.

    Raises
    ------
    ValueError
        If values are not finite, lengths do not agree, or fewer than two clusters have weight.

    Examples
    --------
    Ten users, each either always right or always wrong: what looks like 1 000 rows is 10.

    >>> correct = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 100)
    >>> mean_interval(correct)
    Interval(mean=0.7, low=0.671, high=0.727)
    >>> mean_interval(correct, clusters=np.arange(1000) // 100)
    Interval(mean=0.7, low=0.4, high=0.9)
    """
    total, mass = cluster_totals(values, clusters, sample_weight, level=level, n_resamples=n_resamples)
    low, high = np.quantile(resampled_means(total, mass, n_resamples, random_state), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(total.sum() / mass.sum()), float(low), float(high))


def cluster_totals(
    values: ArrayLike,
    clusters: ArrayLike | None,
    sample_weight: ArrayLike | None,
    *,
    level: float,
    n_resamples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Σ ω v and Σ ω of every cluster that has weight, at least two, after all arguments have been checked."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values: expected shape (n_samples,) with at least one row, got shape {values.shape}")
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"values: expected finite numbers, got {values[row]} in row {row}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples!r}")
    weight = check_sample_weight(sample_weight, len(values))
    total, mass = cluster_sums(values, clusters, np.ones(len(values)) if weight is None else weight)
    if len(total) < 2:
        raise ValueError(f"expected at least two clusters with positive weight for an interval, got {len(total)}")
    return total, mass


def resampled_means(total: np.ndarray, mass: np.ndarray, n_resamples: int, random_state: Any) -> np.ndarray:
    """Means of samples of as many clusters, drawn with replacement."""
    random = check_random_state(random_state)
    n_clusters = len(total)
    means = np.empty(n_resamples)
    size = max(1, _RESAMPLED_ROWS // n_clusters)
    for start in range(0, n_resamples, size):
        count = min(size, n_resamples - start)
        drawn = random.randint(n_clusters, size=(count, n_clusters), dtype=np.int32)
        means[start : start + count] = total[drawn].sum(axis=1) / mass[drawn].sum(axis=1)
    return means


def cluster_sums(values: np.ndarray, clusters: ArrayLike | None, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ ω v and Σ ω of every cluster that has weight."""
    members = check_groups(clusters, len(values))
    total, mass = values * weight, weight
    if members is not None:
        alone = members.index < 0
        index = members.index[~alone]
        total, mass = (
            np.concatenate([np.bincount(index, each[~alone], members.n_groups), each[alone]]) for each in (total, mass)
        )
    return total[mass > 0], mass[mass > 0]


def accuracy_interval(
    correct: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> Interval:
    """Share of correct rows with a percentile bootstrap interval that resamples whole clusters.

    Parameters
    ----------
    correct : array-like of bool of shape (n_samples,)
        Whether the preferred response of each row was predicted.
    clusters, level, n_resamples, random_state
        As in `mean_interval`.

    Returns
    -------
    interval : Interval
        ``(mean, low, high)``.

    Raises
    ------
    ValueError
        If an entry is neither true nor false, and as in `mean_interval`.
    """
    correct = np.asarray(correct)
    strange = ~np.isin(correct, (0, 1))
    if strange.any():
        raise ValueError(f"correct: expected True and False only, got {correct[strange][0]!r}")
    return mean_interval(correct, clusters, level=level, n_resamples=n_resamples, random_state=random_state)
