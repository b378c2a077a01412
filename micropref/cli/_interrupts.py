"""Ctrl-C that is lost on its way: an import or a callback that it breaks off may raise another error instead."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interrupts_kept"]

# Errors of the work itself. After Ctrl-C, as where a model cannot be saved at the end, they are to be reported.
_OF_THE_WORK = (OSError, ValueError, MemoryError)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """A block that ends with a KeyboardInterrupt where Ctrl-C came in it and any other error came out of it.

    The system says that Ctrl-C came even where extension modules have put an error of their own in its place.

    Raises
    ------
    KeyboardInterrupt
    """
    with _heard() as was_heard:
        try:
            yield
        except Exception as error:
            if _is_interruption(error) or (was_heard() and not isinstance(error, _OF_THE_WORK)):
                raise KeyboardInterrupt from error
            raise


def _is_interruption(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error, as behind that of an import that it broke off."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@contextmanager
def _heard() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C has come since; always no where the system cannot tell: in other threads, and on Windows."""
    if os.name != "posix":
        yield lambda: False
        return
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    try:
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # only the main thread hears signals
        before = None

    def was_heard() -> bool:
        try:
            return signal.SIGINT in os.read(reader, 1 << 16)
        except BlockingIOError:
            return False

    try:
        yield was_heard
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
