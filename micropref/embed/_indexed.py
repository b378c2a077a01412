"""The index of a folder of shards: opened, locked, and made anew from the shards whenever it is damaged."""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from micropref._support.files import CAN_FLOCK, file_state, is_full, locked
from micropref._support.warnings import level_of_caller
from micropref.embed._index import Index
from micropref.embed._index_faults import DamagedIndexError
from micropref.embed._shards import remove_leftovers, shard_names

__all__ = ["IndexedFolder", "is_store"]

_INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")
_LOCK = "lock"
# Without a sign of life: what takes longer under the lock gives one for every shard.
_PATIENCE_S = 120.0
_Answer = TypeVar("_Answer")


def _say_nothing() -> None:
    """The sign of life of a holder that nothing waits for."""


def is_store(path: Path) -> bool:
    """Whether a folder holds an index or shards."""
    return path.is_dir() and ((path / _INDEX_FILES[0]).exists() or bool(shard_names(path)))


class IndexedFolder(ABC):
    """A folder whose index can be asked at any time.

    All faults of the index end here: a damaged one is made anew from the shards; one that another process made anew is
    opened; on a full disk the folder is opened for reading.

    Parameters
    ----------
    path : Path
        An existing folder.
    read_only : bool
        Change nothing. So it is, too, where the files cannot be written to.

    Attributes
    ----------
    writable : bool
    """

    def __init__(self, path: Path, *, read_only: bool):
        self.path = path
        files = [path, *(path / name for name in (_LOCK, *_INDEX_FILES) if (path / name).exists())]
        self._may_write = not read_only and all(os.access(file, os.W_OK) for file in files)
        self.writable = self._may_write
        self._full: OSError | None = None
        self._held = threading.local()
        self._index: Index
        self._inode: tuple[int, ...] | None = None
        # Numbers of shards that the index had when it was made anew: no other shard gets one of them.
        self._n_numbers = 0

    @abstractmethod
    def _reconcile(self) -> None:
        """Bring the index in line with the files that are there, and learn from it what there is."""

    @abstractmethod
    def _forget(self) -> None:
        """Forget what was known of shards by their numbers in another index."""

    @abstractmethod
    def _is_current(self, index: Index) -> bool:
        """Whether an index that cannot be written to knows just the shards that are there."""

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()

    def check_writable(self, n_texts: int | None = None) -> None:
        """An error where nothing can be written; whether a full disk has room again is tried first.

        Raises
        ------
        PermissionError
            If the folder cannot be written to, or was opened to be read.
        OSError
            If its disk is full.
        """
        if self._full is not None:
            self._connect()
        if self._full is not None:
            raise self._full
        if not self.writable:
            what = "to write to" if n_texts is None else f"that takes {n_texts} missing texts"
            raise PermissionError(f"{self.path}: expected a folder {what}, got one that cannot be written to")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes; may be entered again by the thread that holds it.

        What is done under the lock is done with the index that is in the folder.
        """
        depth: int = getattr(self._held, "depth", 0)
        # Without advisory locks, one writer at a time is the user's care.
        unlocked = not self.writable or not CAN_FLOCK or depth
        waiting = nullcontext(_say_nothing) if unlocked else locked(self.path / _LOCK, _PATIENCE_S)
        with waiting as alive:
            self._held.depth = depth + 1
            if not depth:
                self._held.alive = alive
            try:
                if not depth and self.writable and self._inode not in (None, self._current_inode()):
                    self._connect()
                yield
            finally:
                self._held.depth = depth

    def alive(self) -> None:
        """A sign of life for those that wait for the lock."""
        if getattr(self._held, "depth", 0):
            self._held.alive()

    def rebuild(self, broken: Index | None = None) -> None:
        """Make the index anew from the shards: in the folder, or in memory where that cannot be written to.

        Parameters
        ----------
        broken : Index, optional
            The one that is damaged; where another thread or process has put one in its place, that is used.
        """
        with self.locked():
            if broken is None or self._index is broken:
                self._make_index()

    def _asked(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer of the index, which is made anew where it is damaged."""
        if os.getpid() != self._pid:  # SQLite forbids to take a connection through a fork
            self._connect()
        for _ in range(2):
            index = self._index
            try:
                return question()
            except DamagedIndexError:
                self.rebuild(index)
            except sqlite3.ProgrammingError:
                if index is self._index:
                    raise  # the store was closed, and not the index that another thread has replaced
        return question()

    def _connect(self) -> None:
        """Open the index that is in the folder, for reading where its disk is full."""
        self._pid = os.getpid()
        self._inode = None
        self.writable = self._may_write
        if self.writable:
            with self._read_where_full(), self.locked():
                try:
                    self._use(Index(self.path / _INDEX_FILES[0]))
                except DamagedIndexError:
                    self._make_index()
                else:
                    remove_leftovers(self.path)
                    self._asked(self._reconcile)
                if self.writable:
                    self._full = None
        if not self.writable:
            self._open_to_read()

    @contextmanager
    def _read_where_full(self) -> Iterator[None]:
        """A block that is given up where the disk is full; from then on, the folder is only read."""
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            was_full, self._full, self.writable = self._full, error, False
            if was_full is None:
                warnings.warn(
                    f"the disk of the store {self.path} is full; stored vectors can be read, but none can be added",
                    UserWarning,
                    stacklevel=level_of_caller(),
                )

    def _open_to_read(self) -> None:
        try:
            index = Index(self.path / _INDEX_FILES[0], writable=False)
            is_current = self._is_current(index)
        except (DamagedIndexError, OSError):
            is_current = False
        if is_current:
            self._use(index)
            self._asked(self._learn)
        else:
            self._make_index()

    @abstractmethod
    def _learn(self) -> None:
        """Learn from the index what there is."""

    def _make_index(self) -> None:
        if self.writable:
            with self._read_where_full():
                with suppress(AttributeError):  # none was opened yet
                    self._index.close()
                for name in _INDEX_FILES:
                    (self.path / name).unlink(missing_ok=True)
                self._use(Index(self.path / _INDEX_FILES[0], first=self._n_numbers + 1))
                self._reconcile()
        if not self.writable:
            self._use(Index(None, writable=False, first=self._n_numbers + 1))
            self._reconcile()

    def _use(self, index: Index) -> None:
        self._index = index
        self._inode = self._current_inode()
        self._forget()

    def _current_inode(self) -> tuple[int, ...]:
        return file_state(self.path / _INDEX_FILES[0])[:1]
