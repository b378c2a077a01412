"""Heads that too few annotators hold to be worth having."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dead_heads"]

_LEAST_WEIGHT = 0.02


def dead_heads(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which heads have less than 2 % of the weight, or, of more than 25 heads, less than half of an equal share."""
    return np.asarray(weights < min(_LEAST_WEIGHT, 0.5 / len(weights)))
