"""A solver that stopped before it arrived: one warning for all methods."""

from __future__ import annotations

import warnings

from sklearn.exceptions import ConvergenceWarning

from micropref._support.warnings import level_of_caller

__all__ = ["warn_if_stopped"]


def warn_if_stopped(converged: bool, what: str) -> None:
    """A ConvergenceWarning unless a solver arrived."""
    if not converged:
        warnings.warn(
            f"{what} before the gradient fell below tol. Increase max_iter, or scale the features with PairScaler.",
            ConvergenceWarning,
            stacklevel=level_of_caller(),
        )
