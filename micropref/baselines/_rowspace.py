"""Rewards shrunk towards a common one, solved by Newton steps in the space that a person's few rows span.

Many small problems at once, b = 1, 2, …, each with m rows d_i, margins base_i under the common reward, and

    F(v) = −Σ_i ω_i log σ(s_i (base_i + vᵀd_i)) + ½ λ ‖v‖²,

whose minimum lies in the span of the rows. With an orthonormal basis Q (d, r) of it, r = min(m, d), and D = R Qᵀ, the
problem is the same one for z = Qᵀv with rows R (m, r).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from micropref.kernels._pointwise import log_sigmoid, sigmoid

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
    z = np.zeros((len(root), root.shape[2])) if start is None else start.copy()
    diagonal = np.arange(root.shape[2])
    unsolved = np.arange(len(root))
    for _ in range(_MAX_STEPS):
        R, b, s, ω = (part if len(unsolved) == len(root) else part[unsolved] for part in (root, base, signs, weight))
        here = z[unsolved]
        margins = s * (b + _times(R, here))
        wrong = sigmoid(-margins)
        gradient = penalty * here - _times(np.swapaxes(R, 1, 2), ω * s * wrong)
        hessian = np.swapaxes(R, 1, 2) @ (R * (ω * wrong * (1 - wrong))[:, :, None])
        hessian[:, diagonal, diagonal] += penalty
        step = -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        decrement = -np.einsum("br,br->b", gradient, step)
        z[unsolved] = _descended(here, step, decrement, R, b, s, ω, penalty)
        unsolved = unsolved[decrement > _DECREMENT]
        if not len(unsolved):
            break
    margins = signs * (base + _times(root, z))
    return Deviations(z, weight * signs * sigmoid(-margins), _loss(z, margins, weight, penalty), not len(unsolved))


def _descended(
    here: np.ndarray,
    step: np.ndarray,
    decrement: np.ndarray,
    R: np.ndarray,
    base: np.ndarray,
    signs: np.ndarray,
    weight: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Where halved steps first decrease F sufficiently; far from the minimum, a whole one may lead upwards."""
    before, along = signs * (base + _times(R, here)), signs * _times(R, step)
    loss = _loss(here, before, weight, penalty)
    rounding = 1e-14 * (1 + np.abs(loss))
    size = np.ones(len(here))
    for _ in range(_MAX_HALVINGS):
        there = _loss(here + size[:, None] * step, before + size[:, None] * along, weight, penalty)
        too_far = there > loss - _SUFFICIENT * size * decrement + rounding
        if not too_far.any():
            break
        size[too_far] /= 2
    return here + size[:, None] * step


def _loss(z: np.ndarray, margins: np.ndarray, weight: np.ndarray, penalty: float) -> np.ndarray:
    return -np.einsum("bm,bm->b", weight, log_sigmoid(margins)) + 0.5 * penalty * np.einsum("br,br->b", z, z)


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[:, :, None])[:, :, 0]
