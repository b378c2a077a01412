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


_CHUNK_ROWS = 4096


class AnsweredPairs:
    """The last votes of all users together, as keys of pairs: a ring that grows with the votes, up to 3 MB.

    Votes live in chunks, which a copy shares until one of the two writes into them.

    Parameters
    ----------
    size : int, default=262144
        Votes that are remembered.
    """

    def __init__(self, size: int = 1 << 18):
        self.size = size
        self._chunk_rows = min(size, _CHUNK_ROWS)
        self._next = 0
        # Rows of users, and keys of their pairs; chunks are made as votes come.
        self._users: list[NDArray[np.int32]] = []
        self._pairs: list[NDArray[np.uint64]] = []
        self._shared_chunks: set[int] = set()

    def add(self, users: NDArray[np.integer], pairs: NDArray[np.uint64]) -> None:
        """Remember votes, oldest first: the row of every user in their table, and the key of the pair."""
        users, pairs = users[-self.size :], pairs[-self.size :]
        start = 0
        while start < len(users):
            chunk, place = divmod(self._next, self._chunk_rows)
            end = min(start + self._chunk_rows - place, start + self.size - self._next, len(users))
            self._make_writeable(chunk)
            written = slice(place, place + end - start)
            self._users[chunk][written], self._pairs[chunk][written] = users[start:end], pairs[start:end]
            self._next = (self._next + end - start) % self.size
            start = end

    def of(self, user: int) -> NDArray[np.uint64]:
        """Keys of pairs that a user has answered; none for the row -1."""
        found = [np.empty(0, dtype=np.uint64)]
        if user >= 0:
            found += [pairs[users == user] for users, pairs in zip(self._users, self._pairs, strict=True)]
        return np.concatenate(found)

    def without(self, user: int) -> Self:
        """The votes of all other users, whose rows are those of a table without this one."""
        votes = self.export()
        kept = votes["users"] != user
        rows = votes["users"][kept]
        other = type(self)(self.size)
        other.restore({"users": rows - (rows > user), "pairs": votes["pairs"][kept]})
        return other

    def copy(self) -> Self:
        """The same votes, which change on their own."""
        other = type(self)(self.size)
        other._users, other._pairs, other._next = list(self._users), list(self._pairs), self._next
        for one in (self, other):
            one._shared_chunks = set(range(len(self._users)))
        return other

    def export(self) -> dict[str, NDArray[Any]]:
        """Rows of users and keys of pairs, oldest first, for saving."""
        users = np.concatenate([np.empty(0, dtype=np.int32), *self._users])
        pairs = np.concatenate([np.empty(0, dtype=np.uint64), *self._pairs])
        order = np.roll(np.arange(len(users)), -self._next)
        order = order[users[order] >= 0]
        return {"users": users[order], "pairs": pairs[order].view(np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `export` gave; nothing where there is nothing."""
        if "users" in arrays:
            self.add(arrays["users"], np.asarray(arrays["pairs"], dtype=np.int64).view(np.uint64))

    def _make_writeable(self, chunk: int) -> None:
        if chunk == len(self._users):
            self._users.append(np.full(self._chunk_rows, -1, dtype=np.int32))
            self._pairs.append(np.zeros(self._chunk_rows, dtype=np.uint64))
        elif chunk in self._shared_chunks or not self._users[chunk].flags.writeable:  # mapped from a file by joblib
            self._users[chunk], self._pairs[chunk] = self._users[chunk].copy(), self._pairs[chunk].copy()
        self._shared_chunks.discard(chunk)


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

    def forget(self, user: Hashable) -> None:
        """Remove a user, with everything that is known of them; a KeyError for one who is not known.

        The others keep their numbers to the last bit. A copy that was made before keeps the user.
        """
        with self._lock:
            row = int(self._table.rows([user])[0])
            if row < 0:
                raise KeyError(user)
            self._table, self.answered = self._table.without(user), self.answered.without(row)

    def export_answered(self) -> dict[str, NDArray[Any]]:
        """What `answered.restore` takes, for saving."""
        with self._lock:
            return self.answered.export()

    def numbers_of(self, users: Sequence[Hashable]) -> NDArray[np.float32]:
        """Their numbers (n_users, ...), as `export` gives those of all; zeros for a user who is not known."""
        with self._lock:
            return self._table.get(self._table.rows(users))
