"""Evidence of units whose votes are about few distinct pairs: every pair is scored once for all votes on it.

With margins M_kj of the distinct differences, of A⁺_uj, the weight of the votes of unit u for the first response of
pair j, and of A⁻_uj, that for the second:

    e_uk = Σ_j A⁺_uj log σ(M_kj) + A⁻_uj log σ(−M_kj)

    −∂(Σ_u a_u ℓ_u)/∂M_kj = σ(M_kj) Σ_u A⁻_uj a_u r_uk − σ(−M_kj) Σ_u A⁺_uj a_u r_uk

Both are one sparse product with all votes; logarithms and exponentials are of distinct pairs only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from micropref._rows.comparisons import Comparisons
from micropref._rows.distinct_pairs import DistinctPairs
from micropref._rows.units import Units
from micropref.kernels._pointwise import log_sigmoids, sigmoid
from micropref.kernels._products import linear_gradient, linear_products

__all__ = ["PairVotes"]

Floats = NDArray[np.floating]


class PairVotes:
    """The votes of units on distinct pairs.

    Parameters
    ----------
    pairs : DistinctPairs
        Of the rows.
    rows : Comparisons
    units : Units
        Who voted.
    """

    def __init__(self, pairs: DistinctPairs, rows: Comparisons, units: Units):
        self.differences = pairs.differences
        second = pairs.signs * (1 if rows.signs is None else rows.signs) < 0
        weight = units.inner(slice(None), rows.weight)
        votes = np.ones(rows.n_samples) if weight is None else weight
        shape = units.n_units, 2 * pairs.n_distinct
        # Votes of one unit for the same response of the same pair are added up.
        self._votes: Any = csr_matrix((votes, (units.index, pairs.index + pairs.n_distinct * second)), shape=shape)
        self._voters: Any = self._votes.T.tocsr()

    def evidence(self, heads: Floats) -> tuple[NDArray[np.float64], Floats]:
        """e_uk of every unit under any number of heads, (n_heads, n_units), and margins (n_heads, n_distinct)."""
        margins = linear_products(self.differences, heads)
        n = len(self.differences)
        said = np.empty((2 * n, len(heads)))
        first, second = log_sigmoids(margins)
        said[:n], said[n:] = first.T, second.T
        return (self._votes @ said).T, margins

    def gradient(self, responsibilities: NDArray[np.float64], margins: Floats) -> NDArray[np.float64]:
        """Gradient (n_heads, n_features) of −Σ_u a_u ℓ_u, given a_u r_uk (n_heads, n_units)."""
        n, width = self.differences.shape
        voted = (self._voters @ np.ascontiguousarray(responsibilities.T)).T
        d_margins = sigmoid(margins) * voted[:, n:] - sigmoid(-margins) * voted[:, :n]
        return linear_gradient(d_margins.astype(margins.dtype), self.differences, 0, width)
