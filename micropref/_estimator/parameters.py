"""Constructor arguments, checked when `fit` begins."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["AUTO", "LARGEST_PENALTY", "check_choice", "check_integer", "check_penalty", "check_real"]

#: The value of a parameter that is chosen when `fit` has seen the rows.
AUTO = "auto"

# Squared parameters times a penalty stay finite below it.
LARGEST_PENALTY = 1e20

# Between these, products of a few parameters, and their ratios to the largest features and weights that `Comparisons`
# takes, stay inside double precision.
_SMALLEST, _LARGEST = 1e-30, 1e30


def check_integer(estimator: Any, name: str, minimum: int) -> None:
    """A ValueError unless the parameter is an integer of at least `minimum`."""
    value = getattr(estimator, name)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_) or value < minimum:
        raise ValueError(f"{name}: expected an integer of at least {minimum}, got {value!r}")


def check_real(
    estimator: Any,
    name: str,
    minimum: float,
    maximum: float = _LARGEST,
    *,
    above_minimum: bool = False,
    smallest: float = _SMALLEST,
    auto: bool = False,
) -> None:
    """A ValueError unless the parameter is a number in [minimum, maximum], or in (minimum, maximum].

    Nor is it between 0 and `smallest`, so close to 0 that arithmetic would leave the range of floats. With `auto` it
    may also be "auto".
    """
    value = getattr(estimator, name)
    if auto and isinstance(value, str) and value == AUTO:
        return
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool | np.bool_) else np.nan
    is_inside = minimum <= number <= maximum and not (above_minimum and number == minimum)
    if not is_inside or 0 < abs(number) < smallest:
        left = "(" if above_minimum else "["
        apart = f", and not between 0 and {smallest:g}" if is_inside else ""
        apart += " or 'auto'" if auto else ""
        raise ValueError(f"{name}: expected a number in {left}{minimum:g}, {maximum:g}]{apart}, got {value!r}")


def check_penalty(estimator: Any, name: str) -> None:
    """A ValueError unless the parameter is "auto" or a penalty that keeps squared parameters finite."""
    check_real(estimator, name, 0.0, LARGEST_PENALTY, smallest=0.0, auto=True)


def check_choice(estimator: Any, name: str, choices: Collection[str]) -> None:
    """A ValueError unless the parameter is one of `choices`."""
    value = getattr(estimator, name)
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
