"""Constructor arguments, checked when `fit` begins."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["LARGEST_PENALTY", "check_choice", "check_integer", "check_real"]

# Squared parameters times a penalty stay finite below it.
LARGEST_PENALTY = 1e20


def check_integer(estimator: Any, name: str, minimum: int) -> None:
    """A ValueError unless the parameter is an integer of at least `minimum`."""
    value = getattr(estimator, name)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}")


def check_real(
    estimator: Any, name: str, minimum: float, maximum: float = np.inf, *, above_minimum: bool = False
) -> None:
    """A ValueError unless the parameter is a finite number in [minimum, maximum], or in (minimum, maximum]."""
    value = getattr(estimator, name)
    number = float(value) if isinstance(value, Real) else np.nan
    if not (np.isfinite(number) and minimum <= number <= maximum) or (above_minimum and number == minimum):
        left = "(" if above_minimum else "["
        raise ValueError(f"{name} must be a number in {left}{minimum}, {maximum}]; got {value!r}")


def check_choice(estimator: Any, name: str, choices: Collection[str]) -> None:
    """A ValueError unless the parameter is one of `choices`."""
    value = getattr(estimator, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
