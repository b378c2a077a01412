"""Ridge regressions of several scores on the same features, each with an intercept and a penalty of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ScoreHeads", "fit_score_heads"]

# Penalties in shares of the mean square of a centred feature vector, among which "auto" chooses.
_SHARES = 10.0 ** np.arange(-6.0, 1.5, 0.5)
# Of a fit that leaves fewer free rows than this share, the error on new rows cannot be judged from its own.
_LEAST_FREE = 1e-3


@dataclass(frozen=True, eq=False)
class ScoreHeads:
    """Linear heads of the scores of single responses.

    Attributes
    ----------
    coef : ndarray of shape (n_attributes, n_features)
    intercept : ndarray of shape (n_attributes,)
        Both for scores in their own units.
    deviation : ndarray of shape (n_attributes,)
        Standard deviations of the scores.
    alpha : ndarray of shape (n_attributes,)
        The penalties that were used.
    """

    coef: np.ndarray
    intercept: np.ndarray
    deviation: np.ndarray
    alpha: np.ndarray


def fit_score_heads(features: np.ndarray, scores: np.ndarray, alpha: float | str) -> ScoreHeads:
    """Minimise (1/2n) Σ_j (s_j − b − vᵀφ_j)² + ½ alpha ‖v‖² for every attribute, s in its standard deviations.

    Parameters
    ----------
    features : ndarray of shape (n_responses, n_features)
    scores : ndarray of shape (n_responses, n_attributes)
        NaN where a response was not rated; every attribute has two different scores.
    alpha : float or "auto"
        "auto": the penalty with the least generalised cross-validation (Golub, Heath and Wahba, 1979).
    """
    rated = np.isfinite(scores)
    width, n_attributes = features.shape[1], scores.shape[1]
    coef, intercept = np.zeros((n_attributes, width)), np.zeros(n_attributes)
    deviation, chosen = np.zeros(n_attributes), np.zeros(n_attributes)
    patterns, pattern_of = np.unique(rated, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        # Attributes rated on the same responses share the decomposition of their features.
        spectrum = _Spectrum.of(features[rows])
        for one in np.flatnonzero(pattern_of.ravel() == number):
            values = scores[rows, one]
            mean, deviation[one] = values.mean(), values.std()
            coef[one], chosen[one] = spectrum.solve((values - mean) / deviation[one], alpha)
            coef[one] *= deviation[one]
            intercept[one] = mean - coef[one] @ spectrum.centre
    return ScoreHeads(coef, intercept, deviation, chosen)


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Centred features, and the axes of their covariance that are not empty.

    Attributes
    ----------
    centred : ndarray of shape (n, d)
    centre : ndarray of shape (d,)
    axes : ndarray of shape (d, r)
    variance : ndarray of shape (r,)
        Along each axis.
    """

    centred: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> _Spectrum:
        values = features.astype(np.float64)
        centre = values.mean(axis=0)
        centred = values - centre
        n, width = centred.shape
        # The smaller of the two matrices of products has the same spectrum.
        products = centred.T @ centred if width <= n else centred @ centred.T
        variance, axes = np.linalg.eigh(products / n)
        # Features that are the same everywhere differ from their mean by rounding alone.
        rounding = width * (64 * np.finfo(np.float64).eps * np.abs(values).max()) ** 2
        kept = variance > max(variance[-1] * n * np.finfo(np.float64).eps, rounding)
        variance, axes = variance[kept], axes[:, kept]
        if width > n:
            axes = centred.T @ axes / np.sqrt(n * variance)
        return cls(centred, centre, axes, variance)

    def solve(self, values: np.ndarray, alpha: float | str) -> tuple[np.ndarray, float]:
        """The head of standardised scores, and its penalty."""
        along = self.axes.T @ (self.centred.T @ values) / len(values)
        used = self._cross_validated(along, len(values)) if isinstance(alpha, str) else float(alpha)
        return self.axes @ (along / (self.variance + used)), used

    def _cross_validated(self, along: np.ndarray, n: int) -> float:
        """The penalty with the least generalised cross-validation; the largest one where all are as good."""
        total = float(self.variance.sum()) or 1.0
        best, least = total * float(_SHARES[-1]), np.inf
        for penalty in total * _SHARES[::-1]:
            shrunk = self.variance + penalty
            explained = float((along**2 * (self.variance + 2 * penalty) / shrunk**2).sum())
            free = 1 - (1 + float((self.variance / shrunk).sum())) / n
            if free < _LEAST_FREE:
                break
            error = max(1 - explained, 0.0) / free**2
            if error < least:
                best, least = float(penalty), error
        return best
