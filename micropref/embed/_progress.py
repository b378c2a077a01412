"""How embedding shows that it goes on, and how Ctrl-C ends it without losing what was computed."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Self


class EmbeddingProgress:
    """A bar with rate, remaining time and truncations, on standard error where that is a terminal.

    Parameters
    ----------
    n_total : int or None
        Texts that will be looked at, if that is known.
    shown : bool or None
        Whether to show it; None: where standard error is a terminal.
    """

    def __init__(self, n_total: int | None, shown: bool | None = None):
        self.n_total = n_total
        self.shown = sys.stderr.isatty() if shown is None else shown
        self.n_seen = self.n_embedded = self.n_truncated = 0
        # Texts of one window come longest first: characters tell the remaining time better than texts.
        self.n_characters = self.n_waiting_characters = 0
        self.n_waiting = 0
        self.start = time.monotonic()
        self._bar: Any = None

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self.start

    @property
    def rate(self) -> float:
        """Texts embedded per second so far."""
        return self.n_embedded / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> float | None:
        """Estimated seconds to the end; None while nothing is known of it."""
        if self.n_total is None or not self.n_characters:
            return None
        # Of the texts not looked at yet, as many are taken to be missing, and as long, as of those that were.
        ahead = max(self.n_total - self.n_seen, 0)
        total = self.n_characters + self.n_waiting_characters
        characters = self.n_waiting_characters + (ahead * total / self.n_seen if self.n_seen else 0.0)
        return self.seconds * characters / self.n_characters

    def looked_at(self, n_texts: int, n_missing: int, n_characters: int) -> None:
        """Texts of the input were looked up; some are missing, with so many characters."""
        self.n_seen += n_texts
        self.n_waiting += n_missing
        self.n_waiting_characters += n_characters
        self._update()

    def embedded(self, n_texts: int, n_characters: int, n_truncated: int) -> None:
        """Texts were embedded."""
        self.n_embedded += n_texts
        self.n_waiting -= n_texts
        self.n_characters += n_characters
        self.n_waiting_characters -= n_characters
        self.n_truncated += n_truncated
        self._update()

    def summary(self) -> str:
        """What happened, in a few words."""
        parts = [f"{self.n_embedded} embedded", f"{self.rate:.0f} texts/s"]
        if self.n_truncated:
            parts.append(f"{self.n_truncated} truncated")
        if self.remaining is not None:
            parts.append(f"{_clock(self.remaining)} left")
        return ", ".join(parts)

    def _update(self) -> None:
        if not self.shown or not (self.n_waiting or self.n_embedded):  # nothing is missing yet
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            console = Console(file=sys.stderr, force_terminal=True)
            self._bar = Progress(
                TextColumn("Embedding"), BarColumn(), TextColumn("{task.description}"), console=console, transient=True
            )
            self._task = self._bar.add_task("", total=self.n_total)
            self._bar.start()
        self._bar.update(self._task, completed=self.n_seen - self.n_waiting, description=self.summary())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class Interruption:
    """Turns the first Ctrl-C into a wish to stop, so that what was computed is kept; the second one stops at once.

    Only the main thread hears signals, and only Python's own handler is replaced: a program that handles Ctrl-C itself
    goes on doing so.

    Parameters
    ----------
    notice : str
        What to print on standard error at the first Ctrl-C.
    """

    def __init__(self, notice: str):
        self.notice = notice
        self.wished = False
        self._replaced = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._hear)
            self._replaced = True
        return self

    def __exit__(self, *exception: object) -> None:
        if self._replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._replaced = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.wished = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(self.notice, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
