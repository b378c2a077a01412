"""The two halves of a pass over X on their own: products with a few vectors, and the sum that is their gradient.

For what has to be known before any row has a gradient: a group's rows share one evidence, so its likelihood takes two
reads of X where single rows take one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from micropref._arrays.backend import Array, is_torch, like, namespace, to_numpy, zeros
from micropref._arrays.blocks import row_blocks
from micropref.kernels import _dispatch

# Below this many multiplications one call of BLAS takes less time than deciding who should do it.
_SMALL = 1 << 15


def linear_products(X: Array, W: Array, first_column: int = 0) -> Array:
    """``W @ X[:, first_column:first_column + w].T`` for rows as they are stored, without a widened copy of X.

    Parameters
    ----------
    X : array of shape (n_rows, n_columns)
        NumPy array or torch tensor in half, single or double precision, with any strides.
    W : array of shape (n_vectors, w)
        In the dtype of computation, of the kind and on the device of X.
    first_column : int, default=0

    Returns
    -------
    products : array of shape (n_vectors, n_rows)
        In the dtype of computation. NaN and infinity come through.
    """
    if not X.shape[0]:
        return zeros((W.shape[0], 0), W)
    columns = slice(first_column, first_column + W.shape[1])
    path = _path(X, W)
    if path == "reference":
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [W @ block.T for _, block in row_blocks(X[:, columns])]
        return parts[0] if len(parts) == 1 else namespace(X).concat(parts, axis=1)
    if path == "direct":
        with np.errstate(over="ignore", invalid="ignore"):
            return W @ X[:, columns].T.astype(W.dtype, copy=False)
    found = _module(path).linear_products(*_dispatch.host_rows(X), to_numpy(W), first_column)
    return like(found, X)


def linear_gradient(d_products: Array, X: Array, first_column: int, width: int) -> np.ndarray:
    """``d_products @ X[:, first_column:first_column + width]``, summed in double precision.

    Parameters
    ----------
    d_products : array of shape (n_vectors, n_rows)
        In the dtype of computation.
    X : array of shape (n_rows, n_columns)
    first_column, width : int

    Returns
    -------
    gradient : ndarray of float64 of shape (n_vectors, width)
    """
    columns = slice(first_column, first_column + width)
    path = _path(X, d_products)
    if path == "reference":
        total = np.zeros((d_products.shape[0], width))
        for rows, block in row_blocks(X[:, columns]):
            total += to_numpy(d_products[:, rows] @ block)
        return total
    if path == "direct":
        return np.asarray(d_products @ X[:, columns].astype(d_products.dtype, copy=False), dtype=np.float64)
    gradient = _module(path).linear_gradient(to_numpy(d_products), *_dispatch.host_rows(X), first_column, width)
    return np.asarray(gradient)


def _module(path: str) -> Any:
    return _dispatch.implementation(path, "_products" if path == "numba" else "")


def _path(X: Array, vectors: Array) -> str:
    path: Any = _dispatch.path_for(X)
    if path == "triton":  # products alone are what the libraries of the device are for
        return "reference"
    small = X.shape[0] * X.shape[1] * vectors.shape[0] <= _SMALL
    return "direct" if small and path == "blas" and not is_torch(X) else path
