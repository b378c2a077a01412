"""Shards: files of vectors that are written once, name their own checksum, and never change."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from micropref.embed.encoders import EncoderMismatchError

KEY_BYTES = 16
SUFFIX = ".safetensors"
DAMAGED_SUFFIX = ".damaged"
_TEMPORARY_SUFFIX = ".tmp"
_DTYPE_OF = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}


class DamagedShardError(ValueError):
    """A file of the store is not what was written."""


def text_keys(fingerprint: str, texts: Iterable[str]) -> list[bytes]:
    """Keys of vectors: what computed each, and exactly the text it was computed from."""
    start = hashlib.blake2b(fingerprint.encode() + b"\0", digest_size=KEY_BYTES)
    keys = []
    for text in texts:
        digest = start.copy()
        digest.update(text.encode())
        keys.append(digest.digest())
    return keys


def key_table(keys: Iterable[bytes]) -> np.ndarray:
    """Keys as an array of shape (n_keys, KEY_BYTES)."""
    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)


@dataclass(frozen=True)
class Shard:
    """An open shard: keys and vectors as views of the mapped file.

    Attributes
    ----------
    name : str
    fingerprint : str
        Of the encoder.
    keys : ndarray of uint8 of shape (n_texts, KEY_BYTES)
    vectors : ndarray of shape (n_texts, n_dimensions)
    n_truncated : int
        How many of the texts were longer than the encoder reads.
    """

    name: str
    fingerprint: str
    keys: np.ndarray
    vectors: np.ndarray
    n_truncated: int


def write_shard(folder: Path, fingerprint: str, keys: np.ndarray, vectors: np.ndarray, n_truncated: int) -> str:
    """Write a shard so that at any instant it is there whole or not at all; its name.

    The bytes go to a temporary name and to the disk, then take their name, then the folder goes to the disk.
    """
    about = {"fingerprint": fingerprint, "n_truncated": str(n_truncated)}
    blob = save({"keys": np.ascontiguousarray(keys), "vectors": np.ascontiguousarray(vectors)}, about)
    name = _name_of(hashlib.sha256(blob).hexdigest())
    temporary = folder / f"{name}.{os.getpid()}{_TEMPORARY_SUFFIX}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            rest = memoryview(blob)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return name


def _name_of(checksum: str) -> str:
    # SHA-256, because processors have instructions for it; half of it is more than chance can hit.
    return checksum[:32] + SUFFIX


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shard_names(folder: Path) -> set[str]:
    """Names of all whole shards of a folder."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(SUFFIX)}


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left; only for who holds the writers' lock."""
    for stale in folder.glob(f"*{_TEMPORARY_SUFFIX}"):
        stale.unlink(missing_ok=True)


def set_aside(folder: Path, name: str) -> None:
    """Give a damaged shard a name under which nobody reads it."""
    if (folder / name).exists():
        os.replace(folder / name, folder / f"{name}{DAMAGED_SUFFIX}")
        sync_folder(folder)


def shard_state(path: Path) -> tuple[int, int, int]:
    """What changes when somebody touches a file: inode, size and time of the last change; zeros where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_shard(path: Path) -> None:
    """A DamagedShardError unless the bytes of a shard have the checksum in its name."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedShardError(f"{path} cannot be read: {error.strerror}") from error
    if _name_of(found) != path.name:
        raise DamagedShardError(f"{path} has changed since it was written: its checksum is {found}")


def map_shard(path: Path) -> Shard:
    """Map a shard that `check_shard` found sound.

    Raises
    ------
    DamagedShardError
        If it has been changed or removed since then, so that it cannot be mapped.
    """
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        (length,) = struct.unpack("<Q", mapped[:8].tobytes())
        header = json.loads(mapped[8 : 8 + length].tobytes())
        data = mapped[8 + length :]
        tensors = {}
        for name in ("keys", "vectors"):
            entry = header[name]
            start, stop = entry["data_offsets"]
            tensors[name] = np.asarray(data[start:stop]).view(_DTYPE_OF[entry["dtype"]]).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise DamagedShardError(f"{path} cannot be read: {error}") from error
    about = header["__metadata__"]
    return Shard(path.name, about["fingerprint"], **tensors, n_truncated=int(about.get("n_truncated", 0)))


def check_same_encoder(path: Path, found: str, wanted: str) -> None:
    """An EncoderMismatchError that names both, unless a shard's encoder is the wanted one."""
    if found != wanted:
        raise EncoderMismatchError(
            f"the store {path.parent} keeps vectors of the encoder {found}, but the encoder is {wanted}"
        )
