"""A model of texts as a folder: the encoder's description, the estimators, and why they were chosen."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from micropref._estimator.errors import ModelFileError
from micropref._estimator.model_folder import read_folder, write_folder
from micropref._estimator.saveable import AROUND, pack, unpack
from micropref._estimator.saved import REAL, TEXT, Kind, check_entries, check_keys, checking, refused
from micropref._reward.users import UserChoice
from micropref.embed import EmbeddingStore, EncoderMismatchError, PairEncoder
from micropref.embed._config import put_arrays, take_arrays
from micropref.embed._learned import check_description
from micropref.embed.protocol import Encoder
from micropref.router import ContextRouter

__all__ = ["describe_model", "read_model", "write_model"]

_STAGES = ("MixtureBradleyTerry", "HierarchicalBradleyTerry", "ContextRouter")


def write_model(path: str | os.PathLike[str], encoder: PairEncoder, estimator: Any, choice: UserChoice | None) -> None:
    """Write an encoder and a router, or the first stage where there is no router."""
    arrays, stage = pack(estimator)
    acting, config = take_arrays(encoder.to_config())
    chosen = {} if choice is None else {"choice": choice.to_config()}
    write_folder(path, {**arrays, **acting}, {"encoder": config, "stage": stage, **chosen})


def read_model(
    path: str | os.PathLike[str],
    encoder: str | Encoder | None,
    store: EmbeddingStore | str | os.PathLike[str] | None,
) -> tuple[PairEncoder, Any, ContextRouter | None, UserChoice | None]:
    """What `write_model` wrote: encoder, first stage, router, choice."""
    arrays, description = read_folder(path)
    if "encoder" not in description:
        raise ModelFileError(
            f"{path}: expected a model of texts, got an estimator without encoder; load it with micropref.load"
        )
    check_keys(str(path), description, ("encoder", "stage"), (*AROUND, "choice"))
    with checking("encoder"):
        arrays, config = put_arrays(arrays, description["encoder"])
    pair_encoder = _restored_encoder(config, encoder, store)
    estimator = unpack(arrays, description["stage"], _STAGES, np.float32)  # as texts are encoded
    _check_widths(pair_encoder, estimator)
    choice = _restored_choice(description["choice"]) if "choice" in description else None
    if isinstance(estimator, ContextRouter):
        return pair_encoder, estimator.mixture_, estimator, choice
    return pair_encoder, estimator, None, choice


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a saved model is, in types of JSON, without its encoder being there.

    Parameters
    ----------
    path : path
        A folder that `write_model` or `micropref.persistence.save` wrote.

    Returns
    -------
    description : dict
        With ``estimator``, ``n_components``, ``weights``, ``alpha``, ``gate_alpha``, ``history_temperature``,
        ``n_features``, ``n_context_features``, ``converged``, ``n_users``, ``router``, ``encoder``, ``choice``,
        ``micropref`` (the version that wrote it), ``format``, ``n_bytes``, ``sha256`` (of ``model.json``). What the
        model does not have is None.

    Raises
    ------
    FileNotFoundError, ModelFileError
        As `micropref.persistence.load`.
    """
    arrays, description = read_folder(path)
    config: dict[str, Any] | None = None
    stage: dict[str, Any] = description
    dtype: Any = np.float64
    if "encoder" in description:
        with checking("encoder"):
            arrays, config = put_arrays(arrays, description["encoder"])
        check_description(config)
        stage, dtype = description["stage"], np.float32
    estimator = unpack(arrays, stage, dtype=dtype)
    router = estimator if isinstance(estimator, ContextRouter) else None
    mixture = estimator if router is None else router.mixture_
    coef, weights, scatter = (getattr(mixture, name, None) for name in ("coef_", "weights_", "scatter_"))
    files = [file for file in Path(path).iterdir() if file.suffix in (".json", ".safetensors")]
    return {
        "estimator": type(mixture).__name__,
        "n_components": None if coef is None or coef.ndim != 2 else len(coef),
        "weights": None if weights is None else np.asarray(weights, dtype=float).tolist(),
        "n_directions": None if scatter is None else scatter.n_directions,
        "n_features": mixture.n_features_in_,
        "n_context_features": getattr(mixture, "n_context_features_", None),
        **{name: getattr(mixture, f"{name}_", None) for name in ("alpha", "gate_alpha", "history_temperature")},
        "converged": getattr(mixture, "converged_", None),
        "n_users": _n_users(arrays, stage),
        "router": None if router is None else _described_router(router),
        "encoder": None if config is None else _described_encoder(config),
        "choice": description.get("choice"),
        "micropref": description["micropref"],
        "format": description["version"],
        "n_bytes": sum(file.stat().st_size for file in files),
        "sha256": hashlib.sha256((Path(path) / "model.json").read_bytes()).hexdigest(),
    }


def _n_users(arrays: dict[str, np.ndarray], stage: dict[str, Any]) -> int | None:
    """Users with a history of their own; None for an estimator that keeps none."""
    if stage.get("users") is not None:
        return len(stage["users"])
    return len(arrays["users"]) if "users" in arrays else None


def _described_router(router: ContextRouter) -> dict[str, Any]:
    names = ("alpha_", "history_temperature_", "n_context_features_")
    learned = {name.rstrip("_"): getattr(router, name, None) for name in names}
    return {"gate": router.gate, "temperature": router.temperature, "history_decay": router.history_decay, **learned}


def _described_encoder(config: dict[str, Any]) -> dict[str, Any]:
    names = ("template", "clauses", "length", "feature_width", "context_parts")
    described = {name: config[name] for name in names}
    fingerprint = config["encoder"]["fingerprint"]  # without the template
    return {"fingerprint": fingerprint, **described, "interactions": config["interactions"] is not None}


def _restored_encoder(
    config: dict[str, Any], encoder: str | Encoder | None, store: EmbeddingStore | str | os.PathLike[str] | None
) -> PairEncoder:
    """The encoder of a description; what is wrong with an encoder or a store that was given is no fault of the file."""
    check_description(config)
    if encoder is not None or store is not None:
        return PairEncoder.from_config(config, encoder, store=store)
    try:
        return PairEncoder.from_config(config)
    except EncoderMismatchError:
        if config["encoder"]["kind"] != "hashing":  # another encoder has the name by now
            raise
        raise refused("encoder.fingerprint", "that of the encoder described", config["fingerprint"]) from None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelFileError(f"encoder: {error}") from error


def _check_widths(encoder: PairEncoder, estimator: Any) -> None:
    """A ModelFileError unless the estimator takes the columns that the encoder makes."""
    width = estimator.n_features_in_ - estimator.n_context_features_
    if width != encoder.feature_width_:
        raise refused("encoder.feature_width", f"{width}, as the estimator takes them,", encoder.feature_width_)
    n_context = sum(encoder.context_parts_.values())
    if estimator.n_context_features_ > n_context:
        raise refused("encoder.context_parts", f"at least {estimator.n_context_features_} columns", n_context)


def _restored_choice(found: Any) -> UserChoice:
    kinds = {field.name: TEXT for field in fields(UserChoice)}
    numbers = Kind("an object of numbers", lambda value: type(value) is dict and all(map(REAL.accepts, value.values())))
    kinds.update(log_likelihood=numbers, gain=REAL)
    check_keys("choice", found, kinds)
    check_entries("choice", found, kinds)
    return UserChoice(**found)
