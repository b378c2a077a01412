"""Minimisers of a function and its gradient. They know no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from micropref.kernels._threads import blas_threads

__all__ = ["Adam", "Minimum", "Objective", "lbfgs"]

_LARGEST_GRADIENT = 1e150

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Minimum:
    """Where a solver stopped.

    Attributes
    ----------
    vector : ndarray of shape (n_parameters,)
    value : float
    n_iter : int
    converged : bool
    message : str
    """

    vector: np.ndarray
    value: float
    n_iter: int
    converged: bool
    message: str


def lbfgs(
    objective: Objective,
    start: np.ndarray,
    *,
    scale: np.ndarray | float = 1.0,
    max_iter: int,
    tol: float,
    precision: float = 2e-16,
    callback: Callable[[float], None] | None = None,
    blas: bool = False,
) -> Minimum:
    """L-BFGS (SciPy's L-BFGS-B) in the variables ``scale * vector``.

    Parameters
    ----------
    objective : callable
        Maps a vector to its value and gradient.
    start : ndarray of shape (n_parameters,)
    scale : ndarray of shape (n_parameters,) or float, default=1.0
        Usual size of one over each parameter: a diagonal preconditioner that makes `tol` independent of units.
    max_iter : int
    tol : float
        Stop once no component of the gradient, in scaled variables, exceeds this.
    precision : float, default=2e-16
        Relative precision to which the objective is computed.
    callback : callable, optional
        Called with the value after every iteration.
    blas : bool, default=False
        Whether the objective has products that are worth the threads of BLAS, which the solver's own short vectors
        keep spinning.

    Returns
    -------
    Minimum
    """
    if start.size == 0:
        return Minimum(start, objective(start)[0], 0, True, "no parameters")
    last = np.nan

    def scaled(variables: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal last
        last, gradient = objective(variables / scale)
        return last, gradient / scale

    with blas_threads(blas):
        result = minimize(
            scaled,
            start * scale,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iter, "gtol": tol, "ftol": 64 * precision, "maxls": 50, "maxcor": 10},
            callback=None if callback is None else (lambda _: callback(last)),
        )
    # A line search that finds nothing better within the precision of the objective has arrived.
    arrived = result.status == 2 and np.abs(result.jac).max() <= max(tol, np.sqrt(precision))
    return Minimum(
        result.x / scale, float(result.fun), int(result.nit), bool(result.success or arrived), str(result.message)
    )


@dataclass
class Adam:
    """Stochastic steps (Kingma and Ba, 2015) whose state survives between calls.

    The step of every parameter is `rate / scale`, so that rescaled features give rescaled parameters.
    """

    rate: float
    momentum: float = 0.9
    memory: float = 0.999
    count: int = 0
    first: np.ndarray = field(default_factory=lambda: np.zeros(0))
    second: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def step(
        self, vector: np.ndarray, gradient: np.ndarray, scale: np.ndarray | float, size: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """The parameters after one step against `gradient`."""
        # A step depends on the size of gradients no more than squares in the range of floats let it.
        with np.errstate(over="ignore"):
            gradient = np.clip(gradient / scale, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
        if self.count == 0:
            self.first, self.second = np.zeros_like(gradient), np.zeros_like(gradient)
        self.count += 1
        # New arrays: the old ones may lie in a file that is mapped read-only, or belong to a copy.
        self.first = self.first + (1 - self.momentum) * (gradient - self.first)
        self.second = self.second + (1 - self.memory) * (gradient * gradient - self.second)
        first = self.first / (1 - self.momentum**self.count)
        second = self.second / (1 - self.memory**self.count)
        return vector - self.rate * size * first / ((np.sqrt(second) + 1e-12) * scale)
