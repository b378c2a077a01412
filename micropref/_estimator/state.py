"""A fitted estimator as arrays and JSON, and back: what `_export` and `_restore` of the estimators are made of."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin

from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import keep_parameters
from micropref._estimator.saved import (
    COUNT,
    Kind,
    check_entries,
    check_tensors,
    checking,
    refused,
    restored_classes,
    restored_names,
)
from micropref._rows.ids import restored_id, storable_id
from micropref._rows.vocabulary import meaning_of
from micropref._support.warnings import level_of_caller

__all__ = ["Arrays", "describe", "gathered", "numbered", "recover", "restore_ids", "store_ids"]

_LARGEST_ID = 2**63

Arrays = dict[str, NDArray[Any]]


def describe(estimator: Any, attributes: Iterable[str]) -> dict[str, Any]:
    """What JSON can say of a fitted estimator: class, parameters, classes, names of features, and some attributes."""
    names = getattr(estimator, "feature_names_in_", None)
    classes = getattr(estimator, "classes_", None)  # a transformer has none
    return {
        "estimator": type(estimator).__name__,
        "parameters": _parameters(estimator),
        "classes": None if classes is None else {"dtype": classes.dtype.str, "values": classes.tolist()},
        "feature_names": None if names is None else list(names),
        "state": {name: getattr(estimator, name, None) for name in ("n_features_in_", *attributes)},
    }


def recover(estimator: Any, description: Mapping[str, Any], attributes: Mapping[str, Kind]) -> None:
    """Give an estimator back what `describe` took; a ModelFileError for what is not of these attributes and kinds."""
    check_entries("state", description["state"], {"n_features_in_": COUNT, **attributes})
    if not description["state"].get("n_features_in_"):
        raise ModelFileError("state.n_features_in_: expected the number of columns of X in a saved model, got none")
    if description["classes"] is not None or isinstance(estimator, ClassifierMixin):
        estimator.classes_ = restored_classes(description["classes"])
        _warn_of_sorted_labels(estimator.classes_.tolist())
    for name in ("n_features_in_", *attributes):
        value = description["state"].get(name)
        if value is not None:
            setattr(estimator, name, value)
    if description["feature_names"] is not None:
        estimator.feature_names_in_ = restored_names(description["feature_names"], estimator.n_features_in_)
    keep_parameters(estimator)


def _warn_of_sorted_labels(classes: list[Any]) -> None:
    if meaning_of(classes[0]) == "first":
        warnings.warn(
            f"expected a model whose second label means 'first preferred', got one that was fitted on "
            f"{classes} in sorted order, as version 0.1 did: its heads and rewards rank the worst first. "
            f"Fit it again on y == {classes[0]!r}",
            UserWarning,
            stacklevel=level_of_caller(),
        )


def store_ids(users: list[Any], arrays: Arrays) -> list[Any] | None:
    """Ids of users as JSON can hold them; where all are integers of 64 bits, an array and None."""
    if all(type(user) is int and -_LARGEST_ID <= user < _LARGEST_ID for user in users):
        arrays["users"] = np.array(users, dtype=np.int64)
        return None
    return [storable_id(user) for user in users]


def restore_ids(users: list[Any] | None, arrays: Arrays) -> list[Any]:
    """The ids that `store_ids` took; a ModelFileError for what is no list of distinct ids."""
    if users is None:
        check_tensors(arrays, {"users": (None,)})
        if arrays["users"].dtype != np.int64:
            raise ModelFileError(f"users: expected a tensor of int64 in a saved model, got {arrays['users'].dtype}")
        found: list[Any] = arrays["users"].tolist()
    elif type(users) is list:
        with checking("users"):
            found = [restored_id(user) for user in users]
    else:
        raise refused("users", "a list of ids", users)
    if len(set(found)) < len(found):
        raise ModelFileError(f"users: expected distinct ids in a saved model, got {len(found) - len(set(found))} twice")
    return found


def numbered(prefix: str, arrays: list[NDArray[Any]]) -> Arrays:
    """A list of arrays, by name."""
    return {f"{prefix}.{i}": array for i, array in enumerate(arrays)}


def gathered(prefix: str, arrays: Arrays) -> list[NDArray[Any]]:
    """The list that `numbered` took."""
    count = sum(name.startswith(f"{prefix}.") for name in arrays)
    return [arrays[f"{prefix}.{i}"] for i in range(count)]


def _parameters(estimator: Any) -> dict[str, Any]:
    """Constructor arguments that JSON can hold; a generator or a device object becomes None or its name."""
    parameters: dict[str, Any] = estimator.get_params(deep=False)
    if "random_state" in parameters and not isinstance(parameters["random_state"], Integral):
        parameters["random_state"] = None
    if parameters.get("device") is not None:
        parameters["device"] = str(parameters["device"])
    return parameters
