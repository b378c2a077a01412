"""The prompt that two responses share: what both begin with belongs to it, and is no part of the responses."""

from __future__ import annotations

import re

from micropref.datasets._chat import Message, Speech, render
from micropref.datasets._faults import RowFault
from micropref.datasets._text import is_blank

__all__ = ["divided", "is_transcript", "split_explicit", "split_implicit", "with_system", "without_prompt"]

# Conversations in the style of HH-RLHF are one text in which this line starts an answer.
_ANSWER_STARTS = "\n\nAssistant:"
_TRANSCRIPT = re.compile(r"\s*Human:.*\n\nAssistant:", re.DOTALL)


def is_transcript(speech: object) -> bool:
    r"""Whether text is a conversation as in HH-RLHF: ``"\n\nHuman: …\n\nAssistant: …"``."""
    return isinstance(speech, str) and _TRANSCRIPT.match(speech) is not None


def split_explicit(prompt: Speech, chosen: Speech, rejected: Speech) -> tuple[str, str, str]:
    """Texts of a prompt and two responses, as `divided` finds them."""
    opening, one, other = divided(prompt, chosen, rejected)
    return render(opening, "user"), one, other


def split_implicit(chosen: Speech, rejected: Speech) -> tuple[str, str, str]:
    """Texts of the prompt that two responses share at their beginning, and of what each says after it."""
    opening, one, other = divided(None, chosen, rejected)
    return render(opening, "user"), one, other


def divided(prompt: Speech | None, chosen: Speech, rejected: Speech) -> tuple[Speech, str, str]:
    r"""A prompt, and the texts of two responses, which lose what both of them repeat of it, or share after it.

    Conversations lose their common leading messages: a system message or a history among these becomes part of the
    prompt. Transcripts (`is_transcript`) lose their common beginning up to the last ``"\n\nAssistant:"`` in it. Other
    texts lose the prompt where both begin with it, and share nothing else: a common beginning is no prompt. A
    conversation beside a text loses the messages of the prompt. A prompt loses the answer at its end that is one of the
    responses. A response whose last answer is empty is empty.

    Parameters
    ----------
    prompt : text, messages, or None
        None where no column holds one.
    chosen, rejected : text or messages

    Returns
    -------
    prompt : text or messages
    chosen, rejected : str

    Raises
    ------
    RowFault
        If there is no prompt, and one response is text and the other a conversation.
    """
    opening, *answers = _divided(prompt, chosen, rejected)
    if isinstance(opening, list) and _stripped(opening[-1:]) in ([("assistant", text.strip())] for text in answers):
        opening = opening[:-1]
    return opening, answers[0], answers[1]


def _divided(prompt: Speech | None, chosen: Speech, rejected: Speech) -> tuple[Speech, str, str]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            cut = _cut_of_transcripts(chosen, rejected)
            return chosen[:cut], _answered(chosen[cut:]), _answered(rejected[cut:])
        opened, one, other = _divided_texts(prompt, chosen, rejected)
        return opened, _answered(one), _answered(other)
    if isinstance(chosen, str) or isinstance(rejected, str):
        if prompt is None:
            raise RowFault(
                "text against messages",
                "expected two texts, two lists of messages or a prompt column, "
                "got one response as text and the other as messages",
            )
        return prompt, without_prompt(prompt, chosen), without_prompt(prompt, rejected)
    opening = [] if prompt is None else _messages(prompt, "user")
    shared = _n_shared(chosen, rejected)
    whole = _joined(opening, chosen[:shared])
    # What is shared may hold the prompt already; what follows may then say the same again.
    repeated = [] if _holds(_stripped(chosen[:shared]), _stripped(opening)) else opening
    one, other = (_answer(_without(repeated, speech[shared:])) for speech in (chosen, rejected))
    return prompt if prompt is not None and len(whole) == len(opening) else whole, one, other


def without_prompt(prompt: Speech, response: Speech) -> str:
    """Text of a single response, which loses the messages of the prompt if it begins with them."""
    return _answer(_without(_messages(prompt, "user"), response))


