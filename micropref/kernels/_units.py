"""Units of rows as the kernels take them: what draws one component, and where its rows lie."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref.kernels import _threads

__all__ = ["RowUnits"]


@dataclass(frozen=True)
class RowUnits:
    """Units one after the other, in the order of their first rows, each with all its rows.

    Where the rows of every unit lie next to one another, that is the order of the rows themselves. Units without rows,
    or without any weight, add nothing to a sum and are left out: their rows are not read.

    Attributes
    ----------
    order : ndarray of shape (n_used,) or None
        The rows, unit after unit; None: all, as they lie.
    starts : ndarray of shape (n_present + 1,)
        Place in `order` of the first row of every unit that counts, and the number of their rows.
    numbers : ndarray of shape (n_present,)
        Which of all units each of them is.
    outer : ndarray of shape (n_units,)
        a_u, the weight of a unit's log-likelihood.
    mass : ndarray of shape (n_units,)
        Ω_u, the weight of the negative entropy of its mixture weights.
    """

    order: NDArray[np.intp] | None
    starts: NDArray[np.intp]
    numbers: NDArray[np.intp]
    outer: NDArray[np.float64]
    mass: NDArray[np.float64]

    @classmethod
    def of(cls, index: NDArray[Any], outer: NDArray[np.float64], mass: NDArray[np.float64]) -> RowUnits:
        """The units of rows whose units' numbers are `index`."""
        changes = np.flatnonzero(index[1:] != index[:-1]) + 1
        starts = np.concatenate([[0], changes, [len(index)]]).astype(np.intp) if len(index) else np.zeros(1, np.intp)
        numbers = index[starts[:-1]].astype(np.intp)
        counts = np.bincount(index, minlength=len(outer))
        used = (outer != 0) | (mass != 0)
        if len(numbers) > np.count_nonzero(counts):
            order, numbers = _gathered(index, numbers, starts, counts)
        elif used[numbers].all():
            return cls(None, starts, numbers, outer, mass)
        else:
            order = np.arange(len(index))
        numbers = numbers[used[numbers]]
        order = order[used[index[order]]]
        return cls(order, np.concatenate([[0], np.cumsum(counts[numbers])]).astype(np.intp), numbers, outer, mass)

    @property
    def in_stored_order(self) -> bool:
        """Whether the rows come in the order in which they are stored."""
        return self.order is None or bool(np.all(self.order[1:] > self.order[:-1]))

    @property
    def n_present(self) -> int:
        return len(self.numbers)

    @property
    def largest(self) -> int:
        """Number of rows of the largest unit."""
        return int(np.diff(self.starts).max(initial=0))

    def slices(self, width: int) -> list[slice]:
        """Units split for threads as `_threads.split` splits rows of this width."""
        rows = _threads.split(int(self.starts[-1]), width)
        cuts = np.unique(np.searchsorted(self.starts, [0, *(some.stop for some in rows)]))
        return [slice(int(a), int(b)) for a, b in pairwise(cuts)]

    def blocks(self, some: slice, max_rows: int) -> list[slice]:
        """The same units in blocks of at most `max_rows` rows, or of one unit."""
        found, first = [], some.start
        while first < some.stop:
            after = int(np.searchsorted(self.starts, self.starts[first] + max_rows, side="right")) - 1
            last = min(max(first + 1, after), some.stop)
            found.append(slice(first, last))
            first = last
        return found


def _gathered(
    index: NDArray[Any], runs: NDArray[np.intp], starts: NDArray[np.intp], counts: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All rows, unit after unit, and the units in the order of their first rows.

    `runs` are the units of rows that lie next to one another, from `starts` on.
    """
    first = np.full(len(counts), len(index), np.intp)
    first[runs[::-1]] = starts[:-1][::-1]  # the first of several runs is the last that is written
    numbers = np.argsort(first, kind="stable")[: np.count_nonzero(counts)]
    place = np.empty(len(counts), np.int32)
    place[numbers] = np.arange(len(numbers), dtype=np.int32)
    return np.argsort(place[index], kind="stable"), numbers
