"""The commands about one model: fit, route, score, evaluate."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from micropref._support.text import counted
from micropref.cli._app import (
    Encoder,
    Json,
    Model,
    Store,
    app,
    err,
    number_or_auto,
    out,
    print_json,
    print_table,
    with_interval,
    working,
)
from micropref.cli._data import (
    Annotators,
    Column,
    Data,
    Encoding,
    Force,
    Format,
    Label,
    Reading,
    Rejected,
    SkipBad,
    announce,
    read_table,
    refuse_existing,
    refuse_input_as_output,
    renamed_columns,
)


@app.command()
def fit(
    data: Data,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder to write the model to.", show_default=False)],
    components: Annotated[
        str,
        typer.Option(
            "--components",
            "--heads",
            "-k",
            help="Number of heads; auto: chosen on held-out annotators, or 1 if annotators are unknown.",
        ),
    ] = "auto",
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="'hashing', the name or path of a sentence-transformers model, 'onnx:NAME', 'model2vec:NAME', "
            "'last-token:NAME', a causal reward model, or the address of a server and its model, "
            "'http://HOST:PORT/v1#MODEL', with a key in MICROPREF_API_KEY.",
        ),
    ] = "hashing",
    template: Annotated[
        str, typer.Option("--template", help="Text embedded for a response; {prompt} and {response} are filled in.")
    ] = "{response}",
    store: Store = None,
    prompt_gate: Annotated[
        bool, typer.Option("--prompt-gate", help="Let the weights of the heads depend on the prompt.")
    ] = False,
    interactions: Annotated[
        bool | None,
        typer.Option(
            "--interactions/--no-interactions",
            help="Let contexts act on the responses ('I avoid X'); default: if the data has contexts; "
            "--no-interactions: never.",
            show_default=False,
        ),
    ] = None,
    clauses: Annotated[
        bool, typer.Option("--clauses", help="Split contexts into clauses, each of which acts on the responses.")
    ] = False,
    length: Annotated[bool, typer.Option("--length", help="Make the length of a response a separate feature.")] = False,
    users: Annotated[
        str,
        typer.Option(
            "--users",
            help="Model of the annotators: 'heads' (each has one of K rewards), 'one' (all share one reward), "
            "'hierarchical' (each has a reward of their own near a head), or 'auto' (the one that predicts held-out "
            "annotators best).",
        ),
    ] = "heads",
    alpha: Annotated[
        str, typer.Option("--alpha", help="L2 penalty of the heads; auto: from the scale and the number of the rows.")
    ] = "auto",
    restarts: Annotated[int, typer.Option("--restarts", help="Random starts; the best is kept.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the starts.")] = 0,
    column: Column = None,
    label: Label = None,
    format: Format = None,
    annotators: Annotators = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Learn the heads from comparisons (stage 1).

    Name the annotator of every comparison in a column `group` (or user, worker, annotator): if annotators disagree
    on every pair, only their names identify the heads.

    Under torchrun, each process embeds and holds its share of the annotators, and the first process saves the model.
    """
    from micropref.distributed import distributed_fit, torchrun
    from micropref.embed import PairEncoder
    from micropref.reward import PreferenceModel

    start = time.perf_counter()
    n_heads: Any = number_or_auto(components, int, "--components")
    penalty = number_or_auto(alpha, float, "--alpha")
    with torchrun() as ranks, working(silent=ranks.rank > 0) as report:
        ranks.together(lambda: _check_output(data, model, force))
        reading = Reading(column, label, format, annotators, encoding, skip_bad, rejected)
        table = ranks.together(lambda: read_table(data, reading, report, is_first=ranks.rank == 0))
        report(f"embedding the texts of {counted(len(table), 'comparison')} and fitting {_fitted_for(users, n_heads)}")
        share = ranks.together(lambda: _share(table, ranks.rank, ranks.world_size))
        with distributed_fit(ranks):
            fitted = PreferenceModel.fit(
                share,
                encoder=PairEncoder(encoder, store=store, template=template, clauses=clauses, length=length),
                prompt_gate=prompt_gate,
                interactions=interactions,
                users=users,
                n_components=n_heads,
                alpha=penalty,
                n_init=restarts,
                random_state=seed,
                verbose=int(sys.stderr.isatty()),
            )
        ranks.together(lambda: fitted.save(model) if ranks.rank == 0 else None)
    if ranks.rank > 0:
        return
    mixture = fitted.mixture
    groups = set() if table.group is None else set(table.group) - {None}
    result = {
        "model": str(model),
        "n_comparisons": len(table),
        "n_rejected": table.n_rejected,
        "n_groups": len(groups),
        "n_truncated": fitted.encoder.n_truncated_,
        "encoder": fitted.encoder.encoder_.fingerprint,
        "interactions": fitted.encoder.interactions_ is not None,
        "n_components": len(mixture.coef_),
        "alpha": mixture.alpha_,
        "gate_alpha": mixture.gate_alpha_,
        "history_temperature": mixture.history_temperature_,
        "weights": mixture.weights_.tolist(),
        "objective": -mixture.evidence_ if hasattr(mixture, "evidence_") else mixture.objective_,
        "users": users if fitted.choice is None else fitted.choice.chosen,
        "reason": None if fitted.choice is None else fitted.choice.reason,
        "n_iter": mixture.n_iter_,
        "converged": mixture.converged_,
        "seconds": round(time.perf_counter() - start, 2),
    }
    if as_json:
        print_json(result)
        return
    _print_fit(result, mixture)


