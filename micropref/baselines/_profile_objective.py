"""Loss and gradient of rewards shrunk towards a common one, in nats, the users' deviations minimised out."""

from __future__ import annotations

import numpy as np

from micropref._rows.comparisons import Comparisons
from micropref.baselines._rowspace import deviations, row_basis
from micropref.kernels._pointwise import log_sigmoid, sigmoid

__all__ = ["ProfileObjective"]


class ProfileObjective:
    """min_v J of `UserRewards` as a function of the common reward.

    Users with about as many rows are solved together, filled up with rows of weight 0 to the same number.
    """

    def __init__(self, rows: Comparisons, alpha: float, user_alpha: float):
        self.rows = rows
        self.alpha = alpha
        self.user_alpha = user_alpha
        self.converged = True
        index = np.full(len(rows.dense_signs), -1) if rows.groups is None else rows.groups.index
        index = np.where(rows.dense_weight > 0, index, -1)
        self._alone = np.flatnonzero(index < 0)
        order = np.argsort(index, kind="stable")[len(self._alone) :]
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
        members = np.split(order, starts[1:]) if len(order) else []
        # Sizes are rounded up to powers of √2.
        padded = np.array([int(2 ** (np.ceil(2 * np.log2(len(m))) / 2)) for m in members], dtype=int)
        self._batches = [
            _Batch.create(rows, [members[u] for u in np.flatnonzero(padded == size)]) for size in np.unique(padded)
        ]

    def value_and_gradient(self, common: np.ndarray) -> tuple[float, np.ndarray]:
        """J in nats and its gradient with respect to w_0."""
        rows = self.rows
        base = (rows.difference @ common.astype(rows.difference.dtype)).astype(np.float64)
        pull = np.zeros(len(base))
        margins = rows.dense_signs[self._alone] * base[self._alone]
        loss = -float(rows.dense_weight[self._alone] @ log_sigmoid(margins))
        pull[self._alone] = rows.dense_weight[self._alone] * rows.dense_signs[self._alone] * sigmoid(-margins)
        self.converged = True
        for batch in self._batches:
            found = deviations(
                batch.root, base[batch.index], batch.signs, batch.weight, self.user_alpha, batch.variables
            )
            batch.variables[:] = found.variables
            self.converged = self.converged and found.converged
            loss += float(found.loss.sum())
            real = batch.weight > 0
            pull[batch.index[real]] = found.pull[real]
        gradient = -(pull.astype(rows.difference.dtype) @ rows.difference).astype(np.float64)
        value = loss / rows.total_weight + 0.5 * self.alpha * float(common @ common)
        return value, gradient / rows.total_weight + self.alpha * common


class _Batch:
    """Users of about the same number of rows: positions, signs and weights (n_users, m), root of the rows, solution."""

    def __init__(self, index: np.ndarray, signs: np.ndarray, weight: np.ndarray, root: np.ndarray):
        self.index, self.signs, self.weight, self.root = index, signs, weight, root
        self.variables = np.zeros((len(root), root.shape[2]))

    @classmethod
    def create(cls, rows: Comparisons, members: list[np.ndarray]) -> _Batch:
        size = max(map(len, members))
        index = np.zeros((len(members), size), dtype=np.intp)
        real = np.arange(size) < np.array([len(m) for m in members])[:, None]
        index[real] = np.concatenate(members)
        root = np.concatenate(
            [row_basis(rows.difference[i[None]] * r[None, :, None])[1] for i, r in zip(index, real, strict=True)]
        )
        return cls(index, rows.dense_signs[index], np.where(real, rows.dense_weight[index], 0.0), root)
