"""Paired differences with two-way resampling: of clusters of rows, and of draws of the labels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from sklearn.utils import check_random_state

from micropref.metrics import PairedDifference

_MOST_NUMBERS = 1 << 22


def two_way_bootstrap(
    values: np.ndarray,
    cluster: np.ndarray,
    seed: np.ndarray,
    weight: np.ndarray,
    *,
    level: float,
    n_resamples: int,
    random_state: int = 0,
) -> PairedDifference:
    """Mean of values with an interval and a p-value for zero, as of `paired_bootstrap`.

    Labels are drawn a few times for each seed, and one draw changes all rows together: an interval that resamples rows
    alone is conditional on the labels that were drawn. Every resample therefore takes clusters with replacement and,
    crossed with that, the draws of each seed with replacement (Owen, 2007, "The pigeonhole bootstrap", which is
    conservative). Seeds, and with them splits and fits, are not resampled.

    Parameters
    ----------
    values : ndarray of shape (n_draws, n_rows)
        Of each draw of labels; the draws of one seed are the same for all its rows.
    cluster, seed : ndarray of shape (n_rows,)
        What is resampled as a whole, and the seed of each row.
    weight : ndarray of shape (n_rows,)
    level : float
        Coverage of the interval.
    n_resamples : int
    random_state : int, default=0

    Returns
    -------
    difference : PairedDifference
    """
    n_draws = len(values)
    names, index = np.unique(cluster, return_inverse=True)
    seeds, place = np.unique(seed, return_inverse=True)
    cell = place * len(names) + index
    size = len(seeds) * len(names)
    mass = np.bincount(cell, weights=weight, minlength=size).reshape(len(seeds), len(names))
    totals = np.stack(
        [np.bincount(cell, weights=weight * one, minlength=size).reshape(len(seeds), len(names)) for one in values]
    )
    mean = float(totals.sum() / (n_draws * mass.sum()))
    means = []
    for draws, clusters in _resamples(n_draws, len(seeds), len(names), n_resamples, random_state):
        drawn = draws @ totals.reshape(-1, len(names))
        means.append((drawn * clusters).sum(axis=1) / (n_draws * (clusters @ mass.sum(axis=0))))
    return _summary(mean, np.concatenate(means), level, len(names))


def _summary(mean: float, means: np.ndarray, level: float, n_clusters: int) -> PairedDifference:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    beyond = np.abs(means - mean) >= abs(mean) * (1 - 1e-9)
    p = max((1 + int(beyond.sum())) / (1 + len(means)), 2.0 ** (1 - n_clusters))
    return PairedDifference(mean, float(low), float(high), p, n_clusters)


def _resamples(
    n_draws: int, n_seeds: int, n_clusters: int, n_resamples: int, random_state: int
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """How often every seed's draw, (n, n_draws · n_seeds), and every cluster is in each resample, in blocks."""
    block = max(1, _MOST_NUMBERS // (n_seeds * n_clusters))
    if n_resamples <= block:
        return [_one_block(n_draws, n_seeds, n_clusters, n_resamples, random_state)]
    random = check_random_state(random_state)
    sizes = (min(block, n_resamples - start) for start in range(0, n_resamples, block))
    return (_counts(random, n_draws, n_seeds, n_clusters, n) for n in sizes)


@lru_cache(maxsize=1)
def _one_block(
    n_draws: int, n_seeds: int, n_clusters: int, n_resamples: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same for all tests of one data set, which are thousands, and drawing takes most of their time."""
    return _counts(check_random_state(random_state), n_draws, n_seeds, n_clusters, n_resamples)


def _counts(
    random: np.random.RandomState, n_draws: int, n_seeds: int, n_clusters: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    draws = random.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=(n, n_seeds))
    clusters = random.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n)
    # In floating point, so that products with them are BLAS's.
    return draws.transpose(0, 2, 1).reshape(n, -1).astype(np.float64), clusters.astype(np.float64)
