"""A normal distribution of users' weights, by EM with Laplace's approximation of every user's posterior."""

from __future__ import annotations

import numpy as np

from micropref.baselines._rowspace import deviations
from micropref.kernels._pointwise import sigmoid

__all__ = ["Population", "cholesky"]

_MAX_ROUNDS = 60
_TOL = 1e-3


class Population:
    """Mean μ (K,) and covariance Σ (K, K) of users' weights λ_u, and the weights that votes say of them.

    Votes of user u have the margins s_i λ_uᵀ z_i. Σ has an inverse Wishart prior with the mean of one nat² and K + 1
    degrees of freedom, which keeps it from collapsing where users are few.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_components)
        z_i.
    signs, weight : ndarray of shape (n_rows,)
    index : ndarray of int of shape (n_rows,)
        User of every row; −1 for rows that are left out.
    n_users : int
    """

    def __init__(self, values: np.ndarray, signs: np.ndarray, weight: np.ndarray, index: np.ndarray, n_users: int):
        self.n_users, self.n_components = n_users, values.shape[1]
        order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
        members = np.split(order, np.searchsorted(index[order], np.arange(1, n_users)))
        # Users of about as many rows are solved together; sizes are rounded up to powers of √2.
        padded = np.array([int(2 ** (np.ceil(2 * np.log2(max(len(m), 1))) / 2)) for m in members])
        self._batches = []
        for size in np.unique(padded):
            users = np.flatnonzero(padded == size)
            rows, real = np.zeros((len(users), size), dtype=int), np.zeros((len(users), size))
            for row, filled, user in zip(rows, real, users, strict=True):
                row[: len(members[user])], filled[: len(members[user])] = members[user], 1.0
            self._batches.append(
                (users, values[rows].astype(np.float64) * real[:, :, None], signs[rows], weight[rows] * real)
            )
        self.mean, self.covariance = np.zeros(self.n_components), np.eye(self.n_components)
        self._variables = np.zeros((n_users, self.n_components))

    def fit(self) -> Population:
        """Alternate until neither moment moves by more than a thousandth of the largest standard deviation."""
        for _ in range(_MAX_ROUNDS):
            root = cholesky(self.covariance)
            first, second = self._moments(root)
            mean = self.mean + root @ first
            spread = root @ (second - np.outer(first, first)) @ root.T
            degrees = self.n_components + 1
            covariance = (self.n_users * spread + degrees * np.eye(self.n_components)) / (self.n_users + degrees)
            moved = max(np.abs(mean - self.mean).max(), np.abs(covariance - self.covariance).max())
            size = float(covariance.diagonal().max())
            # The variables are those of the new root, so that Newton's method goes on from where it was.
            weights = self.mean + self._variables @ root.T
            self.mean, self.covariance = mean, covariance
            self._variables = np.linalg.solve(cholesky(covariance), (weights - mean).T).T
            if moved <= _TOL * max(size, np.sqrt(size)):
                break
        self._moments(cholesky(self.covariance))
        return self

    @property
    def weights(self) -> np.ndarray:
        """λ_u (n_users, K)."""
        found: np.ndarray = self.mean + self._variables @ cholesky(self.covariance).T
        return found

    def _moments(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means over users of the first and second moments of their standardised weights."""
        first, second = np.zeros(self.n_components), np.zeros((self.n_components, self.n_components))
        for users, values, signs, weight in self._batches:
            along, base = values @ root, values @ self.mean
            found = deviations(along, base, signs, weight, 1.0, self._variables[users])
            z = self._variables[users] = found.variables
            p = sigmoid(base + np.einsum("bmk,bk->bm", along, z))
            curvature = np.swapaxes(along, 1, 2) @ (along * (weight * p * (1 - p))[:, :, None])
            curvature += np.eye(self.n_components)
            first += z.sum(axis=0)
            second += np.linalg.inv(curvature).sum(axis=0) + z.T @ z
        return first / self.n_users, second / self.n_users


def cholesky(covariance: np.ndarray) -> np.ndarray:
    """A root of a covariance, of one that is singular in floats, too."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        root: np.ndarray = vectors * np.sqrt(np.maximum(values, 1e-12 * max(float(values[-1]), 1e-300)))
        return root
