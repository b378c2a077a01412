"""Names that say which response of a comparison won: one vocabulary for arrays and files. Imports nothing heavy."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

__all__ = ["FIRST_NAMES", "PROBABILITY_RECIPE", "SECOND_NAMES", "TIE_NAMES", "meaning_of", "normalized"]

PROBABILITY_RECIPE = (
    "a probability p that the first response is preferred is two rows of weights p and 1 - p, one in each order"
)

_NOUNS = (
    *("agent", "answer", "assistant", "bot", "candidate", "chat", "choice", "completion", "conversation", "document"),
    *("generation", "item", "llm", "message", "model", "option", "output", "passage", "player", "reply", "response"),
    *("policy", "resp", "result", "sample", "side", "solution", "story", "summary", "system", "text", "win"),
)
_VERDICTS = (
    *("win", "wins", "won", "better", "is_better", "preferred", "is_preferred", "chosen"),
    *(f"{how}_better" for how in ("much", "slightly", "clearly", "significantly", "is_much", "is_slightly")),
)
_LOSSES = ("lose", "loses", "lost", "worse", "is_worse", "rejected", "is_rejected")
_OUTER_MARKS = " \t\r\n[](){}\"'`“”‘’.,:;!*_"
_PREFIXES = ("prefer", "prefers", "preferred", "better", "best", "winner", "chosen", "choose")


def _names(letter: str, number: str, *ordinals: str) -> set[str]:
    """Names of one of two responses: by itself and with a noun (model_a, response1, first_answer)."""
    marks = (letter, number, *ordinals)
    nouns = {f"{noun}{joint}{mark}" for noun in _NOUNS for mark in marks for joint in ("_", "")}
    nouns |= {f"{ordinal}_{noun}" for noun in _NOUNS for ordinal in ordinals}
    return {letter, *ordinals, *nouns, *(f"the_{ordinal}" for ordinal in ordinals)}


def _verdicts(winner: set[str], loser: set[str]) -> set[str]:
    """What says that a response won: its name, alone (a number is none) or with a verdict on either of the two."""
    won = {f"{name}_{verdict}" for name in winner for verdict in _VERDICTS}
    won |= {f"{prefix}_{name}" for name in winner for prefix in _PREFIXES}
    return winner - {"1", "2"} | won | {f"{name}_{verdict}" for name in loser for verdict in _LOSSES}


def _relations(pairs: Iterable[tuple[str, str]], signs: tuple[str, ...]) -> set[str]:
    return {f"{left}{sign}{right}" for left, right in pairs for sign in signs}


_PAIRS = (
    *(("a", "b"), ("1", "2"), ("first", "second"), ("left", "right"), ("model_a", "model_b")),
    *(("response_a", "response_b"), ("response_1", "response_2"), ("assistant_a", "assistant_b")),
)
_FIRST = _names("a", "1", "first", "1st", "left") | {"1"}
_SECOND = _names("b", "2", "second", "2nd", "right") | {"2"}
_SWAPPED = tuple((second, first) for first, second in _PAIRS)

#: Normalized names that say that the first response won.
FIRST_NAMES = frozenset(
    _verdicts(_FIRST, _SECOND)
    | {"accept", "accepted", "better", "chosen", "former", "l", "preferred"}
    | _relations(_PAIRS, (">", ">>"))
    | _relations(_SWAPPED, ("<", "<<"))
)
#: Normalized names that say that the second response won.
SECOND_NAMES = frozenset(
    _verdicts(_SECOND, _FIRST)
    | {"dispreferred", "latter", "r", "reject", "rejected", "worse"}
    | _relations(_PAIRS, ("<", "<<"))
    | _relations(_SWAPPED, (">", ">>"))
)
#: Normalized names that say that neither won.
TIE_NAMES = frozenset(
    {
        *("tie", "tied", "ties", "draw", "drawn", "equal", "equals", "equally_good", "equally_bad", "same", "the_same"),
        *("both", "neither", "both_bad", "bothbad", "both_good", "bothgood", "both_equal", "both_equally_good"),
        *("neither_is_better", "no_preference", "no_difference", "about_the_same", "indifferent", "neutral"),
        *(f"tie{joint}({kind}" for joint in ("", "_") for kind in ("bothbad", "both_bad", "bothgood", "both_good")),
        *(f"tie_{kind}" for kind in ("bothbad", "both_bad", "bothgood", "both_good")),
    }
    | _relations(_PAIRS + _SWAPPED, ("=", "==", "~", "≈"))
)


def normalized(label: str) -> str:
    """A label as the vocabulary spells it: without case, width and outer marks; spaces and hyphens as underscores.

    Outer marks are space, brackets, quotes and punctuation: ``"(A)"``, ``"A."`` and ``"[[A]]"`` are ``"a"``.

    Parameters
    ----------
    label : str

    Returns
    -------
    str
    """
    text = re.sub(r"[\s\-_]+", "_", unicodedata.normalize("NFKC", label).casefold().strip(_OUTER_MARKS))
    return re.sub(r"_?([<>=~≈]+)_?", r"\1", text)


def meaning_of(label: object) -> Literal["first", "second", "tie"] | None:
    """What a name says about which response won. Numbers have their own rules and no meaning here.

    Parameters
    ----------
    label : object
        Text, or bytes of text; anything else has no meaning.

    Returns
    -------
    "first", "second", "tie" or None
    """
    if isinstance(label, bytes):
        label = label.decode(errors="replace")
    if not isinstance(label, str):
        return None
    name = normalized(label)
    if name in FIRST_NAMES:
        return "first"
    if name in SECOND_NAMES:
        return "second"
    return "tie" if name in TIE_NAMES else None
