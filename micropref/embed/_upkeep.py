"""What is done to a whole store now and then: compacting, merging and exporting it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from micropref._support.files import file_state
from micropref.embed._folder import ShardFolder
from micropref.embed._shards import (
    KEY_BYTES,
    check_same_encoder,
    check_same_kind,
    check_shard,
    map_shard,
    replacing,
    shard_names,
)

_SAFETENSORS_NAME = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}


class Compaction(NamedTuple):
    """Result of `EmbeddingStore.compact`.

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
    """Pour shards that are small, or hold vectors twice, into full ones; damaged ones are set aside.

    The lock is held only while some shards are poured: rows that are counted stay where they are until then, and where
    another process was faster, what it wrote is left as it is.
    """
    folder.check_writable()
    folder.refresh()
    n_before, n_bytes = size_of(folder)
    folder.set_aside(folder.check(np.array(list(folder.numbers()))))
    waiting: list[str] = []
    n_rows = 0
    for name in folder.names():
        found = folder.find_shard(name)
        used = None if found is None else folder.referenced(found)
        if used is None or (len(used) >= shard_size and used.all()):
            continue
        waiting.append(name)
        n_rows += int(used.sum())
        # A shard is never cut in two: its file may go only when all its rows are elsewhere.
        if n_rows >= shard_size:
            _pour(folder, waiting)
            waiting, n_rows = [], 0
    _pour(folder, waiting)
    n_after, n_bytes_after = size_of(folder)
    return Compaction(n_before, n_after, n_bytes - n_bytes_after)


def _pour(folder: ShardFolder, names: list[str]) -> None:
    """Put into one shard what the index finds in several, and remove their files."""
    with folder.locked():
        parts = [(shard, folder.referenced(shard)) for shard in map(folder.find_shard, names) if shard is not None]
        emptied = [shard.name for shard, _ in parts]
        is_all_used = all(used.all() for _, used in parts)
        if not any(used.any() for _, used in parts):
            folder.drop(emptied)
        elif len(parts) > 1 or not is_all_used:
            name = folder.append(
                np.concatenate([shard.keys[used] for shard, used in parts]),
                np.concatenate([shard.vectors[used] for shard, used in parts]),
                sum(shard.n_truncated for shard, _ in parts),
                replacing=emptied,
            )
            # A run that was killed may have left the very shard that was just written among those emptied.
            folder.drop([one for one in emptied if one != name])


def merge(folder: ShardFolder, other: Path) -> int:
    """Copy the shards of another store into this one; number of texts that were not there."""
    if not other.is_dir():
        raise FileNotFoundError(f"{other}: expected a store, got no such folder")
    folder.check_writable()
    before = len(folder)
    for name in sorted(shard_names(other) - shard_names(folder.path)):
        check_shard(other / name)
        shard = map_shard(other / name)
        check_same_encoder(other / name, shard.fingerprint, folder.fingerprint or shard.fingerprint)
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
                    folder.alive()
                    file.write(np.ascontiguousarray(getattr(folder.shard(number), name)[used]).tobytes())


def size_of(folder: ShardFolder) -> tuple[int, int]:
    """How many shards the index knows, and their bytes; one that another process just replaced has none."""
    names = folder.names()
    return len(names), sum((file_state(folder.path / name) or (0, 0))[1] for name in names)