def _check_output(data: str, model: Path, force: bool) -> None:
    refuse_input_as_output(data, model, "MODEL")
    refuse_existing(model, force=force)


def _print_fit(result: dict[str, Any], mixture: Any) -> None:
    groups = result["n_groups"]
    annotators = counted(groups, "annotator") if groups else "annotators unknown"
    truncated = counted(result["n_truncated"], "text")
    out.print(
        f"{counted(result['n_comparisons'], 'comparison')}, {annotators}, {truncated} longer than the encoder reads"
    )
    heads, iterations = counted(len(mixture.coef_), "head"), counted(mixture.n_iter_, "iteration")
    if result["reason"]:
        out.print(f"chosen: {result['reason']}")
    if mixture.scatter_ is not None:
        heads += f", around which users scatter in {counted(mixture.scatter_.n_directions, 'direction')}"
    out.print(f"{heads}, {result['objective']:.4f} nats after {iterations}")
    out.print(f"alpha {mixture.alpha_:.2g}, history temperature {mixture.history_temperature_:g}")
    if result["interactions"]:
        out.print("contexts act on the responses (interactions)")
    out.print("weights " + " ".join(f"{weight:.2f}" for weight in mixture.weights_))
    out.print(f"saved to {result['model']} ({result['seconds']:.1f} s)")
    model = shlex.quote(result["model"])
    out.print(f"next: micropref route {model} VOTES      learns what users, or contexts, prefer")
    out.print(f"      micropref score {model} RESPONSES  ranks responses")


def _fitted_for(users: str, n_heads: Any) -> str:
    """What is about to be fitted."""
    words = {
        "one": "one reward",
        "hierarchical": "users around heads",
        "auto": "one reward, heads, and users around heads",
    }
    return words.get(users, "heads" if isinstance(n_heads, str) else counted(n_heads, "head"))


def _share(table: Any, rank: int, world_size: int) -> Any:
    """The rows of one process; the error about a process without rows is the same in all."""
    from micropref.distributed import shard_rows

    if world_size == 1:
        return table
    shares = [shard_rows(len(table), table.group, one, world_size) for one in range(world_size)]
    empty = [one for one, rows in enumerate(shares) if not len(rows)]
    if empty:
        raise ValueError(
            f"expected comparisons for each of {world_size} processes, got none for process {empty[0]}, since those of "
            f"one annotator stay together; start at most {counted(world_size - len(empty), 'process')}"
        )
    return table[shares[rank]]


