"""The index of a store: where the vector of a key lies. It can be made anew from the shards at any time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from micropref.embed._shards import KEY_BYTES

_CHUNK = 500  # bound variables of one query; SQLite's oldest limit is 999


class Index:
    """An SQLite database in WAL mode: readers never wait for the writer.

    Parameters
    ----------
    path : Path
    writable : bool
        A folder that cannot be written to is read as it is.
    """

    def __init__(self, path: Path, writable: bool):
        if writable:
            self._db = sqlite3.connect(path, timeout=600, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a lost commit is found again in its shard
            self._db.execute("CREATE TABLE IF NOT EXISTS shards (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, shard INTEGER, row INTEGER) WITHOUT ROWID"
            )
        else:
            self._db = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)

    def close(self) -> None:
        self._db.close()

    def shards(self) -> dict[str, int]:
        """Number of every shard by its name."""
        return dict(self._db.execute("SELECT name, id FROM shards"))

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def add(self, name: str, keys: Iterable[bytes]) -> None:
        """Take in a shard; a key that is there already stays where it is."""
        keys = list(keys)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("INSERT OR IGNORE INTO shards (name, n) VALUES (?, ?)", (name, len(keys)))
            (shard,) = self._db.execute("SELECT id FROM shards WHERE name = ?", (name,)).fetchone()
            rows = ((key, shard, row) for row, key in enumerate(keys))
            self._db.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def forget(self, name: str) -> None:
        """Drop a shard and what it held."""
        self._db.execute("BEGIN IMMEDIATE")
        found = self._db.execute("SELECT id FROM shards WHERE name = ?", (name,)).fetchone()
        if found is not None:
            self._db.execute("DELETE FROM vectors WHERE shard = ?", found)
            self._db.execute("DELETE FROM shards WHERE id = ?", found)
        self._db.execute("COMMIT")

    def find(self, keys: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of every key; shard -1 where it is not there."""
        place: dict[bytes, tuple[int, int]] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _CHUNK):
            part = distinct[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, shard, row FROM vectors WHERE key IN ({marks})"
            place.update((bytes(key), (shard, row)) for key, shard, row in self._db.execute(query, part))
        found = [place.get(key, (-1, -1)) for key in keys]
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def damaged(self) -> bool:
        """Whether SQLite's own check finds the database unsound."""
        return self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"


__all__ = ["KEY_BYTES", "Index"]
