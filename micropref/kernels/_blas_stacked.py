"""Stacked mixtures with NumPy and its BLAS: blocks of whole units in the last-level cache, read from memory once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref.kernels import _threads
from micropref.kernels._blas import add_gradient, block_rows, products
from micropref.kernels._pointwise import log_sigmoid, sigmoid, unit_terms
from micropref.kernels._reference import widened
from micropref.kernels._stacked import Stack, StackedSums, added_up


def stacked_sums(stack: Stack) -> StackedSums:
    """Losses and gradients of all mixtures."""
    width, units = stack.X.shape[1], stack.units
    size = block_rows(width)

    def part(some: slice) -> StackedSums:
        total = StackedSums.zeros(stack)
        cuts = range(some.start, some.stop, size)
        blocks = [slice(a, min(a + size, some.stop)) for a in cuts] if units is None else units.blocks(some, size)
        for block in blocks:
            _add_block(stack, block, total)
        return total

    if units is not None:
        return added_up(stack, part, units.slices(width))
    return added_up(stack, part, _threads.split(*stack.X.shape) if len(stack.X) else [])


def _add_block(stack: Stack, block: slice, total: StackedSums) -> None:
    """Add a block of units to the sums."""
    s, k, d = stack.heads.shape
    c, units = stack.n_context_features, stack.units
    places = block if units is None else slice(units.starts[block.start], units.starts[block.stop])
    rows = places if units is None or units.order is None else units.order[places]
    stored = widened(stack.X[rows], stack.bfloat16_bits, stack.heads.dtype)
    difference = stored[:, c:]
    margins = products(stack.heads.reshape(s * k, d), difference)
    if stack.signs is not None:
        margins *= stack.signs[rows]
    context = None if stack.gate_weights is None else stored[:, :c] if units is None else _contexts(stack, block)
    logits = np.repeat(stack.offsets.reshape(-1, 1), block.stop - block.start, axis=1)
    if context is not None:
        logits += products(stack.gate_weights.reshape(s * k, c), context)  # type: ignore[union-attr]
    evidence = _evidence(stack, block, rows, log_sigmoid(margins))
    outer, mass, of_rows = _weights(stack, block, rows, margins.dtype)
    d_logits = np.empty_like(logits)
    responsibilities = np.empty(logits.shape, margins.dtype)
    for i in range(s):
        heads = slice(i * k, (i + 1) * k)
        loss, d_logits[heads], responsibilities[heads] = unit_terms(
            logits[heads].astype(evidence.dtype), evidence[heads], outer, mass, stack.balance
        )
        total.loss[i] += loss
    if units is not None:
        counts = np.diff(units.starts[block.start : block.stop + 1])
        responsibilities = np.repeat(responsibilities, counts, axis=1)
    d_margins = -(of_rows * responsibilities) * sigmoid(-margins)
    if stack.signs is not None:
        d_margins *= stack.signs[rows]
    add_gradient(total.heads.reshape(s * k, d), d_margins, difference)
    total.offsets[:] += d_logits.sum(axis=1).reshape(s, k)
    if context is not None:
        assert total.gate_weights is not None
        add_gradient(total.gate_weights.reshape(s * k, c), d_logits, context)


def _contexts(stack: Stack, block: slice) -> NDArray[Any]:
    assert stack.units is not None
    assert stack.contexts is not None
    return stack.contexts[stack.units.numbers[block]].astype(stack.heads.dtype, copy=False)


def _evidence(stack: Stack, block: slice, rows: Any, parts: NDArray[Any]) -> NDArray[Any]:
    """e_uk of a block's units for all heads, (S K, n_units); sums over rows in double precision."""
    units = stack.units
    if units is None:
        return parts
    if stack.weight is not None:
        parts = parts * stack.weight[rows].astype(parts.dtype)
    starts = units.starts[block]
    found = np.asarray(np.add.reduceat(parts.astype(np.float64), starts - starts[0], axis=1))
    if stack.prior is not None:
        numbers = units.numbers[block]
        known = numbers < stack.prior.shape[1]
        s = stack.heads.shape[0]
        found[:, known] += np.tile(stack.prior[:, numbers[known]], (s, 1))
    return found


def _weights(stack: Stack, block: slice, rows: Any, dtype: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Weights of a block's units' log-likelihoods and entropies, and of the gradient of every row."""
    units = stack.units
    if units is None:
        size = block.stop - block.start
        weight = np.ones(size, dtype) if stack.weight is None else stack.weight[rows].astype(dtype)
        return weight, weight, weight
    numbers = units.numbers[block]
    outer = units.outer[numbers]
    of_rows = np.repeat(outer, np.diff(units.starts[block.start : block.stop + 1])).astype(dtype)
    return outer, units.mass[numbers], of_rows if stack.weight is None else of_rows * stack.weight[rows].astype(dtype)
