"""The CUDA path: one Triton kernel for likelihood and gradient.

Every program takes every P-th tile of rows, in order, and adds their gradients to sums of its own; the sums of the P
programs are then added in a fixed order, so that the same call gives the same bits. A tile is read twice in pieces of
columns, for its margins and for its gradient, the second time from a cache where the tiles of all programs fit one.
Products run on tensor cores, exact to about 2^-22. docs/kernels.md says what was measured and tried.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from micropref.kernels._block_sizes import block_sizes
from micropref.kernels._problem import Posterior, Problem, Sums

_NO_ROWS, _GRADIENTS, _POSTERIORS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_INTERPRETED_PROGRAMS = 3
# Triton asks the same when its functions are made. Its interpreter multiplies the bits of bfloat16 as integers.
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _tile(x, row, n_rows, column, n_columns, row_stride, column_stride):
    """Rows of X, (rows, columns), as stored; zero outside."""
    at = x + row[:, None] * row_stride + column[None, :] * column_stride
    return tl.load(at, mask=(row < n_rows)[:, None] & (column < n_columns)[None, :], other=0.0)


@triton.jit
def _parameters(p, component, n_components, column, n_columns):
    """Rows of a contiguous matrix (n_components, n_columns), transposed to (columns, components); zero outside."""
    at = p + component[None, :] * n_columns + column[:, None]
    return tl.load(at, mask=(component < n_components)[None, :] & (column < n_columns)[:, None], other=0.0)


@triton.jit
def _leading(p):
    """What tensor cores keep of single precision in tf32: ten bits of the fraction, the rest cut off."""
    return (p.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def _narrow(a, b, total):
    """``total + a @ b`` of bfloat16, whose products single precision holds exactly."""
    if _INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    return tl.dot(a, b, total)


@triton.jit
def _dot(a, b, total):
    """``total + a @ b`` of rows as they are stored and values in single precision, in either order, to about 2^-22.

    Tensor cores take half precision as it is, and the single precision beside it in as many parts as its digits need:
    three of bfloat16, or two of tf32 beside float16, which tf32 holds exactly. Rows in single precision take three
    products of tf32.
    """
    # The compiler follows branches on types only as one statement.
    if a.dtype == tl.bfloat16:
        first = b.to(tl.bfloat16)
        rest = b - first.to(tl.float32)
        second = rest.to(tl.bfloat16)
        third = (rest - second.to(tl.float32)).to(tl.bfloat16)
        return _narrow(a, first, _narrow(a, second, _narrow(a, third, total)))
    elif b.dtype == tl.bfloat16:  # noqa: RET505
        first = a.to(tl.bfloat16)
        rest = a - first.to(tl.float32)
        second = rest.to(tl.bfloat16)
        third = (rest - second.to(tl.float32)).to(tl.bfloat16)
        return _narrow(first, b, _narrow(second, b, _narrow(third, b, total)))
    elif a.dtype == tl.float16:
        wide, most = a.to(tl.float32), _leading(b)
        return tl.dot(wide, most, tl.dot(wide, b - most, total, input_precision="tf32"), input_precision="tf32")
    elif b.dtype == tl.float16:
        wide, most = b.to(tl.float32), _leading(a)
        return tl.dot(most, wide, tl.dot(a - most, wide, total, input_precision="tf32"), input_precision="tf32")
    else:
        return tl.dot(a, b, total, input_precision="tf32x3")


@triton.jit
def _add(total, part, component, n_components, column, n_columns):
    """Add (components, columns) to a program's own sums in memory."""
    at = total + component[:, None] * n_columns + column[None, :]
    mask = (component < n_components)[:, None] & (column < n_columns)[None, :]
    tl.store(at, tl.load(at, mask=mask, other=0.0) + part, mask=mask)


@triton.jit
def _log_one_plus(x):
    """log(1 + x) of x in [0, 1] to full relative precision: what 1 + x was rounded by is divided out again."""
    rounded = 1.0 + x
    exact = rounded == 1.0
    return tl.where(exact, x, tl.log(rounded) * (x / tl.where(exact, 1.0, rounded - 1.0)))


