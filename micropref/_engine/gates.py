"""Gates g(c): from context features to one logit per component, with their gradients.

Arrays are component-first, (n_components, n_rows): sums over the few components then run along long rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from micropref._arrays.backend import Array, namespace, zeros
from micropref.kernels._products import linear_gradient, linear_products

GATES = ("linear", "mlp")


class GatePenalty(NamedTuple):
    """L2 penalties of a gate's weights: of those that multiply contexts, and of those that multiply hidden units."""

    inputs: float = 0.0
    hidden: float = 0.0


@dataclass(frozen=True)
class Gate:
    """A gate of fixed shape; its parameters are a list of arrays kept by the caller.

    ``hidden_units=0`` is linear, g(c) = V c + b; otherwise one hidden layer, g(c) = V max(0, A c + a) + b. Without
    inputs only b remains: static weights. With one component there is nothing to weigh and no parameters.

    Parameters
    ----------
    n_inputs : int
        Width of the context.
    n_components : int
    hidden_units : int, default=0
    """

    n_inputs: int
    n_components: int
    hidden_units: int = 0

    @classmethod
    def create(cls, kind: str, n_inputs: int, n_components: int, hidden_units: int) -> Gate:
        """The gate of a given kind ("linear" or "mlp"); without inputs every kind is static."""
        if kind not in GATES:
            raise ValueError(f"gate: expected one of {', '.join(map(repr, GATES))}, got {kind!r}")
        if kind == "mlp" and n_inputs > 0 and n_components > 1:
            if hidden_units < 1:
                raise ValueError(f"hidden_units: expected at least 1, got {hidden_units!r}")
            return cls(n_inputs, n_components, int(hidden_units))
        return cls(n_inputs, n_components)

    @classmethod
    def of(cls, parameters: list[Any], n_inputs: int, n_components: int) -> Gate:
        """The gate that has these parameters, whatever its estimator's constructor says by now."""
        return cls(n_inputs, n_components, len(parameters[1]) if len(parameters) == 4 else 0)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters; penalised weight matrices have two dimensions, free offsets one."""
        if self.n_components == 1:
            return ()
        k, c, h = self.n_components, self.n_inputs, self.hidden_units
        if h:
            return (h, c), (h,), (k, h), (k,)
        return ((k, c), (k,)) if c else ((k,),)

    @property
    def precision(self) -> float:
        """Relative change of a loss below which a fit of the gate has arrived; 0 leaves that to the gradient.

        At the kinks of a hidden layer no gradient vanishes.
        """
        return 1e-5 / 64 if self.hidden_units else 0.0

    def penalties(self, alpha: GatePenalty | float) -> list[float]:
        """Penalty of every parameter: a number is that of all weights; offsets have none."""
        of_weights = iter(alpha if isinstance(alpha, GatePenalty) else (alpha, alpha))
        return [next(of_weights) if len(shape) == 2 else 0.0 for shape in self.shapes]

    def initial(self, random: np.random.RandomState) -> list[np.ndarray]:
        """Starting parameters: equal weights for every context, and a hidden layer of random directions."""
        parameters = [np.zeros(shape) for shape in self.shapes]
        if self.hidden_units:
            parameters[0] = random.normal(size=self.shapes[0]) * np.sqrt(2 / self.n_inputs)
            parameters[2] = random.normal(size=self.shapes[2]) / np.sqrt(self.hidden_units)
        return parameters

    def logits(self, parameters: list[Array], context: Array) -> tuple[Array, Array | None]:
        """Logits (n_components, n_rows) and the hidden layer that `gradient` needs."""
        xp = namespace(context)
        if not parameters:
            return zeros((1, context.shape[0]), context), None
        if not self.hidden_units:
            bias = parameters[-1][:, None]
            if not self.n_inputs:
                return xp.broadcast_to(bias, (self.n_components, context.shape[0])), None
            return linear_products(context, parameters[0]) + bias, None
        into, into_bias, out, out_bias = parameters
        hidden = into @ context.T + into_bias[:, None]
        hidden = xp.maximum(hidden, xp.zeros_like(hidden))
        return out @ hidden + out_bias[:, None], hidden

    def gradient(self, parameters: list[Array], context: Array, hidden: Array | None, d_logits: Array) -> list[Array]:
        """Gradients of the parameters from the gradient (n_components, n_rows) of the logits."""
        xp = namespace(context)
        if not parameters:
            return []
        if hidden is None:
            bias = xp.sum(d_logits, axis=1)
            return [linear_gradient(d_logits, context, 0, self.n_inputs), bias] if self.n_inputs else [bias]
        d_hidden = (parameters[2].T @ d_logits) * xp.astype(hidden > 0, hidden.dtype)
        return [d_hidden @ context, xp.sum(d_hidden, axis=1), d_logits @ hidden.T, xp.sum(d_logits, axis=1)]


def flatten(parameters: list[Any]) -> np.ndarray:
    """One float64 vector of all parameters."""
    return np.concatenate([np.asarray(p, dtype=np.float64).ravel() for p in parameters] or [np.empty(0)])


def unflatten(vector: np.ndarray, shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    """The inverse of `flatten`, as views."""
    parts, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape)
        parts.append(vector[start:end].reshape(shape))
        start = end
    return parts
