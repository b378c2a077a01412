"""Sizes of the Triton kernel's tiles: fixed, so that results do not depend on what a tuner found."""

from __future__ import annotations

from typing import NamedTuple

# Tensor cores multiply no narrower matrices.
_SMALLEST = 16
# Measured on an H200 for widths from 384 to 4 096: of 88 sizes the fastest, or within 15 % of it. Tiles of 16 rows,
# which the caches could keep between their two readings, take twice the time: every tile adds its sums to memory.
_ROWS, _COLUMNS = 128, 64
# Rows x components of a tile lie in registers several times over.
_MOST_ENTRIES = 128 * 16


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
        Pieces of a tile on their way at a time.
    """

    rows: int
    columns: int
    components: int
    warps: int
    stages: int


def block_sizes(n_components: int) -> BlockSizes:
    """Sizes for `n_components` heads."""
    components = max(_SMALLEST, 1 << (n_components - 1).bit_length())
    return BlockSizes(max(_SMALLEST, min(_ROWS, _MOST_ENTRIES // components)), _COLUMNS, components, 4, 2)
