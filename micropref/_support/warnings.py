"""Where a warning points: at the user's line, however deep in the library it arose."""

from __future__ import annotations

import sys

__all__ = ["level_of_caller"]

# scikit-learn calls an estimator's methods and is called by them, and contextlib enters the library's own blocks: the
# line that a warning is about is in none of them.
_INNER_PACKAGES = frozenset(("micropref", "sklearn", "contextlib"))


def level_of_caller() -> int:
    """The `stacklevel` for a warning of the function that calls this: its nearest frame outside of the library.

    Frames of micropref, of scikit-learn and of contextlib are passed over. Where there are no others, it is the
    outermost frame.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _INNER_PACKAGES:
        level, frame = level + 1, frame.f_back
    return level
