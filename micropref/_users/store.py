"""What a router asks of the users it knows, however they are represented."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, index_like, like, to_numpy
from micropref._engine.gaussian_users import Scatter
from micropref._users.answered import AnsweredPairs
from micropref.kernels._pointwise import log_sigmoid

__all__ = ["Answer", "Pairs", "UserStore", "Votes"]


class Pairs(NamedTuple):
    """Pairs of responses as frozen heads see them: the first response against the second.

    Attributes
    ----------
    margins : array of shape (n_components, n_pairs)
        w_kᵀ d.
    coordinates : ndarray of shape (n_pairs, q), optional
        z = Bᵀd, in the basis of the directions in which users differ; None for heads without a scatter.
    outside : ndarray of shape (n_pairs,), optional
        Squared length of d outside the basis.
    """

    margins: Array
    coordinates: NDArray[np.float64] | None = None
    outside: NDArray[np.float64] | None = None

    def signed(self, signs: NDArray[np.int8] | None) -> Pairs:
        """The preferred response first, where signs say which it is; None means the first in every row."""
        if signs is None:
            return self
        z = None if self.coordinates is None else self.coordinates * signs[:, None]
        return self._replace(margins=self.margins * like(signs, self.margins, self.margins.dtype), coordinates=z)

    def part(self, rows: NDArray[Any]) -> Pairs:
        """Some of the pairs."""
        some = (None if array is None else array[rows] for array in (self.coordinates, self.outside))
        return Pairs(self.margins[:, index_like(rows, self.margins)], *some)


class Votes(NamedTuple):
    """Pairs of which a user has preferred the first response.

    Attributes
    ----------
    pairs : Pairs
    weight : ndarray of shape (n_votes,), optional
        ω_i, positive; None means 1.
    """

    pairs: Pairs
    weight: NDArray[np.float64] | None = None

    @property
    def evidence(self) -> NDArray[Any]:
        """ω_i log σ(m_ik), (n_components, n_votes)."""
        evidence = to_numpy(log_sigmoid(self.pairs.margins))
        return evidence if self.weight is None else evidence * self.weight


class Answer(NamedTuple):
    """What is known of the users of some rows.

    Attributes
    ----------
    evidence : ndarray of shape (n_components, n_rows)
        What the log-weights of the components gain by the user's votes; zeros where there are none.
    margins : array of shape (n_components, n_rows)
        Mean margin of every pair for a user of each component who has cast these votes.
    variances : ndarray of shape (n_components, n_rows), optional
        Variances of these margins; None where there is no scatter.
    """

    evidence: NDArray[np.float64]
    margins: Array
    variances: NDArray[np.float64] | None = None


class UserStore(Protocol):
    """Users by id. Several threads may use one store: every vote is counted once.

    Attributes
    ----------
    scatter : Scatter or None
        How users scatter around the heads, as their votes were read; None where they sit on them.
    answered : AnsweredPairs
        Their last votes.
    """

    answered: AnsweredPairs

    @property
    def scatter(self) -> Scatter | None: ...

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

    def remember(self, users: Sequence[Hashable], index: NDArray[Any], pairs: NDArray[np.uint64]) -> None:
        """Remember which pairs users have answered, by their keys."""

    def answered_by(self, user: Hashable | None) -> NDArray[np.uint64]:
        """Keys of the pairs that a user has answered, as far as they are remembered."""

    def forget(self, user: Hashable) -> None:
        """Remove a user, with everything that is known of them; a KeyError for one who is not known."""

    def export_answered(self) -> dict[str, NDArray[Any]]:
        """What `answered.restore` takes, for saving."""

    def numbers_of(self, users: Sequence[Hashable]) -> NDArray[np.float32]:
        """Numbers of these users (n_users, ...), as `export` gives those of all; zeros for a user who is not known."""

    def copy(self) -> Self:
        """A store of the same users that changes on its own, made in a time that hardly depends on its size."""

    def export(self) -> tuple[list[Any], NDArray[Any]]:
        """Ids of all users and their numbers (n_users, …), for saving."""

    def restore(self, users: Sequence[Hashable], values: NDArray[Any]) -> None:
        """Take back what `export` gave."""
