"""What an encoder is, and the texts it may be given."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from micropref.datasets._text import is_blank, is_unicode


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors; any object with these two members is one.

    An encoder may also have ``n_truncated_total_``, the number of texts so far that were longer than it reads;
    ``count_truncated(texts)``, how many of some texts are; and ``batch_size``, how many it embeds together.
    """

    @property
    def fingerprint(self) -> str:
        """Names everything that the vectors depend on; two encoders that share it give the same vectors.

        That is the model and its revision or content, pooling, prompt, maximum length, dtype, normalisation, dimension.
        """

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            `PairEncoder` never asks for a blank one. An `EmbeddingStore` does where it was given one: it wants a
            vector, zeros for instance, or an error that names the text.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32
        """


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
        raise TypeError(f"found one string, {reprlib.repr(texts)}, wanted a list of strings")
    texts = list(texts)
    for index, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise TypeError(f"{what} {index}: found {reprlib.repr(text)} ({type(text).__name__}), wanted a string")
        if not allow_blank and is_blank(text):
            raise ValueError(f"{what} {index}: found {reprlib.repr(text)}, wanted something to read")
        if not is_unicode(text):
            raise ValueError(f"{what} {index}: found a lone surrogate, wanted text that can be written as UTF-8")
    return texts
