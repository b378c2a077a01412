"""`micropref demo`: what one reward for all users misses, on bundled texts."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from micropref._support.text import counted
from micropref.cli._app import Json, app, out, print_json, print_table, with_interval, working
from micropref.cli._dialogue import WIDEST, ask_user, bar, console_of, described, explain, summary

if TYPE_CHECKING:
    from micropref.demo import DemoResult, ReaderDemo

_N_QUESTIONS = 5
# Letters of an answer that are shown beside its rank.
_BEGINNING = 115


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the figure.")] = Path("."),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the world and of the fits.")] = 0,
    me: Annotated[
        bool, typer.Option("--me", help="Ask you five questions, and rank answers for you and for all users.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show on bundled texts what one reward for all users misses, and what heads and a router recover.

    Four hidden tastes disagree about answers to everyday questions. Heads are learned from annotators who answer a few
    pairs each; a router learns from 5, 10 or 50 labelled wishes per taste, or from a user's own votes. Needs no
    network, writes micropref-demo.png if matplotlib is installed, and takes less than half a minute. With --me, five
    questions identify your taste, and nothing is written.
    """
    if me:
        _ask_reader(seed, as_json)
        return
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
    print_table(_table(result), _table(result, stacked=True))
    out.print(
        f"Heads were learned from {counted(result.n_train, 'comparison')} by "
        f"{counted(result.n_annotators, 'annotator')}, without knowing the tastes.\n"
        f"Penalties fit the data: heads {result.alpha:.2g}, router {result.router_alpha:.2g}; "
        f"votes at temperature {result.history_temperature:g}.\n"
        "Log-loss is in nats; 0.693 is chance. Intervals: bootstrap over users."
    )
    out.print(f"Figure: {figure}" if figure else f"No figure: {no_figure}")
    out.print(f"{seconds:.1f} s")


def _table(result: DemoResult, *, stacked: bool = False) -> Table:
    """A row for each method; stacked: intervals below their numbers, and what a method knows below its name."""
    users = counted(result.n_users, "new user")
    table = Table(title=f"{counted(result.n_test, 'comparison')} by {users}, on new questions")
    numbers = [name for what in ("accuracy", "log-loss") for name in (what, *(() if stacked else ("95 % interval",)))]
    for column in ("method, and what it knows",) if stacked else ("", "knows"):
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.rows:
        accuracy = with_interval(row.accuracy, row.accuracy_low, row.accuracy_high, 3, stacked=stacked)
        log_loss = with_interval(row.log_loss, row.log_loss_low, row.log_loss_high, 3, stacked=stacked)
        names = [f"{row.method}\n  {row.knows}"] if stacked else [row.method, row.knows]
        table.add_row(*names, *accuracy, *log_loss)
    return table


def _ask_reader(seed: int, as_json: bool) -> None:
    """Five questions to the reader, then the taste found and the two rankings."""
    from micropref.demo import ReaderDemo

    with working() as report:
        demonstration = ReaderDemo(seed, report)
    dialogue, console = demonstration.dialogue, console_of(to_stderr=as_json)
    console.print("Five questions. Which answer would you rather get?")
    explain(console)
    stopped = ask_user(dialogue, console, n_questions=_N_QUESTIONS, min_information=0.0)
    console.print()
    console.print(f"{summary(dialogue)}.")
    if dialogue.n_learned:
        _show_taste(demonstration, console)
    if as_json:
        ranking = [vars(row) for row in demonstration.ranking()]
        liked, unwanted = demonstration.likings()
        print_json(
            {
                "stopped": stopped,
                "answers": [described(reply) for reply in dialogue.replies],
                "tastes": {name: round(share, 6) for name, share in demonstration.tastes().items()},
                "likes": liked,
                "does_without": unwanted,
                "question": demonstration.question,
                "ranking": ranking,
            }
        )


def _show_taste(demonstration: ReaderDemo, console: Console) -> None:
    tastes = demonstration.tastes()
    (first, share), (second, _) = list(tastes.items())[:2]
    found = first if share >= 0.8 else f"probably {first}" if share >= 0.6 else f"between {first} and {second}"
    liked, unwanted = demonstration.likings()
    console.print(f"\nYour taste: {found}.", style="bold")
    for verb, things in (("likes", liked), ("does without", unwanted)):
        if things:
            console.print(f"It {verb} {', '.join(things)}.")
    for name, share in tastes.items():
        console.print(f"  {name:<10}{bar(share, console)}{100 * share:5.0f} %")
    console.print(f"\n{demonstration.question}", style="bold")
    table = Table(show_lines=True, width=min(console.width, WIDEST))
    table.add_column("you", justify="right")
    table.add_column("all", justify="right")
    table.add_column("answer")
    for row in demonstration.ranking():
        beginning = Text(shorten(row.answer, _BEGINNING, placeholder=" …"), style="dim")
        table.add_row(str(row.for_reader), str(row.for_all), Text(row.description) + Text("\n") + beginning)
    console.print(table)
    console.print(
        "you: ranking by the heads, weighted by your answers. all: by one reward fitted to all annotators. Neither has "
        "seen the question."
    )
