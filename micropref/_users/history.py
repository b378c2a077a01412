"""What each user's own votes say about which head applies to them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from micropref._engine.gaussian_users import Scatter
from micropref._support.locks import Lock
from micropref._users.answered import RemembersPairs
from micropref._users.evidence import EvidenceTable
from micropref._users.store import Answer, Pairs, Votes

__all__ = ["UserHistory"]

# Nats beyond which a user's votes are as good as certain.
_CERTAIN = 1e30


class UserHistory(RemembersPairs):
    """H_uk = Σ_{i seen from u} decay^{age_i} ω_i log σ(m_ik), with the age counted in later votes of the same user.

    The `UserStore` of heads on which users sit exactly: K numbers per user. A user never seen has zeros, that is no
    evidence.

    Parameters
    ----------
    n_components : int
        K.
    """

    scatter: Scatter | None = None

    def __init__(self, n_components: int):
        super().__init__()
        self._table = EvidenceTable(n_components)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, user: Hashable) -> bool:
        return user in self._table

    def update(
        self, users: Sequence[Hashable], index: np.ndarray, votes: Votes, decay: float = 1.0, temperature: float = 1.0
    ) -> None:
        """Take in votes, oldest first; the temperature is that of the answer."""
        evidence = votes.evidence
        count = np.bincount(index, minlength=len(users))
        if decay < 1.0:
            order = np.argsort(index, kind="stable")
            position = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
            age = np.empty(len(index))
            age[order] = np.repeat(count, count) - 1 - position
            evidence = evidence * decay**age
        new = np.stack([np.bincount(index, weights=e, minlength=len(users)) for e in evidence], axis=1)
        kept = (decay**count)[:, None]
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

    def answer(self, users: Sequence[Hashable], index: np.ndarray, pairs: Pairs, temperature: float = 1.0) -> Answer:
        """H / temperature of the user of every row, and the margins of the heads themselves."""
        with np.errstate(over="ignore"):
            evidence = self.evidence(users, index) / temperature
        return Answer(np.maximum(evidence, -_CERTAIN), pairs.margins)

    def copy(self) -> UserHistory:
        """A history of the same votes that changes on its own, made in a time that hardly depends on its size."""
        other = UserHistory(self._table.n_components)
        with self._lock:
            other._table, other.answered = self._table.copy(), self.answered.copy()
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
        other = self.copy()
        return {"_table": other._table, "answered": other.answered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
