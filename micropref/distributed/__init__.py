"""One fit on several processes: each holds a share of the rows, and all end with the same heads.

Every evaluation of the objective is one sum over the ranks of ``[loss, gradient]`` in double precision. Each rank then
takes the same step from the same numbers, so that no rank leads and no parameters are sent. Only fits inside a
`with distributed_fit():` block share their rows like this.
"""

from __future__ import annotations

from micropref._support.renamed import moved
from micropref.distributed._communicator import (
    Communicator,
    RankError,
    TorchCommunicator,
    active_communicator,
    distributed_fit,
)
from micropref.distributed._groups import check_groups_not_split, shard_rows
from micropref.distributed._launch import launched, torchrun

__all__ = [
    "Communicator",
    "RankError",
    "TorchCommunicator",
    "active_communicator",
    "check_groups_not_split",
    "distributed_fit",
    "launched",
    "shard_rows",
    "torchrun",
]

__getattr__ = moved(__name__)
