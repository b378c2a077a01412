"""The command, as ``python -m micropref`` and as the script ``micropref``.

It imports hardly anything: Ctrl-C gives a traceback until `main` is called.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["main"]


def main() -> None:
    """Run the command; Ctrl-C ends it without a traceback at any time, while its packages are imported, too."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        # Until a command runs there is nothing to tidy up, and half of an import raises whatever it likes.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.unraisablehook = _end_where_interrupted
    from micropref.cli import main as run

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended; what is left is Python's own end


def _end_where_interrupted(lost: UnraisableHookArgs) -> None:
    """End where Ctrl-C came in the middle of a callback, which loses all errors; others are reported as ever."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        os._exit(130)
    sys.__unraisablehook__(lost)


if __name__ == "__main__":
    main()
