"""Comparisons in the layout of X, ``[context | difference]``: how to build, split and swap them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import Array, is_torch, namespace, to_numpy
from micropref._rows.arrays import as_rows
from micropref._rows.matrix import check_context_width
from micropref._support.renamed import moved
from micropref.features.scaler import PairScaler

__all__ = ["PairScaler", "make_pairs", "split_pairs", "swap_pairs"]

__getattr__ = moved(__name__)


def make_pairs(first: ArrayLike, second: ArrayLike, context: ArrayLike | None = None) -> Array:
    """Put two sets of response features, and optionally contexts, into the layout of X.

    Parameters
    ----------
    first, second : array-like of shape (n_samples, n_features)
        Features φ of the first and of the second response of every comparison: NumPy arrays, torch tensors, nested
        lists, or tables of pandas, Polars or Arrow.
    context : array-like of shape (n_samples, n_context_features), optional
        Features of the context of every comparison.

    Returns
    -------
    X : array of shape (n_samples, n_context_features + n_features)
        ``[context | first - second]`` in the widest floating dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not agree, or an entry is no number.
    TypeError
        If NumPy arrays and torch tensors are mixed.

    Examples
    --------
    >>> make_pairs([[1.0, 2.0]], [[0.5, 4.0]], context=[[7.0]])
    array([[ 7. ,  0.5, -2. ]])
    """
    preferred, other = as_rows(first, "first"), as_rows(second, "second")
    if tuple(preferred.shape) != tuple(other.shape):
        raise ValueError(f"second: expected the shape of first, {tuple(preferred.shape)}, got {tuple(other.shape)}")
    if is_torch(preferred) != is_torch(other):
        raise TypeError(
            "first and second: expected NumPy arrays alone or torch tensors alone, "
            f"got {_kind(preferred)} and {_kind(other)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        difference = preferred - other
    _check_overflow(preferred, other, difference)
    if context is None:
        return difference
    about = as_rows(context, "context")
    if about.shape[0] != difference.shape[0]:
        raise ValueError(f"context: expected {difference.shape[0]} rows, as the responses have, got {about.shape[0]}")
    if is_torch(about) != is_torch(difference):
        raise TypeError(
            "context and responses: expected NumPy arrays alone or torch tensors alone, "
            f"got {_kind(about)} and {_kind(difference)}"
        )
    xp = namespace(difference)
    # The wider of the two types: a context of 1e5 would be infinite beside differences in half precision.
    dtype = xp.result_type(about, difference)
    return xp.concat([xp.astype(part, dtype, copy=False) for part in (about, difference)], axis=1)


def _check_overflow(first: Array, second: Array, difference: Array) -> None:
    """A ValueError where features are finite and their difference is not."""
    xp = namespace(difference)
    if bool(xp.all(xp.isfinite(difference))):
        return
    bad = xp.isfinite(first) & xp.isfinite(second) & ~xp.isfinite(difference)
    if bool(xp.any(bad)):
        row, column = (int(i[0]) for i in np.nonzero(to_numpy(bad)))
        raise ValueError(
            f"expected differences within the range of {difference.dtype}, got one beyond it in row {row}, column "
            f"{column}; pass features of a wider type"
        )


def split_pairs(X: ArrayLike, n_context_features: int) -> tuple[Array, Array]:
    """Split X into its context and its difference columns.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_context_features + n_features)
        NumPy array, torch tensor, nested lists, or a table of pandas, Polars or Arrow.
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    context : array of shape (n_samples, n_context_features)
    difference : array of shape (n_samples, n_features)
        Views of X where it is an array or a tensor of a floating dtype; float64 where it has another dtype.

    Raises
    ------
    ValueError
        If X is not two-dimensional or not numeric, or no column is left for the difference.

    Examples
    --------
    >>> context, difference = split_pairs([[7.0, 0.5, -2.0]], 1)
    >>> context, difference
    (array([[7.]]), array([[ 0.5, -2. ]]))
    """
    rows = as_rows(X)
    check_context_width(n_context_features, rows.shape[1])
    return rows[:, :n_context_features], rows[:, n_context_features:]


def swap_pairs(X: ArrayLike, n_context_features: int) -> Array:
    """Exchange the two responses of every row: the difference changes its sign, the context stays.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_context_features + n_features)
        NumPy array, torch tensor, nested lists, or a table of pandas, Polars or Arrow.
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    X : array of the same shape
        In the dtype of X where that is floating, otherwise in float64.

    Raises
    ------
    ValueError
        If X is not two-dimensional or not numeric, or no column is left for the difference.

    Examples
    --------
    >>> swap_pairs([[7.0, 0.5, -2.0]], 1)
    array([[ 7. , -0.5,  2. ]])
    """
    context, difference = split_pairs(X, n_context_features)
    return namespace(difference).concat([context, -difference], axis=1)


def _kind(array: Array) -> str:
    return "a torch tensor" if is_torch(array) else "a NumPy array"
