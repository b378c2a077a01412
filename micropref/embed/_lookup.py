"""Where the vectors of texts are in a store: looked up once, gathered as often as needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from micropref.embed._folder import ShardFolder
from micropref.embed._index import MISSING, shard_of
from micropref.embed._shards import KEY_BYTES, key_table, text_keys

ROW = np.dtype([("position", np.int64), ("key", np.uint8, (KEY_BYTES,))])
_LOOKED_UP = 1 << 16


def find_rows(folder: ShardFolder, texts: Sequence[str]) -> np.ndarray:
    """Row of each text, an array of `ROW`; its position is MISSING where the text is not there."""
    keys = text_keys(folder.fingerprint or "", texts)
    rows = np.empty(len(keys), dtype=ROW)
    for start in range(0, len(keys), _LOOKED_UP):
        part = slice(start, start + _LOOKED_UP)
        rows["key"][part], rows["position"][part] = key_table(keys[part]), folder.find(keys[part])
    return rows


def locate(folder: ShardFolder, texts: Sequence[str]) -> np.ndarray:
    """Row of each text, after a second look at what other processes wrote; a KeyError for a text that is not there."""
    rows = find_rows(folder, texts)
    if (rows["position"] == MISSING).any():
        folder.refresh()
        rows = find_rows(folder, texts)
    absent = rows["position"] == MISSING
    if absent.any() and folder.overlooks([key.tobytes() for key in rows["key"][absent]]):
        folder.rebuild()
        rows = find_rows(folder, texts)
    absent = rows["position"] == MISSING
    if absent.any():
        first = texts[int(np.argmax(absent))]
        raise KeyError(
            f"expected {len(texts)} texts of the store, got {int(absent.sum())} that are not there, first {first!r}"
        )
    return rows


def gather(folder: ShardFolder, rows: np.ndarray, out: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Vectors at rows, written to `out` or to a new array of a dtype."""
    positions, keys = np.ascontiguousarray(rows["position"]), np.ascontiguousarray(rows["key"])
    if len(rows) and folder.width is None:  # another process has begun the store since it was opened
        folder.shard(int(shard_of(positions[0])))
    check_out(out, (len(rows), folder.width))
    if out is None:
        out = np.empty((len(rows), folder.width or 0), dtype=folder.dtype or dtype)
    folder.read(keys, positions, out)
    return out


def check_out(out: np.ndarray | None, shape: tuple[int, int | None]) -> None:
    """A ValueError if vectors of a shape cannot be written to an array; the width is None while it is unknown."""
    if out is None:
        return
    if len(out.shape) != 2 or len(out) != shape[0] or shape[1] not in (None, out.shape[1]):
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if out.dtype.kind != "f":
        raise ValueError(f"out: expected a floating dtype, got {out.dtype}")


def stacked(blocks: Iterable[np.ndarray], n_rows: int, out: np.ndarray | None, n_dimensions: int) -> np.ndarray:
    """Blocks one below the other, in `out` or in a new float32 array; without any, it has n_dimensions columns."""
    start = 0
    for block in blocks:
        shape = (n_rows, block.shape[1])
        if out is None:
            out = np.empty(shape, dtype=np.float32)
        if out.shape != shape:
            raise ValueError(f"out: expected shape {shape}, got {out.shape}")
        out[start : start + len(block)] = block
        start += len(block)
    return np.empty((0, n_dimensions), dtype=np.float32) if out is None else out
