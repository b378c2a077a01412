"""Shards: files of vectors that are written once, name their own checksum, and never change."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

KEY_BYTES = 16
_SUFFIX = ".safetensors"


class DamagedShardError(ValueError):
    """A file of the store is not what was written."""


def text_key(fingerprint: str, text: str) -> bytes:
    """Key of a vector: what computed it, and exactly the text it was computed from."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(fingerprint.encode())
    digest.update(b"\0")
    digest.update(text.encode())
    return digest.digest()


@dataclass(frozen=True)
class Shard:
    """An open shard: keys and vectors as views of the mapped file."""

    name: str
    fingerprint: str
    keys: np.ndarray
    vectors: np.ndarray


def write_shard(folder: Path, fingerprint: str, keys: list[bytes], vectors: np.ndarray) -> str:
    """Write a shard so that at any instant it is there whole or not at all; its name.

    The bytes go to a temporary name and to the disk, then take their name, then the folder goes to the disk.
    """
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)
    blob = save({"keys": table, "vectors": np.ascontiguousarray(vectors)}, {"fingerprint": fingerprint})
    name = hashlib.blake2b(blob, digest_size=16).hexdigest() + _SUFFIX
    temporary = folder / f"{name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return name


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shard_names(folder: Path) -> Iterator[str]:
    """Names of all whole shards of a folder."""
    return (path.name for path in sorted(folder.glob(f"*{_SUFFIX}")))


def open_shard(folder: Path, name: str) -> Shard:
    """Map a shard after comparing its bytes with the checksum in its name.

    Raises
    ------
    DamagedShardError
        If it is missing, or not what was written.
    """
    path = folder / name
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DamagedShardError(f"{path} cannot be read: {error.strerror}") from error
    if found + _SUFFIX != name:
        raise DamagedShardError(f"{path} has changed since it was written: its checksum is {found}")
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    (length,) = struct.unpack("<Q", mapped[:8].tobytes())
    header = json.loads(mapped[8 : 8 + length].tobytes())
    data = mapped[8 + length :]

    def tensor(entry: dict) -> np.ndarray:
        dtype = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}[entry["dtype"]]
        start, stop = entry["data_offsets"]
        return data[start:stop].view(dtype).reshape(entry["shape"])

    return Shard(name, header["__metadata__"]["fingerprint"], tensor(header["keys"]), tensor(header["vectors"]))
