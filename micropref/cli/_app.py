"""The application, what its commands share, and how they speak: tables and JSON out, notices and errors beside."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="micropref",
    help="Learn whose preferences a comparison expresses, and which preference applies here.",
    epilog="A first look, without data or network:  micropref demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Texts are printed as they are: a prompt is no markup.
out = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
err = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

_PIPE_WIDTH = 160

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
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


def print_table(table: Table) -> None:
    # In a pipe there is no width to fit into; a table cut to 80 columns would lose figures.
    watched = sys.stdout.isatty()
    console = Console(markup=False, emoji=False, highlight=False, width=None if watched else _PIPE_WIDTH)
    console.print(table)


def print_json(value: Any) -> None:
    letters_are_safe = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(value, ensure_ascii=not letters_are_safe))
