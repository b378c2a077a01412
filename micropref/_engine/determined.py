"""Whether comparisons determine a reward: which items meet, and whether a reward can win every comparison.

Without a penalty the likelihood of a Bradley-Terry model has a maximum if and only if no direction v of the reward wins
or ties every comparison and wins one: s_i d_iᵀ v ≥ 0 for all i, > 0 for one (Albert and Anderson, Biometrika 71, 1984).
Along such a direction it grows without end. Where columns are items, d = e_i − e_j, this says that the items cannot be
divided into two sets of which one never loses to the other (Ford, American Mathematical Monthly 64, 1957).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from micropref.kernels._pointwise import log_sigmoid

__all__ = ["Games", "are_sure", "games_between_items", "is_separated"]

# Rows from which most tables are seen to be no games.
_FIRST_ROWS = 64
# Entries of a linear programme that is solved in about a second.
_MOST_ENTRIES = 200_000
# Nats by which the head of a unit leads where there is no doubt.
_SURE = 5.0

Floats = NDArray[np.float64]


class Games(NamedTuple):
    """Comparisons of items, each a column: who won, and who lost.

    Attributes
    ----------
    winner, loser : ndarray of int of shape (n,)
    n_items : int
        Number of columns.
    """

    winner: NDArray[np.intp]
    loser: NDArray[np.intp]
    n_items: int

    def parts(self) -> list[NDArray[np.intp]]:
        """Items that meet, over others too: sets between which there is no comparison, the largest first."""
        return self._components("weak")

    def one_sided(self) -> list[NDArray[np.intp]]:
        """Sets of items that never lose to the others, or never win; the largest set of items is not among them."""
        found = self._components("strong")
        of_item = np.empty(self.n_items, dtype=np.intp)
        for i, items in enumerate(found):
            of_item[items] = i
        winner, loser = of_item[self.winner], of_item[self.loser]
        outside = winner != loser
        won, lost = (np.bincount(side[outside], minlength=len(found)) for side in (winner, loser))
        return [items for i, items in enumerate(found) if i and (won[i] == 0) != (lost[i] == 0)]

    def _components(self, connection: str) -> list[NDArray[np.intp]]:
        graph = csr_matrix((np.ones(len(self.winner)), (self.winner, self.loser)), shape=(self.n_items,) * 2)
        _, label = connected_components(graph, connection=connection)
        met = np.zeros(self.n_items, dtype=bool)
        met[self.winner] = met[self.loser] = True
        found = [np.flatnonzero((label == i) & met) for i in np.unique(label[met])]
        return sorted(found, key=len, reverse=True)


def games_between_items(differences: NDArray[np.floating], signs: Floats) -> Games | None:
    """The items of rows (n, d) that each have one entry c > 0 and one −c; None where a row is another.

    Parameters
    ----------
    differences : ndarray of shape (n, d)
    signs : ndarray of shape (n,)
        +1 where the first response was preferred, else −1.
    """
    for part in (differences[:_FIRST_ROWS], differences):
        entries = part != 0
        if part.shape[1] < 2 or not len(part) or not (entries.sum(axis=1) == 2).all() or part.sum(axis=1).any():
            return None
    winner = np.where(signs > 0, differences.argmax(axis=1), differences.argmin(axis=1))
    loser = np.where(signs > 0, differences.argmin(axis=1), differences.argmax(axis=1))
    return Games(winner, loser, differences.shape[1])


def is_separated(differences: NDArray[np.floating], signs: Floats) -> bool:
    """Whether a reward wins or ties every comparison and wins one; False also where there are too many to ask."""
    if differences.size > _MOST_ENTRIES:
        return False
    won = differences.astype(np.float64) * signs[:, None]
    columns = np.abs(won).max(axis=0)
    won = won[:, columns > 0] / columns[columns > 0]
    rows = np.abs(won).max(axis=1, initial=0.0)
    won = won[rows > 0] / rows[rows > 0, None]
    if not won.size:
        return False
    found = linprog(-won.sum(axis=0), A_ub=-won, b_ub=np.zeros(len(won)), bounds=(-1.0, 1.0), method="highs")
    # Of the tolerance of the solver, 1e-7 a row.
    return bool(found.success and -found.fun > max(1e-3, 1e-6 * len(won)))


def are_sure(
    heads: Floats, differences: NDArray[np.floating], signs: Floats, groups: NDArray[np.integer] | None
) -> bool:
    """Whether every unit has a head that wins all its comparisons and leaves no doubt that it is the unit's.

    Longer heads then make the likelihood of all larger.

    Parameters
    ----------
    heads : ndarray of shape (K, d)
    differences : ndarray of shape (n, d)
    signs : ndarray of shape (n,)
    groups : ndarray of int of shape (n,), optional
        The group of every row, -1 for a row that is a unit of its own.
    """
    margins = (differences @ heads.T) * signs[:, None]
    unit = np.arange(len(margins)) if groups is None else groups + 0
    alone = unit < 0
    unit[alone] = unit.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    _, unit = np.unique(unit, return_inverse=True)
    evidence = np.stack([np.bincount(unit, weights=each) for each in log_sigmoid(margins).T], axis=1)
    best = evidence.argmax(axis=1)
    if (margins[np.arange(len(margins)), best[unit]] <= 0).any():
        return False
    if len(heads) == 1:
        return True
    second, first = np.partition(evidence, -2, axis=1)[:, -2:].T
    return bool((first - second >= _SURE).all())
