"""Units: what draws one component, that is, a group with all its rows, or one ungrouped row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micropref._rows.groups import Groups

__all__ = ["Units", "number_units"]


def number_units(groups: Groups | None, n_samples: int) -> tuple[NDArray[np.intp], int]:
    """Unit of every row (n_samples,), and their number: first all groups, then every ungrouped row by itself."""
    if groups is None:
        return np.arange(n_samples), n_samples
    unit = groups.index.astype(np.intp)
    alone = unit < 0
    n_alone = int(alone.sum())
    unit[alone] = groups.n_groups + np.arange(n_alone)
    return unit, groups.n_groups + n_alone


@dataclass(frozen=True)
class Units:
    """The units of grouped rows, with what each of them weighs.

    Attributes
    ----------
    index : ndarray of int32 of shape (n_samples,)
        Unit of every row.
    outer : ndarray of shape (n_units,)
        a_u: weight of the unit's log-likelihood, 1 for a group and ω_i for an ungrouped row, times the group's weight.
    mass : ndarray of shape (n_units,)
        Ω_u: weight of the unit's rows.
    n_groups : int
    """

    index: NDArray[np.int32]
    outer: NDArray[np.float64]
    mass: NDArray[np.float64]
    n_groups: int

    @classmethod
    def create(
        cls, groups: Groups, weight: NDArray[np.float64] | None, group_weight: NDArray[np.float64] | None = None
    ) -> Units:
        """The units of some rows with their weights ω_i and those of their groups; None means 1 everywhere."""
        index, n_units = number_units(groups, len(groups.index))
        mass = np.bincount(index, weights=weight, minlength=n_units).astype(np.float64)
        outer = mass.copy()
        # A group without weight says nothing, whatever evidence it has from before.
        outer[: groups.n_groups] = mass[: groups.n_groups] > 0
        if group_weight is not None:
            of_unit = np.ones(n_units)
            of_unit[index] = group_weight  # the same in every row of a unit
            outer *= of_unit
        return cls(index.astype(np.int32), outer, mass, groups.n_groups)

    @property
    def n_units(self) -> int:
        return len(self.mass)

    def inner(self, rows: slice, weight: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Weight of every row inside its unit: ω_i in a group, 1 for an ungrouped row; None where all are 1."""
        if weight is None:
            return None
        return np.where(self.index[rows] < self.n_groups, weight[rows], 1.0)
