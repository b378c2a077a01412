"""Which rank has which group: shares of the rows that split no group, and the check that none is split."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._rows.groups import check_groups
from micropref._rows.units import number_units
from micropref.distributed._communicator import Communicator

# Ids whose hashes meet are compared themselves; a few are enough to name one.
_COMPARED_IDS = 16


def shard_rows(n_samples: int, groups: ArrayLike | None, rank: int, world_size: int) -> np.ndarray:
    """Rows of one rank: a group is never split, and ranks differ from equal shares by less than the largest group.

    Groups, and ungrouped rows as groups of one, keep the order in which they first appear, and are cut where the shares
    end. Rows of a file that is sorted by group are thus consecutive.

    Parameters
    ----------
    n_samples : int
    groups : array-like of shape (n_samples,), or None
        Id of the annotator of every row; None, NaN or -1 for an ungrouped row.
    rank : int
        From 0 to world_size - 1.
    world_size : int

    Returns
    -------
    rows : ndarray of int64
        In ascending order; over all ranks every row once. Empty where there are fewer groups than ranks.

    Raises
    ------
    ValueError
        If rank and world_size do not go together, or the groups are not as many as the rows.

    Examples
    --------
    >>> from micropref.distributed import shard_rows
    >>> [shard_rows(6, ["ann", "bob", "ann", "ann", "bob", "cy"], rank, 2).tolist() for rank in (0, 1)]
    [[0, 2, 3], [1, 4, 5]]
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"expected 0 <= rank < world_size, got rank={rank} and world_size={world_size}")
    unit, n_units = number_units(check_groups(groups, n_samples), n_samples)
    _, first = np.unique(unit, return_index=True)
    place = np.empty(n_units, dtype=np.int64)
    place[np.argsort(first)] = np.arange(n_units)
    unit = place[unit]
    size = np.bincount(unit, minlength=n_units)
    # A unit belongs to the rank in whose share its middle lies. In whole numbers: twice the rows before, and its own.
    middle = 2 * (np.cumsum(size) - size) + size
    owner = middle * world_size // max(1, 2 * n_samples)
    return np.flatnonzero(owner[unit] == rank)


def check_groups_not_split(groups: ArrayLike | None, communicator: Communicator) -> None:
    """Raise an error on all ranks if a group has rows on more than one of them.

    Ids are compared by hashes of 8 bytes, and themselves where those are equal: integers by value, all else by type
    and `repr`.

    Parameters
    ----------
    groups : array-like of shape (n_samples,), or None
        Ids on this rank, as in `MixtureBradleyTerry.fit`.
    communicator : Communicator

    Raises
    ------
    ValueError
        On all ranks, naming one such group and two of its ranks.
    """

    def hashed() -> tuple[np.ndarray, np.ndarray]:
        members = None if groups is None else check_groups(groups, len(groups))  # type: ignore[arg-type]
        ids = np.empty(0, dtype=object) if members is None else members.ids
        return ids, hash_ids(ids)

    ids, hashes = communicator.together(hashed)
    refuse_split_groups(ids, hashes, communicator.exchange(hashes), communicator)


def refuse_split_groups(
    ids: np.ndarray, hashes: np.ndarray, hashes_of_ranks: list[np.ndarray], communicator: Communicator
) -> None:
    """The error of `check_groups_not_split`, given the hashes of all ranks."""
    distinct, count = np.unique(np.concatenate([np.unique(part) for part in hashes_of_ranks]), return_counts=True)
    suspects = distinct[count > 1][:_COMPARED_IDS]
    if not len(suspects):
        return
    mine = {_name(group) for group in ids[np.isin(hashes, suspects)].tolist()}
    rank_of: dict[str, int] = {}
    for rank, names in enumerate(communicator.exchange(sorted(mine))):
        for name in names:
            if name in rank_of:
                raise ValueError(
                    f"expected all rows of a group on one rank, got rows of the group {name.partition(' ')[2]} on "
                    f"ranks {rank_of[name]} and {rank}; shard_rows never splits a group"
                )
            rank_of[name] = rank


def hash_ids(ids: np.ndarray) -> np.ndarray:
    """Hashes of distinct ids, as uint64, that are the same in every process; equal ids have equal ones."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.uint64)
    return np.array([_hash(group) for group in ids.tolist()], dtype=np.uint64)


def _hash(group: Any) -> int:
    if isinstance(group, int) and -(1 << 63) <= group < 1 << 64:
        return group % (1 << 64)
    return int.from_bytes(blake2b(_name(group).encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _name(group: Any) -> str:
    """Type and representation of an id."""
    return f"{type(group).__name__} {group!r}"
