"""Words for numbers."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """A number with its noun in the plural but after 1: "1 head", "2 heads", "0 processes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n} {noun if n == 1 else plural}"
