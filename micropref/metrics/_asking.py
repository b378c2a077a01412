"""Labels that an estimator asks for: one question after the other, each answered before the next is chosen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import deepcopy
from inspect import signature
from numbers import Integral
from typing import Any

import numpy as np

from micropref._arrays.backend import Array
from micropref._rows.arrays import take_rows
from micropref._rows.groups import Groups, ids_array
from micropref._rows.pair_keys import NoQuestionLeftError

__all__ = ["Ask", "asked_copies", "asking"]

#: From an estimator, candidate rows of X, and the user: the position of the row to ask about; None where there is none.
Ask = Callable[[Any, Array, Hashable, int], int | None]

OWN_RULE = "information"


def asking(estimator: Any, strategy: str, pool: int) -> tuple[Ask, int]:
    """How an estimator asks by a strategy, and from how many rows.

    Raises
    ------
    TypeError
        If it has no `suggest`.
    ValueError
        If its `suggest` knows one rule alone and the strategy is another than "information", or `pool` is no number of
        rows. A strategy that `suggest` does not know is refused by it.
    """
    if not hasattr(estimator, "suggest"):
        raise TypeError(
            f"strategy={strategy!r}: expected an estimator with a rule for what to ask, `suggest`, got a "
            f"{type(estimator).__name__}; use strategy='random'"
        )
    if not isinstance(pool, Integral) or isinstance(pool, bool) or pool < 1:
        raise ValueError(f"pool: expected an integer of at least 1, got {pool!r}")
    chooses = "strategy" in signature(estimator.suggest).parameters
    if not chooses and strategy != OWN_RULE:
        raise ValueError(
            f"strategy: expected 'random' or {OWN_RULE!r} of a {type(estimator).__name__}, which asks by its own rule, "
            f"got {strategy!r}"
        )
    more = {"strategy": strategy} if chooses else {}

    def ask(learner: Any, candidates: Array, user: Hashable, seed: int) -> int | None:
        try:
            return int(learner.suggest(candidates, 1, user, random_state=seed, **more)[0])
        except NoQuestionLeftError:  # what is left are pairs that stand in X twice
            return None

    return ask, int(pool)


def asked_copies(
    estimator: Any,
    asks: tuple[Ask, int],
    rows: tuple[Array, np.ndarray | None, Groups],
    budgets: Sequence[int],
    judged: Groups,
    random: np.random.RandomState,
    weight: np.ndarray | None = None,
) -> Iterator[tuple[Any, dict[Hashable, int]]]:
    """For each budget a copy that has asked so many questions of every group, and how many it has asked of each.

    Parameters
    ----------
    estimator : fitted estimator
    asks : tuple
        What `asking` returned.
    rows : tuple
        X, labels or None, and the groups of the rows.
    budgets : sequence of int
    judged : Groups
        Of the test rows: others are not asked.
    random : RandomState
    weight : ndarray of shape (n,), optional
        Weights of the rows.
    """
    X, labels, members = rows
    ask, pool = asks
    left = _pools(members, set(judged.ids.tolist()), pool, random)
    seeds = {user: int(random.randint(2**31 - 1)) for user in left}
    learner, count = deepcopy(estimator), dict.fromkeys(left, 0)
    done: dict[int, tuple[Any, dict[Hashable, int]]] = {0: (estimator, dict(count))}
    for asked in range(1, max(budgets, default=0) + 1):
        chosen: dict[Hashable, int] = {}
        for user, candidates in left.items():
            position = ask(learner, take_rows(X, candidates), user, seeds[user] + asked) if len(candidates) else None
            if position is not None:
                chosen[user] = int(candidates[position])
                count[user] += 1
                left[user] = np.delete(candidates, position)
        if chosen:
            some = np.array(list(chosen.values()))
            answers = None if labels is None else labels[some]
            weighted = {} if weight is None else {"sample_weight": weight[some]}
            learner.partial_fit(take_rows(X, some), answers, groups=ids_array(list(chosen)), **weighted)
        if asked in budgets:
            done[asked] = deepcopy(learner), dict(count)
    for budget in budgets:
        yield done[budget]


def _pools(
    members: Groups, users: set[Hashable], size: int, random: np.random.RandomState
) -> dict[Hashable, np.ndarray]:
    """Rows of every group that is judged, at most so many, drawn; a row's key depends on its place alone."""
    key = random.random_sample(len(members.index))
    found: dict[Hashable, np.ndarray] = {}
    for position, user in enumerate(members.ids.tolist()):
        if user in users:
            own = np.flatnonzero(members.index == position)
            found[user] = np.sort(own[np.argsort(key[own], kind="stable")[:size]])
    return found
