"""A dialogue in the terminal: two responses on the screen, one line of answer, and how sure the model is."""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from micropref._support.text import counted

if TYPE_CHECKING:
    from micropref._reward.dialogue import Answer, Dialogue, Question, Replied

__all__ = [
    "_ANSWERS",
    "Stopped",
    "ask_user",
    "bar",
    "certainty_line",
    "console_of",
    "described",
    "explain",
    "plain",
    "summary",
]

# What may be typed. The end of the input and Ctrl-C stop, as "q" does.
_ANSWERS: dict[str, Answer | None] = {
    "1": "first",
    "2": "second",
    "n": "neither",
    "neither": "neither",
    "s": "skip",
    "skip": "skip",
    "q": None,
    "quit": None,
}
_HOW_TO_ANSWER = "1, 2: the better one   n: neither   s: skip   q: stop"
_PROMPT = "1, 2, n, s or q: "
_PIPE_WIDTH = 80
#: Columns of a text at most: longer lines are hard to read.
WIDEST = 100
_BAR_CELLS = 16
# Below, an expectation is none.
_UNDECIDED = 0.6
# Lower ends of the share of choices that the model expects to predict; one in two is a guess.
_WORDS = ((0.9, "very sure"), (0.8, "sure"), (0.7, "fairly sure"), (0.6, "a first idea"), (0.0, "a guess"))


class Stopped:
    """Why a dialogue ended."""

    QUIT = "quit"
    INTERRUPTED = "interrupted"
    END_OF_INPUT = "end_of_input"
    QUESTIONS = "questions"
    INFORMATION = "information"
    NO_QUESTION_LEFT = "no_question_left"


def console_of(*, to_stderr: bool = False) -> Console:
    """What a dialogue is shown on: as wide as the terminal, or 80 columns in a pipe."""
    watched = (sys.stderr if to_stderr else sys.stdout).isatty()
    return Console(
        stderr=to_stderr, markup=False, emoji=False, highlight=False, width=None if watched else _PIPE_WIDTH
    )  # fmt: skip


def explain(console: Console) -> None:
    """Which answers there are."""
    console.print(_HOW_TO_ANSWER, style="dim")


def ask_user(dialogue: Dialogue, console: Console, *, n_questions: int, min_information: float) -> str:
    """Ask until there is a reason to stop, and say what every answer changed.

    Parameters
    ----------
    dialogue : Dialogue
    console : Console
    n_questions : int
        Questions at most, those that are skipped included.
    min_information : float
        In nats: a question whose answer would tell less about the user is not asked.

    Returns
    -------
    reason : str
        One of `Stopped`.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a line that cannot be read is no answer
    for number in range(1, n_questions + 1):
        try:
            question = dialogue.next()
            if question is None:
                return Stopped.NO_QUESTION_LEFT
            if question.information < min_information:
                return Stopped.INFORMATION
            _show(question, f"Question {number} of at most {n_questions}", console)
            answer = _answer(console)
            if answer in (Stopped.QUIT, Stopped.END_OF_INPUT):
                return answer
            replied = dialogue.reply(question, answer)  # type: ignore[arg-type]
            _show_effect(replied, dialogue, console)
        except KeyboardInterrupt:
            console.print()
            return Stopped.INTERRUPTED
    return Stopped.QUESTIONS


def plain(text: str) -> str:
    """A text without the control characters with which it could act on the terminal."""
    shown = text.replace("\r\n", "\n").expandtabs(4)
    return "".join("\N{REPLACEMENT CHARACTER}" if _acts(letter) else letter for letter in shown)


def bar(share: float, console: Console) -> str:
    """A bar that is full at 1."""
    full, empty = ("#", ".") if console.options.ascii_only else ("█", "░")
    cells = round(_BAR_CELLS * min(max(share, 0.0), 1.0))
    return full * cells + empty * (_BAR_CELLS - cells)


def certainty_line(certainty: float, console: Console) -> str:
    """How sure the model is, in words, as a bar from one half to one, and as a number of choices."""
    word = next(word for least, word in _WORDS if certainty >= least)
    return f"{word:<12}  {bar(2 * certainty - 1, console)}  predicts {100 * certainty:.0f} of 100 choices"


def _acts(letter: str) -> bool:
    # Of the format characters, those that reverse the direction of what follows.
    return letter != "\n" and (
        unicodedata.category(letter) == "Cc" or letter in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
    )


def _show(question: Question, title: str, console: Console) -> None:
    console.print()
    console.print(Text.assemble((title, "bold"), (f"  (expected information {question.information:.3f} nats)", "dim")))
    if question.prompt.strip():
        console.print()
        console.print(Padding(Text(plain(question.prompt.strip()), style="bold"), (0, 0, 0, 2), expand=False))
    if question.context.strip():
        console.print()
        console.print(Padding(Text(plain(question.context.strip()), style="italic"), (0, 0, 0, 2), expand=False))
    console.print()
    for name, response in enumerate(question.responses, start=1):
        console.print(
            Panel(Text(plain(response.strip())), title=str(name), title_align="left", width=min(console.width, WIDEST))
        )


def _answer(console: Console) -> str:
    """An answer, or why there is none; a line that is no answer is asked for again."""
    while True:
        console.print(_PROMPT, end="")
        line = sys.stdin.readline() if sys.stdin else ""
        typed = line.strip().lower()
        if not line or not sys.stdin.isatty():  # a terminal has shown what was typed, and the end of the line
            console.print(plain(typed))
        if not line:
            return Stopped.END_OF_INPUT
        if typed in _ANSWERS:
            return _ANSWERS[typed] or Stopped.QUIT
        console.print(f"expected 1, 2, n, s or q, got {plain(typed[:40])!r}")


def _show_effect(replied: Replied, dialogue: Dialogue, console: Console) -> None:
    first = replied.question.probability
    likelier, share = ("1", first) if first >= 0.5 else ("2", 1 - first)
    guess = f"{likelier} ({100 * share:.0f} %)"
    if replied.answer == "skip":
        said = "Skipped."
    elif share < _UNDECIDED:
        said = "The model could not guess this one."
    elif replied.probability is None:
        said = f"The model expected {guess}."
    elif replied.probability >= _UNDECIDED:
        said = f"As the model expected: {guess}."
    else:
        said = f"A surprise: the model expected {guess}."
    console.print(said, style="dim")
    console.print(certainty_line(dialogue.certainty(), console))


def summary(dialogue: Dialogue) -> str:
    """How many answers were learned, and how many questions left out."""
    skipped = len(dialogue.replies) - dialogue.n_learned
    learned = f"{counted(dialogue.n_learned, 'answer')} learned"
    return learned + (f", {skipped} skipped" if skipped else "")


def described(reply: Replied) -> dict[str, Any]:
    """An answer in types of JSON, with the responses in the order of the file."""
    question, answer = reply.question, str(reply.answer)
    if question.is_swapped:
        answer = {"first": "second", "second": "first"}.get(answer, answer)
    return {
        "row": question.row,
        "answer": answer,
        "shown_first": "second" if question.is_swapped else "first",
        "information": round(question.information, 6),
        "expected": None if reply.probability is None else round(reply.probability, 6),
    }
