"""Sizes of the Triton kernel's tiles: fixed, so that results do not depend on what a tuner found."""

from __future__ import annotations

from typing import NamedTuple

# Tensor cores multiply no narrower matrices.
_SMALLEST = 16
_MOST_ROWS = 64
# Of a tile of all columns: two of them fit the 256 KB that shared memory and first-level cache have together.
_TILE_BYTES = 1 << 16
_COLUMNS = 128


class BlockSizes(NamedTuple):
    """Sizes of one launch.

    Attributes
    ----------
    rows : int
        Rows of a tile.
    columns : int
        Columns multiplied at a time.
    components : int
        Heads, padded to a power of 2.
    warps : int
        Per program.
    stages : int
        1: tiles are loaded through the first-level cache, which asynchronous copies pass by.
    """

    rows: int
    columns: int
    components: int
    warps: int
    stages: int


def block_sizes(width: int, n_components: int, itemsize: int) -> BlockSizes:
    """Sizes for rows of `width` numbers of `itemsize` bytes, and `n_components` heads."""
    components = max(_SMALLEST, 1 << (n_components - 1).bit_length())
    fitting = max(1, _TILE_BYTES // (itemsize * width))
    rows = min(_MOST_ROWS, max(_SMALLEST, 1 << (fitting.bit_length() - 1)))
    return BlockSizes(rows, _COLUMNS, components, 4, 1)
