"""Rows of a mixture on CUDA: what loads them, and what margins and logits are worth, for every kernel.

The equations are those of `_pointwise`, with rows first: tensors are (rows, components), both padded.
"""

from __future__ import annotations

import triton
import triton.language as tl

NO_ROWS, GRADIENTS, POSTERIORS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def rows_of(x, row, n_rows, column, n_columns, row_stride, column_stride):
    """Rows of X, (rows, columns), as stored; zero outside."""
    at = x + row[:, None] * row_stride + column[None, :] * column_stride
    return tl.load(at, mask=(row < n_rows)[:, None] & (column < n_columns)[None, :], other=0.0)


@triton.jit
def log_one_plus(x):
    """log(1 + x) of x in [0, 1] to full relative precision: what 1 + x was rounded by is divided out again."""
    rounded = 1.0 + x
    exact = rounded == 1.0
    return tl.where(exact, x, tl.log(rounded) * (x / tl.where(exact, 1.0, rounded - 1.0)))


@triton.jit
def row_terms(
    margins, g, row, n_rows, component, n_components, logits, sample_weight, signs, balance, out,
    HAS_LOGITS: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SIGNS: tl.constexpr, HAS_BALANCE: tl.constexpr,
    OUT: tl.constexpr,
):  # fmt: skip
    """Loss of every row and its gradients with respect to margins w_kᵀ d_i and logits g, zero outside.

    Stores the gradients, or instead of them the posteriors, where `OUT` asks for it.
    """
    live = component < n_components
    row_live = row < n_rows
    both = row_live[:, None] & live[None, :]
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
    joint = log_pi + tl.minimum(margins, 0.0) - log_one_plus(small)
    peak = tl.max(joint, axis=1)
    log_likelihood = peak + tl.log(tl.sum(tl.exp(joint - peak[:, None]), axis=1))
    responsibilities = tl.exp(joint - log_likelihood[:, None])

    pi = tl.exp(log_pi)
    d_logits = pi - responsibilities
    loss = -log_likelihood
    if HAS_BALANCE:
        log_pi = tl.where(live[None, :], log_pi, 0.0)
        negative_entropy = tl.sum(pi * log_pi, axis=1)
        loss += balance * negative_entropy
        d_logits += balance * pi * (log_pi - negative_entropy[:, None])
    loss = tl.where(row_live, weight * loss, 0.0)
    d_logits = tl.where(both, weight[:, None] * d_logits, 0.0)
    wrong = tl.where(margins < 0.0, 1.0, small) / (1.0 + small)
    d_margins = tl.where(both, -weight[:, None] * responsibilities * wrong, 0.0)
    if HAS_SIGNS:
        d_margins = d_margins * sign[:, None]
    if OUT == POSTERIORS:
        at = out + row * (n_components + 1)
        tl.store(at, log_likelihood, mask=row_live)
        tl.store(at[:, None] + 1 + component[None, :], responsibilities, mask=both)
    if OUT == GRADIENTS:
        at = out + row[:, None] * (2 * n_components) + component[None, :]
        tl.store(at, d_margins, mask=both)
        tl.store(at + n_components, d_logits, mask=both)
    return loss, d_margins, d_logits
