"""Pack estimators into arrays and a description, and unpack them, by the names of classes that can be saved."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import fitted, lock_of, twin
from micropref._estimator.saved import check_keys, check_parameters, checking
from micropref._estimator.state import Arrays, describe
from micropref._rows.ids import restored_id

__all__ = ["AROUND", "arrays_with_prefix", "pack", "unpack"]

# Imported when asked for: they import this module, for estimators that hold others.
_HOME = {
    "MixtureBradleyTerry": "micropref.mixture",
    "ContextRouter": "micropref.router",
    "HierarchicalBradleyTerry": "micropref.hierarchical",
    "ContextInteractions": "micropref.features.interactions",
    "CategoricalRewards": "micropref.baselines.categorical",
    "ContextNeighbors": "micropref.baselines.neighbors",
    "DecomposedRewards": "micropref.baselines.decomposed",
    "GroupRewards": "micropref.baselines.group_rewards",
    "HardMixture": "micropref.baselines.hard_mixture",
    "HypothesisReweighting": "micropref.baselines.hyre",
    "LowRankRewards": "micropref.baselines.low_rank",
    "MeanVarianceRewards": "micropref.baselines.mean_variance",
    "MultiObjectiveRewards": "micropref.baselines.multi_objective",
    "RewardFactorization": "micropref.baselines.reward_factorization",
    "SharedBaseEnsemble": "micropref.baselines.shared_base",
    "UserRewards": "micropref.baselines.user_rewards",
}
# Entries of every description; a class lists its own, those that version 0.1 wrote and those that came since, and the
# names of its tensors.
_ENTRIES = ("estimator", "parameters", "classes", "feature_names", "state")
#: Entries of a folder's description that are not its model's.
AROUND = ("format", "version", "micropref", "tensors", "parameters_since")
_ASKED_ROWS, _ASKED_USERS, _MOST_COLUMNS = 4, 4, 1 << 20


def pack(estimator: Any) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and a description for JSON of a fitted estimator, which is taken out of a FrozenEstimator.

    Raises
    ------
    TypeError
        If it is none of the estimators that can be saved.
    NotFittedError
    """
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    kind = type(estimator)
    if _HOME.get(kind.__name__) != kind.__module__:
        raise TypeError(f"expected one of {', '.join(_HOME)} to save, got a {kind.__name__}")
    check_is_fitted(estimator)
    with lock_of(estimator):
        learned = fitted(estimator)
        arrays, description = learned._export()
        changed = _changed(describe(estimator, ())["parameters"], describe(learned, ())["parameters"])
    # Prediction does not read them before the next call that learns, neither here nor in what is loaded.
    return arrays, {**description, **({"parameters_since": changed} if changed else {})}


def unpack(
    arrays: Arrays, description: Mapping[str, Any], of: Iterable[str] = tuple(_HOME), dtype: Any = np.float64
) -> Any:
    """The estimator that `pack` described, one of the classes that may be there, for rows of this precision.

    Raises
    ------
    ModelFileError
        If the description names none of these classes, lacks an entry, has another one, or one that is not of its kind;
        if tensors are not those of the class, or the estimator's answers are not finite.
    """
    if type(description) is not dict or description.get("estimator") not in tuple(of):
        found = description.get("estimator") if isinstance(description, dict) else description
        raise ModelFileError(f"expected one of {', '.join(of)} in a saved model, got {str(found)[:60]!r}")
    name = description["estimator"]
    kind = getattr(import_module(_HOME[name]), name)
    check_keys(name, description, (*_ENTRIES, *kind._SAVED_ENTRIES), (*AROUND, *kind._SAVED_SINCE))
    check_parameters("parameters", description["parameters"], kind)
    check_parameters("parameters_since", description.get("parameters_since", {}), kind)
    for tensor in arrays:
        if not re.fullmatch(kind._SAVED_TENSORS, tensor):
            raise ModelFileError(f"{name}: expected no tensor besides {kind._SAVED_TENSORS}, got {tensor[:60]!r}")
    with checking(name):
        estimator = kind._restore(arrays, description)
        _check_answers(estimator, description, arrays, dtype)
        return estimator.set_params(**description.get("parameters_since", {}))


def _check_answers(estimator: Any, description: Mapping[str, Any], arrays: Arrays, dtype: Any) -> None:
    """A ModelFileError unless the estimator answers a few rows, of a few users too, by finite numbers."""
    if estimator.n_features_in_ > _MOST_COLUMNS:
        return
    # On no device: that of the model may not be here.
    state = dict(vars(estimator))
    state["_fitted_parameters"] = {**state["_fitted_parameters"], **({"device": None} if "device" in state else {})}
    asked = twin(estimator, state)
    waves = np.cos(np.arange(_ASKED_ROWS * estimator.n_features_in_)).reshape(_ASKED_ROWS, -1)
    waves[0] = 0.0
    waves = waves.astype(dtype)
    if hasattr(estimator, "feature_names_in_"):
        asked.__dict__.pop("feature_names_in_")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(asked, "transform"):
            found = [asked.transform(waves)]
        else:
            found = [asked.decision_function(waves)]
            users = arrays.get("users", np.empty(0)) if description.get("users") is None else description["users"]
            for user in list(users)[:_ASKED_USERS]:
                column = np.empty(_ASKED_ROWS, dtype=object)
                column[:] = [restored_id(user if isinstance(user, str | list) else int(user))] * _ASKED_ROWS
                found.append(asked.decision_function(waves, groups=column))
    if not all(np.isfinite(each).all() for each in found):
        raise ModelFileError(f"{description['estimator']}: expected tensors that give finite answers, got others")


def _changed(now: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Parameters that were set after the estimator had learned; not estimators, which are saved as they were fitted."""
    return {
        name: value
        for name, value in now.items()
        if not hasattr(value, "fit") and (type(value) is not type(then[name]) or value != then[name])
    }


def arrays_with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays of an estimator within another, whose names begin with the prefix and a point."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
