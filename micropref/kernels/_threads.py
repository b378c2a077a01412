"""Rows split over threads, for work that releases the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from threading import current_thread, main_thread
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

# Handing work to a thread costs some 50 µs: far less than one core needs for this many entries of X.
_ENTRIES_PER_SLICE = 1 << 20
_MOST_SLICES = 256

Result = TypeVar("Result")


def available() -> int:
    """Threads that may be used: OMP_NUM_THREADS where it is set, else the cores this process may run on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def split(n_rows: int, width: int) -> list[slice]:
    """Slices of consecutive rows, one alone where there is little to do.

    They are the same for any number of threads, and so are then the bits of a sum over them. Where there is much to do,
    every thread has several, so that none waits long for another whose core is shared.
    """
    n = max(1, min(_MOST_SLICES, n_rows * width // _ENTRIES_PER_SLICE))
    cuts = [n_rows * i // n for i in range(n + 1)]
    return [slice(start, stop) for start, stop in pairwise(cuts)]


def run(
    work: Callable[..., Result], parts: list[slice], workspace: Callable[[], tuple[Any, ...]] = tuple
) -> list[Result]:
    """``[work(part, *own) for part in parts]``, in the caller's thread and as many others as may be used.

    `own` is what `workspace` makes, once for every thread: the interpreter lock lets one thread at a time make arrays,
    and what is made for every part keeps the others waiting.
    """
    results: dict[int, Any] = {}
    # Advancing it is one step under the interpreter lock, so no part is taken twice.
    waiting = iter(enumerate(parts))

    def drain() -> None:
        own = workspace()
        for i, part in waiting:
            results[i] = work(part, *own)

    n_helpers = min(available(), len(parts)) - 1
    helpers = [_pool(os.getpid(), n_helpers).submit(drain) for _ in range(n_helpers)]
    drain()
    for helper in helpers:
        if not helper.cancel():  # one that waits behind other work, perhaps behind its caller's, finds none left here
            helper.result()
    return [results[i] for i in range(len(parts))]


def blas_threads(wanted: bool) -> AbstractContextManager[Any]:
    """A ``with`` block in which BLAS uses its threads, or only the caller's.

    Threads of BLAS wait for their next product by spinning, for some 20 ms after the last one. A solver's few products
    of short vectors thus hold cores that the likelihood between them needs, which took twice its time. The setting is
    the whole process's, and OpenBLAS takes it from the main thread alone: elsewhere nothing is changed, so that blocks
    nest and each gives back what it found.
    """
    if wanted or current_thread() is not main_thread():
        return nullcontext()
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limited


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process needs its own."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="micropref")
