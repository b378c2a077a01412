"""What is done to a whole store now and then: compacting, merging and exporting it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from micropref.embed._folder import ShardFolder
from micropref.embed._shards import (
    DAMAGED_SUFFIX,
    KEY_BYTES,
    Shard,
    check_same_encoder,
    check_shard,
    map_shard,
    shard_names,
    sync_folder,
)

_SAFETENSORS_NAME = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}


class Compaction(NamedTuple):
    """What `EmbeddingStore.compact` did."""

    n_shards_before: int
    n_shards_after: int
    n_bytes_freed: int


def compact(folder: ShardFolder, shard_size: int) -> Compaction:
    """Pour shards that are small, or hold vectors twice, into full ones; one writer for the whole time."""
    if not folder.writable:
        raise PermissionError(f"{folder.path} cannot be written to")
    with folder.locked():
        before, n_bytes = len(folder.names()), _size(folder.path)
        pouring = _Pouring(folder, shard_size)
        for shard in folder.shards():
            used = folder.referenced(shard)
            if len(used) < shard_size or not used.all():
                pouring.take(shard, used)
        pouring.end()
        for set_aside in folder.path.glob(f"*{DAMAGED_SUFFIX}"):
            set_aside.unlink()
        sync_folder(folder.path)
        return Compaction(before, len(folder.names()), n_bytes - _size(folder.path))


class _Pouring:
    """Collects the rows of shards until a full one can be written in their place."""

    def __init__(self, folder: ShardFolder, shard_size: int):
        self.folder = folder
        self.shard_size = shard_size
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
        if self.n_rows and (len(self.emptied) > 1 or self.n_unused):
            name = self.folder.append(
                np.concatenate(self.keys), np.concatenate(self.vectors), self.n_truncated, replacing=self.emptied
            )
            # A run that was killed may have left the very shard that was just written among those that were emptied.
            self.folder.drop([emptied for emptied in self.emptied if emptied != name])
        elif self.emptied and not self.n_rows:
            self.folder.drop(self.emptied)
        self.__init__(self.folder, self.shard_size)  # type: ignore[misc]


def merge(folder: ShardFolder, other: Path) -> int:
    """Copy the shards of another store into this one; number of texts that were not there."""
    if not other.is_dir():
        raise FileNotFoundError(f"there is no store at {other}")
    before = len(folder)
    for name in sorted(shard_names(other) - shard_names(folder.path)):
        check_shard(other / name)
        shard = map_shard(other / name)
        check_same_encoder(other / name, shard.fingerprint, folder.fingerprint or shard.fingerprint)
        if folder.dtype is not None and shard.vectors.dtype != folder.dtype:
            raise ValueError(f"the store {other} keeps vectors in {shard.vectors.dtype}, this one in {folder.dtype}")
        with folder.locked():
            temporary = folder.path / f"{name}.{os.getpid()}.tmp"
            shutil.copyfile(other / name, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, folder.path / name)
            sync_folder(folder.path)
        folder.refresh()
    return len(folder) - before


def export_vectors(path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> None:
    """A .npy file, written block by block."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape) if shape[0] else np.empty(shape, dtype)
    start = 0
    for block in blocks:
        array[start : start + len(block)] = block
        start += len(block)
    if isinstance(array, np.memmap):
        array.flush()
    else:  # nothing can be mapped where there is nothing
        np.save(path, array)


def export_keys(folder: ShardFolder, path: Path) -> None:
    """A .safetensors file of the keys and vectors of all texts, written shard by shard."""
    n_rows, width, dtype = len(folder), folder.width or 0, folder.dtype or np.dtype(np.float16)
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
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for part in ("vectors", "keys"):
            for shard in folder.shards():
                file.write(np.ascontiguousarray(getattr(shard, part)[folder.referenced(shard)]).tobytes())


def _size(folder: Path) -> int:
    """Bytes of the shards of a folder, those set aside included."""
    return sum(path.stat().st_size for path in folder.iterdir() if ".safetensors" in path.suffixes)
