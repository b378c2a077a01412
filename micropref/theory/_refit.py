"""A mixture fitted again to reweighted units, for many sets of weights at a time."""

from __future__ import annotations

import numpy as np
from scipy import linalg
from scipy.special import log_softmax, logsumexp

from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.theory._units import Model, SortedRows

_MAX_STEPS = 10
# Steps end once the objective is expected to rise by less than this, in nats over all rows.
_ENOUGH = 1e-4


def refitted(model: Model, data: SortedRows, multiplicity: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Changes of the parameters that maximise the reweighted penalised likelihood of every draw.

    Steps are those of the fixed information, lengthened or shortened as the last two gradients say (Barzilai and
    Borwein, 1988), and taken only where the objective rises. The fitted parameters count as the optimum at weights 1.

    Parameters
    ----------
    model : Model
    data : SortedRows
    multiplicity : ndarray of shape (n_units, n_draws)
        What each unit is multiplied by in each draw.
    information : ndarray of shape (n_parameters, n_parameters)
        Of all units and the penalties.

    Returns
    -------
    draws : ndarray of shape (n_draws, n_parameters)
    """
    factor = linalg.cho_factor(information)
    fitted = np.tile(model.parameters, (1, 1))
    _, slope = _objective(model, fitted, data, np.ones((data.n_units, 1)))
    n_draws = multiplicity.shape[1]
    change, length = np.zeros((n_draws, len(slope[0]))), np.ones(n_draws)

    def at(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = _objective(model, fitted + change, data, multiplicity)
        return value - change @ slope[0], gradient - slope

    value, gradient = at(change)
    for _ in range(_MAX_STEPS):
        direction = linalg.cho_solve(factor, gradient.T).T
        promised = (direction * gradient).sum(axis=1)
        if promised.max() < _ENOUGH:
            break
        tried = change + length[:, None] * direction
        new_value, new_gradient = at(tried)
        better = new_value > value
        curvature = (direction * (gradient - new_gradient)).sum(axis=1)
        suggested = np.where(
            curvature > 0.2 * promised * length, length * promised / np.maximum(curvature, 1e-300), 5.0
        )
        change[better], value[better], gradient[better] = tried[better], new_value[better], new_gradient[better]
        length = np.clip(np.where(better, suggested, np.minimum(suggested, length / 3)), 0.02, 5.0)
    return change


def _objective(
    model: Model, theta: np.ndarray, data: SortedRows, multiplicity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Σ_u v_u ℓ_u − ½ Ω Σ_j penalty_j θ_j² of every draw, (n_draws,), and its gradients (n_draws, n_parameters)."""
    penalties = model.penalties * data.weight.sum()
    value, gradient = -0.5 * np.square(theta) @ penalties, -theta * penalties
    (k, d), c, n = model.coef.shape, model.gate.shape[1], len(theta)
    coef, gate = theta[:, : k * d].reshape(n * k, d), theta[:, k * d : k * (d + c)].reshape(n * k, c)
    offset = theta[:, k * (d + c) :].ravel()
    for rows in data.blocks():
        starts, inner = data.unit_starts(rows), data.inner[rows, None]
        units = slice(data.unit[rows.start], data.unit[rows.start] + len(starts))
        difference, mean_context = data.difference[rows].astype(float), data.mean_context(rows)
        margins = data.signs[rows, None] * (difference @ coef.T)
        log_weights = log_softmax((mean_context @ gate.T + offset).reshape(-1, n, k), axis=2)
        joint = log_weights + np.add.reduceat(inner * log_sigmoid(margins), starts).reshape(-1, n, k)
        likelihood = logsumexp(joint, axis=2)
        counted = multiplicity[units] * data.outer[units, None]
        value += (counted * likelihood).sum(axis=0)
        responsibility = counted[:, :, None] * np.exp(joint - likelihood[:, :, None])
        of_row = responsibility.reshape(-1, n * k)[data.unit[rows] - units.start]
        slope = of_row * (inner * data.signs[rows, None]) * sigmoid(-margins)
        d_logits = (responsibility - counted[:, :, None] * np.exp(log_weights)).reshape(-1, n * k)
        gradient[:, : k * d] += (slope.T @ difference).reshape(n, -1)
        gradient[:, k * d : k * (d + c)] += (d_logits.T @ mean_context).reshape(n, -1)
        gradient[:, k * (d + c) :] += d_logits.sum(axis=0).reshape(n, k)
    return value, gradient
