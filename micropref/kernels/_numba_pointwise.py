"""What margins, logits and evidence are worth, for a block of rows or units at once, in vector instructions.

exp and log are Taylor series, long enough for the dtype: the library's functions take one number at a time. There are
no branches but choices of one of two values, so that loops become vector instructions, and comparisons take the side
that keeps NaN. `micropref.kernels._pointwise` says the same with array operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from micropref.kernels._numba_tiles import multiply_add

_LN2 = Fraction("0.69314718055994530941723212145817656807550013436")


class _Format(NamedTuple):
    """What the series need to know of a floating format.

    Attributes
    ----------
    kind, integer : ir.Type
    fraction : int
        Bits of the fraction.
    bias : int
        Of the exponent.
    lowest : float
        exp of less is no normal number, and becomes 0.
    of_exp, of_artanh : int
        Terms that give full precision on ±½ ln 2 and on [0, ⅓].
    ln2 : Fraction
        ln 2 in so few bits that its multiples are exact.
    """

    kind: Any
    integer: Any
    fraction: int
    bias: int
    lowest: float
    of_exp: int
    of_artanh: int
    ln2: Fraction

    @property
    def rounding(self) -> float:
        """A number whose addition rounds to an integer, which the lowest bits of the sum then hold."""
        return float(1.5 * 2.0**self.fraction)

    @property
    def rounding_bits(self) -> int:
        given = np.array(self.rounding, np.float32 if self.fraction == 23 else np.float64)
        return int(given.view(np.int32 if self.fraction == 23 else np.int64))


_FORMATS = {
    32: _Format(ir.FloatType(), ir.IntType(32), 23, 127, -87.0, 8, 9, Fraction(math.floor(_LN2 * 2**12), 2**12)),
    64: _Format(ir.DoubleType(), ir.IntType(64), 52, 1023, -708.0, 14, 18, Fraction(math.floor(_LN2 * 2**30), 2**30)),
}


def _series(builder: Any, f: _Format, coefficients: list[float], x: Any) -> Any:
    value = f.kind(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = multiply_add(builder, value, x, f.kind(coefficient))
    return value


def _emit_exp(builder: Any, f: _Format, x: Any) -> Any:
    """2ⁿ exp(r) with n the integer next to x / ln 2; of negative numbers."""
    shifted = multiply_add(builder, x, f.kind(float(1 / _LN2)), f.kind(f.rounding))
    n = builder.fsub(shifted, f.kind(f.rounding))
    r = multiply_add(builder, n, f.kind(float(f.ln2 - _LN2)), multiply_add(builder, n, f.kind(-float(f.ln2)), x))
    exponent = builder.add(builder.bitcast(shifted, f.integer), f.integer(f.bias - f.rounding_bits))
    power = builder.bitcast(builder.shl(exponent, f.integer(f.fraction)), f.kind)
    value = builder.fmul(_series(builder, f, [1 / math.factorial(i) for i in range(f.of_exp)], r), power)
    return builder.select(builder.fcmp_ordered("<", x, f.kind(f.lowest)), f.kind(0.0), value)


def _emit_log1p(builder: Any, f: _Format, x: Any) -> Any:
    """2 artanh(x / (2 + x)); of numbers in [0, 1]."""
    z = builder.fdiv(x, builder.fadd(x, f.kind(2.0)))
    series = _series(builder, f, [2 / (2 * i + 1) for i in range(f.of_artanh)], builder.fmul(z, z))
    return builder.fmul(z, series)


def _emit_log(builder: Any, f: _Format, x: Any) -> Any:
    """n ln 2 + log1p of the fraction; of numbers of at least 1."""
    bits = builder.bitcast(x, f.integer)
    exponent = builder.sub(builder.lshr(bits, f.integer(f.fraction)), f.integer(f.bias))
    n = builder.sitofp(exponent, f.kind)
    fraction = builder.and_(bits, f.integer((1 << f.fraction) - 1))
    part = builder.bitcast(builder.or_(fraction, f.integer(f.bias << f.fraction)), f.kind)
    rest = _emit_log1p(builder, f, builder.fsub(part, f.kind(1.0)))
    value = multiply_add(builder, n, f.kind(float(f.ln2)), multiply_add(builder, n, f.kind(float(_LN2 - f.ln2)), rest))
    return builder.select(builder.fcmp_unordered("uno", x, x), x, value)


def _function(emit: Callable[[Any, _Format, Any], Any]) -> Any:
    @intrinsic
    def function(typingctx, x):
        def codegen(context, builder, signature, args):
            return emit(builder, _FORMATS[x.bitwidth], args[0])

        return x(x), codegen

    return function


exp, log1p, log = _function(_emit_exp), _function(_emit_log1p), _function(_emit_log)


@intrinsic
def _larger(typingctx, a, b):
    """a where it is larger than b, else b: NaN in b stays."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return a(a, b), codegen


