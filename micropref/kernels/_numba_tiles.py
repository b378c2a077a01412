"""Products of rows with vectors, and the sum that is their gradient, tile by tile of four rows and two vectors.

A tile is written in LLVM's own language, with vectors of a fixed number of lanes: every number loaded is used two or
four times from registers, and one product is the same sum in the same order whatever rows and vectors stand beside it.
So a mixture has the same bits in a stack and alone, and neither blocks nor threads change any. NaN and infinity pass.
"""

from __future__ import annotations

from collections.abc import Iterable
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
# Rows that are asked for go to the second-level cache.
_NEAR = 2


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

    def store_sums(self, values: list[Any], target: Any) -> None:
        """The sum over the lanes of each of four vectors, side by side: by halves, then across the four."""
        builder, lanes = self.builder, self.lanes
        while lanes > ROWS:
            lanes //= 2
            halves = range(lanes), range(lanes, 2 * lanes)
            values = [builder.fadd(*(self.lanes_of(v, v, half) for half in halves)) for v in values]
        a, b, c, d = values
        even, odd, low, high = (0, 4, 2, 6), (1, 5, 3, 7), (0, 1, 4, 5), (2, 3, 6, 7)
        ab = builder.fadd(self.lanes_of(a, b, even), self.lanes_of(a, b, odd))
        cd = builder.fadd(self.lanes_of(c, d, even), self.lanes_of(c, d, odd))
        total = builder.fadd(self.lanes_of(ab, cd, low), self.lanes_of(ab, cd, high))
        self.store(total, target, _INDEX(0), total.type)

    def lanes_of(self, a: Any, b: Any, which: Iterable[int]) -> Any:
        mask = list(which)
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask))

    def ask_for(self, rows: list[Any], j: Any, kind: Any) -> None:
        """Bring the columns from j on of rows, which are needed soon, nearer."""
        if kind == self.scalar:
            return
        flag, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        of_lines = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        function = cgutils.get_or_insert_function(self.builder.module, of_lines, "llvm.prefetch.p0")
        for row in rows:
            place = self.builder.bitcast(self.at(row, j, kind), pointer)
            self.builder.call(function, [place, flag(0), flag(_NEAR), flag(1)])

    def columns(self, width: Any, body: Any) -> None:
        """``body(j, kind)`` for every whole vector of columns, then for every column left."""
        builder, lanes = self.builder, _INDEX(self.lanes)
        n = builder.sdiv(width, lanes)
        with cgutils.for_range(builder, n, intp=_INDEX) as loop:
            body(builder.mul(loop.index, lanes), self.vector)
        with cgutils.for_range(builder, width, start=builder.mul(n, lanes), intp=_INDEX) as loop:
            body(loop.index, self.scalar)


def _dot_tile(n_vectors: int, n_ahead: int) -> Any:
    @intrinsic
    def dots(typingctx, x, i, c, vectors, k, out, o, ahead):
        """``out[k + v, o + r] = vectors[k + v] @ x[i[r], c:c + width]`` for the tile's vectors v and four rows r."""

        def codegen(context, builder, signature, args):
            tile = _Tile(context, builder, x.dtype)
            x_, vectors_, out_ = (tile.array(kind, args[at]) for at, kind in ((0, x), (3, vectors), (5, out)))
            zero = _INDEX(0)
            rows = [tile.row(x_, builder.extract_value(args[1], r), args[2]) for r in range(ROWS)]
            heads = [tile.row(vectors_, builder.add(args[4], _INDEX(v)), zero) for v in range(n_vectors)]
            later = [tile.row(x_, builder.extract_value(args[7], r), args[2]) for r in range(n_ahead)]
            pairs = [(r, v) for v in range(n_vectors) for r in range(ROWS)]
            sums = {
                kind: [cgutils.alloca_once_value(builder, ir.Constant(kind, None)) for _ in pairs]
                for kind in (tile.vector, tile.scalar)
            }

            def body(j: Any, kind: Any) -> None:
                of_heads = [tile.load(head, j, kind) for head in heads]
                for r, row in enumerate(rows):  # one row at a time, so that no register is missing
                    of_row = tile.load(row, j, kind)
                    for v, of_head in enumerate(of_heads):
                        place = sums[kind][v * ROWS + r]
                        builder.store(multiply_add(builder, of_row, of_head, builder.load(place)), place)
                tile.ask_for(later, j, kind)

            width = builder.extract_value(vectors_.shape, 1)
            tile.columns(width, body)
            for v in range(n_vectors):
                target = tile.row(out_, builder.add(args[4], _INDEX(v)), args[6])
                own = slice(v * ROWS, (v + 1) * ROWS)
                tile.store_sums([builder.load(place) for place in sums[tile.vector][own]], target)
                with builder.if_then(builder.icmp_signed("!=", builder.srem(width, _INDEX(tile.lanes)), zero)):
                    for r, place in enumerate(sums[tile.scalar][own]):
                        total = builder.fadd(tile.load(target, _INDEX(r), tile.scalar), builder.load(place))
                        tile.store(total, target, _INDEX(r), tile.scalar)
            return context.get_dummy_value()

        return types.void(x, i, c, vectors, k, out, o, ahead), codegen

    return dots


