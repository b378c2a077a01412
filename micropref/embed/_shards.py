"""Shards: files of vectors that are written once, name their own checksum, and never change."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from micropref._support import files as _files
from micropref.embed.encoders import EncoderMismatchError

KEY_BYTES = 16
SUFFIX = ".safetensors"
DAMAGED_SUFFIX = ".damaged"
_TEMPORARY_SUFFIX = ".tmp"
_OURS = re.compile(r"[0-9a-f]{32}\.safetensors(\.damaged|\.\d+\.tmp)?")
_UNREADABLE = (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error)
_DTYPE_OF = {"U8": np.uint8, "F16": np.float16, "F32": np.float32}


class DamagedShardError(ValueError):
    """A file of the store has changed since it was written."""


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
    """Write a shard so that at any instant it is there whole or not at all; its name."""
    about = {"fingerprint": fingerprint, "n_truncated": str(n_truncated)}
    blob = save({"keys": np.ascontiguousarray(keys), "vectors": np.ascontiguousarray(vectors)}, about)
    name = _name_of(hashlib.sha256(blob).hexdigest())
    if (folder / name).is_dir():  # no file takes its name
        set_aside(folder, name)
    with replacing(folder / name) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            rest = memoryview(blob)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
    return name


def replacing(path: Path) -> AbstractContextManager[Path]:
    """A temporary name to write to, by which `remove_leftovers` knows the files that killed writers left."""
    return _files.replacing(path, path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}"))


def _name_of(checksum: str) -> str:
    # SHA-256, because processors have instructions for it; half of it is more than chance can hit.
    return checksum[:32] + SUFFIX


def is_shard_name(name: str) -> bool:
    """Whether a text is the name of a whole shard."""
    return _OURS.fullmatch(name) is not None and name.endswith(SUFFIX)


def shard_names(folder: Path) -> set[str]:
    """Names of all whole shards of a folder; other files there are none of ours."""
    return _names(folder, SUFFIX)


def damaged_names(folder: Path) -> set[str]:
    """Names of shards that were set aside."""
    return _names(folder, SUFFIX + DAMAGED_SUFFIX)


def _names(folder: Path, suffix: str) -> set[str]:
    with os.scandir(folder) as entries:
        ours = (entry for entry in entries if _OURS.fullmatch(entry.name) and entry.name.endswith(suffix))
        # To read a pipe is to wait, and a device may have no end.
        return {entry.name for entry in ours if entry.is_file()}


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left; only for a process that holds the writers' lock."""
    for stale in _names(folder, _TEMPORARY_SUFFIX):
        (folder / stale).unlink(missing_ok=True)


def set_aside(folder: Path, name: str) -> None:
    """Give a damaged shard a name under which it is not read."""
    if (folder / name).exists():
        os.replace(folder / name, folder / f"{name}{DAMAGED_SUFFIX}")
        _files.sync(folder)


def check_shard(path: Path) -> None:
    """A DamagedShardError unless the bytes of a shard have the checksum in its name.

    A shard that cannot be read just now, for want of rights, of file descriptors or of a network, is an OSError and no
    damage.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedShardError(f"{path}: expected a shard, got no regular file")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DamagedShardError(f"{path}: expected a shard, got no such file: it is missing") from error
    if _name_of(found) != path.name:
        raise DamagedShardError(
            f"{path}: expected the content that was written, got content with the checksum {found}: the file has "
            "changed"
        )


def map_shard(path: Path) -> Shard:
    """Map a shard that `check_shard` found sound.

    Raises
    ------
    DamagedShardError
        If it has been changed or removed since then, so that it cannot be mapped, or another program wrote it.
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
        about = header["__metadata__"]
        shard = Shard(path.name, about["fingerprint"], **tensors, n_truncated=int(about.get("n_truncated", 0)))
    except _UNREADABLE as error:
        raise DamagedShardError(f"{path}: expected a shard, got a file that cannot be read: {error!r}") from error
    keys, vectors = shard.keys, shard.vectors
    if (
        not isinstance(shard.fingerprint, str)
        or keys.dtype != np.uint8
        or keys.shape != (len(vectors), KEY_BYTES)
        or vectors.dtype.kind != "f"
        or vectors.ndim != 2
    ):
        raise DamagedShardError(
            f"{path}: expected a shard, a key of {KEY_BYTES} bytes and a vector for each text, got {keys.dtype} of "
            f"shape {keys.shape} and {vectors.dtype} of shape {vectors.shape}"
        )
    return shard


def holds_any(paths: Iterable[Path], keys: Iterable[bytes]) -> bool:
    """Whether a shard holds one of the keys; shards are not compared with their checksums."""
    wanted = set(keys)
    starts = _starts(key_table(wanted))
    for path in paths:
        try:
            held = map_shard(path).keys
        except DamagedShardError:
            continue
        # Eight bytes of sixteen first: numbers are compared faster than bytes.
        if any(key.tobytes() in wanted for key in held[np.isin(_starts(held), starts)]):
            return True
    return False


def _starts(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()


def check_same_encoder(path: Path, found: str, expected: str) -> None:
    """An EncoderMismatchError that names both, unless the encoder of a store's vectors is the expected one."""
    if found != expected:
        raise EncoderMismatchError(
            f"expected a store of the encoder {expected}, got {path}, which keeps vectors of {found}"
        )


def check_same_kind(path: Path, found: np.ndarray, width: int | None, dtype: np.dtype | None) -> None:
    """A ValueError unless vectors have the width and dtype of the others of a store."""
    if width is not None and found.shape[1] != width:
        raise ValueError(f"{path}: expected vectors of width {width}, as the store keeps, got width {found.shape[1]}")
    if dtype is not None and found.dtype != dtype:
        raise ValueError(f"{path}: expected vectors in {dtype}, as the store keeps, got {found.dtype}")
