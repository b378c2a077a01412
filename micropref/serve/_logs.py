"""Structured logs: one JSON object a line on standard error, without texts and ids unless asked for."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Log"]


class Log:
    """What happens, for machines to read.

    Parameters
    ----------
    stream : file, optional
        None: standard error.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream

    def write(self, event: str, *, level: str = "info", **more: Any) -> None:
        """Write an event; where the stream is closed or full, nothing happens."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, "level": level, "event": event, **more}, ensure_ascii=True)
        try:
            stream = self._stream or sys.stderr
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass

    def failure(self, event: str, error: BaseException, **more: Any) -> None:
        """Write where an error came from: its type and lines of code, but not its message, which may hold texts."""
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        self.write(event, level="error", error=type(error).__name__, places=places, **more)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Write what libraries warn of as events, too."""
        handler = _Handler(self)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


class _Handler(logging.Handler):
    """Warnings of libraries, without what was put into their messages, which may be texts."""

    def __init__(self, log: Log):
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level, source = record.levelname.lower(), record.name
        if record.exc_info and record.exc_info[1] is not None:
            self._log.failure("library", record.exc_info[1], source=source)
        else:
            self._log.write("library", level=level, source=source, place=f"{record.filename}:{record.lineno}")
