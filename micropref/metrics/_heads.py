"""Which head serves which group best, chosen on labels."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._rows.groups import check_groups
from micropref._rows.labels import check_labels
from micropref._rows.weights import check_sample_weight
from micropref.metrics._accuracy import tie_half
from micropref.metrics._groups import groups_with_rows


@dataclass(frozen=True)
class BestHeads:
    """Result of `best_head_per_group`.

    Attributes
    ----------
    groups : tuple
        Ids of the groups, in ascending order (in order of appearance where ids have none).
    n : ndarray of int of shape (n_groups,)
        Rows with weight on which accuracies were measured.
    best : ndarray of int of shape (n_groups,)
        The head with the largest accuracy on the rows it was chosen on; the first of equals.
    accuracy : ndarray of shape (n_groups,)
        That head's accuracy, on the rows it was measured on.
    table : ndarray of shape (n_components, n_groups)
        Accuracy of every head in every group, on the same rows.
    held_out : bool
        Whether heads were chosen on other rows than those of `accuracy` and `table`.
    """

    groups: tuple[Hashable, ...]
    n: np.ndarray
    best: np.ndarray
    accuracy: np.ndarray
    table: np.ndarray
    held_out: bool

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the groups, each counted once."""
        return float(self.accuracy.mean())

    def rows(self) -> list[dict[str, Any]]:
        """One dict for every group, as for a table.

        Returns
        -------
        rows : list of dict
            Keys "group", "n", "best_head", "accuracy", and "head 0", "head 1", … for the table.
        """
        return [
            {
                "group": group,
                "n": int(self.n[g]),
                "best_head": int(self.best[g]),
                "accuracy": float(self.accuracy[g]),
                **{f"head {k}": float(value) for k, value in enumerate(self.table[:, g])},
            }
            for g, group in enumerate(self.groups)
        ]


def best_head_per_group(
    component_scores: ArrayLike,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    choose_on: ArrayLike | None = None,
) -> BestHeads:
    """The head that is right most often in every group, as in Tables 7 and 8 of Shen et al. (2025).

    Without `choose_on`, heads are chosen and judged on the same labels. The accuracy is then an **upper bound**: it is
    that of a choice that knows the best head beforehand, and it exceeds ½ even for useless heads, like the best of K
    coins thrown n times. With `choose_on`, the choice is judged on other rows.

    Parameters
    ----------
    component_scores : array-like of shape (n_samples, n_components)
        Margins of every head, as from `MixtureBradleyTerry.component_scores`; a margin of 0 counts one half.
    y : array-like of shape (n_samples,), optional
        None: the first response is preferred in every row.
    groups : array-like of shape (n_samples,), optional
        Attribute, annotator or context of every row; rows with None, NaN or -1 are left out. None: all are of one
        group, whose id is then "all".
    sample_weight : array-like of shape (n_samples,), optional
    choose_on : array-like of bool of shape (n_samples,), optional
        Rows on which heads are chosen; they are judged on the others.

    Returns
    -------
    found : BestHeads

    Raises
    ------
    ValueError
        If margins are not finite, lengths do not agree, or a group has no row with weight on one side of `choose_on`.

    Examples
    --------
    >>> margins = [[1, -1], [1, -1], [-1, 1], [-1, 1]]
    >>> found = best_head_per_group(margins, groups=["tone", "tone", "length", "length"])
    >>> found.groups, found.best.tolist(), found.table.tolist()
    (('length', 'tone'), [1, 0], [[0.0, 1.0], [1.0, 0.0]])
    """
    margins = np.asarray(to_numpy(component_scores), dtype=np.float64)
    if margins.ndim != 2 or 0 in margins.shape:
        raise ValueError(f"component_scores: expected shape (n_samples, n_components), not empty, got {margins.shape}")
    if not np.isfinite(margins).all():
        row, head = np.argwhere(~np.isfinite(margins))[0]
        raise ValueError(
            f"component_scores: expected finite numbers, got {margins[row, head]} in row {row}, head {head}"
        )
    n_samples = len(margins)
    signs, _ = check_labels(y, n_samples)
    weight = check_sample_weight(sample_weight, n_samples)
    weight = np.ones(n_samples) if weight is None else weight
    group, names = groups_with_rows(
        check_groups(["all"] * n_samples if groups is None else groups, n_samples), weight > 0
    )
    right = tie_half(margins, None if signs is None else signs[:, None])
    judged = group >= 0
    if choose_on is None:
        table, n = _table(right, weight, group, judged, names, "")
        best = table.argmax(axis=0)
    else:
        chosen = np.asarray(choose_on)
        if chosen.dtype != bool or chosen.shape != (n_samples,):
            raise ValueError(
                f"choose_on: expected True or False for each of {n_samples} rows, got {chosen.dtype} of shape "
                f"{chosen.shape}"
            )
        best = _table(right, weight, group, judged & chosen, names, " on which choose_on is True")[0].argmax(axis=0)
        table, n = _table(right, weight, group, judged & ~chosen, names, " on which choose_on is False")
    return BestHeads(tuple(names), n, best, table[best, np.arange(len(names))], table, choose_on is not None)


def _table(
    right: np.ndarray, weight: np.ndarray, group: np.ndarray, rows: np.ndarray, names: list[Hashable], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy (n_components, n_groups) on some rows, and how many they are (n_groups,)."""
    group, weight = group[rows], weight[rows]
    n = np.bincount(group, minlength=len(names))
    if not n.all():
        raise ValueError(
            f"groups: expected rows with weight in every group, got none of group {names[int(n.argmin())]!r}{where}"
        )
    mass = np.bincount(group, weight, len(names))
    return np.stack([np.bincount(group, weight * head, len(names)) for head in right[rows].T]) / mass, n
