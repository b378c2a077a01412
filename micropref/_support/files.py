"""Files that several processes write: one writer at a time, and every file either the old or the new one."""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from micropref._support.warnings import level_of_caller

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_FLOCK = fcntl is not None
# What flock answers on file systems without it, such as Lustre mounted without its option.
_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05
_SILENT_S = 3.0  # a wait that is longer is said
_SIGNATURE_BYTES = 32


def is_full(error: OSError) -> bool:
    """Whether an error means that the disk, or what a user may take of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def check_folder(path: Path, *, create: bool = True) -> None:
    """Whether results can be written to a folder, before the work that they take.

    Parameters
    ----------
    path : Path
    create : bool, default=True
        Whether the folder, and those above it, are created. Otherwise nothing is written, and a folder that is not
        there is judged by the one in which it would be.

    Raises
    ------
    OSError
        If it is no folder, or none that can be written to; a full disk comes out as it is.
    """
    try:
        if create:
            path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=path):
                return
        there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one))
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{there} may not be written to")
    except OSError as error:
        if is_full(error):
            raise
        # The errors of a system have the path as well, which is not said twice.
        raise type(error)(f"expected a folder that can be written to, got {path} ({error.strerror})") from None


@contextmanager
def locked(path: Path, patience: float) -> Iterator[Callable[[], None]]:
    """Hold a lock file that stays and names its holder; wait for another process or thread that holds it.

    The system releases the lock when its holder ends, however it ends. It needs `CAN_FLOCK`. A wait of some seconds
    is said in a warning that names the holder.

    Parameters
    ----------
    path : Path
        The lock file, in a folder that exists.
    patience : float
        Seconds to wait without a sign of life: another holder, or a call of what this yields.

    Yields
    ------
    alive : callable
        A sign of life, for a holder whose work takes long.

    Raises
    ------
    TimeoutError
        If there was no sign of life for so long; the holder is named.
    """
    descriptor = _waited_for(path, patience)
    try:
        with suppress(OSError):  # a disk that is full has no room for a name, and locks all the same
            os.pwrite(descriptor, f"{os.getpid()}".encode().ljust(_SIGNATURE_BYTES), 0)
        yield partial(os.utime, descriptor)
    finally:
        _release(descriptor)


def _waited_for(path: Path, patience: float) -> int:
    """A descriptor that holds the lock."""
    start = since = time.monotonic()
    seen, pause, is_said = file_state(path), _FIRST_PAUSE_S, False
    while (descriptor := _flocked(path)) is None:
        now, state = time.monotonic(), file_state(path)
        if state != seen:
            seen, since = state, now
        if now - since > patience:
            raise TimeoutError(
                f"expected the lock {path} to be free within {patience:g} s, got one that {_holder(path)} holds "
                "without any activity; let that process continue or end it, then try again"
            )
        if now - start > _SILENT_S and not is_said:
            is_said = True
            warnings.warn(
                f"waiting for the lock {path}, which {_holder(path)} holds", UserWarning, stacklevel=level_of_caller()
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return descriptor


def _holder(path: Path) -> str:
    """Who holds a lock, as far as that is known."""
    try:
        process = int(path.read_bytes()[:_SIGNATURE_BYTES])
    except (OSError, ValueError):
        return "another process"
    if process == os.getpid():
        return f"another thread of this process ({process})"
    try:
        # The state follows the name of the program, which may hold anything, in parentheses.
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        state = b""
    return f"the process {process}{' (it is stopped)' if state in (b'T', b't') else ''}"


@contextmanager
def briefly_locked(path: Path, timeout: float) -> Iterator[Path]:
    """Hold a lock file that is there only while it is held; its holder may read and write it.

    A file that a killed process left does not block, because the system has released its lock; what that process wrote
    into it is still there. Where there is no flock, the lock is that a file of the same name and ".held" exists; if its
    holder is killed, it has to be removed by hand.

    Parameters
    ----------
    path : Path
        The lock file, in a folder that exists.
    timeout : float
        Seconds to wait for another process or thread.

    Yields
    ------
    lock : Path
        The file that is held.

    Raises
    ------
    TimeoutError
        If the lock is not free by then; the lock file is named.
    """
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE_S
    substitute = path.with_name(f"{path.name}.held")
    while (taken := _taken(path, substitute)) is None:
        if time.monotonic() > deadline:
            by_hand = f"; if no process writes there any more, remove {substitute}" if substitute.exists() else ""
            raise TimeoutError(
                f"expected the lock {path} to be free within {timeout:g} s, got one that another process holds{by_hand}"
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    held, release = taken
    try:
        yield held
    finally:
        release()


def _taken(path: Path, substitute: Path) -> tuple[Path, Callable[[], None]] | None:
    """The file that is held, and what removes it and releases the lock; None if another process holds it."""
    if CAN_FLOCK:
        try:
            descriptor = _flocked(path)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            path.unlink(missing_ok=True)
        else:
            return None if descriptor is None else (path, partial(_remove_and_release, path, descriptor))
    try:
        os.close(os.open(substitute, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return None
    return substitute, partial(substitute.unlink, missing_ok=True)


def _flocked(path: Path) -> int | None:
    """A descriptor that holds the lock; None if another holds it, or if the file was removed meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _remove_and_release(path: Path, descriptor: int) -> None:
    # In this order: who opened the file meanwhile sees, once it holds the lock, that the file has no name any more.
    path.unlink(missing_ok=True)
    _release(descriptor)


def _release(descriptor: int) -> None:
    # Closing is not enough where a process was forked meanwhile, which has the open file, too.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[Path]:
    """A temporary name to write to: at the end its bytes go to the disk, it takes the name, and the folder follows.

    Where anything fails, what has that name stays as it was.
    """
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # os.write and os.fsync know no names
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or the names of a folder, to the disk, where the system can."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced: inode, size, times of the last changes; empty without a file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    # The second time is that of the inode, which no program can set back.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
