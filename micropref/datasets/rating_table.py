"""RatingTable: single responses with a score on each of a few attributes."""

from __future__ import annotations

from dataclasses import dataclass

from numpy import float64
from numpy.typing import NDArray

__all__ = ["RatingTable"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RatingTable:
    """Fine-grained annotations: what `MultiObjectiveRewards` learns its heads from.

    Attributes
    ----------
    prompt, response : list of n str
    scores : ndarray of shape (n, n_attributes)
        NaN where a response was not rated on an attribute.
    attributes : tuple of str
        Names of the columns of `scores`.
    n_rejected : int
        Bad rows that were left out.
    source : str
        Where the rows came from.

    Examples
    --------
    >>> from micropref.datasets import load_helpsteer2_ratings
    >>> rows = [
    ...     {"prompt": "Hi", "response": text, "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 1,
    ...      "verbosity": size}
    ...     for text, size in (("Hello.", 0), ("Hello! How are you today?", 2))
    ... ]
    >>> table = load_helpsteer2_ratings(rows)
    >>> table.attributes[-1], table.scores[:, -1]
    ('verbosity', array([0., 2.]))
    """

    prompt: list[str]
    response: list[str]
    scores: NDArray[float64]
    attributes: tuple[str, ...]
    n_rejected: int = 0
    source: str = "unknown"

    def __len__(self) -> int:
        return len(self.response)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} responses, rated for {', '.join(self.attributes)})"
