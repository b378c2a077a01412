"""One file for every data set, seed and method: written whole or not at all, with a hash of what it depends on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Cell:
    """The content of a file: arrays by name, and values of JSON."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def key_of(parts: Any) -> str:
    """Hash of everything that a result depends on."""
    text = json.dumps([_FORMAT, parts], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def write_cell(path: Path, key: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write a file and move it to its place, so that no reader ever sees a part of one."""
    content = json.dumps({**meta, "key": key, "checksum": _checksum(arrays)}, default=_plain)
    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array(content), **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(buffer.getvalue())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_cell(path: Path, key: str) -> Cell | None:
    """The cell of that key; None if there is no file, it has another key, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop("meta")))
        if meta["key"] == key and meta["checksum"] == _checksum(arrays):
            return Cell(arrays, meta)
    except Exception:
        # Whatever the damage is, the cell is computed again.
        return None
    return None


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return dict(value)
