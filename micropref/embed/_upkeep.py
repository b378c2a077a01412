"""What is done to a whole store now and then: compacting, merging and exporting it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from micropref.embed._folder import ShardFolder
from micropref.embed._shards import (
    KEY_BYTES,
    Shard,
    check_same_encoder,
    check_same_kind,
    check_shard,
    map_shard,
    replacing,
    shard_names,
)

_SAFETENSORS_NAME = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}


class Compaction(NamedTuple):
    """What `EmbeddingStore.compact` did.

    Attributes
    ----------
    n_shards_before, n_shards_after : int
        Shards in the folder.
    n_bytes_freed : int
        By how much the folder is smaller.
    """

    n_shards_before: int
    n_shards_after: int
    n_bytes_freed: int


def compact(folder: ShardFolder, shard_size: int) -> Compaction:
    """Pour shards that are small, or hold vectors twice, into full ones; damaged ones are set aside."""
    if not folder.writable:
        raise PermissionError(f"{folder.path}: expected a folder to write to, got one that cannot be written to")
    before, n_bytes = len(folder.names()), _size(folder.path)
    folder.set_aside(folder.check(np.array(list(folder.numbers()))))
    pouring = _Pouring(folder, shard_size)
    for shard in folder.shards():
        used = folder.referenced(shard)
        if len(used) < shard_size or not used.all():
            pouring.take(shard, used)
    pouring.end()
    return Compaction(before, len(folder.names()), n_bytes - _size(folder.path))


class _Pouring:
    """Collects the rows of shards until a full one can be written in their place.

    The lock is held only for that: rows that are collected stay where they are until then, and where another process
    was faster, what it wrote is left as it is.
    """

    def __init__(self, folder: ShardFolder, shard_size: int):
        self.folder = folder
        self.shard_size = shard_size
        self._empty()

    def _empty(self) -> None:
        self.keys: list[np.ndarray] = []
        self.vectors: list[np.ndarray] = []
        self.n_rows = self.n_unused = self.n_truncated = 0
        self.emptied: list[str] = []

    def take(self, shard: Shard, used: np.ndarray) -> None:
        self.emptied.append(shard.name)
        self.keys.append(shard.keys[used])
        self.vectors.append(shard.vectors[used])
        self.n_rows += int(used.sum())
        self.n_unused += int((~used).sum())
        self.n_truncated += shard.n_truncated
        # A shard is never cut in two: its file may go only when all its rows are elsewhere.
        if self.n_rows >= self.shard_size:
            self.end()

    def end(self) -> None:
        with self.folder.locked():
            if self.n_rows and (len(self.emptied) > 1 or self.n_unused):
                name = self.folder.append(
                    np.concatenate(self.keys), np.concatenate(self.vectors), self.n_truncated, replacing=self.emptied
                )
                # A run that was killed may have left the very shard that was just written among those emptied.
                self.folder.drop([emptied for emptied in self.emptied if emptied != name])
            elif self.emptied and not self.n_rows:
                self.folder.drop(self.emptied)
        self._empty()


def merge(folder: ShardFolder, other: Path) -> int:
    """Copy the shards of another store into this one; number of texts that were not there."""
    if not other.is_dir():
        raise FileNotFoundError(f"{other}: expected a store, got no such folder")
    before = len(folder)
    for name in sorted(shard_names(other) - shard_names(folder.path)):
        check_shard(other / name)
        shard = map_shard(other / name)
        check_same_encoder(other, shard.fingerprint, folder.fingerprint or shard.fingerprint)
        check_same_kind(folder.path, shard.vectors, folder.width, folder.dtype)
        with folder.locked(), replacing(folder.path / name) as temporary:
            shutil.copyfile(other / name, temporary)
        folder.refresh()
    return len(folder) - before


def check_target(path: Path, suffix: str, store: Path) -> None:
    """A ValueError unless a file of an export has the right suffix and lies outside of the store."""
    if path.suffix != suffix:
        raise ValueError(f"expected the name of a file that ends in {suffix}, got {path.name}")
    if path.absolute().parent == store:
        raise ValueError(f"expected a place outside of the store, got {path}")


def export_vectors(path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> None:
    """A .npy file, written block by block."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        for block in blocks:
            file.write(np.ascontiguousarray(block).tobytes())


def export_keys(folder: ShardFolder, path: Path) -> None:
    """A .safetensors file of the keys and vectors of all texts, written shard by shard."""
    with folder.locked():  # both passes must see the same shards
        parts = [(number, folder.referenced(folder.shard(number))) for number in folder.numbers()]
        n_rows, width = sum(int(used.sum()) for _, used in parts), folder.width or 0
        dtype = np.dtype(np.float16) if folder.dtype is None else folder.dtype
        n_vector_bytes, n_key_bytes = n_rows * width * dtype.itemsize, n_rows * KEY_BYTES
        header = {
            "__metadata__": {"fingerprint": folder.fingerprint or ""},
            "vectors": {
                "dtype": _SAFETENSORS_NAME[dtype],
                "shape": [n_rows, width],
                "data_offsets": [0, n_vector_bytes],
            },
            "keys": {
                "dtype": "U8",
                "shape": [n_rows, KEY_BYTES],
                "data_offsets": [n_vector_bytes, n_vector_bytes + n_key_bytes],
            },
        }
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(encoded)) + encoded)
            for name in ("vectors", "keys"):
                for number, used in parts:
                    file.write(np.ascontiguousarray(getattr(folder.shard(number), name)[used]).tobytes())


def _size(folder: Path) -> int:
    """Bytes of the shards of a folder."""
    return sum((folder / name).stat().st_size for name in shard_names(folder))
