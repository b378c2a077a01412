"""The command `micropref`: from a file of comparisons to a personalised judgement."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from micropref._support.renamed import moved

# Importing a family of commands registers it; this order is the order of the help.
from micropref.cli import (  # noqa: F401
    _ask,
    _bench,
    _demo,
    _doctor,
    _embed,
    _info,
    _models,
    _reproduce,
    _serve,
    _theory,
)
from micropref.cli._app import app, err
from micropref.cli._interrupts import interrupts_kept
from micropref.cli._streams import standard_streams

__all__ = ["app", "main"]

__getattr__ = moved(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and exit.

    Exit codes: 0, 1 for bad data or a bad model, 2 for bad usage, 130 when interrupted.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments of the command; None: those of the process.

    Raises
    ------
    SystemExit
        Always, with the exit code.
    """
    try:
        with standard_streams(), interrupts_kept():
            app(args=None if arguments is None else list(arguments))
    except _imported("micropref.distributed", "RankError") as error:
        # The process that failed reports its own error, and of the others one report is enough, unless it has died.
        if os.environ.get("RANK", "0") == "0" or error.rank is None:  # type: ignore[attr-defined]
            err.print(f"micropref: error: {error}")
        sys.exit(1)
    except MemoryError as error:
        err.print(f"micropref: error: {error or 'expected work that fits into memory, got more than that'}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except _reported() as error:
        err.print(f"micropref: error: {error}")
        sys.exit(1)


def _reported() -> tuple[type[BaseException], ...]:
    """Errors of which the message is enough."""
    return (ValueError, TypeError, OSError, ImportError, *_imported("sqlite3", "Error"))


def _imported(module: str, name: str) -> tuple[type[BaseException], ...]:
    """An exception of a module, which only a command that has imported it can raise; to import it here takes time."""
    loaded = sys.modules.get(module)
    return () if loaded is None else (getattr(loaded, name),)
