"""Products with rows and their gradient on the compiled path, four rows at a time as in the likelihood."""

from __future__ import annotations

import numpy as np
from numba import njit

from micropref.kernels import _threads
from micropref.kernels._numba import (
    BFLOAT16,
    COPIED_ROWS,
    FLOAT16,
    ROWS,
    ROWS_PER_FLUSH,
    add_gradient,
    fill,
    flush,
    row_products,
)


@njit(nogil=True, cache=True)
def _product_block(x, start, vectors, first, out):
    stop = start + vectors.shape[1]
    products = np.zeros((ROWS, vectors.shape[0]), vectors.dtype)
    tail = np.zeros((ROWS, x.shape[1]), x.dtype)
    for i in range(0, x.shape[0], ROWS):
        live = min(ROWS, x.shape[0] - i)
        source, at = x, i
        if live < ROWS:
            source, at = tail, 0
            tail[:live] = x[i:]
        rows = (
            source[at, start:stop],
            source[at + 1, start:stop],
            source[at + 2, start:stop],
            source[at + 3, start:stop],
        )
        row_products(rows[0], rows[1], rows[2], rows[3], vectors, products)
        for k in range(vectors.shape[0]):
            for r in range(live):
                out[k, first + i + r] = products[r, k]


@njit(nogil=True, cache=True)
def _gradient_block(x, start, d_products, first, part, total):
    stop = start + part.shape[1]
    values = np.zeros((ROWS, part.shape[0]), part.dtype)
    tail = np.zeros((ROWS, x.shape[1]), x.dtype)
    for i in range(0, x.shape[0], ROWS):
        live = min(ROWS, x.shape[0] - i)
        source, at = x, i
        if live < ROWS:
            # Rows of zeros behind the last add nothing; the values left over for them are finite or already counted.
            source, at = tail, 0
            tail[:live] = x[i:]
        for k in range(part.shape[0]):
            for r in range(live):
                values[r, k] = d_products[k, first + i + r]
        rows = (
            source[at, start:stop],
            source[at + 1, start:stop],
            source[at + 2, start:stop],
            source[at + 3, start:stop],
        )
        add_gradient(rows[0], rows[1], rows[2], rows[3], values, part)
        if (i + ROWS) % ROWS_PER_FLUSH == 0:
            flush(part, total)
    flush(part, total)


@njit(nogil=True, cache=True)
def _copied_products(x, half, start, vectors, first, out):
    buffer = np.empty((COPIED_ROWS, vectors.shape[1]), vectors.dtype)
    for i in range(0, x.shape[0], COPIED_ROWS):
        n = min(COPIED_ROWS, x.shape[0] - i)
        fill(x[i : i + n, start : start + vectors.shape[1]], half, buffer)
        _product_block(buffer[:n], 0, vectors, first + i, out)


@njit(nogil=True, cache=True)
def _copied_gradient(x, half, start, d_products, first, part, total):
    buffer = np.empty((COPIED_ROWS, part.shape[1]), part.dtype)
    for i in range(0, x.shape[0], COPIED_ROWS):
        n = min(COPIED_ROWS, x.shape[0] - i)
        fill(x[i : i + n, start : start + part.shape[1]], half, buffer)
        _gradient_block(buffer[:n], 0, d_products, first + i, part, total)


def linear_products(X: np.ndarray, bfloat16_bits: bool, W: np.ndarray, first_column: int) -> np.ndarray:
    """``W @ X[:, columns].T``, of shape (n_vectors, n_rows)."""
    out = np.empty((len(W), len(X)), W.dtype)
    bits, code = _bits(X, bfloat16_bits)
    W = np.ascontiguousarray(W)

    def part(rows: slice) -> None:
        if code or not X.flags.c_contiguous:
            _copied_products(bits[rows], code, first_column, W, rows.start, out)
        else:
            _product_block(X[rows], first_column, W, rows.start, out)

    _threads.run(part, _threads.split(*X.shape))
    return out


def linear_gradient(
    d_products: np.ndarray, X: np.ndarray, bfloat16_bits: bool, first_column: int, width: int
) -> np.ndarray:
    """``d_products @ X[:, columns]`` in double precision."""
    bits, code = _bits(X, bfloat16_bits)

    def part(rows: slice) -> np.ndarray:
        total = np.zeros((len(d_products), width))
        sums = np.zeros(total.shape, d_products.dtype)
        if code or not X.flags.c_contiguous:
            _copied_gradient(bits[rows], code, first_column, d_products, rows.start, sums, total)
        else:
            _gradient_block(X[rows], first_column, d_products, rows.start, sums, total)
        return total

    d_products = np.ascontiguousarray(d_products)
    return np.sum(_threads.run(part, _threads.split(*X.shape)), axis=0)


def _bits(X: np.ndarray, bfloat16_bits: bool) -> tuple[np.ndarray, int]:
    code = BFLOAT16 if bfloat16_bits else FLOAT16 if X.dtype == np.float16 else 0
    return X.view(np.uint16) if code else X, code
