"""Confidence against truth, counted in bins; the same whichever response is called first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class BinSums(NamedTuple):
    """Sums over the rows of every group and bin, each (n_groups, n_bins): Σ ω, Σ ω confidence, Σ ω right."""

    mass: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Calibration error (n_groups,): mean distance of the share that is right from the confidence."""
        error: np.ndarray = np.abs(self.right - self.confidence).sum(axis=1) / self.mass.sum(axis=1)
        return error


def bin_sums(
    confidence: np.ndarray,
    right: np.ndarray,
    n_bins: int,
    *,
    weight: np.ndarray | None = None,
    group: np.ndarray | None = None,
    n_groups: int = 1,
) -> BinSums:
    """Count rows in bins of equal width between ½ and 1.

    Parameters
    ----------
    confidence : ndarray of shape (n_samples,)
        Probability of the response that is predicted, at least ½. A pair and its swap fall into one bin, which bins of
        the probability of the first response would not see to at their edges.
    right : ndarray of shape (n_samples,)
        1 where that response is preferred, 0 where the other one is, ½ where none was predicted.
    n_bins : int
    weight : ndarray of shape (n_samples,), optional
    group : ndarray of int of shape (n_samples,), optional
        Row of the table of every row; None: all in one.
    n_groups : int, default=1

    Returns
    -------
    sums : BinSums
    """
    index = np.minimum((2 * n_bins * (confidence - 0.5)).astype(np.intp), n_bins - 1)
    if group is not None:
        index += n_bins * group.astype(np.intp)
    weight = np.ones(len(index)) if weight is None else weight
    return BinSums(
        *(
            np.bincount(index, values, n_groups * n_bins).reshape(n_groups, n_bins)
            for values in (weight, weight * confidence, weight * right)
        )
    )
