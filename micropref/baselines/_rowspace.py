"""Rewards shrunk towards a common one, solved by Newton steps in the space that a user's few rows span.

Many small problems at once, b = 1, 2, …, each with m rows d_i, margins base_i under the common reward, and

    F(v) = −Σ_i ω_i log σ(s_i (base_i + vᵀd_i)) + ½ λ ‖v‖²,

whose minimum lies in the span of the rows. With an orthonormal basis Q (d, r) of it, r = min(m, d), and D = R Qᵀ, the
problem is the same one for z = Qᵀv with rows R (m, r).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from micropref.kernels._pointwise import log_sigmoid, sigmoid

__all__ = ["Deviations", "deviations", "row_basis"]

# A Newton step squares the error: one that gains less than this many nats is the last one needed.
_DECREMENT = 1e-9
_MAX_STEPS = 100
_MAX_HALVINGS = 40
_SUFFICIENT = 1e-4


@dataclass(frozen=True)
class Deviations:
    """Solutions of a batch of problems.

    Attributes
    ----------
    variables : ndarray of shape (n_problems, r)
        z of every problem.
    pull : ndarray of shape (n_problems, m)
        ω_i s_i σ(−s_i (base_i + vᵀd_i)), minus the derivative of the loss by the margin before its sign.
    loss : ndarray of shape (n_problems,)
        F at the minimum, in nats.
    converged : bool
    """

    variables: np.ndarray
    pull: np.ndarray
    loss: np.ndarray
    converged: bool


def row_basis(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q (n_problems, d, r) and R (n_problems, m, r) for every stack of rows D (n_problems, m, d)."""
    basis, root = np.linalg.qr(np.swapaxes(rows.astype(np.float64, copy=False), 1, 2))
    return basis, np.ascontiguousarray(np.swapaxes(root, 1, 2))


def deviations(
    root: np.ndarray,
    base: np.ndarray,
    signs: np.ndarray,
    weight: np.ndarray,
    penalty: float,
    start: np.ndarray | None = None,
) -> Deviations:
    """Minimise F of the module's docstring for a batch of problems.

    Parameters
    ----------
    root : ndarray of shape (n_problems, m, r)
        R from `row_basis`. Problems of fewer rows are filled up with rows of weight 0.
    base, signs, weight : ndarray of shape (n_problems, m)
    penalty : float
        λ, positive.
    start : ndarray of shape (n_problems, r), optional
        `variables` of a similar batch.

    Returns
    -------
    Deviations
    """
    problems = _Problems(root, base, signs, weight, penalty)
    z = np.zeros((len(root), root.shape[2])) if start is None else start.copy()
    unsolved = np.arange(len(root))
    for _ in range(_MAX_STEPS):
        some = problems if len(unsolved) == len(root) else problems.of(unsolved)
        here = z[unsolved]
        step, decrement = some.newton_step(here)
        z[unsolved] = some.descended(here, step, decrement)
        unsolved = unsolved[decrement > _DECREMENT]
        if not len(unsolved):
            break
    margins = problems.margins(z)
    return Deviations(z, weight * signs * sigmoid(-margins), problems.loss(z, margins), not len(unsolved))


@dataclass(frozen=True)
class _Problems:
    """A batch of problems, in the terms of `deviations`; points and steps are (n_problems, r)."""

    root: np.ndarray
    base: np.ndarray
    signs: np.ndarray
    weight: np.ndarray
    penalty: float

    def of(self, which: np.ndarray) -> _Problems:
        """Some of them, by position."""
        return _Problems(self.root[which], self.base[which], self.signs[which], self.weight[which], self.penalty)

    def margins(self, z: np.ndarray) -> np.ndarray:
        """Margins (n_problems, m) of the rows."""
        margins: np.ndarray = self.signs * (self.base + _times(self.root, z))
        return margins

    def loss(self, z: np.ndarray, margins: np.ndarray) -> np.ndarray:
        """F (n_problems,) at points with these margins."""
        squares = np.einsum("br,br->b", z, z)
        loss: np.ndarray = -np.einsum("bm,bm->b", self.weight, log_sigmoid(margins)) + 0.5 * self.penalty * squares
        return loss

    def newton_step(self, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step to the minimum of the quadratic that F resembles here, and what that would gain twice over, in nats."""
        transposed = np.swapaxes(self.root, 1, 2)
        wrong = sigmoid(-self.margins(here))
        gradient = self.penalty * here - _times(transposed, self.weight * self.signs * wrong)
        hessian = transposed @ (self.root * (self.weight * wrong * (1 - wrong))[:, :, None])
        diagonal = np.arange(here.shape[1])
        hessian[:, diagonal, diagonal] += self.penalty
        try:
            step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            step = np.full_like(here, np.nan)
        if not np.isfinite(step).all():
            # Weights or features further apart than double precision reaches: what it cannot see is left alone.
            step = -_times(np.linalg.pinv(hessian, hermitian=True), gradient)
        return step, -np.einsum("br,br->b", gradient, step)

    def descended(self, here: np.ndarray, step: np.ndarray, decrement: np.ndarray) -> np.ndarray:
        """Where halved steps first decrease F sufficiently; far from the minimum, a full one may lead upwards."""
        before, along = self.margins(here), self.signs * _times(self.root, step)
        loss = self.loss(here, before)
        rounding = 1e-14 * (1 + np.abs(loss))
        size = np.ones(len(here))
        for _ in range(_MAX_HALVINGS):
            there = self.loss(here + size[:, None] * step, before + size[:, None] * along)
            too_far = there > loss - _SUFFICIENT * size * decrement + rounding
            if not too_far.any():
                break
            size[too_far] /= 2
        reached: np.ndarray = here + size[:, None] * step
        return reached


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    products: np.ndarray = (matrices @ vectors[:, :, None])[:, :, 0]
    return products
