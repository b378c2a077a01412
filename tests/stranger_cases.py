"""Saved models, small ones of every kind, and ways to alter them whose checksums are right."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from baseline_cases import RIVALS, C, rows
from sklearn.base import clone

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, PreferenceModel, load_demo, save
from micropref._estimator.model_folder import _with_checksum
from micropref.embed import HashingEncoder
from micropref.features import ContextInteractions

USERS = ["ann", ("ann", 1), 12, None]


def _column(users: list[Any], n: int) -> np.ndarray:
    column = np.empty(n, dtype=object)
    column[:] = [users[i % len(users)] for i in range(n)]
    return column


def _rival(name: str) -> Any:
    X, y, annotator = rows()
    model = clone(RIVALS[name]).fit(X, y, groups=annotator)
    model.partial_fit(X[:12], y[:12], groups=_column(USERS, 12))
    model.decision_function(X[:4], groups=_column(USERS, 4))
    return model


def _mixture(k: int = 2, gate: str = "linear", context: int = C) -> MixtureBradleyTerry:
    X, y, annotator = rows()
    model = MixtureBradleyTerry(k, n_context_features=context, gate=gate, hidden_units=3, n_init=1, random_state=0)
    return model.fit(X[:, C - context :], y, groups=annotator)


def _hierarchical() -> HierarchicalBradleyTerry:
    X, y, annotator = rows()
    model = HierarchicalBradleyTerry(2, rank=1, tau=0.5, n_directions=2, n_init=1, random_state=0)
    return model.fit(X[:, C:], y, groups=annotator)


def _router(first: Any, **parameters: Any) -> ContextRouter:
    X, y, _ = rows()
    router = ContextRouter(first, **parameters).fit(X[:30], y[:30])
    return router.partial_fit(X[:12], y[:12], groups=_column(USERS, 12))


def _uncertain() -> MixtureBradleyTerry:
    X, y, annotator = rows()
    return _mixture(1, context=0).estimate_uncertainty(X[:, C:], y, groups=annotator, kind="sandwich")


@cache
def comparisons():
    return load_demo(n_annotators=60)


def _of_texts(*, routed: bool = False, **parameters: Any) -> PreferenceModel:
    world = comparisons()
    data = world.labelled if "interactions" in parameters else world.train
    model = PreferenceModel.fit(
        data[:80], encoder=HashingEncoder(8, n_hashes=64), n_components=2, n_init=1, random_state=0, **parameters
    )
    return model.route(world.labelled[:40]).route(world.history[:40]) if routed else model


MAKE: dict[str, Callable[[], Any]] = {
    "mixture": _mixture,
    "mixture, hidden layer": lambda: _mixture(3, "mlp"),
    "mixture, standard errors": _uncertain,
    "hierarchical": _hierarchical,
    "router": lambda: _router(_mixture(context=0)),
    "router, hidden layer": lambda: _router(_mixture(context=0), gate="mlp", hidden_units=3, random_state=0),
    "router, neighbours": lambda: _router(_mixture(context=0), gate="knn"),
    "router, clusters": lambda: _router(_mixture(context=0), gate="cluster"),
    "router, scatter": lambda: _router(_hierarchical()),
    "interactions": lambda: ContextInteractions(C, width=1, n_axes=(1, 1)).fit(rows()[0]),
    "texts": _of_texts,
    "texts, interactions": lambda: _of_texts(interactions=True),
    "texts, routed": lambda: _of_texts(routed=True),
    **{name: (lambda name=name: _rival(name)) for name in RIVALS},
}


def written(name: str, folder: Path) -> Path:
    """A saved model of this kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MAKE[name]()
        model.save(folder) if isinstance(model, PreferenceModel) else save(model, folder)
    return folder


