"""A saved model as a folder: arrays in safetensors, a description in JSON, never pickle, with checksums over both.

The tensors' file is named after its checksum, and replacing the description, which names it, is the one step that makes
a new model the current one. So a reader needs no lock. Writers take one, since each removes the tensors of the model
that it replaces.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from micropref import __version__
from micropref._estimator.errors import ModelFileError
from micropref._support.files import briefly_locked, file_state, replacing

Arrays = dict[str, np.ndarray]

_DESCRIPTION = "model.json"
_LOCK = "model.lock"
_TENSORS = re.compile(r"tensors-[0-9a-f]{16}\.safetensors")
_PART = re.compile(rf"\.({re.escape(_DESCRIPTION)}|{_TENSORS.pattern})\.\d+\.part")
_FORMAT = "micropref"
_VERSION = 1
# How long a save waits for another one.
_PATIENCE_S = 60.0
# A reader is overtaken by a writer between two reads in about one of fifty.
_MAX_READS = 20


# ------------------------------------------------------------------------------------------------------------- writing


def write_folder(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write arrays and a description as a folder; a folder that exists changes as a whole or not at all.

    Raises
    ------
    ModelFileError
        If the path is a file.
    TimeoutError
        If another process has been saving there for a minute.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ModelFileError(f"{folder}: expected a folder, as which a model is saved, got a file")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    checksum = hashlib.sha256(tensors).hexdigest()
    name = f"tensors-{checksum[:16]}.safetensors"
    text = _with_checksum(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "micropref": __version__,
            "tensors": {"file": name, "sha256": checksum},
            **description,
        }
    )
    with briefly_locked(folder / _LOCK, _PATIENCE_S) as lock:
        _remove_leftovers(folder, lock.read_text(errors="replace"))
        concerned = {name, _tensors_of(folder / _DESCRIPTION)} - {None}
        lock.write_text("\n".join(map(str, concerned)))  # the next save reads it if this one is killed
        try:
            with _replacing(folder / name) as file:
                file.write_bytes(tensors)
            with _replacing(folder / _DESCRIPTION) as file:
                file.write_bytes(text)
        finally:
            _remove_tensors(folder, concerned)


def _replacing(path: Path) -> AbstractContextManager[Path]:
    return replacing(path, path.with_name(f".{path.name}.{os.getpid()}.part"))


def _remove_leftovers(folder: Path, concerned: str) -> None:
    """Remove what a killed save left; only for the holder of the lock, beside whom no other process writes."""
    for file in folder.iterdir():
        if _PART.fullmatch(file.name):
            file.unlink(missing_ok=True)
    _remove_tensors(folder, {name for name in concerned.split() if _TENSORS.fullmatch(name)})


def _remove_tensors(folder: Path, names: Iterable[str | None]) -> None:
    """Remove files of tensors, but not that of the current model."""
    for name in {*names} - {_tensors_of(folder / _DESCRIPTION)}:
        (folder / str(name)).unlink(missing_ok=True)


def _tensors_of(description: Path) -> str | None:
    """The name of the tensors' file; None where there is no description, or a damaged one."""
    try:
        name = json.loads(description.read_bytes())["tensors"]["file"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) and _TENSORS.fullmatch(name) else None


def _with_checksum(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content, so that reading can compare every byte of it."""
    checksum = hashlib.sha256(json.dumps(content, default=_plain).encode()).hexdigest()
    return json.dumps({**content, "sha256": checksum}, default=_plain, indent=1).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected a model of values that JSON can hold, got a {type(value).__name__} ({value!r})")


# ------------------------------------------------------------------------------------------------------------- reading


def read_folder(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and description of a folder, after their checksums have been compared.

    Where another process saves a model between the reading of the description and that of the tensors, both are read
    again.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ModelFileError
        If a file is missing, cut short or altered, or of a later version.
    """
    folder = Path(path)
    description = folder / _DESCRIPTION
    for _ in range(_MAX_READS):
        if not description.exists():
            raise FileNotFoundError(f"{folder}: expected a saved model, a folder with {_DESCRIPTION}, got none there")
        state = file_state(description)
        content = _checked_description(description)
        tensors = folder / content["tensors"]["file"]
        try:
            return _checked_tensors(tensors, content["tensors"]["sha256"]), content
        except FileNotFoundError:
            if file_state(description) == state:
                break
    raise ModelFileError(f"{tensors}: expected the tensors of a model, got no such file: it is missing")


def _checked_description(path: Path) -> dict[str, Any]:
    text = path.read_bytes()
    try:
        content = json.loads(text)
        del content["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(f"{path}: expected the JSON that was written, got other content: it is damaged") from None
    if content.get("format") != _FORMAT:
        raise ModelFileError(
            f"{path}: expected the description of a model of micropref, got one of {content.get('format')!r}"
        )
    if content.get("version") != _VERSION:
        raise ModelFileError(
            f"{path.parent}: expected a model in format {_VERSION}, which micropref {__version__} reads, "
            f"got format {content.get('version')}, written by micropref {content.get('micropref')}"
        )
    if _with_checksum(content) != text:
        raise ModelFileError(f"{path}: expected content that has its checksum, got other content: it was altered")
    return dict(content)


def _checked_tensors(path: Path, checksum: str) -> Arrays:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelFileError(
            f"{path}: expected content that has its checksum, got other content: it was cut short or altered"
        )
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise ModelFileError(f"{path}: expected tensors, got content that cannot be read: {error}") from None