@njit(nogil=True, cache=True, error_model="numpy")
def log_sigmoids(margins, n, log_right, wrong):
    """log σ(m) and σ(−m) of n margins."""
    zero, one = margins.dtype.type(0), margins.dtype.type(1)
    for i in range(n):
        m = margins[i]
        small = exp(-abs(m))
        log_right[i] = (m if m < zero else zero) - log1p(small)
        wrong[i] = (one if m < zero else small) / (one + small)


@njit(nogil=True, cache=True, error_model="numpy")
def log_softmax(logits, n, weights, peak, total):
    """Logits (K, n) become log π, and `weights` π."""
    k_all = logits.shape[0]
    for i in range(n):
        peak[i] = logits[0, i]
        total[i] = 0
    for k in range(1, k_all):
        for i in range(n):
            peak[i] = _larger(logits[k, i], peak[i])  # type: ignore[call-arg]  # numba passes its context
    for k in range(k_all):
        for i in range(n):
            weights[k, i] = exp(logits[k, i] - peak[i])
            total[i] += weights[k, i]
    for i in range(n):
        peak[i] += log(total[i])
        total[i] = 1 / total[i]
    for k in range(k_all):
        for i in range(n):
            logits[k, i] -= peak[i]
            weights[k, i] *= total[i]


@njit(nogil=True, cache=True, error_model="numpy")
def posterior(log_weights, evidence, n, log_likelihood, total):
    """Evidence (K, n) becomes responsibilities."""
    k_all = evidence.shape[0]
    for i in range(n):
        log_likelihood[i] = evidence[0, i] + log_weights[0, i]
        total[i] = 0
    for k in range(k_all):
        for i in range(n):
            evidence[k, i] += log_weights[k, i]
            log_likelihood[i] = _larger(evidence[k, i], log_likelihood[i])  # type: ignore[call-arg]
    for k in range(k_all):
        for i in range(n):
            evidence[k, i] = exp(evidence[k, i] - log_likelihood[i])
            total[i] += evidence[k, i]
    for i in range(n):
        log_likelihood[i] += log(total[i])
        total[i] = 1 / total[i]
    for k in range(k_all):
        for i in range(n):
            evidence[k, i] *= total[i]


@njit(nogil=True, cache=True, error_model="numpy")
def loss_and_slopes(
    log_weights, weights, responsibilities, log_likelihood, n, outer, mass, balance, slopes, entropy, losses
):
    """Adds the loss of each of n units to `losses`; its gradient with respect to their logits, as in `unit_terms`."""
    k_all = weights.shape[0]
    for i in range(n):
        losses[i] -= float(outer[i]) * float(log_likelihood[i])
    for k in range(k_all):
        for i in range(n):
            slopes[k, i] = outer[i] * (weights[k, i] - responsibilities[k, i])
    if balance != 0.0:
        for i in range(n):
            entropy[i] = 0
        for k in range(k_all):
            for i in range(n):
                entropy[i] += weights[k, i] * log_weights[k, i]
        for i in range(n):
            losses[i] += balance * float(mass[i]) * float(entropy[i])
        factor = weights.dtype.type(balance)
        for k in range(k_all):
            for i in range(n):
                slopes[k, i] += factor * mass[i] * weights[k, i] * (log_weights[k, i] - entropy[i])
