"""Where the fits of a mixture start, and the best of where they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from micropref._engine.gates import flatten
from micropref._engine.lock_step import in_lock_step
from micropref._engine.mixture_objective import MixtureObjective
from micropref._engine.scaling import gate_scale, head_scale, under_penalties, with_penalties
from micropref._engine.solvers import Minimum, Objective, lbfgs
from micropref._support.progress import FitProgress
from micropref.kernels._threads import blas_threads

__all__ = ["best_minimum", "parameter_scale", "random_start"]

Vector = NDArray[np.float64]

# Standard deviation of the margins at a random start.
_START_MARGIN = 0.3


def parameter_scale(objective: MixtureObjective, norms: Vector) -> Vector:
    """One over the usual size of every parameter in the flat vector, for contexts and differences of these norms."""
    scale = flatten([head_scale(norms[1], objective.shapes[0]), *gate_scale(norms[0], objective.gate)])
    return under_penalties(scale, objective.stiffness)


def random_start(objective: MixtureObjective, scale: Vector, random: np.random.RandomState) -> Vector:
    """Heads with random directions and small margins, and equal weights; zero where the problem is convex.

    Parameters are drawn, never rows: a repeated row must equal a row of weight 2.
    """
    shapes, gate = objective.shapes, objective.gate
    if gate.n_components == 1:
        return np.zeros(int(np.prod(shapes[0])))
    heads = random.normal(size=shapes[0]) * (_START_MARGIN / np.sqrt(shapes[0][1]))
    variables = [heads, *gate.initial(random)]
    return np.asarray(flatten(variables) / scale)


def best_minimum(
    objective: MixtureObjective,
    scale: Vector,
    start: Callable[[], Vector],
    *,
    n_starts: int,
    max_iter: int,
    tol: float,
    precision: float,
    verbose: int = 0,
) -> Minimum:
    """The lowest of the minima that L-BFGS finds from `n_starts` starts.

    Parameters
    ----------
    objective : MixtureObjective
    scale : ndarray of shape (n_parameters,)
        As `parameter_scale` gives it.
    start : callable
        Gives the next start.
    n_starts, max_iter : int
    tol : float
    precision : float
        Relative precision of the objective.
    verbose : int, default=0
        As in `MixtureBradleyTerry`.
    """
    stiffness = with_penalties(scale, objective.stiffness)
    starts = [start() for _ in range(n_starts)]

    def solve(one: int, function: Objective, after: Callable[[float], None]) -> Minimum:
        return lbfgs(
            function,
            starts[one],
            scale=stiffness,
            max_iter=max_iter,
            tol=tol,
            precision=precision,
            callback=after if verbose else None,
            blas=bool(objective.gate.hidden_units),
        )

    # Only a hidden layer has products that are worth the threads of BLAS.
    with (
        blas_threads(bool(objective.gate.hidden_units)),
        FitProgress(verbose, n_starts, max_iter) as progress,
    ):
        if n_starts > 1 and objective.shares_reads:
            found = _together(objective, n_starts, solve, progress)
        else:
            found = []
            for one in range(n_starts):
                found.append(solve(one, objective.value_and_gradient, progress.iteration))
                progress.start_ended(found[-1].value, found[-1].n_iter)
    return min(found, key=lambda one: one.value)


def _together(
    objective: MixtureObjective,
    n_starts: int,
    solve: Callable[[int, Objective, Callable[[float], None]], Minimum],
    progress: FitProgress,
) -> list[Minimum]:
    """The minima of all starts, which share every read of X. Progress is shown as if one came after the other."""
    values: list[deque[float]] = [deque() for _ in range(n_starts)]
    found: dict[int, Minimum] = {}

    def solver(one: int) -> Callable[[Objective], Minimum]:
        def run(function: Objective) -> Minimum:
            found[one] = solve(one, function, values[one].append)
            return found[one]

        return run

    def show() -> None:
        while progress.n_done < n_starts:
            shown = values[progress.n_done]
            while shown:
                progress.iteration(shown.popleft())
            if progress.n_done not in found:
                return
            ended = found[progress.n_done]
            progress.start_ended(ended.value, ended.n_iter)

    return in_lock_step([solver(one) for one in range(n_starts)], objective.values_and_gradients, show)
