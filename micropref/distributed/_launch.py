"""Ranks as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from micropref._support.optional import require
from micropref.distributed._communicator import ALONE, Communicator, TorchCommunicator

# Ranks embed for hours before they meet; one that dies closes its connections, which the others notice at once.
_PATIENCE = timedelta(days=7)


def launched() -> tuple[int, int]:
    """Rank and number of processes, as torchrun sets them in the environment; ``(0, 1)`` elsewhere.

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
    """A block that uses the ranks started by torchrun; a single rank elsewhere.

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
        with suppress(RuntimeError):  # where a rank has died, there is no one to take leave of
            distributed.destroy_process_group()
