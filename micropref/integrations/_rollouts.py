"""Rewards of what a policy has just written: the part that all trainers share."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from micropref.datasets._asked import is_missing
from micropref.reward import PreferenceModel

__all__ = ["RewardFunction"]


class RewardFunction:
    """Base of the callables that trainers get: a model, and how the columns of users and contexts are called.

    It is an object of a class, and no closure, so that trainers can send it to other processes.
    """

    def __init__(self, model: PreferenceModel, user: str, context: str, empty: float | None):
        if not isinstance(model, PreferenceModel):
            raise TypeError(f"expected a PreferenceModel, got a {type(model).__name__}")
        if empty is not None and (isinstance(empty, bool) or not math.isfinite(empty)):
            raise ValueError(f"empty: expected a finite number or None, got {empty!r}")
        self.model, self.user, self.context = model, user, context
        self.empty = None if empty is None else float(empty)
        self.__name__ = "micropref_reward"

    def __repr__(self) -> str:
        return f"{type(self).__module__}.reward_function(user={self.user!r}, context={self.context!r})"

    def rewards(
        self,
        prompts: Sequence[Any] | None,
        responses: Sequence[Any],
        users: Sequence[Hashable] | None,
        contexts: Sequence[Any] | None,
    ) -> list[float | None]:
        """A reward for each response, `empty` where it is empty."""
        if contexts is None:  # nothing is stated, which a model that was routed by contexts wants to hear
            contexts = [None] * len(responses)
        found = self.model.reward(prompts, responses, contexts, _known(users), empty=math.nan).tolist()
        return [self.empty if math.isnan(value) else value for value in found]


def _known(users: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
    if users is None or isinstance(users, str):  # one for all rows
        return users
    return [None if is_missing(user) else user for user in users]
