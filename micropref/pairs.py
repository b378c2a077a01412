"""Comparisons in the layout of X, ``[context | difference]``: how to build, split and swap them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import Array, is_torch, namespace
from micropref._rows.matrix import check_context_width
from micropref.features.scaler import PairScaler

__all__ = ["PairScaler", "make_pairs", "split_pairs", "swap_pairs"]


def make_pairs(first: ArrayLike, second: ArrayLike, context: ArrayLike | None = None) -> Array:
    """Put two sets of response features, and optionally contexts, into the layout of X.

    Parameters
    ----------
    first, second : array-like of shape (n_samples, n_features)
        Features φ of the first and of the second response of every comparison. NumPy arrays or torch tensors.
    context : array-like of shape (n_samples, n_context_features), optional
        Features of the context of every comparison.

    Returns
    -------
    X : array of shape (n_samples, n_context_features + n_features)
        ``[context | first - second]`` in the widest floating dtype of the inputs.

    Raises
    ------
    ValueError
        If the shapes do not agree.
    TypeError
        If NumPy arrays and torch tensors are mixed.

    Examples
    --------
    >>> make_pairs([[1.0, 2.0]], [[0.5, 4.0]], context=[[7.0]])
    array([[ 7. ,  0.5, -2. ]])
    """
    preferred, other = _as_features(first, "first"), _as_features(second, "second")
    if tuple(preferred.shape) != tuple(other.shape):
        raise ValueError(f"first has shape {tuple(preferred.shape)} but second has shape {tuple(other.shape)}")
    if is_torch(preferred) != is_torch(other):
        raise TypeError("first and second must both be NumPy arrays or both be torch tensors")
    difference = preferred - other
    if context is None:
        return difference
    about = _as_features(context, "context")
    if about.shape[0] != difference.shape[0]:
        raise ValueError(f"context has {about.shape[0]} rows but the responses have {difference.shape[0]}")
    if is_torch(about) != is_torch(difference):
        raise TypeError("context and responses must both be NumPy arrays or both be torch tensors")
    xp = namespace(difference)
    # The wider of the two types: a context of 1e5 would be infinite beside differences in half precision.
    dtype = xp.result_type(about, difference)
    return xp.concat([xp.astype(part, dtype, copy=False) for part in (about, difference)], axis=1)


def split_pairs(X: Array, n_context_features: int) -> tuple[Array, Array]:
    """Split X into views of its context and its difference columns.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    context : array of shape (n_samples, n_context_features)
    difference : array of shape (n_samples, n_features)
    """
    check_context_width(n_context_features, X.shape[1])
    return X[:, :n_context_features], X[:, n_context_features:]


def swap_pairs(X: Array, n_context_features: int) -> Array:
    """Exchange the first and the second response of every row: the difference changes its sign, the context stays.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
        Number of leading context columns.

    Returns
    -------
    X : array of the same shape and dtype
    """
    context, difference = split_pairs(X, n_context_features)
    return namespace(X).concat([context, -difference], axis=1)


def _as_features(values: ArrayLike, name: str) -> Array:
    array: Any = values if is_torch(values) else np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n_samples, n_features); got {array.ndim} dimension(s)")
    if is_torch(array):
        return array if array.dtype.is_floating_point else array.double()
    return array if array.dtype.kind == "f" else array.astype(np.float64)
