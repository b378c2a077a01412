"""Votes and users of `micropref serve`: killed, restarted, reloaded, forgotten, refused, and always the same."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from serve_cases import KINDS, LONG, SHORT, Process, fitted, running, vote, wait_until

from micropref._reward.serving import ServedModel, Vote
from micropref.serve._database import StorageError, UserDatabase
from micropref.serve._service import Service

GONE = (OSError, __import__("http.client").client.HTTPException)
PERSONAL = [kind for kind in KINDS if kind != "one"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two saved models."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("routed", "heads"):
        fitted(kind).save(folder / kind)
    return {kind: folder / kind for kind in ("routed", "heads")}


def many_votes(n: int, n_users: int) -> list[dict]:
    random = np.random.default_rng(0)
    found = []
    for i in range(n):
        one = vote(i, f"u{random.integers(n_users)}")
        found.append(one if random.random() < 0.5 else one | {"chosen": one["rejected"], "rejected": one["chosen"]})
    return found


def as_votes(bodies: list[dict]) -> list[Vote]:
    return [Vote(one["user"], one["prompt"], one["chosen"], one["rejected"]) for one in bodies]


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", PERSONAL)
def test_users_are_the_same_however_their_votes_are_cut(kind):
    """Votes together, one by one, and after a restart from what was written: the same users."""
    votes = as_votes(many_votes(60, 7))
    together, apart = ServedModel(fitted(kind)), ServedModel(fitted(kind))
    together.adopt(together.learn(votes))
    for one in votes:
        apart.adopt(apart.learn([one]))
    (users, values), (other_users, other_values) = together.numbers(), apart.numbers()
    assert users == other_users
    np.testing.assert_allclose(values, other_values, rtol=1e-3, atol=1e-4)
    again = apart.without_users()
    assert len(again) == 0
    again.restore(other_users, other_values, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert again.numbers()[1].tobytes() == other_values.tobytes()
    assert np.ptp(values) > 0


def test_learning_changes_nothing_until_it_is_adopted():
    model = fitted("routed")
    before = model.router._export()[0]["history"].copy()
    served = ServedModel(model)
    learned = served.learn(as_votes([vote(0)]))
    assert "ann" not in served
    served.adopt(learned)
    assert "ann" in served
    assert np.array_equal(model.router._export()[0]["history"], before)  # nor the model that was passed


def test_users_of_the_model_are_known_and_can_be_forgotten(tmp_path):
    from copy import copy

    model = copy(fitted("routed")).route([{"prompt": "q", "chosen": SHORT, "rejected": LONG, "group": "old"}])
    name = str(id(model))
    with running(model, tmp_path / "users.sqlite") as server:
        assert server.ask("GET", "/users/old").content["votes"] == 0
        margin = server.ask.margin("old")
        assert margin != pytest.approx(server.ask.margin("unknown"), abs=1e-6)
        server.ask("POST", "/votes", vote(0, "old"))
        assert server.ask.margin("old") != pytest.approx(margin, abs=1e-6)
        assert server.ask("DELETE", "/users/old").content == {"user": "old", "votes": 1}
    with running(model, tmp_path / "users.sqlite") as server:
        assert server.service.name == name
        assert server.ask("GET", "/users/old").status == 404
        assert server.ask.margin("old") == pytest.approx(server.ask.margin("unknown"), abs=1e-6)


# ------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("kind", PERSONAL)
def test_what_is_stored_is_what_a_replay_gives(kind, tmp_path):
    """Restarted, rewards are those before to the last bit; from the votes alone they are the same but for rounding."""
    path = tmp_path / "users.sqlite"
    model = fitted(kind)
    with running(model, path) as server:
        for one in many_votes(40, 4):
            assert server.ask("POST", "/votes", one).status == 200
        before = [server.ask.margin(f"u{k}") for k in range(4)]
        numbers = server.service.served.numbers()[1].tobytes()
    with running(model, path) as server:
        assert server.service.served.numbers()[1].tobytes() == numbers
        assert [server.ask.margin(f"u{k}") for k in range(4)] == before
        assert server.ask("POST", "/votes", many_votes(1, 4)[0]).content["new"] is False
    with sqlite3.connect(path) as file:
        file.execute("UPDATE meta SET value = 'another model'")
        file.execute("UPDATE users SET state = zeroblob(length(state))")
    with running(model, path) as server:
        np.testing.assert_allclose([server.ask.margin(f"u{k}") for k in range(4)], before, rtol=1e-4, atol=1e-5)


def test_a_restart_remembers_which_pairs_were_answered(tmp_path):
    body = {"user": "ann", "n": 200}
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        first = server.ask("POST", "/suggest", {"user": "ann"}).content["suggestions"][0]
        chosen = {"prompt": first["prompt"], "chosen": first["first"], "rejected": first["second"]}
        server.ask("POST", "/votes", {"user": "ann", **chosen})
        left = len(server.ask("POST", "/suggest", body).content["suggestions"])
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        found = server.ask("POST", "/suggest", body).content["suggestions"]
        assert len(found) == left
        assert first["index"] not in [one["index"] for one in found]


def test_a_deleted_user_leaves_no_trace(tmp_path):
    """Neither in the file, nor in its log, nor in memory, while others vote and after the end."""
    path = tmp_path / "users.sqlite"
    random = np.random.default_rng(0)

    def words(n: int) -> str:
        return " ".join("secretword" for _ in range(n))

    with running(fitted("routed"), path) as server:
        for i in range(120):
            n = int(random.integers(1, 60))
            server.ask("POST", "/votes", vote(i, f"o{i % 5}", prompt="plain " * n))
            server.ask("POST", "/votes", vote(i, f"secretuser{i % 9}", prompt=words(n), key=f"secretkey{i}"))
        for k in range(9):
            assert server.ask("DELETE", f"/users/secretuser{k}").status == 200
        server.ask("POST", "/votes", vote(1000, "o0"))
        for file in path.parent.iterdir():
            assert b"secret" not in file.read_bytes(), file.name
        assert not [user for user in server.service.served.numbers()[0] if "secret" in str(user)]
        assert server.ask("GET", "/users/o0").content["votes"] == 25
        assert "secret" not in server.log.getvalue()
    for file in path.parent.iterdir():
        assert b"secret" not in file.read_bytes(), file.name
    with running(fitted("routed"), path) as server:
        assert server.service.n_votes == 121


def test_a_killed_process_leaves_no_trace_of_whom_it_had_deleted(tmp_path):
    """Killed after the deletion and before the log was emptied."""
    (tmp_path / "after").mkdir()
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        server.ask("POST", "/votes", vote(0, "secretuser"))
        server.ask("POST", "/votes", vote(0, "o0"))
        server.service.database.forget("secretuser")
        for name in ("users.sqlite", "users.sqlite-wal"):
            shutil.copy(tmp_path / name, tmp_path / "after")
    after = tmp_path / "after"
    assert any(b"secretuser" in file.read_bytes() for file in after.iterdir())
    with running(fitted("routed"), after / "users.sqlite") as server:
        assert server.service.n_votes == 1
        for file in after.iterdir():
            assert b"secretuser" not in file.read_bytes(), file.name


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"opening .*folder: expected a users file that can be used now, got: unable"):
        UserDatabase(tmp_path / "folder")


def test_a_second_server_is_refused(tmp_path):
    first = UserDatabase(tmp_path / "users.sqlite")
    with pytest.raises(ValueError, match="expected a users file that no other server uses, got"):
        UserDatabase(tmp_path / "users.sqlite")
    first.close()
    UserDatabase(tmp_path / "users.sqlite").close()


def test_the_file_is_for_its_owner(tmp_path):
    UserDatabase(tmp_path / "users.sqlite").close()
    assert (tmp_path / "users.sqlite").stat().st_mode & 0o077 == 0


def test_other_files_are_refused_and_stay_as_they_are(tmp_path):
    text = tmp_path / "text"
    text.write_text("these are my notes, which are not users\n" * 100)
    with pytest.raises(ValueError, match="expected a users file of micropref serve"):
        UserDatabase(text)
    assert text.read_text().startswith("these are my notes")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(ValueError, match="another SQLite file"):
        UserDatabase(tmp_path / "other")
    with pytest.raises(ValueError, match="in a folder that exists"):
        UserDatabase(tmp_path / "nowhere" / "users")
    later = UserDatabase(tmp_path / "later")
    later._writing.execute("PRAGMA user_version = 9")
    later.close()
    with pytest.raises(ValueError, match="expected users in format 1, got format 9"):
        UserDatabase(tmp_path / "later")


def test_a_full_disk_acknowledges_nothing(tmp_path):
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        assert server.ask("POST", "/votes", vote(0)).status == 200
        margin = server.ask.margin("ann")
        writing = server.service.database._writing
        pages = writing.execute("PRAGMA page_count").fetchone()[0]
        writing.execute(f"PRAGMA max_page_count = {pages}")
        refused = 0
        for i in range(1, 40):
            found = server.ask("POST", "/votes", vote(i, prompt="long " * 2000))
            refused += found.status == 503
            if found.status == 503:
                assert "full" in found.content["detail"]
                assert found.headers["retry-after"] == "1"
        assert refused > 30
        stored = server.ask("GET", "/users/ann").content["votes"]
        assert stored == 40 - refused
        if refused == 39:
            assert server.ask.margin("ann") == margin
        writing.execute("PRAGMA max_page_count = 1000000")
        assert server.ask("POST", "/votes", vote(39, prompt="long " * 2000)).content["votes"] == stored + 1


def test_a_locked_file_acknowledges_nothing(tmp_path, monkeypatch):
    path = tmp_path / "users.sqlite"
    with running(fitted("routed"), path) as server:
        server.service.database._writing.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        found = server.ask("POST", "/votes", vote(0))
        assert found.status == 503
        assert "locked" in found.content["detail"]
        assert server.ask("DELETE", "/users/ann").status == 503
        assert server.ask("POST", "/score", {"items": [{"prompt": "p", "response": "a"}]}).status == 200
        other.execute("ROLLBACK")
        other.close()
        assert server.ask("POST", "/votes", vote(0)).content == {"votes": 1, "new": True}


def test_a_failure_between_learning_and_writing_changes_nothing(tmp_path, monkeypatch):
    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        server.ask("POST", "/votes", vote(0))
        before = server.ask.margin("ann")
        monkeypatch.setattr(UserDatabase, "add", lambda *_: (_ for _ in ()).throw(StorageError("expected, got")))
        assert server.ask("POST", "/votes", vote(1)).status == 503
        monkeypatch.undo()
        assert server.ask.margin("ann") == before
        assert server.ask("POST", "/votes", vote(1)).content == {"votes": 2, "new": True}


def test_a_write_that_fails_after_it_has_reached_the_disk_is_no_lost_vote(tmp_path, monkeypatch):
    """The client hears 503, and sends the vote again; memory takes what the disk has."""
    add = UserDatabase.add

    def late(self, *arguments):
        add(self, *arguments)
        raise StorageError("expected a disk that answers, got an error after the write")

    with running(fitted("routed"), tmp_path / "users.sqlite") as server:
        monkeypatch.setattr(UserDatabase, "add", late)
        assert server.ask("POST", "/votes", vote(0)).status == 503
        monkeypatch.undo()
        assert server.ask("POST", "/votes", vote(0)).content == {"votes": 1, "new": False}
        assert server.ask("POST", "/votes", vote(1)).content == {"votes": 2, "new": True}
        found = server.ask.margin("ann")
        assert server.service.n_votes == 2
        for i in range(2):
            server.ask("POST", "/votes", vote(i, "bob"))
        assert server.ask.margin("bob") == pytest.approx(found, abs=1e-5)


# -------------------------------------------------------------------------------------------------------- another model


def test_a_reload_replays_the_votes_and_drops_nothing(tmp_path, folders):
    """Votes, a user who is forgotten, and questions go on while another model learns what was said before."""
    shutil.copytree(folders["routed"], tmp_path / "model")
    with running(tmp_path / "model", tmp_path / "users.sqlite") as server:
        for one in many_votes(60, 5):
            server.ask("POST", "/votes", one)
        server.ask("POST", "/votes", vote(0, "gone"))
        fitted("heads").save(tmp_path / "model")
        replay = Service._replay
        reached, go_on = threading.Event(), threading.Event()

        def slowly(self, served, after):
            found = replay(self, served, after)
            if not after:
                reached.set()
                go_on.wait(20)
            return found

        Service._replay = slowly
        try:
            server.service.reload()
            assert reached.wait(20)
            assert server.ask("DELETE", "/users/gone").status == 200
            assert server.ask("POST", "/votes", vote(1, "gone", chosen="a b c")).content["votes"] == 1
            assert server.ask("POST", "/votes", vote(0, "new")).status == 200
            go_on.set()
            wait_until(lambda: server.service.n_reloads == 1)
        finally:
            Service._replay = replay
        expected = ServedModel(fitted("heads"))
        extra = [vote(1, "gone", chosen="a b c"), vote(0, "new")]
        expected.adopt(expected.learn(as_votes([*many_votes(60, 5), *extra])))
        users, values = expected.numbers()
        found = dict(zip(*server.service.served.numbers(), strict=True))
        assert set(found) == set(users)
        np.testing.assert_allclose([found[user] for user in users], values, rtol=1e-3, atol=1e-4)
        kept = server.service.served.numbers()[1].tobytes()
    with running(tmp_path / "model", tmp_path / "users.sqlite") as server:
        assert server.service.served.numbers()[1].tobytes() == kept


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(tmp_path, folders):
    shutil.copytree(folders["routed"], tmp_path / "model")
    with running(tmp_path / "model", tmp_path / "users.sqlite") as server:
        server.service.reload()
        wait_until(lambda: "the model is the same" in server.log.getvalue())
        (tmp_path / "model" / "model.json").write_text("{")
        server.service.reload()
        wait_until(lambda: server.service.n_failed_reloads == 1)
        assert server.ask("POST", "/score", {"items": [{"prompt": "p", "response": "a"}]}).status == 200


# ------------------------------------------------------------------------------------------------------------ processes


@pytest.mark.slow
def test_a_process_starts_reloads_and_ends(tmp_path, folders):
    shutil.copytree(folders["routed"], tmp_path / "model")
    process = Process(tmp_path / "model", tmp_path / "users.sqlite")
    try:
        assert process.ask("GET", "/healthz").content["status"] == "ok"
        process.ask("POST", "/votes", vote(0))
        second = subprocess.run(
            [*process.command], capture_output=True, text=True, timeout=60, check=False, env=os.environ
        )
        assert second.returncode == 1
        assert "expected a users file that no other server uses" in second.stderr
        assert "Traceback" not in second.stderr
        before = process.ask.margin("ann")
        fitted("heads").save(tmp_path / "model")
        process.signal(signal.SIGHUP)
        wait_until(lambda: process.events("reload"))
        assert process.ask.margin("ann") != pytest.approx(before, abs=1e-6)
    finally:
        code = process.kill(signal.SIGTERM)
    assert code == 0
    assert not (tmp_path / "users.sqlite-wal").exists()


@pytest.mark.slow
def test_an_address_that_is_taken_is_refused(tmp_path, folders):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, sentence in (
            (("--port", port), "expected an address that is free"),
            (("--port", "0", "--host", "no such host"), "--host: expected an address of this machine"),
        ):
            found = subprocess.run(
                ["micropref", "serve", str(folders["routed"]), "--users", str(tmp_path / "users.sqlite"), *options],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert found.returncode == 1
            assert sentence in found.stderr
            assert "Traceback" not in found.stderr


@pytest.mark.slow
def test_no_acknowledged_vote_is_lost_or_counted_twice(tmp_path, folders):
    """Killed at any instant while four clients vote; what was not answered is sent again, and some that was."""
    random = np.random.default_rng(0)
    acknowledged: set[str] = set()
    sent: set[str] = set()
    for round_ in range(4):
        process = Process(folders["routed"], tmp_path / "users.sqlite")

        def send(k: int, round_: int = round_, process: Process = process) -> None:
            for i in range(500):
                key = f"{round_}-{k}-{i}"
                sent.add(key)
                try:
                    if process.ask("POST", "/votes", vote(i, key=key)).status == 200:
                        acknowledged.add(key)
                except GONE:
                    return

        threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
        for one in threads:
            one.start()
        threading.Event().wait(random.uniform(0.2, 0.8))
        process.kill()
        for one in threads:
            one.join()
        with sqlite3.connect(tmp_path / "users.sqlite") as file:
            stored = {key for (key,) in file.execute("SELECT key FROM votes")}
        file.close()
        assert acknowledged <= stored <= sent
    assert len(acknowledged) > 20
    process = Process(folders["routed"], tmp_path / "users.sqlite")
    for key in sorted(sent - acknowledged) + sorted(acknowledged)[:20]:
        assert process.ask("POST", "/votes", vote(int(key.rpartition("-")[2]), key=key)).status == 200
    assert process.ask("GET", "/users/ann").content["votes"] == len(sent)
    assert process.kill(signal.SIGTERM) == 0
