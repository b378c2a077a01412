"""The index of a store: where the vector of a key lies. It can be made anew from the shards at any time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from micropref.embed._index_faults import DamagedIndexError, faults_named
from micropref.embed._shards import is_shard_name

_CHUNK = 500  # bound variables of one query; SQLite's oldest limit is 999
_WAIT_SECONDS = 60
# A number is never given twice: a process that remembers the number of a shard that is gone
# must not find another one under it.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS shards "
    "(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, n INTEGER, truncated INTEGER)",
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, shard INTEGER, row INTEGER) WITHOUT ROWID",
)
_ABOUT_SCHEMA = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master"
_VERSION = 2
# A position is one number: the shard's above, the row in it below.
_ROW_BITS = 32
MISSING = -1
_MAX_SHARD = 1 << (63 - _ROW_BITS)

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def _trusting_nothing(
    method: Callable[Concatenate[Index, _Given], _Answer],
) -> Callable[Concatenate[Index, _Given], _Answer]:
    """A method whose errors are those of `faults_named`."""

    def asked(self: Index, /, *given: _Given.args, **more: _Given.kwargs) -> _Answer:
        with faults_named(self.path, self.writable):
            return method(self, *given, **more)

    return update_wrapper(asked, method)


@cache
def _expected_schema() -> list[tuple[Any, ...]]:
    """What SQLite keeps of the statements that make the tables."""
    database = sqlite3.connect(":memory:")
    try:
        for statement in _SCHEMA:
            database.execute(statement)
        return database.execute(_ABOUT_SCHEMA).fetchall()
    finally:
        database.close()


def shard_of(positions: np.ndarray) -> np.ndarray:
    """Numbers of the shards of positions; negative where there is none."""
    return positions >> _ROW_BITS


def row_of(positions: np.ndarray) -> np.ndarray:
    """Rows of positions in their shards."""
    return positions & ((1 << _ROW_BITS) - 1)


class Index:
    """An SQLite database in WAL mode: readers never wait for the writer.

    Whatever SQLite finds wrong comes out as one of the errors of `faults_named`.

    Parameters
    ----------
    path : Path or None
        None: in memory, for a folder that cannot be written to and whose index is not current.
    writable : bool, default=True
        An index that cannot be written to is read as it is.
    first : int, default=1
        Number of the first shard of a new index.
    """

    def __init__(self, path: Path | None, writable: bool = True, first: int = 1):
        self.path = path
        self.writable = writable
        # One connection for the thread that reads and the one that writes shards.
        self._lock = threading.RLock()
        with faults_named(path, writable):
            self._db = self._connected()
            try:
                if writable or path is None:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")  # a lost commit is found again in its shard
                    self._make_tables(first)
                self._check_schema()
            except BaseException:
                self._db.close()
                raise

    def _connected(self) -> sqlite3.Connection:
        if self.path is None or self.writable:
            place = ":memory:" if self.path is None else self.path
            return sqlite3.connect(place, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        if not self.path.is_file():  # to open a pipe is to wait
            raise DamagedIndexError(f"{self.path}: expected the index of a store, got no regular file")
        # What a writer has not yet put into the file itself stands in a log beside it, which needs shared memory.
        log = self.path.with_name(f"{self.path.name}-wal")
        mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
        return sqlite3.connect(f"{self.path.as_uri()}?{mode}", uri=True, check_same_thread=False)

    def _make_tables(self, first: int) -> None:
        """Make the tables of a new index. One that is there already is not written to: the disk may be full."""
        if self._ask("PRAGMA user_version") != [(0,)] or self._ask("SELECT 1 FROM sqlite_master"):
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO sqlite_sequence VALUES ('shards', ?)", (first - 1,))
            self._db.execute(f"PRAGMA user_version={_VERSION}")

    def _check_schema(self) -> None:
        """A DamagedIndexError for tables that another version of micropref made, or of which a letter has changed."""
        (version,) = self._ask("PRAGMA user_version")[0]
        if version != _VERSION:
            raise DamagedIndexError(f"{self.path}: expected an index of version {_VERSION}, got version {version}")
        if self._ask(_ABOUT_SCHEMA) != _expected_schema():
            raise DamagedIndexError(f"{self.path}: expected the tables of an index, got others")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    @_trusting_nothing
    def shards(self) -> dict[str, int]:
        """Number of every shard by its name, in the order in which they came."""
        found = self._ask("SELECT name, id FROM shards ORDER BY id")
        for name, number in found:
            if not (isinstance(name, str) and is_shard_name(name) and 0 < number < _MAX_SHARD):
                raise DamagedIndexError(f"{self.path}: expected names of shards, got {name!r} as number {number!r}")
        return dict(found)

    @_trusting_nothing
    def __len__(self) -> int:
        return int(self._ask("SELECT count(*) FROM vectors")[0][0])

    @property
    @_trusting_nothing
    def n_truncated(self) -> int:
        return int(self._ask("SELECT total(truncated) FROM shards")[0][0])

    @_trusting_nothing
    def some_keys(self, name: str, n_keys: int) -> list[bytes]:
        """Keys of a shard, at most so many."""
        query = "SELECT key FROM vectors WHERE shard = (SELECT id FROM shards WHERE name = ?) LIMIT ?"
        return [bytes(key) for (key,) in self._ask(query, (name, n_keys))]

    @_trusting_nothing
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

    @_trusting_nothing
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

    @_trusting_nothing
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
        if any(type(position) is not int or position < 0 for position in place.values()):
            raise DamagedIndexError(f"{self.path}: expected whole numbers as positions, got others")
        return np.fromiter((place.get(key, MISSING) for key in keys), dtype=np.int64, count=len(keys))

    @_trusting_nothing
    def fault(self) -> str | None:
        """What SQLite's own check finds wrong; None where all is well."""
        found = str(self._ask("PRAGMA quick_check(1)")[0][0])
        return None if found == "ok" else found
