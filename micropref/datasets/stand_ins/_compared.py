"""Stand-ins of sets of comparisons without users: RPR, HH-RLHF and both versions of RewardBench."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from micropref.datasets.stand_ins._words import ATTRIBUTES, HIGHEST, any_levels, integers, questions, tastes_of, write
from micropref.kernels._pointwise import sigmoid

__all__ = ["RPR_CATEGORIES", "hh_rlhf", "reward_bench", "reward_bench_v1", "rpr"]

# Log-odds of a unit of planted reward; the criteria of RPR are clearer than people are.
_SHARPNESS, _SHARPNESS_OF_CRITERIA = 1.6, 2.5
# Of the attributes that a response of RPR has nothing of, beside those whose level is 0 anyway.
_ABSENT = 0.3

#: Taste of each of the nine categories that are frequent, by attribute.
RPR_CATEGORIES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "Clarity and Conciseness": {"coherence": 0.9, "verbosity": -0.8},
        "Creativity and Originality": {"invention": 1.2, "candour": 0.3},
        "Cultural Sensitivity": {"courtesy": 1.1, "candour": -0.4},
        "Humor and Entertainment Value": {"humour": 1.1, "story": 0.3},
        "Linguistic Creativity": {"invention": 0.7, "story": 0.5, "humour": 0.5},
        "Narrative and Storytelling Quality": {"story": 1.1, "verbosity": 0.4},
        "Pedagogical Effectiveness": {"helpfulness": 0.8, "coherence": 0.8},
        "Scientific Rigor": {"correctness": 1.0, "complexity": 0.6},
        "User-Friendliness": {"helpfulness": 1.0, "complexity": -0.7},
    }
)
_RARE_CATEGORIES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "Bluntness": {"candour": 1.0, "courtesy": -0.9},
        "Dry Formality": {"humour": -1.0, "story": -0.7},
        "Plain Language": {"complexity": -1.0, "invention": -0.7},
        "Productive Confusion": {"coherence": -1.0, "helpfulness": -0.7},
        "Playful Nonsense": {"correctness": -1.1, "helpfulness": -0.4},
        "Terse Minimalism": {"verbosity": -1.1, "story": -0.5},
    }
)
_N_RARE_SIDES = 0.35
_TOPIC_WORDS = {
    "Clarity and Conciseness": ("clarity", "brevity", "conciseness", "plainly structured", "to the point"),
    "Creativity and Originality": ("originality", "creativity", "fresh ideas", "inventive", "unusual angles"),
    "Cultural Sensitivity": ("cultural sensitivity", "respect", "inclusive", "customs", "considerate wording"),
    "Humor and Entertainment Value": ("humor", "entertaining", "funny", "amusement", "laughs"),
    "Linguistic Creativity": ("wordplay", "linguistic creativity", "playful language", "metaphors", "phrasing"),
    "Narrative and Storytelling Quality": ("storytelling", "narrative", "plot", "characters", "a tale"),
    "Pedagogical Effectiveness": ("teaching", "pedagogical", "learners", "instructive", "lesson"),
    "Scientific Rigor": ("scientific rigor", "evidence", "scholarly", "technical depth", "proof"),
    "User-Friendliness": ("user-friendliness", "accessible", "easy to apply", "beginners", "hands-on"),
    "Bluntness": ("bluntness", "directness", "no politeness", "unvarnished", "harsh truth"),
    "Dry Formality": ("formality", "dry tone", "official style", "seriousness", "ceremony"),
    "Plain Language": ("plain language", "everyday words", "no jargon", "common terms", "simple speech"),
    "Productive Confusion": ("confusion", "riddles", "ambiguity", "puzzlement", "open ends"),
    "Playful Nonsense": ("nonsense", "absurdity", "whimsy", "fantasy facts", "surreal"),
    "Terse Minimalism": ("minimalism", "terse", "few words", "telegram style", "bare bones"),
}
_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
_BENCH_SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
_BENCH_SUBSETS_V1 = ("alpacaeval-easy", "llmbar-natural", "donotanswer", "math-prm")


def rpr(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Pairs with a criterion that prefers the first response and one that prefers the second.

    Two of three criteria belong to the nine frequent categories, which share some of their tastes; the others, which
    have the opposite ones, make every pair even, as in the set.
    """
    names = [*RPR_CATEGORIES, *_RARE_CATEGORIES]
    prior = np.full(len(names), (1 - _N_RARE_SIDES) / len(RPR_CATEGORIES))
    prior[len(RPR_CATEGORIES) :] = _N_RARE_SIDES / len(_RARE_CATEGORIES)
    levels = any_levels(2 * n, rng)
    levels[rng.random_sample(levels.shape) < _ABSENT] = 0
    tastes = tastes_of([*RPR_CATEGORIES.values(), *_RARE_CATEGORIES.values()])
    margins = _SHARPNESS_OF_CRITERIA * (levels[:n] - levels[n:]) @ tastes.T
    sides = [_drawn(prior * sigmoid(sign * margins), rng) for sign in (1, -1)]
    texts, prompts = write(levels, rng), questions(n, rng)
    words = integers(rng, 5, (2, n, 3))
    rows = []
    for i, prompt in enumerate(prompts):
        row: dict[str, Any] = {"prompt": prompt, "response_a": texts[i], "response_b": texts[n + i]}
        for side, drawn, chosen_words in zip("xy", sides, words, strict=True):
            first, second, third = (_TOPIC_WORDS[names[drawn[i]]][word] for word in chosen_words[i])
            row[f"criteria_{side}"] = f"The response should be judged by {first}; what counts is {second}"
            row[f"category_{side}"] = names[drawn[i]]
            row[f"scenario_{side}"] = f"Someone asks for help and cares for {third} above all."
        rows.append(row | {"id": i, **{f"profile_{k}": f"Made-up person {k}" for k in range(5)}})
    return rows


