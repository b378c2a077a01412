"""Clauses of a stated criterion: where a context is cut, and how its clauses are pooled to a fixed width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from micropref.datasets._text import is_blank
from micropref.embed._vectors import Vectors
from micropref.features._products import relative, unit

# Punctuation of other scripts too. A point inside a number or a name, as in 3.5 or node.js, ends nothing.
_PUNCTUATION = r"[;:!?…。．，、；：！？\n\r]+|[.,](?=\s|$)|\s[–—-]+\s|\s*[()\[\]]\s*"
_WORDS = (
    "and|but|while|whereas|although|though|because|since|due to|as|when|unless|except|instead of|over|rather than|so"
)
_CUT = re.compile(rf"{_PUNCTUATION}|(?:\s+|(?<=\s))(?:{_WORDS})\s+", re.IGNORECASE)
_LEAST_CHARACTERS = 3

# Rows whose clauses are held at once.
_BLOCK_ROWS = 4_096


def clauses_of(text: str) -> list[str]:
    """The clauses of a context, split at punctuation and at words that join clauses.

    Parameters
    ----------
    text : str

    Returns
    -------
    clauses : list of str
        In their order, without pieces of fewer than three characters; the text itself where nothing else is left; none
        of a blank text.
    """
    if is_blank(text):
        return []
    pieces = [piece.strip() for piece in _CUT.split(text)]
    return [piece for piece in pieces if len(piece) >= _LEAST_CHARACTERS] or [text]


def all_clauses(contexts: Iterable[str]) -> Iterable[str]:
    """The clauses of distinct contexts."""
    for context in dict.fromkeys(contexts):
        yield from clauses_of(context)


def pooled(prompts: Sequence[str], contexts: Sequence[str], d: np.ndarray, vectors: Vectors) -> np.ndarray:
    """Σ_j r_j (r_jᵀ d) over the clauses of each row, linear in d.

    r_j is the vector of a clause without its projection on that of the prompt, at unit length: what a clause shares
    with the prompt says nothing about the criterion.

    Parameters
    ----------
    prompts, contexts : sequence of n str
    d : ndarray of shape (n, width)
    vectors : Vectors
        Of the prompts and of all clauses.

    Returns
    -------
    columns : ndarray of shape (n, width)
        Zeros where a context is blank.
    """
    found = np.zeros_like(d)
    clauses = {context: clauses_of(context) for context in dict.fromkeys(contexts)}
    for start in range(0, len(d), _BLOCK_ROWS):
        block = range(start, min(start + _BLOCK_ROWS, len(d)))
        row = np.array([i for i in block for _ in clauses[contexts[i]]], dtype=np.int64)
        if not len(row):
            continue
        clause = unit(vectors.of([each for i in block for each in clauses[contexts[i]]]))
        clause = relative(clause, unit(vectors.of([prompts[i] for i in row])))
        products = clause * (clause * d[row]).sum(axis=1, keepdims=True)
        first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        found[row[first]] = np.add.reduceat(products, first, axis=0)
    return found
