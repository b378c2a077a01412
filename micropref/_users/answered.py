"""Which pairs users have answered lately, so that they are not asked again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from micropref._support.locks import Lock
    from micropref._users.evidence import EvidenceTable

__all__ = ["AnsweredPairs", "RemembersPairs"]


class AnsweredPairs:
    """The last votes of all users together, as keys of pairs: a ring that takes 48 kB however many votes there are.

    Parameters
    ----------
    size : int, default=4096
        Votes that are remembered.
    """

    def __init__(self, size: int = 4096):
        self.size = size
        self._next = 0
        # Made with the first vote.
        self._users, self._pairs = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint64)

    def add(self, users: NDArray[np.integer], pairs: NDArray[np.uint64]) -> None:
        """Remember votes, oldest first: the row of every user in their table, and the key of the pair."""
        users, pairs = users[-self.size :], pairs[-self.size :]
        if len(users) and not len(self._users):
            self._users, self._pairs = np.full(self.size, -1, dtype=np.int32), np.zeros(self.size, dtype=np.uint64)
        if not self._users.flags.writeable:  # mapped from a file by joblib, as other processes have it
            self._users, self._pairs = self._users.copy(), self._pairs.copy()
        if len(users) == 1:
            self._users[self._next], self._pairs[self._next] = users[0], pairs[0]
            self._next = (self._next + 1) % self.size
            return
        places = (self._next + np.arange(len(users))) % self.size
        self._users[places], self._pairs[places] = users, pairs
        self._next = (self._next + len(users)) % self.size

    def of(self, user: int) -> NDArray[np.uint64]:
        """Keys of pairs that a user has answered; none for the row -1."""
        if user < 0:
            return np.empty(0, dtype=np.uint64)
        return np.asarray(self._pairs[self._users == user])

    def copy(self) -> Self:
        other = type(self)(self.size)
        other._users, other._pairs, other._next = self._users.copy(), self._pairs.copy(), self._next
        return other

    def export(self) -> dict[str, NDArray[Any]]:
        """Rows of users and keys of pairs, oldest first, for saving."""
        order = (self._next + np.arange(len(self._users))) % self.size
        order = order[self._users[order] >= 0]
        return {"users": self._users[order], "pairs": self._pairs[order].view(np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `export` gave; nothing where there is nothing."""
        if "users" in arrays:
            self.add(arrays["users"], np.asarray(arrays["pairs"], dtype=np.int64).view(np.uint64))


class RemembersPairs:
    """A store of users that remembers which pairs they have answered lately."""

    _table: EvidenceTable
    _lock: Lock

    def __init__(self) -> None:
        self.answered = AnsweredPairs()

    def remember(self, users: Sequence[Hashable], index: NDArray[Any], pairs: NDArray[np.uint64]) -> None:
        """Remember votes, oldest first: the position in `users` of who gave each, and the key of its pair."""
        with self._lock:
            self.answered.add(self._table.rows(users)[index], pairs)

    def answered_by(self, user: Hashable | None) -> NDArray[np.uint64]:
        """Keys of the pairs that a user has answered, as far as they are remembered."""
        with self._lock:
            return self.answered.of(-1 if user is None else int(self._table.rows([user])[0]))

    def export_answered(self) -> dict[str, NDArray[Any]]:
        """What `answered.restore` takes, for saving."""
        with self._lock:
            return self.answered.export()
