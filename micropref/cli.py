"""The command `micropref`: from a file of comparisons to a personalised judgement."""

from __future__ import annotations

import io
import json
import sys
import time
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

# Texts are printed as they are: nobody's prompt is markup.
_out = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
_err = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

_PIPE_WIDTH = 160

_Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Comparisons: .jsonl, .json, .csv, .tsv (also .gz) or .parquet with prompt, chosen, rejected; "
        "or prompt, response_a, response_b, label. Optional: context, group, weight.",
        show_default=False,
    ),
]
_Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
_Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="Use another column of the data, as NAME=COLUMN (chosen=better). May be repeated."),
]
_SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on after rows that cannot be used; they are written beside the data.")
]
_Rejected = Annotated[Path | None, typer.Option("--rejected", help="Where --skip-bad writes those rows.")]
_Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="Name or path of the encoder, if it moved. It must be the one of the model."),
]


@app.callback(invoke_without_command=True)
def _common(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from micropref import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the figure.")] = Path("."),
    seed: Annotated[int, typer.Option("--seed", help="Seed of the world and of the fits.")] = 0,
    as_json: _Json = False,
) -> None:
    """Show on a bundled world of texts what one reward for everybody misses, and what finds it again.

    Four hidden tastes disagree about answers to everyday questions. Heads are found from annotators who answer a few
    pairs each; a router learns from 5, 10 or 50 labelled wishes per taste, or from a user's own votes. Needs no
    network, writes micropref-demo.png if matplotlib is installed, and takes less than half a minute.
    """
    from importlib.util import find_spec

    from micropref.demo import plot_demo, run_demo

    start = time.perf_counter()
    with _working() as report:
        result = run_demo(seed, report)
    figure, no_figure = None, "pip install 'micropref[plot]' draws one."
    if find_spec("matplotlib"):
        try:
            figure = plot_demo(result, output / "micropref-demo.png")
        except OSError as error:  # a folder that cannot be written to is no reason to lose the table
            no_figure = str(error)
    seconds = time.perf_counter() - start
    if as_json:
        _print_json({**result.to_dict(), "figure": figure and str(figure), "seconds": round(seconds, 1)})
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
    _print_table(table)
    _out.print(
        f"Heads were found from {result.n_train} comparisons by {result.n_annotators} annotators, "
        "without knowing the tastes.\n"
        "Log-loss is in nats; 0.693 is a coin. Intervals: bootstrap over whole users."
    )
    _out.print(f"Figure: {figure}" if figure else f"No figure: {no_figure}")
    _out.print(f"{seconds:.1f} s")


@app.command()
def fit(
    data: _Data,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder to write the model to.", show_default=False)],
    components: Annotated[int, typer.Option("--components", "-k", help="Number of heads.")] = 4,
    encoder: Annotated[
        str, typer.Option("--encoder", help="'hashing', or the name or path of a sentence-transformers model.")
    ] = "hashing",
    template: Annotated[
        str, typer.Option("--template", help="Text embedded for a response; {prompt} and {response} are filled in.")
    ] = "{response}",
    prompt_gate: Annotated[
        bool, typer.Option("--prompt-gate", help="Let the weights of the heads depend on the prompt.")
    ] = False,
    alpha: Annotated[float, typer.Option("--alpha", help="L2 penalty of the heads.")] = 1e-3,
    restarts: Annotated[int, typer.Option("--restarts", help="Random starts; the best is kept.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the starts.")] = 0,
    column: _Column = None,
    skip_bad: _SkipBad = False,
    rejected: _Rejected = None,
    as_json: _Json = False,
) -> None:
    """Learn the heads from comparisons (stage 1).

    Give the annotators in a column `group` (or user, worker, annotator): where people disagree on every pair, who
    answered is what tells the heads apart.
    """
    from micropref.embed import PairEncoder
    from micropref.reward import PreferenceModel

    start = time.perf_counter()
    with _working() as report:
        table = _read(data, column, skip_bad, rejected, report)
        report(f"embedding the texts of {len(table)} comparisons and fitting {components} heads")
        fitted = PreferenceModel.fit(
            table,
            encoder=PairEncoder(encoder, template=template),
            prompt_gate=prompt_gate,
            n_components=components,
            alpha=alpha,
            n_init=restarts,
            random_state=seed,
            verbose=int(sys.stderr.isatty()),
        )
        fitted.save(model)
    mixture = fitted.mixture
    groups = set() if table.group is None else set(table.group) - {None}
    result = {
        "model": str(model),
        "n_comparisons": len(table),
        "n_rejected": table.n_rejected,
        "n_groups": len(groups),
        "n_truncated": fitted.encoder.n_truncated_,
        "encoder": fitted.encoder.encoder_.fingerprint,
        "weights": mixture.weights_.tolist(),
        "objective": mixture.objective_,
        "n_iter": mixture.n_iter_,
        "converged": mixture.converged_,
        "seconds": round(time.perf_counter() - start, 2),
    }
    if as_json:
        _print_json(result)
        return
    annotators = f"{len(groups)} annotators" if groups else "annotators unknown"
    _out.print(f"{len(table)} comparisons, {annotators}, {result['n_truncated']} texts longer than the encoder reads")
    _out.print(f"{mixture.n_components} heads, {mixture.objective_:.4f} nats after {mixture.n_iter_} iterations")
    _out.print("weights " + " ".join(f"{weight:.2f}" for weight in mixture.weights_))
    _out.print(f"saved to {model} ({result['seconds']:.1f} s)")


