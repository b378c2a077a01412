"""J_τ of a router: the weights of frozen heads, in nats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, compute_dtype, like, namespace, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._engine.gate_pass import gate_pass, penalised
from micropref._engine.gates import Gate, GatePenalty, unflatten
from micropref._rows.comparisons import Comparisons
from micropref.kernels._pointwise import log_softmax

__all__ = ["GateObjective"]


class GateObjective:
    """J_τ of the router with frozen heads: the same objective with the evidence of every row given.

        J_τ(f) = −(1/Ω) Σ_i ω_i log Σ_k f_k(c_i) exp(−L_ik / τ) + ½ α ‖gate weights‖²,   f(c) = softmax(o(c) + g(c))

    (Eq. 5 of Shen et al., 2025), where the offset o is where learning starts: the logarithm of the mixture's own
    weights.

    Parameters
    ----------
    rows : Comparisons
        The labelled pairs; their groups are not used.
    gate : Gate
    evidence : array of shape (n_components, n_samples)
        −L_ik / τ.
    offset : array of shape (n_components, n_samples)
        o(c_i).
    alpha : GatePenalty or float
        Penalties of the gate's weights, in nats.
    """

    def __init__(
        self,
        rows: Comparisons,
        gate: Gate,
        *,
        evidence: Array,
        offset: Array,
        alpha: GatePenalty | float = 0.0,
    ):
        self.contexts = rows.context
        self.gate = gate
        self.evidence = evidence
        self.offset = offset
        self.weight = rows.dense_weight
        self.alpha = alpha
        self.total_weight = rows.total_weight
        self.dtype = compute_dtype(rows.reader.X)

    def value_and_gradient(self, vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """J_τ in nats and its gradient, both float64."""
        loss, gradients, _ = self._pass(vector, self.evidence)
        parameters = unflatten(vector, self.gate.shapes)
        penalties = self.gate.penalties(self.alpha)
        return penalised(loss / self.total_weight, gradients, parameters, penalties, self.total_weight)

    def targets(self, vector: NDArray[np.float64]) -> Array:
        """Targets of a step of Hedge, t_ik ∝ f_k(c_i) exp(−L_ik / τ), of shape (n_components, n_samples)."""
        return self._pass(vector, self.evidence)[2]

    def cross_entropy(self, vector: NDArray[np.float64], targets: Array) -> tuple[float, NDArray[np.float64]]:
        """−(1/Ω) Σ_i ω_i Σ_k t_ik log f_k(c_i) + ½ α ‖gate weights‖², a step of Hedge, and its gradient."""
        parameters = self._unpack(vector)
        gradients = [np.zeros(shape) for shape in self.gate.shapes]
        loss = 0.0
        for rows, context in row_blocks(self.contexts):
            xp = namespace(context)
            logits, hidden = self.gate.logits(parameters, context)
            log_weights = log_softmax(logits + self.offset[:, rows])
            weight = like(self.weight[rows], context, self.dtype)[None, :]
            loss -= float(xp.sum(weight * targets[:, rows] * log_weights, dtype=xp.float64))
            d_logits = weight * (xp.exp(log_weights) - targets[:, rows])
            for total, part in zip(gradients, self.gate.gradient(parameters, context, hidden, d_logits), strict=True):
                total += to_numpy(part)
        parameters = unflatten(vector, self.gate.shapes)
        penalties = self.gate.penalties(self.alpha)
        return penalised(loss / self.total_weight, gradients, parameters, penalties, self.total_weight)

    def _unpack(self, vector: NDArray[np.float64]) -> list[Array]:
        return [like(p, self.contexts, self.dtype) for p in unflatten(vector, self.gate.shapes)]

    def _pass(self, vector: NDArray[np.float64], evidence: Array) -> tuple[float, list[NDArray[np.float64]], Array]:
        weight = self.weight
        return gate_pass(self.gate, self._unpack(vector), self.contexts, evidence, weight, weight, offset=self.offset)
