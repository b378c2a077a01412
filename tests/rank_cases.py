"""Ranks that are threads of one process."""

from __future__ import annotations

import threading

import numpy as np

from micropref.distributed import Communicator, distributed_fit


class Thread(Communicator):
    """One of several ranks that are threads of this process."""

    def __init__(self, rank, slots, barrier):
        self.rank, self.world_size = rank, len(slots)
        self.slots, self.barrier = slots, barrier
        self.n_reductions = 0

    def exchange(self, value):
        self.slots[self.rank] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values

    def reduce(self, values):
        self.n_reductions += 1
        return np.sum(self.exchange(values), axis=0)


def on_ranks(world_size, work):
    """``work(communicator)`` on every rank, in a `distributed_fit`: results and errors in the order of ranks."""
    slots, barrier = [None] * world_size, threading.Barrier(world_size, timeout=60)
    results, errors = [None] * world_size, [None] * world_size

    def run(rank):
        try:
            with distributed_fit(Thread(rank, slots, barrier)) as ranks:
                results[rank] = work(ranks)
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, errors
