"""Paired differences with two-way resampling: of clusters of rows, and of draws of the labels."""

from __future__ import annotations

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
    random = check_random_state(random_state)
    means = np.empty(n_resamples)
    block = max(1, _MOST_NUMBERS // size)
    for start in range(0, n_resamples, block):
        n = min(block, n_resamples - start)
        draws = random.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=(n, len(seeds)))
        clusters = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
        drawn = np.einsum("bsd,dsc->bc", draws, totals, optimize=True)
        means[start : start + n] = (drawn * clusters).sum(axis=1) / (n_draws * (clusters @ mass.sum(axis=0)))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    beyond = np.abs(means - mean) >= abs(mean) * (1 - 1e-9)
    p = max((1 + int(beyond.sum())) / (1 + n_resamples), 2.0 ** (1 - len(names)))
    return PairedDifference(mean, float(low), float(high), p, len(names))
