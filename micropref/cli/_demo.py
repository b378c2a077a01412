"""`micropref demo`: what one reward for all users misses, on bundled texts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from micropref.cli._app import Json, app, out, print_json, print_table, working


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the figure.")] = Path("."),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the world and of the fits.")] = 0,
    as_json: Json = False,
) -> None:
    """Show on bundled texts what one reward for all users misses, and what heads and a router recover.

    Four hidden tastes disagree about answers to everyday questions. Heads are learned from annotators who answer a few
    pairs each; a router learns from 5, 10 or 50 labelled wishes per taste, or from a user's own votes. Needs no
    network, writes micropref-demo.png if matplotlib is installed, and takes less than half a minute.
    """
    from importlib.util import find_spec

    from micropref.demo import plot_demo, run_demo

    start = time.perf_counter()
    with working() as report:
        result = run_demo(seed, report)
    figure, no_figure = None, "pip install 'micropref[plot]' draws one."
    if find_spec("matplotlib"):
        try:
            figure = plot_demo(result, output / "micropref-demo.png")
        except OSError as error:  # a folder that cannot be written to is no reason to lose the table
            no_figure = str(error)
    seconds = time.perf_counter() - start
    if as_json:
        print_json({**result.to_dict(), "figure": figure and str(figure), "seconds": round(seconds, 1)})
        return
    table = Table(title=f"{result.n_test} comparisons by {result.n_users} new users, on new questions")
    for column in ("", "knows", "accuracy", "95 % interval", "log-loss", "95 % interval"):
        table.add_column(column, justify="left" if column in ("", "knows") else "right", no_wrap=True)
    for row in result.rows:
        table.add_row(
            row.method,
            row.knows,
            f"{row.accuracy:.3f}",
            f"{row.accuracy_low:.3f} – {row.accuracy_high:.3f}",
            f"{row.log_loss:.3f}",
            f"{row.log_loss_low:.3f} – {row.log_loss_high:.3f}",
        )
    print_table(table)
    out.print(
        f"Heads were learned from {result.n_train} comparisons by {result.n_annotators} annotators, "
        "without knowing the tastes.\n"
        f"Penalties fit the data: heads {result.alpha:.2g}, router {result.router_alpha:.2g}; "
        f"votes at temperature {result.history_temperature:g}.\n"
        "Log-loss is in nats; 0.693 is chance. Intervals: bootstrap over users."
    )
    out.print(f"Figure: {figure}" if figure else f"No figure: {no_figure}")
    out.print(f"{seconds:.1f} s")
