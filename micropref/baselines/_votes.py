"""Votes: the labelled rows of a user as an adaptation takes them, and how those of many users are saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.errors import ModelFileError
from micropref._estimator.saved import check_tensors

__all__ = ["Votes", "flattened", "unflattened"]

_FIELDS = ("values", "signs", "weight")
_NO_VOTES = (-1, 0, 0)


@dataclass(frozen=True)
class Votes:
    """Labelled rows as an adaptation sees them.

    Attributes
    ----------
    values : ndarray of shape (n_votes, n_values)
        What `PersonalRewards._represent` made of the rows.
    signs : ndarray of shape (n_votes,)
        +1 where the first response was preferred, else −1.
    weight : ndarray of shape (n_votes,)
    """

    values: np.ndarray
    signs: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.signs)

    def __add__(self, later: Votes) -> Votes:
        return Votes(
            np.concatenate([self.values, later.values]),
            np.concatenate([self.signs, later.signs]),
            np.concatenate([self.weight, later.weight]),
        )

    def of(self, rows: np.ndarray) -> Votes:
        """Some of them, by position or mask."""
        return Votes(self.values[rows], self.signs[rows], self.weight[rows])

    @property
    def place(self) -> tuple[Votes, int, int]:
        """The votes whose arrays these are, and the first and the end row there."""
        return self, 0, len(self)

    def part(self, first: int, end: int) -> Votes:
        """Those of positions first, …, end − 1, without a copy, in pickles neither."""
        rows = slice(first, end)
        return _Part(self.values[rows], self.signs[rows], self.weight[rows], self, first, end)


@dataclass(frozen=True)
class _Part(Votes):
    """Votes in the arrays of others; a pickle of views would hold their rows again."""

    source: Votes
    first: int
    end: int

    @property
    def place(self) -> tuple[Votes, int, int]:
        return self.source, self.first, self.end

    def __reduce__(self) -> tuple[Any, ...]:
        return Votes.part, (self.source, self.first, self.end)


def flattened(votes: Sequence[Votes | None]) -> dict[str, NDArray[Any]]:
    """One table of rows for every precision, and in "places" (n, 3) the table, first and end row of each of the votes.

    None has the table -1.
    """
    sources: list[list[Votes]] = []
    table_of: dict[np.dtype[Any], int] = {}
    placed: dict[int, tuple[int, int]] = {}
    lengths: list[int] = []
    places = np.empty((len(votes), 3), dtype=np.int64)
    for i, one in enumerate(votes):
        if one is None:
            places[i] = _NO_VOTES
            continue
        source, first, end = one.place
        if id(source) not in placed:
            table = table_of.setdefault(source.values.dtype, len(table_of))
            if table == len(sources):
                sources.append([])
                lengths.append(0)
            placed[id(source)] = table, lengths[table]
            sources[table].append(source)
            lengths[table] += len(source)
        table, start = placed[id(source)]
        places[i] = table, start + first, start + end
    arrays: dict[str, NDArray[Any]] = {"places": places}
    for table, parts in enumerate(sources):
        for field in _FIELDS:
            arrays[f"{table}.{field}"] = np.concatenate([getattr(part, field) for part in parts])
    return arrays


def unflattened(arrays: dict[str, NDArray[Any]], n_votes: int, width: int) -> list[Votes | None]:
    """The votes that `flattened` took, as parts of the tables.

    Raises
    ------
    ModelFileError
        If they are not as many, if their values are of another width, or if a place, a sign or a weight is none.
    """
    check_tensors(arrays, {"places": (n_votes, 3)})
    places = arrays["places"].tolist()
    count = 1 + max((table for table, _, _ in places), default=-1)
    if len(arrays) != 1 + len(_FIELDS) * count:
        raise ModelFileError(f"votes: expected {count} tables in a saved model, got the tensors {', '.join(arrays)}")
    tables = [_table(arrays, f"{table}") for table in range(count)]
    for table, first, end in places:
        if not (table >= -1 and 0 <= first <= end <= (0 if table < 0 else len(tables[table]))):
            raise ModelFileError(f"votes.places: expected rows of votes, got {first} … {end} of table {table}")
    if any(each.values.shape[1] != width for each in tables):
        raise ModelFileError(f"votes: expected values of width {width} in a saved model, got another one")
    return [None if table < 0 else tables[table].part(first, end) for table, first, end in places]


def _table(arrays: dict[str, NDArray[Any]], name: str) -> Votes:
    check_tensors(arrays, {f"{name}.values": (None, None)})
    n_rows = len(arrays[f"{name}.values"])
    check_tensors(arrays, {f"{name}.signs": (n_rows,), f"{name}.weight": (n_rows,)})
    found = Votes(*(arrays[f"{name}.{field}"] for field in _FIELDS))
    if n_rows and (not np.all(np.abs(found.signs) == 1) or found.weight.min() <= 0):
        raise ModelFileError(f"votes.{name}: expected signs ±1 and weights above 0 in a saved model, got others")
    return found
