"""Usual sizes of parameters, from the usual sizes of the features that they multiply.

Solvers work in variables ``scale * parameter``, so that rescaled features give rescaled parameters after the same
number of steps, and tolerances have no units.
"""

from __future__ import annotations

import numpy as np

from micropref._engine.gates import Gate

__all__ = ["RunningNorms", "gate_scale", "gate_step", "head_scale", "head_step", "under_penalties", "with_penalties"]

# Offsets of a gate move slowly beside its weights, which share each step among all inputs.
_OFFSET_STEP = 0.1
# Least usual size of a feature, in roots of the penalty of its parameter.
_LEAST_SIZE = 1e-3


class RunningNorms:
    """Root mean square norms of contexts and differences over the batches of a stream."""

    def __init__(self, norms: np.ndarray | None = None, total_weight: float = 0.0) -> None:
        self.norms = np.zeros(2) if norms is None else norms
        self.total_weight = total_weight

    @classmethod
    def of(cls, seen: list[float]) -> RunningNorms:
        """The norms that `seen` describes."""
        return cls(np.array(seen[:2]), seen[2])

    @property
    def seen(self) -> list[float]:
        """Norm of the contexts, norm of the differences, total weight: what a saved stream goes on from."""
        return [self.context, self.difference, self.total_weight]

    def observe(self, norms: np.ndarray, weight: float) -> None:
        """Take in the norms of a batch of total weight `weight`."""
        self.total_weight += float(weight)
        share = float(weight) / self.total_weight
        # A new array, since the old one may be read-only; squares of extreme norms would leave the range of floats.
        self.norms = np.hypot(np.sqrt(1 - share) * self.norms, np.sqrt(share) * norms)

    @property
    def context(self) -> float:
        """Root mean square norm of the contexts."""
        return float(self.norms[0])

    @property
    def difference(self) -> float:
        """Root mean square norm of the differences."""
        return float(self.norms[1])


def head_scale(difference_norm: float, shape: tuple[int, ...]) -> np.ndarray:
    """Root mean square feature of differences of that norm, for every parameter of the heads (K, d)."""
    return np.full(shape, difference_norm / np.sqrt(shape[1]))


def with_penalties(scale: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Root of the usual curvature: the data's, scale², and the penalty's, all that is left where features are tiny."""
    return np.asarray(np.hypot(scale, np.sqrt(penalties)))  # whose squares stay in the range of floats


def under_penalties(scale: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Usual sizes of features, not below those at which the penalty leaves nothing to learn.

    Beside tinier ones, parameters of the usual size 1 / scale would start, and move, where the penalty is all there is.
    """
    return np.asarray(np.maximum(scale, _LEAST_SIZE * np.sqrt(penalties)))


def head_step(shape: tuple[int, ...]) -> np.ndarray:
    """Sizes of steps that move a margin by about as much, however many features it is a sum of."""
    return np.full(shape, shape[1] ** -0.5)


def gate_scale(context_norm: float, gate: Gate) -> list[np.ndarray]:
    """Root mean square input of every parameter of the gate."""
    scales = [np.ones(shape) for shape in gate.shapes]
    if gate.n_inputs and scales and context_norm > 0:
        scales[0] *= context_norm / np.sqrt(gate.n_inputs)
    return scales


def gate_step(gate: Gate) -> list[np.ndarray]:
    """Sizes of steps that move a logit by about as much, however many inputs it is a sum of."""
    return [np.full(shape, shape[1] ** -0.5 if len(shape) == 2 else _OFFSET_STEP) for shape in gate.shapes]
