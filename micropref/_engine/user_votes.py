"""The votes of users, read for models in which users scatter around heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.blocks import row_blocks
from micropref._engine.gaussian_users import Scatter, VoteRounds
from micropref._engine.mean_contexts import mean_contexts
from micropref._engine.prediction import head_margins
from micropref._rows.comparisons import Comparisons
from micropref._rows.units import Units, number_units
from micropref._support.cached import cached_property

__all__ = ["UserVotes"]

Floats = NDArray[np.float64]

_ROWS = 1 << 12


class UserVotes:
    """Comparisons by who answered; an ungrouped row is a user of one vote.

    Coordinates are in units of the root mean square norm of the differences, so that features of any size are the same
    to what follows; heads are in the features' own units.

    Parameters
    ----------
    rows : Comparisons
        In NumPy arrays.
    norm : float, optional
        The unit of length; None: the root mean square norm of these differences.

    Attributes
    ----------
    outer : ndarray of shape (n_users,)
        What the log-likelihood of each user is multiplied by: 1, or their weight in the population; for an ungrouped
        row that of the row, too.
    weight : ndarray of shape (n_votes,), optional
        Weight of a vote within its user's likelihood; None: 1.
    contexts : ndarray of shape (n_users, n_context_features)
        Mean contexts.
    """

    def __init__(self, rows: Comparisons, norm: float | None = None):
        self.rows = rows
        units = rows.units()
        if units is None:
            n = rows.n_samples
            units = Units(number_units(None, n)[0].astype(np.int32), rows.outer_weight, rows.dense_weight, 0)
        self.units = units
        self.norm = float(rows.norms[1]) if norm is None else norm
        self.rounds = VoteRounds(units.index, units.n_units)
        self.outer = units.outer
        self.weight = units.inner(slice(None), rows.weight)
        if self.weight is not None and (self.weight == 1).all():
            self.weight = None

    @property
    def n_users(self) -> int:
        return self.units.n_units

    @property
    def n_votes(self) -> int:
        return self.rows.n_samples

    @property
    def index(self) -> NDArray[np.int32]:
        """The user of every vote."""
        return self.units.index

    @cached_property
    def contexts(self) -> NDArray[Any]:
        if self.units.n_groups == 0:
            return np.asarray(self.rows.context)
        return np.asarray(mean_contexts(self.rows, self.units))

    @cached_property
    def mass(self) -> float:
        """Weight of all votes, that of their users included: what evidence is divided by to be in nats per row."""
        return self.rows.total_weight

    def margins(self, heads: Floats) -> Floats:
        """Margins w_kᵀd (K, n), positive where the head agrees with the vote."""
        margins: Floats = np.asarray(head_margins(self.rows.reader, heads), np.float64)
        return margins if self.rows.signs is None else margins * self.rows.signs

    def coordinates(self, scatter: Scatter) -> tuple[Floats, Floats]:
        """Coordinates (n, q) with the sign of the margins, and squared lengths (n,) outside the basis."""
        z, outside = np.empty((self.n_votes, scatter.n_directions)), np.empty(self.n_votes)
        c = self.rows.reader.n_context_features
        for rows, block in row_blocks(self.rows.reader.X):
            difference = np.asarray(block[:, c:], np.float64) / self.norm
            z[rows], outside[rows] = scatter.coordinates(difference)
        return (z if self.rows.signs is None else z * self.rows.signs[:, None]), outside

    def differences(self, some: NDArray[np.intp]) -> Floats:
        """Differences of some votes, preferred first, in units of the norm."""
        c = self.rows.reader.n_context_features
        difference = np.asarray(self.rows.reader.X[some][:, c:], np.float64) / self.norm
        return difference if self.rows.signs is None else difference * self.rows.signs[some, None]

    def drawn_parts(self, n_parts: int, seed: int) -> NDArray[np.intp]:
        """A part of `n_parts` for every user, at random: of groups by their place, of ungrouped rows by their content.

        Two equal rows are in one part, so that a repeated row equals a row of weight 2.
        """
        random = np.random.RandomState(seed)
        n_groups = self.units.n_groups
        part = np.empty(self.n_users, np.intp)
        part[random.permutation(n_groups)] = np.arange(n_groups) % n_parts
        alone = np.flatnonzero(self.index >= n_groups)
        if len(alone):
            X = self.rows.reader.X
            direction = random.normal(size=X.shape[1])
            signs = self.rows.dense_signs
            for start in range(0, len(alone), _ROWS):
                some = alone[start : start + _ROWS]
                # Row by row, so that a sum does not depend on its neighbours.
                said = (np.asarray(X[some], np.float64) * direction).sum(axis=1) + signs[some]
                part[self.index[some]] = np.floor(np.modf(np.abs(said) * 1e3 / max(self.norm, 1e-300))[0] * n_parts)
        return part

    def part(self, users: NDArray[np.bool_]) -> UserVotes:
        """The votes of some users, in the order of all."""
        return UserVotes(self.rows.part(np.flatnonzero(users[self.index])), self.norm)
