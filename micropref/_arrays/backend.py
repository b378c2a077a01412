"""The few operations that NumPy and torch spell differently; everything else goes through the array API."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy as np

from micropref._support.optional import require

__all__ = [
    "Array",
    "add_at",
    "compute_dtype",
    "index_like",
    "is_torch",
    "like",
    "namespace",
    "place",
    "precision",
    "to_numpy",
    "zeros",
]

Array = Any  # a NumPy array or a torch tensor


def is_torch(array: object) -> bool:
    """Whether `array` is a torch tensor; never imports torch."""
    return not isinstance(array, np.ndarray) and array_api_compat.is_torch_array(array)


def namespace(array: Array) -> Any:
    """The array-API namespace of `array`."""
    # Asked dozens of times for one prediction, which the general inspection would make half as fast.
    if isinstance(array, np.ndarray):
        return array_api_compat.numpy
    return array_api_compat.array_namespace(array)


def compute_dtype(array: Array) -> Any:
    """The floating dtype in which rows stored as `array.dtype` are computed: float64 stays, all else is float32."""
    xp = namespace(array)
    return xp.float64 if array.dtype == xp.float64 else xp.float32


def precision(array: Array) -> float:
    """Relative precision of a mean of terms computed from `array`, the sum itself being kept in float64."""
    return 2e-16 if compute_dtype(array) == namespace(array).float64 else 1e-10


def place(array: Array, device: Any) -> Array:
    """`array` as a torch tensor on a device; None leaves it where it is."""
    if device is None:
        return array
    torch = require("torch", "fitting on a device")
    return array.to(device) if is_torch(array) else torch.tensor(array, device=device)


def to_numpy(array: Array) -> np.ndarray:
    """Copy to host memory where needed; NumPy arrays are returned as they are."""
    if not is_torch(array):
        return np.asarray(array)
    array = array.detach().cpu()
    # NumPy has no bfloat16; single precision holds all of its numbers.
    return np.asarray((array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy())


def like(values: np.ndarray, array: Array, dtype: Any = None) -> Array:
    """`values` as an array of the kind and device of `array`."""
    xp = namespace(array)
    if is_torch(array):
        return xp.asarray(values, dtype=dtype, device=array.device)
    return np.asarray(values, dtype=dtype)


def index_like(values: np.ndarray, array: Array) -> Array:
    """Integer positions for indexing arrays of the kind and device of `array`."""
    return like(values, array, namespace(array).int64) if is_torch(array) else values


def zeros(shape: tuple[int, ...], array: Array) -> Array:
    """Zeros of the dtype, kind and device of `array`."""
    if is_torch(array):
        return namespace(array).zeros(shape, dtype=array.dtype, device=array.device)
    return np.zeros(shape, dtype=array.dtype)


def add_at(total: Array, index: Array, values: Array) -> Array:
    """``total[:, index[j]] += values[:, j]`` for every j, repeated indices included; the same bits on every run."""
    if is_torch(total):
        # index_put_ sorts its indices on CUDA, so that the order of the additions is fixed; index_add_ does not.
        for row, value in zip(total, values, strict=True):
            row.index_put_((index,), value, accumulate=True)
    else:
        for row, value in zip(total, values, strict=True):
            np.add.at(row, index, value)
    return total
