"""Rows of published sets, written in the schemas in which they are published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import micropref.datasets
from micropref.datasets import (
    PreferenceSet,
    PreferenceTable,
)


def rpr_row(number: int = 0, **changes: Any) -> dict:
    return {
        "prompt": f"Erkläre Regen, Teil {number} 🌧️",
        "response_a": f"Short {number}.",
        "response_b": f"A long answer {number}, with reasons.",
        "criteria_x": "Brevity and directness",
        "criteria_y": "Depth of explanation",
        "category_x": "Conciseness",
        "category_y": "Completeness",
        "id": 100 + number,
        "scenario_x": "A commuter reads on a phone.",
        "scenario_y": "A student prepares an exam.",
        **{f"profile_{i}": f"Person {i}" for i in range(5)},
        **changes,
    }


def helpsteer2_rows(prompt: str, first: tuple[int, ...], second: tuple[int, ...], **changes: Any) -> list[dict]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return [
        {"prompt": prompt, "response": f"{which} to {prompt}", **dict(zip(names, scores, strict=True)), **changes}
        for which, scores in (("First", first), ("Second", second))
    ]


def prism_row(
    turn: int, within: int, score: int, chosen: bool, *, user: str = "user3", talk: str = "c7", **changes: Any
):
    return {
        "utterance_id": f"ut{turn}{within}",
        "interaction_id": f"int{turn}",
        "conversation_id": talk,
        "user_id": user,
        "turn": turn,
        "within_turn_id": within,
        "included_in_balanced_subset": True,
        "conversation_type": "unguided",
        "user_prompt": f"¿Pregunta {turn}?",
        "model_response": f"Answer {turn}.{within} of {talk}",
        "model_name": f"model-{within}",
        "model_provider": "someone",
        "score": score,
        "if_chosen": chosen,
        **changes,
    }


def prism_talk(**names: str) -> list[dict]:
    first = [prism_row(0, i, score, i == 2, **names) for i, score in enumerate((40, 90, 90, 5))]
    return [*first, prism_row(1, 0, 70, False, **names), prism_row(1, 1, 80, True, **names)]


def personal_row(split: str = "train", user: str = "user9", **changes: Any) -> dict:
    return {
        "conversation_id": "c1",
        "user_id": user,
        "split": split,
        "context": [
            {"role": "user", "content": "Gauges?"},
            {"role": "model", "content": "Which ones?"},
            {"role": "user", "content": "In ears — är det farligt?"},
        ],
        "chosen": {"role": "model", "content": f"Listen to her ({split}, {user})."},
        "rejected": {"role": "model", "content": f"Forbid it ({split}, {user})."},
        "chosen_score": 81.0,
        "rejected_score": 12.0,
        "dataset": "prism",
        "agreement": 0.4,
        **changes,
    }


def completion(number: int, ratings: tuple[str, str, str, str], **changes: Any) -> dict:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {
        aspect: {"Rating": rating, "Rationale": "Because."}
        | ({"Type": ["1"], "Rationale For Rating": "So."} if aspect in aspects[2:] else {})
        for aspect, rating in zip(aspects, ratings, strict=True)
    }
    return {
        "annotations": annotations,
        "critique": "Fine.",
        "custom_system_prompt": "Help.",
        "fine-grained_score": 3.5,
        "model": f"model-{number}",
        "overall_score": 7.0,
        "principle": "helpfulness",
        "response": f"Completion {number} — ünïcode",
        **changes,
    }


def ultrafeedback_row(number: int = 0, completions: list[dict] | None = None, **changes: Any) -> dict:
    if completions is None:
        ratings = [("5", "2", "N/A", "3"), ("1", "4", "3", "3"), ("1", "4", "4", "3")]
        completions = [completion(i, rating) for i, rating in enumerate(ratings)]
    return {
        "source": "sharegpt",
        "instruction": f"Instruction {number}",
        "models": [one["model"] for one in completions],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        **changes,
    }


def hh_row(chosen: str = "Gern: 湯!", rejected: str = "No.", **changes: Any) -> dict:
    opening = "\n\nHuman: Tea?\n\nAssistant: Which?\n\nHuman: Green.\n\nAssistant:"
    return {"chosen": f"{opening} {chosen}", "rejected": f"{opening} {rejected}", **changes}


def bench_row(number: int = 0, **changes: Any) -> dict:
    return {
        "prompt": f"Prompt {number}",
        "chosen": f"Right {number}",
        "chosen_model": "human",
        "rejected": f"Wrong {number}",
        "rejected_model": "model",
        "subset": "llmbar-natural",
        "id": number,
        **changes,
    }


def bench2_row(n_right: int = 1, n_wrong: int = 3, subset: str = "Focus", **changes: Any) -> dict:
    return {
        "id": f"{subset}-{n_right}",
        "prompt": f"Name a colour ({subset}). 🌈",
        "chosen": [f"right {i}" for i in range(n_right)],
        "rejected": [f"wrong {i}" for i in range(n_wrong)],
        "num_correct": n_right,
        "num_incorrect": n_wrong,
        "total_completions": n_right + n_wrong,
        "models": ["model"] * (n_right + n_wrong),
        "subset": subset,
        "additional_metadata": {"category": "x", "correct": None, "index": 0.0},
        **changes,
    }


# Conversation-level rows that make one complete, readable set for each loader.
ROWS: dict[str, list[dict]] = {
    "load_rpr": [rpr_row(0), rpr_row(1)],
    "load_helpsteer2": [*helpsteer2_rows("P", (4, 4, 4, 1, 1), (2, 2, 2, 3, 3))],
    "load_prism": prism_talk(),
    "load_personal_reward_bench": [personal_row()],
    "load_ultrafeedback": [ultrafeedback_row()],
    "load_hh_rlhf": [hh_row()],
    "load_reward_bench": [bench2_row()],
}
LOADERS: dict[str, Callable[..., PreferenceSet]] = {name: getattr(micropref.datasets, name) for name in ROWS}
NEEDED = {
    "load_rpr": "criteria_y",
    "load_helpsteer2": "coherence",
    "load_prism": "if_chosen",
    "load_personal_reward_bench": "context",
    "load_ultrafeedback": "completions",
    "load_hh_rlhf": "rejected",
    "load_reward_bench": "num_correct",
}
FIRST_SPLIT = dict.fromkeys(ROWS, "train") | {"load_reward_bench": "test"}


def first_table(loaded: PreferenceSet) -> PreferenceTable:
    table = loaded.test if loaded.train is None else loaded.train
    assert table is not None
    return table


every_loader = pytest.mark.parametrize("name", ROWS)
