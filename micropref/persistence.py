"""Fitted models on disk: safetensors and JSON, never pickle, with checksums over both."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._model_folder import Arrays, ModelFileError, read_folder, write_folder
from micropref._users.neighbors import NeighborGate
from micropref.mixture import MixtureBradleyTerry
from micropref.router import ContextRouter

_LARGEST_ID = 2**63

__all__ = ["ModelFileError", "load", "save"]


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
    if isinstance(estimator, MixtureBradleyTerry):
        return _pack_mixture(estimator)
    if isinstance(estimator, ContextRouter):
        return _pack_router(estimator)
    raise TypeError(f"expected a MixtureBradleyTerry or a ContextRouter; got a {type(estimator).__name__}")


def unpack(arrays: Arrays, description: dict[str, Any]) -> Any:
    """The estimator that `pack` described."""
    return {"MixtureBradleyTerry": _unpack_mixture, "ContextRouter": _unpack_router}[description["estimator"]](
        arrays, description
    )


def _pack_mixture(mixture: MixtureBradleyTerry) -> tuple[Arrays, dict[str, Any]]:
    arrays = {"coef": mixture.coef_, "weights": mixture.weights_, **_numbered("gate", mixture.gate_parameters_)}
    state = {name: getattr(mixture, name) for name in ("objective_", "n_iter_", "converged_", "n_features_in_")}
    return arrays, {
        "estimator": "MixtureBradleyTerry",
        "parameters": _parameters(mixture),
        "classes": _pack_classes(mixture.classes_),
        "feature_names": _feature_names(mixture),
        "state": state,
    }


def _unpack_mixture(arrays: Arrays, description: dict[str, Any]) -> MixtureBradleyTerry:
    mixture = MixtureBradleyTerry(**description["parameters"])
    mixture.coef_, mixture.weights_ = arrays["coef"], arrays["weights"]
    mixture.gate_parameters_ = _gathered("gate", arrays)
    mixture._stream = None
    _restore(mixture, description)
    return mixture


def _pack_router(router: ContextRouter) -> tuple[Arrays, dict[str, Any]]:
    mixture_arrays, mixture = pack(router.mixture_)
    users, evidence = router.history_.export()
    arrays = {
        **{f"mixture.{name}": array for name, array in mixture_arrays.items()},
        **_numbered("gate", router.gate_parameters_),
        "history": evidence,
    }
    if router._neighbors is not None:
        arrays.update({f"neighbors.{name}": array for name, array in router._neighbors.export().items()})
    users = [_user_id(user) for user in users]
    # A million integer ids are an array; other ids are JSON.
    whole = all(isinstance(user, int) and -_LARGEST_ID <= user < _LARGEST_ID for user in users)
    if whole:
        arrays["users"] = np.array(users, dtype=np.int64)
    state = {name: getattr(router, name, None) for name in ("objective_", "n_iter_", "converged_", "n_features_in_")}
    return arrays, {
        "estimator": "ContextRouter",
        "parameters": {**_parameters(router), "mixture": None},
        "mixture": mixture,
        "classes": _pack_classes(router.classes_),
        "feature_names": _feature_names(router),
        "users": None if whole else users,
        "state": {**state, "n_context_features_": router.n_context_features_, "loss_curve_": router.loss_curve_},
    }


def _unpack_router(arrays: Arrays, description: dict[str, Any]) -> ContextRouter:
    part = {name.removeprefix("mixture."): array for name, array in arrays.items() if name.startswith("mixture.")}
    mixture = unpack(part, description["mixture"])
    # The first stage comes fitted, also where the router had fitted it by itself.
    router = ContextRouter(**{**description["parameters"], "mixture": mixture, "prefit": True})
    router.mixture_ = mixture
    width = description["state"]["n_context_features_"]
    router._start(width, _unpack_classes(description["classes"]))
    _restore(router, description)
    router.gate_parameters_ = _gathered("gate", arrays)
    users = arrays["users"].tolist() if description["users"] is None else description["users"]
    router.history_.restore(users, arrays["history"])
    if router._neighbors is not None:
        router._neighbors.restore({name: arrays[f"neighbors.{name}"] for name in NeighborGate.ARRAYS})
    return router


def _user_id(user: Any) -> str | int:
    if isinstance(user, str):
        return str(user)
    if isinstance(user, Integral):
        return int(user)
    raise TypeError(f"only users with integer or string ids can be saved; found {user!r}")


def _parameters(estimator: Any) -> dict[str, Any]:
    """Constructor arguments that JSON can hold; a generator or a device object becomes None or its name."""
    parameters = estimator.get_params(deep=False)
    if not isinstance(parameters["random_state"], Integral):
        parameters["random_state"] = None
    if parameters["device"] is not None:
        parameters["device"] = str(parameters["device"])
    return parameters


def _pack_classes(classes: np.ndarray) -> dict[str, Any]:
    return {"dtype": classes.dtype.str, "values": classes.tolist()}


def _unpack_classes(classes: dict[str, Any]) -> np.ndarray:
    return np.array(classes["values"], dtype=classes["dtype"])


def _feature_names(estimator: Any) -> list[str] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else list(names)


def _restore(estimator: Any, description: dict[str, Any]) -> None:
    estimator.classes_ = _unpack_classes(description["classes"])
    if description["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(description["feature_names"], dtype=object)
    for name, value in description["state"].items():
        if value is not None:
            setattr(estimator, name, value)


def _numbered(prefix: str, arrays: list[np.ndarray]) -> Arrays:
    return {f"{prefix}.{i}": array for i, array in enumerate(arrays)}


def _gathered(prefix: str, arrays: Arrays) -> list[np.ndarray]:
    count = sum(name.startswith(f"{prefix}.") for name in arrays)
    return [arrays[f"{prefix}.{i}"] for i in range(count)]
