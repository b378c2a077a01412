"""How the ranks of a fit reach each other, and the block in which a fit is one of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast
from zlib import crc32

import numpy as np

from micropref._support.optional import require

# Squares of marks, summed over ranks, are exact in double precision.
_MARK_BITS = 20

Result = TypeVar("Result")


class RankError(RuntimeError):
    """Another rank failed; the message names the rank and, if known, its error.

    Parameters
    ----------
    rank : int or None
        None: one of the others has died without a word.
    reason : str
        Type and message of the error there; of one that died, what this rank noticed.
    """

    def __init__(self, rank: int | None, reason: str):
        super().__init__(f"rank {rank} failed: {reason}" if rank is not None else f"another rank has ended: {reason}")
        self.rank = rank


class Communicator:
    """Communication between the ranks of a fit; this class is for a single rank.

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
        """Exchange one object per rank; returns all of them, in the order of ranks.

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
        """Do the work on this rank, and return its result once every rank has succeeded.

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
        result: Result | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        self._settle(failure)
        return cast(Result, result)

    def sum(self, work: Callable[[], np.ndarray], size: int, at: np.ndarray) -> np.ndarray:
        """Sum of the ranks' results, in one reduction that also reports errors.

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
                "expected all ranks to evaluate the same parameters, got different ones: their arithmetic or their "
                "starts differ; use the same processors, libraries and settings on all of them"
            )
        return total[3:]

    def _settle(self, failure: Exception | None) -> None:
        """Raise this rank's error, or that of the first other rank that has one."""
        reported = self.exchange(None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            failure.add_note(f"on rank {self.rank} of {self.world_size}")
            raise failure
        for rank, reason in enumerate(reported):
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
                "expected torch.distributed to be initialised, got no group; call "
                "torch.distributed.init_process_group first, in a script started by torchrun"
            )
        self.group = group
        self.rank = self._distributed.get_rank(group)
        self.world_size = self._distributed.get_world_size(group)

    def exchange(self, value: Any) -> list[Any]:
        """Exchange one object per rank; returns all of them, in the order of ranks.

        Parameters
        ----------
        value : object
            Pickled by torch; ranks trust one another.

        Returns
        -------
        values : list of world_size objects

        Raises
        ------
        RankError
            If a rank does not answer any more.
        """
        values: list[Any] = [None] * self.world_size
        with _naming_lost_ranks():
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

        Raises
        ------
        RankError
            If a rank does not answer any more.
        """
        tensor = self._torch.tensor(values, dtype=self._torch.float64, device=self._device())
        with _naming_lost_ranks():
            self._distributed.all_reduce(tensor, group=self.group)
        return np.asarray(tensor.cpu().numpy())

    def _device(self) -> str:
        return "cuda" if self._distributed.get_backend(self.group) == "nccl" else "cpu"


@contextmanager
def _naming_lost_ranks() -> Iterator[None]:
    """A block that talks to other ranks; where one of them does not answer any more, a RankError says so."""
    try:
        yield
    except RuntimeError as error:  # whatever the backend calls it: its connections are closed or silent
        last = str(error).strip().splitlines()[-1:]
        raise RankError(
            None,
            "it was killed, ran out of memory, or its machine or network is down; start all ranks again "
            f"({''.join(last) or type(error).__name__})",
        ) from None


ALONE = Communicator()
_active: ContextVar[Communicator] = ContextVar("micropref_communicator", default=ALONE)


def active_communicator() -> Communicator:
    """The communicator of the innermost `distributed_fit` around the caller, or that of a single rank.

    Returns
    -------
    communicator : Communicator
    """
    return _active.get()


@contextmanager
def distributed_fit(communicator: Communicator | None = None) -> Iterator[Communicator]:
    """A block in which `fit` treats the rows of each rank as a share of the data.

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
