"""Rewards for OpenRLHF's ``--reward.remote_url FILE.py``; written for OpenRLHF 0.11.2."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from micropref._support.optional import require
from micropref.datasets._asked import is_missing
from micropref.datasets._text import is_blank
from micropref.integrations._rollouts import RewardFunction
from micropref.reward import PreferenceModel

__all__ = ["reward_function"]

# How chat models end an answer, where the tokenizer's own tokens are not given.
_ENDS = ("</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "<|end|>")


class _RewardFunction(RewardFunction):
    """``reward_func`` of a file."""

    def __init__(
        self, model: PreferenceModel, user: str, context: str, empty: float, *, prompt: str, ends: Sequence[str]
    ):
        super().__init__(model, user, context, empty)
        self.prompt = prompt
        self.ends = tuple(end for end in ends if end)

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any] | None = None, **_: Any
    ) -> dict[str, Any]:
        torch = require("torch", "the reward function of OpenRLHF")
        known = [_columns(label) for label in ([None] * len(queries) if labels is None else labels)]
        found = self.rewards(
            [one.get(self.prompt, prompt) for one, prompt in zip(known, prompts, strict=True)],
            [_response(query, prompt, self.ends) for query, prompt in zip(queries, prompts, strict=True)],
            [one.get(self.user) for one in known],
            [one.get(self.context) for one in known],
        )
        rewards = torch.tensor(found, dtype=torch.float32)
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def reward_function(
    model: PreferenceModel,
    *,
    user: str = "user_id",
    context: str = "context",
    prompt: str = "prompt",
    empty: float = -10.0,
    ends: Sequence[str] = _ENDS,
) -> _RewardFunction:
    """Create the function ``reward_func`` of the file that OpenRLHF loads.

    OpenRLHF has one column beside the prompt, the label. A label that is an object, or JSON that spells one out, may
    name the user, the context, and the prompt as it was before a chat template; a blank one names nothing.

    Parameters
    ----------
    model : PreferenceModel
    user, context, prompt : str, default="user_id", "context", "prompt"
        Keys of a label. Without the key for the prompt, it is the text that the policy read.
    empty : float, default=-10.0
        Reward of an empty rollout, for which OpenRLHF has no None: a number below the rewards of other rollouts.
    ends : sequence of str, optional
        Tokens that end a response, and are no part of it: ``tokenizer.all_special_tokens``. By default those of widely
        used models.

    Returns
    -------
    function : callable
        ``function(queries, prompts, labels) -> dict`` with ``rewards`` and ``scores``, tensors of shape (n,) in nats of
        log-odds, and ``extra_logs``.

    Raises
    ------
    TypeError
        If `model` is no PreferenceModel.
    ValueError
        If `empty` is not finite; in a call, if a label is neither blank nor an object, or a query does not contain its
        prompt.

    Examples
    --------
    >>> from micropref import PreferenceModel, load_demo
    >>> reward_func = reward_function(PreferenceModel.fit(load_demo().train, n_components=1))
    >>> found = reward_func(["Tea? Yes, please.</s>", "Tea?</s>"], ["Tea?"] * 2, ['{"user_id": "ann"}', ""])
    >>> float(found["rewards"][1])
    -10.0
    """
    return _RewardFunction(model, user, context, empty, prompt=prompt, ends=ends)


def _columns(label: Any) -> Mapping[str, Any]:
    """What a label says, by key."""
    if isinstance(label, Mapping):
        return label
    if is_missing(label) or (isinstance(label, str) and is_blank(label)):
        return {}
    found = None
    if isinstance(label, str):
        try:
            found = json.loads(label)
        except ValueError:
            found = None
    if not isinstance(found, dict):
        raise ValueError(
            "labels: expected an object with the user and the context, JSON that spells one out, or a blank label, "
            f"got {reprlib.repr(label)}"
        )
    return found


def _response(query: str, prompt: str, ends: tuple[str, ...]) -> str:
    """What a query says after its prompt, without the tokens that end it."""
    start = query.find(prompt)
    if start < 0:
        raise ValueError(
            "queries: expected the text of the prompt and the response, got one without its prompt, "
            f"{reprlib.repr(query)}, as happens if prompts are cut to a maximum length"
        )
    response = query[start + len(prompt) :].strip()
    while ended := next((end for end in ends if response.endswith(end)), None):
        response = response.removesuffix(ended).strip()
    return response
