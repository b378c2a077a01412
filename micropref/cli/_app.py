"""The application, what its commands share, and how they speak: tables and JSON out, notices and errors beside."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
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

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Comparisons: .jsonl, .json, .csv, .tsv (also .gz) or .parquet with prompt, chosen, rejected; "
        "or prompt, response_a, response_b, label. Optional: context, group, weight.",
        show_default=False,
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="Use another column of the data, as NAME=COLUMN (chosen=better). May be repeated."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="Say which response a label of the data prefers, as VALUE=MEANING, where MEANING is first, second or tie "
        "(1=first). May be repeated.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip rows that cannot be used, and write them to a file beside the data.")
]
Rejected = Annotated[Path | None, typer.Option("--rejected", help="File to which --skip-bad writes those rows.")]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="Name or path of the model's encoder, if it has moved."),
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


def read_table(
    data: str,
    columns: Sequence[str] | None,
    labels: Sequence[str] | None,
    skip_bad: bool,
    rejected: Path | None,
    report: Callable[[str], None],
) -> Any:
    from micropref.datasets import read_preferences

    report(f"reading {data}")
    return read_preferences(
        data, columns=_renamed(columns), labels=_meanings(labels), skip_bad=skip_bad, rejected_path=rejected
    )


def _renamed(columns: Sequence[str] | None) -> dict[str, str] | None:
    renamed = {}
    for item in columns or ():
        name, separator, column = item.partition("=")
        if not separator or not name or not column:
            raise typer.BadParameter(f"expected NAME=COLUMN, got {item!r}", param_hint="--column")
        renamed[name] = column
    return renamed or None


def _meanings(labels: Sequence[str] | None) -> dict[str, str] | None:
    meanings: dict[str, str] = {}
    for item in labels or ():
        value, _, meaning = item.rpartition("=")  # the last sign: in ==tie the label is =
        if not value.strip() or meaning not in ("first", "second", "tie"):
            raise typer.BadParameter(
                f"expected VALUE=first, VALUE=second or VALUE=tie, got {item!r}", param_hint="--label"
            )
        if meanings.setdefault(value, meaning) != meaning:
            raise typer.BadParameter(f"expected one meaning of {value!r}, got two", param_hint="--label")
    return meanings or None


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
    """Print each step on a terminal, and nothing but warnings in a pipe, one line each; nothing at all if `silent`."""
    watched = sys.stderr.isatty() and not silent
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield lambda step: err.print(f"{step} ...", style="dim") if watched else None
        finally:  # warnings about rows left out matter even more where the rest fails
            shown = [] if silent else [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
            for message in dict.fromkeys(shown):
                err.print(f"micropref: warning: {message}")


def print_table(table: Table) -> None:
    # In a pipe there is no width to fit into; a table cut to 80 columns would lose figures.
    watched = sys.stdout.isatty()
    console = Console(markup=False, emoji=False, highlight=False, width=None if watched else _PIPE_WIDTH)
    console.print(table)


def print_json(value: Any) -> None:
    letters_are_safe = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(value, ensure_ascii=not letters_are_safe))
