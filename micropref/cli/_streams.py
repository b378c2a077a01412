"""Standard streams of a command that may be closed, full, or a pipe whose reader has left."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["standard_streams"]

_MODES = ("r", "w", "w")


@contextmanager
def standard_streams() -> Iterator[None]:
    """A block in which printing is safe; at its end everything is written.

    A stream that is closed is one without readers or content. Where the reader of a pipe leaves, as ``head`` does, the
    rest is written nowhere, and the command goes on: its model matters more than its report.

    Raises
    ------
    OSError
        If what was printed cannot be written, as on a full disk.
    """
    _open_closed()
    if type(sys.stdout) is io.TextIOWrapper:
        # A terminal that cannot show a letter shows a question mark instead.
        sys.stdout.reconfigure(errors="replace")
        if sys.stdout.fileno() == 1:
            sys.stdout.flush()
            sys.stdout = _Output(sys.stdout)
    try:
        yield
    finally:
        _write_out()


def _open_closed() -> None:
    """Open the null device in place of standard streams that are closed, so that no other file gets their numbers."""
    for number, (name, mode) in enumerate(zip(("stdin", "stdout", "stderr"), _MODES, strict=True)):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  it is open until the process ends


def _write_out() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        if isinstance(sys.stdout, _Output):
            sys.stdout.give_up()  # Python would try again at its end, and complain
        error.filename = error.filename or "standard output"
        raise


class _Output(io.TextIOWrapper):
    """Standard output whose reader may leave."""

    def __init__(self, plain: io.TextIOWrapper):
        buffer = io.BufferedWriter(io.FileIO(plain.fileno(), "w", closefd=False))
        super().__init__(
            buffer, encoding=plain.encoding, errors=plain.errors, line_buffering=plain.line_buffering, newline=None
        )
        self._plain = plain  # it would close the descriptor

    def give_up(self) -> None:
        """Write nowhere from now on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self.give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self.give_up()
