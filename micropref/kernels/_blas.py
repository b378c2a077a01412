"""The CPU path of the base install: NumPy and its BLAS, in two sizes of blocks.

A block is read from memory once: its margins, then its gradient, while it is in the last-level cache. Inside it,
products are cut so small that OpenBLAS computes each in the calling thread. It would otherwise start threads for some
microseconds of work and, wherever another process uses a core, wait for them a thousand times longer than that.
"""

from __future__ import annotations

import numpy as np

from micropref.kernels import _threads
from micropref.kernels._problem import Posterior, Problem, Sums
from micropref.kernels._reference import row_posterior, row_terms, stored_as_computed, widened

_BLOCK_BYTES = 1 << 22
# OpenBLAS keeps a product of (m, k) by (k, n) to one thread up to m n k = 2^18.
_SMALL_PRODUCT = 1 << 18


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    k, c, gate = problem.n_components, problem.n_context_features, problem.gate_weights
    kept = np.empty((2, problem.n_rows, k), problem.dtype) if row_gradients else None

    def part(rows: slice) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        loss, heads = 0.0, np.zeros(problem.heads.shape)
        gate_weights, offsets = np.zeros((k, c)), np.zeros(k)
        for block in _blocks(problem, rows):
            context, difference = stored_as_computed(problem, block)
            gate_products = None if gate is None else products(gate, context)
            value, d_margins, d_logits = row_terms(problem, block, products(problem.heads, difference), gate_products)
            loss += value
            add_gradient(heads, d_margins, difference)
            offsets += d_logits.sum(axis=1)
            if gate is not None:
                add_gradient(gate_weights, d_logits, context)
            if kept is not None:
                kept[0, block], kept[1, block] = d_margins.T, d_logits.T
        return loss, heads, gate_weights, offsets

    parts = _threads.run(part, _threads.split(*problem.X.shape))
    loss, heads, gate_weights, offsets = (sum(p[1:], start=p[0]) for p in zip(*parts, strict=True))
    return Sums(loss, heads, None if gate is None else gate_weights, offsets, *(() if kept is None else kept))


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    log_likelihood = np.empty(problem.n_rows, problem.dtype)
    responsibilities = np.empty((problem.n_rows, problem.n_components), problem.dtype)
    gate = problem.gate_weights

    def part(rows: slice) -> None:
        for block in _blocks(problem, rows):
            context, difference = stored_as_computed(problem, block)
            gate_products = None if gate is None else products(gate, context)
            found = row_posterior(problem, block, products(problem.heads, difference), gate_products)
            log_likelihood[block], responsibilities[block] = found[0], found[1].T

    _threads.run(part, _threads.split(*problem.X.shape))
    return Posterior(log_likelihood, responsibilities)


def linear_products(X: np.ndarray, bfloat16_bits: bool, W: np.ndarray, first_column: int) -> np.ndarray:
    """``W @ X[:, columns].T``, of shape (n_vectors, n_rows)."""
    out = np.empty((len(W), len(X)), W.dtype)
    columns = slice(first_column, first_column + W.shape[1])

    def part(rows: slice) -> None:
        for block in _cut(rows, X.shape[1]):
            out[:, block] = products(W, widened(X[block, columns], bfloat16_bits, W.dtype))

    _threads.run(part, _threads.split(*X.shape))
    return out


def linear_gradient(
    d_products: np.ndarray, X: np.ndarray, bfloat16_bits: bool, first_column: int, width: int
) -> np.ndarray:
    """``d_products @ X[:, columns]`` in double precision."""
    columns = slice(first_column, first_column + width)

    def part(rows: slice) -> np.ndarray:
        total = np.zeros((len(d_products), width))
        for block in _cut(rows, X.shape[1]):
            add_gradient(total, d_products[:, block], widened(X[block, columns], bfloat16_bits, d_products.dtype))
        return total

    return np.asarray(np.sum(_threads.run(part, _threads.split(*X.shape)), axis=0))


def block_rows(width: int) -> int:
    """Rows of this width that the last-level cache holds together with their products."""
    return max(64, _BLOCK_BYTES // (4 * width))


def _blocks(problem: Problem, rows: slice) -> list[slice]:
    return _cut(rows, problem.X.shape[1])


def _cut(rows: slice, width: int) -> list[slice]:
    size = block_rows(width)
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def _pieces(features: np.ndarray, n_components: int) -> list[slice]:
    size = max(1, _SMALL_PRODUCT // (n_components * features.shape[1]))
    return [slice(start, start + size) for start in range(0, len(features), size)]


def products(parameters: np.ndarray, features: np.ndarray) -> np.ndarray:
    """``parameters @ features.T``, of shape (n_components, n_rows)."""
    out = np.empty((len(parameters), len(features)), features.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity in a row is found where the result is looked at
        for piece in _pieces(features, len(parameters)):
            out[:, piece] = parameters @ features[piece].T
    return out


def add_gradient(total: np.ndarray, d_products: np.ndarray, features: np.ndarray) -> None:
    """``total += d_products @ features`` in the double precision of `total`."""
    for piece in _pieces(features, len(total)):
        total += d_products[:, piece] @ features[piece]
