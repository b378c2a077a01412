"""Why one reward is not enough: the irreducible error of a single Bradley-Terry model, exactly."""

from micropref.theory._bounds import IrreducibleErrorBounds, irreducible_error_bounds
from micropref.theory._decomposition import ErrorDecomposition, error_decomposition

__all__ = ["ErrorDecomposition", "IrreducibleErrorBounds", "error_decomposition", "irreducible_error_bounds"]
