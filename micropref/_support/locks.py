"""What a forked child must not take over from its parent: locks that a thread held, and pools of threads."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import Any
from weakref import WeakSet

__all__ = ["Lock", "inherited"]

_LOCKS: WeakSet[Lock] = WeakSet()
_inherited: frozenset[str] = frozenset()


class Lock:
    """A re-entrant lock that is neither pickled nor copied, and that is open in a forked child.

    The thread that held it does not exist in the child, so that its lock would never be released. Copies have a lock of
    their own.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Of each thread, what it has acquired: what it releases, also in a child that was forked in between.
        self._acquired = threading.local()
        _LOCKS.add(self)

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._acquired.__dict__.setdefault("locks", []).append(lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._acquired.locks.pop().release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Lock:
        return Lock()


def inherited(module: str) -> bool:
    """Whether a parent had imported `module` before this process was forked from it.

    OpenMP's threads do not survive a fork, and what waits for them waits for ever: faiss may be used in the process
    that imported it, but not in a child of it.
    """
    return module in _inherited


def _after_fork() -> None:
    global _inherited
    _inherited = frozenset(sys.modules)
    for lock in list(_LOCKS):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
