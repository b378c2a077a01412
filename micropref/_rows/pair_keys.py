"""Which rows are the same pair: 64 bits for every difference, the same for a pair that stands the other way round."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, to_numpy

__all__ = [
    "NoQuestionLeftError",
    "askable_rows",
    "best_of_each_pair",
    "check_n_queries",
    "owned_keys",
    "pair_keys",
    "row_keys",
]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_WORD = (1 << 64) - 1
_BLOCK_ROWS = 4096


class NoQuestionLeftError(ValueError):
    """All candidates have been answered."""


def pair_keys(differences: Array) -> NDArray[np.uint64]:
    """A key for every row; two rows have the same key if they are equal in single precision up to their sign.

    Others share one by chance alone, once in 2⁴⁰ pairs of rows or less.

    Parameters
    ----------
    differences : array of shape (n, n_features)

    Returns
    -------
    keys : ndarray of uint64 of shape (n,)
    """
    n, width = differences.shape
    if n == 1 and isinstance(differences, np.ndarray):
        return _key_of_one(differences[0])
    keys = np.empty(n, dtype=np.uint64)
    n_words = (width + 1) // 2
    factors = _factors(n_words)
    for start in range(0, n, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(to_numpy(differences[rows]), dtype=np.float32)
        leading = block[:, 0]
        if not leading.all():
            leading = block[np.arange(len(block)), (block != 0).argmax(axis=1)]
        words = np.zeros((len(block), 2 * n_words), dtype=np.float32)
        np.multiply(block, np.where(leading < 0, np.float32(-1), np.float32(1))[:, None], out=words[:, :width])
        # The negative zero becomes the positive one.
        words += np.float32(0)
        total = np.einsum("ij,j->i", words.view(np.uint64), factors)
        total ^= total >> _HALF
        keys[rows] = total * _ODD
    return keys


def row_keys(contexts: Array, differences: Array) -> NDArray[np.uint64]:
    """A key for every row, the same only for the same pair in the same context."""
    contexts = np.asarray(to_numpy(contexts), dtype=np.float32)
    # A context and its negative differ: the constant fixes the sign.
    fixed = np.concatenate([np.ones((len(contexts), 1), dtype=np.float32), contexts], axis=1)
    keys: NDArray[np.uint64] = pair_keys(differences) * _ODD + pair_keys(fixed)
    return keys


def owned_keys(owners: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys of pairs together with a number for whom they are."""
    mixed: NDArray[np.uint64] = keys * _ODD + (owners + np.uint64(1)) * (_ODD ^ (_ODD >> np.uint64(7)))
    return mixed


def askable_rows(
    keys: NDArray[np.uint64], n_queries: object, answered: NDArray[np.uint64] | None = None
) -> NDArray[np.intp]:
    """Rows that can be asked: the first one of every key that was not answered.

    Parameters
    ----------
    keys : ndarray of uint64 of shape (n,)
    n_queries : int
        Number of questions.
    answered : ndarray of uint64, optional
        Keys of the pairs that were answered.

    Raises
    ------
    NoQuestionLeftError
        If there are no such rows.
    ValueError
        Unless `n_queries` is an integer between 1 and their number.
    """
    rows = np.sort(np.unique(keys, return_index=True)[1])
    if answered is not None and len(answered):
        rows = rows[~np.isin(keys[rows], answered)]
    check_n_queries(n_queries, len(rows))
    return np.asarray(rows, dtype=np.intp)


def best_of_each_pair(
    keys: NDArray[np.uint64], rows: NDArray[np.intp], values: NDArray[np.float64]
) -> NDArray[np.intp]:
    """For each of these rows, all of different keys, the row of the same key with the largest value."""
    order = np.lexsort((-values, keys))
    first = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1]))
    best = order[first]
    return np.sort(best[np.isin(keys[best], keys[rows])])


def check_n_queries(n_queries: object, n_askable: int) -> None:
    """A ValueError unless this is the number of questions that can be asked of so many pairs."""
    if not n_askable:
        raise NoQuestionLeftError("expected candidates that have not been answered, got none")
    number = int(n_queries) if isinstance(n_queries, Integral) and not isinstance(n_queries, bool) else 0
    if not 1 <= number <= n_askable:
        raise ValueError(
            f"n_queries: expected an integer between 1 and {n_askable}, the number of distinct candidates that have "
            f"not been answered, got {n_queries!r}"
        )


def _key_of_one(difference: NDArray[np.floating]) -> NDArray[np.uint64]:
    """The same of one row: a running service learns one vote at a time."""
    n_words = (len(difference) + 1) // 2
    row = np.zeros(2 * n_words, dtype=np.float32)
    if difference.dtype == np.float64:
        with np.errstate(over="ignore", invalid="ignore"):
            row[: len(difference)] = difference
    else:
        row[: len(difference)] = difference
    leading = row[0] if row[0] else row[(row != 0).argmax()]
    if leading < 0:
        np.negative(row, out=row)
    row += np.float32(0)
    total = int(np.dot(row.view(np.uint64), _factors(n_words)))
    return np.array([((total ^ (total >> 32)) * int(_ODD)) & _WORD], dtype=np.uint64)


@lru_cache(maxsize=8)
def _factors(n_words: int) -> NDArray[np.uint64]:
    """Odd numbers, one for each pair of columns."""
    words = np.random.RandomState(0).randint(0, 1 << 32, size=(2, n_words), dtype=np.uint64)
    factors: NDArray[np.uint64] = (words[0] << _HALF) | words[1] | np.uint64(1)
    return factors
