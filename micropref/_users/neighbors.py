"""A gate without parameters: the labelled contexts nearest to a new one say which head applies there."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np

from micropref.kernels._pointwise import log_sum_exp

# From this many labelled contexts on, an index of faiss is used where it is installed.
_FAISS_ROWS = 10_000
_QUERY_ROWS = 1024
_ROWS = ("_contexts", "_evidence", "_weight", "_squares")
_EM_STEPS = 10
# The prior weights count as one labelled neighbour.
_PRIOR_COUNT = 1.0


class NeighborGate:
    """Weights that maximise the likelihood of the nearest labelled pairs, shrunk towards prior weights.

        f(c) = argmax_f Σ_{j∈N(c)} ω_j log Σ_k f_k exp(−L_jk / τ) + Σ_k f⁰_k(c) log f_k

    with N(c) the labelled contexts nearest to c in Euclidean distance: J_τ with a gate that is constant around each
    context, solved by a few steps of Hedge.

    Parameters
    ----------
    n_context_features, n_components : int
    n_neighbors : int or None
        None: the square root of the number of labelled contexts, at least 5.
    """

    ARRAYS = ("contexts", "evidence", "weight")

    def __init__(self, n_context_features: int, n_components: int, n_neighbors: int | None):
        self.n_neighbors = n_neighbors
        self.size = 0
        # Size of the first contexts, by which all are divided: squares of large or small ones would leave the range of
        # float32. A power of two, so that nothing is rounded.
        self._unit = 1.0
        self._contexts = np.empty((0, n_context_features), dtype=np.float32)
        self._evidence = np.empty((0, n_components))
        self._weight = np.empty(0)
        self._squares = np.empty(0, dtype=np.float32)
        self._index: Any = None

    def add(self, contexts: np.ndarray, evidence: np.ndarray, weight: np.ndarray) -> None:
        """Remember labelled pairs: contexts (n, c), evidence −L/τ (n_components, n), positive weights (n,)."""
        if self.size == 0:
            self._unit = 2.0 ** math.frexp(float(np.abs(contexts).max(initial=0.0)))[1]
        end = self.size + len(contexts)
        if end > len(self._contexts):
            capacity = max(end, 2 * self.size)
            for name in _ROWS:
                old = getattr(self, name)
                grown = np.empty((capacity, *old.shape[1:]), dtype=old.dtype)
                grown[: self.size] = old[: self.size]
                setattr(self, name, grown)
        rows = slice(self.size, end)
        self._contexts[rows], self._evidence[rows], self._weight[rows] = self._scaled(contexts), evidence.T, weight
        self._squares[rows] = np.einsum("ij,ij->i", self._contexts[rows], self._contexts[rows])
        self.size = end
        self._grow_index(rows)

    def log_weights(self, contexts: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
        """Log-weights (n_components, n_queries) around every query, from the prior's of the same shape."""
        if self.size == 0:
            return log_prior
        result = np.empty(log_prior.shape)
        for start in range(0, len(contexts), _QUERY_ROWS):
            rows = slice(start, start + _QUERY_ROWS)
            nearest = self._nearest(self._scaled(contexts[rows]))
            evidence = np.moveaxis(self._evidence[nearest], 2, 0)  # (n_components, n_queries, n_neighbors)
            weight = self._weight[nearest]
            log_prior_count = log_prior[:, rows] + np.log(_PRIOR_COUNT)
            log_total = np.log(weight.sum(axis=1) + _PRIOR_COUNT)
            log_weights = log_prior[:, rows]
            for _ in range(_EM_STEPS):
                joint = log_weights[:, :, None] + evidence
                log_targets = joint - log_sum_exp(joint)[None] + np.log(weight)
                counts = np.logaddexp.reduce(log_targets, axis=2)
                log_weights = np.logaddexp(counts, log_prior_count) - log_total
            result[:, rows] = log_weights
        return result

    def _scaled(self, contexts: np.ndarray) -> np.ndarray:
        return (np.asarray(contexts, dtype=np.float64) / self._unit).astype(np.float32)

    def _nearest(self, queries: np.ndarray) -> np.ndarray:
        count = self.n_neighbors or max(5, int(np.sqrt(self.size)))
        count = min(count, self.size)
        if self._index is not None:
            return self._index.search(np.ascontiguousarray(queries), count)[1]
        known = self._contexts[: self.size]
        # Squared distance up to the query's own norm, which is the same for all references.
        distance = self._squares[: self.size][None, :] - 2 * (queries @ known.T)
        return np.argpartition(distance, count - 1, axis=1)[:, :count]

    def _grow_index(self, rows: slice) -> None:
        if self._index is not None:
            self._index.add(self._contexts[rows])
        elif self.size >= _FAISS_ROWS and importlib.util.find_spec("faiss") is not None:
            import faiss

            self._index = faiss.IndexFlatL2(self._contexts.shape[1])
            self._index.add(self._contexts[: self.size])

    def export(self) -> dict[str, np.ndarray]:
        """The labelled pairs, for saving: contexts (n, c), evidence (n, n_components), positive weights (n,)."""
        arrays = {name: getattr(self, f"_{name}")[: self.size] for name in self.ARRAYS}
        return {**arrays, "contexts": arrays["contexts"] * np.float32(self._unit)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `export` gave."""
        self.add(arrays["contexts"], arrays["evidence"].T, arrays["weight"])

    def __getstate__(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name)[: self.size] for name in _ROWS}
        return {"n_neighbors": self.n_neighbors, "size": self.size, "_unit": self._unit, **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _index=None)
        self._grow_index(slice(0, 0))
