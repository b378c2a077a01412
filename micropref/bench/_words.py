"""Numbers with their nouns, for the text of reports."""

from __future__ import annotations


def counted(n: int, noun: str, plural: str = "") -> str:
    """`n` and the noun, in the singular for one thing alone."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
