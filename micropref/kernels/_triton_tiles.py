"""Tiles of rows on tensor cores, in pieces of columns, for any width and any number of heads.

A tile is read twice, for its margins and for its gradient, the second time from a cache where the tiles of all programs
fit one; and every tile adds its gradient to its program's sums in memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from micropref.kernels._triton_pointwise import POSTERIORS, row_terms, rows_of
from micropref.kernels._triton_products import product, transposed_parameters


@triton.jit
def _add(total, part, component, n_components, column, n_columns):
    """Add (components, columns) to a program's own sums in memory."""
    at = total + component[:, None] * n_columns + column[None, :]
    mask = (component < n_components)[:, None] & (column < n_columns)[None, :]
    tl.store(at, tl.load(at, mask=mask, other=0.0) + part, mask=mask)


@triton.jit
def _products(
    x, p, row, n_rows, n_columns, row_stride, column_stride, component, n_components, total,
    COLUMNS: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """``total`` (rows, components) plus products with parameters (n_components, n_columns)."""
    for start in range(0, n_columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        rows = rows_of(x, row, n_rows, column, n_columns, row_stride, column_stride)
        total = product(rows, transposed_parameters(p, component, n_components, column, n_columns), total, ROUNDED)
    return total


@triton.jit
def _add_gradient(
    x, d, row, n_rows, n_columns, row_stride, column_stride, component, n_components, sums, scratch,
    COLUMNS: tl.constexpr, ROUNDED: tl.constexpr, TOGETHER: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Add dᵀ x to a program's own sums, of gradients d (rows, components).

    d belongs to the rows from `row` on; or, of several tiles together, all their d lie in scratch.
    """
    ROWS: tl.constexpr = row.shape[0]
    COMPONENTS: tl.constexpr = component.shape[0]
    within = component[:, None] + tl.arange(0, ROWS)[None, :] * (2 * COMPONENTS)
    # Turned: xᵀ d, since the widest tensor core instruction needs 64 rows on the left.
    if TURNED:  # noqa: SIM108
        nothing = tl.zeros((COLUMNS, COMPONENTS), tl.float32)
    else:
        nothing = tl.zeros((COMPONENTS, COLUMNS), tl.float32)
    turned = tl.trans(d)
    for start in range(0, n_columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        part = nothing
        if TOGETHER > 1:
            for i in range(TOGETHER):
                rows = rows_of(x, row + i * ROWS, n_rows, column, n_columns, row_stride, column_stride)
                part = product(tl.load(scratch + i * (2 * ROWS * COMPONENTS) + within), rows, part, ROUNDED)
        elif TURNED:
            rows = rows_of(x, row, n_rows, column, n_columns, row_stride, column_stride)
            part = tl.trans(product(tl.trans(rows), d, part, ROUNDED))
        else:
            rows = rows_of(x, row, n_rows, column, n_columns, row_stride, column_stride)
            part = product(turned, rows, part, ROUNDED)
        _add(sums, part, component, n_components, column, n_columns)


@triton.jit
def tiles(
    x, row_stride, column_stride, n_rows, n_context, n_features, n_components, n_tiles,
    heads, gate, offsets, logits, sample_weight, signs, balance,
    loss_sums, head_sums, gate_sums, offset_sums, out, scratch,
    HAS_GATE: tl.constexpr, HAS_LOGITS: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SIGNS: tl.constexpr,
    HAS_BALANCE: tl.constexpr, OUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, COMPONENTS: tl.constexpr, ROUNDED: tl.constexpr,
    TOGETHER: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Shapes, all contiguous but X: heads (n_components, n_features), gate (n_components, n_context), offsets
    (n_components), logits (n_rows, n_components), loss_sums (programs), head_sums (programs, n_components, n_features),
    gate_sums (programs, n_components, n_context), offset_sums (programs, n_components), out (n_rows, 2 n_components) of
    gradients or (n_rows, 1 + n_components) of posteriors, scratch (programs, TOGETHER, ROWS, 2 COMPONENTS). Sums start
    at zero. Capitals are tile sizes and switches.

    A tile is TOGETHER times ROWS rows: margins and logits are computed ROWS at a time, and the gradient of all of them
    stays in registers until it is added to memory, once.
    """
    program = tl.program_id(0)
    component = tl.arange(0, COMPONENTS)
    live = component < n_components
    my_heads = head_sums + program.to(tl.int64) * n_components * n_features
    my_gate = gate_sums + program.to(tl.int64) * n_components * n_context
    mine = scratch + program * (TOGETHER * 2 * ROWS * COMPONENTS)
    within = tl.arange(0, ROWS)[:, None] * (2 * COMPONENTS) + component[None, :]
    b = tl.load(offsets + component, mask=live, other=0.0)
    difference = x + n_context * column_stride
    loss = tl.zeros((1,), tl.float32)
    d_offsets = tl.zeros((COMPONENTS,), tl.float32)
    nothing = tl.zeros((ROWS, COMPONENTS), tl.float32)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        first = tl.arange(0, ROWS).to(tl.int64) + tile * (ROWS * TOGETHER)
        d_margins = nothing
        d_logits = nothing
        for i in range(TOGETHER):
            row = first + i * ROWS
            margins = _products(
                difference, heads, row, n_rows, n_features, row_stride, column_stride, component, n_components, nothing,
                COLUMNS, ROUNDED,
            )  # fmt: skip
            g = nothing + b[None, :]
            if HAS_GATE:
                g = _products(
                    x, gate, row, n_rows, n_context, row_stride, column_stride, component, n_components, g,
                    COLUMNS, ROUNDED,
                )  # fmt: skip
            row_loss, d_margins, d_logits = row_terms(
                margins, g, row, n_rows, component, n_components, logits, sample_weight, signs, balance, out,
                HAS_LOGITS, HAS_WEIGHT, HAS_SIGNS, HAS_BALANCE, OUT,
            )  # fmt: skip
            loss += tl.sum(row_loss, axis=0)
            d_offsets += tl.sum(d_logits, axis=0)
            if OUT != POSTERIORS and TOGETHER > 1:
                tl.store(mine + i * (2 * ROWS * COMPONENTS) + within, d_margins)
                tl.store(mine + i * (2 * ROWS * COMPONENTS) + within + COMPONENTS, d_logits)
        if OUT != POSTERIORS:
            if TOGETHER > 1:
                tl.debug_barrier()
            _add_gradient(
                difference, d_margins, first, n_rows, n_features, row_stride, column_stride, component, n_components,
                my_heads, mine, COLUMNS, ROUNDED, TOGETHER, TURNED,
            )  # fmt: skip
            if HAS_GATE:
                _add_gradient(
                    x, d_logits, first, n_rows, n_context, row_stride, column_stride, component, n_components,
                    my_gate, mine + COMPONENTS, COLUMNS, ROUNDED, TOGETHER, TURNED,
                )  # fmt: skip
            if TOGETHER > 1:
                tl.debug_barrier()
    if OUT != POSTERIORS:
        tl.store(loss_sums + program + tl.arange(0, 1), loss)
        tl.store(offset_sums + program * n_components + component, d_offsets, mask=live)
