"""Loss and gradient of low-rank rewards, in nats: a shared basis of heads and simplex weights of every user."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.special import softmax

from micropref._arrays.backend import compute_dtype
from micropref._engine.scaling import head_scale, with_penalties
from micropref._rows.comparisons import Comparisons
from micropref.baselines._heads import difference_norm
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.kernels._products import linear_gradient, linear_products

__all__ = ["LowRankObjective", "WeightObjective"]

# Usual distance between the margins of two heads once they are learned, in nats. Between 3 and 20 the solver needs as
# many iterations; at 1, which is how heads begin, it needs three times as many.
_SPREAD = 6.0


class LowRankObjective:
    """J of `LowRankRewards` as a function of one flat vector: basis B (K, d), centre θ_0 (K,), offsets δ_u (U, K).

        J = −(1/Ω) Σ_i ω_i log σ(s_i Σ_k π_{u(i)k} b_kᵀ d_i) + ½ (alpha / K) ‖B‖²
            + (weight_penalty / 2Ω) (Σ_u ‖δ_u‖² + ‖θ_0‖²),        π_u = softmax(θ_0 + δ_u)

    An ungrouped row has π = softmax(θ_0).

    Parameters
    ----------
    rows : Comparisons
    index : ndarray of int of shape (n_rows,)
        User of every row, 0 to n_users − 1; −1 for an ungrouped row.
    n_users : int
        U. Without users the centre is fixed at zero: nothing tells the heads apart.
    n_components : int
        K.
    alpha, weight_penalty : float
    """

    def __init__(
        self,
        rows: Comparisons,
        index: np.ndarray,
        n_users: int,
        n_components: int,
        *,
        alpha: float,
        weight_penalty: float,
    ):
        self.rows = rows
        self.n_users = n_users
        self.dtype = compute_dtype(rows.difference)
        self.width = rows.difference.shape[1]
        self.n_components = n_components
        self.alpha = alpha / n_components
        self.total = rows.total_weight
        self.weight_penalty = weight_penalty / self.total
        self.share = rows.dense_weight / self.total
        self.signs = rows.dense_signs.astype(self.dtype)
        # The last row of weights is the population's, to which position -1 leads.
        self.index = index
        members = np.where(index < 0, n_users, index)
        self.membership = csr_array(
            (np.ones(len(index)), (members, np.arange(len(index)))), shape=(n_users + 1, len(index))
        )

    def unpack(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """B (K, d), θ_0 (K,) and δ (U, K); zeros for logits that are not parameters."""
        k, size = self.n_components, self.n_components * self.width
        basis = vector[:size].reshape(k, self.width)
        if len(vector) == size:
            return basis, np.zeros(k), np.zeros((self.n_users, k))
        return basis, vector[size : size + k], vector[size + k :].reshape(self.n_users, k)

    @property
    def has_weights(self) -> bool:
        """Whether weights of heads are parameters: there are heads to weigh, and users to tell them apart."""
        return self.n_components > 1 and self.n_users > 0

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J and its gradient, both float64."""
        basis, center, offsets = self.unpack(vector)
        weights = softmax(np.vstack([center + offsets, center]), axis=1)
        each = weights.T.astype(self.dtype)[:, self.index]
        margins = linear_products(self.rows.difference, basis.astype(self.dtype))
        odds = self.signs * np.einsum("kn,kn->n", each, margins)
        loss = -float(self.share @ log_sigmoid(odds)) + 0.5 * self.alpha * float(np.vdot(basis, basis))
        outer = -(self.share * self.rows.dense_signs).astype(self.dtype) * sigmoid(-odds)
        d_basis = linear_gradient(each * outer, self.rows.difference, 0, self.width) + self.alpha * basis
        if not self.has_weights:
            return loss, d_basis.ravel()
        d_weights = self.membership @ (margins * outer).T.astype(np.float64)
        d_logits = weights * (d_weights - np.einsum("uk,uk->u", weights, d_weights)[:, None])
        loss += 0.5 * self.weight_penalty * float(np.vdot(offsets, offsets) + center @ center)
        d_center = d_logits.sum(axis=0) + self.weight_penalty * center
        d_offsets = d_logits[:-1] + self.weight_penalty * offsets
        return loss, np.concatenate([d_basis.ravel(), d_center, d_offsets.ravel()])

    def random_start(self, random: np.random.RandomState, margin: float, logit: float) -> np.ndarray:
        """Random heads and offsets with margins and logits of these sizes; zero where the problem is convex.

        Users of equal weights teach all heads the same: a solver that starts there first makes the heads equal, and may
        take that saddle for the minimum.
        """
        size = self.n_components * self.width
        if not self.has_weights:
            return np.zeros(size)
        basis = random.normal(size=size) * margin / difference_norm(self.rows)
        offsets = logit * random.normal(size=self.n_users * self.n_components)
        return np.concatenate([basis, np.zeros(self.n_components), offsets])

    def scale(self) -> np.ndarray:
        """Root of the usual curvature of J in every parameter."""
        shape = (self.n_components, self.width)
        # At equal weights a head has a K-th of every margin, and its curvature a K-th of that again.
        heads = head_scale(difference_norm(self.rows) / self.n_components, shape).ravel()
        parts = [with_penalties(heads, np.full(heads.shape, self.alpha))]
        if self.has_weights:
            mass = np.concatenate([[1.0], (self.membership @ self.share)[:-1]])
            logits = np.sqrt(mass * (_SPREAD / self.n_components) ** 2 + self.weight_penalty)
            parts.append(np.repeat(logits, self.n_components))
        return np.concatenate(parts)


class WeightObjective:
    """What one user's votes say about the weights, the basis given: the part of Ω J that δ_u is in.

        −Σ_i ω_i log σ(s_i Σ_k π_k m_ik) + (weight_penalty / 2) ‖θ − θ_0‖²,        π = softmax(θ)

    Parameters
    ----------
    margins : ndarray of shape (n_votes, n_components)
        s_i m_ik.
    weight : ndarray of shape (n_votes,)
    center : ndarray of shape (n_components,)
        θ_0.
    weight_penalty : float
    """

    def __init__(self, margins: np.ndarray, weight: np.ndarray, center: np.ndarray, weight_penalty: float):
        self.margins = margins
        self.weight = weight
        self.center = center
        self.weight_penalty = weight_penalty

    def value_and_gradient(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient with respect to θ."""
        weights = softmax(logits)
        odds = self.margins @ weights
        d_weights = -(self.weight * sigmoid(-odds)) @ self.margins
        away = logits - self.center
        value = -float(self.weight @ log_sigmoid(odds)) + 0.5 * self.weight_penalty * float(away @ away)
        return value, weights * (d_weights - weights @ d_weights) + self.weight_penalty * away
