"""Reads the ratings of single responses that a data set names, for methods that need fine-grained annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from micropref.bench._data import Ratings

if TYPE_CHECKING:
    from collections.abc import Callable

    from micropref.bench._specs import DatasetSpec
    from micropref.datasets import RatingTable

#: Sets whose ratings can be read.
RATED = ("helpsteer2", "ultrafeedback")


@dataclass(frozen=True)
class RatedTexts:
    """Prompts and responses of several sets, and their scores: the attributes of all sets stand side by side."""

    prompt: list[str]
    response: list[str]
    scores: np.ndarray

    def numbered(self, vectors: np.ndarray, prompts: list[str]) -> tuple[Ratings, np.ndarray]:
        """Ratings with these features, and the numbers of the prompts of other rows; -1 for one that is not rated."""
        number = {text: place for place, text in enumerate(dict.fromkeys(self.prompt))}
        rated = np.array([number[text] for text in self.prompt], dtype=int)
        return Ratings(vectors, self.scores, rated), np.array([number.get(text, -1) for text in prompts], dtype=int)


def read_ratings(spec: DatasetSpec, settings_of: Callable[[DatasetSpec, str], Mapping[str, Any]]) -> RatedTexts | None:
    """The training ratings of all sets that a data set names; None if it names none.

    `settings_of` gives the arguments of a loader: where the set is.
    """
    if not spec.ratings:
        return None
    from micropref import datasets

    tables: list[RatingTable] = []
    for name in spec.ratings:
        if name not in RATED:
            raise ValueError(f"{spec.name}: ratings: expected names among {', '.join(RATED)}, got {name!r}")
        tables.append(getattr(datasets, f"load_{name}_ratings")(**settings_of(spec, name), skip_bad=True))
    ends = np.cumsum([0, *(table.scores.shape[1] for table in tables)])
    scores = np.full((sum(map(len, tables)), ends[-1]), np.nan)
    first = 0
    for table, left, right in zip(tables, ends, ends[1:], strict=False):
        scores[first : first + len(table), left:right] = table.scores
        first += len(table)
    return RatedTexts(
        [text for table in tables for text in table.prompt],
        [text for table in tables for text in table.response],
        scores,
    )
