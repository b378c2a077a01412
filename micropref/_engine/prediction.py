"""From fitted parameters to margins, weights, probabilities and labels; shared by the estimators."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score

from micropref._arrays.backend import Array, compute_dtype, like, namespace, to_numpy
from micropref._arrays.blocks import row_blocks, stored_blocks
from micropref._engine.gates import Gate
from micropref._engine.objectives import log_softmax, sigmoid
from micropref._rows.labels import check_labels
from micropref._rows.layout import PairReader, non_finite
from micropref.kernels._products import linear_products


def head_margins(reader: PairReader, coef: np.ndarray) -> Array:
    """Margins w_kᵀ d of every row, (n_components, n_samples); an error names the first entry that is not finite."""
    parts = []
    heads = like(coef, reader.X, compute_dtype(reader.X))
    for rows, block in stored_blocks(reader.X):
        xp = namespace(block)
        parts.append(linear_products(block, heads, reader.n_context_features))
        # One sum is not finite if any entry is not, and a sum that overflowed is looked at again.
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(xp.sum(parts[-1])) + float(xp.sum(block[:, : reader.n_context_features], dtype=xp.float32))
        if not math.isfinite(total) and not bool(xp.all(xp.isfinite(block))):
            raise non_finite(reader.X, rows)
    return parts[0] if len(parts) == 1 else namespace(reader.X).concat(parts, axis=1)


def gate_log_weights(contexts: Array, gate: Gate, parameters: list[np.ndarray], offset: Array | None = None) -> Array:
    """Log-weights of the components in every context, (n_components, n_samples).

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
        logits = gate.logits([like(p, context, context.dtype) for p in parameters], context)[0]
        parts.append(log_softmax(logits if offset is None else logits + offset[:, rows]))
    return parts[0] if len(parts) == 1 else namespace(contexts).concat(parts, axis=1)


def probabilities(log_odds: Array) -> Array:
    """Columns 1 − p and p of the probability p that the first response is preferred."""
    return namespace(log_odds).stack([sigmoid(-log_odds), sigmoid(log_odds)], axis=1)


def labels(log_odds: Array, classes: np.ndarray) -> np.ndarray:
    """The more likely label of every row."""
    return classes[(to_numpy(log_odds) > 0).astype(np.intp)]


def accuracy(
    log_odds: Array, y: ArrayLike | None, classes: np.ndarray, sample_weight: ArrayLike | None = None
) -> float:
    """Share of rows whose preferred response has the larger probability."""
    first = to_numpy(log_odds) > 0
    signs, _ = check_labels(y, len(first), classes=classes)
    truth = np.ones(len(first), dtype=bool) if signs is None else signs > 0
    return float(accuracy_score(truth, first, sample_weight=sample_weight))
