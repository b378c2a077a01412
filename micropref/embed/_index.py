"""The index of a store: where the vector of a key lies. It can be made anew from the shards at any time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 500  # bound variables of one query; SQLite's oldest limit is 999
_WAIT_SECONDS = 600
# A number is never given twice: a process that remembers the number of a shard that is gone
# must not find another one under it.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS shards "
    "(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, n INTEGER, truncated INTEGER)",
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, shard INTEGER, row INTEGER) WITHOUT ROWID",
)
_VERSION = 2
# A position is one number: the shard's above, the row in it below.
_ROW_BITS = 32
MISSING = -1


def shard_of(positions: np.ndarray) -> np.ndarray:
    """Numbers of the shards of positions; negative where there is none."""
    return positions >> _ROW_BITS


def row_of(positions: np.ndarray) -> np.ndarray:
    """Rows of positions in their shards."""
    return positions & ((1 << _ROW_BITS) - 1)


class Index:
    """An SQLite database in WAL mode: readers never wait for the writer.

    Parameters
    ----------
    path : Path or None
        None: in memory, for a folder that cannot be written to and whose index is not current.
    writable : bool, default=True
        An index that cannot be written to is read as it is.
    """

    def __init__(self, path: Path | None, writable: bool = True):
        # One connection for the thread that reads and the one that writes shards.
        self._lock = threading.RLock()
        if path is None or writable:
            place = ":memory:" if path is None else path
            self._db = sqlite3.connect(place, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")  # a lost commit is found again in its shard
                self._check_version()
            except BaseException:
                self._db.close()
                raise
        else:
            # What a writer has not yet put into the file itself stands in a log beside it, which needs shared memory.
            log = path.with_name(f"{path.name}-wal")
            mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
            self._db = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, check_same_thread=False)

    def _check_version(self) -> None:
        """Make the tables of a new index; a DatabaseError for one that another version of micropref made."""
        (version,) = self._ask("PRAGMA user_version")[0]
        if version not in (0, _VERSION) or (version == 0 and self._ask("SELECT 1 FROM sqlite_master")):
            raise sqlite3.DatabaseError(f"expected an index of version {_VERSION}, got version {version}")
        for statement in (*_SCHEMA, f"PRAGMA user_version={_VERSION}"):
            self._db.execute(statement)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def shards(self) -> dict[str, int]:
        """Number of every shard by its name, in the order in which they came."""
        return dict(self._ask("SELECT name, id FROM shards ORDER BY id"))

    def __len__(self) -> int:
        return int(self._ask("SELECT count(*) FROM vectors")[0][0])

    @property
    def n_truncated(self) -> int:
        return int(self._ask("SELECT total(truncated) FROM shards")[0][0])

    def add(self, name: str, keys: Sequence[bytes], n_truncated: int, replacing: Sequence[str] = ()) -> None:
        """Take in a shard; a key that is there already stays where it is, unless that is in a shard that is replaced.

        Parameters
        ----------
        name : str
        keys : sequence of bytes
            Keys of its rows.
        n_truncated : int
        replacing : sequence of str
            Shards to forget in the same transaction.
        """
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._forget(replacing)
            self._db.execute(
                "INSERT OR IGNORE INTO shards (name, n, truncated) VALUES (?, ?, ?)", (name, len(keys), n_truncated)
            )
            (shard,) = self._db.execute("SELECT id FROM shards WHERE name = ?", (name,)).fetchone()
            rows = ((key, shard, row) for row, key in enumerate(keys))
            self._db.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        """Forget everything; numbers go on where they were."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM vectors")
            self._db.execute("DELETE FROM shards")

    def forget(self, name: str) -> None:
        """Drop a shard and what it held."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._forget([name])

    def _forget(self, names: Sequence[str]) -> None:
        found = self.shards()
        gone = [(found[name],) for name in names if name in found]
        if gone:
            self._db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY)")
            self._db.execute("DELETE FROM gone")
            self._db.executemany("INSERT INTO gone VALUES (?)", gone)
            self._db.execute("DELETE FROM vectors WHERE shard IN (SELECT id FROM gone)")
            self._db.execute("DELETE FROM shards WHERE id IN (SELECT id FROM gone)")

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Position of every key, int64; MISSING where it is not there."""
        place: dict[bytes, int] = {}
        # In the order of the tree, neighbours lie on one page.
        distinct = sorted(set(keys))
        with self._lock:
            for start in range(0, len(distinct), _CHUNK):
                part = distinct[start : start + _CHUNK]
                query = (
                    f"SELECT key, (shard << {_ROW_BITS}) | row FROM vectors WHERE key IN ({','.join('?' * len(part))})"
                )
                place.update(self._db.execute(query, part))
        return np.fromiter((place.get(key, MISSING) for key in keys), dtype=np.int64, count=len(keys))

    def fault(self) -> str | None:
        """What SQLite's own check finds wrong; None where all is well."""
        found = str(self._ask("PRAGMA quick_check(1)")[0][0])
        return None if found == "ok" else found
