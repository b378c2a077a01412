"""Rewards for TRL's online trainers, such as `GRPOTrainer`; written for TRL 1.16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from micropref.integrations._rollouts import RewardFunction
from micropref.reward import PreferenceModel

__all__ = ["reward_function"]


class _RewardFunction(RewardFunction):
    """``reward_funcs=`` of a trainer."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return self.rewards(prompts, completions, columns.get(self.user), columns.get(self.context))


def reward_function(
    model: PreferenceModel, *, user: str = "user_id", context: str = "context", empty: float | None = None
) -> _RewardFunction:
    """Create a reward function for ``GRPOTrainer(reward_funcs=...)``.

    Trainers call it with prompts and completions, as texts or as lists of messages, and with the other columns of the
    data set. Unknown users, and rows without a user, get the unknown user's reward; a context of None is blank. An
    empty rollout stops no training run.

    Parameters
    ----------
    model : PreferenceModel
    user : str, default="user_id"
        Column with the id of the user for whom a prompt is answered. The data set need not have it.
    context : str, default="context"
        Column with the stated criterion, or the profile of the user. The data set need not have it.
    empty : float, optional
        Reward of an empty rollout. By default None, with which TRL leaves this reward out of the row's sum.

    Returns
    -------
    function : callable
        ``function(prompts, completions, **columns) -> list of float or None``, in nats of log-odds. Trainers log it
        under its ``__name__``, ``"micropref_reward"``, which may be set.

    Raises
    ------
    TypeError
        If `model` is no PreferenceModel.
    ValueError
        If `empty` is not finite.

    Examples
    --------
    >>> from micropref import PreferenceModel, load_demo
    >>> function = reward_function(PreferenceModel.fit(load_demo().train, n_components=1))
    >>> rewards = function(prompts=["Tea?"] * 2, completions=["Yes, please.", ""], user_id=["ann", None])
    >>> isinstance(rewards[0], float), rewards[1]
    (True, None)
    """
    return _RewardFunction(model, user, context, empty)
