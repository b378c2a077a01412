"""The rows of a data set as arrays, in an order that depends on neither names nor the order of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class BenchData:
    """All rows of a data set; the chosen response comes first.

    Attributes
    ----------
    context : ndarray of shape (n, n_context_features), float32
    difference : ndarray of shape (n, n_features), float32
        Features of the chosen less those of the rejected response.
    weight : ndarray of shape (n,)
    user, target, unit : ndarray of int of shape (n,)
        Who compared (-1: unknown), the stated context (-1: none), and what is split between training and test.
    truth : ndarray of int of shape (n,), or None
        True population of each row, where it is known.
    given_test : ndarray of bool of shape (n,), or None
        The publisher's own test part.
    is_tie : ndarray of bool of shape (n,)
        Rows whose mirror image is also there, from the same user in the same context: nothing was preferred.
    hash : str
        Of everything above.
    reading : str
        How many rows were read and left out, and why; empty for a planted world.
    known : ndarray of shape (n,), or None
        Log-odds of the chosen response for one who knows the weights of the user, where these were planted.
    width : int
        Number of leading columns of `difference` that lie in the same space as each block of `width` context columns;
        0: contexts and responses are not of one space.
    """

    context: np.ndarray
    difference: np.ndarray
    weight: np.ndarray
    user: np.ndarray
    target: np.ndarray
    unit: np.ndarray
    truth: np.ndarray | None
    given_test: np.ndarray | None
    is_tie: np.ndarray
    hash: str
    reading: str
    known: np.ndarray | None = None
    width: int = 0


def in_canonical_order(
    context: np.ndarray,
    difference: np.ndarray,
    *,
    weight: np.ndarray,
    user: Sequence[Any] | np.ndarray,
    target: Sequence[Any] | np.ndarray,
    unit: Sequence[Any] | np.ndarray,
    truth: np.ndarray | None = None,
    given_test: np.ndarray | None = None,
    reading: str = "",
    known: np.ndarray | None = None,
    width: int = 0,
) -> BenchData:
    """Sort rows by their content alone, and number users, contexts and units in that order.

    Rows are sorted by their features, then by the other rows of their user, context and unit. So other names and
    another order of the rows change nothing that follows; rows that no value distinguishes can be exchanged. Nor does
    it matter which response was chosen: the order, and with it every split and draw, depends on a pair and not on its
    label, except for users, contexts and units that nothing else distinguishes.
    """
    context = np.ascontiguousarray(context, dtype=np.float32)
    difference = np.ascontiguousarray(difference, dtype=np.float32) + np.float32(0)  # no -0.0, which has other bytes
    weight = np.asarray(weight, dtype=np.float64)
    keys = _digests(context, difference, weight)
    order, numbers = _canonical_order(keys, _digests(context, _unsigned(difference), weight), user, target, unit)
    mirror = _digests(context, -difference + np.float32(0), weight)[order]
    truth, given_test, known = (
        None if part is None else np.asarray(part)[order] for part in (truth, given_test, known)
    )
    digest = hashlib.sha256()
    for part in (keys[order], numbers, truth, given_test, known):
        if part is not None:
            digest.update(np.ascontiguousarray(part).tobytes())
    return BenchData(
        context[order],
        difference[order],
        weight[order],
        user=numbers[:, 0],
        target=numbers[:, 1],
        unit=numbers[:, 2],
        truth=truth,
        given_test=given_test,
        is_tie=_ties(keys[order], mirror, numbers, difference[order], weight[order]),
        hash=digest.hexdigest(),
        reading=reading,
        known=known,
        width=width,
    )


def _canonical_order(
    keys: np.ndarray, pair_keys: np.ndarray, *columns: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Order of the rows, and in this order the numbers of the ids in each column, (n, n_columns).

    `keys` are digests of rows, `pair_keys` digests that ignore which response was chosen.
    """
    indices = [_index(values) for values in columns]
    profiles = [
        one if index.max(initial=-1) < 0 else _profiles(one, index)
        for one in (keys, pair_keys)
        for index in indices[::-1]
    ]
    order = np.lexsort((keys, *profiles, pair_keys))
    numbered = [_renumbered(index[order]) for index in indices]
    # Equal rows of users with the same rows are put in the order of the numbers that their users got.
    again = np.lexsort((keys[order], *numbered[::-1], pair_keys[order]))
    return order[again], np.stack([index[again] for index in numbered], axis=1)


def _ties(
    keys: np.ndarray, mirror: np.ndarray, numbers: np.ndarray, difference: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Rows whose mirror image is a row of the same user, context and unit."""
    ids = list(map(tuple, numbers.tolist()))
    present = {(key, *row) for key, row in zip(keys.tolist(), ids, strict=True)}
    is_tie = np.array([(key, *row) in present for key, row in zip(mirror.tolist(), ids, strict=True)], dtype=bool)
    # Two texts with the same vector are their own mirror image.
    is_tie &= difference.any(axis=1) | (weight < 1)
    return is_tie


def _unsigned(difference: np.ndarray) -> np.ndarray:
    """Differences with the sign that makes the first entry that is not zero positive."""
    first = np.argmax(difference != 0, axis=1)
    lead = difference[np.arange(len(difference)), first]
    return np.asarray(np.where(lead[:, None] < 0, -difference, difference) + np.float32(0))


def _digests(context: np.ndarray, difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A digest of each row, as numbers."""
    rows = (
        hashlib.blake2b(c.tobytes() + d.tobytes() + w.tobytes(), digest_size=8).digest()
        for c, d, w in zip(context, difference, weight, strict=True)
    )
    return np.frombuffer(b"".join(rows), dtype=np.uint64)


def _index(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Numbers of ids in order of appearance, -1 for None and for -1."""
    position: dict[Any, int] = {}
    cells = values.tolist() if isinstance(values, np.ndarray) else values
    return np.array([-1 if v is None or v == -1 else position.setdefault(v, len(position)) for v in cells], dtype=int)


def _profiles(keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """A digest of all rows of each row's group."""
    order = np.lexsort((keys, index))
    digest_of: dict[int, int] = {}
    starts = np.flatnonzero(np.diff(index[order], prepend=-2))
    for rows in np.split(order, starts[1:]):
        digest = hashlib.blake2b(keys[rows].tobytes(), digest_size=8).digest()
        digest_of[int(index[rows[0]])] = int.from_bytes(digest, "little")
    return np.array([digest_of[i] if i >= 0 else 0 for i in index.tolist()], dtype=np.uint64)


def _renumbered(index: np.ndarray) -> np.ndarray:
    """The same ids numbered in order of appearance; -1 stays."""
    present, first = np.unique(index, return_index=True)
    order = first[present >= 0].argsort()
    number = np.full(index.max(initial=-1) + 2, -1)
    number[present[present >= 0][order]] = np.arange(len(order))
    return np.asarray(number[index])
