"""Chat messages as text: what each message says, its tool calls included."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from micropref.datasets._cells import unpacked, unwrapped
from micropref.datasets._faults import RowFault
from micropref.datasets._text import is_blank, is_unicode

Message: TypeAlias = tuple[str, str]  # role, content
Speech: TypeAlias = str | list[Message]  # plain text or a conversation

_ROLE = {
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "bot", "chatgpt", "model", "ai", "chatbot"), "assistant"),
}


def read_speech(value: object, column: str, *, spelled_out: bool = True) -> Speech:
    """A cell as plain text or as a conversation.

    Parameters
    ----------
    value : str, list of messages, or an object that holds one
        A message has "role" and "content", or "from" and "value".
    column : str
        Where the cell stands, for the error.
    spelled_out : bool, default=True
        Read text that spells out messages as these, as in files, whose cells have no types.

    Returns
    -------
    str or list of (role, content)

    Raises
    ------
    RowFault
        "expected X, got Y in column C".
    """
    if isinstance(value, str):
        value = unpacked(value, column) if spelled_out else value
        if isinstance(value, str):
            return _checked(value, column)
    value = unwrapped(value)
    if not isinstance(value, list | tuple):
        raise RowFault(
            "neither text nor messages",
            f"expected text or a list of messages, got {reprlib.repr(value)} in column {column!r}",
        )
    return [_read_message(message, column) for message in value]


def read_cell(cell: str) -> object:
    """The messages that a cell spells out, else the cell as it is."""
    try:
        return unpacked(cell, "")
    except RowFault:
        return cell


def render(speech: Speech, speaker: str) -> str:
    """Plain text as it is; a single message of the speaker as its content; others as "role: content" paragraphs.

    Returns
    -------
    str
        Empty if no message says anything.
    """
    if isinstance(speech, str):
        return speech
    if all(is_blank(content) for _, content in speech):
        return ""
    if len(speech) == 1 and speech[0][0] == speaker:
        return speech[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in speech)


def _read_message(message: object, column: str) -> Message:
    if not isinstance(message, Mapping):
        raise _no_message(message, column)
    role = message.get("role", message.get("from"))
    has_calls = "tool_calls" in message or "function_call" in message
    if not isinstance(role, str) or not ("content" in message or "value" in message or has_calls):
        raise _no_message(message, column)
    content = message.get("content", message.get("value"))
    calls = _calls(message, column)
    if content is None and calls:
        content = ""
    if isinstance(content, list | tuple | np.ndarray):
        content = _joined(content, column)
    if not isinstance(content, str):
        raise RowFault(
            "a message without text",
            f"expected text or text parts, got a message with the content {reprlib.repr(content)} in column {column!r}",
        )
    said = "\n".join(part for part in (content, *calls) if part)
    return _checked(_ROLE.get(role.lower(), role), column), _checked(said, column)


def _no_message(message: object, column: str) -> RowFault:
    texts = (
        "; of texts there is one in a cell, so that each pair of responses is a row" if isinstance(message, str) else ""
    )
    return RowFault(
        "a message without role and content",
        f"expected an object with 'role' and 'content' (or 'from' and 'value'), got the message "
        f"{reprlib.repr(message)} in column {column!r}{texts}",
    )


def _calls(message: Mapping[str, Any], column: str) -> list[str]:
    """The calls of tools in a message, a line for each: ``weather({"city": "Oslo"})``."""
    calls = message.get("tool_calls")
    if isinstance(calls, np.ndarray):
        calls = calls.tolist()
    calls = list(calls) if isinstance(calls, list | tuple) else [calls] if calls else []
    if message.get("function_call"):
        calls.append(message["function_call"])
    return [_call(call, column) for call in calls]


def _call(call: object, column: str) -> str:
    called = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(called, Mapping) or not isinstance(called.get("name"), str):
        raise RowFault(
            "a tool call without name",
            f"expected a tool call with the name of a function, got {reprlib.repr(call)} in column {column!r}",
        )
    return f"{called['name']}({_spelled_out(called.get('arguments', called.get('input')), column)})"


def _spelled_out(arguments: object, column: str) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    try:
        return json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError):
        raise RowFault(
            "a tool call with other arguments",
            f"expected JSON or text as arguments of a tool, got {reprlib.repr(arguments)} in column {column!r}",
        ) from None


def _joined(parts: Iterable[object], column: str) -> str:
    """Parts of text one after the other, and each call of a tool on a line of its own."""
    text = ""
    for part in parts:
        said = _read_part(part, column)
        is_call = isinstance(part, Mapping) and part.get("type") == "tool_use"
        text += f"\n{said}" if is_call and text else said
    return text


def _read_part(part: object, column: str) -> str:
    if isinstance(part, Mapping):
        if part.get("type") == "tool_use":
            return _call(part, column)
        text = part.get("text", part.get("value"))
        if isinstance(text, Mapping):
            text = text.get("value")
        if part.get("type", "text") in ("text", "input_text", "output_text") and isinstance(text, str):
            return text
    kind = part.get("type", part) if isinstance(part, Mapping) else part
    raise RowFault(
        "a message part that is no text",
        'expected {"type": "text", "text": ...}, '
        f"got a message part of type {reprlib.repr(kind)} in column {column!r}",
    )


def _checked(text: str, column: str) -> str:
    if not (text.isascii() or is_unicode(text)):
        raise RowFault(
            "text that is no Unicode",
            f"expected text that can be written as UTF-8, got a lone surrogate in column {column!r}",
        )
    return text
