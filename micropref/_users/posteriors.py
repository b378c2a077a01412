"""What each user's own votes say about their reward, where users scatter around the heads: a Gaussian per component."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import to_numpy
from micropref._engine.gaussian_users import Beliefs, Scatter, VoteRounds, filter_votes, margin_moments
from micropref._support.locks import Lock
from micropref._users.answered import RemembersPairs
from micropref._users.evidence import EvidenceTable
from micropref._users.store import Answer, Pairs, Votes

__all__ = ["UserPosteriors"]

# Users whose covariances are laid out at a time.
_ROWS = 1 << 12


class UserPosteriors(RemembersPairs):
    """A belief about the reward of every user: per component, log Z of their votes and the normal distribution of u.

    The `UserStore` of heads around which users scatter: a user of component k has the reward w_k + B u with
    u ~ N(0, S_k), and every vote moves the belief as `gaussian_users` says. K(1 + q + q(q + 1)/2) single-precision
    numbers per user, however many votes: evidence, mean, and upper triangle of the covariance. A user never seen, or
    seen without a vote, has the prior, which is stored as zeros.

    Parameters
    ----------
    scatter : Scatter
    """

    def __init__(self, scatter: Scatter):
        super().__init__()
        self.scatter = scatter
        k, q = scatter.n_components, scatter.n_directions
        #: Numbers of a user.
        self.n_numbers = k * (1 + q + q * (q + 1) // 2)
        self._table = EvidenceTable(self.n_numbers)
        self._upper = np.triu_indices(q)
        # Numbers are stored relative to the prior: features of any scale leave them in the range of single precision.
        self._unit = math.ldexp(1.0, math.frexp(math.sqrt(scatter.covariances.max(initial=0.0)))[1])
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, user: Hashable) -> bool:
        return user in self._table

    def update(
        self, users: Sequence[Hashable], index: np.ndarray, votes: Votes, decay: float = 1.0, temperature: float = 1.0
    ) -> None:
        """Take in votes, oldest first, each of which counts ω_i / temperature.

        Before each vote, what the earlier ones of its user have added to evidence and natural parameters is multiplied
        by `decay`.
        """
        margins, z, outside = _in_double(votes.pairs)
        if len(index) != margins.shape[1]:
            raise ValueError(f"expected {len(index)} votes, one of every user, got {margins.shape[1]}")
        weight = votes.weight
        if temperature != 1.0:
            weight = (np.ones(len(index)) if weight is None else weight) / temperature
        rounds = VoteRounds(index, len(users))
        voted = np.flatnonzero(rounds.counts)
        with self._lock:
            beliefs = self._beliefs(self._table.get(self._table.rows(users)))
            filter_votes(
                beliefs,
                rounds,
                margins,
                z,
                self.scatter.residual[:, None] * outside,
                weight=weight,
                decay=decay,
                prior=self.scatter.covariances,
            )
            rows = self._table.rows(users, insert=True)
            self._table.set(rows[voted], self._packed(beliefs)[voted])

    def answer(self, users: Sequence[Hashable], index: np.ndarray, pairs: Pairs, temperature: float = 1.0) -> Answer:
        """Evidence of the votes of the user of every row, with mean and variance of the margins; votes are tempered."""
        with self._lock:
            values = self._table.get(self._table.rows(users))
        beliefs = self._beliefs(values)
        margins, z, outside = _in_double(pairs)
        # A user without votes is one more of whom nothing is known, to the last bit.
        has_voted = np.append(values.any(axis=1), False)
        index = np.where(has_voted[index], index, -1)
        variance = self.scatter.residual[:, None] * outside
        moments = margin_moments(beliefs, index, margins, z, variance, self.scatter)
        evidence = np.zeros_like(margins)
        evidence[:, index >= 0] = beliefs.evidence[:, index[index >= 0]]
        return Answer(evidence, *moments)

    def belief(self, user: Hashable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means (K, q) and covariances (K, q, q) of u for one user, known or not, under each component."""
        with self._lock:
            beliefs = self._beliefs(self._table.get(self._table.rows([user])))
        return beliefs.means[:, 0], beliefs.covariances[:, 0]

    def copy(self) -> UserPosteriors:
        """Posteriors of the same users that change on their own, made in a time that hardly depends on their number."""
        other = UserPosteriors(self.scatter)
        with self._lock:
            other._table, other.answered = self._table.copy(), self.answered.copy()
        return other

    def export(self) -> tuple[list[Any], np.ndarray]:
        """Ids of all users and their numbers, for saving."""
        with self._lock:
            return self._table.export()

    def restore(self, users: Sequence[Hashable], values: np.ndarray) -> None:
        """Take back what `export` gave; a ValueError where an id occurs twice."""
        if len(set(users)) < len(users):
            raise ValueError(f"expected distinct users, got {len(users) - len(set(users))} of them twice")
        with self._lock:
            self._table.set(self._table.rows(users, insert=True), values)

    def covariances(self) -> Iterator[NDArray[np.float64]]:
        """The covariances of all users, (K, n, q, q), some users after the other."""
        _, values = self.export()
        for first in range(0, len(values), _ROWS):
            yield self._beliefs(values[first : first + _ROWS]).covariances

    def _beliefs(self, values: np.ndarray) -> Beliefs:
        """Beliefs from rows of the table."""
        beliefs = Beliefs.prior(self.scatter, len(values))
        known = np.flatnonzero(values.any(axis=1))
        if not len(known):
            return beliefs
        k, q = self.scatter.n_components, self.scatter.n_directions
        numbers = values[known].astype(np.float64).reshape(len(known), k, -1).swapaxes(0, 1)
        beliefs.evidence[:, known] = numbers[..., 0]
        beliefs.means[:, known] = numbers[..., 1 : 1 + q] * self._unit
        covariances = np.empty((k, len(known), q, q))
        i, j = self._upper
        covariances[..., i, j] = covariances[..., j, i] = numbers[..., 1 + q :] * self._unit**2
        beliefs.covariances[:, known] = covariances
        return beliefs

    def _packed(self, beliefs: Beliefs) -> NDArray[np.float64]:
        """Beliefs as rows of the table."""
        # Only differences between components matter; kept relative to the best, they stay exact in single precision.
        evidence = beliefs.evidence - beliefs.evidence.max(axis=0)
        covariances = beliefs.covariances[..., *self._upper] / self._unit**2
        numbers = np.concatenate([evidence[..., None], beliefs.means / self._unit, covariances], axis=-1)
        return numbers.swapaxes(0, 1).reshape(beliefs.n_users, -1)

    def __getstate__(self) -> dict[str, Any]:
        # The table of a copy: pickle reads the state after the lock has been released.
        other = self.copy()
        return {"scatter": self.scatter, "_table": other._table, "answered": other.answered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["scatter"])  # type: ignore[misc]
        self._table, self.answered = state["_table"], state["answered"]


def _in_double(pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    assert pairs.coordinates is not None
    assert pairs.outside is not None
    return to_numpy(pairs.margins).astype(np.float64), pairs.coordinates, pairs.outside
