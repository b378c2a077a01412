"""Distributions of the difference in utility between two responses, and what they say about hidden context."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._estimator.fitting import predicting
from micropref._rows.weights import check_sample_weight
from micropref.baselines._base import PersonalRewards

__all__ = ["UtilityDistribution", "boxed", "unboxed"]


class UtilityDistribution(PersonalRewards):
    """Base of distributional preference learning: mean and variance of the utility difference of a comparison."""

    @abstractmethod
    def _moments(self, values: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (n,) of the utility difference, from what `_log_odds` is given."""

    @predicting
    def utility_mean(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Mean of the difference in utility, first minus second response.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        mean : ndarray of shape (n_samples,)
            In nats of log-odds.
        """
        return self._moments_of(X, groups)[0]

    @predicting
    def utility_variance(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Variance of the difference in utility that comes from hidden context.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        variance : ndarray of shape (n_samples,)
            In nats squared.
        """
        return self._moments_of(X, groups)[1]

    @predicting
    def hidden_context_share(
        self, X: Array, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> float:
        """Share of the variance of utility differences that comes from hidden context, 1 − r².

        r² = E[μ²] / (E[μ²] + E[σ²]) over the rows, with μ and σ² the mean and the variance of the utility difference:
        the explained variance of Siththaranjan et al. (2024), there for utilities of single responses. As either of
        two responses may come first, means of differences have mean zero.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        share : float
            0 where utilities are sure, 1 where nothing but hidden context decides; 0 for differences of zero only.
        """
        mean, variance = self._moments_of(X, groups)
        weight = check_sample_weight(sample_weight, len(mean))
        # Relative to the largest: squares of extremely large or small means would leave the range of floats.
        largest = max(float(np.abs(mean).max()), float(np.sqrt(variance.max()))) or 1.0
        hidden = np.average(variance / largest / largest, weights=weight)
        seen = np.average((mean / largest) ** 2, weights=weight)
        return float(hidden / (hidden + seen)) if hidden + seen > 0 else 0.0

    def _moments_of(self, X: Array, groups: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
        check_is_fitted(self)
        context, difference = self._checked(X)
        return self._moments(self._represent(context, difference), self._numbers(groups, len(difference)))


def boxed(content: Any) -> np.ndarray:
    """The "numbers" (1,) of a user who is described by more than a row of numbers."""
    box = np.empty(1, dtype=object)
    box[0] = content
    return box


def unboxed(boxes: np.ndarray) -> list[tuple[Any, np.ndarray]]:
    """The different contents of boxes (n, 1), in the order of the first row of each, and the rows of each."""
    contents = boxes[:, 0].tolist()
    rows_of: dict[int, list[int]] = {}
    for row, content in enumerate(contents):
        rows_of.setdefault(id(content), []).append(row)
    return [(contents[rows[0]], np.array(rows)) for rows in rows_of.values()]
