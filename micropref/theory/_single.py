"""The best single Bradley-Terry reward for a known population."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, sparse

from micropref.kernels._pointwise import log_sigmoid, sigmoid


def tabular_design(first: np.ndarray, second: np.ndarray) -> Any:
    """Sparse (n, n_responses) matrix with +1 at the first response and −1 at the second: one free reward each."""
    n = len(first)
    _, ids = np.unique(np.concatenate([first, second]), return_inverse=True)
    values = np.concatenate([np.ones(n), -np.ones(n)])
    rows = np.concatenate([np.arange(n), np.arange(n)])
    return sparse.csr_array((values, (rows, ids)), shape=(n, int(ids.max()) + 1))


def best_single_probs(design: Any, first: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Probabilities q = σ(A r) of the reward r that minimises Σ_i share_i KL(p̄_i ‖ q_i).

    The problem is convex. Where answers are certain the optimum may lie at infinity; then the search stops once the
    gradient is below 1e-9.

    Parameters
    ----------
    design : array or sparse array of shape (n, n_rewards)
    first : ndarray of shape (n,)
        p̄, the probability of the first response.
    share : ndarray of shape (n,)
        Weights, summing to 1.

    Returns
    -------
    single_probs : ndarray of shape (n,)
    """
    probs: np.ndarray = sigmoid(design @ best_single_reward(design, first, share))
    return probs


def best_single_reward(design: Any, first: np.ndarray, share: np.ndarray, alpha: float = 0.0) -> np.ndarray:
    """The reward r itself, of shape (n_rewards,), with a penalty ½ alpha ‖r‖²; see `best_single_probs`."""

    def value_and_gradient(reward: np.ndarray) -> tuple[float, np.ndarray]:
        margin = design @ reward
        value = share @ (-log_sigmoid(-margin) - first * margin) + 0.5 * alpha * (reward @ reward)
        return float(value), design.T @ (share * (sigmoid(margin) - first)) + alpha * reward

    found = optimize.minimize(
        value_and_gradient,
        np.zeros(design.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 20},
    )
    return np.asarray(found.x)
