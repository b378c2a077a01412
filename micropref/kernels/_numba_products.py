"""Products with rows and their gradient on the compiled path, by the same tiles as the likelihood."""

from __future__ import annotations

import numpy as np
from numba import njit

from micropref.kernels import _threads
from micropref.kernels._numba_tiles import (
    BLOCK_ROWS,
    ROWS,
    ROWS_PER_FLUSH,
    as_computed,
    block_gradient,
    block_products,
    flush,
    tiled,
)


@njit(nogil=True, cache=True)
def _products(x, half, c, first, last, vectors, out):
    """``out[:, first:last] = vectors @ x[first:last, c:].T``."""
    found = np.zeros((vectors.shape[0], BLOCK_ROWS + ROWS), vectors.dtype)
    buffer, in_order = np.empty((BLOCK_ROWS, x.shape[1]), vectors.dtype), np.empty(0, np.int64)
    for lo in range(first, last, BLOCK_ROWS):
        n = min(BLOCK_ROWS, last - lo)
        source, order, at, in_place = as_computed(x, half, in_order, lo, n, c, buffer)
        block_products(source, c, order, at, n, vectors, found, last if in_place else 0)
        out[:, lo : lo + n] = found[:, :n]


@njit(nogil=True, cache=True)
def _gradient(x, half, c, first, last, d_products, part, total):
    """``total += d_products[:, first:last] @ x[first:last, c:]``."""
    values = np.zeros((part.shape[0], BLOCK_ROWS + ROWS), part.dtype)
    buffer, in_order = np.empty((BLOCK_ROWS, x.shape[1]), part.dtype), np.empty(0, np.int64)
    for lo in range(first, last, BLOCK_ROWS):
        n = min(BLOCK_ROWS, last - lo)
        source, order, at, in_place = as_computed(x, half, in_order, lo, n, c, buffer)
        values[:, :n] = d_products[:, lo : lo + n]
        block_gradient(source, c, order, at, n, values, part, total, last if in_place else 0)
        if (lo - first + BLOCK_ROWS) % ROWS_PER_FLUSH == 0 or lo + n == last:
            flush(part, total)


def linear_products(X: np.ndarray, bfloat16_bits: bool, W: np.ndarray, first_column: int) -> np.ndarray:
    """``W @ X[:, columns].T``, of shape (n_vectors, n_rows)."""
    out = np.empty((len(W), len(X)), W.dtype)
    rows, half = tiled(X, bfloat16_bits)
    W = np.ascontiguousarray(W)

    def part(some: slice) -> None:
        _products(rows, half, first_column, some.start, some.stop, W, out)

    _threads.run(part, _threads.split(*X.shape))
    return out


def linear_gradient(
    d_products: np.ndarray, X: np.ndarray, bfloat16_bits: bool, first_column: int, width: int
) -> np.ndarray:
    """``d_products @ X[:, columns]`` in double precision."""
    rows, half = tiled(X, bfloat16_bits)
    d_products = np.ascontiguousarray(d_products)

    def part(some: slice) -> np.ndarray:
        total = np.zeros((len(d_products), width))
        sums = np.zeros(total.shape, d_products.dtype)
        _gradient(rows, half, first_column, some.start, some.stop, d_products, sums, total)
        return total

    return np.asarray(np.sum(_threads.run(part, _threads.split(*X.shape)), axis=0))
