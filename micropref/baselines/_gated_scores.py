"""The loss of a gate that weighs given scores of responses, and of what one user adds to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from micropref._engine.gates import Gate, flatten, unflatten
from micropref.kernels._pointwise import log_sigmoid, log_softmax, sigmoid

__all__ = ["GatedScores", "WeightedScores", "weighted_margins"]

# A scale beyond this one has no more to say, and its products stay finite.
_LARGEST_LOG_SCALE = 100.0


def weighted_margins(logits: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Σ_a π_a m_a (n,) with π = softmax of the logits; both (n_attributes, n). Odd in the margins, exactly."""
    found: np.ndarray = (np.exp(log_softmax(logits)) * margins).sum(axis=0)
    return found


class WeightedScores(NamedTuple):
    """The loss of given logits, with its gradients.

    Attributes
    ----------
    loss : float
        −Σ_i share_i log σ(s_i Σ_a π_ia m_ia).
    d_logits : ndarray of shape (n_attributes, n)
    d_log_scale : float
        By the logarithm of a factor of all margins.
    """

    loss: float
    d_logits: np.ndarray
    d_log_scale: float

    @classmethod
    def of(cls, logits: np.ndarray, margins: np.ndarray, signs: np.ndarray, share: np.ndarray) -> WeightedScores:
        """From logits and margins (n_attributes, n), and signs and shares (n,)."""
        weights = np.exp(log_softmax(logits))
        mean = (weights * margins).sum(axis=0)
        odds = mean * signs
        slope = -share * signs * sigmoid(-odds)
        return cls(-float(log_sigmoid(odds) @ share), slope * weights * (margins - mean), float(slope @ mean))


@dataclass(frozen=True, eq=False)
class GatedScores:
    """J as a function of the gate's parameters and the logarithm of the scale.

    J = −(1/Ω) Σ_i ω_i log σ(s_i β Σ_a π_a(c_i) m_ia) + ½ Σ penalties · gate² + ½ scale_penalty · β².

    Attributes
    ----------
    gate : Gate
    context : ndarray of shape (n, n_context_features)
    margins : ndarray of shape (n_attributes, n)
        m_ia, differences of the scores of the first and the second response.
    signs, share : ndarray of shape (n,)
        s_i, and ω_i/Ω.
    penalties : ndarray of shape (n_gate_parameters,)
    scale_penalty : float
    """

    gate: Gate
    context: np.ndarray
    margins: np.ndarray
    signs: np.ndarray
    share: np.ndarray
    penalties: np.ndarray
    scale_penalty: float

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J and its gradient."""
        theta, scale = vector[:-1], math.exp(min(float(vector[-1]), _LARGEST_LOG_SCALE))
        parameters = unflatten(theta, self.gate.shapes)
        logits, hidden = self.gate.logits(parameters, self.context)
        found = WeightedScores.of(logits, scale * self.margins, self.signs, self.share)
        parts = self.gate.gradient(parameters, self.context, hidden, found.d_logits)
        gradient = flatten(parts) + self.penalties * theta
        shrinking = self.scale_penalty * scale**2
        value = found.loss + 0.5 * float(self.penalties @ theta**2) + 0.5 * shrinking
        return value, np.append(gradient, found.d_log_scale + shrinking)
