"""X as a checked matrix: two dimensions, floating, of the width seen in fit."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, validate_data

from micropref._arrays.backend import Array, is_torch
from micropref._rows.masks import refuse_masked

__all__ = ["check_block", "check_context_width", "check_matrix"]

_FLOATS = [np.float64, np.float32, np.float16]


def check_context_width(n_context_features: int, n_columns: int) -> None:
    """A ValueError unless the context leaves at least one column for the difference."""
    if not isinstance(n_context_features, Integral) or n_context_features < 0:
        raise ValueError(f"n_context_features: expected an integer of at least 0, got {n_context_features!r}")
    if n_context_features >= n_columns:
        raise ValueError(
            f"expected at least one column for the difference, got n_context_features={n_context_features} and X with "
            f"{n_columns} feature(s)"
        )


def check_matrix(estimator: Any, X: Any, *, reset: bool, min_rows: int = 1) -> Array:
    """X as a floating array of two dimensions, of the width seen in fit; its entries are checked where they are read.

    Half precision stays half precision, a memory-mapped file stays one, a torch tensor stays on its device.
    """
    if not reset and _is_ready(X, estimator.n_features_in_) and not hasattr(estimator, "feature_names_in_"):
        return X
    if not is_torch(X):
        _refuse_non_numbers(X, "X")
        return validate_data(
            estimator, X, reset=reset, dtype=_FLOATS, ensure_all_finite=False, ensure_min_samples=min_rows
        )
    X = _floating_tensor(X)
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D tensor instead")
    if X.shape[0] < min_rows or X.shape[1] == 0:
        raise ValueError(f"Found tensor of shape {tuple(X.shape)} while a minimum of 1 row and 1 column is required")
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return X


def check_block(values: Any, n_columns: int, name: str, meaning: str) -> Array:
    """Only contexts, or features of single responses, as a floating array (n, n_columns).

    Parameters
    ----------
    values : array-like of shape (n, n_columns)
    n_columns : int
    name : str
        Of the argument, for errors.
    meaning : str
        Shape and meaning of what is expected, for errors.
    """
    if _is_ready(values, n_columns):
        return values
    if is_torch(values):
        block = _floating_tensor(values)
    else:
        _refuse_non_numbers(values, name)
        block = check_array(
            values,
            dtype=_FLOATS,
            ensure_2d=False,
            ensure_all_finite=False,
            ensure_min_samples=0,
            ensure_min_features=0,
            input_name=name,
        )
    if block.ndim != 2 or block.shape[1] != n_columns:
        raise ValueError(f"{name}: expected shape {meaning}, got {tuple(block.shape)}")
    return block


def _floating_tensor(X: Any) -> Array:
    if str(X.layout) != "torch.strided":
        raise ValueError(
            f"expected a dense tensor, got one with layout {X.layout}; use X.to_dense(), since embeddings are dense"
        )
    if X.is_complex():
        raise ValueError(f"Complex data not supported: expected real features, got {X.dtype}")
    return (X if X.dtype.is_floating_point else X.double()).detach()


def _refuse_non_numbers(X: Any, name: str) -> None:
    """A ValueError for what NumPy would take for numbers, and is none: times, and entries behind a mask."""
    if not isinstance(X, np.ndarray):
        return
    if X.dtype.kind in "mM":
        raise ValueError(f"{name}: expected numbers, got entries of type {X.dtype}")
    refuse_masked(X, name)


def _is_ready(X: Any, n_columns: int) -> bool:
    """Whether X needs no conversion, warning or complaint; asking scikit-learn takes as long as a prediction."""
    return (
        type(X) in (np.ndarray, np.memmap)
        and X.ndim == 2
        and X.dtype in _FLOATS
        and X.shape[0] > 0
        and X.shape[1] == n_columns
    )
