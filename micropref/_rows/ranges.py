"""Which sizes of features and weights the type of computation can hold, and the errors for others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, compute_dtype, namespace, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._rows.layout import Sizes
from micropref._rows.weights import check_total

__all__ = ["NORMS", "check_range", "check_weight_range"]

# Norms to which features of any size in range can be brought, in single precision too.
NORMS = (1e-10, 1e10)

# Parameters are of the order of 1 / norm, and solvers square them: inside of these, squares and their sums are finite.
_RANGE = {"float64": (1e-100, 1e100), "float32": (1e-25, 1e25)}


def check_range(X: Array, n_context_features: int, sizes: Sizes) -> None:
    """A ValueError that names the largest entry, unless norms and entries are inside the range of the computation.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
    n_context_features : int
    sizes : Sizes
        Of X.
    """
    least, most = _RANGE[_computed_in(X)]
    for which, what in enumerate(("contexts", "differences")):
        norm, peak = float(sizes.norms[which]), float(sizes.peaks[which])
        if (norm == 0.0 or least <= norm) and peak <= most:
            continue
        row, column, entry = _largest(X, n_context_features, which)
        got = f"got {norm:g}" if norm < least else f"got an entry of {entry:g}"
        raise ValueError(
            f"expected {what} with a root mean square norm of at least {least:g} and entries of at most {most:g}, the "
            f"range of {_computed_in(X)}, {got} (the largest entry, {entry:g}, is in row {row}, column {column}); "
            "multiply all of them by one number, as PairScaler does"
        )


def check_weight_range(weight: NDArray[np.float64] | None, X: Array) -> None:
    """A ValueError that names the largest weight, unless the sum of all is inside the range of the computation."""
    if weight is not None:
        check_total(weight, *_RANGE[_computed_in(X)])


def _computed_in(X: Array) -> str:
    return "float64" if compute_dtype(X) == namespace(X).float64 else "float32"


def _largest(X: Array, n_context_features: int, which: int) -> tuple[int, int, float]:
    """Row, column and value of the entry of the contexts (0) or of the differences (1) that is largest in size."""
    columns = slice(0, n_context_features) if which == 0 else slice(n_context_features, None)
    found, best = (0, 0, 0.0), -1.0
    for rows, block in row_blocks(X):
        part = to_numpy(block)[:, columns]
        row, column = (int(i) for i in np.unravel_index(int(np.abs(part).argmax()), part.shape))
        if abs(part[row, column]) > best:
            best = float(abs(part[row, column]))
            found = rows.start + row, column + columns.start, float(part[row, column])
    return found
