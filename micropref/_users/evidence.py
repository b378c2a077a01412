"""A table of K numbers per group or user, for any number of them, with room to grow."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

__all__ = ["EvidenceTable"]

# Numbers of a chunk: what the first change after a copy copies.
_CHUNK_NUMBERS = 1 << 18
_MOST_CHUNK_ROWS = 1 << 14
_LARGEST = float(np.finfo(np.float32).max)


class EvidenceTable:
    """K floating numbers for each key seen so far; a key never seen has zeros.

    Rows live in chunks of fixed size, so that growing copies nothing: a million integer keys with K = 10 take about
    150 MB, of which the keys' dictionary is the larger part. A copy shares chunks and dictionary until one of the two
    changes them.

    Parameters
    ----------
    n_components : int
        K.
    """

    def __init__(self, n_components: int):
        self.n_components = n_components
        self._chunk_rows = max(1, min(_MOST_CHUNK_ROWS, _CHUNK_NUMBERS // max(1, n_components)))
        self._row: dict[Hashable, int] = {}
        self._row_is_shared = False
        self._chunks: list[np.ndarray] = []
        self._shared_chunks: set[int] = set()

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._row

    def rows(self, keys: Iterable[Hashable], *, insert: bool = False) -> np.ndarray:
        """Row of every key; a key never seen is inserted, or has row -1."""
        keys = list(keys)
        rows = np.fromiter((self._row.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))
        if insert and (rows < 0).any():
            # No key is inserted unless all can be.
            new = list(dict.fromkeys(key for key, row in zip(keys, rows, strict=True) if row < 0))
            end = len(self._row) + len(new)
            while len(self._chunks) * self._chunk_rows < end:
                self._chunks.append(np.zeros((self._chunk_rows, self.n_components), dtype=np.float32))
            if self._row_is_shared:
                self._row, self._row_is_shared = dict(self._row), False
            self._row.update(zip(new, range(len(self._row), end), strict=True))
            rows = np.fromiter((self._row[key] for key in keys), dtype=np.int64, count=len(keys))
        return rows

    def get(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of the given rows, (n, n_components) float32; zeros for row -1."""
        values = np.zeros((len(rows), self.n_components), dtype=np.float32)
        for chunk, where in self._by_chunk(rows):
            values[where] = self._chunks[chunk][rows[where] % self._chunk_rows]
        return values

    def set(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Replace the numbers of distinct rows; those beyond the range of float32 become its largest."""
        values = np.minimum(np.maximum(values, -_LARGEST), _LARGEST)
        for chunk, where in self._by_chunk(rows):
            if chunk in self._shared_chunks:
                self._chunks[chunk] = self._chunks[chunk].copy()
                self._shared_chunks.remove(chunk)
            self._chunks[chunk][rows[where] % self._chunk_rows] = values[where]

    def copy(self) -> EvidenceTable:
        """A table with the same numbers that changes on its own, made without reading them."""
        other = EvidenceTable(self.n_components)
        other._row, other._chunks = self._row, list(self._chunks)
        for table in (self, other):
            table._row_is_shared, table._shared_chunks = True, set(range(len(self._chunks)))
        return other

    def without(self, key: Hashable) -> EvidenceTable:
        """A table of all other keys, in their order; it shares nothing with this one."""
        keys, values = self.export()
        row = self._row[key]
        other = EvidenceTable(self.n_components)
        other.set(other.rows([*keys[:row], *keys[row + 1 :]], insert=True), np.delete(values, row, axis=0))
        return other

    def _by_chunk(self, rows: np.ndarray) -> Iterable[tuple[int, Any]]:
        if len(rows) == 1:  # one user at a time is the common case of a running service
            return [(int(rows[0]) // self._chunk_rows, slice(None))] if rows[0] >= 0 else []
        chunk = rows // self._chunk_rows
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
