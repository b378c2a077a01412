"""HashingEncoder: words hashed and projected at random. Nothing to download, nothing to train, nothing to truncate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from micropref._support.cached import cached_property
from micropref.embed._texts import check_texts
from micropref.embed._token_bins import TokenBins

__all__ = ["HashingEncoder"]

_TARGETS_PER_HASH = 8
_LENGTH_WEIGHT = 0.1
# Texts, and characters, whose sums are dense at the same time.
_BLOCK_ROWS = 1_024
_BLOCK_LETTERS = 1 << 20
# Part of the fingerprint. Raise it whenever the vectors change.
_SCHEME = 1


class _Projection(NamedTuple):
    """Where each bin is added, and with which signs; both of shape (n_hashes, 8)."""

    coordinates: NDArray[np.int32]
    signs: NDArray[np.int8]


class HashingEncoder:
    """Embed texts by their words, punctuation and length; the same vectors on every machine.

    Tokens are counted with signs in `n_hashes` bins, as scikit-learn's `HashingVectorizer` does. Every bin is added,
    with signs, to eight coordinates drawn from a seeded stream; the sum is scaled to length 1. One more coordinate, the
    last, is ``0.1 * log(1 + number of tokens)``: scaling removes the length of a text, and preferences depend on it.

    Counts and signs are integers, so their sums are exact: vectors do not depend on the machine, the batch or the
    order of summation. No text is ever cut.

    Parameters
    ----------
    n_features : int, default=768
        Dimension of the vectors, the length's coordinate included. At least 2.
    n_hashes : int, default=2**18
        Number of bins.
    ngram_range : tuple of two int, default=(1, 1)
        Shortest and longest run of tokens that is counted.
    seed : int, default=0
        Seed of the projection.

    Examples
    --------
    >>> from micropref.embed import HashingEncoder
    >>> HashingEncoder(n_features=16).encode(["Keep it short.", "Tell me more, please!"]).shape
    (2, 16)
    """

    def __init__(
        self, n_features: int = 768, *, n_hashes: int = 2**18, ngram_range: tuple[int, int] = (1, 1), seed: int = 0
    ):
        _check_integer("n_features", n_features, 2)
        _check_integer("n_hashes", n_hashes, 1)
        _check_integer("seed", seed, 0)
        shortest, longest = ngram_range
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"ngram_range: expected (shortest, longest) with 1 <= shortest <= longest, got {ngram_range!r}"
            )
        self.n_features = int(n_features)
        self.n_hashes = int(n_hashes)
        self.ngram_range = (int(shortest), int(longest))
        self.seed = int(seed)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            A blank text without line breaks is a vector of zeros.

        Returns
        -------
        vectors : ndarray of shape (n, n_features), dtype float32

        Raises
        ------
        TypeError, ValueError
            If a text is not a string, or cannot be written as UTF-8; the message has its index.
        """
        texts = check_texts(texts, allow_blank=True)
        vectors = np.empty((len(texts), self.n_features), dtype=np.float32)
        for rows in _blocks(texts):
            counts = self._counts(texts[rows])
            sums = self._sums(counts)
            # Integers: a sum that is not 0 has a norm of at least 1.
            norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", sums, sums)), 1.0)
            np.divide(sums, norms[:, None], out=vectors[rows, :-1], casting="same_kind")
            vectors[rows, -1] = _LENGTH_WEIGHT * np.log1p(abs(counts).sum(axis=1))
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Always 0, because this encoder reads texts of any length.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        n_truncated : int
        """
        return 0

    @property
    def fingerprint(self) -> str:
        """Text that names the scheme and every parameter."""
        parameters = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"hashing(scheme={_SCHEME}, {parameters}, max_length=None, normalize=True, dtype='float32')"

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
        """
        return {name: getattr(self, name) for name in ("n_features", "n_hashes", "ngram_range", "seed")}

    def _counts(self, texts: Sequence[str]) -> csr_array:
        """How often the tokens of each text are in each bin, with signs; of shape (n, n_hashes)."""
        signed, starts = self._bins.of(texts)
        is_negative = signed < 0
        entries = np.where(is_negative, -1.0, 1.0), np.where(is_negative, ~signed, signed), starts
        counts = csr_array(entries, shape=(len(texts), self.n_hashes))
        counts.sum_duplicates()
        return counts

    def _sums(self, counts: csr_array) -> NDArray[np.float64]:
        """The counts added, with signs, to the coordinates of their bins; of shape (n, n_features - 1)."""
        coordinates, signs = self._projection
        added = signs.take(counts.indices, axis=0).astype(np.float64)  # take: three times as fast as an index
        added *= counts.data[:, None]
        starts = counts.indptr.astype(np.int64) * _TARGETS_PER_HASH
        spread = (added.ravel(), coordinates.take(counts.indices, axis=0).ravel(), starts)
        # Entries of one coordinate are added where they become dense.
        sums: NDArray[np.float64] = csr_array(spread, shape=(counts.shape[0], self.n_features - 1)).toarray()
        return sums

    @cached_property
    def _bins(self) -> TokenBins:
        return TokenBins(self.n_hashes, self.ngram_range)

    @cached_property
    def _projection(self) -> _Projection:
        # RandomState's streams are frozen by NumPy's compatibility policy; the dtype is named because the default one,
        # and with it the stream, differs between systems.
        stream = np.random.RandomState(self.seed)
        shape = (self.n_hashes, _TARGETS_PER_HASH)
        coordinates = stream.randint(0, self.n_features - 1, size=shape, dtype=np.int32)
        signs = 2 * stream.randint(0, 2, size=shape, dtype=np.int32) - 1
        return _Projection(coordinates, signs.astype(np.int8))

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation can share one projection.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __repr__(self) -> str:
        parameters = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"HashingEncoder({parameters})"


def _blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Texts that follow each other: few enough that what is computed of them at a time stays small."""
    start = n_letters = 0
    for end, text in enumerate(texts, 1):
        n_letters += len(text)
        if end - start == _BLOCK_ROWS or n_letters >= _BLOCK_LETTERS or end == len(texts):
            yield slice(start, end)
            start, n_letters = end, 0


def _check_integer(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
