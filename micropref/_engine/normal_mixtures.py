"""Mixtures of normal distributions, one for every row: their spread and their quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["lower_quantile", "mean_and_deviation"]

Floats = NDArray[np.float64]

# Halvings of the bracket of a quantile: to 2⁻⁵³ of its width.
_HALVINGS = 53
# Standard deviations within which every probability lies whose quantile can be asked for.
_REACH = 38.0


def mean_and_deviation(weights: Floats, means: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Mean Σ_k p_k m_k and standard deviation √Σ_k p_k (v_k + (m_k − mean)²) of every row, both (n,).

    Parameters
    ----------
    weights, means, variances : ndarray of shape (n_components, n)
    """
    mean = (weights * means).sum(axis=0)
    return mean, np.sqrt((weights * (variances + (means - mean) ** 2)).sum(axis=0))


def lower_quantile(weights: Floats, means: Floats, variances: Floats, probability: float) -> Floats:
    """The smallest x with Σ_k p_k Φ((x − m_k) / √v_k) ≥ probability, of every row, (n,).

    Parameters
    ----------
    weights, means, variances : ndarray of shape (n_components, n)
        A component without variance is a point.
    probability : float
        Between 0 and 1.
    """
    deviations = np.sqrt(variances)
    low, high = (means - _REACH * deviations).min(axis=0), (means + _REACH * deviations).max(axis=0)
    for _ in range(_HALVINGS):
        middle = low + 0.5 * (high - low)
        beyond = middle - means
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            below = np.where(deviations > 0, ndtr(beyond / deviations), beyond >= 0)
        enough = (weights * below).sum(axis=0) >= probability
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    return np.asarray(high)
