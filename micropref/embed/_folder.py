"""What a store has on disk: shards, and an index that is a cache of what they say. It knows keys and no texts.

A shard holds the key of every vector and is named by its checksum. So whatever the index says is checked against the
shard, and the shard against its name, before a vector is returned; and an index that is lost, damaged or behind is made
anew from the shards. A folder may therefore be copied, merged with another by copying files, and killed at any instant.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np

from micropref._support.files import CAN_FLOCK, file_state, locked
from micropref._support.warnings import level_of_caller
from micropref.embed._index import MISSING, Index, row_of, shard_of
from micropref.embed._shards import (
    DamagedShardError,
    Shard,
    check_same_encoder,
    check_same_kind,
    check_shard,
    map_shard,
    remove_leftovers,
    set_aside,
    shard_names,
    write_shard,
)

# Mapped at the same time; each holds a file descriptor, of which a process often has no more than 1 024.
_OPEN_SHARDS = 256
# Threads that compare checksums; hashing lets go of the interpreter.
_READERS = 4
_INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")
_Answer = TypeVar("_Answer")


def is_store(path: Path) -> bool:
    """Whether a folder holds an index or shards."""
    return path.is_dir() and ((path / _INDEX_FILES[0]).exists() or bool(shard_names(path)))


class ShardFolder:
    """Shards and their index in one folder.

    Parameters
    ----------
    path : Path
        An existing folder.
    fingerprint : str, optional
        Of the encoder; None takes that of the vectors that are there.
    read_only : bool, default=False
        Change nothing, not even what is damaged. So it is, too, where the files cannot be written to.

    Attributes
    ----------
    width : int or None
        Of the vectors; None while there are none.
    dtype : dtype or None

    Raises
    ------
    EncoderMismatchError
        If a shard holds vectors of another encoder; both are named.
    """

    def __init__(self, path: Path, fingerprint: str | None = None, *, read_only: bool = False):
        self.path = path
        files = [path, *(path / name for name in ("lock", *_INDEX_FILES) if (path / name).exists())]
        self.writable = not read_only and all(os.access(file, os.W_OK) for file in files)
        self.fingerprint = fingerprint
        self.width: int | None = None
        self.dtype: np.dtype | None = None
        self._held = threading.local()
        # Of what is known of shards: readers may be several threads.
        self._guard = threading.RLock()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._sound: dict[int, tuple[int, ...]] = {}
        self._names: dict[int, str] = {}
        self._index: Index
        self._connect()

    def close(self) -> None:
        """Let go of the index and of all files."""
        self._index.close()
        with self._guard:
            self._open.clear()

    # --------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return self._asked(lambda: len(self._index))

    @property
    def n_truncated(self) -> int:
        return self._asked(lambda: self._index.n_truncated)

    def names(self) -> list[str]:
        """Names of the shards that the index knows."""
        return list(self._shards())

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Position of every key, int64; MISSING where there is none."""
        return self._asked(lambda: self._index.find(keys))

    def read(self, keys: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        """Copy vectors at their positions into `out`, row by row, after comparing the keys beside them.

        Where they are not there, as after another process has put shards together, the keys are looked up again.

        Raises
        ------
        DamagedShardError
            If a shard is not what was written.
        KeyError
            If there is no vector of a key.
        """
        if self._copied(keys, positions, out):
            return
        again = [key.tobytes() for key in keys]
        for last_resort in (self.refresh, self.rebuild):
            last_resort()
            found = self.find(again)
            if (found == MISSING).any():
                n_missing = int((found == MISSING).sum())
                raise KeyError(f"{self.path}: expected vectors of {len(keys)} rows, got none of {n_missing} among them")
            if self._copied(keys, found, out):
                return
        raise DamagedShardError(f"{self.path}: expected an index that agrees with the shards, got one that does not")

    def _copied(self, keys: np.ndarray, positions: np.ndarray, out: np.ndarray) -> bool:
        """Copy vectors; False where some are not at their positions."""
        numbers, rows = shard_of(positions), row_of(positions)
        wanted = np.unique(numbers)
        self.check(wanted)
        if any(int(number) not in self._names for number in wanted):
            return False
        order = np.argsort(positions, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=MISSING))
        for where in np.split(order, starts[1:]) if len(order) else []:
            try:
                shard = self.shard(int(numbers[where[0]]))
            except DamagedShardError:
                if (self.path / self._names[int(numbers[where[0]])]).exists():
                    raise
                return False
            part = rows[where]
            if part.max() >= len(shard.keys) or not np.array_equal(shard.keys[part], keys[where]):
                return False
            out[where] = shard.vectors[part]
        return True

    def check(self, numbers: np.ndarray) -> list[int]:
        """Compare shards that have not been read yet with their checksums, several at a time; those that are damaged.

        `shard` tells what is wrong with one of them.
        """
        with self._guard:
            self._know_names(numbers)
            states = {int(n): file_state(self.path / self._names[int(n)]) for n in numbers if int(n) in self._names}
            unread = [number for number, state in states.items() if self._sound.get(number) != state]
            names = dict(self._names)

        def is_sound(number: int) -> bool:
            try:
                check_shard(self.path / names[number])
            except DamagedShardError:
                return False
            return True

        if unread:
            with ThreadPoolExecutor(min(_READERS, len(unread))) as readers:
                results = list(readers.map(is_sound, unread))
            with self._guard:
                for number, sound in zip(unread, results, strict=True):
                    self._open.pop(number, None)
                    if sound:
                        self._sound[number] = states[number]
                    else:
                        self._sound.pop(number, None)
        return [int(n) for n in numbers if int(n) not in states or int(n) not in self._sound]

    def _know_names(self, numbers: np.ndarray) -> None:
        if any(int(number) not in self._names for number in numbers):
            self._names = {number: name for name, number in self._shards().items()}

    def numbers(self) -> list[int]:
        """Numbers of the shards that the index knows."""
        return list(self._shards().values())

    def _shards(self) -> dict[str, int]:
        return self._asked(lambda: self._index.shards())

    def shard(self, number: int) -> Shard:
        """An open shard; its bytes are compared with its checksum when it is first opened, and whenever it changes.

        Raises
        ------
        DamagedShardError
            If it is not what was written.
        """
        with self._guard:
            self._know_names(np.array([number]))
            if number not in self._names:
                raise DamagedShardError(f"{self.path}: expected a shard that the index knows, got number {number}")
            path = self.path / self._names[number]
            state = file_state(path)
            if self._sound.get(number) != state:
                self._open.pop(number, None)
                check_shard(path)
                self._sound[number] = state
            shard = self._open.get(number)
            if shard is None:
                shard = map_shard(path)
                self._take(shard)
                self._open[number] = shard
                while len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return shard

    def _take(self, shard: Shard) -> None:
        """Compare a shard with the others, of which the first one says what all are."""
        if self.fingerprint is None:
            self.fingerprint = shard.fingerprint
        check_same_encoder(self.path, shard.fingerprint, self.fingerprint)
        check_same_kind(self.path, shard.vectors, self.width, self.dtype)
        self.width, self.dtype = shard.vectors.shape[1], shard.vectors.dtype

    def shards(self) -> Iterator[Shard]:
        """All shards that the index knows, one after the other."""
        for number in self._shards().values():
            yield self.shard(number)

    def referenced(self, shard: Shard) -> np.ndarray:
        """Which rows of a shard the index points to; the others are vectors that another shard holds, too."""
        number = self._shards().get(shard.name)
        found = self.find([key.tobytes() for key in shard.keys])
        points_here: np.ndarray = (shard_of(found) == number) & (row_of(found) == np.arange(len(found)))
        return points_here

    def faults(self) -> list[str]:
        """What is wrong with the index and with each damaged or missing shard, after reading all of them again."""
        found = []
        try:
            fault = self._index.fault()
        except sqlite3.DatabaseError as error:
            fault = str(error)
        if fault is not None:
            found.append(f"{self.path / _INDEX_FILES[0]} is damaged: {fault}")
        for name, number in self._shards().items():
            try:
                check_shard(self.path / name)
            except DamagedShardError as error:
                found.append(str(error))
                with self._guard:
                    self._open.pop(number, None)
                    self._sound.pop(number, None)
        return found

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, keys: np.ndarray, vectors: np.ndarray, n_truncated: int, replacing: Sequence[str] = ()) -> str:
        """Write a shard and enter it; it takes the place of those that it replaces, whose files stay. Its name."""
        assert self.fingerprint is not None
        with self.locked():
            if self.width is None:  # another process may have begun the store in another way
                self._asked(self._reconcile)
            check_same_kind(self.path, vectors, self.width, self.dtype)
            name = write_shard(self.path, self.fingerprint, keys, vectors, n_truncated)
            entered = [key.tobytes() for key in keys]
            self._asked(lambda: self._index.add(name, entered, n_truncated, replacing))
        self.width, self.dtype = vectors.shape[1], vectors.dtype
        return name

    def damaged(self, keys: Sequence[bytes]) -> list[int]:
        """Numbers of the damaged shards among those that the index names for the keys."""
        positions = self.find(keys)
        return self.check(np.unique(shard_of(positions[positions != MISSING])))

    def missing(self, keys: Sequence[bytes]) -> np.ndarray:
        """Which keys have no sound vector."""
        positions = self.find(keys)
        damaged = self.check(np.unique(shard_of(positions[positions != MISSING])))
        absent: np.ndarray = (positions == MISSING) | np.isin(shard_of(positions), damaged)
        return absent

    def set_aside(self, numbers: Sequence[int]) -> None:
        """Forget damaged shards, so that what they held is missing; their files stay under another name."""
        with self.locked():
            lost = 0
            for number in numbers:
                name = self._names.get(number)
                if name is None:
                    continue
                try:
                    check_shard(self.path / name)
                except DamagedShardError:
                    lost += 1
                    with self._guard:
                        self._names.pop(number, None)
                        self._open.pop(number, None)
                    self._asked(lambda name=name: self._index.forget(name))  # type: ignore[misc]
                    set_aside(self.path, name)
        self._warn(lost)

    def drop(self, names: Sequence[str]) -> None:
        """Remove the files of shards that the index does not need any more."""
        with self.locked():
            for name in names:
                self._asked(lambda name=name: self._index.forget(name))  # type: ignore[misc]
                (self.path / name).unlink(missing_ok=True)

    def refresh(self) -> None:
        """Take in what other processes wrote, or a user copied here; forget what is gone."""
        if not self.writable:
            if set(self._shards()) != shard_names(self.path):
                self._index.close()
                self._connect()
            return
        with self.locked():
            if file_state(self.path / _INDEX_FILES[0])[:1] != self._inode:
                self._index.close()
                self._connect()
                return
            self._asked(self._reconcile)

    def rebuild(self) -> None:
        """Make the index anew from the shards: in the folder, or in memory where that cannot be written to."""
        with self.locked():
            if not self.writable:
                self._index.close()
                self._index = Index(None)
            else:
                try:
                    self._index.clear()
                except sqlite3.DatabaseError:
                    self._index.close()
                    for name in _INDEX_FILES:
                        (self.path / name).unlink(missing_ok=True)
                    self._index = Index(self.path / _INDEX_FILES[0])
            self._inode = file_state(self.path / _INDEX_FILES[0])[:1]
            with self._guard:
                self._open.clear()
                self._sound.clear()
            self._reconcile()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes; may be entered again by the thread that holds it."""
        depth = getattr(self._held, "depth", 0)
        # Without advisory locks, one writer at a time is the user's care.
        unlocked = not self.writable or not CAN_FLOCK or depth
        with nullcontext() if unlocked else locked(self.path / "lock"):
            self._held.depth = depth + 1
            try:
                yield
            finally:
                self._held.depth = depth

    # ------------------------------------------------------------------------------------------------------- internals

    def _connect(self) -> None:
        path = self.path / _INDEX_FILES[0]
        self._pid = os.getpid()
        with self.locked():
            try:
                self._index = Index(path, self.writable)
                self._inode = file_state(path)[:1]
                current = self.writable or set(self._index.shards()) == shard_names(self.path)
            except sqlite3.DatabaseError as error:
                if self.writable and isinstance(error, sqlite3.OperationalError):
                    raise  # a full disk or a lock that never opened is no damage
                if self.writable:
                    for name in _INDEX_FILES:
                        (self.path / name).unlink(missing_ok=True)
                self._index, current = Index(path if self.writable else None), False
            if not current:
                self.rebuild()
            elif self.writable:
                remove_leftovers(self.path)
                self._asked(self._reconcile)
            else:
                self._learn()

    def _reconcile(self) -> None:
        """Bring the index in line with the files that are there."""
        known, present = set(self._index.shards()), shard_names(self.path)
        for name in known - present:
            self._index.forget(name)
        self._learn()  # the store says what it keeps, not a shard that was copied here
        lost = len(known - present) + sum(not self._adopted(name) for name in sorted(present - known))
        self._learn()
        self._warn(lost)

    def _warn(self, n_lost: int) -> None:
        if n_lost:
            shards = "1 shard" if n_lost == 1 else f"{n_lost} shards"
            warnings.warn(
                f"{shards} of the store {self.path} {'is' if n_lost == 1 else 'are'} damaged or missing; "
                "the texts there will be embedded again when they are needed",
                UserWarning,
                stacklevel=level_of_caller(),
            )

    def _learn(self) -> None:
        with self._guard:
            self._names = {number: name for name, number in self._index.shards().items()}
        for number in self._names:
            if self.width is not None:
                return
            try:
                self.shard(number)
            except DamagedShardError:
                continue

    def _adopted(self, name: str) -> bool:
        """Take in a shard that a killed process had written and not entered, or a user copied; False if damaged."""
        path = self.path / name
        try:
            check_shard(path)
            shard = map_shard(path)
        except DamagedShardError:
            if self.writable:
                set_aside(self.path, name)
            return False
        self._take(shard)
        self._index.add(name, [key.tobytes() for key in shard.keys], shard.n_truncated)
        return True

    def _asked(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer of the index, which is made anew where SQLite finds it damaged."""
        if os.getpid() != self._pid:  # SQLite forbids to take a connection through a fork
            self._connect()
        try:
            return question()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise  # a full disk, a lock that never opened, or a closed store
        except sqlite3.DatabaseError:
            self.rebuild()
            return question()
