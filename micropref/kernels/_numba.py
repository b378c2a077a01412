"""The compiled CPU path: 64 rows at a time, from their margins to their gradient while they are in a cache.

Products go by tiles of four rows, and everything between them by vectors. The functions release the interpreter lock
and run in threads of the caller's; numba's own threads would abort a process that calls them from two threads at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from micropref.kernels import _threads
from micropref.kernels._numba_pointwise import log_sigmoids, log_softmax, loss_and_slopes, posterior
from micropref.kernels._numba_tiles import (
    BLOCK_ROWS,
    ROWS,
    ROWS_PER_FLUSH,
    as_computed,
    block_gradient,
    block_products,
    flush,
    tiled,
)
from micropref.kernels._problem import Posterior, Problem, Sums
from micropref.kernels._stacked import Stack, StackedSums, added_up

NO_ROWS, GRADIENTS, POSTERIORS = 0, 1, 2


@njit(nogil=True, cache=True, error_model="numpy")
def _terms(n, softmax, margins, blocks, spare, balance, losses):
    """Of n rows, their products with heads become gradients, and evidence responsibilities; the losses are added up."""
    logits, weights, evidence, slopes, wrong = blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]
    first, second, sign, weight = spare[0], spare[1], spare[2], spare[3]
    n_stacked, k_all = evidence.shape[0], evidence.shape[1]
    for s in range(n_stacked):
        for k in range(k_all):
            own = margins[s * k_all + k]
            for i in range(n):
                own[i] *= sign[i]
            log_sigmoids(own, n, evidence[s, k], wrong[s, k])
        if softmax:
            log_softmax(logits[s], n, weights[s], first, second)
        posterior(logits[s], evidence[s], n, first, second)
        loss_and_slopes(
            logits[s], weights[s], evidence[s], first, n, weight, weight, balance, slopes[s], second, losses[s]
        )
        for k in range(k_all):
            own, share, missed = margins[s * k_all + k], evidence[s, k], wrong[s, k]
            for i in range(n):
                own[i] = -sign[i] * weight[i] * share[i] * missed[i]


@njit(nogil=True, cache=True, error_model="numpy")
def fold(parts, total):
    """Add the sum of every row of `parts` to `total`, and set it to zero.

    One sum for every place in a block, added up at the end, is no chain of additions from block to block.
    """
    for k in range(parts.shape[0]):
        for i in range(parts.shape[1]):
            total[k] += parts[k, i]
            parts[k, i] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _rows(
    x, half, c, first, last, heads, gate, offsets, given, sample_weight, signs, balance, kind, rows, loss, d_heads,
    d_gate, d_offsets, buffer, margins, blocks, spare, losses, of_offsets, part_heads, part_gate,
):  # fmt: skip
    """Losses of rows `first` to `last` under stacked mixtures, and their gradients.

    What comes from `buffer` on is a workspace, whose sums are zero before and after.
    With one mixture `kind` says what is written to `rows` besides. Without logits that differ from row to row, `blocks`
    holds the logarithms of the mixture weights and these.
    """
    k_all, in_order = heads.shape[0], np.empty(0, np.int64)
    gated, softmax = gate.shape[0] > 0, gate.shape[0] > 0 or given.shape[0] > 0
    logits, slopes = blocks[0].reshape(margins.shape), blocks[3].reshape(margins.shape)
    for lo in range(first, last, BLOCK_ROWS):
        n = min(BLOCK_ROWS, last - lo)
        source, order, at, in_place = as_computed(x, half, in_order, lo, n, 0 if gated else c, buffer)
        end = last if in_place else 0
        block_products(source, c, order, at, n, heads, margins, end)
        if gated:
            block_products(source, 0, order, at, n, gate, logits, end)
        if signs.shape[0]:
            for i in range(n):
                spare[2, i] = signs[lo + i]
        if sample_weight.shape[0]:
            for i in range(n):
                spare[3, i] = sample_weight[lo + i]
        for k in range(k_all if softmax else 0):
            for i in range(n):
                logits[k, i] = given[lo + i, k] if given.shape[0] else logits[k, i] + offsets[k]
        _terms(n, softmax, margins, blocks, spare, balance, losses)
        if kind == POSTERIORS:
            for i in range(n):
                rows[lo + i, 0] = spare[0, i]
                for k in range(k_all):
                    rows[lo + i, 1 + k] = blocks[2, 0, k, i]
            continue
        for k in range(k_all):
            for i in range(n):
                of_offsets[k, i] += slopes[k, i]
                if kind == GRADIENTS:
                    rows[lo + i, k] = margins[k, i]
                    rows[lo + i, k_all + k] = slopes[k, i]
        block_gradient(source, c, order, at, n, margins, part_heads, d_heads, end)
        if gated:
            block_gradient(source, 0, order, at, n, slopes, part_gate, d_gate, end)
        if (lo - first + BLOCK_ROWS) % ROWS_PER_FLUSH == 0 or lo + n == last:
            flush(part_heads, d_heads)
            flush(part_gate, d_gate)
    fold(losses, loss)
    fold(of_offsets, d_offsets)


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    n, k = problem.n_rows, problem.n_components
    rows = np.empty((n, 2 * k) if row_gradients else (0, 0), problem.dtype)
    found = of_rows(_alone(problem), problem.logits, GRADIENTS if row_gradients else NO_ROWS, rows)
    gate = None if found.gate_weights is None else found.gate_weights[0]
    more = (rows[:, :k], rows[:, k:]) if row_gradients else ()
    return Sums(float(found.loss[0]), found.heads[0], gate, found.offsets[0], *more)


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    rows = np.empty((problem.n_rows, 1 + problem.n_components), problem.dtype)
    of_rows(_alone(problem), problem.logits, POSTERIORS, rows)
    return Posterior(rows[:, 0], rows[:, 1:])


def _alone(problem: Problem) -> Stack:
    """A stack of one mixture."""
    gate, k = problem.gate_weights, problem.n_components
    return Stack(
        problem.X,
        problem.heads[None],
        None if gate is None else gate[None],
        np.zeros((1, k), problem.dtype) if problem.offsets is None else problem.offsets[None],
        problem.n_context_features,
        weight=problem.sample_weight,
        signs=problem.signs,
        balance=problem.balance,
        bfloat16_bits=problem.bfloat16_bits,
    )


def of_rows(stack: Stack, logits: np.ndarray | None, kind: int, rows: np.ndarray) -> StackedSums:
    """Losses and gradients of mixtures whose units are single rows; `kind` says what is written to `rows`."""
    s, k, _ = stack.heads.shape
    X, half = tiled(stack.X, stack.bfloat16_bits)
    dtype = stack.heads.dtype
    heads, gate, offsets = flat(stack)
    # An absent array is an empty one, so that one compiled function serves all cases.
    logits, direct = or_empty(logits, (0, 0), dtype), not half and X.flags.c_contiguous
    weight, signs = or_empty(stack.weight, (0,), dtype), or_empty(stack.signs, (0,), np.int8)
    size = BLOCK_ROWS + ROWS
    without_gate = constant_weights(stack, size)

    def workspace() -> tuple[np.ndarray, ...]:
        blocks = np.zeros((5, s, k, size), dtype)
        blocks[:2] = without_gate
        return (
            np.empty((BLOCK_ROWS, 0 if direct else X.shape[1]), dtype),
            np.zeros((s * k, size), dtype),
            blocks,
            np.ones((4, size), dtype),
            np.zeros((s, size)),
            np.zeros((s * k, size)),
            np.zeros_like(heads),
            np.zeros_like(gate),
        )

    def part(some: slice, *own: np.ndarray) -> StackedSums:
        total = StackedSums.zeros(stack)
        _rows(X, half, stack.n_context_features, some.start, some.stop, heads, gate, offsets, logits, weight, signs,
              float(stack.balance), kind, rows, *targets(total, heads, gate), *own)  # fmt: skip
        return total

    return added_up(stack, part, _threads.split(*stack.X.shape) if len(stack.X) else [], workspace)


def constant_weights(stack: Stack, size: int) -> np.ndarray:
    """Log π and π (2, S, K, size) of weights that are the same everywhere, in the dtype of what they are put into."""
    s, k, _ = stack.heads.shape
    found = np.zeros((2, s, k, size), np.float64 if stack.units is not None else stack.heads.dtype)
    found[0] = stack.offsets[:, :, None]
    spare = np.zeros((2, size), found.dtype)
    for i in range(s):
        log_softmax(found[0, i], size, found[1, i], spare[0], spare[1])
    return found


def targets(total: StackedSums, heads: np.ndarray, gate: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the losses and the gradients of flat heads, gate weights and offsets are added up."""
    of_gate = np.zeros((0, 0)) if total.gate_weights is None else total.gate_weights.reshape(gate.shape)
    return total.loss, total.heads.reshape(heads.shape), of_gate, total.offsets.reshape(-1)


def flat(stack: Stack) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heads (S K, d), gate weights (S K, c) or (0, 0), and offsets (S K,)."""
    s, k, d = stack.heads.shape
    gate = np.empty((0, 0), stack.heads.dtype) if stack.gate_weights is None else stack.gate_weights.reshape(s * k, -1)
    parts = stack.heads.reshape(s * k, d), gate, stack.offsets.reshape(s * k)
    return tuple(np.ascontiguousarray(part) for part in parts)  # type: ignore[return-value]


def or_empty(array: np.ndarray | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.empty(shape, dtype) if array is None else np.ascontiguousarray(array, dtype)
