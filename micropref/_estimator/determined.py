"""Warnings of fits that say nothing of the data: penalties out of proportion, rewards without an end, items apart."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import to_numpy
from micropref._engine.determined import Games, are_sure, games_between_items, is_separated
from micropref._estimator.dead_heads import is_fit_of_a_caller
from micropref._rows.comparisons import Comparisons
from micropref._support.warnings import level_of_caller

__all__ = ["warn_of_undetermined"]

# Nats: below it no penalised margin moves a probability by 0.005; above it no prior holds a margin back.
_NO_MARGIN, _ANY_MARGIN = 0.02, 30.0
_SHOWN = 5


def warn_of_undetermined(
    rows: Comparisons, alpha: float | str, norm: float, total_weight: float, *, heads: NDArray[np.float64] | None = None
) -> None:
    """A UserWarning where a fit of these rows under this penalty means little, which says why.

    At the minimum ‖w‖ ≤ E‖d‖ / α, so that no margin of a usual pair is above E‖d‖² / α: where that is hardly anything,
    all predictions are ½. Where the prior deviation of margins, ‖d‖ / √(α Ω), is beyond what a probability can say, the
    fit is as without penalty, and may have no end. "auto" is neither.

    Parameters
    ----------
    rows : Comparisons
        All of them, or the share of a rank.
    alpha : float or "auto"
    norm, total_weight : float
        Root mean square norm of differences and total weight, of all ranks.
    heads : ndarray of shape (K, d), optional
        Those that were found, where there are several.
    """
    if not is_fit_of_a_caller():
        return
    free = False
    if not isinstance(alpha, str):
        # Numbers of Python, which overflow without a warning.
        norm, alpha, total_weight = float(norm), float(alpha), float(total_weight)
        largest = norm * norm / alpha if alpha > 0 else np.inf
        if largest < _NO_MARGIN:
            _warn(
                f"alpha={alpha:g} is so strong that no pair of average size gets log-odds above {largest:.1g}: all "
                f"predictions are about 1/2 for any data. Use alpha='auto', or a smaller alpha for differences of norm "
                f"{norm:.2g}"
            )
        free = norm / max(math.sqrt(alpha * total_weight), sys.float_info.min) > _ANY_MARGIN
    if rows.total_weight != total_weight:  # a share, which says nothing of the others
        return
    counted = rows.dense_weight > 0
    differences, signs = to_numpy(rows.difference), rows.dense_signs
    if not counted.all():
        differences, signs = differences[counted], signs[counted]
    games = games_between_items(differences, signs)
    first = rows.context.shape[1]
    if games is not None:
        _warn_of_parts(games, first)
    if free and not (games is not None and _warn_of_one_sided(games, alpha, first)):
        groups = None if rows.groups is None else rows.groups.index[counted]
        won = False if heads is None else are_sure(heads, differences, signs, groups)
        if won or is_separated(differences, signs):
            _warn_of_separation(alpha)


def _warn_of_parts(games: Games, first: int) -> None:
    parts = games.parts()
    if len(parts) > 1:
        _warn(
            f"the items fall into {len(parts)} sets of {_some([str(len(part)) for part in parts])} that are never "
            f"compared with each other, such as columns {_columns(parts[0], first)} and {_columns(parts[1], first)}: "
            "rewards can only be compared within a set; the penalty alone determines differences between sets. Collect "
            "comparisons between the sets, or fit each set separately"
        )


def _warn_of_one_sided(games: Games, alpha: float | str, first: int) -> bool:
    """Whether there are items whose rewards have no end, of which a warning says so."""
    found = games.one_sided()
    if found:
        what = "; ".join(
            f"columns {_columns(items, first)}" if len(items) > 1 else f"column {items[0] + first}"
            for items in found[:_SHOWN]
        )
        _warn(
            f"{len(found)} items or sets of items never lose to the others, or never win against them ({what}), and "
            f"alpha={alpha:g} is too small to limit their rewards: they grow without bound, and their values only show "
            "where the solver stopped. Use alpha='auto'"
        )
    return bool(found)


def _warn_of_separation(alpha: float | str) -> None:
    _warn(
        f"the model can predict every comparison correctly, and alpha={alpha:g} is too small to limit the "
        "coefficients: they grow without bound, and their values only show where the solver stopped; probabilities are "
        "near 0 and 1, even with few rows. Use alpha='auto'"
    )


def _columns(items: NDArray[np.intp], first: int) -> str:
    return _some([str(item + first) for item in items])


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=level_of_caller())
