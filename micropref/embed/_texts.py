"""The texts that may be embedded."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

from micropref.datasets._text import is_blank, is_unicode


def check_texts(texts: Sequence[str], what: str = "text", *, allow_blank: bool = False, start: int = 0) -> list[str]:
    """The texts as a list, or an error that names the first one that cannot be embedded.

    Parameters
    ----------
    texts : sequence of str
    what : str, default="text"
        What one of them is, for the error.
    allow_blank : bool, default=False
        Whether a text may be empty, or nothing but white space.
    start : int, default=0
        Number of the first one, where the texts are a part of a longer stream.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError
        If `texts` is a single string, or one of them is not a string.
    ValueError
        If a text is blank or holds a lone surrogate, which no encoding can write.
    """
    if isinstance(texts, str):
        raise TypeError(f"expected a list of strings, got one string, {reprlib.repr(texts)}")
    texts = list(texts)
    for index, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise TypeError(f"{what} {index}: expected a string, got {reprlib.repr(text)} ({type(text).__name__})")
        if not allow_blank and is_blank(text):
            raise ValueError(f"{what} {index}: expected something to read, got {reprlib.repr(text)}")
        if not is_unicode(text):
            raise ValueError(f"{what} {index}: expected text that can be written as UTF-8, got a lone surrogate")
    return texts
