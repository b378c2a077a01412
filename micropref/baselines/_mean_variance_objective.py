"""Loss and gradient of a normal distribution of tastes, in nats."""

from __future__ import annotations

import math

import numpy as np

from micropref._engine.gates import flatten, unflatten
from micropref._rows.comparisons import Comparisons
from micropref.kernels._pointwise import log_sigmoid, sigmoid

__all__ = ["FLATTENING", "MeanVarianceObjective"]

# σ(x / sqrt(1 + π/8 · variance)) is the mean of σ over a normal distribution, to within 0.02 (MacKay, 1992).
FLATTENING = np.pi / 8


class MeanVarianceObjective:
    """J of `MeanVarianceRewards` as a function of one flat vector: μ, τ, L."""

    def __init__(self, rows: Comparisons, rank: int, alpha: float, variance_alpha: float):
        self.difference, self.signs, self.weight = rows.difference, rows.dense_signs, rows.dense_weight
        # Relative to a power of two, which loses no digit: squares of float32 would leave its range.
        self.unit = 2.0 ** math.frexp(rows.norms[1])[1]
        self.squares = (rows.difference / self.unit) ** 2
        self.total_weight = rows.total_weight
        width = rows.difference.shape[1]
        self.shapes: tuple[tuple[int, ...], ...] = ((width,), (width,), (width, rank))
        self.penalties = np.repeat([alpha, variance_alpha], [width, width * (1 + rank)])

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J in nats and its gradient."""
        mean, scale, factors = unflatten(vector, self.shapes)
        D, squares = self.difference, self.squares
        along = D @ factors.astype(D.dtype)
        margins = self.signs * (D @ mean.astype(D.dtype))
        variance = squares @ ((self.unit * scale) ** 2).astype(D.dtype) + np.einsum("nr,nr->n", along, along)
        flattening = 1 / np.sqrt(1 + FLATTENING * variance.astype(np.float64))
        slope = -self.weight * sigmoid(-margins * flattening)
        d_margins = (slope * flattening * self.signs).astype(D.dtype)
        d_variance = (slope * margins * (-0.5 * FLATTENING) * flattening**3).astype(D.dtype)
        gradient = flatten(
            [
                d_margins @ D,
                2 * self.unit**2 * scale * (d_variance @ squares),
                2 * (D.T @ (d_variance[:, None] * along)),
            ]
        )
        loss = -float(self.weight @ log_sigmoid(margins * flattening)) / self.total_weight
        penalised = self.penalties * vector
        return loss + 0.5 * float(penalised @ vector), gradient / self.total_weight + penalised
