"""Which labels determine linear parameters best: greedy designs by the determinant of the information.

Parameters θ are K vectors of width c with the prior N(0, I), and the probability of row i's label depends on them, to
first order, as a_i ⊗ x_i: with its slope a_i (K,) in the K linear functions of the inputs x_i (c,), over the label's
standard deviation √(p (1 − p)). The information of labels S about θ is then, by Laplace's approximation,

    I(y_S; θ) = ½ log det(I + K_S),        K_ij = (a_iᵀ a_j)(x_iᵀ x_j),

and one more label adds ½ log(1 + K_jj given S): a Gaussian process whose posterior needs no labels (Krause, Singh and
Guestrin, 2008). It is submodular, so that greedy choices have at least 1 − 1/e of the largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, solve_triangular

from micropref._engine.question_batches import pick

__all__ = ["LabelDesign", "LinearLabels"]

Floats = NDArray[np.float64]


class LinearLabels:
    """Rows whose labels depend on linear parameters.

    Parameters
    ----------
    slopes : ndarray of shape (n, K)
        a_i.
    inputs : ndarray of shape (n, c)
        x_i.
    """

    def __init__(self, slopes: Floats, inputs: Floats):
        self.slopes, self.inputs = slopes, inputs

    def __len__(self) -> int:
        return len(self.slopes)

    @property
    def n_parameters(self) -> int:
        return int(self.slopes.shape[1] * self.inputs.shape[1])

    def squares(self) -> Floats:
        """K_ii, (n,)."""
        return np.asarray((self.slopes**2).sum(axis=1) * (self.inputs**2).sum(axis=1))

    def products(self, others: LinearLabels) -> Floats:
        """K_ij, (n, m)."""
        return np.asarray((self.slopes @ others.slopes.T) * (self.inputs @ others.inputs.T))

    def part(self, rows: Any) -> LinearLabels:
        return LinearLabels(self.slopes[rows], self.inputs[rows])

    def features(self) -> Floats:
        """a_i ⊗ x_i, (n, K c)."""
        return np.asarray(np.einsum("nk,nc->nkc", self.slopes, self.inputs).reshape(len(self), self.n_parameters))


class LabelDesign:
    """Candidates, and how much their labels would add to those that are there.

    Parameters
    ----------
    candidates : LinearLabels
    labelled : LinearLabels, optional
        Rows that have labels.
    """

    def __init__(self, candidates: LinearLabels, labelled: LinearLabels | None = None):
        self._candidates = candidates
        # The posterior kernel is that of the candidates less the products of these columns.
        self._known = np.zeros((len(candidates), 0))
        if labelled is not None and len(labelled):
            self._learn(labelled)
        self._variance = np.maximum(self._candidates.squares() - (self._known**2).sum(axis=1), 0.0)

    def _learn(self, labelled: LinearLabels) -> None:
        """Condition on labels, by their number or by that of the parameters, whichever is smaller."""
        if len(labelled) <= labelled.n_parameters:
            factor = cho_factor(np.eye(len(labelled)) + labelled.products(labelled), lower=True)[0]
            self._known = solve_triangular(factor, labelled.products(self._candidates), lower=True).T
            return
        features = labelled.features()
        factor = cho_factor(np.eye(features.shape[1]) + features.T @ features, lower=True)[0]
        whitened = solve_triangular(factor, self._candidates.features().T, lower=True).T
        # Of these features the posterior is the prior.
        self._candidates = LinearLabels(np.ones((len(whitened), 1)), whitened)

    def gains(self) -> Floats:
        """Information (n,) in one more label, in nats."""
        return np.asarray(0.5 * np.log1p(self._variance))

    def label(self, row: int) -> None:
        """Condition on the label of a candidate."""
        column = self._candidates.products(self._candidates.part([row]))[:, 0] - self._known @ self._known[row]
        column /= np.sqrt(1.0 + self._variance[row])
        self._known = np.column_stack([self._known, column])
        self._variance = np.maximum(self._variance - column**2, 0.0)

    def choose(self, n_queries: int, random: np.random.RandomState) -> NDArray[np.intp]:
        """Rows to label together, the first one first."""
        left = np.zeros(len(self._candidates))
        chosen: list[int] = []
        for _ in range(n_queries):
            chosen.append(pick(self.gains() + left, random))
            left[chosen[-1]] = -np.inf
            self.label(chosen[-1])
        return np.array(chosen, dtype=np.intp)
