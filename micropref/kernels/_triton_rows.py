"""Few heads: a whole row in the registers of one to eight warps, so that X is read once, and the gradient in them too.

No tensor cores: each number of X takes two multiply-adds a head and waits for nothing but memory. The gradient is
written once, after a program's last row.
"""

# Triton joins tuples by + only.
# ruff: noqa: RUF005
from __future__ import annotations

import triton
import triton.language as tl

from micropref.kernels._triton_pointwise import POSTERIORS, row_terms


# Few functions: Triton's interpreter, in which the tests run, takes milliseconds for every call.
@triton.jit
def _load(
    x, row, n_rows, n_columns, row_stride, column_stride,
    COLUMNS: tl.constexpr, PIECES: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Rows in pieces of (rows, columns), widened; zero outside. FULL: there are no columns outside."""
    # A thread takes four columns at a time, of half precision too, so that a warp has one row.
    column = tl.max_contiguous(tl.arange(0, COLUMNS), 4)
    at = x + row[:, None] * row_stride + column[None, :] * column_stride
    live = (row < n_rows)[:, None]
    pieces = ()
    for i in tl.static_range(PIECES):
        mask = live if FULL else live & (column < n_columns - i * COLUMNS)[None, :]
        piece = tl.load(at + i * COLUMNS * column_stride, mask=mask, other=0.0).to(tl.float32)
        pieces = pieces + (piece,)  # type: ignore[assignment]
    return pieces


@triton.jit
def _store_products(
    pieces, p, n_columns, at,
    COLUMNS: tl.constexpr, PIECES: tl.constexpr, FULL: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Products of rows with K rows of parameters (K, n_columns), stored at (rows,) + k."""
    column = tl.max_contiguous(tl.arange(0, COLUMNS), 4)
    for k in tl.static_range(K):
        terms = tl.zeros_like(pieces[0])
        for i in tl.static_range(PIECES):
            if FULL:
                of_head = tl.load(p + k * n_columns + (i * COLUMNS + column))
            else:
                live = column < n_columns - i * COLUMNS
                of_head = tl.load(p + k * n_columns + (i * COLUMNS + column), mask=live, other=0.0)
            terms += pieces[i] * of_head[None, :]
        tl.store(at + k, tl.sum(terms, axis=1))


@triton.jit
def _nothing(COLUMNS: tl.constexpr, COUNT: tl.constexpr):
    found = ()
    for _ in tl.static_range(COUNT):
        found = found + (tl.zeros((COLUMNS,), tl.float32),)  # type: ignore[assignment]
    return found


@triton.jit
def _added(sums, pieces, at, PIECES: tl.constexpr, K: tl.constexpr):
    """Sums of the gradient, K x pieces of (columns,), with those of rows whose gradients lie at (rows,) + k added."""
    found = ()
    for k in tl.static_range(K):
        of_head = tl.load(at + k)[:, None]
        for i in tl.static_range(PIECES):
            found = found + (sums[k * PIECES + i] + tl.sum(of_head * pieces[i], axis=0),)  # type: ignore[assignment]
    return found


@triton.jit
def _store(sums, at, n_columns, COLUMNS: tl.constexpr, PIECES: tl.constexpr, K: tl.constexpr):
    for k in tl.static_range(K):
        for i in tl.static_range(PIECES):
            column = i * COLUMNS + tl.arange(0, COLUMNS)
            tl.store(at + k * n_columns + column, sums[k * PIECES + i], mask=column < n_columns)


@triton.jit
def rows(
    x, row_stride, column_stride, n_rows, n_context, n_features, n_components, n_tiles,
    heads, gate, offsets, logits, sample_weight, signs, balance,
    loss_sums, head_sums, gate_sums, offset_sums, out, scratch,
    HAS_GATE: tl.constexpr, HAS_LOGITS: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SIGNS: tl.constexpr,
    HAS_BALANCE: tl.constexpr, OUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, COMPONENTS: tl.constexpr, K: tl.constexpr, APART: tl.constexpr,
    PIECES: tl.constexpr, GATE_PIECES: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Arguments as of `tiles`, and scratch (programs, ROWS, 2 COMPONENTS).

    K is n_components; PIECES of COLUMNS hold n_features, GATE_PIECES n_context. A tile is APART tensors of rows: rows
    in tensors of their own add to the gradient in one multiply-add each, rows in one tensor exchange their sums between
    warps together.
    """
    TOGETHER: tl.constexpr = ROWS // APART
    program = tl.program_id(0)
    component = tl.arange(0, COMPONENTS)
    live = component < n_components
    b = tl.load(offsets + component, mask=live, other=0.0)
    difference = x + n_context * column_stride
    # All threads share margins and logits of a tile through memory, for each of them to work on one only.
    mine = scratch + program * (2 * ROWS * COMPONENTS)
    spread = mine + tl.arange(0, ROWS)[:, None] * (2 * COMPONENTS) + component[None, :]
    within = (tl.arange(0, ROWS) < ROWS)[:, None] & live[None, :]
    loss = tl.zeros((1,), tl.float32)
    d_offsets = tl.zeros((COMPONENTS,), tl.float32)
    d_heads = _nothing(COLUMNS, K * PIECES)
    d_gate = _nothing(COLUMNS, K * GATE_PIECES)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        # Zero, which the compiler cannot know: it would keep all parameters in registers otherwise, and spill.
        again = tile // n_tiles * 16
        differences = ()
        contexts = ()
        for i in tl.static_range(APART):
            row = tl.arange(0, TOGETHER).to(tl.int64) + (tile * ROWS + i * TOGETHER)
            at = mine + (tl.arange(0, TOGETHER) + i * TOGETHER) * (2 * COMPONENTS)
            d = _load(difference, row, n_rows, n_features, row_stride, column_stride, COLUMNS, PIECES, FULL)
            if HAS_GATE:
                c = _load(x, row, n_rows, n_context, row_stride, column_stride, COLUMNS, GATE_PIECES, FULL)
                contexts = contexts + (c,)  # type: ignore[assignment]
                _store_products(c, gate + again, n_context, at + COMPONENTS, COLUMNS, GATE_PIECES, FULL, K)
            differences = differences + (d,)  # type: ignore[assignment]
            _store_products(d, heads + again, n_features, at, COLUMNS, PIECES, FULL, K)
        tl.debug_barrier()
        margins = tl.load(spread, mask=within, other=0.0)
        g = b[None, :]
        if HAS_GATE:
            g += tl.load(spread + COMPONENTS, mask=within, other=0.0)
        row = tl.arange(0, ROWS).to(tl.int64) + tile * ROWS
        row_loss, d_margins, d_logits = row_terms(
            margins, g, row, n_rows, component, n_components, logits, sample_weight, signs, balance, out,
            HAS_LOGITS, HAS_WEIGHT, HAS_SIGNS, HAS_BALANCE, OUT,
        )  # fmt: skip
        if OUT != POSTERIORS:
            loss += tl.sum(row_loss, axis=0)
            d_offsets += tl.sum(d_logits, axis=0)
            tl.debug_barrier()
            tl.store(spread, d_margins)
            if HAS_GATE:
                tl.store(spread + COMPONENTS, d_logits)
            tl.debug_barrier()
            for i in tl.static_range(APART):
                at = mine + (tl.arange(0, TOGETHER) + i * TOGETHER) * (2 * COMPONENTS)
                d_heads = _added(d_heads, differences[i], at, PIECES, K)
                if HAS_GATE:
                    d_gate = _added(d_gate, contexts[i], at + COMPONENTS, GATE_PIECES, K)
        tl.debug_barrier()
    if OUT != POSTERIORS:
        first = program.to(tl.int64) * n_components
        tl.store(loss_sums + program + tl.arange(0, 1), loss)
        tl.store(offset_sums + first + component, d_offsets, mask=live)
        _store(d_heads, head_sums + first * n_features, n_features, COLUMNS, PIECES, K)
        if HAS_GATE:
            _store(d_gate, gate_sums + first * n_context, n_context, COLUMNS, GATE_PIECES, K)
