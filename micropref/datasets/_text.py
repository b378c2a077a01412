"""Questions about texts that every reader asks."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["is_blank", "is_unicode", "listed", "reads_like_text"]

# Words beside each other, the end of a sentence, or several letters of scripts that write no spaces between words.
_TEXT = re.compile(r"\S\s+\S|[?!.…。？！]$|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{4}")


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


def reads_like_text(cell: object) -> bool:
    """Whether a cell reads like something that is said, and not like an id, a number or a category."""
    return isinstance(cell, str) and _TEXT.search(cell.strip()) is not None
