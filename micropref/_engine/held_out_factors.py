"""What a fitted population is corrected by, so that it is as wide as users who did not teach it say.

A fit takes some of the noise of those who taught for taste: margins come out too large, and so do variances where users
do not differ. Three numbers undo that: a factor of all margins, one of the deviations of users
alone, and the contrast of their variances. They are those under which users who were held out have most evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micropref._engine.population import Population, resized

__all__ = ["Factors", "likeliest_factors"]

Floats = NDArray[np.float64]

# Of the logarithms of the factors of heads and of users, and of the contrast: prior deviations; directions in which
# they are looked for, one after the other; and the steps along these, as parts of them.
_DEVIATIONS = np.array([0.5, 0.5, 1.0])
_DIRECTIONS = np.array([[0.1, 0.1, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.2]])
_STEPS = (1.0, 0.5, 0.5)
# The longest step, in those.
_LONGEST = 2.0


@dataclass(frozen=True)
class Factors:
    """What a population is corrected by.

    Attributes
    ----------
    heads, users : float
        By which heads, and deviations of users from them, are multiplied.
    contrast : float
        Of the variances, as in `resized`.
    """

    heads: float = 1.0
    users: float = 1.0
    contrast: float = 0.0

    @classmethod
    def of(cls, numbers: Floats) -> Factors:
        """From the logarithms of both factors, and the contrast."""
        return cls(float(np.exp(numbers[0])), float(np.exp(numbers[1])), float(numbers[2]))

    def applied(self, population: Population) -> Population:
        return resized(population, self.heads, self.users, self.contrast)


def likeliest_factors(evidence: Callable[[Factors], float], n_folds: int) -> Factors:
    """The factors of a fit to all users, from the evidence of those held out in so many folds, in nats.

    A normal prior keeps them near 1, and 0, where few users say little. Parabolas find the largest posterior along one
    direction after the other.
    """
    at = np.zeros(3)

    def value(numbers: Floats) -> float:
        return evidence(Factors.of(numbers)) - 0.5 * float(np.square(numbers / _DEVIATIONS).sum())

    here = value(at)
    for share in _STEPS:
        for step in share * _DIRECTIONS:
            below, above = value(at - step), value(at + step)
            bend = 2.0 * here - below - above
            length = 0.5 * (above - below) / bend if bend > 0 else math.copysign(_LONGEST, above - below)
            there = at + min(max(length, -_LONGEST), _LONGEST) * step
            found = value(there)
            if found > here:
                at, here = there, found
    # A fit to all takes less noise for taste than one to all but a fold.
    return Factors.of(at * (1.0 - 1.0 / n_folds))
