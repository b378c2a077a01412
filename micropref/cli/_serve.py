"""`micropref serve`: a model behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from micropref.cli._app import Encoder, Model, Store, app, out


@app.command()
def serve(
    model: Model,
    users: Annotated[
        Path,
        typer.Option(
            "--users", help="SQLite file of users and their votes; created if it does not exist.", show_default=False
        ),
    ],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any free port.")] = 8000,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all addresses of this machine.")
    ] = "127.0.0.1",
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            help="Comparisons that /suggest and the page ask about, a file as for `micropref ask`; by default those of "
            "the demonstration.",
        ),
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", min=1024, help="Largest body of a request, in bytes.")] = 1
    << 20,
    max_text: Annotated[int, typer.Option("--max-text", min=1, help="Longest text, in characters.")] = 1 << 15,
    max_items: Annotated[int, typer.Option("--max-items", min=1, help="Most responses or pairs in a request.")] = 256,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="Another host name that requests may use, for example behind a proxy. May be repeated.",
        ),
    ] = None,
    log_content: Annotated[
        bool, typer.Option("--log-content", help="Write bodies of requests and ids of users to the log.")
    ] = False,
    encoder: Encoder = None,
    store: Store = None,
) -> None:
    """Serve a model: POST /score, /rank, /votes, /suggest, and a page at / to try it.

    Users and their votes are stored in the SQLite file: a vote is on disk before it is acknowledged, and survives if
    the process is killed. If the environment variable MICROPREF_TOKEN is set, requests must contain this token.
    SIGHUP loads the model again without dropping requests; SIGTERM ends the server.
    """
    from micropref.serve import Limits
    from micropref.serve import serve as run

    run(
        model,
        users,
        host=host,
        port=port,
        questions=questions,
        encoder=encoder,
        store=store,
        limits=Limits(body=max_body, text=max_text, items=max_items),
        allowed_hosts=frozenset(name.lower() for name in allow_host or ()),
        log_content=log_content,
        ready=lambda address: out.print(f"serving {model} at {address}"),
    )
