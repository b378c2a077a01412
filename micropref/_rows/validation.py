"""What users hand in, checked: matrices and weights. Errors say what was found and what was wanted."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import validate_data

from micropref._arrays.backend import Array, is_torch, to_numpy

_FLOATS = [np.float64, np.float32, np.float16]


def check_context_width(n_context_features: int, n_columns: int) -> None:
    """A ValueError unless the context leaves at least one column for the difference."""
    if not isinstance(n_context_features, Integral) or n_context_features < 0:
        raise ValueError(f"n_context_features must be an integer of at least 0; got {n_context_features!r}")
    if n_context_features >= n_columns:
        raise ValueError(
            f"n_context_features={n_context_features} leaves no column for the difference: "
            f"X has {n_columns} feature(s), the context's included"
        )


def check_matrix(estimator: Any, X: Array, *, reset: bool, min_rows: int = 1) -> Array:
    """X as a floating array of two dimensions, of the width seen in fit; its entries are checked where they are read.

    Half precision stays half precision, a memory-mapped file stays one, a torch tensor stays on its device.
    """
    if not reset and _is_ready(estimator, X):
        return X
    if not is_torch(X):
        return validate_data(
            estimator, X, reset=reset, dtype=_FLOATS, ensure_all_finite=False, ensure_min_samples=min_rows
        )
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got {X.ndim}D tensor instead")
    if X.shape[0] < min_rows or X.shape[1] == 0:
        raise ValueError(f"Found tensor of shape {tuple(X.shape)} while a minimum of 1 row and 1 column is required")
    if not X.dtype.is_floating_point:
        X = X.double()
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    return X.detach()


def _is_ready(estimator: Any, X: Array) -> bool:
    """Whether X needs no conversion, warning or complaint; asking scikit-learn takes as long as a prediction."""
    return (
        type(X) in (np.ndarray, np.memmap)
        and X.ndim == 2
        and X.dtype in _FLOATS
        and X.shape[0] > 0
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    )


def check_sample_weight(
    sample_weight: ArrayLike | None, n_samples: int, *, may_be_zero: bool = False
) -> np.ndarray | None:
    """Weights as float64 of shape (n_samples,), or None; not negative, finite, and not all zero unless they may be."""
    if sample_weight is None:
        return None
    weight = np.asarray(to_numpy(sample_weight), dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n_samples, float(weight))
    if weight.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n_samples,)}!")
    if not np.isfinite(weight).all():
        raise ValueError(f"sample_weight contains NaN or infinity in row {int(np.argmin(np.isfinite(weight)))}")
    negative = np.flatnonzero(weight < 0)
    if len(negative):
        raise ValueError(f"sample_weight must not be negative; row {negative[0]} has {weight[negative[0]]}")
    if not may_be_zero and not (weight > 0).any():
        raise ValueError("sample_weight is zero in every row; at least one weight must be positive")
    return weight