@app.command()
def route(
    model: _Model,
    data: _Data,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default the model is replaced.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="1 (default) is Bayes' rule; towards 0: who wins a pair.")
    ] = None,
    history_temperature: Annotated[
        float | None, typer.Option("--history-temperature", help="Default 1; larger values trust users' votes less.")
    ] = None,
    history_decay: Annotated[
        float | None,
        typer.Option("--history-decay", help="Default 1; below it, later votes of a user discount earlier ones."),
    ] = None,
    gate: Annotated[str | None, typer.Option("--gate", help="linear (default), mlp or knn.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the mlp gate, default 0.")] = None,
    encoder: _Encoder = None,
    column: _Column = None,
    skip_bad: _SkipBad = False,
    rejected: _Rejected = None,
    as_json: _Json = False,
) -> None:
    """Learn which head applies (stage 2): from labelled contexts, or from users' votes.

    Rows without a group teach how contexts choose heads. Rows with a group are votes of that user, oldest first, and
    are added to what is known of them. Settings stay with the model until they are given again.
    """
    from micropref.reward import PreferenceModel

    given = {
        "temperature": temperature,
        "history_temperature": history_temperature,
        "history_decay": history_decay,
        "gate": gate,
        "random_state": seed,
    }

    start = time.perf_counter()
    with _working() as report:
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder)
        table = _read(data, column, skip_bad, rejected, report)
        report(f"embedding and routing {len(table)} comparisons")
        if fitted.router is None and seed is None:
            given["random_state"] = 0
        fitted.route(table, **{name: value for name, value in given.items() if value is not None})
        fitted.save(output or model)
    assert fitted.router is not None
    votes = 0 if table.group is None else sum(group is not None for group in table.group)
    result = {
        "model": str(output or model),
        "n_labelled": len(table) - votes,
        "n_votes": votes,
        "n_users": len(fitted.router.history_),
        "n_rejected": table.n_rejected,
        "seconds": round(time.perf_counter() - start, 2),
    }
    if as_json:
        _print_json(result)
        return
    _out.print(f"{result['n_labelled']} labelled contexts, {votes} votes; {result['n_users']} users known")
    _out.print(f"saved to {result['model']} ({result['seconds']:.1f} s)")


