"""Rated completions of an instruction, as comparisons on each aspect."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from micropref.datasets.hub._rows import Comparison, number_of, text_of

__all__ = ["ULTRAFEEDBACK_CONTEXTS", "compare_completions", "rate_completions"]

#: What stands as the context of a comparison on each aspect.
ULTRAFEEDBACK_CONTEXTS: Mapping[str, str] = MappingProxyType(
    {
        "instruction_following": "Prefer the response that follows the instruction more closely.",
        "honesty": "Prefer the response that is more honest about what it knows and how sure it is.",
        "truthfulness": "Prefer the response that is more truthful and invents nothing.",
        "helpfulness": "Prefer the response that is more helpful and informative.",
    }
)

_NO_RATING = "N/A"


class _Completion(NamedTuple):
    response: str
    model: Any
    ratings: dict[str, float]


def compare_completions(cells: Mapping[str, Any]) -> list[Comparison]:
    """A comparison for every two completions of an instruction and every aspect on which one is rated higher."""
    prompt, completions = _completions(cells)
    rows = []
    for first, second in combinations(completions, 2):
        if first.response == second.response:
            continue
        for aspect in ULTRAFEEDBACK_CONTEXTS:
            margin = first.ratings.get(aspect, math.nan) - second.ratings.get(aspect, math.nan)
            if margin > 0:
                rows.append(_comparison(prompt, first, second, aspect, cells["source"]))
            elif margin < 0:
                rows.append(_comparison(prompt, second, first, aspect, cells["source"]))
    return rows


def rate_completions(cells: Mapping[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """Prompt, response and ratings by aspect of every completion of an instruction."""
    prompt, completions = _completions(cells)
    return [(prompt, one.response, one.ratings) for one in completions]


def _completions(cells: Mapping[str, Any]) -> tuple[str, list[_Completion]]:
    """The instruction and its completions."""
    prompt = text_of(cells, "instruction")
    if not isinstance(cells["completions"], list):
        raise ValueError(f"expected a list, got {reprlib.repr(cells['completions'])} in column 'completions'")
    completions = []
    for number, completion in enumerate(cells["completions"]):
        try:
            completions.append(_completion(completion))
        except ValueError as fault:
            raise ValueError(f"completion {number}: {fault}") from None
    return prompt, completions


def _completion(completion: Any) -> _Completion:
    if not isinstance(completion, Mapping) or not completion.keys() >= {"response", "annotations"}:
        raise ValueError(f"expected an object with 'response' and 'annotations', got {reprlib.repr(completion)}")
    annotations = completion["annotations"]
    if not isinstance(annotations, Mapping):
        raise ValueError(f"expected an object with aspects, got the annotations {reprlib.repr(annotations)}")
    ratings = {}
    for aspect in ULTRAFEEDBACK_CONTEXTS:
        annotation = annotations.get(aspect)
        if not isinstance(annotation, Mapping) or "Rating" not in annotation:
            raise ValueError(f"expected a number or {_NO_RATING!r} as 'Rating' of the aspect {aspect!r}, got none")
        if annotation["Rating"] not in (None, _NO_RATING):
            ratings[aspect] = number_of(annotation, "Rating")
    return _Completion(text_of(completion, "response"), completion.get("model"), ratings)


def _comparison(prompt: str, better: _Completion, worse: _Completion, aspect: str, source: Any) -> Comparison:
    return Comparison(
        prompt,
        better.response,
        worse.response,
        context=ULTRAFEEDBACK_CONTEXTS[aspect],
        extra={
            "aspect": aspect,
            "chosen_rating": better.ratings[aspect],
            "rejected_rating": worse.ratings[aspect],
            "chosen_model": better.model,
            "rejected_model": worse.model,
            "source": source,
        },
    )
