"""HashingEncoder: words hashed and projected at random. Nothing to download, nothing to train, nothing to truncate."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import HashingVectorizer

from micropref._support.cached import cached_property
from micropref.embed._texts import check_texts

__all__ = ["HashingEncoder"]

# Words, single punctuation marks and line breaks: taste shows in lists, exclamations and brackets.
_TOKEN = r"(?u)\w+|[^\w\s]|\n"
_TARGETS_PER_HASH = 8
_LENGTH_WEIGHT = 0.1
_BLOCK_ROWS = 4096
# Part of the fingerprint. Raise it whenever the vectors change.
_SCHEME = 1


class HashingEncoder:
    """Embed texts by their words, punctuation and length; the same vectors on every machine.

    scikit-learn's `HashingVectorizer` counts tokens with signs in `n_hashes` bins. Every bin is added, with signs, to
    eight coordinates drawn from a seeded stream; the sum is scaled to length 1. One more coordinate, the last, is
    ``0.1 * log(1 + number of tokens)``: scaling removes the length of a text, and preferences depend on it.

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
        for start in range(0, len(texts), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            counts = csr_array(self._vectorizer.transform(texts[rows]))
            sums = (counts @ self._projection).toarray()
            # Integers: a sum that is not 0 has a norm of at least 1.
            norms = np.maximum(np.sqrt((sums * sums).sum(axis=1)), 1.0)
            vectors[rows, :-1] = sums / norms[:, None]
            vectors[rows, -1] = _LENGTH_WEIGHT * np.log1p(abs(counts).sum(axis=1))
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """No text is ever cut: 0.

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
        """Names the scheme and every parameter."""
        parameters = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"hashing(scheme={_SCHEME}, {parameters}, max_length=None, normalize=True, dtype='float32')"

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
        """
        return {name: getattr(self, name) for name in ("n_features", "n_hashes", "ngram_range", "seed")}

    @cached_property
    def _vectorizer(self) -> HashingVectorizer:
        return HashingVectorizer(
            n_features=self.n_hashes, token_pattern=_TOKEN, ngram_range=self.ngram_range, norm=None, alternate_sign=True
        )

    @cached_property
    def _projection(self) -> csr_array:
        # RandomState's streams are frozen by NumPy's compatibility policy; the dtype is named because the default one,
        # and with it the stream, differs between systems.
        stream = np.random.RandomState(self.seed)
        n_entries = self.n_hashes * _TARGETS_PER_HASH
        coordinates = stream.randint(0, self.n_features - 1, size=n_entries, dtype=np.int32)
        signs = 2.0 * stream.randint(0, 2, size=n_entries, dtype=np.int32) - 1.0
        starts = np.arange(0, n_entries + 1, _TARGETS_PER_HASH, dtype=np.int32)
        return csr_array((signs, coordinates, starts), shape=(self.n_hashes, self.n_features - 1))

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation can share one projection.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __repr__(self) -> str:
        parameters = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"HashingEncoder({parameters})"


def _check_integer(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
