"""JSON in which no key stands twice: of two values, Python's reader would keep the last one and say nothing."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["DuplicateKeyError", "loads"]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]', re.DOTALL)


class DuplicateKeyError(ValueError):
    """An object that has a key twice.

    Attributes
    ----------
    key : str
    line : int
        Where it stands the second time, counted from 1.
    """

    def __init__(self, key: str, line: int):
        super().__init__(f"expected each key of an object once, got the key {key!r} twice")
        self.key = key
        self.line = line


def loads(text: str) -> Any:
    """What `json.loads` reads.

    Raises
    ------
    DuplicateKeyError
        If an object has a key twice.
    json.JSONDecodeError
        If the text is no JSON.
    """
    try:
        return _decode(text) if text[:1] != _MARK else json.loads(text)
    except DuplicateKeyError as error:
        raise _placed(text, error) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        raise DuplicateKeyError(next(key for key, _ in pairs if key in seen or seen.add(key)), 1)  # type: ignore[func-returns-value]
    return found


# One decoder for all texts: `json.loads` makes a new one for each that has a hook.
_decode = json.JSONDecoder(object_pairs_hook=_object).decode
_MARK = "\ufeff"  # which `json.loads` refuses in words of its own


def _placed(text: str, error: DuplicateKeyError) -> DuplicateKeyError:
    """The first key of a text that its object has already, with its line; Python's reader says no places."""
    keys: list[set[str] | None] = []  # of each object or list that is open; None for a list
    last = None
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign == "{":
            keys.append(set())
        elif sign == "[":
            keys.append(None)
        elif sign in "}]":
            del keys[-1:]
        elif sign != ":":
            last = token
        elif last is not None and keys and keys[-1] is not None:
            key = json.loads(last[0])
            if key in keys[-1]:
                return DuplicateKeyError(key, text.count("\n", 0, last.start()) + 1)
            keys[-1].add(key)
    return error
