"""Batches: jobs of many requests, done by one thread, those together that wait together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["Batches", "BusyError"]

_DEPTH = 4096


class BusyError(RuntimeError):
    """More requests wait than the server is ready to keep."""


class Batches:
    """Jobs in the order of their arrival.

    Parameters
    ----------
    work : callable
        Takes a list of jobs, and gives a result or an exception for each.
    name : str
        Of the thread.
    most : int
        Jobs that are done together.
    """

    def __init__(self, work: Callable[[list[Any]], Sequence[Any]], name: str, most: int):
        self._work, self._most = work, most
        self._waiting: SimpleQueue[tuple[Any, asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, inside of the loop whose requests are served."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Do what waits, and end."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def __len__(self) -> int:
        return self._waiting.qsize()

    async def do(self, job: Any) -> Any:
        """The result of a job."""
        if len(self) >= _DEPTH:
            raise BusyError(f"expected fewer than {_DEPTH} requests that wait, got as many; try again later")
        assert self._loop is not None
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put((job, done))
        return await done

    def wait_for(self, job: Any) -> Any:
        """The result of a job, for a thread that is not the loop's."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self.do(job), self._loop).result()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            taken, is_last = [first], False
            while len(taken) < self._most:
                try:
                    following = self._waiting.get_nowait()
                except Empty:
                    break
                if following is None:
                    is_last = True
                    break
                taken.append(following)
            self._do(taken)
            if is_last:
                return

    def _do(self, taken: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        try:
            results = self._work([job for job, _ in taken])
        except Exception as error:
            results = [error] * len(taken)
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended, and nothing waits any more
            # One call for all: each wakes the loop.
            self._loop.call_soon_threadsafe(_settle, [done for _, done in taken], results)


def _settle(futures: list[asyncio.Future[Any]], results: Sequence[Any]) -> None:
    for done, result in zip(futures, results, strict=True):
        if done.done():  # its request was broken off
            continue
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
