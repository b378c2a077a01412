"""Pack estimators into arrays and a description, and unpack them, by the names of classes that can be saved."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import fitted, lock_of
from micropref._estimator.state import Arrays, describe

__all__ = ["arrays_with_prefix", "pack", "unpack"]

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
    "RewardFactorization": "micropref.baselines.reward_factorization",
    "SharedBaseEnsemble": "micropref.baselines.shared_base",
    "UserRewards": "micropref.baselines.user_rewards",
}


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


def unpack(arrays: Arrays, description: dict[str, Any]) -> Any:
    """The estimator that `pack` described.

    Raises
    ------
    ModelFileError
        If the description names none of the estimators that can be saved.
    """
    name = description["estimator"]
    if name not in _HOME:
        raise ModelFileError(f"expected one of {', '.join(_HOME)} in a saved model, got {name!r}")
    estimator = getattr(import_module(_HOME[name]), name)._restore(arrays, description)
    return estimator.set_params(**description.get("parameters_since", {}))


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
