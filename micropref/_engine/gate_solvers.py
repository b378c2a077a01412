"""How a router learns the weights of frozen heads: L-BFGS on J_τ itself, or the steps of Hedge (Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, precision, to_numpy
from micropref._engine.gate_objective import GateObjective
from micropref._engine.gates import Gate, GatePenalty, flatten
from micropref._engine.scaling import gate_scale, under_penalties
from micropref._engine.solvers import lbfgs

__all__ = ["MAX_ITER", "TOL", "GateFit", "initial_gate", "parameter_scale", "solve_direct", "solve_hedge", "tempered"]

Vector = NDArray[np.float64]

#: Where L-BFGS stops when it learns a gate.
MAX_ITER, TOL = 500, 1e-6


@dataclass(frozen=True)
class GateFit:
    """Where a solver of J_τ stopped.

    Attributes
    ----------
    vector : ndarray of shape (n_parameters,)
    value : float
        J_τ, in nats.
    n_iter : int
    converged : bool
    loss_curve : list of float
        J_τ before the first step of Hedge and after each; empty for the direct solver.
    """

    vector: Vector
    value: float
    n_iter: int
    converged: bool
    loss_curve: list[float]


def parameter_scale(gate: Gate, context_norm: float, alpha: GatePenalty | float) -> Vector:
    """One over the usual size of every parameter of g, for contexts of this norm."""
    penalties = [np.full(shape, a) for shape, a in zip(gate.shapes, gate.penalties(alpha), strict=True)]
    return under_penalties(flatten(gate_scale(context_norm, gate)), flatten(penalties))


def tempered(evidence: Array, temperature: float) -> Array:
    """−L_ik / τ of every row; a ValueError that names the first row that the type of computation cannot hold."""
    with np.errstate(over="ignore"):
        found = evidence / temperature
    beyond = ~np.isfinite(to_numpy(found)).all(axis=0)
    if beyond.any():
        raise ValueError(
            f"expected losses over temperature={temperature!r} within the range of {found.dtype}, got a row beyond "
            f"it: row {int(np.argmax(beyond))}; raise the temperature, or scale the features"
        )
    return found


def initial_gate(gate: Gate, scale: Vector, random: np.random.RandomState) -> Vector:
    """Parameters of g = 0, with a hidden layer of random directions if there is one."""
    parameters = gate.initial(random)
    for output in parameters[-2:]:
        output[...] = 0.0
    return np.asarray(flatten(parameters) / scale)


def solve_direct(objective: GateObjective, start: Vector, scale: Vector) -> GateFit:
    """Minimise J_τ by L-BFGS."""
    found = lbfgs(
        objective.value_and_gradient,
        start,
        scale=scale,
        max_iter=MAX_ITER,
        tol=TOL,
        precision=_precision(objective),
        blas=bool(objective.gate.hidden_units),
    )
    return GateFit(found.vector, found.value, found.n_iter, found.converged, [])


def solve_hedge(objective: GateObjective, start: Vector, scale: Vector, n_iter: int) -> GateFit:
    """The paper's algorithm: targets t_ik ∝ f_k(c_i) exp(−L_ik / τ), then cross-entropy, `n_iter` times."""
    vector = start
    curve = [objective.value_and_gradient(vector)[0]]
    for _ in range(n_iter):
        vector = lbfgs(
            partial(objective.cross_entropy, targets=objective.targets(vector)),
            vector,
            scale=scale,
            max_iter=MAX_ITER,
            tol=TOL,
            precision=_precision(objective),
            blas=bool(objective.gate.hidden_units),
        ).vector
        curve.append(objective.value_and_gradient(vector)[0])
    value, gradient = objective.value_and_gradient(vector)
    converged = bool(gradient.size == 0 or np.abs(gradient / scale).max() <= np.sqrt(TOL))
    return GateFit(vector, value, n_iter, converged, curve)


def _precision(objective: GateObjective) -> float:
    return max(precision(objective.contexts), objective.gate.precision)
