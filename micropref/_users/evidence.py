"""A table of K numbers per group or user, for any number of them, with room to grow."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

_CHUNK_ROWS = 1 << 14


class EvidenceTable:
    """K floating numbers for each key seen so far; a key never seen has zeros.

    Rows live in chunks of fixed size, so that growing copies nothing: a million integer keys with K = 10 take about
    150 MB, of which the keys' dictionary is the larger part.

    Parameters
    ----------
    n_components : int
        K.
    """

    def __init__(self, n_components: int):
        self.n_components = n_components
        self._row: dict[Hashable, int] = {}
        self._chunks: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._row

    def rows(self, keys: Iterable[Hashable], *, insert: bool = False) -> np.ndarray:
        """Row of every key; a key never seen is inserted, or has row -1."""
        known = self._row
        if not insert:
            return np.fromiter((known.get(key, -1) for key in keys), dtype=np.int64)
        rows = np.fromiter((known.setdefault(key, len(known)) for key in keys), dtype=np.int64)
        while len(self._chunks) * _CHUNK_ROWS < len(known):
            self._chunks.append(np.zeros((_CHUNK_ROWS, self.n_components), dtype=np.float32))
        return rows

    def get(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of the given rows, (n, n_components) float32; zeros for row -1."""
        values = np.zeros((len(rows), self.n_components), dtype=np.float32)
        for chunk, where in self._by_chunk(rows):
            values[where] = self._chunks[chunk][rows[where] % _CHUNK_ROWS]
        return values

    def set(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Replace the numbers of distinct rows."""
        for chunk, where in self._by_chunk(rows):
            self._chunks[chunk][rows[where] % _CHUNK_ROWS] = values[where]

    @staticmethod
    def _by_chunk(rows: np.ndarray) -> Iterable[tuple[int, Any]]:
        if len(rows) == 1:  # one user at a time is the common case of a running service
            return [(int(rows[0]) // _CHUNK_ROWS, slice(None))] if rows[0] >= 0 else []
        chunk = rows // _CHUNK_ROWS
        return [(int(c), np.flatnonzero(chunk == c)) for c in np.unique(chunk) if c >= 0]

    def __getstate__(self) -> dict[str, Any]:
        keys, values = self.export()
        return {"n_components": self.n_components, "keys": keys, "values": values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["n_components"])  # type: ignore[misc]
        self.set(self.rows(state["keys"], insert=True), state["values"])

    def export(self) -> tuple[list[Any], np.ndarray]:
        """All keys in order of their first appearance, and their numbers (n_keys, n_components)."""
        keys = list(self._row)
        return keys, self.get(np.arange(len(keys)))
