"""`micropref bench`: runs every method on the same comparisons, from one configuration."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from micropref.cli._app import Json, app, err, out, print_json, print_table, working


@app.command()
def bench(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Suite: a .toml file.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results; an interrupted run resumes there.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder to which the paths of data sets are relative.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="Folder of the vectors of texts; by default 'embeddings' in the folder of --data."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Number of processes; results do not depend on it.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="DATASET, DATASET/METHOD or /METHOD, with * for anything. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare methods: data sets, methods, label budgets and seeds of a suite, with intervals and paired tests.

    Writes results.csv, comparisons.csv, tables.md, tables.html and, if matplotlib is installed, a figure for each data
    set. The exit code is 1 if a method failed; the other methods still run, and the next run tries the method again.

    Texts are embedded once for each encoder and kept; an interrupted run resumes there, too. Under torchrun, every
    process embeds its own share, and the first process runs the suite.
    """
    from micropref.bench import load_suite, run_suite
    from micropref.bench._words import counted
    from micropref.distributed import launched

    start = time.perf_counter()
    suite = load_suite(config)
    rank = launched()[0]
    with working(silent=rank > 0) as report:
        try:
            result = run_suite(suite, output, data, store=store, n_jobs=jobs, only=only or (), report=report)
        except KeyboardInterrupt as stopped:
            err.print(f"micropref: {stopped}" if str(stopped) else "micropref: stopped; the same command resumes")
            raise typer.Exit(130) from None
    if rank:
        return
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "suite": suite.name,
                "cells_run": result.n_run,
                "cells_kept": result.n_kept,
                "failed": result.failed,
                "files": [str(path) for path in result.files],
                "rows": result.rows,
                "seconds": seconds,
            }
        )
    else:
        for name in dict.fromkeys(row["dataset"] for row in result.rows):
            rows = [row for row in result.rows if row["dataset"] == name]
            print_table(_shown(name, tuple(dict.fromkeys(row["budget"] for row in rows)), rows))
            if without := _without_figures(rows):
                out.print(f"{name}: {without}")
            if rows[0]["reading"]:
                out.print(f"{name}: {rows[0]['reading']}")
        for path in result.files:
            out.print(str(path))
        out.print(f"{counted(result.n_run, 'cell')} run, {result.n_kept} kept, {seconds:.1f} s")
        for line in result.failed:
            out.print(f"failed: {line}")
    if result.failed:
        raise typer.Exit(1)


def _shown(name: str, budgets: tuple[int, ...], rows: list[dict[str, Any]]) -> Table:
    """Accuracy by method and budget, methods grouped by what they use."""
    table = Table(title=f"{name}: accuracy by labels per context or user")
    table.add_column("method")
    for budget in budgets:
        table.add_column(str(budget), justify="right")
    for information in dict.fromkeys(row["information"] for row in rows):
        of = [row for row in rows if row["information"] == information]
        table.add_section()
        for line in textwrap.wrap(f"uses {information}", 24, subsequent_indent="  "):
            table.add_row(Text(line, style="italic"))
        for method in dict.fromkeys(row["method"] for row in of):
            by_budget = [row for row in of if row["method"] == method]
            table.add_row(method, *(f"{row['accuracy']:.3f}" if row["status"] == "done" else "–" for row in by_budget))
    return table


def _without_figures(rows: list[dict[str, Any]]) -> str:
    """Which methods failed or are not applicable, and why."""
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "done" and row["method"] not in why.setdefault(f"{row['status']}: {row['reason']}", []):
            why[f"{row['status']}: {row['reason']}"].append(row["method"])
    return "; ".join(f"{reason} ({', '.join(methods)})" for reason, methods in why.items())
