"""Fitted models on disk: safetensors and JSON, never pickle, with checksums over both."""

from __future__ import annotations

import os
from typing import Any

from micropref._estimator.errors import ModelFileError
from micropref._estimator.model_folder import read_folder, write_folder
from micropref._estimator.saveable import pack, unpack
from micropref._support.renamed import moved

__all__ = ["ModelFileError", "load", "save"]

__getattr__ = moved(__name__)


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Save a fitted estimator as a folder of safetensors and JSON.

    A router carries its mixture and the histories of its users, a rival method the votes of its users. What a stream
    remembers besides (the state of the stochastic steps, the evidence of annotators) is not saved: `partial_fit` starts
    anew from the saved parameters.

    Several processes may save into one folder: they take turns, and the last one counts. Any number may load from it
    meanwhile, and each gets one of the models as a whole.

    Parameters
    ----------
    estimator : MixtureBradleyTerry, ContextRouter or an estimator of `micropref.baselines`
        Fitted. One in a `sklearn.frozen.FrozenEstimator` is saved without it.
    path : path
        Folder to write; an older model there is replaced as a whole.

    Raises
    ------
    TypeError
        If it is another estimator, or if a user's id is none of an integer, a string and a tuple of these.
    NotFittedError
        If it is not fitted.
    ModelFileError
        If the path is a file, or the model has more than 16 GiB of tensors.
    TimeoutError
        If another process has been saving there for a minute; the lock file is named.

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


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save` wrote.

    Checksums show accidents, not intent: a person who alters a model can compute them anew. A
    folder from a stranger runs no code, and is refused unless it holds what an estimator of its class is made of: the
    attributes that the class lists, of their types, and finite tensors of fitting shapes. But what such a model answers
    is its maker's affair. Load models from sources that you trust, or compare the SHA-256 of ``model.json`` with one
    that you got another way.

    Parameters
    ----------
    path : path
        A folder of regular files, of at most 16 GiB of tensors; symbolic links in it are not followed.

    Returns
    -------
    estimator : MixtureBradleyTerry, ContextRouter or an estimator of `micropref.baselines`

    Raises
    ------
    FileNotFoundError, ModelFileError
        If the model is missing, incomplete, altered, of a later version, or holds what no model of its class has; the
        entry or tensor is named.

    Warns
    -----
    UserWarning
        If users that micropref 0.1 told apart, such as 12 and "12", are one by now; their votes are added up.
    """
    arrays, description = read_folder(path)
    if "estimator" not in description:
        raise ModelFileError(f"{path}: expected an estimator, got a model of texts; load it with PreferenceModel.load")
    return unpack(arrays, description)
