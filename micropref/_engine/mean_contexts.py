"""The mean context of every unit, from which its gate is computed."""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from micropref._arrays.backend import Array, add_at, compute_dtype, index_like, is_torch, like, namespace
from micropref._arrays.blocks import shared_mapping
from micropref._rows.comparisons import Comparisons
from micropref._rows.units import Units

__all__ = ["mean_contexts"]

_CONTEXT_BYTES = 1 << 26


def mean_contexts(rows: Comparisons, units: Units) -> Array:
    """c̄_u, the weighted mean context of every unit, of shape (n_units, n_context_features).

    For a memory-mapped X the result is spilled to a temporary file once it outgrows a fixed budget.
    """
    X, width = rows.reader.X, rows.reader.n_context_features
    dtype = compute_dtype(X)
    if is_torch(X):
        total = namespace(X).zeros((width, units.n_units), dtype=dtype, device=X.device)
    elif shared_mapping(X) is not None and 4 * units.n_units * width > _CONTEXT_BYTES:
        with tempfile.TemporaryFile() as file:  # the mapping outlives the closed and nameless file
            total = np.memmap(file, dtype=dtype, mode="w+", shape=(units.n_units, width)).T
    else:
        total = np.zeros((units.n_units, width), dtype=dtype).T
    if width == 0:
        return total.T
    for block, context, _ in rows.reader:
        unit = units.index[block]
        mass, weight = units.mass[unit], 1.0 if rows.weight is None else rows.weight[block]
        # Not weight · (1 / mass): of a group of tiny weights that is infinite.
        share = np.divide(weight, mass, out=np.zeros_like(mass), where=mass > 0)
        if is_torch(X):
            part = context * like(share, context, dtype)[:, None]
            add_at(total, index_like(unit, context), part.T)
        else:
            _add_shares(total.T, unit, share.astype(dtype), context)
    return total.T


def _add_shares(
    total: NDArray[np.floating], unit: NDArray[np.int32], share: NDArray[np.floating], context: Array
) -> None:
    """``total[unit[i]] += share[i] * context[i]`` for every row i, as one sparse product with the units that occur."""
    occurring, place = np.unique(unit, return_inverse=True)
    n = len(unit)
    shares = csr_matrix((share, (place, np.arange(n))), shape=(len(occurring), n))
    total[occurring] += shares @ context
