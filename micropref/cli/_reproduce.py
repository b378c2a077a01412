"""`micropref reproduce`: the tables of a paper from one command."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from micropref.cli._app import Json, app, err, out, print_json, working


@app.command()
def reproduce(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="Tables to reproduce: 'paper', those of MiCRo's paper.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results; an interrupted run resumes there.")
    ] = Path("reproduction"),
    tables: Annotated[
        str, typer.Option("--tables", help="Numbers of the tables, such as 1,2,7; by default all seven.")
    ] = "",
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="Name, path or address of an encoder to use instead of the reward model; 'last-token:NAME' is another "
            "reward model.",
        ),
    ] = "",
    small: Annotated[
        bool, typer.Option("--small", help="Rehearse with synthetic texts in the schema of each set, offline.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the run would cost on this machine, and stop.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder with copies of sets, each named after its loader (helpsteer2, rpr, ultrafeedback, prism, "
            "personal_reward_bench); others come from the hub.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Folder of the vectors; by default 'embeddings' in the folder of --output."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Number of processes; results do not depend on it. Default 1, or 2 for --small on two or more cores.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the experiments of MiCRo's paper, and print its tables with our figures beside the published ones.

    The tables are: 1 best head per attribute, 2 routed by 50 labels, 3 across data sets, 4 number of heads, 5 labels,
    6 weights of the router, 7 people. The command needs the extras data and embed, and downloads the data sets and the
    model from the Hugging Face Hub; the rehearsal (--small) needs neither. It writes paper.md, paper.html and
    paper.csv. The exit code is 1 if a method failed.
    """
    if what != "paper":
        raise typer.BadParameter(f"expected paper, got {what!r}", param_hint="WHAT")
    from micropref.bench._document import as_markdown
    from micropref.bench._paper.plan import Plan
    from micropref.bench._words import counted

    plan = Plan(_numbers(tables), encoder, small)
    try:
        plan.chosen()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tables") from None
    if dry_run and small:
        raise typer.BadParameter(
            "expected --dry-run or --small, got both: a rehearsal embeds nothing, and takes minutes",
            param_hint="--small",
        )
    if jobs is None:
        jobs = min(2, os.cpu_count() or 1) if small else 1
    if dry_run:
        from micropref._support.files import check_folder
        from micropref.bench._paper.costs import Machine, as_blocks, costs_of

        check_folder(output, create=False)
        machine = Machine.here(output)
        if as_json:
            print_json({"machine": vars(machine), "costs": [vars(one) for one in costs_of(plan, machine.has_gpu)]})
        else:
            out.print(as_markdown(as_blocks(plan, machine)))
        return
    from micropref.bench._paper.reproduce import reproduce_paper
    from micropref.distributed import launched

    start, rank = time.perf_counter(), launched()[0]
    with working(silent=rank > 0) as report:
        try:
            found = reproduce_paper(output, plan, data=data, store=store, n_jobs=jobs, report=report)
        except KeyboardInterrupt as stopped:
            err.print(f"micropref: {stopped}" if str(stopped) else "micropref: stopped; the same command resumes")
            raise typer.Exit(130) from None
        except ConnectionError as error:
            raise ConnectionError(
                f"{error}; --data names a folder of copies; --small rehearses without a network"
            ) from None
    if rank:
        return
    seconds = time.perf_counter() - start
    if as_json:
        files = [str(path) for path in found.files]
        done = {"cells_run": found.n_run, "cells_kept": found.n_kept, "failed": found.failed}
        print_json({**done, "files": files, "rows": found.rows, "seconds": seconds})
    else:
        out.print(as_markdown(found.blocks))
        for path in found.files:
            out.print(str(path))
        work = f"{counted(found.n_run, 'cell')} run, {found.n_kept} kept"
        out.print(f"{work}, {seconds:.1f} s, {counted(jobs, 'process', 'processes')}")
        for line in found.failed:
            out.print(f"failed: {line}")
    if found.failed:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(",") if one.strip())
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as 1,2,7, got {text!r}", param_hint="--tables") from None
