"""Fitted interactions in the description of an encoder: numbers that JSON can hold, or arrays beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref._estimator.saveable import pack, unpack
from micropref._estimator.saved import checking
from micropref.features.interactions import ContextInteractions

_KEY = "interactions"


def describe_interactions(fitted: ContextInteractions) -> dict[str, Any]:
    """A description with the arrays as lists; float64 goes through JSON without loss."""
    arrays, description = pack(fitted)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    return {
        **description,
        "shapes": shapes,
        "arrays": {name: array.ravel().tolist() for name, array in arrays.items()},
    }


def restored_interactions(config: Mapping[str, Any] | None) -> ContextInteractions | None:
    """What `describe_interactions` described."""
    if config is None:
        return None
    with checking("interactions"):
        arrays = {
            name: np.array(values, dtype=np.float64).reshape(config["shapes"][name])
            for name, values in config["arrays"].items()
        }
        restored: ContextInteractions = unpack(arrays, dict(config), ("ContextInteractions",), np.float32)
    return restored


def take_arrays(config: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of an encoder's description, by name, and the description without them: for files that hold both."""
    described = config.get(_KEY)
    if described is None:
        return {}, config
    arrays = {f"{_KEY}.{name}": np.array(values) for name, values in described["arrays"].items()}
    return arrays, {**config, _KEY: {**described, "arrays": {}}}


def put_arrays(arrays: dict[str, np.ndarray], config: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The other arrays, and the description that `take_arrays` took them from."""
    described = config.get(_KEY)
    if described is None:
        return arrays, config
    prefix = f"{_KEY}."
    own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
    others = {name: array for name, array in arrays.items() if not name.startswith(prefix)}
    return others, {**config, _KEY: {**described, "arrays": own}}
