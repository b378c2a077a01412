"""Users of training rows, in an order and in parts that depend on nothing but what they voted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups

__all__ = ["N_TRIALS", "HeldOut", "held_out_users", "in_order_of_votes"]

# Votes whose projections agree to so many parts of the largest are taken for the same vote.
_SAME_VOTE = 1e-6
_LEAST_USERS = 4
# One of so many votes is what a user has said who is hardly known.
_FEW = 8
N_TRIALS = 4
# As many votes are enough to choose a penalty.
_ENOUGH = 20_000


def in_order_of_votes(rows: Comparisons) -> Groups | None:
    """Users whose votes count, numbered by what they voted: neither names nor the order of rows give a start."""
    if rows.groups is None:
        return None
    index = np.where(rows.dense_weight > 0, rows.groups.index, -1)
    present = np.unique(index[index >= 0])
    if not len(present):
        return None
    along = _along(rows) * rows.dense_weight
    total = np.bincount(index[index >= 0], weights=along[index >= 0], minlength=rows.groups.n_groups)
    present = present[np.argsort(total[present], kind="stable")]
    position = np.full(rows.groups.n_groups + 1, -1)  # position -1, a row without a user, stays one
    position[present] = np.arange(len(present))
    return Groups(rows.groups.ids[present], position[index])


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Some users, kept out of what the others teach.

    Attributes
    ----------
    teachers : Comparisons
        The rows of all others, and those without a user.
    trials : list of (ndarray, ndarray)
        Positions, among all rows, of votes to adapt by and of votes to predict then. Every user of at least two
        different votes is tried `N_TRIALS` times in a row: each half is predicted from the other one, and from a
        quarter of it.
    """

    teachers: Comparisons
    trials: list[tuple[np.ndarray, np.ndarray]]


def held_out_users(rows: Comparisons, *, n_folds: int, most_users: int) -> list[HeldOut]:
    """One or two parts of the users, every other one each, of whom at most `most_users` are asked.

    Where the others have more than 20 000 votes, counted by their weights, some of them teach. Equal votes lie in one
    half, so that a repeated row is a row of twice the weight. No parts where users are too few, or have a single vote
    each.
    """
    users = in_order_of_votes(rows)
    if users is None or users.n_groups < _LEAST_USERS:
        return []
    along = _along(rows)
    order = np.argsort(users.index, kind="stable")
    votes_of = np.split(order, np.searchsorted(users.index[order], np.arange(users.n_groups)))[1:]
    trials_of = [_trials(votes, along) for votes in votes_of]
    parts = []
    for parity in range(n_folds):
        asked = [trials for trials in trials_of[parity::2] if trials]
        teachers = rows.part(_teachers(rows, users.index, parity))
        if len(asked) < _LEAST_USERS // 2 or teachers.total_weight == 0 or teachers.norms[1] == 0:
            continue
        kept = np.unique(np.linspace(0, len(asked) - 1, min(most_users, len(asked))).astype(int))
        parts.append(HeldOut(teachers, [trial for i in kept for trial in asked[i]]))
    return parts


def _teachers(rows: Comparisons, index: np.ndarray, parity: int) -> np.ndarray:
    """Rows without a user and those of the other users, of every second, third, … one where they have many votes."""
    others = (index >= 0) & (index % 2 != parity)
    step = int(np.clip(np.ceil(rows.dense_weight[others].sum() / _ENOUGH), 1, len(index)))
    return np.flatnonzero((index < 0) | (others & (index // 2 % step == 0)))


def _along(rows: Comparisons) -> np.ndarray:
    """Projection of every signed difference on a direction that is always the same, (n_rows,)."""
    width = rows.difference.shape[1]
    direction = np.asarray(np.random.RandomState(0).normal(size=width), rows.difference.dtype)
    # Row by row, so that equal rows have equal projections.
    along: np.ndarray = np.einsum("nd,d->n", rows.difference, direction).astype(np.float64) * rows.dense_signs
    return along


def _trials(votes: np.ndarray, along: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every other one of a user's different votes, and every eighth, with the votes to be predicted from them."""
    votes = votes[np.argsort(along[votes], kind="stable")]
    apart = np.diff(along[votes]) > _SAME_VOTE * np.abs(along[votes]).max()
    number = np.r_[0, np.cumsum(apart)]
    if number[-1] == 0:
        return []
    return [(votes[number % step == first], votes[number % 2 != first]) for first in (0, 1) for step in (2, _FEW)]
