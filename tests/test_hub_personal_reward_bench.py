"""PersonalRewardBench: the pairs of each person, with splits of their own."""

from __future__ import annotations

import datasets as hf_datasets
import pytest
from hub_cases import personal_row

from micropref.datasets import (
    load_personal_reward_bench,
)


def test_personal_reward_bench_divides_each_persons_pairs() -> None:
    splits = {
        "train": [personal_row("train", "ann"), personal_row("test", "ann"), personal_row("val", "ann")],
        "test": [personal_row("train", "bob"), personal_row("test", "bob")],
    }
    loaded = load_personal_reward_bench({name: hf_datasets.Dataset.from_list(rows) for name, rows in splits.items()})
    assert loaded.train.chosen == ["Listen to her (train, ann).", "Listen to her (train, bob)."]
    assert loaded.train.rejected == ["Forbid it (train, ann).", "Forbid it (train, bob)."]
    assert list(loaded.train.group) == ["ann", "bob"]
    assert loaded.validation.chosen == ["Listen to her (val, ann)."]
    assert loaded.test.chosen == ["Listen to her (test, ann).", "Listen to her (test, bob)."]
    assert loaded.test.extra == {"user_split": ["train", "test"]}
    assert set(loaded.train.prompt) == {"user: Gauges?\n\nassistant: Which ones?\n\nuser: In ears — är det farligt?"}
    assert loaded.train.context is None
    assert repr(loaded).startswith("PreferenceSet('PersonalRewardBench (prism)', rows: train 2, validation 1, test 2, ")


def test_personal_reward_bench_speeches() -> None:
    """Answers as one message, as a list of one, or as text; conversations of one question."""
    rows = [
        personal_row(context=[{"role": "user", "content": "Hej?"}]),
        personal_row(context="Hej?", chosen="Listen.", rejected=[{"role": "assistant", "content": "Forbid."}]),
    ]
    table = load_personal_reward_bench(rows).train
    assert table.prompt == ["Hej?", "Hej?"]
    assert table.chosen == ["Listen to her (train, user9).", "Listen."]
    assert table.rejected == ["Forbid it (train, user9).", "Forbid."]
    assert load_personal_reward_bench(rows).test is None


def test_personal_reward_bench_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        hf_datasets, "load_dataset", lambda path: asked.append(path) or hf_datasets.Dataset.from_list([personal_row()])
    )
    loaded = load_personal_reward_bench(part="chatbot_arena")
    assert asked == ["MichaelR207/chatbot_arena_personalized_0125"]
    assert loaded.licence.startswith("unknown; made from Chatbot Arena")
    with pytest.raises(ValueError, match="expected part to be 'prism' or 'chatbot_arena', got 'arena'"):
        load_personal_reward_bench(part="arena")
