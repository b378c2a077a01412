"""Stand-ins of sets whose responses are rated: HelpSteer2 and UltraFeedback."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref.datasets.stand_ins._words import ATTRIBUTES, HIGHEST, any_levels, integers, questions, write

__all__ = ["helpsteer2", "ultrafeedback"]

_RATED = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
# Aspect of UltraFeedback to the attribute that is planted.
_ASPECTS = {
    "instruction_following": "coherence",
    "honesty": "candour",
    "truthfulness": "correctness",
    "helpfulness": "helpfulness",
}
# Of ratings that differ by one from the planted level, and of completions without a rating on an aspect.
_MISJUDGED, _NOT_RATED = 0.3, 0.03


def helpsteer2(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Rows in pairs that answer one prompt; helpfulness often repeats correctness or coherence, as in the set."""
    n_pairs = (n + 1) // 2
    levels = any_levels(2 * n_pairs, rng)
    column = {name: ATTRIBUTES.index(name) for name in _RATED}
    follows = integers(rng, 3, len(levels))
    for which, name in ((1, "correctness"), (2, "coherence")):
        levels[follows == which, column["helpfulness"]] = levels[follows == which, column[name]]
    ratings = _rated(levels, rng)
    prompts = questions(n_pairs, rng)
    return [
        {
            "prompt": prompts[row // 2],
            "response": text,
            **{name: int(ratings[row, column[name]]) for name in _RATED},
        }
        for row, text in enumerate(write(levels, rng))
    ]


def ultrafeedback(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Instructions with four completions each, which are rated from 1 to 5 as text, or "N/A"."""
    levels = any_levels(4 * n, rng)
    ratings = _rated(levels, rng) + 1
    is_rated = rng.random_sample(ratings.shape) >= _NOT_RATED
    texts, prompts = write(levels, rng), questions(n, rng)
    rows = []
    for number, prompt in enumerate(prompts):
        of_prompt = range(4 * number, 4 * number + 4)
        rows.append(
            {
                "source": ("sharegpt", "evol_instruct", "ultrachat")[number % 3],
                "instruction": prompt,
                "models": [f"model-{row % 4}" for row in of_prompt],
                "completions": [_completion(row, texts[row], ratings[row], is_rated[row]) for row in of_prompt],
                "correct_answers": ["None"],
                "incorrect_answers": ["None"],
            }
        )
    return rows


def _completion(row: int, text: str, ratings: NDArray[np.int64], is_rated: NDArray[np.bool_]) -> dict[str, Any]:
    annotations: dict[str, dict[str, Any]] = {}
    for aspect, attribute in _ASPECTS.items():
        column = ATTRIBUTES.index(attribute)
        annotations[aspect] = {"Rating": str(ratings[column]) if is_rated[column] else "N/A", "Rationale": "Made up."}
        if aspect in ("truthfulness", "helpfulness"):
            annotations[aspect] |= {"Type": ["1"], "Rationale For Rating": "Made up."}
    return {
        "annotations": annotations,
        "critique": "Made up.",
        "custom_system_prompt": "",
        "fine-grained_score": float(np.mean([ratings[ATTRIBUTES.index(name)] for name in _ASPECTS.values()])),
        "model": f"model-{row % 4}",
        "overall_score": float(2 * ratings[ATTRIBUTES.index("helpfulness")]),
        "principle": "helpfulness",
        "response": text,
    }


def _rated(levels: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    """Planted levels as raters see them: some are one too high or one too low."""
    is_off = rng.random_sample(levels.shape) < _MISJUDGED
    ratings: NDArray[np.int64] = np.clip(levels + is_off * (2 * integers(rng, 2, levels.shape) - 1), 0, HIGHEST)
    return ratings
