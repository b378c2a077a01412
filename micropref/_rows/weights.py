"""Weights of rows, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from micropref._arrays.backend import is_torch, to_numpy
from micropref._rows.masks import refuse_masked

__all__ = ["check_sample_weight", "check_total"]

# Sums of weighted losses are taken in the precision of X: beyond, single precision ends.
_LEAST, _MOST = 1e-100, 1e100


def check_sample_weight(
    sample_weight: ArrayLike | None, n_samples: int, *, may_be_zero: bool = False, name: str = "sample_weight"
) -> NDArray[np.float64] | None:
    """Weights as float64 of shape (n_samples,), or None; not negative, finite, and not all zero unless they may be."""
    if sample_weight is None:
        return None
    weight = _as_numbers(sample_weight, name)
    if weight.ndim == 0:
        weight = np.full(n_samples, float(weight))
    if weight.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    if weight.shape != (n_samples,):
        if name == "sample_weight":  # as scikit-learn words it
            raise ValueError(f"sample_weight.shape == {weight.shape}, expected {(n_samples,)}!")
        raise ValueError(f"{name}: expected one number for each of {n_samples} rows, got shape {weight.shape}")
    if not np.isfinite(weight).all():
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in row {int(np.argmin(np.isfinite(weight)))}"
        )
    negative = np.flatnonzero(weight < 0)
    if len(negative):
        raise ValueError(f"{name}: expected no negative number, got {weight[negative[0]]} in row {negative[0]}")
    if not may_be_zero and not weight.any():
        raise ValueError(f"{name}: expected at least one positive weight, got zero in every row")
    check_total(weight, _LEAST, _MOST)
    return weight


def _as_numbers(sample_weight: Any, name: str) -> NDArray[np.float64]:
    refuse_masked(sample_weight, name)
    if sparse.issparse(sample_weight) or (is_torch(sample_weight) and str(sample_weight.layout) != "torch.strided"):
        raise ValueError(f"expected {name} as a dense column of numbers, got a sparse one; make it dense")
    try:
        weight = np.asarray(to_numpy(sample_weight))
        if weight.dtype.kind in "biufO":
            return weight.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        kind = type(sample_weight).__name__
        raise ValueError(f"expected {name} as one number for each row, got a {kind}: {error}") from error
    raise ValueError(f"expected {name} as one number for each row, got entries of type {weight.dtype}")


def check_total(weight: NDArray[np.float64], least: float, most: float) -> None:
    """A ValueError that names the largest weight, unless all are zero or their sum is in [least, most]."""
    with np.errstate(over="ignore"):
        total = float(weight.sum())
    if total and not least <= total <= most:
        largest = int(np.argmax(weight))
        raise ValueError(
            f"expected weights with a sum between {least:g} and {most:g}, got {total:g} "
            f"(the largest, {weight[largest]:g}, in row {largest}); divide all of them by one number, "
            "which changes no fit"
        )
