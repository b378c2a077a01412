"""Folders of models among several processes: whatever they do at a time, a model is there, and it is one of theirs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from micropref import ContextRouter, MixtureBradleyTerry, load, save
from micropref._estimator import model_folder as _model_folder
from micropref._estimator.model_folder import ModelFileError, read_folder, write_folder

TRIALS = 40
WRITERS = 2
N = 60

rng = np.random.default_rng(3)
D = rng.normal(size=(N, 5))


@pytest.fixture(scope="module")
def routers() -> list[ContextRouter]:
    """Routers that differ in heads and in the histories of their users."""
    made = []
    for seed in range(WRITERS):
        heads = MixtureBradleyTerry(2, n_init=1, random_state=seed).fit(D * (seed + 1), groups=np.arange(N) // 3)
        made.append(ContextRouter(heads).partial_fit(D, groups=np.arange(N) % (7 + seed)))
    return made


def state(router: ContextRouter) -> bytes:
    """What is to come back: heads and the evidence of all users."""
    users, evidence = router.history_.export()
    return router.mixture_.coef_.tobytes() + repr(users).encode() + evidence.tobytes()


def forked(work, *arguments) -> int:
    """The process that does some work; it ends with 0 if nothing was raised."""
    process = os.fork()
    if process:
        return process
    result = 1
    try:
        work(*arguments)
        result = 0
    finally:
        os._exit(result)


def ends(processes: Iterable[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_two_files(folder: Path) -> bool:
    return [Path(name).suffix for name in names(folder)] == [".json", ".safetensors"]


# ------------------------------------------------------------------------------------------------ several at a time


def test_simultaneous_saves_lose_no_model(routers, tmp_path):
    """Nor does a reader beside them ever fail, or see anything but one of the models."""
    known = {state(router) for router in routers}
    save(routers[0], tmp_path)

    def read_until_told():
        n_read = 0
        while not (tmp_path.parent / "stop").exists():
            assert state(load(tmp_path)) in known
            n_read += 1
        assert n_read > TRIALS

    reader = forked(read_until_told)
    try:
        for _ in range(TRIALS):
            assert ends([forked(save, router, tmp_path) for router in routers]) == [0] * WRITERS
            assert state(load(tmp_path)) in known
            assert is_two_files(tmp_path)
    finally:
        (tmp_path.parent / "stop").touch()
        (failed,) = ends([reader])
    assert failed == 0


def test_readers_keep_up_with_a_writer_that_never_rests(routers, tmp_path):
    known = {state(router) for router in routers}
    save(routers[0], tmp_path)

    def write():
        for i in range(150):
            save(routers[i % WRITERS], tmp_path)

    writer, seen = forked(write), set()
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        seen.add(state(load(tmp_path)))
    assert seen == known


def test_two_threads_save_into_one_folder(tmp_path):
    errors = []

    def write(value):
        try:
            for i in range(20):
                write_folder(tmp_path, {"a": np.full(3, value + i)}, {"estimator": "none"})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(1000.0 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert read_folder(tmp_path)[0]["a"][0] in {1000.0 * i + 19 for i in range(4)}
    assert is_two_files(tmp_path)


def test_a_save_says_for_which_lock_it_waited(routers, tmp_path, monkeypatch):
    monkeypatch.setattr(_model_folder, "_PATIENCE_S", 0.1)
    save(routers[0], tmp_path)
    with _model_folder.briefly_locked(tmp_path / "model.lock", 1):
        with pytest.raises(TimeoutError, match=r"expected the lock .*model\.lock to be free within 0\.1 s, got one"):
            save(routers[1], tmp_path)
        assert state(load(tmp_path)) == state(routers[0])
    save(routers[1], tmp_path)


def test_files_that_another_program_put_there_stay(routers, tmp_path):
    save(routers[0], tmp_path)
    mine = ["tensors-0123456789abcdef.safetensors", "tensors-of-mine.safetensors", ".mine.7.part", "model.json.7.part"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    save(routers[1], tmp_path)
    assert set(mine) < set(names(tmp_path))
    assert len(names(tmp_path)) == len(mine) + 2


# ------------------------------------------------------------------------------------------------------- lost races


def overtaken(monkeypatch, folder: Path, models: Iterable[float]) -> list[float]:
    """Let another writer save a model between every two reads of a reader; the models that it has saved."""
    saved, read, rest = [], _model_folder._checked_tensors, iter(models)

    def late(path, checksum):
        value = next(rest, None)
        if value is not None:
            write_folder(folder, {"a": np.array([value])}, {})
            saved.append(value)
        return read(path, checksum)

    monkeypatch.setattr(_model_folder, "_checked_tensors", late)
    return saved


def test_a_reader_that_was_overtaken_reads_again(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": np.array([0.0])}, {})
    saved = overtaken(monkeypatch, tmp_path, [1.0, 2.0, 3.0])
    assert read_folder(tmp_path)[0]["a"] == [3.0]
    assert saved == [1.0, 2.0, 3.0]


def test_the_same_description_may_come_back(tmp_path, monkeypatch):
    """The text is what it was before, but it was written anew."""
    write_folder(tmp_path, {"a": np.array([0.0])}, {})
    read, calls = _model_folder._checked_tensors, []

    def late(path, checksum):
        calls.append(path)
        if len(calls) == 1:
            write_folder(tmp_path, {"a": np.array([1.0])}, {})
            try:
                return read(path, checksum)
            finally:
                write_folder(tmp_path, {"a": np.array([0.0])}, {})
        return read(path, checksum)

    monkeypatch.setattr(_model_folder, "_checked_tensors", late)
    assert read_folder(tmp_path)[0]["a"] == [0.0]
    assert len(calls) == 2


def test_a_reader_does_not_run_for_ever(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": np.array([0.0])}, {})
    saved = overtaken(monkeypatch, tmp_path, iter(range(1, 10_000)))
    with pytest.raises(ModelFileError, match="got no such file: it is missing"):
        read_folder(tmp_path)
    assert len(saved) == _model_folder._MAX_READS


def test_tensors_that_are_gone_are_looked_for_once(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": np.array([0.0])}, {})
    next(tmp_path.glob("*.safetensors")).unlink()
    calls, read = [], _model_folder._checked_tensors
    monkeypatch.setattr(_model_folder, "_checked_tensors", lambda *given: calls.append(given) or read(*given))
    with pytest.raises(ModelFileError, match="got no such file: it is missing"):
        read_folder(tmp_path)
    assert len(calls) == 1


# ------------------------------------------------------------------------------------------------------------ crashes

# Ends a process by SIGKILL before its n-th change of a file, as a machine would that is switched off there.
KILLED = """
import os, signal, sys
import numpy as np
from micropref._estimator.model_folder import write_folder
calls, at, folder = 0, int(sys.argv[1]), sys.argv[2]

