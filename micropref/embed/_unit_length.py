"""Vectors of length one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["of_unit_length"]

# Shorter vectors, zero above all, have no direction worth keeping.
_LEAST = 1e-12


def of_unit_length(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Every row over its Euclidean norm, in place; a row of zeros stays one."""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST)
    return vectors
