"""Fitted models on disk: safetensors and JSON, never pickle, with checksums over both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

import micropref
from micropref.mixture import MixtureBradleyTerry
from micropref.router import ContextRouter

_DESCRIPTION = "model.json"
_FORMAT = "micropref"
_VERSION = 1

Arrays = dict[str, np.ndarray]


class ModelFileError(ValueError):
    """A saved model that is incomplete, altered, or not one of ours."""


# ------------------------------------------------------------------------------------------------------------- folders


def write_folder(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], description: dict[str, Any]) -> None:
    """Write arrays and a description as a folder; a folder that exists changes as a whole or not at all.

    The tensors' file is named after its checksum and written first. Replacing the description, which names it, is the
    one step that makes the new model the current one.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ModelFileError(f"{folder} is a file; a model is saved as a folder")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    checksum = hashlib.sha256(tensors).hexdigest()
    name = f"tensors-{checksum[:16]}.safetensors"
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "micropref": micropref.__version__,
        "tensors": {"file": name, "sha256": checksum},
        **description,
    }
    text = _with_checksum(content)
    _replace(folder / name, tensors)
    _replace(folder / _DESCRIPTION, text)
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink()


def read_folder(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and description of a folder, after their checksums have been compared.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ModelFileError
        If a file is missing, cut short or altered, or of a later version.
    """
    folder = Path(path)
    description = folder / _DESCRIPTION
    if not description.exists():
        raise FileNotFoundError(f"{folder}: no saved model there (a folder with {_DESCRIPTION} was expected)")
    text = description.read_bytes()
    try:
        content = json.loads(text)
        del content["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(f"{description} is damaged: it is not the JSON that was written") from None
    if content.get("format") != _FORMAT:
        raise ModelFileError(f"{description} describes no model of micropref")
    if content.get("version") != _VERSION:
        raise ModelFileError(
            f"{folder} was written by micropref {content.get('micropref')} in its format {content.get('version')}, "
            f"but micropref {micropref.__version__} reads format {_VERSION}"
        )
    if _with_checksum(content) != text:
        raise ModelFileError(f"{description} was altered: its checksum does not match its content")
    tensors = folder / content["tensors"]["file"]
    if not tensors.exists():
        raise ModelFileError(f"{tensors} is missing")
    data = tensors.read_bytes()
    if hashlib.sha256(data).hexdigest() != content["tensors"]["sha256"]:
        raise ModelFileError(f"{tensors} was cut short or altered: its checksum does not match")
    try:
        return load_tensors(data), content
    except SafetensorError as error:
        raise ModelFileError(f"{tensors} cannot be read: {error}") from None


def _with_checksum(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content, so that reading can compare every byte of it."""
    checksum = hashlib.sha256(json.dumps(content, default=_plain).encode()).hexdigest()
    return json.dumps({**content, "sha256": checksum}, default=_plain, indent=1).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"found a {type(value).__name__} ({value!r}) in a model, wanted something that JSON can hold")


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old or the whole new one, whenever the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------- estimators


def save(estimator: MixtureBradleyTerry | ContextRouter, path: str | os.PathLike[str]) -> None:
    """Save a fitted estimator as a folder of safetensors and JSON.

    A router carries its mixture and the histories of its users. What a stream remembers besides (the state of the
    stochastic steps, the evidence of annotators) is not saved: `partial_fit` starts anew from the saved parameters.

    Parameters
    ----------
    estimator : MixtureBradleyTerry or ContextRouter
    path : path
        Folder to write; an older model there is replaced as a whole.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from micropref import MixtureBradleyTerry
    >>> from micropref.persistence import load, save
    >>> heads = MixtureBradleyTerry(n_components=1).fit([[1.0, 0.5], [-0.5, 2.0]])
    >>> with TemporaryDirectory() as folder:
    ...     save(heads, folder)
    ...     bool((load(folder).coef_ == heads.coef_).all())
    True
    """
    arrays, description = pack(estimator)
    write_folder(path, arrays, description)


def load(path: str | os.PathLike[str]) -> MixtureBradleyTerry | ContextRouter:
    """Load what `save` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    estimator : MixtureBradleyTerry or ContextRouter

    Raises
    ------
    FileNotFoundError, ModelFileError
        If the model is missing, incomplete, altered, or of a later version.
    """
    arrays, description = read_folder(path)
    if "estimator" not in description:
        raise ModelFileError(f"{path} is a model of texts; load it with PreferenceModel.load")
    return unpack(arrays, description)


def pack(estimator: Any) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and a JSON-able description of a fitted estimator."""
    if isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    check_is_fitted(estimator)
    if not isinstance(estimator, MixtureBradleyTerry | ContextRouter):
        raise TypeError(f"expected a MixtureBradleyTerry or a ContextRouter; got a {type(estimator).__name__}")
    return estimator._export()


def unpack(arrays: Arrays, description: dict[str, Any]) -> Any:
    """The estimator that `pack` described."""
    kinds: dict[str, Any] = {"MixtureBradleyTerry": MixtureBradleyTerry, "ContextRouter": ContextRouter}
    return kinds[description["estimator"]]._restore(arrays, description)
