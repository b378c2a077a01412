"""Loss over units whose evidence is given: what a gate learns from, with heads frozen or beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, like, namespace, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._engine.gates import Gate, flatten
from micropref.kernels._pointwise import unit_terms

__all__ = ["gate_pass", "penalised"]


def gate_pass(
    gate: Gate,
    parameters: list[Array],
    contexts: Array,
    evidence: Array,
    outer: NDArray[np.float64],
    mass: NDArray[np.float64],
    *,
    balance: float = 0.0,
    offset: Array | None = None,
    out: Array | None = None,
) -> tuple[float, list[NDArray[np.float64]], Array]:
    """Loss over all units with their evidence given; gradients of the gate's parameters; responsibilities.

    `offset` (n_components, n_units) is added to the logits of the gate. `out` takes the responsibilities; it may be the
    evidence itself where that is not needed any more.
    """
    gradients = [np.zeros(shape) for shape in gate.shapes]
    responsibilities = namespace(evidence).empty_like(evidence) if out is None else out
    loss = 0.0
    for rows, context in row_blocks(contexts):
        logits, hidden = gate.logits(parameters, context)
        block_loss, d_logits, responsibilities[:, rows] = unit_terms(
            logits if offset is None else logits + offset[:, rows],
            evidence[:, rows],
            like(outer[rows], evidence, evidence.dtype),
            like(mass[rows], evidence, evidence.dtype),
            balance,
        )
        loss += block_loss
        # Evidence may be in double precision where contexts are in single; torch multiplies no mixed matrices.
        d_logits = namespace(context).astype(d_logits, context.dtype, copy=False)
        for total, part in zip(gradients, gate.gradient(parameters, context, hidden, d_logits), strict=True):
            total += to_numpy(part)
    return loss, gradients, responsibilities


def penalised(
    value: float,
    gradients: list[NDArray[np.float64]],
    parameters: list[NDArray[np.float64]],
    penalties: list[float],
    total_weight: float,
) -> tuple[float, NDArray[np.float64]]:
    """A mean loss and its summed gradients, with ½ penalty ‖p‖² of every parameter added."""
    for i, (parameter, penalty) in enumerate(zip(parameters, penalties, strict=True)):
        value += 0.5 * penalty * float(np.vdot(parameter, parameter))
        gradients[i] = gradients[i] / total_weight + penalty * parameter
    return value, flatten(gradients)
