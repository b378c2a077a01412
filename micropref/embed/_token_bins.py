"""The tokens of texts as numbered bins: each piece of a text is cut and hashed once, and kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import murmurhash3_32

__all__ = ["TokenBins"]

# Words, single punctuation marks and line breaks: taste shows in lists, exclamations and brackets.
_tokens = re.compile(r"(?u)\w+|[^\w\s]|\n").findall
# Pieces that are kept, and the length of the longest: some 40 MB at most.
_MOST_PIECES = 1 << 17
_LONGEST_PIECE = 64
_BYTES = np.dtype(np.int32).itemsize


class TokenBins:
    """Bins of the tokens of texts, with signs.

    The bin and the sign of a token are those of scikit-learn's `FeatureHasher`: |h| modulo the number of bins, and the
    sign of h, where h is its 32-bit MurmurHash3. A negative token of bin b is the number ``~b``.

    What is kept saves time and changes no number; it is bounded, and may be used by several threads.

    Parameters
    ----------
    n_bins : int
    ngram_range : tuple of two int
        Shortest and longest run of tokens that is hashed.
    """

    def __init__(self, n_bins: int, ngram_range: tuple[int, int]):
        self._is_single = ngram_range == (1, 1)
        self._ngram_range = ngram_range
        # Without runs, no token reaches over white space, so that words with their punctuation can be kept as a whole.
        self._kept = _Kept(n_bins, _tokens if self._is_single else _alone)

    def of(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Signed bins of all tokens, text after text, though not in the order of each text.

        Parameters
        ----------
        texts : iterable of n str

        Returns
        -------
        signed_bins : ndarray of shape (n_tokens,), dtype int32
        starts : ndarray of shape (n + 1,), dtype int64
            Those of text i are ``signed_bins[starts[i]:starts[i + 1]]``.
        """
        cut = self._of_single if self._is_single else self._of_runs
        found = [cut(text.lower()) for text in texts]
        starts = np.zeros(len(found) + 1, dtype=np.int64)
        np.cumsum([len(each) // _BYTES for each in found], out=starts[1:])
        return np.frombuffer(bytearray().join(found), dtype=np.int32), starts

    def _of_single(self, text: str) -> bytes:
        bins_of = self._kept.__getitem__
        found = b"".join(map(bins_of, text.split()))
        n_lines = text.count("\n")  # the only white space that is a token
        return found + n_lines * bins_of("\n") if n_lines else found

    def _of_runs(self, text: str) -> bytes:
        return b"".join(map(self._kept.__getitem__, _runs(_tokens(text), self._ngram_range)))


class _Kept(dict[str, bytes]):
    """Signed bins of pieces of text, as bytes; pieces that are not there are cut into tokens, and kept if short."""

    def __init__(self, n_bins: int, tokens_of: Callable[[str], Sequence[str]]):
        super().__init__()
        self._n_bins = n_bins
        self._tokens_of = tokens_of

    def __missing__(self, piece: str) -> bytes:
        hashes = [murmurhash3_32(token.encode()) for token in self._tokens_of(piece)]
        bins = [abs(h) % self._n_bins if h >= 0 else ~(abs(h) % self._n_bins) for h in hashes]
        found = np.array(bins, dtype=np.int32).tobytes()
        if len(piece) <= _LONGEST_PIECE:
            if len(self) >= _MOST_PIECES:
                self.clear()  # what is frequent comes back at once
            self[piece] = found
        return found


def _alone(token: str) -> tuple[str]:
    return (token,)


def _runs(tokens: Sequence[str], ngram_range: tuple[int, int]) -> Iterable[str]:
    """All runs of so many tokens, each joined by blanks."""
    shortest, longest = ngram_range
    return chain.from_iterable(
        (" ".join(tokens[first : first + length]) for first in range(len(tokens) - length + 1))
        for length in range(shortest, longest + 1)
    )
