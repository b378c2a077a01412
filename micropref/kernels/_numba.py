"""The compiled CPU path: four rows at a time, from their margins to their gradient while they are in the nearest cache.

Products run over four rows and two heads at once, so that every number loaded is used two or four times from registers.
Gradients are summed in the dtype of computation over some hundred rows, then in double precision. The functions release
the interpreter lock and run in threads of the caller's; numba's own threads would abort a process that calls them from
two threads at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from micropref.kernels import _threads
from micropref.kernels._problem import Posterior, Problem, Sums

# NaN and infinity must come through, so nothing here may assume that there are none.
_REORDERED = {"reassoc", "contract", "nsz"}
ROWS = 4
ROWS_PER_FLUSH = 256
COPIED_ROWS = 64
_TINY = 1e-280

FLOAT16, BFLOAT16 = 1, 2
_NO_ROWS, _GRADIENTS, _POSTERIORS = 0, 1, 2


@intrinsic
def _from_float16(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def _from_bfloat16(typingctx, bits):
    def codegen(context, builder, signature, args):
        wide = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), codegen


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _dot_two(x0, x1, x2, x3, u, v, out, k):
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = u.dtype.type(0)
    for j in range(u.shape[0]):
        e, f, g, h = x0[j], x1[j], x2[j], x3[j]
        s, t = u[j], v[j]
        a0 += e * s
        a1 += f * s
        a2 += g * s
        a3 += h * s
        b0 += e * t
        b1 += f * t
        b2 += g * t
        b3 += h * t
    out[0, k], out[1, k], out[2, k], out[3, k] = a0, a1, a2, a3
    out[0, k + 1], out[1, k + 1], out[2, k + 1], out[3, k + 1] = b0, b1, b2, b3


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _dot_one(x0, x1, x2, x3, u, out, k):
    a0 = a1 = a2 = a3 = u.dtype.type(0)
    for j in range(u.shape[0]):
        a0 += x0[j] * u[j]
        a1 += x1[j] * u[j]
        a2 += x2[j] * u[j]
        a3 += x3[j] * u[j]
    out[0, k], out[1, k], out[2, k], out[3, k] = a0, a1, a2, a3


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _add_two(x0, x1, x2, x3, p, k, g, h):
    p0, p1, p2, p3 = p[0, k], p[1, k], p[2, k], p[3, k]
    q0, q1, q2, q3 = p[0, k + 1], p[1, k + 1], p[2, k + 1], p[3, k + 1]
    for j in range(g.shape[0]):
        # Read before anything is written: as far as the compiler knows, g could lie over the rows.
        a, b, c, d = x0[j], x1[j], x2[j], x3[j]
        g[j] += p0 * a + p1 * b + p2 * c + p3 * d
        h[j] += q0 * a + q1 * b + q2 * c + q3 * d


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _add_one(x0, x1, x2, x3, p, k, g):
    p0, p1, p2, p3 = p[0, k], p[1, k], p[2, k], p[3, k]
    for j in range(g.shape[0]):
        g[j] += p0 * x0[j] + p1 * x1[j] + p2 * x2[j] + p3 * x3[j]


@njit(nogil=True, cache=True)
def row_products(x0, x1, x2, x3, parameters, out):
    n = parameters.shape[0]
    for k in range(0, n - 1, 2):
        _dot_two(x0, x1, x2, x3, parameters[k], parameters[k + 1], out, k)
    if n % 2:
        _dot_one(x0, x1, x2, x3, parameters[n - 1], out, n - 1)


@njit(nogil=True, cache=True)
def add_gradient(x0, x1, x2, x3, d_products, total):
    n = total.shape[0]
    for k in range(0, n - 1, 2):
        _add_two(x0, x1, x2, x3, d_products, k, total[k], total[k + 1])
    if n % 2:
        _add_one(x0, x1, x2, x3, d_products, n - 1, total[n - 1])


@njit(nogil=True, cache=True)
def flush(part, total):
    for k in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[k, j] += part[k, j]
            part[k, j] = 0


@njit(nogil=True, cache=True)
def _in_logs(margins, logits, r, sign, log_total, responsibilities):
    """ℓ and responsibilities of a row whose likelihood is no normal number."""
    peak = -np.inf
    for k in range(margins.shape[1]):
        m = sign * margins[r, k]
        joint = logits[r, k] - log_total + min(m, 0.0) - math.log1p(math.exp(-abs(m)))
        responsibilities[k] = joint
        peak = max(peak, joint)
    total = 0.0
    for k in range(margins.shape[1]):
        total += math.exp(responsibilities[k] - peak)
    log_likelihood = peak + math.log(total)
    for k in range(margins.shape[1]):
        responsibilities[k] = math.exp(responsibilities[k] - log_likelihood)
    return log_likelihood


@njit(nogil=True, cache=True)
def _row(margins, logits, r, sign, weight, balance, weights, responsibilities, wrong):
    """ℓ and the loss of row r of four; its margins and logits are replaced by their gradients.

    Likelihoods are added up in double precision rather than as logarithms, which saves an exponential and a logarithm
    for every component; of p and 1 − p the smaller is the one that is summed.
    """
    n = margins.shape[1]
    if n == 1:  # nothing to weigh: ℓ = log σ(m)
        m = sign * margins[r, 0]
        small = math.exp(-abs(m))
        log_likelihood = min(m, 0.0) - math.log1p(small)
        responsibilities[0] = 1.0
        margins[r, 0] = -sign * weight * (small if m >= 0.0 else 1.0) / (1.0 + small)
        logits[r, 0] = 0.0
        return log_likelihood, -weight * log_likelihood
    top = logits[r, 0]
    for k in range(1, n):
        top = max(top, logits[r, k])
    total = 0.0
    for k in range(n):
        weights[k] = math.exp(float(logits[r, k]) - top)
        total += weights[k]
    p = q = 0.0
    for k in range(n):
        weights[k] /= total
        m = sign * margins[r, k]
        small = math.exp(-abs(m))
        large = 1.0 / (1.0 + small)
        right = large if m >= 0.0 else small * large
        wrong[k] = small * large if m >= 0.0 else large
        responsibilities[k] = weights[k] * right
        p += weights[k] * right
        q += weights[k] * wrong[k]
    if p < _TINY:
        log_likelihood = _in_logs(margins, logits, r, sign, top + math.log(total), responsibilities)
    else:
        log_likelihood = math.log1p(-q) if q < 0.5 else math.log(p)
        for k in range(n):
            responsibilities[k] /= p
    loss = -weight * log_likelihood
    negative_entropy = 0.0
    if balance != 0.0:
        for k in range(n):
            negative_entropy += weights[k] * (logits[r, k] - top - math.log(total))
        loss += balance * weight * negative_entropy
    for k in range(n):
        d_logit = weights[k] - responsibilities[k]
        if balance != 0.0:
            d_logit += balance * weights[k] * (logits[r, k] - top - math.log(total) - negative_entropy)
        margins[r, k] = -sign * weight * responsibilities[k] * wrong[k]
        logits[r, k] = weight * d_logit
    return log_likelihood, loss


@njit(nogil=True, cache=True)
def _block(
    x, first, heads, gate, offsets, logits, sample_weight, signs, c, balance, kind, rows,
    part_heads, part_gate, d_heads, d_gate, d_offsets,
):  # fmt: skip
    """Loss of the rows of x, which are rows `first`, `first` + 1, ... of all others; the gradients are added up."""
    n, n_components = x.shape[0], heads.shape[0]
    margins = np.zeros((ROWS, n_components), heads.dtype)
    row_logits = np.zeros((ROWS, n_components), heads.dtype)
    weights, responsibilities, wrong = np.zeros(n_components), np.zeros(n_components), np.zeros(n_components)
    tail = np.zeros((ROWS, x.shape[1]), x.dtype)
    gated = gate.shape[0] > 0
    loss = 0.0
    for i in range(0, n, ROWS):
        live = min(ROWS, n - i)
        source, at = x, i
        if live < ROWS:
            # Rows of zeros behind the last add nothing to any gradient.
            source, at = tail, 0
            tail[:live] = x[i:]
        d0, d1, d2, d3 = source[at, c:], source[at + 1, c:], source[at + 2, c:], source[at + 3, c:]
        c0, c1, c2, c3 = source[at, :c], source[at + 1, :c], source[at + 2, :c], source[at + 3, :c]
        row_products(d0, d1, d2, d3, heads, margins)
        if gated:
            row_products(c0, c1, c2, c3, gate, row_logits)
        else:
            row_logits[:] = 0
        for r in range(live):
            row = first + i + r
            for k in range(n_components):
                row_logits[r, k] += logits[row, k] if logits.shape[0] else offsets[k]
            weight = float(sample_weight[row]) if sample_weight.shape[0] else 1.0
            sign = float(signs[row]) if signs.shape[0] else 1.0
            log_likelihood, row_loss = _row(
                margins, row_logits, r, sign, weight, balance, weights, responsibilities, wrong
            )
            loss += row_loss
            for k in range(n_components):
                d_offsets[k] += row_logits[r, k]
            if kind == _GRADIENTS:
                rows[row, :n_components] = margins[r]
                rows[row, n_components:] = row_logits[r]
            elif kind == _POSTERIORS:
                rows[row, 0] = log_likelihood
                rows[row, 1:] = responsibilities
        if kind == _POSTERIORS:
            continue
        add_gradient(d0, d1, d2, d3, margins, part_heads)
        if gated:
            add_gradient(c0, c1, c2, c3, row_logits, part_gate)
        if (i + ROWS) % ROWS_PER_FLUSH == 0:
            flush(part_heads, d_heads)
            flush(part_gate, d_gate)
    flush(part_heads, d_heads)
    flush(part_gate, d_gate)
    return loss


def fill(x, half, out):
    """Copy rows of any layout and dtype; replaced by one of the loops below where numba compiles a call of it."""


@overload(fill)
def _fill_for(x, half, out):
    def widen(x, half, out):
        if half == FLOAT16:
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    out[i, j] = _from_float16(x[i, j])  # type: ignore[call-arg]  # numba passes its context
        else:
            for i in range(x.shape[0]):
                for j in range(x.shape[1]):
                    out[i, j] = _from_bfloat16(x[i, j])  # type: ignore[call-arg]

    def copy(x, half, out):
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = x[i, j]

    return widen if x.dtype == types.uint16 else copy


@njit(nogil=True, cache=True)
def _copied_blocks(
    x, half, first, heads, gate, offsets, logits, sample_weight, signs, c, balance, kind, rows,
    part_heads, part_gate, d_heads, d_gate, d_offsets,
):  # fmt: skip
    """`_block` for rows that are stored in half precision or not next to each other."""
    buffer = np.empty((COPIED_ROWS, x.shape[1]), heads.dtype)
    loss = 0.0
    for start in range(0, x.shape[0], COPIED_ROWS):
        n = min(COPIED_ROWS, x.shape[0] - start)
        fill(x[start : start + n], half, buffer)
        loss += _block(
            buffer[:n], first + start, heads, gate, offsets, logits, sample_weight, signs, c, balance, kind, rows,
            part_heads, part_gate, d_heads, d_gate, d_offsets,
        )  # fmt: skip
    return loss


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    n, k = problem.n_rows, problem.n_components
    rows = np.empty((n, 2 * k) if row_gradients else (0, 0), problem.dtype)
    loss, heads, gate, offsets = _evaluate(problem, _GRADIENTS if row_gradients else _NO_ROWS, rows)
    return Sums(
        loss,
        heads,
        None if problem.gate_weights is None else gate,
        offsets,
        *((rows[:, :k], rows[:, k:]) if row_gradients else ()),
    )


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    rows = np.empty((problem.n_rows, 1 + problem.n_components), problem.dtype)
    _evaluate(problem, _POSTERIORS, rows)
    return Posterior(rows[:, 0], rows[:, 1:])


def _evaluate(problem: Problem, kind: int, rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    dtype, k = problem.dtype, problem.n_components
    half = BFLOAT16 if problem.bfloat16_bits else FLOAT16 if problem.X.dtype == np.float16 else 0
    X = problem.X.view(np.uint16) if half else problem.X
    direct = not half and X.flags.c_contiguous
    heads = np.ascontiguousarray(problem.heads)
    # An absent array is an empty one, so that one compiled function serves all cases.
    gate = _or_empty(problem.gate_weights, (0, 0), dtype)
    offsets = np.zeros(k, dtype) if problem.offsets is None else np.ascontiguousarray(problem.offsets)
    logits = _or_empty(problem.logits, (0, 0), dtype)
    sample_weight = _or_empty(problem.sample_weight, (0,), dtype)
    signs = _or_empty(problem.signs, (0,), np.int8)

    def part(some: slice) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        totals = np.zeros(heads.shape), np.zeros(gate.shape), np.zeros(k)
        given = (some.start, heads, gate, offsets, logits, sample_weight, signs, problem.n_context_features,
                 float(problem.balance), kind, rows, np.zeros_like(heads), np.zeros_like(gate), *totals)  # fmt: skip
        loss = _block(X[some], *given) if direct else _copied_blocks(X[some], half, *given)
        return loss, *totals

    parts = _threads.run(part, _threads.split(*X.shape))
    loss, d_heads, d_gate, d_offsets = (sum(p[1:], start=p[0]) for p in zip(*parts, strict=True))
    return loss, d_heads, d_gate, d_offsets


def _or_empty(array: np.ndarray | None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.empty(shape, dtype) if array is None else np.ascontiguousarray(array, dtype)
