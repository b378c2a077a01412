"""Made-up texts: plain words, and words that plant the levels of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ATTRIBUTES", "planted_levels", "questions", "tastes_of", "write"]

#: Highest level of an attribute; a text holds as many of the attribute's words as its level says.
HIGHEST = 4

_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "helpfulness": ("useful", "practical", "workable", "handy", "relevant"),
        "correctness": ("verified", "accurate", "measured", "sourced", "precise"),
        "coherence": ("therefore", "firstly", "consequently", "thus", "finally"),
        "complexity": ("theorem", "mechanism", "formalism", "derivation", "spectrum"),
        "verbosity": ("moreover", "furthermore", "additionally", "likewise", "elaborating"),
        "invention": ("imagine", "unheard", "novel", "invented", "curious"),
        "story": ("once", "hero", "journey", "village", "narrator"),
        "humour": ("joke", "giggle", "silly", "pun", "banana"),
        "courtesy": ("respectfully", "kindly", "gently", "welcome", "tradition"),
        "candour": ("frankly", "uncertain", "admittedly", "bluntly", "honestly"),
    }
)
#: What is planted in a text, in the order of the columns of levels.
ATTRIBUTES: tuple[str, ...] = tuple(_WORDS)

_PLAIN = (
    *("table", "window", "morning", "paper", "garden", "river", "basket", "pencil", "corner", "letter", "bridge"),
    *("market", "summer", "winter", "kitchen", "bottle", "engine", "carpet", "mirror", "ladder", "button", "candle"),
    *("forest", "harbour", "island", "jacket", "kettle", "lantern", "meadow", "needle", "orchard", "pocket", "quarry"),
    *("ribbon", "saddle", "tunnel", "umbrella", "valley", "wagon", "yard", "anchor", "barrel", "cellar", "drawer"),
)
_N_PLAIN = 10
_N_WORDS = 5
_VOCABULARY = np.array([word for words in _WORDS.values() for word in words] + list(_PLAIN))
_COLUMN_OF = {word: column for column, words in enumerate(_WORDS.values()) for word in words}

_ASKERS = ("a baker", "a nurse", "a sailor", "a student", "a pilot", "a farmer", "a clerk", "a painter", "a coach")
_VERBS = ("choose", "repair", "explain", "plan", "compare", "store", "describe", "buy", "improve", "teach", "measure")
_THINGS = tuple(f"a {colour} {thing}" for colour in ("red", "blue", "small", "heavy", "cheap") for thing in _PLAIN[:30])


def write(levels: ArrayLike, rng: np.random.RandomState) -> list[str]:
    """A text for each row of levels: as many words of an attribute as its level says, among ten plain ones.

    Parameters
    ----------
    levels : array-like of int of shape (n, n_attributes)
        From 0 to 4, in the order of `ATTRIBUTES`.
    rng : RandomState

    Returns
    -------
    list of n str
    """
    counts = np.asarray(levels)
    n, n_attributes = counts.shape
    cell = np.repeat(np.arange(n * n_attributes), counts.ravel())
    text = np.concatenate([cell // n_attributes, np.repeat(np.arange(n), _N_PLAIN)])
    planted = cell % n_attributes * _N_WORDS + integers(rng, _N_WORDS, len(cell))
    plain = n_attributes * _N_WORDS + integers(rng, len(_PLAIN), n * _N_PLAIN)
    order = np.lexsort((rng.random_sample(len(text)), text))
    words = _VOCABULARY[np.concatenate([planted, plain])[order]].tolist()
    ends = np.cumsum(counts.sum(axis=1) + _N_PLAIN).tolist()
    return [f"{' '.join(words[start:end]).capitalize()}." for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def planted_levels(texts: Sequence[str]) -> NDArray[np.int64]:
    """The levels that were planted in texts, of shape (n_texts, n_attributes): numbers of words of each attribute.

    Parameters
    ----------
    texts : sequence of n str

    Returns
    -------
    ndarray of int of shape (n, n_attributes)
        In the order of `ATTRIBUTES`.
    """
    levels = np.zeros((len(texts), len(ATTRIBUTES)), dtype=np.int64)
    for row, text in enumerate(texts):
        for word in text.lower().replace(".", " ").split():
            column = _COLUMN_OF.get(word)
            if column is not None:
                levels[row, column] += 1
    return levels


def questions(n: int, rng: np.random.RandomState) -> list[str]:
    """So many different prompts."""
    parts = (len(_ASKERS), len(_VERBS), len(_THINGS))
    n_distinct = int(np.prod(parts))
    order = rng.permutation(n_distinct)
    asked = []
    for i in range(n):
        asker, verb, thing = np.unravel_index(order[i % n_distinct], parts)
        again = f", case {i // n_distinct + 1}" if i >= n_distinct else ""
        asked.append(f"How should {_ASKERS[asker]} {_VERBS[verb]} {_THINGS[thing]}{again}?")
    return asked


def tastes_of(tastes: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Weights of attributes as a matrix of shape (n_tastes, n_attributes)."""
    return np.array([[taste.get(name, 0.0) for name in ATTRIBUTES] for taste in tastes])


def any_levels(n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Levels drawn evenly and independently, of shape (n, n_attributes)."""
    return integers(rng, HIGHEST + 1, (n, len(ATTRIBUTES)))


def integers(rng: np.random.RandomState, high: int, size: int | tuple[int, ...]) -> NDArray[np.int64]:
    """Integers below `high`, by the same stream on every system, whose default integers differ."""
    return rng.randint(0, high, size=size, dtype=np.int64)