@triton.jit
def _mixture(
    x, row_stride, column_stride, n_rows, n_context, n_features, n_components, n_tiles,
    heads, gate, offsets, logits, sample_weight, signs, balance,
    loss_sums, head_sums, gate_sums, offset_sums, out,
    HAS_GATE: tl.constexpr, HAS_LOGITS: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SIGNS: tl.constexpr,
    HAS_BALANCE: tl.constexpr, OUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, COMPONENTS: tl.constexpr,
):  # fmt: skip
    """Shapes, all contiguous but X: heads (n_components, n_features), gate (n_components, n_context), offsets
    (n_components), logits (n_rows, n_components), loss_sums (programs), head_sums (programs, n_components, n_features),
    gate_sums (programs, n_components, n_context), offset_sums (programs, n_components), out (n_rows, 2 n_components) of
    gradients or (n_rows, 1 + n_components) of posteriors. Sums start at zero. Capitals are tile sizes and switches.
    """
    program = tl.program_id(0)
    component = tl.arange(0, COMPONENTS)
    column = tl.arange(0, COLUMNS)
    live = component < n_components
    my_heads = head_sums + program.to(tl.int64) * n_components * n_features
    my_gate = gate_sums + program.to(tl.int64) * n_components * n_context
    b = tl.load(offsets + component, mask=live, other=0.0)
    difference = x + n_context * column_stride
    loss = tl.zeros((1,), tl.float32)
    d_offsets = tl.zeros((COMPONENTS,), tl.float32)
    for tile in range(program, n_tiles, tl.num_programs(0)):
        row = tl.arange(0, ROWS).to(tl.int64) + tile * ROWS
        row_live = row < n_rows
        both = row_live[:, None] & live[None, :]

        margins = tl.zeros((ROWS, COMPONENTS), tl.float32)
        for start in range(0, n_features, COLUMNS):
            d = _tile(difference, row, n_rows, start + column, n_features, row_stride, column_stride)
            margins = _dot(d, _parameters(heads, component, n_components, start + column, n_features), margins)
        g = tl.zeros((ROWS, COMPONENTS), tl.float32) + b[None, :]
        if HAS_GATE:
            for start in range(0, n_context, COLUMNS):
                c = _tile(x, row, n_rows, start + column, n_context, row_stride, column_stride)
                g = _dot(c, _parameters(gate, component, n_components, start + column, n_context), g)
        if HAS_LOGITS:
            g = tl.load(logits + row[:, None] * n_components + component[None, :], mask=both, other=0.0)

        if HAS_SIGNS:
            sign = tl.load(signs + row, mask=row_live, other=0).to(tl.float32)
            margins = margins * sign[:, None]
        weight = row_live.to(tl.float32)
        if HAS_WEIGHT:
            weight = tl.load(sample_weight + row, mask=row_live, other=0.0)

        g = tl.where(live[None, :], g, -float("inf"))
        shifted = g - tl.max(g, axis=1)[:, None]
        log_pi = shifted - tl.log(tl.sum(tl.exp(shifted), axis=1))[:, None]
        small = tl.exp(-tl.abs(margins))
        joint = log_pi + tl.minimum(margins, 0.0) - _log_one_plus(small)
        peak = tl.max(joint, axis=1)
        log_likelihood = peak + tl.log(tl.sum(tl.exp(joint - peak[:, None]), axis=1))
        responsibilities = tl.exp(joint - log_likelihood[:, None])

        if OUT == _POSTERIORS:
            at = out + row * (n_components + 1)
            tl.store(at, log_likelihood, mask=row_live)
            tl.store(at[:, None] + 1 + component[None, :], responsibilities, mask=both)
        else:
            pi = tl.exp(log_pi)
            d_logits = pi - responsibilities
            row_loss = -log_likelihood
            if HAS_BALANCE:
                log_pi = tl.where(live[None, :], log_pi, 0.0)
                negative_entropy = tl.sum(pi * log_pi, axis=1)
                row_loss += balance * negative_entropy
                d_logits += balance * pi * (log_pi - negative_entropy[:, None])
            loss += tl.sum(tl.where(row_live, weight * row_loss, 0.0), axis=0)
            d_logits = tl.where(both, weight[:, None] * d_logits, 0.0)
            wrong = tl.where(margins < 0.0, 1.0, small) / (1.0 + small)
            d_margins = tl.where(both, -weight[:, None] * responsibilities * wrong, 0.0)
            if HAS_SIGNS:
                d_margins = d_margins * sign[:, None]
            d_offsets += tl.sum(d_logits, axis=0)
            if OUT == _GRADIENTS:
                at = out + row[:, None] * (2 * n_components) + component[None, :]
                tl.store(at, d_margins, mask=both)
                tl.store(at + n_components, d_logits, mask=both)

            to_heads = tl.trans(d_margins)
            to_gate = tl.trans(d_logits)
            nothing = tl.zeros((COMPONENTS, COLUMNS), tl.float32)
            for start in range(0, n_features, COLUMNS):
                d = _tile(difference, row, n_rows, start + column, n_features, row_stride, column_stride)
                part = _dot(to_heads, d, nothing)
                _add(my_heads, part, component, n_components, start + column, n_features)
            if HAS_GATE:
                for start in range(0, n_context, COLUMNS):
                    c = _tile(x, row, n_rows, start + column, n_context, row_stride, column_stride)
                    part = _dot(to_gate, c, nothing)
                    _add(my_gate, part, component, n_components, start + column, n_context)

    if OUT != _POSTERIORS:
        tl.store(loss_sums + program + tl.arange(0, 1), loss)
        tl.store(offset_sums + program * n_components + component, d_offsets, mask=live)