def hh_rlhf(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """Whole dialogues: harmless ones prefer courtesy to help, helpful ones help and detail; `subset` says which."""
    tastes = tastes_of([{"courtesy": 1.0, "helpfulness": -0.7}, {"helpfulness": 1.0, "verbosity": 0.5}])
    subset = integers(rng, len(_SUBSETS), n)
    first, second = _preferred(tastes[np.minimum(subset, 1)], n, rng)
    prompts = questions(2 * n, rng)
    opening = write(any_levels(n, rng), rng)
    rows = []
    for i in range(n):
        asked = f"{prompts[i][:-1]} to harm a neighbour?" if subset[i] == 0 else prompts[i]
        before = f"\n\nHuman: {prompts[n + i]}\n\nAssistant: {opening[i]}" if i % 2 else ""
        before += f"\n\nHuman: {asked}\n\nAssistant: "
        rows.append({"chosen": before + first[i], "rejected": before + second[i], "subset": _SUBSETS[subset[i]]})
    return rows


def reward_bench(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """One right answer and three wrong ones; in the subset Ties three right ones and five wrong ones."""
    rows = []
    prompts = questions(n, rng)
    for i, prompt in enumerate(prompts):
        subset = _BENCH_SUBSETS[i % len(_BENCH_SUBSETS)]
        n_right, n_wrong = (3, 5) if subset == "Ties" else (1, 3)
        texts = _answers(n_right, n_wrong, rng)
        rows.append(
            {
                "id": f"{subset}-{i}",
                "prompt": prompt,
                "chosen": texts[:n_right],
                "rejected": texts[n_right:],
                "num_correct": n_right,
                "num_incorrect": n_wrong,
                "total_completions": n_right + n_wrong,
                "models": [f"model-{k}" for k in range(n_right + n_wrong)],
                "subset": subset,
                "additional_metadata": {"category": subset, "correct": None, "index": float(i)},
            }
        )
    return rows


def reward_bench_v1(n: int, rng: np.random.RandomState) -> list[dict[str, Any]]:
    """One right and one wrong answer to a prompt."""
    rows = []
    for i, prompt in enumerate(questions(n, rng)):
        right, wrong = _answers(1, 1, rng)
        rows.append(
            {
                "prompt": prompt,
                "chosen": right,
                "chosen_model": "model-0",
                "rejected": wrong,
                "rejected_model": "model-1",
                "subset": _BENCH_SUBSETS_V1[i % len(_BENCH_SUBSETS_V1)],
                "id": i,
            }
        )
    return rows


def _answers(n_right: int, n_wrong: int, rng: np.random.RandomState) -> list[str]:
    """Right answers, then wrong ones, which are less correct and, as a rule, less helpful."""
    levels = any_levels(n_right + n_wrong, rng)
    correct, helpful = ATTRIBUTES.index("correctness"), ATTRIBUTES.index("helpfulness")
    levels[:n_right, correct] = HIGHEST - integers(rng, 2, n_right)
    levels[n_right:, correct] = integers(rng, HIGHEST - 1, n_wrong)
    levels[:n_right, helpful] = np.maximum(levels[:n_right, helpful], 2)
    return write(levels, rng)


def _preferred(tastes: np.ndarray, n: int, rng: np.random.RandomState) -> tuple[list[str], list[str]]:
    """Texts that were preferred and those that were not, by the taste in each row."""
    levels = any_levels(2 * n, rng)
    margins = _SHARPNESS * np.einsum("ij,ij->i", levels[:n] - levels[n:], tastes)
    is_swapped = rng.random_sample(n) >= sigmoid(margins)
    texts = write(levels, rng)
    pairs = list(zip(texts[:n], texts[n:], strict=True))
    ordered = [pair[::-1] if swapped else pair for pair, swapped in zip(pairs, is_swapped.tolist(), strict=True)]
    return [better for better, _ in ordered], [worse for _, worse in ordered]


def _drawn(weights: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """A column for each row, drawn in proportion to the weights of that row."""
    total = np.cumsum(weights, axis=1)
    return np.asarray((total < rng.random_sample(len(weights))[:, None] * total[:, -1:]).sum(axis=1))