class Altered:
    """The description and the tensors of a saved model, to be altered and written with checksums that are right."""

    def __init__(self, folder: Path):
        self.description = json.loads((folder / "model.json").read_bytes())
        self.arrays = safetensors.numpy.load((folder / self.description["tensors"]["file"]).read_bytes())

    def copy(self) -> Altered:
        other = object.__new__(Altered)
        other.description, other.arrays = copy.deepcopy(self.description), dict(self.arrays)
        return other

    def write(self, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        data = safetensors.numpy.save(arrays)
        checksum = hashlib.sha256(data).hexdigest()
        content = {key: value for key, value in self.description.items() if key != "sha256"}
        original = content.get("tensors")
        if isinstance(original, dict) and str(original.get("file")).startswith("tensors-"):
            content["tensors"] = {"file": f"tensors-{checksum[:16]}.safetensors", "sha256": checksum}
        (folder / f"tensors-{checksum[:16]}.safetensors").write_bytes(data)
        (folder / "model.json").write_bytes(_with_checksum(content))
        return folder


ODD = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 2**31, 2**63, 10**30, 0.5, 1e-320, 1e9, 1e300, -1e300),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "x" * 100_000, "../../etc/passwd", "/etc/passwd", "\0"),
    *("{response:>1000000000}", "{response.__class__}", "<U2000000000", "|S2000000000", "|O", "auto", "mlp", "cuda"),
    *([], [[]], [0, 1], [0, 0], ["a", "b"], [float("nan")] * 2, {}, {"predict": 1}, [[[[[[[[]]]]]]]], [2**70, "a"]),
]
NAMES = ["predict", "__class__", "_restore", "coef_", "decision_function", "", "x", "users", "given", "n_features_in_"]
NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e200, 1e30, -1e30, 1e-320, 0.0, -1.0, 2.0, 7.0]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += _places(inner, (*path, key))
    return found


def _holder(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def alter(model: Altered, random: np.random.Generator) -> str:
    """Alter one place of the description or one tensor, and say what was done."""
    return _alter_entry(model, random) if random.random() < 0.6 else _alter_tensor(model, random)


def _alter_entry(model: Altered, random: np.random.Generator) -> str:
    places = [each for each in _places(model.description) if each[0] != "sha256"]
    path = places[random.integers(len(places))]
    holder, key = _holder(model.description, path), path[-1]
    kind = random.choice(["odd", "odd", "odd", "gone", "more", "other", "near"])
    if kind == "odd":
        holder[key] = copy.deepcopy(ODD[random.integers(len(ODD))])
    elif kind == "gone":
        del holder[key]
    elif kind == "more" and isinstance(holder, dict):
        holder[NAMES[random.integers(len(NAMES))]] = copy.deepcopy(ODD[random.integers(len(ODD))])
    elif kind == "more":
        holder.append(copy.deepcopy(holder[key]))
    elif kind == "other":
        from_path = places[random.integers(len(places))]
        holder[key] = copy.deepcopy(_holder(model.description, from_path)[from_path[-1]])
    elif isinstance(holder[key], int | float):
        holder[key] = holder[key] * 2 + 1
    return f"{kind} {path}: {str(holder)[:80]}"


def _alter_tensor(model: Altered, random: np.random.Generator) -> str:
    names = sorted(model.arrays)
    name = names[random.integers(len(names))]
    array = model.arrays[name].copy()
    kind = random.choice(
        ["one", "one", "one", "all", "turned", "flat", "short", "long", "type", "gone", "named", "other"]
    )
    if kind in ("one", "all") and array.size:
        value = NUMBERS[random.integers(len(NUMBERS))]
        with np.errstate(all="ignore"):
            where = slice(None) if kind == "all" else random.integers(array.size)
            array.reshape(-1)[where] = np.array(value).astype(array.dtype)
    elif kind == "turned":
        array = array.T
    elif kind == "flat":
        array = array.reshape(-1) if array.ndim != 1 else array[:, None]
    elif kind in ("short", "long"):
        array = array[:-1] if kind == "short" else np.concatenate([array, array])
    elif kind == "type":
        types = ["float16", "float32", "float64", "int64", "int8", "bool", "uint8"]
        with np.errstate(all="ignore"):
            array = array.astype(types[random.integers(len(types))])
    elif kind == "gone":
        del model.arrays[name]
        return f"gone {name}"
    elif kind == "named":
        model.arrays[f"{name}.{NAMES[random.integers(len(NAMES))]}"] = array
    elif kind == "other":
        array = model.arrays[names[random.integers(len(names))]]
    model.arrays[name] = array
    return f"{kind} {name}: {str(array)[:80]}"