@app.command()
def score(
    model: _Model,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Responses: a file with prompt and response (or responses, a list); optional: context, user.",
            show_default=False,
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
    encoder: _Encoder = None,
    as_json: _Json = False,
) -> None:
    """Reward single responses and rank those to the same prompt, context and user.

    Prints one JSON object per response: row, rank (1 is best), reward, response. Only differences between rewards of
    responses to the same prompt have a meaning.
    """
    from micropref.datasets.responses import read_responses
    from micropref.reward import PreferenceModel

    with _working() as report:
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder)
        table = read_responses(data)
        report(f"embedding {len(table)} responses")
        rewards = fitted.reward(table.prompt, table.response, table.context, table.user).tolist()
    contexts = table.context or [""] * len(table)
    users = table.user or [None] * len(table)
    keys = list(zip(table.prompt, contexts, users, strict=True))
    rank: dict[int, int] = {}
    place: dict[Any, int] = {}
    for i in sorted(range(len(table)), key=lambda i: -rewards[i]):
        rank[i] = place[keys[i]] = place.get(keys[i], 0) + 1
    scored = [
        {"row": table.row[i], "rank": rank[i], "reward": round(rewards[i], 6), "response": table.response[i]}
        for i in range(len(table))
    ]
    lines = [{"model": str(model), "responses": scored}] if as_json else scored
    if output is None:
        for line in lines:
            _print_json(line)
    else:
        output.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        _err.print(f"{len(scored)} responses scored, written to {output}")


@app.command()
def evaluate(
    model: _Model,
    data: _Data,
    by: Annotated[
        str | None, typer.Option("--by", help="Also for every value of this column, such as context.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    encoder: _Encoder = None,
    column: _Column = None,
    skip_bad: _SkipBad = False,
    rejected: _Rejected = None,
    as_json: _Json = False,
) -> None:
    """Say how good the model is on comparisons it has not seen: accuracy and log-loss with 95 % intervals.

    `mixture` knows only the comparison, `routed` also its context, `history` also who asks. Users, or prompts where
    there are none, are resampled whole.
    """
    from micropref.reward import PreferenceModel

    with _working() as report:
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder)
        table = _read(data, column, skip_bad, rejected, report)
        report(f"judging {len(table)} comparisons")
        rows = fitted.evaluate(table, by=by, random_state=seed)
    if as_json:
        _print_json({"model": str(model), "n_rejected": table.n_rejected, "rows": rows})
        return
    shown = Table(title=f"{len(table)} comparisons")
    for name in ("", by or "", "n", "accuracy", "95 % interval", "log-loss", "95 % interval"):
        if name or not shown.columns:
            is_text = name in ("", by)
            shown.add_column(name, justify="left" if is_text else "right", no_wrap=name != by, overflow="fold")
    for row in rows:
        cells = [row["method"], *([row["subset"]] if by else []), str(row["n"])]
        for name in ("accuracy", "log_loss"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells += [f"{row[name]:.4f}", "one cluster" if low is None else f"{low:.4f} – {high:.4f}"]
        shown.add_row(*cells)
    _print_table(shown)


# ------------------------------------------------------------------------------------------------------------- helpers


def _read(
    data: str,
    columns: Sequence[str] | None,
    skip_bad: bool,
    rejected: Path | None,
    report: Callable[[str], None],
) -> Any:
    from micropref.datasets import read_preferences

    report(f"reading {data}")
    renamed = {}
    for item in columns or ():
        name, separator, column = item.partition("=")
        if not separator or not name or not column:
            raise typer.BadParameter(f"{item!r} is not of the form NAME=COLUMN", param_hint="--column")
        renamed[name] = column
    return read_preferences(data, columns=renamed or None, skip_bad=skip_bad, rejected_path=rejected)


@contextmanager
def _working() -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being done; be silent in a pipe, but for warnings, one line each."""
    watched = sys.stderr.isatty()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield lambda step: _err.print(f"{step} ...", style="dim") if watched else None
        finally:  # what was left out matters even more where the rest fails
            for message in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
                _err.print(f"micropref: warning: {message}")


def _print_table(table: Table) -> None:
    # In a pipe there is no width to fit into; a table cut to 80 columns would lose figures.
    watched = sys.stdout.isatty()
    console = Console(markup=False, emoji=False, highlight=False, width=None if watched else _PIPE_WIDTH)
    console.print(table)


def _print_json(value: Any) -> None:
    letters_are_safe = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    typer.echo(json.dumps(value, ensure_ascii=not letters_are_safe))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit with 0, 1 for bad data or a bad model, 2 for bad usage, 130 when interrupted."""
    # A terminal that cannot show a letter shows a question mark instead.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        app(args=None if arguments is None else list(arguments))
    except (ValueError, TypeError, OSError, ImportError) as error:
        _err.print(f"micropref: error: {error}")
        sys.exit(1)
