"""The data of a command: the options that say how a file is to be read, and what is said about what was read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from micropref.cli._app import err

__all__ = [
    "Annotators",
    "Column",
    "Data",
    "Encoding",
    "Force",
    "Format",
    "Label",
    "Reading",
    "Rejected",
    "SkipBad",
    "announce",
    "read_table",
    "refuse_existing",
    "refuse_input_as_output",
    "renamed_columns",
]

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Comparisons: .jsonl, .json, .csv, .tsv (also .gz, .bz2, .xz, .zst), .parquet or .arrow, a folder of "
        "save_to_disk, or - for standard input, with prompt, chosen, rejected; or prompt, response_a, response_b, "
        "label. Optional: context, group, weight. Other common names are recognised, too.",
        show_default=False,
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="Use another column of the data, as NAME=COLUMN (chosen=better). May be repeated."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="Which response a label of the data prefers, as VALUE=MEANING, where MEANING is first, second or tie "
        "(1=first). May be repeated.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Layout of the data, if it is not recognised: arena, openai, sharegpt, label-studio, hh-rlhf, "
        "ultrafeedback; or the file format: jsonl, json, csv, tsv, parquet.",
    ),
]
Annotators = Annotated[
    str | None,
    typer.Option(
        "--annotators",
        help="Columns that each hold the labels of one annotator, separated by commas (label_1,label_2).",
    ),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Encoding of a text file that is not in UTF-8, such as cp1252.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Skip rows that cannot be used, and write them to a file beside the data.")
]
Rejected = Annotated[Path | None, typer.Option("--rejected", help="File to which --skip-bad writes the skipped rows.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace the existing model, including its router and the history of its users."),
]


class Reading(NamedTuple):
    """How a command reads its data: the options as they were given."""

    columns: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    format: str | None = None
    annotators: str | None = None
    encoding: str | None = None
    skip_bad: bool = False
    rejected: Path | None = None

    def as_options(self) -> list[str]:
        """The words that give these options to another command."""
        words = [word for column in self.columns or () for word in ("--column", column)]
        words += [word for label in self.labels or () for word in ("--label", label)]
        for name, value in (
            ("--format", self.format),
            ("--annotators", self.annotators),
            ("--encoding", self.encoding),
        ):
            words += [] if value is None else [name, value]
        return words + (["--skip-bad"] if self.skip_bad else [])


def read_table(data: str, reading: Reading, report: Callable[[str], None], *, is_first: bool = True) -> Any:
    """The comparisons of a file; what was recognised in it is said in one line on standard error.

    `is_first` is false in all processes of torchrun but one, so that everything is said and written once.
    """
    from micropref.datasets import read_preferences

    report(f"reading {data}")
    table = read_preferences(
        data,
        columns=renamed_columns(reading.columns),
        labels=_meanings(reading.labels),
        format=reading.format,
        annotators=reading.annotators,
        encoding=reading.encoding,
        skip_bad=reading.skip_bad,
        rejected_path=reading.rejected if is_first else Path(os.devnull),
    )
    if is_first:
        announce(table.report)
    return table


def announce(report: Any) -> None:
    """Say in one line what was recognised, unless all columns have the library's own names."""
    if not report.is_plain:
        err.print(f"micropref: {report.source}: {report}")


def renamed_columns(columns: Sequence[str] | None) -> dict[str, str] | None:
    """What ``--column NAME=COLUMN`` says, by name."""
    renamed: dict[str, str] = {}
    for item in columns or ():
        name, separator, column = item.partition("=")
        if not separator or not name or not column:
            raise typer.BadParameter(f"expected NAME=COLUMN, got {item!r}", param_hint="--column")
        if renamed.setdefault(name, column) != column:
            raise typer.BadParameter(f"expected one column for {name!r}, got two", param_hint="--column")
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


def refuse_input_as_output(data: str | None, output: Path | None, option: str) -> None:
    """A ValueError if what a command writes would replace the data that it reads."""
    if data is None or output is None or not output.exists() or not Path(data).exists():
        return
    if output.samefile(data):
        raise ValueError(f"{option}: expected another file than the data, got {output}, which would be replaced")


def refuse_existing(model: Path, *, force: bool) -> None:
    """A ValueError if there is a model whose router and users would be lost."""
    if not force and (model / "model.json").exists():
        raise ValueError(
            f"{model}: expected a folder without a model, got one with a model, whose router and users' histories "
            "would be lost; name another folder, or replace it with --force"
        )
