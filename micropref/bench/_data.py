"""The rows of a data set as arrays, in an order that depends on neither names nor the order of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Ratings:
    """Single responses with scores of named attributes, for methods that need fine-grained annotations.

    Attributes
    ----------
    features : ndarray of shape (n, n_features), float32
        On the scale of the differences of the data.
    scores : ndarray of shape (n, n_attributes)
        NaN where there is none.
    prompt : ndarray of int of shape (n,)
        As in `BenchData`; -1 for a prompt that the data do not have.
    """

    features: np.ndarray
    scores: np.ndarray
    prompt: np.ndarray

    def away_from(self, prompts: np.ndarray) -> Ratings:
        """Those of other prompts."""
        kept = ~np.isin(self.prompt, prompts[prompts >= 0])
        return Ratings(self.features[kept], self.scores[kept], self.prompt[kept])


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
    ratings_hash : str
        Of the ratings, and of which rows have the prompts that were rated; empty without ratings. They count for the
        methods that read them alone.
    reading : str
        How many rows were read and left out, and why; empty for a planted world.
    known : ndarray of shape (n,), or None
        Log-odds of the chosen response for one who knows the weights of the user, where these were planted.
    width : int
        Number of leading columns of `difference` that lie in the same space as each block of `width` context columns;
        0: contexts and responses are not of one space.
    n_prompt : int
        Number of leading columns of the context that describe the prompt.
    target_names : tuple of str
        What the stated contexts are called, by their numbers.
    prompt : ndarray of int of shape (n,), or None
        Numbers of the prompts, where there are ratings.
    ratings : Ratings, or None
    teaches : ndarray of bool of shape (n,), or None
        Rows of another data set, which are for training alone; the rows of this one are then for labels and tests.
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
    n_prompt: int = 0
    target_names: tuple[str, ...] = ()
    prompt: np.ndarray | None = None
    ratings: Ratings | None = None
    ratings_hash: str = ""
    teaches: np.ndarray | None = None


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
    n_prompt: int = 0,
    prompt: np.ndarray | None = None,
    ratings: Ratings | None = None,
    teaches: np.ndarray | None = None,
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
    truth, given_test, known, prompt, teaches = (
        None if part is None else np.asarray(part)[order] for part in (truth, given_test, known, prompt, teaches)
    )
    rated = () if ratings is None else (prompt, ratings.features, ratings.scores, ratings.prompt)
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
        hash=_digest(keys[order], numbers, truth, given_test, known, teaches),
        reading=reading,
        known=known,
        width=width,
        n_prompt=n_prompt,
        target_names=_names_of(target, order, numbers[:, 1]),
        prompt=prompt,
        ratings=ratings,
        ratings_hash=_digest(*rated) if rated else "",
        teaches=teaches,
    )


def taught_by(data: BenchData, teacher: BenchData) -> BenchData:
    """The rows of both, those of the teacher for training alone.

    Raises
    ------
    ValueError
        If rows of the two have not the same columns, as from two encoders.
    """
    for name in ("context", "difference"):
        widths = [getattr(one, name).shape[1] for one in (data, teacher)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"taught_by: expected a data set with {widths[0]} columns of {name}, as this one has, got {widths[1]}"
            )

    def both(name: str) -> list[Any]:
        """Ids, those of the teacher apart."""
        numbers = [getattr(one, name).tolist() for one in (data, teacher)]
        return [None if one < 0 else (side, one) for side, of in enumerate(numbers) for one in of]

    n_own, n_taught = len(data.weight), len(teacher.weight)
    ratings = teacher.ratings if data.ratings is None else data.ratings
    prompts = [
        np.full(len(one.weight), -1) if one.prompt is None or one.ratings is not ratings else one.prompt
        for one in (data, teacher)
    ]
    return in_canonical_order(
        np.vstack([data.context, teacher.context]),
        np.vstack([data.difference, teacher.difference]),
        weight=np.append(data.weight, teacher.weight),
        user=both("user"),
        target=[*_named(data), *(None if name is None else f"{name}, in training" for name in _named(teacher))],
        unit=both("unit"),
        given_test=None if data.given_test is None else np.append(data.given_test, np.zeros(n_taught, dtype=bool)),
        reading=f"{data.reading}; training: {teacher.reading}",
        width=data.width,
        n_prompt=data.n_prompt,
        ratings=ratings,
        prompt=None if ratings is None else np.concatenate(prompts),
        teaches=np.repeat([False, True], [n_own, n_taught]),
    )


def _named(data: BenchData) -> list[str | None]:
    """The name of each row's stated context."""
    return [None if number < 0 else data.target_names[number] for number in data.target.tolist()]


def _names_of(ids: Sequence[Any] | np.ndarray, order: np.ndarray, numbers: np.ndarray) -> tuple[str, ...]:
    """Ids as text by their numbers, from ids in any order, the canonical order, and in that the numbers."""
    cells = ids.tolist() if isinstance(ids, np.ndarray) else ids
    _, first = np.unique(numbers, return_index=True)
    return tuple(str(cells[order[place]]) for place in first.tolist() if numbers[place] >= 0)


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


def _digest(*parts: np.ndarray | None) -> str:
    """A digest of arrays, those left out that are None."""
    digest = hashlib.sha256()
    for part in parts:
        if part is not None:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


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
