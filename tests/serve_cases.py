"""Servers and models that several files of tests ask."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sklearn.exceptions import ConvergenceWarning

from micropref import HierarchicalBradleyTerry, PreferenceModel, load_demo
from micropref.embed import HashingEncoder
from micropref.serve._app import create_application
from micropref.serve._database import UserDatabase
from micropref.serve._logs import Log
from micropref.serve._questions import read_questions
from micropref.serve._server import bound_to, loaded, server_of
from micropref.serve._service import Service
from micropref.serve._settings import Settings

WISH = "Keep it short, please, just the essentials."
PROMPT, SHORT = "How do I fall asleep?", "Same bedtime every night. Phone out of the room."
LONG = (
    "First, keep the same bedtime every night, since habit helps. Then leave the phone in another room. Finally, read."
)
KINDS = ("routed", "heads", "one", "hierarchical", "acting")


@cache
def world() -> Any:
    return load_demo(n_annotators=60)


@cache
def fitted(kind: str) -> PreferenceModel:
    """A model of each kind that `PreferenceModel` can hold."""
    small: dict[str, Any] = {"encoder": HashingEncoder(64), "random_state": 0}
    if kind == "hierarchical":
        stage = HierarchicalBradleyTerry(2, rank=1, tau=0.7, alpha=0.01, n_directions=3, n_init=1, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how good the fit is changes no test
            return PreferenceModel.fit(world().train[:300], mixture=stage, encoder=HashingEncoder(64))
    if kind == "one":
        return PreferenceModel.fit(world().train, users="one", **small)
    if kind == "acting":
        table = world().labelled
        known = replace(table, group=list(table.extra["taste"]))
        return PreferenceModel.fit(known, n_components=2, interactions=True, n_init=1, **small)
    model = PreferenceModel.fit(world().train, n_components=4, n_init=2, balance=0.1, **small)
    return model if kind == "heads" else model.route(world().labelled)


def vote(i: int, user: Any = "ann", **more: Any) -> dict[str, Any]:
    """A vote for the short answer."""
    return {"user": user, "prompt": f"q{i}", "chosen": f"{SHORT} {i}", "rejected": f"{LONG} {i}", "key": f"k{i}"} | more


class Answer(NamedTuple):
    status: int
    content: Any
    headers: dict[str, str]


class Client:
    """Asks a server, one connection a request."""

    def __init__(self, port: int):
        self.port = port

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            sent = {"content-type": "application/json"} | {name.replace("_", "-"): one for name, one in headers.items()}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            is_json = found.get("content-type", "").startswith("application/json")
            return Answer(answer.status, json.loads(text) if is_json else text, found)
        finally:
            connection.close()

    def margin(self, user: Any, context: str = "") -> float:
        """How far the short answer is above the long one for a user."""
        items = [{"prompt": PROMPT, "response": r, "context": context, "user": user} for r in (SHORT, LONG)]
        first, second = self("POST", "/score", {"items": items}).content["rewards"]
        return first - second


class Running(NamedTuple):
    ask: Client
    service: Service
    log: io.StringIO


@contextmanager
def running(model: Any, users: Path, settings: Settings | None = None, questions: Any = None) -> Iterator[Running]:
    """A server in a thread of this process; the model is a model, or a folder of one."""
    stream = io.StringIO()
    log = Log(stream)
    load = (lambda: loaded(model, None, None)) if isinstance(model, Path) else (lambda: (model, str(id(model))))
    with bound_to("127.0.0.1", 0) as bound:
        service = Service(load, UserDatabase(users), read_questions(questions), log)
        application = create_application(service, settings or Settings(), log)
        server = server_of(application, (settings or Settings()).limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield Running(Client(bound.getsockname()[1]), service, stream)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class Process:
    """`micropref serve` in a process of its own, which can be killed."""

    def __init__(self, model: Path, users: Path, *options: str, **environment: str):
        self.command = [sys.executable, "-m", "micropref", "serve", str(model), "--users", str(users), "--port", "0"]
        self._run = subprocess.Popen(
            [*self.command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
        )
        self.log: list[dict[str, Any]] = []
        self.port = 0
        while not self.port:
            line = self._run.stderr.readline()
            assert line, (self._run.wait(), self.log)
            self._heard(line)
        self._listener = threading.Thread(target=lambda: [self._heard(line) for line in self._run.stderr], daemon=True)
        self._listener.start()
        self.ask = Client(self.port)

    def _heard(self, line: str) -> None:
        event = json.loads(line)
        self.log.append(event)
        if event["event"] == "ready":
            self.port = int(event["address"].rpartition(":")[2])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log if event["event"] == name]

    def kill(self, how: int = signal.SIGKILL) -> int:
        """End it, and wait for its end."""
        self._run.send_signal(how)
        code = self._run.wait(timeout=20)
        self._listener.join(5)
        self._run.stdout.close()
        self._run.stderr.close()
        return code

    def signal(self, what: int) -> None:
        self._run.send_signal(what)


def wait_until(is_so: Any, seconds: float = 30.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)
