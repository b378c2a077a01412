"""How a long fit shows that it goes on: a bar where a person is watching, lines where verbose asks for them."""

from __future__ import annotations

import sys
from typing import Any, Self


def say(verbose: int, line: str) -> None:
    """Print what a fit has chosen where verbose asks for lines, that is, where no bar is shown."""
    if verbose and not sys.stderr.isatty():
        print(line)


class FitProgress:
    """Progress over the starts of a fit.

    With ``verbose=0`` nothing is shown. Otherwise a bar on standard error if that is a terminal; if not, a line per
    start on standard output, and with ``verbose=2`` one per iteration.

    Parameters
    ----------
    verbose : int
    n_starts, max_iter : int
    """

    def __init__(self, verbose: int, n_starts: int, max_iter: int):
        self.verbose = verbose
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.n_done = 0
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self.verbose and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(file=sys.stderr), transient=True)
            self._task = self._bar.add_task(self._title(), total=self.n_starts * self.max_iter)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def iteration(self, value: float) -> None:
        """One iteration ended at this value of the objective, in nats."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{self._title()}, objective {value:.4f}")
        elif self.verbose > 1:
            print(f"  objective {value:.6f}")

    def start_ended(self, value: float, n_iter: int) -> None:
        """One start ended."""
        self.n_done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self.n_done * self.max_iter, description=self._title())
        elif self.verbose:
            print(f"start {self.n_done} of {self.n_starts}: objective {value:.6f} after {n_iter} iterations")

    def _title(self) -> str:
        return f"start {min(self.n_done + 1, self.n_starts)} of {self.n_starts}"
