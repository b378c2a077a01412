"""The slow twin of every kernel: the equations over the array API, in blocks of rows, on any device.

It reads X twice per block and rounds like a chain of array operations; it is what the other paths are compared with,
and what runs where none of them does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from micropref._arrays.backend import Array, namespace, zeros
from micropref.kernels._pointwise import log_sigmoid, log_softmax, posterior, sigmoid, unit_terms
from micropref.kernels._problem import Posterior, Problem, Sums

# Blocks whose widened copy and products stay small beside X.
_BLOCK_ENTRIES = 1 << 24


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    xp = namespace(problem.X)
    k, c = problem.n_components, problem.n_context_features
    loss = 0.0
    heads, offsets = zeros(tuple(problem.heads.shape), problem.heads), zeros((k,), problem.heads)
    gate_weights = None if problem.gate_weights is None else zeros((k, c), problem.heads)
    kept = []
    for rows in _blocks(problem):
        context, difference = stored_as_computed(problem, rows)
        gate_products = None if problem.gate_weights is None else problem.gate_weights @ context.T
        block_loss, d_margins, d_logits = row_terms(problem, rows, problem.heads @ difference.T, gate_products)
        loss += block_loss
        heads += d_margins @ difference
        offsets += xp.sum(d_logits, axis=1)
        if gate_weights is not None:
            gate_weights += d_logits @ context
        if row_gradients:
            kept.append((d_margins.T, d_logits.T))
    d_margins, d_logits = (xp.concat(parts) for parts in zip(*kept, strict=True)) if kept else (None, None)
    return Sums(loss, heads, gate_weights, offsets, d_margins, d_logits)


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    kept = []
    for rows in _blocks(problem):
        context, difference = stored_as_computed(problem, rows)
        gate_products = None if problem.gate_weights is None else problem.gate_weights @ context.T
        log_likelihood, responsibilities = row_posterior(problem, rows, problem.heads @ difference.T, gate_products)
        kept.append((log_likelihood, responsibilities.T))
    return Posterior(*(namespace(problem.X).concat(parts) for parts in zip(*kept, strict=True)))


def _blocks(problem: Problem) -> list[slice]:
    size = max(64, _BLOCK_ENTRIES // int(problem.X.shape[1]))
    return [slice(start, start + size) for start in range(0, problem.n_rows, size)]


def stored_as_computed(problem: Problem, rows: slice) -> tuple[Array, Array]:
    """Contexts and differences of some rows, half precision widened."""
    block = widened(problem.X[rows], problem.bfloat16_bits, problem.dtype)
    return block[:, : problem.n_context_features], block[:, problem.n_context_features :]


def widened(block: Array, bfloat16_bits: bool, dtype: Any) -> Array:
    """Rows in the dtype of computation."""
    if bfloat16_bits:
        block = (block.astype(np.uint32) << 16).view(np.float32)
    return namespace(block).astype(block, dtype, copy=False)


def row_terms(
    problem: Problem, rows: slice, products: Array, gate_products: Array | None
) -> tuple[float, Array, Array]:
    """Loss of some rows, and its gradient with respect to w_kᵀ d_i and to the logits, (n_components, n_rows).

    ∂ℓ_i/∂m_ik = r_ik σ(−m_ik), and m_ik = s_i w_kᵀ d_i.
    """
    margins = _signed(problem, rows, products)
    given = problem.sample_weight
    weight = namespace(margins).ones_like(margins[0]) if given is None else given[rows]
    logits = _logits(problem, rows, gate_products, margins)
    loss, d_logits, responsibilities = unit_terms(logits, log_sigmoid(margins), weight, weight, problem.balance)
    return loss, _signed(problem, rows, -weight[None, :] * responsibilities * sigmoid(-margins)), d_logits


def row_posterior(problem: Problem, rows: slice, products: Array, gate_products: Array | None) -> tuple[Array, Array]:
    """Log-likelihoods (n_rows,) and responsibilities (n_components, n_rows) of some rows."""
    margins = _signed(problem, rows, products)
    return posterior(log_softmax(_logits(problem, rows, gate_products, margins)), log_sigmoid(margins))


def _signed(problem: Problem, rows: slice, margins: Array) -> Array:
    if problem.signs is None:
        return margins
    return margins * namespace(margins).astype(problem.signs[rows], problem.dtype)[None, :]


def _logits(problem: Problem, rows: slice, gate_products: Array | None, margins: Array) -> Array:
    if problem.logits is not None:
        return problem.logits[rows].T
    logits: Any = namespace(margins).zeros_like(margins) if gate_products is None else gate_products
    return logits if problem.offsets is None else logits + problem.offsets[:, None]
