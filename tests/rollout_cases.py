"""A model of the demonstration's texts, answers to judge, and a tiny language model with its tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

from micropref import PreferenceModel, load_demo

QUESTION = "How do I fall asleep?"
SHORT = "Same bedtime every night. Phone out of the room."
LONG = (
    "First, keep the same bedtime every night, since habit helps. Then leave the phone in another room, because light "
    "keeps you awake. Finally, read something slow, so that your mind lets go."
)
WISH = "Keep it short, please, just the essentials."


@cache
def demo_model() -> tuple[PreferenceModel, Any]:
    """A model that was routed by contexts and by users, and one of its users. Tests leave it as it is."""
    world = load_demo(n_annotators=60)
    model = PreferenceModel.fit(world.train, n_components=4, alpha=1e-3, n_init=1, random_state=0)
    model.route(world.labelled).route(world.history)
    return model, world.history.group[0]


def user_says(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant_says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
