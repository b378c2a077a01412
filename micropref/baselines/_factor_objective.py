"""Loss and gradient of factorised rewards, in nats: a shared basis of rewards and Gaussian weights of every user."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from micropref._arrays.backend import compute_dtype
from micropref._engine.scaling import head_scale, with_penalties
from micropref._rows.comparisons import Comparisons
from micropref.baselines._heads import difference_norm
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.kernels._products import linear_gradient, linear_products

__all__ = ["FactorObjective"]


class FactorObjective:
    """J of `RewardFactorization` as a function of one flat vector: basis B (K, d), centre μ (K,), deviations (U, K).

        J = −(1/Ω) Σ_i ω_i log σ(s_i (μ + δ_{u(i)})ᵀ B d_i) + ½ alpha ‖B‖² + (1/2Ω) (Σ_u ‖δ_u‖² + ‖μ‖²)

    An ungrouped row has δ = 0.

    Parameters
    ----------
    rows : Comparisons
    index : ndarray of int of shape (n_rows,)
        User of every row, 0 to n_users − 1; −1 for an ungrouped row.
    n_users : int
        U.
    n_components : int
        K.
    alpha : float
    """

    def __init__(self, rows: Comparisons, index: np.ndarray, n_users: int, n_components: int, alpha: float):
        self.rows = rows
        self.n_users = n_users
        self.n_components = n_components
        self.alpha = alpha
        self.dtype = compute_dtype(rows.difference)
        self.width = rows.difference.shape[1]
        self.total = rows.total_weight
        self.share = rows.dense_weight / self.total
        self.signs = rows.dense_signs.astype(self.dtype)
        # The last row of weights is the centre, to which position -1 leads.
        self.index = index
        members = np.where(index < 0, n_users, index)
        self.membership = csr_array(
            (np.ones(len(index)), (members, np.arange(len(index)))), shape=(n_users + 1, len(index))
        )

    def unpack(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """B (K, d), μ (K,) and δ (U, K)."""
        k, size = self.n_components, self.n_components * self.width
        return vector[:size].reshape(k, self.width), vector[size : size + k], vector[size + k :].reshape(-1, k)

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J and its gradient, both float64."""
        basis, centre, deviations = self.unpack(vector)
        each = np.vstack([centre + deviations, centre]).T.astype(self.dtype)[:, self.index]
        margins = linear_products(self.rows.difference, basis.astype(self.dtype))
        odds = self.signs * np.einsum("kn,kn->n", each, margins)
        outer = -(self.share * self.rows.dense_signs).astype(self.dtype) * sigmoid(-odds)
        d_basis = linear_gradient(each * outer, self.rows.difference, 0, self.width) + self.alpha * basis
        d_weights = self.membership @ (margins * outer).T.astype(np.float64)
        squares = float(np.vdot(deviations, deviations) + centre @ centre) / self.total
        loss = -float(self.share @ log_sigmoid(odds)) + 0.5 * self.alpha * float(np.vdot(basis, basis)) + 0.5 * squares
        d_centre = d_weights.sum(axis=0) + centre / self.total
        d_deviations = d_weights[:-1] + deviations / self.total
        return loss, np.concatenate([d_basis.ravel(), d_centre, d_deviations.ravel()])

    def scale(self) -> np.ndarray:
        """Root of the usual curvature of J in every parameter."""
        heads = head_scale(difference_norm(self.rows), (self.n_components, self.width)).ravel()
        mass = np.concatenate([[1.0], (self.membership @ self.share)[:-1]])
        weights = np.sqrt(mass / 4 + 1 / self.total)
        return np.concatenate(
            [with_penalties(heads, np.full(heads.shape, self.alpha)), np.repeat(weights, self.n_components)]
        )
