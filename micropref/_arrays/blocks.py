"""Large arrays read in blocks of rows, whatever they lie in: memory, a device, a memory-mapped file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from micropref._arrays.backend import Array, compute_dtype, is_torch, namespace

__all__ = ["row_blocks", "shared_mapping", "stored_blocks"]

# A block and its products fit the last-level cache of a CPU, and keep a GPU busy.
_BLOCK_BYTES = 1 << 23
_DEVICE_BLOCK_BYTES = 1 << 28
# Of a file, large enough to be worth several threads.
_MAPPED_BYTES = 1 << 26


def row_blocks(array: Array) -> Iterator[tuple[slice, Array]]:
    """Yield ``(rows, array[rows])`` in the dtype of computation.

    Half-precision rows are widened block by block. Pages of a memory-mapped file are handed back to the system after
    each block, so that reading a file larger than memory does not fill it.

    Parameters
    ----------
    array : array of shape (n_rows, n_columns)

    Yields
    ------
    rows : slice
    block : array of shape (rows.stop - rows.start, n_columns)
        A view of `array` where its dtype is that of computation.
    """
    xp, dtype, mapping = namespace(array), compute_dtype(array), shared_mapping(array)
    n_rows, n_columns = array.shape
    on_device = is_torch(array) and array.device.type != "cpu"
    size = max(64, (_DEVICE_BLOCK_BYTES if on_device else _BLOCK_BYTES) // (4 * max(1, n_columns)))
    for start in range(0, n_rows, size):
        rows = slice(start, min(start + size, n_rows))
        block = array[rows]
        yield rows, block if block.dtype == dtype else xp.astype(block, dtype)
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def stored_blocks(array: Array, max_rows: int | None = None) -> Iterator[tuple[slice, Array]]:
    """Yield ``(rows, array[rows])`` as stored: all at once, but for a memory-mapped file, whose pages are handed back.

    Parameters
    ----------
    array : array of shape (n_rows, n_columns)
    max_rows : int, optional
        Never more rows than these at once.

    Yields
    ------
    rows : slice
    block : array of shape (rows.stop - rows.start, n_columns)
        A view of `array`.
    """
    mapping = shared_mapping(array)
    n_rows = array.shape[0]
    size = n_rows if mapping is None else max(64, _MAPPED_BYTES // max(1, array[:1].nbytes))
    size = max(1, size if max_rows is None else min(size, max_rows))
    for start in range(0, n_rows, size):
        rows = slice(start, min(start + size, n_rows))
        yield rows, array[rows]
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def shared_mapping(array: Any) -> mmap.mmap | None:
    """The file mapping below an array, if its pages can be dropped without losing data; None otherwise."""
    if is_torch(array) or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    while isinstance(array, np.ndarray):
        # Copy-on-write pages ("c") hold changes that exist nowhere else.
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
