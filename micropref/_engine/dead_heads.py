"""Heads that too few annotators hold to be worth having."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dead_heads", "least_weight"]

_LEAST_WEIGHT = 0.02


def least_weight(n_components: int) -> float:
    """The weight below which a head is dead: 2 %, or, of more than 25 heads, half of an equal share."""
    return min(_LEAST_WEIGHT, 0.5 / n_components)


def dead_heads(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which heads have less than the `least_weight`."""
    return np.asarray(weights < least_weight(len(weights)))
