"""How far fitted heads may be from those of another sample: what is kept of it, and what follows for rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.state import Arrays

__all__ = ["ARRAYS", "HeadUncertainty"]

ARRAYS = ("covariance", "unidentified", "scale", "deviations")

_BLOCK_ENTRIES = 1 << 22
# Share of a reward that may come from directions of which the data say nothing, for rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class HeadUncertainty:
    """Sampling distribution of the heads of a mixture.

    Attributes
    ----------
    kind : str
        "model", "sandwich" or "bootstrap".
    covariance : ndarray of float64 of shape (n_features, n_features), optional
        Of the coefficients of one head; for "model" and "sandwich".
    unidentified : ndarray of float64 of shape (n_features, n_directions), optional
        Directions in which these coefficients may be anything, orthonormal in units of `scale`.
    scale : ndarray of float64 of shape (n_features,), optional
        By which features are multiplied to be of usual size.
    deviations : ndarray of float32 of shape (n_resamples, n_components, n_features), optional
        Heads of the resamples less their mean; for "bootstrap".
    """

    kind: str
    covariance: NDArray[np.float64] | None = None
    unidentified: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    deviations: NDArray[np.float32] | None = None

    def variances(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Variances of w_kᵀφ, (n_components, n), of features or differences (n, n_features), in nats².

        Infinite where the data do not determine a reward.
        """
        features = np.asarray(features, dtype=np.float64)
        if self.deviations is not None:
            return self._of_deviations(features)
        assert self.covariance is not None
        assert self.unidentified is not None
        assert self.scale is not None
        found = np.maximum(np.einsum("ij,ij->i", features @ self.covariance, features), 0.0)
        outside = np.linalg.norm(features @ self.unidentified, axis=1)
        beyond = outside > _ROUNDING * np.linalg.norm(features * self.scale, axis=1)
        return np.asarray(np.where(beyond, np.inf, found)[None])

    def standard_errors(self, n_features: int) -> NDArray[np.float64]:
        """Of the coefficients, (n_components, n_features)."""
        if self.deviations is not None:
            squares = np.square(self.deviations.astype(np.float64)).sum(axis=0)
            return np.asarray(np.sqrt(squares / (len(self.deviations) - 1)))
        return np.asarray(np.sqrt(self.variances(np.eye(n_features))))

    def _of_deviations(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.deviations is not None
        n_resamples, n_components, width = self.deviations.shape
        heads = self.deviations.reshape(-1, width).astype(np.float64)
        found = np.empty((n_components, len(features)))
        size = max(1, _BLOCK_ENTRIES // len(heads))
        for first in range(0, len(features), size):
            rows = slice(first, first + size)
            margins = (heads @ features[rows].T).reshape(n_resamples, n_components, -1)
            found[:, rows] = np.square(margins).sum(axis=0) / (n_resamples - 1)
        return found

    def export(self) -> Arrays:
        """What is saved besides the kind."""
        return {name: array for name in ARRAYS if (array := getattr(self, name)) is not None}
