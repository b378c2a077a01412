"""Questions about texts that every reader asks."""

from __future__ import annotations

from collections.abc import Iterable


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded, that is, holds no lone half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in the text."""
    return not text or text.isspace()


def listed(names: Iterable[object]) -> str:
    """Names for a message: ``'a', 'b'``, or "none"."""
    return ", ".join(map(repr, names)) or "none"
