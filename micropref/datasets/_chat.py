"""Chat messages as text, and the prompt that two responses share."""

from __future__ import annotations

import json
import reprlib
from typing import TypeAlias

import numpy as np

from micropref.datasets._text import is_blank, is_unicode

Message: TypeAlias = tuple[str, str]  # role, content
Speech: TypeAlias = str | list[Message]  # plain text or a conversation

# Conversations in the style of HH-RLHF are one text in which this line starts an answer.
_ANSWER_STARTS = "\n\nAssistant:"


def read_speech(value: object, column: str) -> Speech:
    """A cell as plain text or as a conversation.

    Parameters
    ----------
    value : str, or list of {"role": str, "content": str or list of text parts}
    column : str
        Where the cell stands, for the error.

    Returns
    -------
    str or list of (role, content)

    Raises
    ------
    ValueError
        "expected X, got Y in column C".
    """
    if isinstance(value, str):
        return _checked(value, column)
    if isinstance(value, np.ndarray):  # how pandas holds the lists of a Parquet file
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected text or a list of messages, got {reprlib.repr(value)} in column {column!r}")
    return [_read_message(message, column) for message in value]


def read_cell(cell: str) -> object:
    """The messages that a CSV cell spells out in JSON, else the cell as it is."""
    if not cell.lstrip().startswith("["):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    are_messages = bool(value) and all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in value)
    return value if are_messages else cell


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


def split_explicit(prompt: Speech, chosen: Speech, rejected: Speech) -> tuple[str, str, str]:
    """Texts of a prompt and two responses; responses that repeat the prompt's messages lose them.

    Returns
    -------
    prompt, chosen, rejected : str
    """
    opening = [("user", prompt)] if isinstance(prompt, str) else prompt

    def answer(speech: Speech) -> str:
        if not isinstance(speech, str) and _stripped(speech[: len(opening)]) == _stripped(opening):
            speech = speech[len(opening) :]
        return render(speech, "assistant")

    return render(prompt, "user"), answer(chosen), answer(rejected)


def split_implicit(chosen: Speech, rejected: Speech) -> tuple[str, str, str]:
    """Texts of the prompt that two responses share at their beginning, and of what each says after it.

    Conversations share their common leading messages. Texts share their common beginning up to the last complete
    ``"\\n\\nAssistant:"`` in it, or, where it has none, up to its last white space. Something is left of both.

    Returns
    -------
    prompt, chosen, rejected : str

    Raises
    ------
    ValueError
        If one is text and the other a conversation.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        cut = _cut_of_texts(chosen, rejected)
        return chosen[:cut], chosen[cut:], rejected[cut:]
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise ValueError(
            "expected two texts, two lists of messages or a prompt column, "
            "got one response as text and the other as messages"
        )
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return (
        render(chosen[:shared], "user"),
        render(chosen[shared:], "assistant"),
        render(rejected[shared:], "assistant"),
    )


def _read_message(message: object, column: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
        raise ValueError(
            f"expected an object with 'role' and 'content', got the message {reprlib.repr(message)} "
            f"in column {column!r}"
        )
    content = message["content"]
    if isinstance(content, list | tuple | np.ndarray):
        content = "".join(_read_part(part, column) for part in content)
    if not isinstance(content, str):
        raise ValueError(
            f"expected text or text parts, got a message with the content {reprlib.repr(content)} in column {column!r}"
        )
    return _checked(message["role"], column), _checked(content, column)


def _read_part(part: object, column: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type", part) if isinstance(part, dict) else part
        raise ValueError(
            'expected {"type": "text", "text": ...}, '
            f"got a message part of type {reprlib.repr(kind)} in column {column!r}"
        )
    text: str = part["text"]
    return text


def _checked(text: str, column: str) -> str:
    if not is_unicode(text):
        raise ValueError(f"expected text that can be written as UTF-8, got a lone surrogate in column {column!r}")
    return text


def _stripped(messages: list[Message]) -> list[Message]:
    return [(role, content.strip()) for role, content in messages]


def _cut_of_texts(first: str, second: str) -> int:
    # Before the last visible character of either, so that neither answer is blank.
    limit = max(0, min(len(first.rstrip()), len(second.rstrip())) - 1)
    shared = first[: _shared_length(first[:limit], second[:limit])]
    marker = shared.rfind(_ANSWER_STARTS)
    if marker >= 0:
        return marker + len(_ANSWER_STARTS)
    cut = len(shared)
    while cut and not shared[cut - 1].isspace():
        cut -= 1
    return cut


def _shared_length(first: str, second: str) -> int:
    # Bisection compares slices in C; a loop over characters takes longer than parsing the file.
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
