"""Solvers that advance together, so that one read of the data serves the points that all of them wait for.

A solver calls its function and waits for the value. Here every solver runs in a thread of its own, which does nothing
while it waits; once all of them wait, the caller's thread evaluates their points at once. A solver that has ended
leaves the others. Points come to the evaluation in the order of the solvers, whichever asked first, so that the results
have the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_lock_step"]

Vector = NDArray[np.float64]
Answer = tuple[float, Vector]
Result = TypeVar("Result")


class _Dismissed(BaseException):
    """Raised inside a solver that is not to go on."""


class _Runner(Generic[Result]):
    """One solver in a thread: the point that it waits for, or how it ended."""

    def __init__(self, solve: Callable[[Callable[[Vector], Answer]], Result]):
        self.point: Vector | None = None
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._questions: SimpleQueue[Vector | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        # Settings of the caller's context hold in the thread too, as those of NumPy's warnings.
        self._thread = Thread(target=copy_context().run, args=(self._run, solve), name="micropref-start", daemon=True)
        self._thread.start()

    def _run(self, solve: Callable[[Callable[[Vector], Answer]], Result]) -> None:
        try:
            self.result = solve(self._ask)
        except BaseException as error:  # the caller's thread raises it
            self.error = error
        self._questions.put(None)

    def _ask(self, point: Vector) -> Answer:
        self._questions.put(np.array(point, np.float64))
        answer = self._answers.get()
        if answer is None:
            raise _Dismissed
        return answer

    def wait(self) -> None:
        """Until the solver asks for a point, or has ended and asks for none."""
        self.point = self._questions.get()
        if self.point is None and self.error is not None:
            raise self.error

    def tell(self, answer: Answer | None) -> None:
        """The value and gradient at the point; None ends the solver."""
        self.point = None
        self._answers.put(answer)

    def join(self) -> None:
        self._thread.join()


def in_lock_step(
    solvers: Sequence[Callable[[Callable[[Vector], Answer]], Result]],
    evaluate: Callable[[Vector], tuple[Vector, Vector]],
    after_round: Callable[[], None] = lambda: None,
) -> list[Result]:
    """The results of solvers that evaluate one function, at the points of all of them at once.

    Parameters
    ----------
    solvers : sequence of callable
        Each takes the function, which maps a vector to its value and gradient, and gives its result.
    evaluate : callable
        Values (S,) and gradients (S, n) of S vectors (S, n), in the thread of the caller.
    after_round : callable, optional
        Called in the thread of the caller whenever the solvers have used what was evaluated.

    Returns
    -------
    results : list
        In the order of the solvers. What one of them raises, or `evaluate`, or the user by interrupting, is raised here
        after all of them have ended.
    """
    runners: list[_Runner[Result]] = []
    try:
        for solve in solvers:
            runners.append(_Runner(solve))
        waiting = runners
        while waiting:
            for runner in waiting:
                runner.wait()
            waiting = [runner for runner in waiting if runner.point is not None]
            after_round()
            if waiting:
                values, gradients = evaluate(np.stack([cast(Vector, runner.point) for runner in waiting]))
                for runner, value, gradient in zip(waiting, values, gradients, strict=True):
                    runner.tell((float(value), gradient))
        return [cast(Result, runner.result) for runner in runners]
    finally:
        for runner in runners:
            runner.tell(None)  # unread by those that have ended
        for runner in runners:
            runner.join()