def watched(change):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **kwargs)
    return wrapper

for name in ("open", "fsync", "replace", "unlink", "close"):
    setattr(os, name, watched(getattr(os, name)))
from pathlib import Path
Path.unlink, Path.write_bytes = watched(Path.unlink), watched(Path.write_bytes)
write_folder(folder, {"a": np.array([1.0])}, {})
"""


def killed(at: int, folder: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", KILLED, str(at), str(folder)], capture_output=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_a_save_may_be_killed_at_every_step(tmp_path):
    """The model is the old one or the new one, and the next save leaves nothing of the killed one."""
    after, at = [], 1
    while True:
        folder = tmp_path / f"{at}"
        write_folder(folder, {"a": np.array([0.0])}, {})
        if not killed(at, folder):
            break
        after.append(float(read_folder(folder)[0]["a"][0]))
        left = names(folder)
        write_folder(folder, {"a": np.array([2.0])}, {})
        assert read_folder(folder)[0]["a"] == [2.0]
        assert is_two_files(folder), left
        at += 1
    assert after == sorted(after)
    assert set(after) == {0.0, 1.0}
    assert len(after) > 10


def test_a_first_save_may_be_killed_at_every_step(tmp_path):
    at = 1
    while killed(at, folder := tmp_path / f"{at}"):
        with suppress(FileNotFoundError):
            assert read_folder(folder)[0]["a"] == [1.0]
        write_folder(folder, {"a": np.array([2.0])}, {})
        assert is_two_files(folder)
        at += 1
    assert at > 10


@pytest.mark.parametrize("what", ["model.json", "tensors-0123456789abcdef.safetensors"])
def test_part_files_of_killed_saves_go(routers, tmp_path, what):
    save(routers[0], tmp_path)
    (tmp_path / f".{what}.4711.part").write_bytes(b'{"half": ')
    assert state(load(tmp_path)) == state(routers[0])
    save(routers[1], tmp_path)
    assert is_two_files(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "../notes.txt", "model.json", "tensors-of-mine.safetensors\n\nx", "{}", "\xff"]
)
def test_a_lock_file_of_a_killed_save_names_no_other_files(routers, tmp_path, content):
    folder = tmp_path / "model"
    save(routers[0], folder)
    (tmp_path / "notes.txt").write_text("mine")
    (folder / "tensors-of-mine.safetensors").write_text("mine")
    (folder / "model.lock").write_text(content, encoding="latin-1")
    save(routers[1], folder)
    (folder / "tensors-of-mine.safetensors").unlink()
    assert is_two_files(folder)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_killed_save_of_the_same_model(routers, tmp_path, monkeypatch):
    """Its lock file names the tensors of the current model, which stay whatever becomes of the next save."""
    save(routers[0], tmp_path)
    (tmp_path / "model.lock").write_text(next(tmp_path.glob("*.safetensors")).name)

    def full_disk(source, target):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save(routers[1], tmp_path)
    assert state(load(tmp_path)) == state(routers[0])
    assert is_two_files(tmp_path)


def test_a_damaged_model_can_be_replaced(routers, tmp_path):
    save(routers[0], tmp_path)
    (tmp_path / "model.json").write_text("{")
    save(routers[1], tmp_path)
    assert state(load(tmp_path)) == state(routers[1])


def test_a_lock_of_a_killed_save_does_not_block(routers, tmp_path):
    code = f"""
        import time
        from micropref._estimator import model_folder as _model_folder
        def slow(*_):
            print("locked", flush=True)
            time.sleep(60)
        _model_folder._remove_leftovers = slow
        _model_folder.write_folder({str(tmp_path)!r}, {{}}, {{}})
    """
    save(routers[0], tmp_path)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        process.kill()
    assert (tmp_path / "model.lock").exists()
    assert state(load(tmp_path)) == state(routers[0])
    started = time.monotonic()
    save(routers[1], tmp_path)
    assert time.monotonic() - started < 5
    assert is_two_files(tmp_path)


# ---------------------------------------------------------------------------------------------------------- read-only


def test_a_read_only_folder_is_loaded_without_a_lock(routers, tmp_path, monkeypatch):
    save(routers[0], tmp_path)
    for path in (*tmp_path.iterdir(), tmp_path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    opened = []
    monkeypatch.setattr(_model_folder, "briefly_locked", lambda *_: opened.append(1))
    try:
        assert state(load(tmp_path)) == state(routers[0])
        assert opened == []
        monkeypatch.undo()
        if os.geteuid():  # the superuser may write everywhere
            with pytest.raises(PermissionError):
                save(routers[1], tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert is_two_files(tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["version"] == 1
