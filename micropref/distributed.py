"""One fit on several processes: each has its share of the rows, and all end with the same heads.

Every evaluation of the objective is one sum over the ranks of ``[loss, gradient]`` in double precision. Each rank then
takes the same step from the same numbers, so that no rank leads and no parameters are sent. Nothing of this happens
unasked: it takes a `with distributed_fit():` block.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from hashlib import blake2b
from numbers import Integral
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike

from micropref._optional import require
from micropref._validation import check_groups

__all__ = [
    "Communicator",
    "RankError",
    "TorchCommunicator",
    "check_groups_not_split",
    "distributed_fit",
    "launched",
    "shard_rows",
    "torchrun",
]

# Ranks embed for hours before they meet; one that dies closes its connections, which the others notice at once.
_PATIENCE = timedelta(days=7)
# Ids whose hashes meet are compared themselves; a few are enough to name one.
_COMPARED_IDS = 16
# Squares of marks, summed over ranks, are exact in double precision.
_MARK_BITS = 20

Result = TypeVar("Result")


class RankError(RuntimeError):
    """Another rank failed; the message names it and says how.

    Parameters
    ----------
    rank : int
    reason : str
        Type and message of the error there.
    """

    def __init__(self, rank: int, reason: str):
        super().__init__(f"rank {rank} failed: {reason}")
        self.rank = rank


class Communicator:
    """How the ranks of a fit reach each other; this one is alone.

    A subclass sets `rank` and `world_size` and overrides `exchange` and `reduce`. All ranks must make the same calls in
    the same order. An error inside the work of `together` or `sum` is raised on the rank it happened on, and as a
    `RankError` on the others: none waits for one that has left.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    world_size : int
        How many there are.
    """

    rank: int = 0
    world_size: int = 1

    def exchange(self, value: Any) -> list[Any]:
        """What every rank has to say, in the order of ranks.

        Parameters
        ----------
        value : object

        Returns
        -------
        values : list of world_size objects
            The same on all ranks.
        """
        return [value]

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the ranks.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)

        Returns
        -------
        total : ndarray of float64 of shape (n,)
            The same bits on all ranks.
        """
        return values

    def together(self, work: Callable[[], Result]) -> Result:
        """This rank's result of the work, once it is known that every rank has one.

        Parameters
        ----------
        work : callable
            Talks to no other rank.

        Returns
        -------
        result : object
            Of this rank's own work.

        Raises
        ------
        RankError
            If another rank's work failed. This rank's own error is raised as it is.
        """
        if self.world_size == 1:
            return work()
        result: Any = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        self._settle(failure)
        return result

    def sum(self, work: Callable[[], np.ndarray], size: int, at: np.ndarray) -> np.ndarray:
        """Sum of the ranks' results, in one reduction that also tells of errors.

        Parameters
        ----------
        work : callable
            Gives a float64 array of shape (size,); talks to no other rank.
        size : int
        at : ndarray
            The point for which the work is done, which must be the same on all ranks.

        Returns
        -------
        total : ndarray of float64 of shape (size,)

        Raises
        ------
        RankError
            If another rank's work failed. This rank's own error is raised as it is.
        RuntimeError
            If the ranks are not at the same point.
        """
        if self.world_size == 1:
            return work()
        values = np.zeros(size)
        failure: Exception | None = None
        try:
            values = work()
        except Exception as error:
            failure = error
        mark = float(crc32(at.tobytes()) & ((1 << _MARK_BITS) - 1))
        total = self.reduce(np.concatenate([[failure is not None, mark, mark * mark], values]))
        if total[0]:
            self._settle(failure)
        # The variance of the marks: zero exactly if all are equal, and the same number on every rank.
        if self.world_size * total[2] != total[1] ** 2:
            raise RuntimeError(
                "the ranks evaluate different parameters: found different arithmetic or starts, wanted the same "
                "processors, libraries and settings on all of them"
            )
        return total[3:]

    def _settle(self, failure: Exception | None) -> None:
        """Raise this rank's error, or that of the first other rank that has one."""
        told = self.exchange(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            failure.add_note(f"on rank {self.rank} of {self.world_size}")
            raise failure
        for rank, reason in enumerate(told):
            if reason is not None:
                raise RankError(rank, reason)


class TorchCommunicator(Communicator):
    """The ranks of a process group of torch.distributed, which has to be initialised already.

    Sums travel as tensors on the current GPU where the group's backend is NCCL, and in host memory otherwise.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        None: all ranks.

    Raises
    ------
    RuntimeError
        If torch.distributed is not initialised.
    """

    def __init__(self, group: Any = None):
        self._torch = require("torch", "fitting on several processes")
        self._distributed = require("torch.distributed", "fitting on several processes")
        if not (self._distributed.is_available() and self._distributed.is_initialized()):
            raise RuntimeError(
                "torch.distributed is not initialised; call torch.distributed.init_process_group first, "
                "in a script started by torchrun"
            )
        self.group = group
        self.rank = self._distributed.get_rank(group)
        self.world_size = self._distributed.get_world_size(group)

    def exchange(self, value: Any) -> list[Any]:
        """What every rank has to say, in the order of ranks.

        Parameters
        ----------
        value : object
            Pickled by torch; ranks trust one another.

        Returns
        -------
        values : list of world_size objects
        """
        values: list[Any] = [None] * self.world_size
        self._distributed.all_gather_object(values, value, group=self.group)
        return values

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Sum over the ranks, one all-reduce.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)

        Returns
        -------
        total : ndarray of float64 of shape (n,)
        """
        tensor = self._torch.tensor(values, dtype=self._torch.float64, device=self._device())
        self._distributed.all_reduce(tensor, group=self.group)
        return tensor.cpu().numpy()

    def _device(self) -> str:
        return "cuda" if self._distributed.get_backend(self.group) == "nccl" else "cpu"


ALONE = Communicator()
_active: ContextVar[Communicator] = ContextVar("micropref_communicator", default=ALONE)


def active_communicator() -> Communicator:
    """The one of the innermost `distributed_fit` around the caller; otherwise one that is alone."""
    return _active.get()


@contextmanager
def distributed_fit(communicator: Communicator | None = None) -> Iterator[Communicator]:
    """A block in which `fit` takes each rank's rows for a share of the data.

    `MixtureBradleyTerry.fit`, `PairScaler.fit`, `PairEncoder.fit` and `PreferenceModel.fit` then give on every rank
    what one process gives with all rows, up to rounding. Every rank must call them, in the same order and with the same
    settings; rank 0's `random_state` counts. A rank of a mixture may have no rows, or no label of a kind; a group must
    be on one rank only, which is checked. All else (`partial_fit`, `predict`, the router, the choice of K) stays local.
    Threads and processes that are started inside the block are outside of it.

    Parameters
    ----------
    communicator : Communicator, optional
        None: all ranks of torch.distributed, which has to be initialised.

    Yields
    ------
    communicator : Communicator

    Examples
    --------
    In a script started by ``torchrun --nproc-per-node 2 script.py``::

        torch.distributed.init_process_group("gloo")
        with distributed_fit() as ranks:
            rows = shard_rows(len(X), annotator, ranks.rank, ranks.world_size)
            model = MixtureBradleyTerry(random_state=0).fit(X[rows], y[rows], groups=annotator[rows])
    """
    communicator = TorchCommunicator() if communicator is None else communicator
    token = _active.set(communicator)
    try:
        yield communicator
    finally:
        _active.reset(token)


def launched() -> tuple[int, int]:
    """Number of this process and how many there are, as torchrun says in the environment; ``(0, 1)`` elsewhere.

    Returns
    -------
    rank, world_size : int
    """
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank.isdigit() and size.isdigit() and int(size) > 1 and "MASTER_ADDR" in os.environ:
        return int(rank), int(size)
    return 0, 1


@contextmanager
def torchrun() -> Iterator[Communicator]:
    """The ranks that torchrun started, for the length of a block; one alone elsewhere.

    A process group of gloo is made where the environment has RANK, MASTER_ADDR and a WORLD_SIZE above 1 and
    torch.distributed is not initialised yet, and is destroyed at the end.

    Yields
    ------
    communicator : Communicator
    """
    if launched()[1] == 1:
        yield ALONE
        return
    distributed = require("torch.distributed", "running under torchrun")
    if distributed.is_initialized():
        yield TorchCommunicator()
        return
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield TorchCommunicator()
    finally:
        distributed.destroy_process_group()


# -------------------------------------------------------------------------------------------------------------- groups


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
        raise ValueError(f"found rank={rank} of world_size={world_size}, wanted 0 <= rank < world_size")
    members = check_groups(groups, n_samples)
    if members is None:
        unit, size = np.arange(n_samples), np.ones(n_samples, dtype=np.int64)
    else:
        unit = members.index.astype(np.int64)
        alone = unit < 0
        unit[alone] = members.n_groups + np.arange(alone.sum())
        _, first = np.unique(unit, return_index=True)
        place = np.empty(len(first), dtype=np.int64)
        place[np.argsort(first)] = np.arange(len(first))
        unit = place[unit]
        size = np.bincount(unit)
    # A unit belongs to the rank in whose share its middle lies. In whole numbers: twice the rows before, and its own.
    middle = 2 * (np.cumsum(size) - size) + size
    owner = middle * world_size // max(1, 2 * n_samples)
    return np.flatnonzero(owner[unit] == rank)


def check_groups_not_split(groups: ArrayLike | None, communicator: Communicator) -> None:
    """An error on all ranks where a group has rows on more than one of them.

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
                    f"found rows of the group {name.partition(' ')[2]} on ranks {rank_of[name]} and {rank}, wanted "
                    "all rows of a group on one rank; shard_rows never splits a group"
                )
            rank_of[name] = rank


def hash_ids(ids: np.ndarray) -> np.ndarray:
    """Hashes of distinct ids, as uint64, that are the same in every process; equal ids have equal ones."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.uint64)
    return np.array([_hash(group) for group in ids.tolist()], dtype=np.uint64)


def _hash(group: Any) -> int:
    whole = _whole(group)
    if whole is not None and -(1 << 63) <= whole < 1 << 64:
        return whole % (1 << 64)
    return int.from_bytes(blake2b(_name(group).encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _name(group: Any) -> str:
    """Type and representation; equal numbers and equal texts have one name, whatever their types."""
    whole = _whole(group)
    if whole is not None:
        return f"int {whole}"
    return f"str {str(group)!r}" if isinstance(group, str) else f"{type(group).__name__} {group!r}"


def _whole(group: Any) -> int | None:
    is_whole = isinstance(group, Integral) or (isinstance(group, float) and group.is_integer())
    return int(group) if is_whole else None