def _tensor(problem: Problem) -> torch.Tensor:
    X = problem.X
    if not isinstance(X, torch.Tensor) or X.dtype == torch.float64:
        got = f"a tensor of {X.dtype}" if isinstance(X, torch.Tensor) else f"a {type(X).__name__}"
        raise ValueError(f"X: expected a tensor of float16, bfloat16 or float32 for the triton path, got {got}")
    return X.detach()


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    n, k = problem.n_rows, problem.n_components
    out = _tensor(problem).new_empty((n, 2 * k) if row_gradients else (0,), dtype=torch.float32)
    loss, heads, gate, offsets = _launch(problem, _GRADIENTS if row_gradients else _NO_ROWS, out)
    return Sums(
        loss,
        heads,
        None if problem.gate_weights is None else gate,
        offsets,
        *((out[:, :k], out[:, k:]) if row_gradients else ()),
    )


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    out = _tensor(problem).new_empty((problem.n_rows, 1 + problem.n_components), dtype=torch.float32)
    _launch(problem, _POSTERIORS, out)
    return Posterior(out[:, 0], out[:, 1:])


def _launch(problem: Problem, kind: Any, out: torch.Tensor) -> list[torch.Tensor]:
    X, k, c = _tensor(problem), problem.n_components, problem.n_context_features
    n, d = problem.n_rows, X.shape[1] - c
    gate = problem.gate_weights
    size = block_sizes(k)
    n_tiles = triton.cdiv(n, size.rows)
    n_programs = min(n_tiles, _n_programs(X.device))
    n_gate = 0 if gate is None else c

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=X.device)

    partial = [zeros(n_programs), zeros(n_programs, k, d), zeros(n_programs, k, n_gate), zeros(n_programs, k)]
    given = [
        zeros(k) if problem.offsets is None else problem.offsets,
        *(out if a is None else a for a in (problem.logits, problem.sample_weight, problem.signs)),
    ]
    given = [a.detach().contiguous() for a in given]
    heads = problem.heads.detach().contiguous()
    gate_weights = heads if gate is None else gate.detach().contiguous()
    with _on(X.device):
        _mixture[(n_programs,)](
            X, X.stride(0), X.stride(1), n, c, d, k, n_tiles,
            heads, gate_weights, *given, float(problem.balance), *partial, out,
            HAS_GATE=gate is not None, HAS_LOGITS=problem.logits is not None,
            HAS_WEIGHT=problem.sample_weight is not None, HAS_SIGNS=problem.signs is not None,
            HAS_BALANCE=problem.balance != 0, OUT=kind.value,
            ROWS=size.rows, COLUMNS=size.columns, COMPONENTS=size.components,
            num_warps=size.warps, num_stages=size.stages,
        )  # fmt: skip
    return [part.sum(0, dtype=torch.float64) for part in partial]


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)


@cache
def _n_programs(device: torch.device) -> int:
    """Two programs per multiprocessor; the interpreter runs them one after the other."""
    if device.type != "cuda":
        return _INTERPRETED_PROGRAMS
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count
