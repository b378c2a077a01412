"""`micropref embed`: the vectors of a file's texts, computed once and kept."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from micropref._support.text import counted
from micropref.cli._app import (
    Json,
    app,
    err,
    out,
    print_json,
    working,
)
from micropref.cli._data import (
    Annotators,
    Column,
    Data,
    Encoding,
    Format,
    Label,
    Reading,
    Rejected,
    SkipBad,
    read_table,
    refuse_input_as_output,
)


@app.command()
def embed(
    data: Data,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of the vectors.", show_default=False)],
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
    clauses: Annotated[
        bool, typer.Option("--clauses", help="Embed the clauses of contexts too, for `micropref fit --clauses`.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float16 or float32; by default that of the store, or float16.")
    ] = None,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Texts per file.")] = 16384,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count texts, and estimate the time from a sample.")
    ] = False,
    column: Column = None,
    label: Label = None,
    format: Format = None,
    annotators: Annotators = None,
    encoding: Encoding = None,
    skip_bad: SkipBad = False,
    rejected: Rejected = None,
    as_json: Json = False,
) -> None:
    """Embed the texts of comparisons, each once, and keep the vectors.

    Responses, prompts and contexts are embedded. Vectors that the store already has are not computed again, so the same
    command resumes an interrupted or killed run where it stopped. Under torchrun, every process embeds its own share.
    """
    from micropref.distributed import launched
    from micropref.embed import EmbeddingStore, PairEncoder, plan_embedding, resolve_encoder
    from micropref.embed._devices import on_own_device

    start = time.perf_counter()
    with working() as report:
        refuse_input_as_output(data, store, "STORE")
        reading = Reading(column, label, format, annotators, encoding, skip_bad, rejected)
        table = read_table(data, reading, report)
        model = on_own_device(resolve_encoder(encoder))
        texts = PairEncoder(model, template=template, context="auto", clauses=clauses).texts(table)
        if dry_run:
            kept = None
            if store.is_dir():
                kept = EmbeddingStore(store, model, dtype=dtype, read_only=True)
            report(f"timing a sample of {counted(len(texts), 'text')}")
            plan = plan_embedding(model, texts, kept)
        else:
            kept = EmbeddingStore(store, model, shard_size=shard_size, dtype=dtype)
            report(f"embedding {counted(len(texts), 'text')}")
            rank, n_ranks = launched()
            try:
                n_new = kept.add(texts, part=(rank, n_ranks))
            except KeyboardInterrupt as stopped:
                err.print(f"micropref: {stopped}")
                raise typer.Exit(130) from None
    if dry_run:
        texts_there = f"{counted(len(table), 'comparison')}, {counted(plan.n_distinct, 'distinct text')}"
        lines = [texts_there, *_plan_lines(plan), "next: the same command without --dry-run embeds them"]
        _show({"n_comparisons": len(table), **plan.__dict__}, as_json, lines)
        return
    assert kept is not None
    seconds = time.perf_counter() - start
    found = {"store": str(store), "n_new": n_new, **kept.info(), "seconds": round(seconds, 2)}
    share = f"process {rank + 1} of {n_ranks}: " if n_ranks > 1 else ""
    truncated = f", {found['n_truncated']} longer than the encoder reads" if found["n_truncated"] else ""
    lines = [
        f"{share}{counted(n_new, 'text')} embedded in {seconds:.1f} s",
        f"{store} holds {counted(found['n_texts'], 'text')}, {found['n_bytes'] / 1e6:.1f} MB{truncated}",
    ]
    if rank == 0:
        settings = {"--encoder": (encoder, "hashing"), "--template": (template, "{response}")}
        options = [word for name, (value, usual) in settings.items() if value != usual for word in (name, value)]
        options += ["--clauses"] if clauses else []
        lines.append(f"next: {_fit_command(data, store, [*options, *reading.as_options()])}")
    _show(found, as_json, lines)


def _fit_command(data: str, store: Path, options: list[str]) -> str:
    """The command that fits a model to these data with the vectors of this store."""
    source = "DATA" if data == "-" else data
    return shlex.join(["micropref", "fit", source, "MODEL", "--store", str(store), *options])


def _show(values: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    if as_json:
        print_json(values)
    else:
        for line in lines:
            out.print(line)


def _plan_lines(plan: Any) -> list[str]:
    unknown = "unknown, this encoder does not count them"
    return [
        f"kept already: {plan.n_cached}; to be embedded: {plan.n_missing}",
        f"longer than the encoder reads: {unknown if plan.n_truncated is None else plan.n_truncated}",
        f"about {plan.seconds:.0f} s on this machine, by a sample of {counted(plan.n_sampled, 'text')}",
    ]