def _answer(speech: Speech) -> str:
    """Text of what follows the prompt, empty where its last message is."""
    if not isinstance(speech, str) and speech and is_blank(speech[-1][1]):
        return ""
    return render(speech, "assistant")


def _answered(text: str) -> str:
    """What follows the prompt of a transcript, empty where its last answer is."""
    return "" if text.rstrip().endswith(_ANSWER_STARTS) else text


def with_system(system: str, prompt: Speech) -> Speech:
    """The prompt after a system message, unless it opens with one that says the same."""
    if is_blank(system):
        return prompt
    messages = _messages(prompt, "user")
    if messages and _stripped(messages[:1]) == [("system", system.strip())]:
        return prompt
    return [("system", system), *messages]


def _divided_texts(prompt: Speech, chosen: str, rejected: str) -> tuple[Speech, str, str]:
    opening = render(prompt, "user")
    repeated = opening.strip()
    if repeated:
        end = _end_of_repeated(repeated, chosen)
        other_end = _end_of_repeated(repeated, rejected) if end else 0
        if other_end:
            rests = chosen[end:], rejected[other_end:]
            # A response may be what the prompt is ("Hi" to "Hi"); after a transcript, nothing is no answer.
            if is_transcript(opening) or not any(map(is_blank, rests)):
                return prompt, *rests
    cut = _cut_of_transcripts(chosen, rejected)
    if not cut:
        return prompt, chosen, rejected
    shared = chosen[:cut]
    whole = shared if repeated in shared else f"{opening}\n\n{shared.lstrip()}"
    return whole, chosen[cut:], rejected[cut:]


def _end_of_repeated(prompt: str, text: str) -> int:
    """Where the prompt ends at the beginning of a text, 0 if the text does not begin with it as a whole."""
    start = len(text) - len(text.lstrip()) if text[:1].isspace() else 0
    end = start + len(prompt)
    is_complete = text.startswith(prompt, start) and (end == len(text) or text[end].isspace() or prompt[-1] == ":")
    return end if is_complete else 0


def _messages(speech: Speech, speaker: str) -> list[Message]:
    if isinstance(speech, str):
        return [] if is_blank(speech) else [(speaker, speech)]
    return speech


def _without(opening: list[Message], speech: Speech) -> Speech:
    if opening and not isinstance(speech, str) and _stripped(speech[: len(opening)]) == _stripped(opening):
        return speech[len(opening) :]
    return speech


def _joined(opening: list[Message], shared: list[Message]) -> list[Message]:
    """One conversation of what the prompt says and what both responses begin with, what they overlap in only once."""
    one, other = _stripped(opening), _stripped(shared)
    if _holds(other, one):
        return shared
    if _holds(one, other):
        return opening
    overlap = next(n for n in range(min(len(one), len(other)), -1, -1) if one[len(one) - n :] == other[:n])
    return opening + shared[overlap:]


def _holds(messages: list[Message], part: list[Message]) -> bool:
    return any(messages[start : start + len(part)] == part for start in range(len(messages) - len(part) + 1))


def _n_shared(chosen: list[Message], rejected: list[Message]) -> int:
    """How many leading messages two conversations share; something is left of both."""
    one, other = _stripped(chosen), _stripped(rejected)
    n, limit = 0, min(len(one), len(other)) - 1
    while n < limit and one[n] == other[n]:
        n += 1
    return n


def _stripped(messages: list[Message]) -> list[Message]:
    return [(role, content.strip()) for role, content in messages]


def _cut_of_transcripts(first: str, second: str) -> int:
    """Where the common beginning of two transcripts ends, 0 if they are none or share no question."""
    if not (is_transcript(first) and is_transcript(second)):
        return 0
    marker = first[: _shared_length(first, second)].rfind(_ANSWER_STARTS)
    return 0 if marker < 0 else marker + len(_ANSWER_STARTS)


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
