"""The process: a socket, signals, and a model that is served until it is asked to end."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from micropref._support.optional import require
from micropref.serve._app import create_application
from micropref.serve._connections import connection_class
from micropref.serve._database import UserDatabase
from micropref.serve._logs import Log
from micropref.serve._questions import read_questions
from micropref.serve._service import Service
from micropref.serve._settings import Limits, Settings, token_of

__all__ = ["bound_to", "loaded", "serve", "server_of"]

_BACKLOG = 512
_GRACE_S = 4
# A thread that computes gives way so often, in seconds; Python's own 5 ms make requests wait for each other.
_SWITCH_S = 0.0005
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def serve(
    model: Path,
    users: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    questions: Any = None,
    encoder: Any = None,
    store: Path | None = None,
    limits: Limits | None = None,
    allowed_hosts: frozenset[str] = frozenset(),
    log_content: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a model until SIGTERM or SIGINT; SIGHUP reloads the model.

    Parameters
    ----------
    model : path
        Folder of a model.
    users : path
        SQLite file of the users; made where there is none.
    host : str, default="127.0.0.1"
    port : int, default=8000
        0 for one that is free.
    questions : table of comparisons, optional
        Pairs that /suggest asks about; by default those of the bundled world.
    encoder, store
        As `PreferenceModel.load` takes them.
    limits : Limits, optional
    allowed_hosts : set of str, default=()
        Further names by which the server may be called, as behind a proxy; with none, a public server may be called
        by any.
    log_content : bool, default=False
        Let the log hold bodies and ids.
    ready : callable, optional
        Is given the address once the server answers.

    Raises
    ------
    ValueError
        If the address, the users file or the token cannot be used.
    """
    log, token = Log(), token_of()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a model to be replaced
    # On a public address any name is good, unless names are given.
    named = _is_local(host) or allowed_hosts
    hosts = _LOCAL_NAMES | {host.lower(), *allowed_hosts} if named else None
    settings = Settings(limits or Limits(), token, hosts, log_content)
    with ExitStack() as opened:
        opened.enter_context(log.heard())
        listening = opened.enter_context(bound_to(host, port))
        address = _address(listening)
        database = UserDatabase(users)
        try:
            service = Service(lambda: loaded(model, encoder, store), database, read_questions(questions), log)
        except BaseException:
            database.close()
            raise
        if token is None and not _is_local(host):
            log.write(
                "open", level="warning", reason="expected a token in MICROPREF_TOKEN on a public address, got none"
            )
        application = create_application(service, settings, log)
        sys.setswitchinterval(_SWITCH_S)
        _run(_signalled(server_of(application, settings.limits), service, log, address, ready), listening)


def server_of(application: Any, limits: Limits) -> Any:
    """What speaks HTTP for an application."""
    uvicorn = require("uvicorn", "Serving a model")
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=_BACKLOG,
        http=connection_class(limits),
    )
    return uvicorn.Server(config)


def _run(server: Any, listening: socket.socket) -> None:
    """Serve until a signal comes, which afterwards ends nothing."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has ended
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def _signalled(server: Any, service: Service, log: Log, address: str, ready: Callable[[str], None] | None) -> Any:
    """A server that says when it answers, and hears SIGHUP."""
    startup = server.startup

    async def start(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload)
        log.write("ready", address=address, model=service.name[:12], n_users=service.n_users, n_votes=service.n_votes)
        if ready is not None:
            ready(address)

    server.startup = start
    return server


def loaded(model: Path, encoder: Any, store: Path | None) -> tuple[Any, str]:
    """The model, and the checksum of its description, which names the tensors by theirs."""
    from micropref.reward import PreferenceModel

    description = model / "model.json"
    while True:
        name = _checksum(description)
        loaded = PreferenceModel.load(model, encoder, store=store)
        if _checksum(description) == name:  # it was not replaced meanwhile
            return loaded, name


def _checksum(path: Path) -> str:
    with suppress(FileNotFoundError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


@contextmanager
def bound_to(host: str, port: int) -> Any:
    """A socket at an address that no other process has; connections are refused until it listens."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host: expected an address of this machine, got {host!r} ({error})") from None
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(place)
        except OSError as error:
            raise ValueError(f"expected an address that is free, got {host}, port {port}: {error.strerror}") from None
        yield bound


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
