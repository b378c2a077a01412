"""Stacked mixtures on the compiled path: whole units at a time, with gradients before their rows leave the cache.

A block is as many whole units as have 64 rows together, or one unit that has more.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from micropref.kernels._numba import NO_ROWS, constant_weights, flat, fold, of_rows, or_empty, targets
from micropref.kernels._numba_pointwise import log_sigmoids, log_softmax, loss_and_slopes, posterior
from micropref.kernels._numba_tiles import (
    BLOCK_ROWS,
    ROWS,
    ROWS_PER_FLUSH,
    as_computed,
    block_gradient,
    block_products,
    flush,
    row_at,
    tiled,
)
from micropref.kernels._stacked import Stack, StackedSums, added_up

# Units of a block are filled up with others that weigh nothing to a multiple of what vectors hold.
_UNIT_STEP = 8


@njit(nogil=True, cache=True, error_model="numpy")
def _add_evidence(parts, weight, starts, numbers, first, last, prior, evidence):
    """e_uk of units `first` to `last`, in double precision."""
    lo = starts[first]
    n_prior = prior.shape[0]
    for k in range(parts.shape[0]):
        for u in range(first, last):
            total = 0.0
            for i in range(starts[u] - lo, starts[u + 1] - lo):
                total += float(parts[k, i]) * float(weight[i])
            if n_prior and numbers[u] < prior.shape[1]:
                total += prior[k % n_prior, numbers[u]]
            evidence[k, u - first] = total


@njit(nogil=True, cache=True, error_model="numpy")
def _unit_terms(n, softmax, logits, weights, evidence, slopes, spare, balance, losses):
    """Evidence of units becomes responsibilities, and `slopes` the gradients of their logits; adds to the losses.

    Behind the last of n units stand others that weigh nothing, up to a number of whole vectors.
    """
    first, second, outer, mass = spare[0], spare[1], spare[2], spare[3]
    filled = (n + _UNIT_STEP - 1) // _UNIT_STEP * _UNIT_STEP
    for i in range(n, filled):
        outer[i] = mass[i] = 0
    for s in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            for i in range(n, filled):
                evidence[s, k, i] = 0
                if softmax:
                    logits[s, k, i] = 0
        if softmax:
            log_softmax(logits[s], filled, weights[s], first, second)
        posterior(logits[s], evidence[s], filled, first, second)
        loss_and_slopes(
            logits[s], weights[s], evidence[s], first, filled, outer, mass, balance, slopes[s], second, losses[s]
        )


@njit(nogil=True, cache=True, error_model="numpy")
def _margins_and_evidence(n, margins, right, wrong, sign):
    """Labelled margins of n rows, log σ and σ(−m)."""
    for k in range(margins.shape[0]):
        own = margins[k]
        for i in range(n):
            own[i] *= sign[i]
        log_sigmoids(own, n, right[k], wrong[k])


@njit(nogil=True, cache=True, error_model="numpy")
def _row_slopes(n, n_units, unit, evidence, outer, wrong, of_rows, shares, margins):
    """Margins become the gradients with respect to the products of rows with heads."""
    sign, weight, factor = of_rows[0], of_rows[1], of_rows[2]
    for i in range(n):
        factor[i] = -sign[i] * weight[i]
    for k in range(margins.shape[0]):
        for i in range(n_units):
            shares[i] = evidence[k, i] * outer[i]
        for i in range(n):
            margins[k, i] = factor[i] * wrong[k, i] * shares[unit[i]]


@njit(nogil=True, cache=True, error_model="numpy")
def _units(
    x, half, c, order, starts, numbers, first, last, heads, gate, offsets, contexts, prior, inner, signs, outer, mass,
    balance, loss, d_heads, d_gate, d_offsets, buffer, margins, right, wrong, of_rows, unit, of_units, products, shares,
    spare, losses, of_offsets, part_heads, part_gate,
):  # fmt: skip
    """Losses of units `first` to `last` under stacked mixtures, and their gradients.

    What comes from `buffer` on is a workspace, whose sums are zero before and after. `of_units` holds the logarithms of
    the mixture weights and these where no gate looks at contexts.
    """
    k_all, softmax = heads.shape[0], gate.shape[0] > 0
    logits, weights, evidence, slopes = of_units[0], of_units[1], of_units[2], of_units[3]
    flat_logits, flat_evidence = logits.reshape(products.shape), evidence.reshape(products.shape)
    flat_slopes = slopes.reshape(products.shape)
    since, u = 0, first
    while u < last:
        lo, v = starts[u], u + 1
        while v < last and starts[v + 1] - lo <= BLOCK_ROWS:
            v += 1
        n, n_units = starts[v] - lo, v - u
        source, places, at, in_place = as_computed(x, half, order, lo, n, c, buffer)
        end = starts[last] if in_place else 0
        block_products(source, c, places, at, n, heads, margins, end)
        for i in range(n):
            row = row_at(order, lo + i)
            if signs.shape[0]:
                of_rows[0, i] = signs[row]
            if inner.shape[0]:
                of_rows[1, i] = inner[row]
        _margins_and_evidence(n, margins, right, wrong, of_rows[0])
        _add_evidence(right, of_rows[1], starts, numbers, u, v, prior, flat_evidence)
        for w in range(u, v):
            spare[2, w - u], spare[3, w - u] = outer[numbers[w]], mass[numbers[w]]
            for i in range(starts[w] - lo, starts[w + 1] - lo):
                unit[i] = w - u
        if softmax:
            block_products(contexts, 0, numbers, u, n_units, gate, products, last)
            for k in range(k_all):
                for i in range(n_units):
                    flat_logits[k, i] = products[k, i] + offsets[k]
        _unit_terms(n_units, softmax, logits, weights, evidence, slopes, spare, balance, losses)
        _row_slopes(n, n_units, unit, flat_evidence, spare[2], wrong, of_rows, shares, margins)
        for k in range(k_all):
            for i in range(n_units):
                of_offsets[k, i] += flat_slopes[k, i]
                products[k, i] = flat_slopes[k, i]
        block_gradient(source, c, places, at, n, margins, part_heads, d_heads, end)
        if softmax:
            block_gradient(contexts, 0, numbers, u, n_units, products, part_gate, d_gate, last)
        since += n
        if since >= ROWS_PER_FLUSH or v == last:
            flush(part_heads, d_heads)
            flush(part_gate, d_gate)
            since = 0
        u = v
    fold(losses, loss)
    fold(of_offsets, d_offsets)


def stacked_sums(stack: Stack) -> StackedSums:
    """Losses and gradients of all mixtures."""
    units = stack.units
    if units is None:
        return of_rows(stack, None, NO_ROWS, np.empty((0, 0), stack.heads.dtype))
    s, k, _ = stack.heads.shape
    X, half = tiled(stack.X, stack.bfloat16_bits)
    dtype = stack.heads.dtype
    heads, gate, offsets = flat(stack)
    order = or_empty(units.order, (0,), np.int64)
    starts, numbers = (np.ascontiguousarray(a, np.int64) for a in (units.starts, units.numbers))
    contexts = or_empty(None if stack.gate_weights is None else stack.contexts, (0, 0), dtype)
    prior = or_empty(stack.prior, (0, 0), np.float64)
    inner, signs = or_empty(stack.weight, (0,), dtype), or_empty(stack.signs, (0,), np.int8)
    outer, mass = (np.ascontiguousarray(a, np.float64) for a in (units.outer, units.mass))
    direct, per_block = not half and X.flags.c_contiguous, BLOCK_ROWS + _UNIT_STEP
    size = max(BLOCK_ROWS, units.largest) + ROWS
    without_gate = constant_weights(stack, per_block)

    def workspace() -> tuple[np.ndarray, ...]:
        of_units = np.zeros((4, s, k, per_block))
        of_units[:2] = without_gate
        return (
            np.empty((0 if direct else size, X.shape[1]), dtype),
            *np.zeros((3, s * k, size), dtype),
            np.ones((3, size), dtype),
            np.zeros(size, np.int64),
            of_units,
            np.zeros((s * k, per_block), dtype),
            np.zeros(per_block, dtype),
            np.zeros((4, per_block)),
            np.zeros((s, per_block)),
            np.zeros((s * k, per_block)),
            np.zeros_like(heads),
            np.zeros_like(gate),
        )

    def part(some: slice, *own: np.ndarray) -> StackedSums:
        total = StackedSums.zeros(stack)
        _units(X, half, stack.n_context_features, order, starts, numbers, some.start, some.stop, heads, gate, offsets,
               contexts, prior, inner, signs, outer, mass, float(stack.balance),
               *targets(total, heads, gate), *own)  # fmt: skip
        return total

    return added_up(stack, part, units.slices(X.shape[1]), workspace)
