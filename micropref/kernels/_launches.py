"""Which Triton kernel takes a shape, and with which sizes: fixed, so that results do not depend on what a tuner found.

One launch is chosen by the first line that fits:

========== =============================== ============================================================================
launch     chosen for                      because
========== =============================== ============================================================================
rows       K <= 4 whose gradient fits the  X is read once, not twice. 7 to 32 instructions a number of X, where an H100
           registers                       can issue 28 (single precision) or 14 in the time of its read
small      other K <= 16 in single         no spills, where ``large`` has 432 bytes a thread; half the rows on their
           precision                       way to a second reading fit the L2 cache; three pieces on their way. In a
                                           trial on an H200 these together took 2.8 -> 2.1 ms
large      all else                        measured, and in half precision without spills; nothing speaks for another
========== =============================== ============================================================================

The others are candidates that one run of ``benchmarks/bench_kernels.py --device cuda`` compares with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

# Tensor cores multiply no narrower matrices.
_SMALLEST = 16
# Rows x components of a tile lie in registers several times over.
_MOST_ENTRIES = 128 * 16
# `rows`: heads, numbers of a row in one thread's registers, and such numbers of rows and gradients together.
_FEW, _MOST_NUMBERS, _MOST_REGISTERS = 4, 64, {1: 168, 2: 144, 4: 144, 8: 144}
_WARP = 32


class Shape(NamedTuple):
    """What a launch depends on.

    Attributes
    ----------
    n_context : int
        Columns that the gate reads; 0 without such a gate.
    n_features : int
    n_components : int
    itemsize : int
        Bytes of a number of X.
    """

    n_context: int
    n_features: int
    n_components: int
    itemsize: int


class Launch(NamedTuple):
    """A kernel and its sizes.

    Attributes
    ----------
    kernel : {"rows", "tiles"}
    constants : dict
        The kernel's sizes and switches.
    rows : int
        Rows between two steps of a program.
    warps, stages : int
        Warps of a program, and pieces of a tile on their way at a time.
    programs : int
        Per multiprocessor.
    scratch : int
        Numbers of memory that a program shares its margins in.
    """

    kernel: str
    constants: dict[str, int | bool]
    rows: int
    warps: int
    stages: int
    programs: int
    scratch: int


def _padded(n_components: int, least: int) -> int:
    """A power of 2."""
    return max(least, 1 << (n_components - 1).bit_length())


def _piece(shape: Shape, warps: int) -> int:
    """Columns of a piece: four a thread, or fewer in a single warp where the padding would be an eighth more.

    Several warps would take several rows of a narrower piece, and exchange all their numbers.
    """
    sizes = [thread * _WARP * warps for thread in ((4, 2, 1) if warps == 1 else (4,))]
    widths = {size: _width(shape, size) for size in sizes}
    return next(size for size in sizes if 8 * widths[size] <= 9 * min(widths.values()))


def _width(shape: Shape, piece: int) -> int:
    return sum(-(-columns // piece) * piece for columns in (shape.n_context, shape.n_features))


def rows(shape: Shape) -> Launch | None:
    """Whole rows in registers, without tensor cores, of the fewest warps that can hold two rows and the gradient."""
    k = shape.n_components
    if k > _FEW:
        return None
    for warps in (1, 2, 4, 8):
        piece = _piece(shape, warps)
        numbers = _width(shape, piece) // (_WARP * warps)
        n_rows = next((r for r in (4, 2) if numbers * (k + r) <= _MOST_REGISTERS[warps]), None)
        if n_rows is None or numbers > _MOST_NUMBERS:
            continue
        components = _padded(k, 1)
        pieces, gate_pieces = (-(-columns // piece) for columns in (shape.n_features, shape.n_context))
        constants = {
            "ROWS": n_rows, "COLUMNS": piece, "COMPONENTS": components, "K": k, "PIECES": pieces,
            "GATE_PIECES": gate_pieces, "FULL": shape.n_features % piece == 0 == shape.n_context % piece,
            "APART": n_rows if warps == 1 else 1,
        }  # fmt: skip
        return Launch("rows", constants, n_rows, warps, 1, 8 // warps, 2 * n_rows * components)
    return None


def _tiles(
    shape: Shape, most_rows: int, columns: int, stages: int, *, rounded: bool, together: int = 1, turned: bool = False
) -> Launch:
    components = _padded(shape.n_components, _SMALLEST)
    n_rows = max(_SMALLEST, min(most_rows, _MOST_ENTRIES // components))
    constants = {
        "ROWS": n_rows, "COLUMNS": columns, "COMPONENTS": components, "ROUNDED": rounded, "TOGETHER": together,
        "TURNED": turned,
    }  # fmt: skip
    scratch = 2 * n_rows * components * together if together > 1 else 0
    return Launch("tiles", constants, n_rows * together, 4, stages, 2, scratch)


def large(shape: Shape) -> Launch:
    """Of 88 sizes measured on an H200 for widths from 384 to 4 096, with K = 4, the fastest, or within 15 % of it.

    Tiles of 16 rows, which the caches could keep between their two readings, take twice the time: every tile adds its
    sums to memory.
    """
    return _tiles(shape, 128, 64, 2, rounded=False)


def ahead(shape: Shape) -> Launch:
    """Three pieces on their way, and single precision split by rounding."""
    return _tiles(shape, 128, 64, 3, rounded=True)


def small(shape: Shape) -> Launch:
    """Half the rows too."""
    return _tiles(shape, 64, 64, 3, rounded=True)


def narrow(shape: Shape) -> Launch:
    """Half the columns too: 189 registers instead of 248, for a fifth more instructions."""
    return _tiles(shape, 64, 32, 3, rounded=True)


def together(shape: Shape) -> Launch:
    """The gradient of four small tiles is summed in registers before it is added to memory."""
    return _tiles(shape, 64, 64, 3, rounded=True, together=4)


def turned(shape: Shape) -> Launch | None:
    """The gradient as columns x components on the widest tensor core instruction; single precision would spill."""
    return _tiles(shape, 64, 64, 3, rounded=True, turned=True) if shape.itemsize == 2 else None


LAUNCHES: dict[str, Callable[[Shape], Launch | None]] = {
    one.__name__: one for one in (rows, large, ahead, small, narrow, together, turned)
}

_forced: ContextVar[str | None] = ContextVar("micropref_launch", default=None)


@contextmanager
def use_launch(name: str) -> Iterator[None]:
    """Take one of `LAUNCHES` for every shape inside a ``with`` block, for comparisons and measurements."""
    if name not in LAUNCHES:
        raise ValueError(f"launch: expected one of {', '.join(map(repr, LAUNCHES))}, got {name!r}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def chosen(shape: Shape) -> str:
    """The launch that the table above names."""
    if rows(shape) is not None:
        return "rows"
    return "small" if shape.n_components <= _SMALLEST and shape.itemsize == 4 else "large"


def launch_for(shape: Shape) -> Launch:
    """The launch of a shape: the forced one, or else the chosen one.

    Raises
    ------
    ValueError
        If the forced one does not take the shape.
    """
    name = _forced.get() or chosen(shape)
    launch = LAUNCHES[name](shape)
    if launch is None:
        raise ValueError(f"shape: expected one that the launch {name!r} takes, got {shape}")
    return launch
