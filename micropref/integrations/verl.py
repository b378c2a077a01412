"""Rewards for verl's ``reward.custom_reward_function``; written for verl 0.9.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from micropref.datasets._asked import read_asked
from micropref.integrations._rollouts import RewardFunction
from micropref.reward import PreferenceModel

__all__ = ["reward_function"]


class _RewardFunction(RewardFunction):
    """``compute_score`` of a file."""

    def __init__(self, model: PreferenceModel, user: str, context: str, empty: float, *, prompt: str):
        super().__init__(model, user, context, empty)
        self.prompt = prompt

    def __call__(
        self,
        data_source: Any = None,
        solution_str: Any = None,
        ground_truth: Any = None,
        extra_info: Mapping[str, Any] | None = None,
        *,
        solution_strs: Sequence[Any] | None = None,
        extra_infos: Sequence[Mapping[str, Any] | None] | None = None,
        **_: Any,
    ) -> Any:
        if solution_strs is None:
            return self._scores([solution_str], [extra_info])[0]
        return self._scores(solution_strs, [None] * len(solution_strs) if extra_infos is None else extra_infos)

    def _scores(self, responses: Sequence[Any], extra_infos: Sequence[Mapping[str, Any] | None]) -> list[float | None]:
        known = [extra_info or {} for extra_info in extra_infos]
        asked = read_asked(None, responses).present
        if self.model.reads_prompts and not all(self.prompt in known[row] for row in asked):
            raise ValueError(
                f"extra_info: expected the key {self.prompt!r}, since this model reads prompts, which verl does not "
                "pass, got none; add the prompt to the extra_info of the data set"
            )
        return self.rewards(
            [one.get(self.prompt) for one in known],
            responses,
            [one.get(self.user) for one in known],
            [one.get(self.context) for one in known],
        )


def reward_function(
    model: PreferenceModel,
    *,
    user: str = "user_id",
    context: str = "context",
    prompt: str = "prompt",
    empty: float = -10.0,
) -> _RewardFunction:
    """Create the function ``compute_score`` of the file that verl loads.

    verl passes no prompt: it is read from the ``extra_info`` of the data set, as are the user and the context.

    Parameters
    ----------
    model : PreferenceModel
    user, context, prompt : str, default="user_id", "context", "prompt"
        Keys of ``extra_info``. That of the prompt is needed where the model reads prompts (`reads_prompts`).
    empty : float, default=-10.0
        Score of an empty rollout, for which verl has no None: a number below the rewards of other rollouts.

    Returns
    -------
    function : callable
        ``function(data_source, solution_str, ground_truth, extra_info) -> float`` in nats of log-odds, and, for the
        reward manager "batch", ``function(data_sources=, solution_strs=, ground_truths=, extra_infos=)`` -> list of
        float.

    Raises
    ------
    TypeError
        If `model` is no PreferenceModel.
    ValueError
        If `empty` is not finite; in a call, if the model reads prompts and ``extra_info`` has none.

    Examples
    --------
    >>> from micropref import PreferenceModel, load_demo
    >>> compute_score = reward_function(PreferenceModel.fit(load_demo().train, n_components=1))
    >>> compute_score("chat", "", None, {"prompt": "Tea?", "user_id": "ann"})
    -10.0
    """
    return _RewardFunction(model, user, context, empty, prompt=prompt)
