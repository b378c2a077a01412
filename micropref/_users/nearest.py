"""Distinct points, each kept once, and the nearest of them by weight, decided by distances in double precision."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from micropref._support.locks import Lock, inherited

__all__ = ["LARGEST", "Nearest", "PointSet", "grown"]

# From this many points on, an index of faiss proposes the nearest where it is installed.
_FAISS_ROWS = 10_000
# Single-precision distances of all points to the queries taken at once.
_PROPOSAL_ENTRIES = 1 << 24
# Points whose exact distances are taken at once.
_EXACT_ROWS = 1 << 12
# Coordinates up to this size have products in single precision that do not overflow.
LARGEST = 2.0**32
_UNDERFLOW = 2.0**-126

# Maps positions of queries and a number of points to the ids proposed for each query and to a float64 that no
# single-precision squared distance of a point that was not proposed falls below.
_Proposer = Callable[[np.ndarray, int], tuple[list[np.ndarray], np.ndarray]]


class Nearest(NamedTuple):
    """The nearest points to one query.

    Attributes
    ----------
    ids : ndarray of int of shape (n,)
        Ascending.
    share : ndarray of shape (n,)
        Share of the weight of each point that counts: 1 but for points at the largest distance.
    """

    ids: np.ndarray
    share: np.ndarray


class PointSet:
    """Points that grow in number; a point equal to a known one has its id.

    Nothing that another thread, or an array on disk, may hold is ever written into: what a set of n points says does
    not change when it grows.

    Parameters
    ----------
    width : int
        Number of coordinates.
    """

    def __init__(self, width: int):
        self.size = 0
        self._points = np.empty((0, width), dtype=np.float32)
        self._squares = np.empty(0, dtype=np.float32)
        self._forget()

    def _forget(self) -> None:
        """Drop what is derived from the rows; it is made again when it is needed."""
        self._ids: dict[bytes, int] | None = None
        self._index: Any = None
        self._index_lock = Lock()

    @property
    def points(self) -> np.ndarray:
        """All points, (size, width) float32."""
        return self._points[: self.size]

    def add(self, points: np.ndarray) -> np.ndarray:
        """Ids of points (n, width) float32, with coordinates up to `LARGEST`; new points get the next ids."""
        points = points + np.float32(0.0)  # -0.0 is 0.0
        if self._ids is None:
            self._ids = {_key(point): i for i, point in enumerate(self.points)}
        known = self._ids
        ids = np.fromiter((known.setdefault(_key(point), len(known)) for point in points), np.int64, len(points))
        first = np.unique(ids, return_index=True)[1]
        self._append(points[first[ids[first] >= self.size]])
        return ids

    def _append(self, new: np.ndarray) -> None:
        end = self.size + len(new)
        if end > len(self._points):
            capacity = max(end, 2 * self.size)
            for name in ("_points", "_squares"):
                setattr(self, name, grown(getattr(self, name), self.size, capacity))
        if len(new):
            self._points[self.size : end] = new
            self._squares[self.size : end] = np.einsum("ij,ij->i", new, new)
        self.size = end
        if end >= _FAISS_ROWS and not inherited("faiss") and importlib.util.find_spec("faiss") is not None:
            self._grow_index()

    def _grow_index(self) -> None:
        import faiss

        with self._index_lock:
            if self._index is None:
                self._index = faiss.IndexFlatL2(self._points.shape[1])
            self._index.add(self._points[self._index.ntotal : self.size])

    def nearest(self, queries: np.ndarray, weight: np.ndarray, count: float) -> list[Nearest]:
        """The points nearest to every query in Euclidean distance, up to a total weight.

        All points strictly nearer than the last count fully; those at exactly its distance share what is left of
        `count` in proportion to their weights. Single-precision distances only propose points: which points count, and
        how much, depends on neither the library that proposed them, nor the order of the points, nor that of queries.

        Parameters
        ----------
        queries : ndarray of float32 of shape (n_queries, width)
        weight : ndarray of shape (n_points,)
            Positive weights of the points first known; others are left out.
        count : float
            Total weight of the nearest points.
        """
        n_points = len(weight)
        total = float(weight.sum())
        if total <= count:
            return [Nearest(np.arange(n_points), np.ones(n_points))] * len(queries)
        found: list[Nearest] = []
        size = max(1, min(1024, _PROPOSAL_ENTRIES // n_points))
        # Somewhat more than are needed where the points weigh about the same.
        n_proposed = int(1.125 * n_points * count / total) + 8
        for start in range(0, len(queries), size):
            found += self._nearest_of_block(queries[start : start + size], weight, count, n_proposed)
        return found

    def _nearest_of_block(
        self, queries: np.ndarray, weight: np.ndarray, count: float, n_proposed: int
    ) -> list[Nearest]:
        n_points = len(weight)
        exact = queries.astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", exact, exact))
        propose = self._proposer(queries, norms, n_points)
        found: list[Any] = [None] * len(queries)
        open_queries = np.arange(len(queries))
        while len(open_queries):
            n_proposed = min(n_proposed, n_points)
            ids, beyond = propose(open_queries, n_proposed)
            for query, proposed, floor in zip(open_queries, ids, beyond, strict=True):
                distance = self._squared_distances(proposed, exact[query])
                last, share = _shares(distance, weight[proposed], count)
                # No point that was not proposed is as near as the last, whatever single precision made of it.
                if floor == np.inf or floor > last + _proposal_error(float(norms[query]), last, exact.shape[1]):
                    counted = share > 0
                    found[query] = Nearest(proposed[counted], share[counted])
            open_queries = np.array([query for query in open_queries if found[query] is None], dtype=np.intp)
            n_proposed *= 2
        return found

    def _proposer(self, queries: np.ndarray, norms: np.ndarray, n_points: int) -> _Proposer:
        """What proposes points for the queries."""
        index = None if inherited("faiss") else self._index
        own = norms**2
        # What overflows in single precision orders nothing, so that all points are proposed in the end.
        bounded = np.abs(queries).max(axis=1, initial=0.0) <= LARGEST
        known, squares = self._points[:n_points], self._squares[:n_points]
        relative: np.ndarray | None = None

        def propose(rows: np.ndarray, n_proposed: int) -> tuple[list[np.ndarray], np.ndarray]:
            nonlocal relative
            if n_proposed == n_points or not bounded[rows].all():
                return [np.arange(n_points)] * len(rows), np.full(len(rows), np.inf)
            if index is not None:
                with self._index_lock:
                    distance, ids = index.search(np.ascontiguousarray(queries[rows]), n_proposed)
                # Another thread may have added points since.
                return [np.sort(each[each < n_points]) for each in ids], distance[:, -1].astype(np.float64)
            if relative is None:  # squared distance up to the query's own square, which is the same for all points
                relative = queries @ known.T
                relative *= np.float32(-2.0)
                relative += squares
            part = relative if len(rows) == len(relative) else relative[rows]
            ids = np.argpartition(part, n_proposed - 1, axis=1)[:, :n_proposed]
            beyond = np.take_along_axis(part, ids[:, -1:], axis=1)[:, 0] + own[rows]
            return list(np.sort(ids, axis=1)), beyond

        return propose

    def _squared_distances(self, ids: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Of some points to a query, in float64; every value depends on its point and the query alone."""
        parts = []
        for start in range(0, len(ids), _EXACT_ROWS):
            difference = self._points.take(ids[start : start + _EXACT_ROWS], axis=0).astype(np.float64)
            difference -= query
            difference *= difference
            parts.append(difference.sum(axis=1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "_points": self.points, "_squares": self._squares[: self.size]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
        self._append(self._points[:0])


def grown(rows: np.ndarray, size: int, capacity: int) -> np.ndarray:
    """A new array of `capacity` rows that begins with the first `size` of `rows`."""
    new = np.empty((capacity, *rows.shape[1:]), dtype=rows.dtype)
    new[:size] = rows[:size]
    return new


def _key(point: np.ndarray) -> bytes:
    return hashlib.blake2b(point.tobytes(), digest_size=16).digest()


def _shares(distance: np.ndarray, weight: np.ndarray, count: float) -> tuple[float, np.ndarray]:
    """Squared distance of the last point that counts, infinite where all do, and what share of each point does."""
    order = distance.argsort(kind="stable")
    distance, weight = distance[order], weight[order]
    cumulated = weight.cumsum()
    position = int(cumulated.searchsorted(count))
    share = np.zeros(len(order))
    if position == len(order):
        share[:] = 1.0
        return np.inf, share
    last = distance[position]
    first, end = distance.searchsorted(last, "left"), distance.searchsorted(last, "right")
    nearer = cumulated[first - 1] if first else 0.0
    share[order[:first]] = 1.0
    share[order[first:end]] = min(1.0, (count - nearer) / weight[first:end].sum())
    return float(last), share


def _proposal_error(query_norm: float, last: float, width: int) -> float:
    """Bound of the rounding of a single-precision squared distance of a point no farther than √last from the query.

    Such a point has a norm of at most ‖q‖ + √last, and ‖q‖² + ‖c‖² − 2 q·c computed in any order errs by no more than
    about (width + 3) 2⁻²⁴ (‖q‖ + ‖c‖)², to which squares that underflow are added.
    """
    return (width + 8) * (2.0**-23 * (2 * query_norm + math.sqrt(last)) ** 2 + _UNDERFLOW)
