"""Accuracy, likelihood and calibration of every group, averaged over groups, and pooled."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._rows.groups import Groups, check_groups
from micropref._rows.labels import check_labels
from micropref._rows.weights import check_sample_weight
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.metrics._accuracy import tie_half
from micropref.metrics._calibration import bin_sums


@dataclass(frozen=True)
class PreferenceScores:
    """Scores of predictions on one set of comparisons.

    Attributes
    ----------
    n : int
        Rows with weight.
    accuracy : float
        Share of rows whose preferred response was predicted; log-odds of 0 count one half.
    log_loss : float
        −mean log σ(s g) of the log-odds g, in nats; s = ±1 for first or second preferred.
    brier : float
        Mean squared distance of the probability from the outcome, mean σ(−s g)²; ¼ for a coin.
    calibration_error : float
        Σ_b (Ω_b / Ω) abs(share right in b − mean confidence in b) over bins b of equal width of the confidence
        σ(abs g) in [½, 1].
    """

    n: int
    accuracy: float
    log_loss: float
    brier: float
    calibration_error: float


@dataclass(frozen=True)
class GroupMetrics:
    """Result of `group_metrics`.

    Attributes
    ----------
    groups : tuple
        Ids of the groups that have rows with weight, in ascending order (in order of appearance where ids have none).
    per_group : tuple of PreferenceScores
        One for every id.
    macro : PreferenceScores
        Means over the groups, each counted once; its `n` is the number of their rows.
    pooled : PreferenceScores
        Over all rows, those without a group included. Its calibration error is of the pooled bins.
    """

    groups: tuple[Hashable, ...]
    per_group: tuple[PreferenceScores, ...]
    macro: PreferenceScores
    pooled: PreferenceScores

    def rows(self) -> list[dict[str, Any]]:
        """One dict for every group, then the macro-average and the pooled figures, as for a table.

        Returns
        -------
        rows : list of dict
            Keys "over" ("group", "macro" or "pooled"), "group" (an id, or None), and the attributes of
            `PreferenceScores`.
        """
        named = [("group", group, scores) for group, scores in zip(self.groups, self.per_group, strict=True)]
        summaries: list[tuple[str, Hashable, PreferenceScores]] = [
            ("macro", None, self.macro),
            ("pooled", None, self.pooled),
        ]
        return [{"over": over, "group": group, **asdict(scores)} for over, group, scores in named + summaries]


def group_metrics(
    log_odds: ArrayLike,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    bins: int = 10,
) -> GroupMetrics:
    """Accuracy, log-loss, Brier score and calibration error per group, macro-averaged, and pooled.

    All four are the same whichever response of a pair is called first, so each pair needs to be judged in one order
    only.

    Parameters
    ----------
    log_odds : array-like of shape (n_samples,)
        Log-odds that the first response is preferred, in nats, as from `decision_function`.
    y : array-like of shape (n_samples,), optional
        None: the first response is preferred in every row.
    groups : array-like of shape (n_samples,), optional
        Attribute, annotator or context of every row; rows with None, NaN or -1 count in the pooled figures alone. A
        group whose rows have no weight is left out. None: all rows are of one group, whose id is then "all".
    sample_weight : array-like of shape (n_samples,), optional
    bins : int, default=10
        Bins of the calibration error.

    Returns
    -------
    metrics : GroupMetrics

    Raises
    ------
    ValueError
        If log-odds are not finite, lengths do not agree, or no row with weight has a group.

    Notes
    -----
    The calibration error is biased upwards where bins hold few rows: groups of different sizes, and so the
    macro-average and the pooled figure, are not on one scale. `micropref.plotting.CalibrationDisplay` draws the same
    bins.

    Examples
    --------
    >>> found = group_metrics([2.0, 1.0, -1.0, 0.0], groups=["tone", "tone", "length", "length"])
    >>> found.groups, [scores.accuracy for scores in found.per_group]
    (('length', 'tone'), [0.25, 1.0])
    >>> found.macro.accuracy, found.pooled.n
    (0.625, 4)
    """
    odds = check_log_odds(log_odds)
    signs, _ = check_labels(y, len(odds))
    weight = check_sample_weight(sample_weight, len(odds))
    if not isinstance(bins, Integral) or isinstance(bins, bool) or bins < 1:
        raise ValueError(f"bins: expected an integer of at least 1, got {bins!r}")
    members = check_groups(["all"] * len(odds) if groups is None else groups, len(odds))
    weight = np.ones(len(odds)) if weight is None else weight
    margins = odds if signs is None else odds * signs
    pooled = _scores(margins, weight, np.zeros(len(odds), dtype=np.intp), 1, bins)[0]
    present, names = groups_with_rows(members, weight > 0)
    counted = present >= 0
    per_group = _scores(margins[counted], weight[counted], present[counted], len(names), bins)
    means = {
        name: float(np.mean([getattr(scores, name) for scores in per_group]))
        for name in ("accuracy", "log_loss", "brier", "calibration_error")
    }
    macro = PreferenceScores(n=sum(scores.n for scores in per_group), **means)
    return GroupMetrics(tuple(names), tuple(per_group), macro, pooled)


def check_log_odds(log_odds: ArrayLike) -> np.ndarray:
    """Log-odds as finite float64 of shape (n_samples,), at least one."""
    odds = np.asarray(to_numpy(log_odds), dtype=np.float64)
    if odds.ndim != 1 or not len(odds):
        raise ValueError(f"log_odds: expected shape (n_samples,) with at least one row, got shape {odds.shape}")
    if not np.isfinite(odds).all():
        row = int(np.argmin(np.isfinite(odds)))
        raise ValueError(f"log_odds: expected finite numbers, got {odds[row]} in row {row}")
    return odds


def groups_with_rows(members: Groups | None, counted: np.ndarray) -> tuple[np.ndarray, list[Hashable]]:
    """Number of every row's group among those that have a row that counts, -1 for other rows; and their ids."""
    index = np.full(len(counted), -1) if members is None else np.where(counted, members.index, -1)
    kept, position = np.unique(index[index >= 0], return_inverse=True)
    if members is None or not len(kept):
        raise ValueError("groups: expected a group in some row with weight, got None, NaN or -1 in every one")
    index[index >= 0] = position
    ids = members.ids.tolist()
    return index, [ids[i] for i in kept]


def _scores(
    margins: np.ndarray, weight: np.ndarray, group: np.ndarray, n_groups: int, bins: int
) -> list[PreferenceScores]:
    """Scores of every group from log-odds of the preferred response; each group has weight."""
    right = tie_half(margins)
    sums = bin_sums(sigmoid(np.abs(margins)), right, bins, weight=weight, group=group, n_groups=n_groups)
    mass = sums.mass.sum(axis=1)
    means = (
        np.bincount(group, weight * values, n_groups) / mass
        for values in (right, -log_sigmoid(margins), sigmoid(-margins) ** 2)
    )
    count = np.bincount(group, weight > 0, n_groups).astype(int)
    return [
        PreferenceScores(n, *map(float, values)) for n, *values in zip(count.tolist(), *means, sums.error, strict=True)
    ]
