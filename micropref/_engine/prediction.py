"""From fitted parameters to margins and weights."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, compute_dtype, like, namespace, to_numpy
from micropref._arrays.blocks import row_blocks, stored_blocks
from micropref._engine.gates import Gate
from micropref._engine.gaussian_users import Scatter
from micropref._rows.layout import PairReader, non_finite
from micropref.distributed._communicator import ALONE, Communicator
from micropref.kernels._pointwise import log_softmax
from micropref.kernels._products import linear_products

__all__ = ["gate_log_weights", "head_margins", "mean_weights", "scatter_coordinates"]


def head_margins(reader: PairReader, coef: NDArray[np.float64]) -> Array:
    """Margins w_kᵀ d of every row, (n_components, n_samples).

    An error names the first entry that is not finite, or the first row whose margin the type of computation cannot
    hold.
    """
    parts = []
    heads = like(coef, reader.X, compute_dtype(reader.X))
    for rows, block in stored_blocks(reader.X):
        xp = namespace(block)
        # One sum is not finite if any entry is not, and a sum that overflowed is looked at again.
        with np.errstate(over="ignore", invalid="ignore"):
            parts.append(linear_products(block, heads, reader.n_context_features))
            total = float(xp.sum(parts[-1])) + float(xp.sum(block[:, : reader.n_context_features], dtype=xp.float32))
        if not math.isfinite(total):
            if not bool(xp.all(xp.isfinite(block))):
                raise non_finite(reader.X, rows)
            _check_finite(parts[-1], rows.start, "rewards")
    return parts[0] if len(parts) == 1 else namespace(reader.X).concat(parts, axis=1)


def scatter_coordinates(reader: PairReader, scatter: Scatter) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates (n_samples, q) of every row's difference among users, and its squared length outside (n_samples,)."""
    z, outside = np.empty((reader.n_samples, scatter.n_directions)), np.empty(reader.n_samples)
    for rows, _, difference in reader:
        with np.errstate(over="ignore", invalid="ignore"):
            z[rows], outside[rows] = scatter.coordinates(to_numpy(difference))
            # Variances are squares.
            squares = outside[rows] + (z[rows] * z[rows]).sum(axis=1)
        _check_finite(squares[None], rows.start, "squares")
    return z, outside


def _check_finite(values: Array, first_row: int, what: str) -> None:
    bad = ~np.isfinite(to_numpy(values)).all(axis=0)
    if bad.any():
        raise ValueError(
            f"expected features of the size seen in fit, got a row whose {what} are beyond the largest number of "
            f"{values.dtype}: row {first_row + int(np.argmax(bad))}"
        )


def gate_log_weights(
    contexts: Array, gate: Gate, parameters: list[NDArray[np.float64]], offset: Array | None = None
) -> Array:
    """Log-weights of the components in every context, (n_components, n_samples).

    An error names the first row whose log-weights the type of computation cannot hold.

    Parameters
    ----------
    contexts : array of shape (n_samples, gate.n_inputs)
    gate : Gate
    parameters : list of ndarray
    offset : array of shape (n_components, n_samples), optional
        Logits to which the gate's are added.
    """
    parts = []
    for rows, context in row_blocks(contexts):
        with np.errstate(over="ignore", invalid="ignore"):
            logits = gate.logits([like(p, context, context.dtype) for p in parameters], context)[0]
            parts.append(log_softmax(logits if offset is None else logits + offset[:, rows]))
            total = float(namespace(context).sum(parts[-1]))
        if not math.isfinite(total):
            _check_finite(parts[-1], rows.start, "weights")
    return parts[0] if len(parts) == 1 else namespace(contexts).concat(parts, axis=1)


def mean_weights(
    contexts: Array,
    gate: Gate,
    parameters: list[NDArray[np.float64]],
    weight: NDArray[np.float64] | None = None,
    ranks: Communicator = ALONE,
) -> NDArray[np.float64]:
    """Mean mixture weights (n_components,) over the rows of all ranks, in float64."""

    def sums() -> NDArray[np.float64]:
        total = np.zeros(gate.n_components)
        for rows, context in row_blocks(contexts):
            weights = np.exp(to_numpy(gate_log_weights(context, gate, parameters)).astype(np.float64))
            total += weights.sum(axis=1) if weight is None else weights @ weight[rows]
        return total

    if not gate.n_inputs:  # the same in every row
        one = contexts[:1] if len(contexts) else np.zeros((1, 0))
        total = np.exp(to_numpy(gate_log_weights(one, gate, parameters))[:, 0].astype(np.float64))
    else:
        at = np.concatenate([np.ravel(p) for p in parameters] or [np.zeros(0)])
        total = ranks.sum(sums, gate.n_components, at)
    return np.asarray(total / total.sum())
