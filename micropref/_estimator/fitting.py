"""What happens to an estimator's attributes: learning is a transaction, and prediction reads what was fitted.

Both rules are decorators, so that no estimator can forget one.

- `learning`: ``fit`` and ``partial_fit`` work on a twin of the estimator, whose attributes become the estimator's own
  at the end. A call that is refused, or fails half-way, leaves the estimator as it was. A lock lets one call learn at a
  time; others predict meanwhile, with the attributes that it had before.
- `predicting`: prediction sees the attributes of one moment, and the constructor parameters with which the estimator
  was fitted. `set_params` takes effect at the next call that learns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.frozen import FrozenEstimator

from micropref._support.locks import Lock

__all__ = ["check_same_parameters", "fitted", "frozen", "keep_parameters", "learning", "lock_of", "predicting", "twin"]

Method = TypeVar("Method", bound=Callable[..., Any])
Estimator = TypeVar("Estimator")

_PARAMETERS = "_fitted_parameters"
# Of parameters that a caller may change in place after `fit`.
_MUTABLE = (dict, list, set, np.ndarray)

# Locks live beside the estimators: an attribute would have to be left out of pickles, clones and comparisons.
_locks: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()
_registry = Lock()


def lock_of(owner: Any) -> Lock:
    """The lock that lets one thread at a time learn; always the same for the same object."""
    with _registry:
        return _locks.setdefault(owner, Lock())


def learning(method: Method) -> Method:
    """Make a method that learns a transaction that returns the estimator itself."""

    @wraps(method)
    def learn(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with lock_of(self):
            before = dict(vars(self))
            work = twin(self, dict(before))
            method(work, *args, **kwargs)
            keep_parameters(work)
            # What another thread has set meanwhile, as by `set_params`, stays set: it is for the next call.
            since = {name: value for name, value in dict(vars(self)).items() if before.get(name, before) is not value}
            # One assignment: a thread that predicts sees all of it or nothing.
            self.__dict__ = {**vars(work), **since}
        return self

    return cast(Method, learn)


def predicting(method: Method) -> Method:
    """Make a method read what was fitted, and nothing that was set since."""

    @wraps(method)
    def predict(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return method(fitted(self), *args, **kwargs)

    return cast(Method, predict)


def fitted(estimator: Estimator) -> Estimator:
    """The estimator as it was fitted: a twin with the attributes of this moment and the parameters of the last fit.

    Of a FrozenEstimator it is that of what lies inside.
    """
    if isinstance(estimator, FrozenEstimator):
        inner: Estimator = estimator.estimator
        return fitted(inner)
    state = dict(vars(estimator))
    state.update(state.get(_PARAMETERS, ()))
    return twin(estimator, state)


def keep_parameters(estimator: Any) -> None:
    """Make the constructor parameters of this moment those that prediction reads."""
    parameters = {name: getattr(estimator, name) for name in getattr(type(estimator), "_get_param_names", tuple)()}
    setattr(
        estimator,
        _PARAMETERS,
        {name: copy(value) if isinstance(value, _MUTABLE) else value for name, value in parameters.items()},
    )


def check_same_parameters(estimator: Any, names: tuple[str, ...]) -> None:
    """A ValueError where a parameter that shapes what was learned has changed since: `partial_fit` cannot go on."""
    before = getattr(estimator, _PARAMETERS, {})
    for name in names:
        if name in before and getattr(estimator, name) != before[name]:
            raise ValueError(
                f"expected {name}={before[name]!r}, as in the first call, got {name}={getattr(estimator, name)!r}; "
                "call fit to start again"
            )


def frozen(estimator: Estimator) -> Estimator:
    """A copy of what prediction reads: nothing that happens to the estimator later changes it.

    What only learning reads, which may be large and which a class lists in `_LEARNS_FROM`, is left out. Of a
    FrozenEstimator it is what lies inside.
    """
    if isinstance(estimator, FrozenEstimator):
        return cast(Estimator, frozen(estimator.estimator))
    state = vars(fitted(estimator))
    for name in getattr(type(estimator), "_LEARNS_FROM", ()):
        state.pop(name, None)
    return twin(estimator, {name: deepcopy(value) if name.endswith("_") else value for name, value in state.items()})


def twin(estimator: Estimator, state: dict[str, Any] | None = None) -> Estimator:
    """Another object of the same class with these attributes; by default those of the estimator, not copied."""
    other = object.__new__(type(estimator))
    other.__dict__ = dict(vars(estimator)) if state is None else state
    return other
