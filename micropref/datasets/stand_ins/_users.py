"""Stand-ins of sets in which users compare answers: PRISM and PersonalRewardBench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref.datasets.stand_ins._words import any_levels, integers, questions, tastes_of, write

__all__ = ["USER_TASTES", "personal_reward_bench", "prism"]

#: Tastes that users have; each user deviates a little from one of them.
USER_TASTES: tuple[Mapping[str, float], ...] = (
    {"coherence": 0.8, "verbosity": -1.0},
    {"courtesy": 1.1, "candour": -0.6},
    {"correctness": 1.0, "complexity": 0.7, "humour": -0.4},
    {"humour": 1.0, "story": 0.7},
)
# Reward of a unit of taste, the spread of the users' own weights, and the noise of one judgement (logistic).
_SHARPNESS, _SPREAD = 1.6, 0.15
_TALKS, _PAIRS = 6, 24
_TYPES = ("unguided", "values guided", "controversy guided")


def prism(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Utterances of whole conversations, four answers in the first turn and two in the second; at least `n` rows."""
    n_talks = -(-n // 6)
    user = np.arange(n_talks) // _TALKS
    tastes = _tastes(int(user[-1]) + 1, rng)[user]
    levels = any_levels(6 * n_talks, rng).reshape(n_talks, 6, -1)
    reward = np.einsum("taf,tf->ta", levels, tastes) + rng.logistic(size=(n_talks, 6))
    centred = reward - reward.mean(axis=1, keepdims=True)
    scores = np.clip(np.rint(50 + 8 * centred), 1, 100).astype(int)
    texts = write(levels.reshape(6 * n_talks, -1), rng)
    prompts = questions(2 * n_talks, rng)
    rows = []
    for talk in range(n_talks):
        for turn, answers in ((0, range(4)), (1, range(4, 6))):
            best = max(answers, key=lambda answer, talk=talk: reward[talk, answer])  # type: ignore[misc]
            for within, answer in enumerate(answers):
                rows.append(
                    {
                        "utterance_id": f"ut{talk}-{answer}",
                        "interaction_id": f"int{talk}-{turn}",
                        "conversation_id": f"c{talk}",
                        "user_id": f"user{user[talk]}",
                        "turn": turn,
                        "within_turn_id": within,
                        "included_in_balanced_subset": bool(talk % 2),
                        "conversation_type": _TYPES[talk % 3],
                        "user_prompt": prompts[2 * talk + turn],
                        "model_response": texts[6 * talk + answer],
                        "model_name": f"model-{within}",
                        "model_provider": "made up",
                        "score": int(scores[talk, answer]),
                        "if_chosen": answer == best,
                    }
                )
    return rows


def personal_reward_bench(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Pairs of users, half of each user's in train, a quarter in val and in test."""
    user = np.arange(n) // _PAIRS
    tastes = _tastes(int(user[-1]) + 1, rng)[user]
    levels = any_levels(2 * n, rng).reshape(2, n, -1)
    reward = np.einsum("sif,if->si", levels, tastes) + rng.logistic(scale=0.7, size=(2, n))
    texts = [write(one, rng) for one in levels]
    prompts = questions(n, rng)
    name = rng.randint(0, 1 << 30, dtype=np.int64)  # the users of two splits differ
    rows = []
    for i in range(n):
        better = int(reward[1, i] > reward[0, i])
        chosen, rejected = texts[better][i], texts[1 - better][i]
        gap = abs(float(reward[0, i] - reward[1, i]))
        rows.append(
            {
                "conversation_id": f"c{i}",
                "user_id": f"user{name:x}-{user[i]}",
                "split": ("train", "train", "val", "test")[i % 4],
                "context": [{"role": "user", "content": prompts[i]}],
                "chosen": {"role": "model", "content": chosen},
                "rejected": {"role": "model", "content": rejected},
                "chosen_score": min(50 + 5 * gap, 100.0),
                "rejected_score": max(50 - 5 * gap, 1.0),
                "dataset": "prism",
                "agreement": 0.5,
            }
        )
    return rows


def _tastes(n_users: int, rng: np.random.RandomState) -> np.ndarray:
    """Weights of users, (n_users, n_attributes)."""
    tastes = tastes_of(USER_TASTES)
    own = rng.normal(scale=_SPREAD, size=(n_users, tastes.shape[1]))
    return np.asarray(_SHARPNESS * (tastes[integers(rng, len(tastes), n_users)] + own))
