"""The columns of X: contexts and the difference of two responses, each part scaled by one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micropref.datasets.table import PreferenceTable
from micropref.embed._vectors import Vectors
from micropref.pairs import make_pairs

# The prompt comes first: a mixture gated by the prompt sees the first columns, and its router adds the others.
CONTEXT_PARTS = ("prompt", "context")


def are_context_parts(parts: Any) -> bool:
    """Whether these are some of `CONTEXT_PARTS`, in their order."""
    return not isinstance(parts, str) and list(parts) == [part for part in CONTEXT_PARTS if part in parts]


def context_texts(table: PreferenceTable, part: str) -> list[str]:
    """The column of a table that is a context part; a ValueError if it has none."""
    texts: list[str] | None = getattr(table, part)
    if texts is None:
        raise ValueError(
            f"expected a column {part!r} in the table, as a part of X, got none; without it, "
            "encode_pairs(table, parts=('prompt',)) gives the other columns"
        )
    return texts


def context_columns(
    texts_of: Mapping[str, Sequence[str]], vectors: Vectors, scale: Mapping[str, float], n_rows: int
) -> np.ndarray:
    """Scaled vectors of the context parts side by side, of shape (n_rows, width of the parts)."""
    blocks = [vectors.of(texts) * np.float32(scale[part]) for part, texts in texts_of.items()]
    return np.hstack([np.empty((n_rows, 0), dtype=np.float32), *blocks])


def pair_columns(
    responses: tuple[Sequence[str], Sequence[str]],
    texts_of: Mapping[str, Sequence[str]],
    vectors: Vectors,
    scale: Mapping[str, float],
) -> np.ndarray:
    """X of comparisons, of shape (n_rows, width of the parts + n_dimensions).

    Parameters
    ----------
    responses : (first, second), each a sequence of n str
        In the template.
    texts_of : mapping of str to sequences of n str
        Texts of each context part.
    vectors : Vectors
        Of all these texts.
    scale : mapping of str to float
        Factor of each part and of ``"response"``.
    """
    first, second = (vectors.of(texts) for texts in responses)
    # The difference is scaled, not its sides: a fit learns the scale from differences that it keeps.
    difference = make_pairs(first, second) * np.float32(scale["response"])
    context = context_columns(texts_of, vectors, scale, len(first))
    return np.hstack([context, difference])
