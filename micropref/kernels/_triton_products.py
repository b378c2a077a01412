"""Products on tensor cores of rows as they are stored and values in single precision, to about 2^-22."""

from __future__ import annotations

import os

import triton
import triton.language as tl

# Triton asks the same when its functions are made. Its interpreter multiplies the bits of bfloat16 as integers.
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def transposed_parameters(p, component, n_components, column, n_columns):
    """Rows of a contiguous matrix (n_components, n_columns), transposed to (columns, components); zero outside."""
    at = p + component[None, :] * n_columns + column[:, None]
    return tl.load(at, mask=(component < n_components)[None, :] & (column < n_columns)[:, None], other=0.0)


@triton.jit
def _leading(p):
    """What tensor cores keep of single precision in tf32: ten bits of the fraction, the rest cut off."""
    return (p.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def _nearest(p):
    """The nearest tf32 number, ties away from zero.

    A NaN or an infinity may become any number: what is left of it, p - nearest, is NaN, and is multiplied too.
    """
    return ((p.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def _tf32(a, b, total):
    return tl.dot(a, b, total, input_precision="tf32")


@triton.jit
def _narrow(a, b, total):
    """``total + a @ b`` of bfloat16, whose products single precision holds exactly."""
    if _INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total)
    return tl.dot(a, b, total)


@triton.jit
def product(a, b, total, ROUNDED: tl.constexpr):
    """``total + a @ b`` of rows as they are stored and values in single precision, in either order, to about 2^-22.

    Tensor cores take half precision as it is, and the single precision beside it in as many parts as its digits need:
    three of bfloat16, or two of tf32 beside float16, which tf32 holds exactly. Rows in single precision take three
    products of tf32, of parts that Triton cuts, with a test for infinities, or (`ROUNDED`) that are rounded here.
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
        return _tf32(wide, most, _tf32(wide, b - most, total))
    elif b.dtype == tl.float16:
        wide, most = b.to(tl.float32), _leading(a)
        return _tf32(most, wide, _tf32(a - most, wide, total))
    elif ROUNDED:
        left, right = _nearest(a), _nearest(b)
        return _tf32(left, right, _tf32(left, b - right, _tf32(a - left, right, total)))
    else:
        return tl.dot(a, b, total, input_precision="tf32x3")
