"""A model of texts as a folder: the encoder's description, the estimators, and why they were chosen."""

from __future__ import annotations

import os
from typing import Any

from micropref._estimator.errors import ModelFileError
from micropref._estimator.model_folder import read_folder, write_folder
from micropref._estimator.saveable import pack, unpack
from micropref._reward.users import UserChoice
from micropref.embed import EmbeddingStore, PairEncoder
from micropref.embed._config import put_arrays, take_arrays
from micropref.embed.protocol import Encoder
from micropref.router import ContextRouter

__all__ = ["read_model", "write_model"]


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
    arrays, config = put_arrays(arrays, description["encoder"])
    pair_encoder = PairEncoder.from_config(config, encoder, store=store)
    estimator = unpack(arrays, description["stage"])
    choice = UserChoice(**description["choice"]) if "choice" in description else None
    if isinstance(estimator, ContextRouter):
        return pair_encoder, estimator.mixture_, estimator, choice
    return pair_encoder, estimator, None, choice
