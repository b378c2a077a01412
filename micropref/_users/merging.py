"""Merge the votes of users of older files whose ids are equal by the present rule."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._rows.ids import user_id
from micropref._support.warnings import level_of_caller

__all__ = ["merged_users"]

_SHOWN = 5


def merged_users(saved: Sequence[Hashable], evidence: NDArray[Any]) -> tuple[list[Hashable], NDArray[Any]]:
    """Users and their evidence by the rule of `user_id`, which micropref 0.1 did not have.

    0.1 took 12 and "12" for two users, and "-1" and "" for users. What it knew of users who are one now is added,
    because evidence is a sum of log-likelihoods; what it knew of ids that mean no user is left out. One warning reports
    both.

    Parameters
    ----------
    saved : sequence of length n_saved
        Distinct ids as they were saved.
    evidence : ndarray of shape (n_saved, n_components)
        In nats.

    Returns
    -------
    users : list of length n_users
        Distinct ids, in the order of their first appearance.
    evidence : ndarray of shape (n_users, n_components)
        The largest entry of a sum is 0, as in every row of a history.

    Warns
    -----
    UserWarning
        If ids were merged or left out; it names some of them and how many there are.
    """
    ids = [user_id(value) for value in saved]
    spellings: dict[Hashable, list[Hashable]] = {}
    for value, user in zip(saved, ids, strict=True):
        if user is not None:
            spellings.setdefault(user, []).append(value)
    users = list(spellings)
    if len(users) == len(saved):
        return users, evidence
    merged = {user: values for user, values in spellings.items() if len(values) > 1}
    _report(list(merged.values()), [value for value, user in zip(saved, ids, strict=True) if user is None])
    position = {user: i for i, user in enumerate(users)}
    kept = np.array([user is not None for user in ids])
    total = np.zeros((len(users), evidence.shape[1]))
    np.add.at(total, [position[user] for user in ids if user is not None], evidence[kept])
    changed = [position[user] for user in merged]
    total[changed] -= total[changed].max(axis=1, keepdims=True)
    return users, total.astype(evidence.dtype)


def _report(merged: list[list[Hashable]], dropped: list[Hashable]) -> None:
    parts = []
    if merged:
        names = [" and ".join(map(repr, values)) for values in merged]
        parts.append(f"the votes of {_some(names, 'user')} known under several ids were added up")
    if dropped:
        parts.append(f"the votes of {_some(list(map(repr, dropped)), 'id')} that no longer mean a user were left out")
    warnings.warn(
        f"the model was saved under an older rule for ids: {'; '.join(parts)}. Save it again to keep this",
        UserWarning,
        stacklevel=level_of_caller(),
    )


def _some(names: list[str], noun: str) -> str:
    """How many, and a few of them."""
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"
