"""Conversations that a cell spells out as text: JSON, or how Python and NumPy print lists."""

from __future__ import annotations

import ast
import json
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from micropref._support.strict_json import DuplicateKeyError, loads
from micropref.datasets._faults import RowFault

__all__ = ["is_conversation", "is_message", "unpacked"]

# How text begins that was a list of messages, or an object with one.
_BEGINS_AS_MESSAGES = re.compile(
    r"""\s*(\[\s*)?\{\s*(?P<quote>['"])(role|content|from|value|messages|conversations?)(?P=quote)\s*:"""
)
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\}(?=\s*\{)""", re.DOTALL)
_BEGINS_NESTED = re.compile(r"\s*[\[{]")
_HELD_IN = ("messages", "conversations", "conversation")


def is_message(value: object) -> bool:
    """Whether a value is an object with a role and what was said."""
    return isinstance(value, Mapping) and (
        ("role" in value and bool({"content", "tool_calls", "function_call"} & value.keys()))
        or ("from" in value and "value" in value)
    )


def is_conversation(value: object) -> bool:
    """Whether a value is a list of messages, or an object that holds one."""
    value = unwrapped(value)
    return isinstance(value, list | tuple) and bool(value) and all(map(is_message, value))


def unwrapped(value: object) -> object:
    """The list of messages in an object that holds one; a single message as a list of one; else the value."""
    if hasattr(value, "tolist") and not isinstance(value, str):  # how pandas holds the lists of a Parquet file
        value = value.tolist()
    if isinstance(value, Mapping):
        if is_message(value):
            return [value]
        held = [name for name in _HELD_IN if name in value]
        if len(held) == 1:
            return unwrapped(value[held[0]])
    return value


def unpacked(cell: object, column: str) -> object:
    """The conversation that text spells out, else the cell as it is.

    Raises
    ------
    RowFault
        If text begins as messages do and is neither JSON nor what Python prints.
    """
    if not isinstance(cell, str):
        return cell
    if _BEGINS_NESTED.match(cell) is None:
        return cell
    begins = _BEGINS_AS_MESSAGES.match(cell)
    if begins is None and cell.lstrip().startswith("{") and not any(name in cell for name in _HELD_IN):
        return cell
    value = parsed(cell)
    if is_conversation(value):
        return value
    if begins is not None and value is None:
        raise RowFault(
            "messages as text that cannot be read",
            "expected a list of messages, or messages as JSON or as Python prints them, got text that begins as "
            f"messages do and is neither, {reprlib.repr(cell)}, in column {column!r}",
        )
    return cell


def parsed(text: str) -> Any:
    """What text spells out in JSON or in Python, None where it is neither; a RowFault for a key twice."""
    try:
        return loads(text)
    except DuplicateKeyError as error:
        value = json.loads(text)
        if is_conversation(value):  # anything else may be the text of a response
            raise RowFault("a key twice", f"{error}, in messages as text") from None
        return value
    except (ValueError, RecursionError):
        pass
    if len(text) > 1_000_000 or not _is_shallow(text):
        return None
    for candidate in (text, _with_commas(text)):
        try:
            return ast.literal_eval(candidate.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _is_shallow(text: str) -> bool:
    # The parser of Python may end the process on text that nests deeply.
    depth = deepest = 0
    for letter in text:
        if letter in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]})":
            depth -= 1
    return deepest < 80


def _with_commas(text: str) -> str:
    """Objects of a list that NumPy printed, which puts no comma between them."""
    return _TOKEN.sub(lambda token: "}," if token[0] == "}" else token[0], text)
