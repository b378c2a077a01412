"""A gate without parameters: the labelled contexts nearest to a new one say which head applies there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from micropref._support.locks import Lock
from micropref._users.nearest import LARGEST, Nearest, PointSet, grown

__all__ = ["NeighborGate"]

# Pairs of a query and a labelled pair near to it that are computed at once.
_BLOCK_PAIRS = 1 << 16
_EM_STEPS = 10
# The prior weights count as one labelled neighbour.
_PRIOR_COUNT = 1.0
# Sums above this have lost nothing to terms that are zero in double precision.
_UNDERFLOW = 1e-280
_LARGEST_SINGLE = float(np.finfo(np.float32).max)
# Of the root of a sum of weights, so that 36 weights of 1/3 and 2/3 that add up to 16 count as 16.
_ROOT_ERROR = 1e-9
_ROWS = ("_point", "_evidence", "_weight")


class NeighborGate:
    """Weights that maximise the likelihood of the nearest labelled pairs, shrunk towards prior weights.

        f(c) = argmax_f Σ_j ν_j(c) log Σ_k f_k exp(−L_jk / τ) + Σ_k f⁰_k(c) log f_k

    J_τ with a gate that is constant around each context, solved by a few steps of Hedge. Neighbours are counted by
    weight, up to n_neighbors: with the Euclidean distances d_j from c to the labelled contexts, their weights ω_j, and
    the distance d* within which their total weight reaches n_neighbors,

        ν_j(c) = ω_j                                                          where d_j < d*,
        ν_j(c) = ω_j (n_neighbors − Σ_{d_i<d*} ω_i) / Σ_{d_i=d*} ω_i          where d_j = d*,

    and 0 beyond. A row of weight 3 equals three rows, labelled pairs with equal contexts share what counts of them, and
    the order of the rows changes nothing. Contexts are stored in single precision; distances are those of the stored
    numbers, in double precision.

    Parameters
    ----------
    n_context_features, n_components : int
    n_neighbors : int or None
        None: the square root of the total weight of the labelled pairs, rounded down, and at least 5.
    """

    ARRAYS = ("contexts", "evidence", "weight")

    def __init__(self, n_context_features: int, n_components: int, n_neighbors: int | None):
        self.n_neighbors = n_neighbors
        self.size = 0
        # Usual size of the contexts, by which all are divided: squares of large or small ones would leave the range of
        # float32. A power of two, so that nothing is rounded; zero while all contexts are.
        self._unit = 0.0
        self._points = PointSet(n_context_features)
        self._point = np.empty(0, dtype=np.int64)
        self._evidence = np.empty((0, n_components))
        self._weight = np.empty(0)
        self._known: _Known | None = None
        self._lock = Lock()

    @property
    def shape(self) -> tuple[int, int]:
        """Widths of contexts and of evidence."""
        return self._points.points.shape[1], self._evidence.shape[1]

    def add(self, contexts: np.ndarray, evidence: np.ndarray, weight: np.ndarray) -> None:
        """Remember labelled pairs.

        Parameters
        ----------
        contexts : ndarray of shape (n, n_context_features)
        evidence : ndarray of shape (n_components, n)
            −L/τ, in nats.
        weight : ndarray of shape (n,)
            Not negative; a pair of weight zero is not remembered.
        """
        counted = np.flatnonzero(weight > 0)
        if not len(counted):
            return
        contexts = np.asarray(contexts)[counted]
        with self._lock:
            self._widen_range(contexts)
            point = self._points.add(self._scaled(contexts))
            end = self.size + len(point)
            if end > len(self._point):
                for name in _ROWS:
                    setattr(self, name, grown(getattr(self, name), self.size, max(end, 2 * self.size)))
            rows = slice(self.size, end)
            self._point[rows], self._evidence[rows], self._weight[rows] = point, evidence.T[counted], weight[counted]
            self.size, self._known = end, None

    def log_weights(self, contexts: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
        """Log-weights around every query.

        Parameters
        ----------
        contexts : ndarray of shape (n_queries, n_context_features)
        log_prior : ndarray of shape (n_components, n_queries)
            Logarithms of the prior weights f⁰.

        Returns
        -------
        log_weights : ndarray of shape (n_components, n_queries)
        """
        with self._lock:
            if self.size == 0:
                return log_prior
            if self._known is None:
                self._known = _Known.create(*(getattr(self, name)[: self.size] for name in _ROWS))
            known, points, queries = self._known, self._points, self._scaled(contexts)
        log_prior = np.asarray(log_prior, dtype=np.float64)
        # Where contexts repeat, queries do: each is answered once.
        first, which = _first_of_each(queries, log_prior.T)
        count = self.n_neighbors or max(5.0, math.floor(math.sqrt(known.weight.sum()) + _ROOT_ERROR))
        nearest = points.nearest(queries[first], known.point_weight, count)
        result = np.empty((len(log_prior), len(first)))
        for block, neighbors in known.blocks(nearest):
            result[:, block] = neighbors.log_weights(log_prior[:, first[block]])
        return result[:, which]

    def _widen_range(self, contexts: np.ndarray) -> None:
        """A unit in which neither known contexts nor these leave the range of single precision."""
        peak = float(np.abs(contexts).max(initial=0.0))
        if peak <= LARGEST * self._unit:
            return
        unit = math.ldexp(1.0, min(math.frexp(peak)[1], 1023))
        old, self._points = self._points.points, PointSet(self._points.points.shape[1])
        # Old contexts may become equal where they are tiny beside the new ones.
        point = self._points.add((old * (self._unit / unit)).astype(np.float32))
        self._point, self._unit = point[self._point[: self.size]], unit
        for name in _ROWS[1:]:
            setattr(self, name, getattr(self, name)[: self.size])

    def _scaled(self, contexts: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            scaled = np.asarray(contexts, dtype=np.float64) / (self._unit or 1.0)
        return np.clip(scaled, -_LARGEST_SINGLE, _LARGEST_SINGLE).astype(np.float32)

    def export(self) -> dict[str, np.ndarray]:
        """The labelled pairs, for saving: contexts (n, c), evidence (n, n_components), positive weights (n,).

        Contexts are in single precision unless they leave its range.
        """
        with self._lock:
            exact = self._points.points.astype(np.float64) * self._unit
            with np.errstate(over="ignore"):
                single = exact.astype(np.float32)
            contexts = (single if np.array_equal(single, exact) else exact)[self._point[: self.size]]
            return {
                "contexts": contexts,
                "evidence": self._evidence[: self.size],
                "weight": self._weight[: self.size],
            }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `export` gave."""
        self.add(arrays["contexts"], arrays["evidence"].T, arrays["weight"])

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            arrays = {name: getattr(self, name)[: self.size] for name in _ROWS}
            kept = {name: getattr(self, name) for name in ("n_neighbors", "size", "_unit", "_points", "_lock")}
            return {**kept, **arrays, "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Known(NamedTuple):
    """The labelled pairs at one moment, in order of their points.

    Attributes
    ----------
    evidence : ndarray of shape (n_pairs, n_components)
    weight : ndarray of shape (n_pairs,)
    start : ndarray of int of shape (n_points + 1,)
        Where the pairs of every point begin.
    point_weight : ndarray of shape (n_points,)
        Total weight of the pairs of every point.
    """

    evidence: np.ndarray
    weight: np.ndarray
    start: np.ndarray
    point_weight: np.ndarray

    @classmethod
    def create(cls, point: np.ndarray, evidence: np.ndarray, weight: np.ndarray) -> _Known:
        order = np.argsort(point, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(point))])
        weight = weight[order]
        return cls(evidence[order], weight, start, np.add.reduceat(weight, start[:-1]))

    def blocks(self, nearest: list[Nearest]) -> Iterator[tuple[slice, _Neighbors]]:
        """The neighbours of some queries after the other, as many as are computed at once."""
        sizes = np.array([(self.start[ids + 1] - self.start[ids]).sum() for ids, _ in nearest])
        begin = 0
        while begin < len(nearest):
            fitting = int(np.searchsorted(np.cumsum(sizes[begin:]), _BLOCK_PAIRS, "right"))
            queries = slice(begin, begin + max(1, fitting))
            yield queries, self._of(nearest[queries])
            begin = queries.stop

    def _of(self, nearest: list[Nearest]) -> _Neighbors:
        ids, share = (np.concatenate(parts) for parts in zip(*nearest, strict=True))
        n_pairs = self.start[ids + 1] - self.start[ids]
        owner = np.repeat(np.repeat(np.arange(len(nearest)), [len(each.ids) for each in nearest]), n_pairs)
        pairs = np.arange(len(owner)) + np.repeat(self.start[ids] - (np.cumsum(n_pairs) - n_pairs), n_pairs)
        weight = self.weight[pairs] * np.repeat(share, n_pairs)
        return _Neighbors(np.ascontiguousarray(self.evidence[pairs].T), weight, owner)


