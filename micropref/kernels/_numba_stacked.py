"""Stacked mixtures on the compiled path: whole units at a time, whose evidence is known before their rows leave the cache.

A block is as many whole units as have 64 rows together, or one unit that has more.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from micropref.kernels._numba import NO_ROWS, flat, of_rows, or_empty
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
def _unit_terms(n, n_stacked, softmax, logits, weights, evidence, slopes, outer, mass, balance, spare, losses):
    """Evidence of n units becomes responsibilities, and `slopes` the gradients of their logits; adds to the losses."""
    k_all = logits.shape[0] // n_stacked
    for s in range(n_stacked):
        own = slice(s * k_all, (s + 1) * k_all)
        if softmax:
            log_softmax(logits[own], n, weights[own], spare[0], spare[1])
        posterior(logits[own], evidence[own], n, spare[0], spare[1])
        loss_and_slopes(
            logits[own],
            weights[own],
            evidence[own],
            spare[0],
            n,
            outer,
            mass,
            balance,
            slopes[own],
            spare[1],
            losses[s],
        )


@njit(nogil=True, cache=True, error_model="numpy")
def _units(
    x, half, copied, c, order, starts, numbers, first, last, n_stacked, heads, gate, offsets, contexts, prior,
    inner, signs, outer, mass, balance, loss, d_heads, d_gate, d_offsets,
):  # fmt: skip
    """Losses of units `first` to `last` under stacked mixtures, and their gradients."""
    k_all, dtype = heads.shape[0], heads.dtype
    size = BLOCK_ROWS
    for u in range(first, last):
        size = max(size, starts[u + 1] - starts[u])
    margins, right, wrong = (
        np.zeros((k_all, size + ROWS), dtype), np.zeros((k_all, size), dtype), np.zeros((k_all, size), dtype)
    )  # fmt: skip
    unit, factor = np.zeros(size, np.int64), np.ones(size, dtype)
    sign, weight = np.ones(size, dtype), np.ones(size, dtype)
    per_block = BLOCK_ROWS + _UNIT_STEP
    of_units = np.zeros((4, k_all, per_block))
    logits, weights, evidence, slopes = of_units[0], of_units[1], of_units[2], of_units[3]
    products, spare = np.zeros((k_all, per_block), dtype), np.zeros((2, per_block))
    unit_outer, unit_mass = np.zeros(per_block), np.zeros(per_block)
    losses, of_offsets, shares = (
        np.zeros((n_stacked, per_block)),
        np.zeros((k_all, per_block)),
        np.zeros(per_block, dtype),
    )
    part_heads, part_gate = np.zeros_like(heads), np.zeros_like(gate)
    buffer = np.empty((size if copied else 0, x.shape[1]), dtype)
    softmax = gate.shape[0] > 0
    if not softmax:
        for k in range(k_all):
            logits[k] = offsets[k]
        for s in range(n_stacked):
            own = slice(s * (k_all // n_stacked), (s + 1) * (k_all // n_stacked))
            log_softmax(logits[own], per_block, weights[own], spare[0], spare[1])
    since = 0
    u = first
    while u < last:
        lo, v = starts[u], u + 1
        while v < last and starts[v + 1] - lo <= BLOCK_ROWS:
            v += 1
        n, n_units = starts[v] - lo, v - u
        filled = (n_units + _UNIT_STEP - 1) // _UNIT_STEP * _UNIT_STEP
        source, places, at, in_place = as_computed(x, half, order, lo, n, c, buffer)
        end = starts[last] if in_place else 0
        block_products(source, c, places, at, n, heads, margins, end)
        for i in range(n):
            row = row_at(order, lo + i)
            if inner.shape[0]:
                weight[i] = inner[row]
            if signs.shape[0]:
                sign[i] = signs[row]
        for k in range(k_all):
            for i in range(n):
                margins[k, i] *= sign[i]
            log_sigmoids(margins[k], n, right[k], wrong[k])
        _add_evidence(right, weight, starts, numbers, u, v, prior, evidence)
        for w in range(u, v):
            unit_outer[w - u], unit_mass[w - u] = outer[numbers[w]], mass[numbers[w]]
            for i in range(starts[w] - lo, starts[w + 1] - lo):
                unit[i] = w - u
        unit_outer[n_units:filled] = 0
        unit_mass[n_units:filled] = 0
        evidence[:, n_units:filled] = 0
        if softmax:
            block_products(contexts, 0, numbers, u, n_units, gate, products, last)
            for k in range(k_all):
                for i in range(n_units):
                    logits[k, i] = products[k, i] + offsets[k]
                logits[k, n_units:filled] = 0
        _unit_terms(
            filled, n_stacked, softmax, logits, weights, evidence, slopes, unit_outer, unit_mass, balance, spare, losses
        )
        for i in range(n):
            factor[i] = -sign[i] * weight[i]
        for k in range(k_all):
            for i in range(n_units):
                shares[i] = evidence[k, i] * unit_outer[i]
            for i in range(n):
                margins[k, i] = factor[i] * wrong[k, i] * shares[unit[i]]
            for i in range(filled):
                of_offsets[k, i] += slopes[k, i]
        block_gradient(source, c, places, at, n, margins, part_heads, d_heads, end)
        if softmax:
            for k in range(k_all):
                for i in range(n_units):
                    products[k, i] = slopes[k, i]
            block_gradient(contexts, 0, numbers, u, n_units, products, part_gate, d_gate, last)
        since += n
        if since >= ROWS_PER_FLUSH or v == last:
            flush(part_heads, d_heads)
            flush(part_gate, d_gate)
            since = 0
        u = v
    for s in range(n_stacked):
        loss[s] = losses[s].sum()
    for k in range(k_all):
        d_offsets[k] = of_offsets[k].sum()


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
    copied = bool(half) or not X.flags.c_contiguous

    def part(some: slice) -> StackedSums:
        total = StackedSums.zeros(stack)
        d_gate = np.zeros((0, 0)) if total.gate_weights is None else total.gate_weights.reshape(gate.shape)
        _units(X, half, copied, stack.n_context_features, order, starts, numbers, some.start, some.stop, s, heads, gate,
               offsets, contexts, prior, inner, signs, outer, mass, float(stack.balance), total.loss,
               total.heads.reshape(heads.shape), d_gate, total.offsets.reshape(s * k))  # fmt: skip
        return total

    return added_up(stack, part, units.slices(X.shape[1]))
