"""What a router asks of the users it knows, however they are represented."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "Pairs", "UserStore", "Votes"]


class Pairs(NamedTuple):
    """Pairs of responses as frozen heads see them, in the order in which X gives the responses.

    Attributes
    ----------
    margins : ndarray of shape (n_components, n_pairs)
        w_kᵀ d.
    """

    margins: NDArray[Any]


class Votes(NamedTuple):
    """Pairs of which a user has preferred one response.

    Attributes
    ----------
    evidence : ndarray of shape (n_components, n_votes)
        Log-likelihood of each vote under each head, in nats, where nothing else is known of the user.
    weight : ndarray of shape (n_votes,), optional
        ω_i, positive; None means 1.
    pairs : Pairs, optional
        The pairs, the preferred response first; only for heads around which users scatter.
    """

    evidence: NDArray[Any]
    weight: NDArray[np.float64] | None = None
    pairs: Pairs | None = None

    @property
    def weighted_evidence(self) -> NDArray[Any]:
        """ω_i times the evidence of every vote."""
        return self.evidence if self.weight is None else self.evidence * self.weight

    def part(self, votes: NDArray[Any]) -> Votes:
        """Some of the votes."""
        return Votes(
            self.evidence[:, votes],
            None if self.weight is None else self.weight[votes],
            self.pairs,
        )


class Answer(NamedTuple):
    """What is known of the users of some rows.

    Attributes
    ----------
    evidence : ndarray of shape (n_components, n_rows)
        What the log-weights of the components gain by the user's votes; zeros where there are none.
    margins : ndarray of shape (n_components, n_rows)
        Log-odds of every pair for a user of each component who has cast these votes.
    """

    evidence: NDArray[np.float64]
    margins: NDArray[Any]


class UserStore(Protocol):
    """Users by id. Several threads may use one store: every vote is counted once."""

    def __len__(self) -> int: ...

    def __contains__(self, user: Hashable) -> bool: ...

    def update(
        self,
        users: Sequence[Hashable],
        index: NDArray[Any],
        votes: Votes,
        decay: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        """Take in votes, oldest first; all of them, or none where an argument is an error.

        Parameters
        ----------
        users : sequence of length n_users
            Distinct ids.
        index : ndarray of int of shape (n_votes,)
            Position in `users` of who gave each vote.
        votes : Votes
        decay : float, default=1.0
            Factor by which each later vote of a user discounts the earlier ones.
        temperature : float, default=1.0
            A vote counts 1 / temperature.
        """

    def answer(self, users: Sequence[Hashable], index: NDArray[Any], pairs: Pairs, temperature: float = 1.0) -> Answer:
        """What the votes of the user of every row say; an unknown user and index -1 have cast none."""

    def copy(self) -> Self:
        """A store of the same users that changes on its own, made in a time that hardly depends on its size."""

    def export(self) -> tuple[list[Any], NDArray[Any]]:
        """Ids of all users and their numbers (n_users, …), for saving."""

    def restore(self, users: Sequence[Hashable], values: NDArray[Any]) -> None:
        """Take back what `export` gave."""
