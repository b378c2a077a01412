"""`micropref embed`: the vectors of a file's texts, computed once and kept."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

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
            help="'hashing', the name or path of a sentence-transformers model, 'onnx:NAME', 'model2vec:NAME', or the "
            "address of a server and its model, 'http://HOST:PORT/v1#MODEL', with a key in MICROPREF_API_KEY.",
        ),
    ] = "hashing",
    template: Annotated[
        str, typer.Option("--template", help="Text embedded for a response; {prompt} and {response} are filled in.")
    ] = "{response}",
    clauses: Annotated[
        bool, typer.Option("--clauses", help="Embed the clauses of contexts too, for `micropref fit --clauses`.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float16 or float32; by default as the store has it, or float16.")
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

    Responses, prompts and contexts are embedded. What the store holds already is not computed again, so that an
    interrupted or killed run resumes where it stopped when the same command is given again. Started by torchrun, every
    process embeds its own share.
    """
    from micropref.distributed import launched
    from micropref.embed import EmbeddingStore, PairEncoder, plan_embedding, resolve_encoder

    start = time.perf_counter()
    with working() as report:
        refuse_input_as_output(data, store, "STORE")
        table = read_table(data, Reading(column, label, format, annotators, encoding, skip_bad, rejected), report)
        model = resolve_encoder(_on_own_device(encoder))
        texts = PairEncoder(model, template=template, context="auto", clauses=clauses).texts(table)
        if dry_run:
            kept = None
            if store.is_dir():
                kept = EmbeddingStore(store, model, dtype=dtype, read_only=True)
            report(f"timing a sample of {len(texts)} texts")
            plan = plan_embedding(model, texts, kept)
        else:
            kept = EmbeddingStore(store, model, shard_size=shard_size, dtype=dtype)
            report(f"embedding {len(texts)} texts")
            rank, n_ranks = launched()
            try:
                n_new = kept.add(texts, part=(rank, n_ranks))
            except KeyboardInterrupt as stopped:
                err.print(f"micropref: {stopped}")
                raise typer.Exit(130) from None
    if dry_run:
        lines = [f"{len(table)} comparisons, {plan.n_distinct} distinct texts", *_plan_lines(plan)]
        _show({"n_comparisons": len(table), **plan.__dict__}, as_json, lines)
        return
    assert kept is not None
    seconds = time.perf_counter() - start
    found = {"store": str(store), "n_new": n_new, **kept.info(), "seconds": round(seconds, 2)}
    share = f"process {rank + 1} of {n_ranks}: " if n_ranks > 1 else ""
    truncated = f", {found['n_truncated']} longer than the encoder reads" if found["n_truncated"] else ""
    _show(
        found,
        as_json,
        [
            f"{share}{n_new} texts embedded in {seconds:.1f} s",
            f"{store} holds {found['n_texts']} texts, {found['n_bytes'] / 1e6:.1f} MB{truncated}",
        ],
    )


def _show(values: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    if as_json:
        print_json(values)
    else:
        for line in lines:
            out.print(line)


def _plan_lines(plan: Any) -> list[str]:
    unknown = "unknown, this encoder does not count them"
    return [
        f"{plan.n_cached} of them are kept already, {plan.n_missing} would be embedded",
        f"longer than the encoder reads: {unknown if plan.n_truncated is None else plan.n_truncated}",
        f"about {plan.seconds:.0f} s on this machine, by a sample of {plan.n_sampled}",
    ]


def _on_own_device(name: str) -> Any:
    """The encoder; of the processes that torchrun started, each takes its own GPU where there are several."""
    from micropref._support.optional import require
    from micropref.distributed import launched
    from micropref.embed import SentenceTransformerEncoder, resolve_encoder

    if launched()[1] == 1:
        return name
    encoder = resolve_encoder(name)
    if not isinstance(encoder, SentenceTransformerEncoder) or encoder.backend != "torch":
        return encoder
    torch = require("torch", "Embedding texts with a sentence-transformers model")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % n_devices}" if n_devices else None
    return SentenceTransformerEncoder(name, device=device)
