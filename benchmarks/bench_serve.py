"""What does HTTP cost? Requests per second and their latency, beside the same calls in process; and the start.

    python benchmarks/bench_serve.py [--seconds 3] [--users 100000] [--output benchmarks/results/serve.csv]

A server process and a process of clients on this machine, 127.0.0.1 only, for so many seconds each: one request for one
response (/score), a ranking of 16, a vote, and a question out of 200 pairs, at 1, 16 and 64 clients that each wait for
an answer before they ask again; and, as a trainer asks, /score of 64 responses. Every figure of the server stands
beside the same calls by one thread in process, measured in turns so that a busy moment of the machine meets both.

Goals: at least 60 % of the throughput in process where requests are batched (16 clients and more, and batches of 64),
99 of 100 answers within 50 ms at 16 clients, and a start with 100 000 users within 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import fastapi
import numpy as np
import uvicorn

import micropref
from micropref import PreferenceModel, load_demo
from micropref.serve._database import UserDatabase
from micropref.serve._questions import read_questions

SHARE_GOAL, P99_GOAL_MS, START_GOAL_S = 0.6, 50.0, 5.0
CLIENTS = (1, 16, 64)
PROMPT, WISH = "How do I fall asleep more easily?", "Keep it short, please, just the essentials."
CALLS = ("/score", "/score of 64", "/rank of 16", "/votes", "/suggest")
BATCHED = 16


def body(call: str, client: int, i: int) -> dict:
    """What a client asks; no two texts are the same."""
    user = f"user {client}"
    texts = [f"Keep the same bedtime every night, and leave the phone outside. {client} {i} {j}" for j in range(64)]
    if call.startswith("/score"):
        shown = texts if call == "/score of 64" else texts[:1]
        return {"items": [{"prompt": PROMPT, "response": text, "context": WISH, "user": user} for text in shown]}
    if call == "/rank of 16":
        return {"prompt": PROMPT, "responses": texts[:16], "context": WISH, "user": user}
    if call == "/votes":
        key = f"{time.time_ns()}-{client}"
        return {"user": user, "prompt": PROMPT, "chosen": texts[0], "rejected": texts[1], "key": key}
    return {"user": user, "context": WISH}


async def ask_for(port: int, call: str, n_clients: int, seconds: float) -> tuple[list[float], int]:
    """Seconds of every request, and how many were refused."""
    times: list[float] = []
    refused = 0
    end = time.perf_counter() + seconds

    async def client(k: int) -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path = call.partition(" ")[0]
        for i in count():
            content = json.dumps(body(call, k, i)).encode()
            start = time.perf_counter()
            if start >= end:
                break
            writer.write(
                f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            times.append(time.perf_counter() - start)
            refused += b" 200 " not in head[:16]
        writer.close()

    await asyncio.gather(*(client(k) for k in range(n_clients)))
    return times, refused


def load(port: int, call: str, n_clients: int, seconds: float) -> tuple[list[float], int]:
    """The same, for a process of its own."""
    return asyncio.run(ask_for(port, call, n_clients, seconds))


def in_process(model: PreferenceModel, call: str) -> Callable[[int], object]:
    """The same call without a server, by one thread."""
    if call == "/suggest":
        own = read_questions()
        rows = {"prompt": own.prompts, "chosen": own.first, "rejected": own.second}
        return lambda i: model.suggest(rows, 1, f"user {i % 16}", WISH)
    if call == "/votes":

        def route(i: int) -> object:
            asked = body(call, i % 16, i)
            vote = {name: asked[name] for name in ("prompt", "chosen", "rejected")}
            return model.route([{**vote, "group": asked["user"]}])

        return route
    if call == "/rank of 16":

        def rank(i: int) -> object:
            asked = body(call, i % 16, i)
            return model.rank(asked["prompt"], asked["responses"], asked["context"], asked["user"])

        return rank

    def score(i: int) -> object:
        items = body(call, i % 16, i)["items"]
        return model.reward(*([item[name] for item in items] for name in ("prompt", "response", "context", "user")))

    return score


def per_second(work: Callable[[int], object], seconds: float) -> float:
    work(0)
    start = time.perf_counter()
    for i in count(1):
        work(i)
        if time.perf_counter() - start >= seconds:
            return i / (time.perf_counter() - start)
    raise AssertionError


class Server:
    """`micropref serve` in a process."""

    def __init__(self, model: Path, users: Path):
        command = [sys.executable, "-m", "micropref", "serve", str(model), "--users", str(users), "--port", "0"]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        self.seconds = time.perf_counter() - start

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0


def measure(folder: Path, seconds: float) -> list[dict]:
    """A row of each call and number of clients."""
    model = PreferenceModel.load(folder / "model")
    server = Server(folder / "model", folder / "users.sqlite")
    rows = []
    with get_context("spawn").Pool(1) as pool:
        for call in CALLS:
            pool.apply(load, (server.port, call, 4, 0.5))
            for n_clients in CLIENTS:
                work = in_process(model, call)
                before = per_second(work, seconds / 2)
                times, refused = pool.apply(load, (server.port, call, n_clients, seconds))
                alone = (before + per_second(work, seconds / 2)) / 2
                share = len(times) / seconds / alone
                p50, p99 = (np.quantile(times, [0.5, 0.99]) * 1e3).tolist()
                row = {"call": call, "clients": n_clients, "per_second": round(len(times) / seconds, 1)}
                row |= {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "refused": refused}
                row |= {"in_process_per_second": round(alone, 1), "share": round(share, 3)}
                goals = [share >= SHARE_GOAL] if n_clients >= BATCHED or "64" in call else []
                goals += [p99 <= P99_GOAL_MS] if n_clients == BATCHED and "64" not in call else []
                row["holds"] = all(goals) if goals else ""
                rows.append(row)
                print(row, flush=True)
    server.end()
    return rows


def start_with(folder: Path, n_users: int) -> dict:
    """Seconds from the command to the first answer, with so many users of ten votes each."""
    path = folder / "many.sqlite"
    server = Server(folder / "model", path)
    server.end()
    empty = server.seconds
    UserDatabase(path).close()
    random = np.random.default_rng(0)
    states = (-random.exponential(size=(n_users, 4))).astype(np.float32)
    with sqlite3.connect(path) as file:
        rows = ((k + 1, json.dumps(f"user {k}"), 10, states[k].tobytes()) for k in range(n_users))
        file.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
        votes = ((i % n_users + 1, str(i // n_users), int(random.integers(1 << 62))) for i in range(10 * n_users))
        file.executemany(
            "INSERT INTO votes (user, key, prompt, chosen, rejected, context, pair) "
            "VALUES (?, ?, 'How do I fall asleep?', 'Keep the same bedtime.', 'Read this first.', '', ?)",
            votes,
        )
    file.close()
    server = Server(folder / "model", path)
    server.end()
    row = {"call": f"start with {n_users} users", "start_s": round(server.seconds, 2), "empty_start_s": round(empty, 2)}
    row["holds"] = server.seconds <= START_GOAL_S
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = load_demo(n_annotators=120)
        PreferenceModel.fit(world.train, n_components=4, random_state=0).route(world.labelled).save(folder / "model")
        rows = [*measure(folder, arguments.seconds), start_with(folder, arguments.users)]
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    where = {"machine": machine, "python": platform.python_version(), "micropref": micropref.__version__}
    where |= {module.__name__: module.__version__ for module in (fastapi, uvicorn, np)}
    where["sqlite"] = sqlite3.sqlite_version
    if arguments.output:
        names = list(dict.fromkeys(name for row in rows for name in (*row, *where)))
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | where for row in rows)
    missed = [f"{row['call']}, {row.get('clients', '')} clients" for row in rows if row["holds"] is False]
    print(f"{machine}; missed: {'; '.join(missed) or 'nothing'}")


if __name__ == "__main__":
    main()