def _gradient_tile(n_vectors: int, n_ahead: int) -> Any:
    @intrinsic
    def add(typingctx, x, i, c, values, k, o, total, ahead):
        """``total[k + v] += Σ_r values[k + v, o + r] x[i[r], c:c + width]`` for vectors v and four rows r."""

        def codegen(context, builder, signature, args):
            tile = _Tile(context, builder, x.dtype)
            x_, values_, total_ = (tile.array(kind, args[at]) for at, kind in ((0, x), (3, values), (6, total)))
            numbers = [builder.add(args[4], _INDEX(v)) for v in range(n_vectors)]
            rows = [tile.row(x_, builder.extract_value(args[1], r), args[2]) for r in range(ROWS)]
            targets = [tile.row(total_, number, _INDEX(0)) for number in numbers]
            given = [tile.row(values_, number, args[5]) for number in numbers]
            later = [tile.row(x_, builder.extract_value(args[7], r), args[2]) for r in range(n_ahead)]
            scalars = [[tile.load(one, _INDEX(r), tile.scalar) for r in range(ROWS)] for one in given]
            factors = {tile.scalar: scalars, tile.vector: [[tile.broadcast(f) for f in four] for four in scalars]}

            def body(j: Any, kind: Any) -> None:
                of_rows = [tile.load(row, j, kind) for row in rows]
                for target, four in zip(targets, factors[kind], strict=True):
                    value = tile.load(target, j, kind)
                    for factor, row in zip(four, of_rows, strict=True):
                        value = multiply_add(builder, factor, row, value)
                    tile.store(value, target, j, kind)
                tile.ask_for(later, j, kind)

            tile.columns(builder.extract_value(total_.shape, 1), body)
            return context.get_dummy_value()

        return types.void(x, i, c, values, k, o, total, ahead), codegen

    return add


# The first tile of four rows asks for rows of the next block, so that memory is busy while the processor is.
_AHEAD = 2
_first_dots_of_one, _first_dots_of_two, _first_dots_of_three = (_dot_tile(n, _AHEAD) for n in (1, 2, 3))
_first_add_to_one, _first_add_to_two = (_gradient_tile(n, _AHEAD) for n in (1, 2))
_dots_of_two, _add_to_one, _add_to_two = _dot_tile(2, 0), _gradient_tile(1, 0), _gradient_tile(2, 0)


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
def _later(order, place, end, row):
    """Rows at a place and behind it, which are asked for; `row` where there are none before the end."""
    return (
        np.int64(row_at(order, place)) if place < end else row,
        np.int64(row_at(order, place + 1)) if place + 1 < end else row,
    )


@njit(nogil=True, cache=True)
def block_products(x, c, order, lo, n, vectors, out, end):
    """``out[:, :n] = vectors @ x[order[lo:lo + n], c:].T``, while half of the next block comes nearer.

    Rows from place `end` on are not asked for. Up to three columns behind the n-th are written too.
    """
    k_all = vectors.shape[0]
    for i in range(0, n, ROWS):
        rows = _four(order, lo, i, n)
        later = _later(order, lo + i + BLOCK_ROWS, end, rows[0])
        if k_all == 1:
            _first_dots_of_one(x, rows, c, vectors, 0, out, i, later)
            continue
        if k_all % 2:
            _first_dots_of_three(x, rows, c, vectors, 0, out, i, later)
            k = 3
        else:
            _first_dots_of_two(x, rows, c, vectors, 0, out, i, later)
            k = 2
        while k < k_all:
            _dots_of_two(x, rows, c, vectors, k, out, i, later)
            k += 2


@njit(nogil=True, cache=True)
def flush(part, total):
    """Move what was summed in the dtype of computation to the sums in double precision."""
    for k in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[k, j] += part[k, j]
            part[k, j] = 0


@njit(nogil=True, cache=True)
def block_gradient(x, c, order, lo, n, values, total, sums, end):
    """``total += values[:, :n] @ x[order[lo:lo + n], c:]``, while the other half of the next block comes nearer.

    Up to three columns of `values` behind the n-th become zero. After every `ROWS_PER_FLUSH` of many rows, `total`
    moves to the `sums` in double precision.
    """
    k_all = total.shape[0]
    for k in range(k_all):
        values[k, n : (n + ROWS - 1) // ROWS * ROWS] = 0
    for i in range(0, n, ROWS):
        rows = _four(order, lo, i, n)
        later = _later(order, lo + i + BLOCK_ROWS + 2, end, rows[0])
        if k_all == 1:
            _first_add_to_one(x, rows, c, values, 0, i, total, later)
        else:
            _first_add_to_two(x, rows, c, values, 0, i, total, later)
        k = 2
        while k + 1 < k_all:
            _add_to_two(x, rows, c, values, k, i, total, later)
            k += 2
        if k < k_all:
            _add_to_one(x, rows, c, values, k, i, total, later)
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
    """Where tiles find rows ``order[lo:lo + n]``: an array in the dtype of computation, an order, the first place.

    And whether the array is x itself. Columns keep their numbers. Replaced by one of the functions below where numba
    compiles a call of it.
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
