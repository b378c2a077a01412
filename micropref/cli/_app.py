"""The application, what its commands share, and how they speak: tables and JSON out, notices and errors beside."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table

from micropref.cli._help import Application

app = Application(
    name="micropref",
    help="Fit several reward models to preference data, and choose among them for each user or context.",
    epilog="To try it without data or network:  micropref demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


class _Lines(Console):
    """Prints texts as they are, since a prompt is no markup; on a terminal, lines are broken between words."""

    def __init__(self, **settings: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        super().print(*objects, **{"soft_wrap": not self.file.isatty(), **settings})


out = _Lines()
err = _Lines(stderr=True)

_PIPE_WIDTH = 160

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="Name, path or address of the model's encoder, if it has moved."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of vectors, made by `micropref embed`; new vectors are added to it."),
]


@app.callback(invoke_without_command=True)
def _common(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from micropref import __version__

        typer.echo(__version__)
        raise typer.Exit


def number_or_auto(given: str, kind: type[int] | type[float], option: str) -> int | float | str:
    """The number that an option gives, or "auto"."""
    if given == "auto":
        return given
    try:
        return kind(given)
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise typer.BadParameter(f"expected {what} or auto, got {given!r}", param_hint=option) from None


@contextmanager
def working(silent: bool = False) -> Iterator[Callable[[str], None]]:
    """Print each step on a terminal, and nothing but warnings in a pipe, one line each; nothing at all if `silent`.

    A warning is printed when it comes: one about a lock that another process holds is of use only then.
    """
    watched = sys.stderr.isatty() and not silent
    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        if issubclass(category, UserWarning) and not silent and str(message) not in shown:
            shown.add(str(message))
            err.print(f"micropref: warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield lambda step: err.print(f"{step} ...", style="dim") if watched else None


def print_table(table: Table, *narrower: Table) -> None:
    """Print the first of these tables that fits, or the last one; no number is ever cut, texts go on in a new line.

    A pipe is as wide as COLUMNS says, and lines end there without blanks.
    """
    watched = sys.stdout.isatty()
    console = Console(markup=False, emoji=False, highlight=False, width=None if watched else _pipe_width())
    tables = [table, *narrower]
    chosen = next((one for one in tables if _natural_width(one, console) <= console.width), tables[-1])
    if _natural_width(chosen, console) > console.width:
        _keep_numbers(chosen)
        console.width = max(console.width, console.measure(chosen, options=_wide(console)).minimum)
    if watched:
        console.print(chosen)
        return
    with console.capture() as capture:
        console.print(chosen)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in capture.get().removesuffix("\n").split("\n")))


def _pipe_width() -> int:
    stated = os.environ.get("COLUMNS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else _PIPE_WIDTH


def _natural_width(table: Table, console: Console) -> int:
    return console.measure(table, options=_wide(console)).maximum


def _wide(console: Console) -> ConsoleOptions:
    return console.options.update(max_width=10_000)


def _keep_numbers(table: Table) -> None:
    """Let all columns but those of numbers, which stand to the right, be broken; headers are broken between words."""
    for column in table.columns:
        column.no_wrap = column.justify == "right"
        if column.no_wrap:
            numbers = [line for cell in column.cells for line in str(cell).splitlines()]
            column.min_width = max(map(cell_len, [*numbers, *str(column.header).split()]), default=1)
            column.header = "\n".join(textwrap.wrap(str(column.header), column.min_width))


def with_interval(value: float, low: float | None, high: float | None, digits: int, *, stacked: bool) -> list[str]:
    """Cells of a number and its 95 % interval, or one cell with the interval below the number."""
    interval = "one cluster" if low is None else f"{low:.{digits}f} – {high:.{digits}f}"
    cells = [f"{value:.{digits}f}", interval]
    return ["\n".join(cells)] if stacked else cells


def print_json(value: Any) -> None:
    letters_are_safe = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(value, ensure_ascii=not letters_are_safe))
