"""A saved model as a folder: arrays in safetensors, a description in JSON, never pickle, with checksums over both.

The tensors' file is named after its checksum, and replacing the description, which names it, is the one step that makes
a new model the current one. So a reader needs no lock. Writers take one, since each removes the tensors of the model
that it replaces.

A checksum finds accidents, not forgeries: it is computed from the files alone. So a reader believes nothing: it opens
regular files of the folder only, of sizes that have a limit, and takes finite numbers of four types.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
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
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_FORMAT = "micropref"
_VERSION = 1
# How long a save waits for another one.
_PATIENCE_S = 60.0
# A reader is overtaken by a writer between two reads in about one of fifty.
_MAX_READS = 20
# Bytes of a file, asked before it is read. A million users whose ids are texts need 30 MB of a description.
_MOST_DESCRIPTION, _MOST_TENSORS = 1 << 28, 1 << 34
# What models are made of; they are written in no other type.
_DTYPES = ("float32", "float64", "int32", "int64")
# Squares of larger ones alone leave double precision; what a class makes of its tensors it checks itself.
_LARGEST_NUMBER = 1e250
# Elements that a tensor without any may claim in its other dimensions.
_MOST_LENGTH = 1 << 40


# ------------------------------------------------------------------------------------------------------------- writing


def write_folder(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write arrays and a description as a folder; a folder that exists changes as a whole or not at all.

    Raises
    ------
    ModelFileError
        If the path is a file, or the model is larger than what is read again, or has numbers that are not.
    TimeoutError
        If another process has been saving there for a minute.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ModelFileError(f"{folder}: expected a folder, as which a model is saved, got a file")
    for name, array in arrays.items():
        _check_numbers(f"{folder}: {name}", array)
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
    for what, size, most in (("tensors", len(tensors), _MOST_TENSORS), ("description", len(text), _MOST_DESCRIPTION)):
        if size > most:
            raise ModelFileError(f"{folder}: expected a model with {what} of at most {most} bytes, got {size}")
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
        name = json.loads(_read(description, _MOST_DESCRIPTION))["tensors"]["file"]
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
        If a file is missing, cut short or altered, of a later version, no regular file, or too large; if the tensors
        are not in the folder, or not of finite numbers.
    """
    folder = Path(path)
    description = folder / _DESCRIPTION
    for _ in range(_MAX_READS):
        if not os.path.lexists(description):
            raise FileNotFoundError(f"{folder}: expected a saved model, a folder with {_DESCRIPTION}, got none there")
        state = file_state(description)
        content = _checked_description(description)
        place = _checked_place(description, content)
        tensors = folder / place["file"]
        try:
            return _checked_tensors(tensors, place["sha256"]), content
        except FileNotFoundError:
            if file_state(description) == state:
                break
    raise ModelFileError(f"{tensors}: expected the tensors of a model, got no such file: it is missing")


def _read(path: Path, most: int) -> bytes:
    """A regular file of limited size; links are not followed, and neither devices nor pipes are opened."""
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(state.st_mode) else "another kind of file"
        raise ModelFileError(f"{path}: expected a regular file of a model, got {kind}")
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, os.O_RDONLY | flags), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):  # exchanged meanwhile
            raise ModelFileError(f"{path}: expected a regular file of a model, got another kind of file")
        if state.st_size > most:
            raise ModelFileError(f"{path}: expected a file of at most {most} bytes, got one of {state.st_size}")
        return file.read(most + 1)[:most]


def _checked_description(path: Path) -> dict[str, Any]:
    text = _read(path, _MOST_DESCRIPTION)
    try:
        content = json.loads(text)
        del content["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(f"{path}: expected the JSON that was written, got other content: it is damaged") from None
    if content.get("format") != _FORMAT:
        raise ModelFileError(
            f"{path}: expected the description of a model of micropref, got one of {_shown(content.get('format'))}"
        )
    if type(content.get("version")) is not int or content["version"] != _VERSION:
        raise ModelFileError(
            f"{path.parent}: expected a model in format {_VERSION}, which micropref {__version__} reads, "
            f"got format {str(content.get('version'))[:40]}, written by micropref {str(content.get('micropref'))[:40]}"
        )
    if not _is_as_written(content, text):
        raise ModelFileError(f"{path}: expected content that has its checksum, got other content: it was altered")
    return dict(content)


def _is_as_written(content: dict[str, Any], text: bytes) -> bool:
    """Whether these are the very bytes that are written of this content; duplicate keys and other spellings are not."""
    try:
        return _with_checksum(content) == text
    except (ValueError, RecursionError):  # half of a surrogate pair, which JSON can spell
        return False


def _checked_place(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """Name and checksum of the tensors' file, which lies in the folder itself."""
    place = content.get("tensors")
    if type(place) is not dict or place.keys() != {"file", "sha256"}:
        raise ModelFileError(f"{path}: expected the entry tensors, with file and sha256, got {_shown(place)}")
    for entry, pattern in (("file", _TENSORS), ("sha256", _CHECKSUM)):
        if type(place[entry]) is not str or not pattern.fullmatch(place[entry]):
            raise ModelFileError(f"{path}: expected tensors.{entry} like {pattern.pattern}, got {_shown(place[entry])}")
    return place


def _shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _checked_tensors(path: Path, checksum: str) -> Arrays:
    data = _read(path, _MOST_TENSORS)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelFileError(
            f"{path}: expected content that has its checksum, got other content: it was cut short or altered"
        )
    try:
        arrays: Arrays = load_tensors(data)
    # Types that NumPy has not are a KeyError or a TypeError, by version.
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"{path}: expected tensors, got content that cannot be read: {error}") from None
    for name, array in arrays.items():
        _check_numbers(f"{path}: {_shown(name)}", array)
    return arrays


def _check_numbers(where: str, array: np.ndarray) -> None:
    if array.dtype.name not in _DTYPES or array.ndim > 4:
        raise ModelFileError(f"{where}: expected an array of {', '.join(_DTYPES)}, got {array.dtype}, {array.ndim}-d")
    if math.prod(max(length, 1) for length in array.shape) > _MOST_LENGTH:
        raise ModelFileError(f"{where}: expected an array of usual shape, got {array.shape}")
    # Without a copy of the array: the sizes of models are those of memory.
    least, most = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not -_LARGEST_NUMBER <= least <= most <= _LARGEST_NUMBER:
        raise ModelFileError(
            f"{where}: expected finite numbers, of at most {_LARGEST_NUMBER:g}, got {least:g} … {most:g}"
        )
