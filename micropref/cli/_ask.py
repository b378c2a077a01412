"""`micropref ask`: questions to one user, the most informative first."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from micropref._support.files import briefly_locked, file_state
from micropref._support.text import counted
from micropref.cli._app import Encoder, Json, Model, Store, app, print_json, working
from micropref.cli._data import (
    Column,
    Encoding,
    Force,
    Format,
    Rejected,
    SkipBad,
    refuse_existing,
    refuse_input_as_output,
    renamed_columns,
)
from micropref.cli._dialogue import Stopped, ask_user, certainty_line, console_of, described, explain, plain, summary

if TYPE_CHECKING:
    from micropref._reward.dialogue import Dialogue, Question
    from micropref.reward import PreferenceModel

_LOCK = "ask.lock"
# How long a dialogue that has ended waits for another one to be saved.
_PATIENCE_S = 60.0


@app.command()
def ask(
    model: Model,
    candidates: Annotated[
        str,
        typer.Argument(
            metavar="CANDIDATES",
            help="Comparisons to choose questions from: a file as for `micropref fit`; labels, if it has any, are not "
            "read.",
            show_default=False,
        ),
    ],
    user: Annotated[str, typer.Option("--user", "-u", help="Id of the user who answers.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default the model is replaced.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", help="Context of all comparisons, instead of the contexts of the file.")
    ] = None,
    questions: Annotated[int, typer.Option("--questions", "-n", min=1, help="Stop after this many questions.")] = 10,
    min_information: Annotated[
        float,
        typer.Option(
            "--min-information",
            min=0,
            help="Stop when the expected information of the next answer is below this, in nats.",
        ),
    ] = 0.01,
    in_order: Annotated[
        bool,
        typer.Option(
            "--in-order", help="Show the responses in the order of the file; by default the order is drawn at random."
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the order of responses, and of ties among questions.")
    ] = 0,
    encoder: Encoder = None,
    store: Store = None,
    column: Column = None,
    format: Format = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Ask a user which of two responses is better, most informative pair first, and learn the answers.

    Each question is chosen in the light of all earlier answers. Type 1 or 2, n (neither is better: a tie), s (skip) or
    q (stop), one answer per line; answers can come from a pipe. The dialogue also stops at the end of the input and at
    Ctrl-C. However it stops, the model learns the answers as votes of this user and is saved. With --json, the
    questions are shown on standard error, and one JSON object is printed at the end.
    """
    from micropref._reward.dialogue import Dialogue
    from micropref.datasets._unoriented import read_unoriented

    if candidates == "-":
        raise typer.BadParameter(
            "expected a file, since standard input gives the answers, got -", param_hint="CANDIDATES"
        )
    if not math.isfinite(min_information):
        raise typer.BadParameter(f"expected a finite number, got {min_information}", param_hint="--min-information")
    start = time.perf_counter()
    source = _Source(model, encoder, store)
    with working() as report:
        refuse_input_as_output(candidates, output, "--output")
        if output is not None and output.resolve() != model.resolve():
            refuse_existing(output, force=force)
        report("loading the model")
        fitted = source.load()
        report(f"reading {candidates}")
        table = read_unoriented(
            candidates,
            columns=renamed_columns(column),
            format=format,
            encoding=encoding,
            skip_bad=skip_bad,
            rejected_path=rejected,
        )
        report(f"embedding {counted(len(table), 'comparison')}")
        dialogue = Dialogue(fitted, table, user, context=context, in_order=in_order, random_state=seed)
    console = console_of(to_stderr=as_json)
    before = dialogue.certainty()
    _greet(dialogue, console)
    with _kept(dialogue, source, output), _hangups_interrupt():
        stopped = ask_user(dialogue, console, n_questions=questions, min_information=min_information)
    left = None if stopped == Stopped.INTERRUPTED else dialogue.next()
    after = dialogue.certainty()
    written = str(output or model) if output is not None or dialogue.n_learned else None
    console.print()
    console.print(_reason(stopped, left, min_information, questions))
    console.print(certainty_line(after, console))
    console.print(f"{summary(dialogue)}, {_saved(written)}", soft_wrap=True)
    if as_json:
        print_json(
            {
                "model": written,
                "user": dialogue.user,
                "n_rejected": table.n_rejected,
                "stopped": stopped,
                "n_learned": dialogue.n_learned,
                "n_skipped": len(dialogue.replies) - dialogue.n_learned,
                "certainty_before": round(before, 6),
                "certainty": round(after, 6),
                "next_information": None if left is None else round(left.information, 6),
                "answers": [described(reply) for reply in dialogue.replies],
                "seconds": round(time.perf_counter() - start, 2),
            }
        )


class _Source:
    """The folder of a model, and what it held when it was read."""

    def __init__(self, folder: Path, encoder: str | None, store: Path | None):
        self.folder = folder
        self._settings: dict[str, Any] = {"encoder": encoder, "store": store}
        self._state: tuple[int, ...] = ()

    def load(self) -> PreferenceModel:
        from micropref.reward import PreferenceModel

        self._state = file_state(self.folder / "model.json")  # before it is read
        return PreferenceModel.load(self.folder, **self._settings)

    def is_changed(self) -> bool:
        """Whether another process has saved a model there since; not if the folder is gone."""
        return file_state(self.folder / "model.json") not in (self._state, ())


@contextmanager
def _kept(dialogue: Dialogue, source: _Source, output: Path | None) -> Iterator[None]:
    """Save at the end, whatever ends the dialogue: an answer that was given is not lost."""
    try:
        with working():
            yield
    finally:
        if dialogue.n_learned or output is not None:
            with _only_one_saves(output or source.folder):
                model: Any = dialogue.model
                # A dialogue takes minutes, in which other users may have been asked.
                if source.is_changed():
                    votes = dialogue.votes()
                    model = source.load() if votes is None else source.load().route(votes)
                model.save(output or source.folder)


def _only_one_saves(folder: Path) -> AbstractContextManager[object]:
    """A lock from looking at a model until it is saved: of dialogues that end together, none loses its answers."""
    return briefly_locked(folder / _LOCK, _PATIENCE_S) if folder.is_dir() else nullcontext()


@contextmanager
def _hangups_interrupt() -> Iterator[None]:
    """A terminal that is closed, or a request to end, stops the dialogue as Ctrl-C does."""
    before = {}
    for name in ("SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(dialogue: Dialogue, console: Any) -> None:
    known = "is known to the model" if dialogue.is_known else "is new to the model"
    console.print(f"{plain(str(dialogue.user))} {known}; {counted(len(dialogue.table), 'comparison')} to choose from.")
    explain(console)
    console.print(certainty_line(dialogue.certainty(), console))


def _reason(stopped: str, left: Question | None, min_information: float, n_questions: int) -> str:
    if stopped == Stopped.NO_QUESTION_LEFT:
        return "No comparison is left to ask about."
    if stopped == Stopped.INFORMATION and left is not None:
        return f"The next answer would tell {left.information:.3f} nats about the user, less than {min_information:g}."
    if stopped == Stopped.QUESTIONS:
        more = "" if left is None else f"; expected information of the next answer: {left.information:.3f} nats"
        return f"{counted(n_questions, 'question')} asked{more}."
    return {Stopped.QUIT: "Stopped.", Stopped.INTERRUPTED: "Interrupted."}.get(stopped, "The input has ended.")


def _saved(folder: str | None) -> str:
    return "the model is unchanged" if folder is None else f"saved to {folder}"
