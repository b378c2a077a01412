"""Products of rows with vectors, and the sum that is their gradient, tile by tile of four rows and two vectors.

A tile is written in LLVM's own language, with vectors of a fixed number of lanes: every number loaded is used two or four
times from registers, and one product is the same sum in the same order whatever rows and vectors stand beside it. So one
mixture of a stack has the bits that it has alone, and neither blocks nor threads change any. NaN and infinity pass.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

ROWS = 4
# Rows that are read, weighed and added to the gradient while they are in the second-level cache.
BLOCK_ROWS = 64
# Gradients are summed in the dtype of computation over so many rows, then in double precision.
ROWS_PER_FLUSH = 256
FLOAT16, BFLOAT16 = 1, 2

_VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f") else 32
_INDEX = ir.IntType(64)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of numbers or vectors, rounded once where the processor can."""
    scalar = getattr(a.type, "element", a.type)
    bits = 64 if scalar == ir.DoubleType() else 32
    name = f"f{bits}" if scalar == a.type else f"v{a.type.count}f{bits}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.{name}")
    return builder.call(function, [a, b, c])


class _Tile:
    """What both kinds of tiles are made of: pointers to rows, loads of vectors, and a loop over columns."""

    def __init__(self, context: Any, builder: Any, dtype: Any):
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = _VECTOR_BYTES // self.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)

    def array(self, kind: Any, value: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, value)

    def row(self, array: Any, i: Any, first: Any) -> Any:
        """Address of entry `first` of row i, as bytes."""
        builder = self.builder
        stride = builder.extract_value(array.strides, 0)
        offset = builder.add(builder.mul(i, stride), builder.mul(first, _INDEX(self.itemsize)))
        return builder.gep(builder.bitcast(array.data, ir.IntType(8).as_pointer()), [offset])

    def at(self, row: Any, j: Any, kind: Any) -> Any:
        place = self.builder.gep(row, [self.builder.mul(j, _INDEX(self.itemsize))])
        return self.builder.bitcast(place, kind.as_pointer())

    def load(self, row: Any, j: Any, kind: Any) -> Any:
        return self.builder.load(self.at(row, j, kind), align=self.itemsize)

    def store(self, value: Any, row: Any, j: Any, kind: Any) -> None:
        self.builder.store(value, self.at(row, j, kind), align=self.itemsize)

    def broadcast(self, value: Any) -> Any:
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, first, zeros)

    def sum(self, value: Any) -> Any:
        """Of all lanes, by halves."""
        builder, lanes = self.builder, self.lanes
        while lanes > 1:
            lanes //= 2
            half = ir.VectorType(ir.IntType(32), lanes)
            low = builder.shuffle_vector(value, value, ir.Constant(half, list(range(lanes))))
            high = builder.shuffle_vector(value, value, ir.Constant(half, list(range(lanes, 2 * lanes))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    def columns(self, width: Any, body: Any) -> None:
        """``body(j, kind)`` for every whole vector of columns, then for every column left."""
        builder, lanes = self.builder, _INDEX(self.lanes)
        n = builder.sdiv(width, lanes)
        with cgutils.for_range(builder, n, intp=_INDEX) as loop:
            body(builder.mul(loop.index, lanes), self.vector)
        with cgutils.for_range(builder, width, start=builder.mul(n, lanes), intp=_INDEX) as loop:
            body(loop.index, self.scalar)


def _dot_tile(n_vectors: int) -> Any:
    @intrinsic
    def dots(typingctx, x, i, c, vectors, k, out, o):
        """``out[k + v, o + r] = vectors[k + v] @ x[i[r], c:c + width]`` for the tile's vectors v and four rows r."""

        def codegen(context, builder, signature, args):
            tile = _Tile(context, builder, x.dtype)
            x_, vectors_, out_ = (tile.array(kind, args[at]) for at, kind in ((0, x), (3, vectors), (5, out)))
            zero = _INDEX(0)
            rows = [tile.row(x_, builder.extract_value(args[1], r), args[2]) for r in range(ROWS)]
            heads = [tile.row(vectors_, builder.add(args[4], _INDEX(v)), zero) for v in range(n_vectors)]
            pairs = [(r, v) for v in range(n_vectors) for r in range(ROWS)]
            sums = {
                kind: [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in pairs]
                for kind in (tile.vector, tile.scalar)
            }

            def body(j: Any, kind: Any) -> None:
                of_rows = [tile.load(row, j, kind) for row in rows]
                of_heads = [tile.load(head, j, kind) for head in heads]
                for place, (r, v) in zip(sums[kind], pairs, strict=True):
                    builder.store(multiply_add(builder, of_rows[r], of_heads[v], builder.load(place)), place)

            tile.columns(builder.extract_value(vectors_.shape, 1), body)
            for many, few, (r, v) in zip(sums[tile.vector], sums[tile.scalar], pairs, strict=True):
                total = builder.fadd(tile.sum(builder.load(many)), builder.load(few))
                target = tile.row(out_, builder.add(args[4], _INDEX(v)), args[6])
                tile.store(total, target, _INDEX(r), tile.scalar)
            return context.get_dummy_value()

        return types.void(x, i, c, vectors, k, out, o), codegen

    return dots


def _gradient_tile(n_vectors: int) -> Any:
    @intrinsic
    def add(typingctx, x, i, c, values, k, o, total):
        """``total[k + v] += Σ_r values[k + v, o + r] x[i[r], c:c + width]`` for the tile's vectors v and four rows r."""

        def codegen(context, builder, signature, args):
            tile = _Tile(context, builder, x.dtype)
            x_, values_, total_ = (tile.array(kind, args[at]) for at, kind in ((0, x), (3, values), (6, total)))
            numbers = [builder.add(args[4], _INDEX(v)) for v in range(n_vectors)]
            rows = [tile.row(x_, builder.extract_value(args[1], r), args[2]) for r in range(ROWS)]
            targets = [tile.row(total_, number, _INDEX(0)) for number in numbers]
            given = [tile.row(values_, number, args[5]) for number in numbers]
            scalars = [[tile.load(one, _INDEX(r), tile.scalar) for r in range(ROWS)] for one in given]
            factors = {tile.scalar: scalars, tile.vector: [[tile.broadcast(f) for f in four] for four in scalars]}

            def body(j: Any, kind: Any) -> None:
                of_rows = [tile.load(row, j, kind) for row in rows]
                for target, four in zip(targets, factors[kind], strict=True):
                    value = tile.load(target, j, kind)
                    for factor, row in zip(four, of_rows, strict=True):
                        value = multiply_add(builder, factor, row, value)
                    tile.store(value, target, j, kind)

            tile.columns(builder.extract_value(total_.shape, 1), body)
            return context.get_dummy_value()

        return types.void(x, i, c, values, k, o, total), codegen

    return add


_dots_of_one, _dots_of_two, _dots_of_three = (_dot_tile(n) for n in (1, 2, 3))
_add_to_one, _add_to_two = (_gradient_tile(n) for n in (1, 2))


@intrinsic
def _prefetch_row(typingctx, x, i, c, width):
    """Ask for row i's columns from c on, which are needed soon."""

    def codegen(context, builder, signature, args):
        tile = _Tile(context, builder, x.dtype)
        row = tile.row(tile.array(x, args[0]), args[1], args[2])
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [row.type, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        per_line = _INDEX(64 // tile.itemsize)
        lines = builder.sdiv(builder.add(args[3], builder.sub(per_line, _INDEX(1))), per_line)
        with cgutils.for_range(builder, lines, intp=_INDEX) as loop:
            place = builder.gep(row, [builder.mul(loop.index, _INDEX(64))])
            builder.call(function, [place, flag(0), flag(2), flag(1)])
        return context.get_dummy_value()

    return types.void(x, i, c, width), codegen


@njit(nogil=True, cache=True, inline="always")
def row_at(order, i):
    """Which row stands at place i; without an order the i-th."""
    return order[i] if order.shape[0] else i


@njit(nogil=True, cache=True)
def _four(order, lo, i, n):
    """Rows at places i to i + 3 of the n from `lo` on; the last stands for those behind it."""
    last = n - 1
    return (
        np.int64(row_at(order, lo + i)),
        np.int64(row_at(order, lo + min(i + 1, last))),
        np.int64(row_at(order, lo + min(i + 2, last))),
        np.int64(row_at(order, lo + min(i + 3, last))),
    )


@njit(nogil=True, cache=True)
def block_products(x, c, order, lo, n, vectors, out, end):
    """``out[:, :n] = vectors @ x[order[lo:lo + n], c:].T``, while the rows of the next block come nearer.

    Rows from place `end` on are not asked for. Up to three columns behind the n-th are written too.
    """
    k_all, width = vectors.shape
    for i in range(0, n, ROWS):
        rows = _four(order, lo, i, n)
        for place in range(lo + i + BLOCK_ROWS, min(lo + i + BLOCK_ROWS + ROWS, end)):
            _prefetch_row(x, np.int64(row_at(order, place)), c, width)
        k = 0
        if k_all % 2 and k_all > 1:
            _dots_of_three(x, rows, c, vectors, k, out, i)
            k = 3
        while k + 1 < k_all:
            _dots_of_two(x, rows, c, vectors, k, out, i)
            k += 2
        if k < k_all:
            _dots_of_one(x, rows, c, vectors, k, out, i)


@njit(nogil=True, cache=True)
def flush(part, total):
    """Move what was summed in the dtype of computation to the sums in double precision."""
    for k in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[k, j] += part[k, j]
            part[k, j] = 0


@njit(nogil=True, cache=True)
def block_gradient(x, c, order, lo, n, values, total, sums):
    """``total += values[:, :n] @ x[order[lo:lo + n], c:]``; up to three columns behind the n-th become zero.

    After every `ROWS_PER_FLUSH` of many rows, `total` moves to the `sums` in double precision.
    """
    k_all = total.shape[0]
    for k in range(k_all):
        values[k, n : (n + ROWS - 1) // ROWS * ROWS] = 0
    for i in range(0, n, ROWS):
        rows = _four(order, lo, i, n)
        k = 0
        while k + 1 < k_all:
            _add_to_two(x, rows, c, values, k, i, total)
            k += 2
        if k < k_all:
            _add_to_one(x, rows, c, values, k, i, total)
        if (i + ROWS) % ROWS_PER_FLUSH == 0:
            flush(total, sums)


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


def as_computed(x, half, order, lo, n, first, buffer):
    """Where the tiles find rows ``order[lo:lo + n]`` as they compute: an array, an order, and the place of the first row.

    At last, whether that is x itself. Columns keep their numbers. Replaced by one of the functions below where numba compiles a call of it.
    """


@overload(as_computed)
def _as_computed_for(x, half, order, lo, n, first, buffer):
    def in_place(x, half, order, lo, n, first, buffer):
        return x, order, lo, True

    def copied(x, half, order, lo, n, first, buffer):
        for i in range(n):
            row = row_at(order, lo + i)
            for j in range(first, x.shape[1]):
                buffer[i, j] = x[row, j]
        return buffer, order[:0], 0, False

    def widened(x, half, order, lo, n, first, buffer):
        if half == FLOAT16:
            for i in range(n):
                row = row_at(order, lo + i)
                for j in range(first, x.shape[1]):
                    buffer[i, j] = _from_float16(x[row, j])  # type: ignore[call-arg]  # numba passes its context
        else:
            for i in range(n):
                row = row_at(order, lo + i)
                for j in range(first, x.shape[1]):
                    buffer[i, j] = _from_bfloat16(x[row, j])  # type: ignore[call-arg]
        return buffer, order[:0], 0, False

    return widened if x.dtype == types.uint16 else in_place if x.layout == "C" else copied


def tiled(X: np.ndarray, bfloat16_bits: bool) -> tuple[np.ndarray, int]:
    """X as the compiled functions take it, and whether it is in half precision.

    Rows whose columns lie next to one another become the first columns of wider rows without gaps.
    """
    if bfloat16_bits or X.dtype == np.float16:
        return X.view(np.uint16), BFLOAT16 if bfloat16_bits else FLOAT16
    between, rest = divmod(X.strides[0], X.itemsize)
    if X.flags.c_contiguous or X.strides[1] != X.itemsize or rest or between < X.shape[1] or len(X) < 2:
        return X, 0
    return np.lib.stride_tricks.as_strided(X, (len(X), between), writeable=X.flags.writeable), 0