@app.command()
def route(
    model: Model,
    data: Data,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default the model is replaced.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="1 (default): Bayes' rule; near 0: the best head of each pair."),
    ] = None,
    history_temperature: Annotated[
        str | None,
        typer.Option(
            "--history-temperature",
            help="Larger values trust users' votes less; auto (default): fitted to the annotators' votes.",
        ),
    ] = None,
    history_decay: Annotated[
        float | None,
        typer.Option("--history-decay", help="Default 1; below 1, a user's earlier votes lose weight over time."),
    ] = None,
    gate: Annotated[str | None, typer.Option("--gate", help="linear (default), mlp, knn or cluster.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the mlp gate, default 0.")] = None,
    encoder: Encoder = None,
    store: Store = None,
    column: Column = None,
    label: Label = None,
    format: Format = None,
    annotators: Annotators = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Learn which head applies (stage 2): from labelled contexts, or from users' votes.

    Rows without a group teach the router how contexts choose heads. Rows with a group are votes of that user, oldest
    first, and are added to the user's history. The model keeps the settings until you pass new ones.
    """
    from micropref._reward.routing import labelled_and_voted
    from micropref.reward import PreferenceModel

    given = {
        "temperature": temperature,
        "history_temperature": None
        if history_temperature is None
        else number_or_auto(history_temperature, float, "--history-temperature"),
        "history_decay": history_decay,
        "gate": gate,
        "random_state": seed,
    }

    start = time.perf_counter()
    with working() as report:
        refuse_input_as_output(data, output, "--output")
        if output is not None and output.resolve() != model.resolve():
            refuse_existing(output, force=force)
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder, store=store)
        table = read_table(data, Reading(column, label, format, annotators, encoding, skip_bad, rejected), report)
        report(f"embedding and routing {counted(len(table), 'comparison')}")
        if fitted.router is None and seed is None:
            given["random_state"] = 0
        fitted.route(table, **{name: value for name, value in given.items() if value is not None})
        fitted.save(output or model)
    assert fitted.router is not None
    labelled, voted = labelled_and_voted(table)
    votes = int(voted.sum())
    result = {
        "model": str(output or model),
        "n_labelled": int(labelled.sum()),
        "n_votes": votes,
        "n_users": len(fitted.router.history_),
        "n_rejected": table.n_rejected,
        "alpha": getattr(fitted.router, "alpha_", None),
        "history_temperature": fitted.router.history_temperature_,
        "seconds": round(time.perf_counter() - start, 2),
    }
    if as_json:
        print_json(result)
        return
    contexts, users = counted(result["n_labelled"], "labelled context"), counted(result["n_users"], "user")
    out.print(f"{contexts}, {counted(votes, 'vote')}; {users} known")
    of_gate = "" if result["alpha"] is None else f"alpha {result['alpha']:.2g}, "
    out.print(f"{of_gate}history temperature {result['history_temperature']:g}")
    out.print(f"saved to {result['model']} ({result['seconds']:.1f} s)")


@app.command()
def score(
    model: Model,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Responses: a file, or - for standard input, with prompt and response (or responses, a list); "
            "optional: context, user.",
            show_default=False,
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
    encoder: Encoder = None,
    store: Store = None,
    column: Column = None,
    format: Format = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Reward single responses and rank those to the same prompt, context and user.

    Prints one JSON object per response: row, rank (1 is best), reward, response. Only differences between rewards of
    responses to the same prompt are meaningful.
    """
    from micropref.datasets.responses import read_responses
    from micropref.reward import PreferenceModel

    with working() as report:
        refuse_input_as_output(data, output, "--output")
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder, store=store)
        report(f"reading {data}")
        table = read_responses(data, columns=renamed_columns(column), format=format, encoding=encoding)
        announce(table.report)
        report(f"embedding {counted(len(table), 'response')}")
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
            print_json(line)
    else:
        output.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        err.print(f"{counted(len(scored), 'response')} scored, written to {output}")


@app.command()
def evaluate(
    model: Model,
    data: Data,
    by: Annotated[
        str | None, typer.Option("--by", help="Also report results for each value of this column, such as context.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    encoder: Encoder = None,
    store: Store = None,
    column: Column = None,
    label: Label = None,
    format: Format = None,
    annotators: Annotators = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy and log-loss, with 95 % intervals, on comparisons that the model has not seen.

    `mixture` uses only the comparison, `routed` also its context, `history` also its user. Intervals resample users,
    or prompts if no users are named.
    """
    from micropref.reward import PreferenceModel

    with working() as report:
        report("loading the model")
        fitted = PreferenceModel.load(model, encoder, store=store)
        table = read_table(data, Reading(column, label, format, annotators, encoding, skip_bad, rejected), report)
        report(f"evaluating {counted(len(table), 'comparison')}")
        rows = fitted.evaluate(table, by=by, random_state=seed)
    if as_json:
        print_json({"model": str(model), "n_rejected": table.n_rejected, "rows": rows})
        return
    title = counted(len(table), "comparison")
    print_table(_evaluated(title, by, rows), _evaluated(title, by, rows, stacked=True))


def _evaluated(title: str, by: str | None, rows: list[dict[str, Any]], *, stacked: bool = False) -> Table:
    """A row for each method and subset; stacked: intervals below their numbers."""
    shown = Table(title=title)
    shown.add_column("", no_wrap=True)
    if by:
        shown.add_column(by, overflow="fold")
    interval = () if stacked else ("95 % interval",)
    for name in ("n", "accuracy", *interval, "log-loss", *interval):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["method"], *([row["subset"]] if by else []), str(row["n"])]
        for name in ("accuracy", "log_loss"):
            cells += with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 4, stacked=stacked)
        shown.add_row(*cells)
    return shown
