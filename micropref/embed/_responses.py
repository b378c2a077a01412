"""The columns that follow the context in X: the difference, its length, and what a stated criterion says about it.

All are differences of columns of the two responses, or linear in d: with the columns of single responses instead of
differences, the same functions give the features φ(c, a) whose differences they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from micropref.embed._clauses import pooled
from micropref.embed._vectors import Vectors
from micropref.features.interactions import ContextInteractions

# The blocks of the context that interact, in this order; the criterion is taken relative to the prompt.
ACTING_PARTS = ("prompt", "context")


class Stated(NamedTuple):
    """What was asked and stated, a prompt and a context for each row."""

    prompts: Sequence[str]
    contexts: Sequence[str]

    def of(self, rows: slice) -> Stated:
        """Those of some rows."""
        return Stated(self.prompts[rows], self.contexts[rows])


def log_lengths(responses: Sequence[str] | Sequence[int]) -> np.ndarray:
    """Logarithms of numbers of characters, of texts or given as numbers, of shape (n, 1)."""
    counts = [len(each) if isinstance(each, str) else int(each) for each in responses]
    return np.log(np.maximum(np.array(counts, dtype=np.float64), 1.0))[:, None]


def prepared(settings: ContextInteractions, width: int) -> ContextInteractions:
    """An unfitted transformer with the same factors and axes, for prompts and contexts of a width."""
    unfitted: ContextInteractions = clone(settings)
    unfitted.set_params(n_context_features=len(ACTING_PARTS) * width, width=width, given=0)
    return unfitted


def interacting_rows(stated: Stated, d: np.ndarray, vectors: Vectors) -> np.ndarray:
    """``[prompt | context | d]`` in the order that the interactions read."""
    return np.hstack([vectors.of(stated.prompts), vectors.of(stated.contexts), d])


def interactions_of(stated: Stated, d: np.ndarray, vectors: Vectors, fitted: ContextInteractions) -> np.ndarray:
    """The new columns alone."""
    rows = interacting_rows(stated, d, vectors)
    found: np.ndarray = fitted.transform(rows)[:, rows.shape[1] :]
    return found


def clauses_in(stated: Stated, d: np.ndarray, vectors: Vectors) -> np.ndarray:
    """The pooled clauses, before any factor."""
    return pooled(stated.prompts, stated.contexts, d, vectors)


def names_of(fitted: ContextInteractions) -> list[str]:
    """Names of the new columns, with the part of the context instead of its number."""
    names = []
    for name in fitted.get_feature_names_out()[fitted.n_features_in_ :]:
        kind, part, *rest = name.split("_")
        names.append("_".join([kind, ACTING_PARTS[int(part)], *rest]))
    return names
