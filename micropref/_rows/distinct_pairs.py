"""Rows about the same two responses: every difference once, up to its sign, and which rows have it.

Where many annotators answer the same questions, most rows repeat the difference of another one, or its negative where
the two responses stand the other way round. The products with any heads are then those of the distinct differences.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import compute_dtype
from micropref._arrays.blocks import shared_mapping
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.kernels import _threads

__all__ = ["DistinctPairs", "distinct_pairs", "merged_repetitions"]

# Share of rows that may be distinct: above, what is saved is not worth a copy of them. The fewer columns a product has,
# the more of the work is what follows it, which is less for rows than for pairs.
_MOST_DISTINCT = 0.5
_NARROW = 64
# Entries of X below which a fit takes no time.
_LEAST_ENTRIES = 1 << 16
# Columns that most rows already differ in where they differ at all.
_FIRST_COLUMNS = 16
# Rows that stay in a near cache from one product to the next.
_BLOCK_ROWS = 512
_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@dataclass(frozen=True, eq=False)
class DistinctPairs:
    """The distinct differences of some rows: row i has the difference ``signs[i] * differences[index[i]]``, exactly.

    Attributes
    ----------
    differences : ndarray of shape (n_distinct, n_features)
        In the dtype of computation.
    index : ndarray of int of shape (n_samples,)
    signs : ndarray of int8 of shape (n_samples,)
        +1 or -1.
    """

    differences: NDArray[np.floating]
    index: NDArray[np.intp]
    signs: NDArray[np.int8]

    @property
    def n_distinct(self) -> int:
        return len(self.differences)


def distinct_pairs(reader: PairReader) -> DistinctPairs | None:
    """The distinct differences, or None where they are about half of the rows or more, or the rows are few.

    A few columns of each row are read first, which is enough where rows do not repeat. Rows are equal if all of their
    entries are, in the precision in which they are stored: hashes find candidates and every candidate is compared.

    Parameters
    ----------
    reader : PairReader
        Torch tensors and files that are mapped into memory are left as they are: None.
    """
    X, c = reader.X, reader.n_context_features
    if not isinstance(X, np.ndarray) or shared_mapping(X) is not None or X.size < _LEAST_ENTRIES:
        return None
    width = X.shape[1] - c
    found = _numbered(X[:, c:], _MOST_DISTINCT * len(X) * width / (width + _NARROW))
    if found is None:
        return None
    first, index, signs = found
    differences = np.empty((len(first), width), compute_dtype(X))
    np.multiply(X[first, c:], signs[first, None], out=differences)
    return DistinctPairs(differences, index, signs)


def merged_repetitions(rows: Comparisons) -> Comparisons:
    """Ungrouped rows with every repetition in one row of their common weight; the same rows where few are repeated.

    A row repeats another one if context, difference and label are equal, or difference and label both turned round.
    """
    X, c = rows.reader.X, rows.reader.n_context_features
    if rows.groups is not None or rows.group_weight is not None or (pairs := distinct_pairs(rows.reader)) is None:
        return rows
    key = 2 * pairs.index + (pairs.signs * (1 if rows.signs is None else rows.signs) > 0)
    if c:
        contexts = _numbered(X[:, :c], _MOST_DISTINCT * len(X), up_to_sign=False)
        if contexts is None:
            return rows
        key = key * len(contexts[0]) + contexts[1]
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    if len(first) > _MOST_DISTINCT * len(X):
        return rows
    weight = np.bincount(index, weights=rows.weight).astype(np.float64)
    return replace(
        rows,
        reader=PairReader(np.ascontiguousarray(X[first]), c),
        signs=None if rows.signs is None else rows.signs[first],
        weight=weight,
    )


def _numbered(
    X: NDArray[np.floating], most: float, up_to_sign: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int8]] | None:
    """The first of all equal rows, for every row which of them it equals, and its sign; None if there are more."""
    step = max(1, X.shape[1] // _FIRST_COLUMNS)
    if step > 1 and len(np.unique(_keys(X[:, ::step], up_to_sign)[0])) > most:
        return None
    keys, signs = _keys(X, up_to_sign)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) > most:
        return None
    same = np.empty(len(X), bool)

    def compare(rows: slice) -> None:
        model = first[index[rows]]
        turned = (signs[rows] * signs[model]).astype(X.dtype)
        same[rows] = (X[rows] == X[model] * turned[:, None]).all(axis=1)

    _threads.run(compare, _blocks(len(X)))
    others = np.flatnonzero(~same)
    if len(first) + len(others) > most:
        return None
    index[others] = len(first) + np.arange(len(others))
    return np.append(first, others), index, signs


def _keys(X: NDArray[np.floating], up_to_sign: bool) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
    """Numbers that equal rows have in common, and rows and their negatives too; which of the two each row is.

    They are made of products with two random directions, each a sum in the same order in every row, which the negative
    of a row has with the other sign. Other rows share them by chance alone.
    """
    directions = np.random.RandomState(0).normal(size=(2, X.shape[1])).astype(compute_dtype(X))
    keys, signs = np.empty(len(X), np.uint64), np.ones(len(X), np.int8)

    def of_block(rows: slice) -> None:
        block = np.ascontiguousarray(X[rows], directions.dtype)
        products = np.stack([np.einsum("ij,j->i", block, one) for one in directions]).astype(np.float64)
        if up_to_sign:
            signs[rows] = np.where(products[0] < 0, -1, 1)
            products *= signs[rows]
        products += 0.0  # the negative zero becomes the positive one
        first, second = products.view(np.uint64)
        # Both signs are the highest bit, which the product alone would leave where the other one is.
        keys[rows] = (first ^ (first >> _HALF)) * _ODD + second

    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is compared entry by entry all the same
        _threads.run(of_block, _blocks(len(X)))
    return keys, signs


def _blocks(n_rows: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK_ROWS, n_rows)) for start in range(0, n_rows, _BLOCK_ROWS)]
