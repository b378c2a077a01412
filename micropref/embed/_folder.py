"""What a store has on disk: shards, and an index that is a cache of what they say. It knows keys and no texts.

A shard holds the key of every vector and is named by its checksum. So whatever the index says is checked against the
shard, and the shard against its name, before a vector is returned; and an index that is lost, damaged or behind is made
anew from the shards. A folder may therefore be copied, merged with another by copying files, and killed at any instant.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from micropref.embed._index import MISSING, Index, row_of, shard_of
from micropref.embed._shards import (
    DamagedShardError,
    Shard,
    check_same_encoder,
    check_shard,
    map_shard,
    remove_leftovers,
    set_aside,
    shard_names,
    shard_state,
    write_shard,
)

try:
    import fcntl
except ImportError:  # no advisory locks: one writer at a time is then the user's care
    fcntl = None  # type: ignore[assignment]

# Mapped at the same time; each holds a file descriptor, of which a process often has no more than 1 024.
_OPEN_SHARDS = 256
# Threads that compare checksums; hashing lets go of the interpreter.
_READERS = 4
_Answer = TypeVar("_Answer")


class ShardFolder:
    """Shards and their index in one folder.

    Parameters
    ----------
    path : Path
        An existing folder.
    fingerprint : str, optional
        Of the encoder; None takes that of the vectors that are there.

    Raises
    ------
    EncoderMismatchError
        If a shard holds vectors of another encoder; both are named.
    """

    def __init__(self, path: Path, fingerprint: str | None = None):
        self.path = path
        self.writable = os.access(path, os.W_OK)
        self.fingerprint = fingerprint
        self.width: int | None = None
        self.dtype: np.dtype | None = None
        self._held = threading.local()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._sound: dict[int, tuple[int, int, int]] = {}
        self._names: dict[int, str] = {}
        self._index: Index
        self._connect()

    def close(self) -> None:
        """Let go of the index and of all files."""
        self._index.close()
        self._open.clear()

    # --------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return self._asked(lambda: len(self._index))

    @property
    def n_truncated(self) -> int:
        return self._asked(lambda: self._index.n_truncated)

    def names(self) -> list[str]:
        """Names of the shards that the index knows."""
        return list(self._asked(self._index.shards))

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Position of every key, int64; MISSING where there is none."""
        return self._asked(lambda: self._index.find(keys))

    def read(self, keys: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        """Copy vectors at their positions into `out`, row by row, after comparing the keys beside them.

        Raises
        ------
        DamagedShardError
            If a shard is not what was written, or the index points to another key's vector and cannot be made anew.
        """
        numbers, rows = shard_of(positions), row_of(positions)
        self.check(np.unique(numbers))
        order = np.argsort(positions, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=MISSING))
        for where in np.split(order, starts[1:]) if len(order) else []:
            shard, part = self.shard(int(numbers[where[0]])), rows[where]
            if part.max() < len(shard.keys) and np.array_equal(shard.keys[part], keys[where]):
                out[where] = shard.vectors[part]
                continue
            self.rebuild()
            found = self.find([key.tobytes() for key in keys])
            if (found == positions).all() or (found == MISSING).any():
                raise DamagedShardError(f"the index of {self.path} does not agree with its shards")
            self.read(keys, found, out)
            return

    def check(self, numbers: np.ndarray) -> list[int]:
        """Compare shards that have not been read yet with their checksums, several at a time; those that are damaged.

        `shard` tells what is wrong with one of them.
        """
        self._know_names(numbers)
        states = {int(n): shard_state(self.path / self._names[int(n)]) for n in numbers if int(n) in self._names}
        unread = [number for number, state in states.items() if self._sound.get(number) != state]

        def is_sound(number: int) -> bool:
            try:
                check_shard(self.path / self._names[number])
            except DamagedShardError:
                return False
            return True

        with ThreadPoolExecutor(min(_READERS, max(1, len(unread)))) as readers:
            for number, sound in zip(unread, readers.map(is_sound, unread), strict=True):
                self._open.pop(number, None)
                if sound:
                    self._sound[number] = states[number]
                else:
                    self._sound.pop(number, None)
        return [int(n) for n in numbers if int(n) not in states or int(n) not in self._sound]

    def _know_names(self, numbers: np.ndarray) -> None:
        if any(int(number) not in self._names for number in numbers):
            self._names = {n: name for name, n in self._asked(self._index.shards).items()}

    def shard(self, number: int) -> Shard:
        """An open shard; its bytes are compared with its checksum when it is first opened, and whenever it changes.

        Raises
        ------
        DamagedShardError
            If it is not what was written.
        """
        self._know_names(np.array([number]))
        if number not in self._names:
            raise DamagedShardError(f"the index of {self.path} names a shard {number} that it does not know")
        path = self.path / self._names[number]
        state = shard_state(path)
        if self._sound.get(number) != state:
            self._open.pop(number, None)
            check_shard(path)
            self._sound[number] = state
        if number not in self._open:
            self._open[number] = shard = map_shard(path)
            if self.fingerprint is None:
                self.fingerprint = shard.fingerprint
            self.width, self.dtype = shard.vectors.shape[1], shard.vectors.dtype
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def shards(self) -> Iterator[Shard]:
        """All shards that the index knows, one after the other."""
        for number in self._asked(self._index.shards).values():
            yield self.shard(number)

    def referenced(self, shard: Shard) -> np.ndarray:
        """Which rows of a shard the index points to; the others are vectors that another shard holds, too."""
        number = {name: n for n, name in self._names.items()}[shard.name]
        found = self.find([key.tobytes() for key in shard.keys])
        return (shard_of(found) == number) & (row_of(found) == np.arange(len(found)))

    def faults(self) -> list[str]:
        """What is wrong with the index and with each damaged or missing shard, after reading all of them again."""
        found = []
        try:
            fault = self._index.fault()
        except sqlite3.DatabaseError as error:
            fault = str(error)
        if fault is not None:
            found.append(f"{self.path / 'index.sqlite'} is damaged: {fault}")
        for name in self.names():
            try:
                check_shard(self.path / name)
            except DamagedShardError as error:
                found.append(str(error))
        return found

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, keys: np.ndarray, vectors: np.ndarray, n_truncated: int, replacing: Sequence[str] = ()) -> str:
        """Write a shard and enter it; it takes the place of those that it replaces, whose files stay. Its name."""
        assert self.fingerprint is not None
        with self.locked():
            name = write_shard(self.path, self.fingerprint, keys, vectors, n_truncated)
            self._index.add(name, [key.tobytes() for key in keys], n_truncated, replacing)
        self.width, self.dtype = vectors.shape[1], vectors.dtype
        return name

    def missing(self, keys: Sequence[bytes]) -> np.ndarray:
        """Which keys have no sound vector; what a damaged shard held is forgotten, and missing from then on."""
        positions = self.find(keys)
        damaged = self.check(np.unique(shard_of(positions[positions != MISSING])))
        if not damaged:
            return positions == MISSING
        if not self.writable:
            self.shard(damaged[0])
        for number in damaged:
            self._set_aside(number)
        return self.find(keys) == MISSING

    def _set_aside(self, number: int) -> None:
        with self.locked():
            name = self._names.pop(number, None)
            self._open.pop(number, None)
            if name is not None:
                self._index.forget(name)
                set_aside(self.path, name)

    def drop(self, names: Sequence[str]) -> None:
        """Remove the files of shards that the index does not need any more."""
        with self.locked():
            for name in names:
                self._index.forget(name)
                (self.path / name).unlink(missing_ok=True)

    def refresh(self) -> None:
        """Take in what other processes wrote, or somebody copied here; forget what is gone."""
        if not self.writable:
            return
        with self.locked():
            if shard_state(self.path / "index.sqlite")[0] != self._inode:
                self._index.close()
                self._connect()
                return
            self._reconcile()

    def rebuild(self) -> None:
        """Make the index anew from the shards: in the folder, or in memory where that cannot be written to."""
        with self.locked():
            self._index.close()
            if self.writable:
                for suffix in ("", "-wal", "-shm"):
                    (self.path / f"index.sqlite{suffix}").unlink(missing_ok=True)
            self._index = Index(self.path / "index.sqlite" if self.writable else None)
            self._inode = shard_state(self.path / "index.sqlite")[0]
            self._open.clear()
            self._sound.clear()
            self._reconcile()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes; may be entered again by who holds it."""
        depth = getattr(self._held, "depth", 0)
        if not self.writable or fcntl is None or depth:
            self._held.depth = depth + 1
            try:
                yield
            finally:
                self._held.depth = depth
            return
        with (self.path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._held.depth = 1
            try:
                yield
            finally:
                self._held.depth = 0

    # ------------------------------------------------------------------------------------------------------- internals

    def _connect(self) -> None:
        path = self.path / "index.sqlite"
        with self.locked():
            try:
                self._index = Index(path, self.writable)
                self._inode = shard_state(path)[0]
                current = self.writable or set(self._index.shards()) == shard_names(self.path)
            except sqlite3.DatabaseError as error:
                if self.writable and isinstance(error, sqlite3.OperationalError):
                    raise  # a full disk or a lock that never opened is no damage
                self._index, current = Index(None), False
            if not current:
                self.rebuild()
                return
            if self.writable:
                remove_leftovers(self.path)
                self._asked(self._reconcile)
            else:
                self._learn_names()

    def _reconcile(self) -> None:
        """Bring the index in line with the files that are there."""
        known, present = set(self._index.shards()), shard_names(self.path)
        for name in known - present:
            self._index.forget(name)
        for name in sorted(present - known):
            self._adopt(name)
        self._learn_names()

    def _learn_names(self) -> None:
        self._names = {number: name for name, number in self._index.shards().items()}
        for number in self._names:
            if self.width is not None:
                return
            try:
                shard = self.shard(number)
            except DamagedShardError:
                continue
            assert self.fingerprint is not None
            check_same_encoder(self.path / shard.name, shard.fingerprint, self.fingerprint)

    def _adopt(self, name: str) -> None:
        """Take a shard into the index that a killed process had written and not yet entered, or somebody copied."""
        path = self.path / name
        try:
            check_shard(path)
            shard = map_shard(path)
        except DamagedShardError:
            if self.writable:
                set_aside(self.path, name)
            return
        if self.fingerprint is None:
            self.fingerprint = shard.fingerprint
        check_same_encoder(path, shard.fingerprint, self.fingerprint)
        self._index.add(name, [key.tobytes() for key in shard.keys], shard.n_truncated)

    def _asked(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer of the index, which is made anew where SQLite finds it damaged."""
        try:
            return question()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise  # a full disk, a lock that never opened, or a closed store
        except sqlite3.DatabaseError:
            self.rebuild()
            return question()