class _Neighbors(NamedTuple):
    """The neighbours of some queries, those of the first query first.

    Attributes
    ----------
    evidence : ndarray of shape (n_components, n_neighbors)
    weight : ndarray of shape (n_neighbors,)
        ν_j.
    query : ndarray of int of shape (n_neighbors,)
        Ascending, without gaps.
    """

    evidence: np.ndarray
    weight: np.ndarray
    query: np.ndarray

    def log_weights(self, log_prior: np.ndarray) -> np.ndarray:
        """Log-weights of the components, of the shape (n_components, n_queries) of the prior's."""
        start = np.flatnonzero(np.diff(self.query, prepend=-1))
        log_total = np.log(np.add.reduceat(self.weight, start) + _PRIOR_COUNT)
        log_prior_count = log_prior + np.log(_PRIOR_COUNT)
        log_weights = log_prior
        for _ in range(_EM_STEPS):
            joint = log_weights[:, self.query]
            joint += self.evidence
            log_weights = np.logaddexp(self._log_counts(joint, start), log_prior_count) - log_total
        return log_weights

    def _log_counts(self, joint: np.ndarray, start: np.ndarray) -> np.ndarray:
        """log Σ_j ν_j r_jk of every query, with the responsibilities r_jk ∝ exp(joint); overwrites `joint`."""
        joint -= joint.max(axis=0)
        shares = np.exp(joint)
        total = shares.sum(axis=0)
        shares *= self.weight / total
        counts = np.add.reduceat(shares, start, axis=1)
        if counts.min() > _UNDERFLOW:
            return np.log(counts)
        joint += np.log(self.weight) - np.log(total)
        peak = np.maximum.reduceat(joint, start, axis=1)
        joint -= peak[:, self.query]
        return peak + np.log(np.add.reduceat(np.exp(joint), start, axis=1))


def _first_of_each(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first of all equal rows, and for every row which of them it equals."""
    if len(arrays[0]) == 1:
        return np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.intp)
    seen: dict[tuple[bytes, ...], int] = {}
    rows = (tuple(row.tobytes() for row in each) for each in zip(*arrays, strict=True))
    which = np.array([seen.setdefault(row, len(seen)) for row in rows], dtype=np.intp)
    return np.unique(which, return_index=True)[1], which
