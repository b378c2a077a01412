"""Lists, tables and tensors: as matrices of numbers, and some of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import _safe_indexing

from micropref._arrays.backend import Array, index_like, is_torch


def as_rows(values: ArrayLike, name: str = "X") -> Array:
    """A matrix of floating numbers with one row per comparison.

    Parameters
    ----------
    values : array-like of shape (n_samples, n_features)
        NumPy array, torch tensor, nested lists, or a table of pandas, Polars or Arrow.
    name : str, default="X"
        Name of the argument in errors.

    Returns
    -------
    rows : array of shape (n_samples, n_features)
        A torch tensor where `values` is one, otherwise a NumPy array; `values` itself where its dtype is floating.
        Other numbers become float64, so that differences of unsigned integers do not wrap around.

    Raises
    ------
    ValueError
        If there are not two dimensions, or an entry is no number.
    """
    array: Any = values
    kind = type(values).__name__
    if sparse.issparse(values) or (is_torch(values) and str(array.layout) != "torch.strided"):
        raise ValueError(
            f"{name}: expected dense rows, got a sparse {kind}; use {'to_dense()' if is_torch(values) else 'toarray()'}"
        )
    try:
        if is_torch(values):
            array = array if array.dtype.is_floating_point else array.double()
        else:
            array = array if isinstance(array, np.ndarray) else np.asarray(array)
            if array.dtype.kind in "iubO" and array.ndim == 2:
                array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers of shape (n_samples, n_features), got a {kind}: {error}") from error
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape (n_samples, n_features), got a {kind} of {array.ndim} dimension(s)")
    if not is_torch(array) and array.dtype.kind != "f":
        raise ValueError(f"{name}: expected numbers, got a {kind} with entries of type {array.dtype}")
    return array


def take_rows(X: Array, rows: np.ndarray) -> Any:
    """Some rows of a list, an array, a table or a tensor, as an object of the same kind; `rows` holds their numbers."""
    return X[index_like(rows, X)] if is_torch(X) else _safe_indexing(X, rows)
