"""Before fitting: do annotators answer often enough to identify heads?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._rows.groups import check_groups
from micropref._support.text import counted
from micropref.pairs import split_pairs

_ENOUGH = 10  # as many observations for each number to be found, as is usual for regressions


@dataclass(frozen=True)
class IdentifiabilityReport:
    """Whether the design of the data can identify heads.

    Parameters
    ----------
    n_rows : int
    n_groups : int
        Annotators with at least one row.
    n_ungrouped : int
        Rows of an unknown annotator, each independent of the others.
    pairs_per_group : tuple of three floats
        Smallest, median and largest number of rows of a group; zeros without groups.
    n_repeats : int
        Rows beyond the first of each group. Only they say which answers go together.
    effective_dimension : float
        Participation ratio (Σ λ)² / Σ λ² of the second moments of the differences: about how many
        numbers of a head the rows determine.
    """

    n_rows: int
    n_groups: int
    n_ungrouped: int
    pairs_per_group: tuple[float, float, float]
    n_repeats: int
    effective_dimension: float

    @property
    def repeats_per_dimension(self) -> float:
        """Repeats per effective dimension of a head."""
        return self.n_repeats / self.effective_dimension

    @property
    def sufficient(self) -> bool:
        """Whether there are at least ten repeats per effective dimension of a head, a rule of thumb."""
        return self.repeats_per_dimension >= _ENOUGH

    @property
    def explanation(self) -> str:
        """The verdict in words, with what to do."""
        low, middle, high = self.pairs_per_group
        groups = counted(self.n_groups, "group")
        design = f"{counted(self.n_rows, 'comparison')}, {groups} of {low:g} to {high:g} (median {middle:g})"
        if self.n_repeats == 0:
            return (
                f"{design}: no annotator is known to answer twice. One comparison each shows only the population's "
                "average, and if preferences cancel on every pair, no number of comparisons identifies the heads. "
                "Record the annotator of every comparison, and ask each annotator at least twice, or better five times."
            )
        per = (
            f"{self.repeats_per_dimension:.1f} repeated answers per dimension, of about {self.effective_dimension:.0f}"
        )
        if self.sufficient:
            return f"{design}: {per}; enough to look for several heads."
        return (
            f"{design}: {per}; as a rule of thumb, {_ENOUGH} are enough. Heads may be identified only in part: ask the "
            "same annotators again rather than new ones, or reduce the features."
        )


def identifiability_report(
    X: Any, groups: ArrayLike | None = None, *, n_context_features: int = 0
) -> IdentifiabilityReport:
    """Report, before any fit, whether the annotators answer often enough to identify heads.

    Answers of one annotator are dependent through that annotator's component; those of different annotators are
    independent. So rows beyond the first of each group are what identifies heads whose average cancels.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        ``[context | difference]``.
    groups : array-like of shape (n_samples,), optional
        Annotator of every row; None, NaN or −1 for an unknown one.
    n_context_features : int, default=0

    Returns
    -------
    report : IdentifiabilityReport

    Raises
    ------
    ValueError
        For differences that are not finite, or all zero.
    """
    difference = np.asarray(to_numpy(split_pairs(X, n_context_features)[1]))
    n, d = difference.shape
    second = np.zeros((d, d))
    for start in range(0, n, 4096):
        block = difference[start : start + 4096].astype(np.float64)
        second += block.T @ block
    total, square = float(np.trace(second)), float((second**2).sum())
    if not np.isfinite(square) or total == 0:
        kind = "zeros only" if total == 0 else "NaN, infinity or numbers too large to square"
        raise ValueError(f"X: expected differences that are finite and not all zero, got {kind}")
    members = check_groups(groups, n)
    sizes = np.empty(0) if members is None else np.bincount(members.index[members.index >= 0])
    return IdentifiabilityReport(
        n_rows=n,
        n_groups=len(sizes),
        n_ungrouped=n - int(sizes.sum()),
        pairs_per_group=(float(sizes.min()), float(np.median(sizes)), float(sizes.max())) if len(sizes) else (0.0,) * 3,
        n_repeats=int((sizes - 1).sum()),
        effective_dimension=total**2 / square,
    )
