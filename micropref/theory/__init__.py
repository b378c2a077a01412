"""Why one reward is not enough: the irreducible error of a single Bradley-Terry model, exactly."""

from micropref.theory._bounds import IrreducibleErrorBounds, irreducible_error_bounds
from micropref.theory._decomposition import ErrorDecomposition, error_decomposition
from micropref.theory._estimate import IrreducibleErrorEstimate, estimate_irreducible_error
from micropref.theory._identifiability import IdentifiabilityReport, identifiability_report
from micropref.theory._model_test import SingleRewardTest, single_reward_test
from micropref.theory._sweeps import ErrorSweep, sweep_error

__all__ = [
    "ErrorDecomposition",
    "ErrorSweep",
    "IdentifiabilityReport",
    "IrreducibleErrorBounds",
    "IrreducibleErrorEstimate",
    "SingleRewardTest",
    "error_decomposition",
    "estimate_irreducible_error",
    "identifiability_report",
    "irreducible_error_bounds",
    "single_reward_test",
    "sweep_error",
]
