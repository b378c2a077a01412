"""The nearest rows that have a given total weight."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["MOST_ROWS", "NearestRows", "nearest_shares"]

# Weights below 1 need more rows for the same count; so many times more at most.
MOST_ROWS = 4
_FALLOFF = 2.0
# Where a query counts as infinitely far, in units of the rows' spread; its square is one of float32.
_FAR = 1e15


class NearestRows:
    """Rows by their contexts (n, c), positive weights (n,): the nearest to a query that have a given total weight."""

    def __init__(self, contexts: np.ndarray, weight: np.ndarray, total: int):
        self._total = total
        self._weight = weight
        self.n_candidates = min(len(contexts), math.ceil(total / max(float(weight.min()), 1 / MOST_ROWS)))
        # Squares of centred contexts of unit size stay in the range and in the digits of float32.
        self._centre = np.average(contexts, axis=0, weights=weight)
        centred = contexts - self._centre
        self._unit = 2.0 ** math.frexp(float(np.abs(centred).max()))[1]
        self._contexts = (centred / self._unit).astype(np.float32)
        self._squares = np.einsum("nc,nc->n", self._contexts, self._contexts)

    def around(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and kernel weights κ ω, both (n_queries, n_candidates); 0 beyond the total weight."""
        scaled = np.clip((queries - self._centre) / self._unit, -_FAR, _FAR).astype(np.float32)
        count = self.n_candidates
        # Squared distance up to the query's own norm, which is the same for all rows.
        rough = self._squares - 2 * (scaled @ self._contexts.T)
        nearest = np.sort(np.argpartition(rough, count - 1, axis=1)[:, :count], axis=1)
        apart = self._contexts[nearest].astype(np.float64) - scaled[:, None, :]
        distance = np.einsum("qnc,qnc->qn", apart, apart)
        order = np.argsort(distance, axis=1, kind="stable")
        nearest, distance = (np.take_along_axis(part, order, axis=1) for part in (nearest, distance))
        taken, farthest = nearest_shares(distance, self._weight[nearest], self._total)
        relative = np.divide(distance, farthest, out=np.zeros_like(distance), where=farthest > 0)
        return nearest, taken * np.exp(-_FALLOFF * np.minimum(relative, 1.0))


def nearest_shares(distance: np.ndarray, weight: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Parts (n_queries, n) of the weights of rows in order of their distance that add up to `total`, nearest first.

    Rows of the last distance needed, (n_queries, 1), share what is left, so that their order does not matter.
    """
    reached = weight.cumsum(axis=1) >= total
    last = np.where(reached.any(axis=1), reached.argmax(axis=1), weight.shape[1] - 1)[:, None]
    farthest = np.take_along_axis(distance, last, axis=1)
    nearer, at_last = distance < farthest, distance == farthest
    left = total - (weight * nearer).sum(axis=1, keepdims=True)
    share = left / np.maximum(left, (weight * at_last).sum(axis=1, keepdims=True))
    return weight * (nearer + share * at_last), farthest
