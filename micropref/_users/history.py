"""What each user's own votes say about which head applies to them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from micropref._support.locks import Lock
from micropref._users.evidence import EvidenceTable

__all__ = ["UserHistory"]


class UserHistory:
    """H_uk = Σ_{i seen from u} decay^{age_i} ω_i log σ(m_ik), with the age counted in later votes of the same user.

    K numbers per user; a user never seen has zeros, that is no evidence. Several threads may use one history: every
    vote is counted once.

    Parameters
    ----------
    n_components : int
        K.
    """

    def __init__(self, n_components: int):
        self._table = EvidenceTable(n_components)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, user: Hashable) -> bool:
        return user in self._table

    def update(self, users: Sequence[Hashable], index: np.ndarray, evidence: np.ndarray, decay: float) -> None:
        """Take in votes, oldest first; all of them, or none where an argument is an error.

        Parameters
        ----------
        users : sequence of length n_users
            Distinct ids.
        index : ndarray of int of shape (n_votes,)
            Position in `users` of who gave each vote.
        evidence : ndarray of shape (n_components, n_votes)
            ω_i log σ(m_ik), in nats.
        decay : float
            Factor by which each later vote of a user discounts the earlier ones.
        """
        votes = np.bincount(index, minlength=len(users))
        if decay < 1.0:
            order = np.argsort(index, kind="stable")
            position = np.arange(len(index)) - np.repeat(np.cumsum(votes) - votes, votes)
            age = np.empty(len(index))
            age[order] = np.repeat(votes, votes) - 1 - position
            evidence = evidence * decay**age
        new = np.stack([np.bincount(index, weights=e, minlength=len(users)) for e in evidence], axis=1)
        kept = (decay**votes)[:, None]
        with self._lock:
            rows = self._table.rows(users, insert=True)
            total = self._table.get(rows) * kept + new
            # Only differences between heads matter; kept relative to the best, they stay exact in single precision.
            self._table.set(rows, total - total.max(axis=1, keepdims=True))

    def evidence(self, users: Sequence[Hashable], index: np.ndarray) -> np.ndarray:
        """H of the user of every row, (n_components, n_rows); zeros for unknown users and for index -1."""
        with self._lock:
            values = self._table.get(self._table.rows(users)).T
        if len(index) == 1:
            return values if index[0] >= 0 else np.zeros_like(values)
        return np.where(index >= 0, values[:, index], 0.0)

    def copy(self) -> UserHistory:
        """A history of the same votes that changes on its own, made in a time that hardly depends on its size."""
        other = UserHistory(self._table.n_components)
        with self._lock:
            other._table = self._table.copy()
        return other

    def export(self) -> tuple[list[Any], np.ndarray]:
        """Ids of all users and their K numbers, for saving."""
        with self._lock:
            return self._table.export()

    def restore(self, users: Sequence[Hashable], values: np.ndarray) -> None:
        """Take back what `export` gave."""
        with self._lock:
            self._table.set(self._table.rows(users, insert=True), values)

    def __getstate__(self) -> dict[str, Any]:
        # The table of a copy: pickle reads the state after the lock has been released.
        return {"_table": self.copy()._table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
