"""What an error of SQLite says about the index of a store: that the disk is full, that it is locked, or damage."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DamagedIndexError", "faults_named"]

# The second one: no room for the memory that processes share, a file beside the index.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
# The low byte of a code is its kind; the rest says more.
_LOCKED_KINDS = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_LOCKED = {
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
}
# Of what SQLite reads from a damaged file, Python can make as little.
_DAMAGE = (sqlite3.Error, UnicodeError, KeyError, TypeError, ValueError, OverflowError)


class DamagedIndexError(ValueError):
    """An index that does not say what was written; it is made anew from the shards."""


@contextmanager
def faults_named(path: Path | None, writable: bool = True) -> Iterator[None]:
    """A block that asks SQLite; its errors come out as one of three kinds, told apart by SQLite's codes.

    Parameters
    ----------
    path : Path or None
        Of the index, which errors name; None for one in memory.
    writable : bool, default=True
        Whether the folder may be written to, to find out why a file cannot be opened there.

    Raises
    ------
    OSError
        If the disk is full, or the system refuses to open files.
    TimeoutError
        If another process holds SQLite's own lock.
    DamagedIndexError
        Whatever else SQLite, or Python in reading its answers, finds.
    """
    try:
        yield
    except (DamagedIndexError, sqlite3.ProgrammingError):  # the second one: a store that was closed
        raise
    except _DAMAGE as error:
        raise _named(error, path, writable) from error


def _named(error: Exception, path: Path | None, writable: bool) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    if code in _FULL:
        return OSError(errno.ENOSPC, f"expected room for the index of the store, got a full disk ({error})", str(path))
    if code is not None and (code in _LOCKED or code & 0xFF in _LOCKED_KINDS):
        return TimeoutError(
            f"{path}: expected an index that can be locked, got one that another process keeps locked ({error}); end "
            "the process that has the file open, or move the folder to a disk with locks, and repeat"
        )
    if code is not None and code & 0xFF == sqlite3.SQLITE_CANTOPEN and path is not None and writable:
        refused = _refusal(path)
        if refused is not None:
            return refused
    return DamagedIndexError(f"{path}: expected the index of a store, got one that is damaged: {error}")


def _refusal(path: Path) -> OSError | None:
    """Why the system makes no file beside the index: want of room, of descriptors, of rights; None if it does."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.probe")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT, 0o600))
        probe.unlink()
    except OSError as error:
        return error
    return None
