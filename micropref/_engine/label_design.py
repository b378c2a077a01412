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

# The largest squared correlation of two labels: each has noise of its own.
_CORRELATED = 1.0 - 1e-12


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

    def with_more(self, others: LinearLabels) -> LinearLabels:
        """These rows and others after them."""
        slopes, inputs = (np.concatenate(two) for two in ((self.slopes, others.slopes), (self.inputs, others.inputs)))
        return LinearLabels(slopes, inputs)

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

    def choose(
        self,
        n_queries: int,
        random: np.random.RandomState,
        targets: NDArray[np.intp] | None = None,
        n_askable: int | None = None,
    ) -> NDArray[np.intp]:
        """Rows to label together, the first one first.

        Parameters
        ----------
        n_queries : int
        random : RandomState
            Chooses among equal ones.
        targets : ndarray of int, optional
            Candidates whose labels are asked about; None: the parameters are.
        n_askable : int, optional
            Only the first candidates, so many, can be labelled; None: all.
        """
        left = np.zeros(len(self._candidates))
        left[len(left) if n_askable is None else n_askable :] = -np.inf
        shared = None if targets is None else self._covariances(targets)
        chosen: list[int] = []
        for _ in range(n_queries):
            gains = self.gains() if targets is None or shared is None else self._target_gains(shared, targets)
            chosen.append(pick(gains + left, random))
            left[chosen[-1]] = -np.inf
            self.label(chosen[-1])
            if shared is not None and targets is not None:
                shared -= np.outer(self._known[targets, -1], self._known[:, -1])
        return np.array(chosen, dtype=np.intp)

    def _covariances(self, targets: NDArray[np.intp]) -> Floats:
        """Of what the labels of targets and of all candidates depend on, (n_targets, n)."""
        base = self._candidates.part(targets).products(self._candidates)
        return np.asarray(base - self._known[targets] @ self._known.T)

    def _target_gains(self, shared: Floats, targets: NDArray[np.intp]) -> Floats:
        """Mean over targets t of I(y_j; y_t) = −½ log(1 − ρ²), ρ the correlation of the labels."""
        size = (1.0 + self._variance) * (1.0 + self._variance[targets])[:, None]
        return np.asarray(-0.5 * np.log1p(-np.minimum(shared**2 / size, _CORRELATED)).mean(axis=0))
