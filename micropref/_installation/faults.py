"""Errors of other libraries in one line."""

from __future__ import annotations

__all__ = ["sentence"]

_MOST_LETTERS = 300


def sentence(error: BaseException) -> str:
    """Kind and first line of an error."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kind = type(error).__name__
    return f"{kind}: {text}"[:_MOST_LETTERS] if text else kind
