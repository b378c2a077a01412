"""The store when it is stopped at any instant: whole shards or none, little work lost, nothing wrong."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import threading

import numpy as np
import pytest
from test_store import TEXTS, Counting, expected

from micropref.embed import EmbeddingStore
from micropref.embed._index import Index
from micropref.embed._progress import EmbeddingProgress, Interruption

_SHARD = 16
_CALLS = ("open", "write", "fsync", "close", "replace")
_DIED = 77


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def run_until(step: int, work, halves: bool) -> bool:
    """Run `work` in a process of its own that dies at the given step; whether it did.

    Steps are the system calls of writing a shard and the statements that SQLite gets. `halves` writes half of the bytes
    before dying in a write.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _DIED
    code = 1
    try:
        count = 0

        def tick() -> bool:
            nonlocal count
            count += 1
            return count > step

        def dying(call):
            original = getattr(os, call)

            def wrapped(*given, **more):
                if tick():
                    if call == "write" and halves:
                        original(given[0], bytes(given[1])[: len(given[1]) // 2])
                    os._exit(_DIED)
                return original(*given, **more)

            return wrapped

        for call in _CALLS:
            setattr(os, call, dying(call))
        connect = Index.__init__

        def watched(self, *given, **more):
            connect(self, *given, **more)
            self._db.set_trace_callback(lambda _: os._exit(_DIED) if tick() else None)

        Index.__init__ = watched
        work()
        code = 0
    finally:
        os._exit(code)
    return False


@pytest.mark.parametrize("halves", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_every_step_of_filling(path, halves):
    """Steps never end before the work does: the last run is the one that is not killed."""
    for step in range(400):
        log = path.parent / f"log{step}{halves}"
        folder = path.parent / f"store{step}{halves}"

        def work(folder=folder, log=log):
            encoder = Counting()
            right = encoder.encode

            def logged(texts):
                with io.open(log, "a") as file:  # noqa: UP020  builtins' open is not one of the counted calls
                    file.write("x" * len(texts))
                return right(texts)

            encoder.encode = logged
            EmbeddingStore(folder, encoder, shard_size=32).encode(TEXTS)

        died = run_until(step, work, halves)
        if folder.is_dir():
            before = log.stat().st_size if log.exists() else 0
            with EmbeddingStore(folder, Counting(), shard_size=_SHARD) as again:
                np.testing.assert_array_equal(again.encode(TEXTS), expected(TEXTS))
                assert before + len(again.encoder.asked) <= 70 + 2 * 32
                assert again.verify() == []
            assert not list(folder.glob("*.tmp"))
            assert not list(folder.glob("*.damaged"))
        if not died:
            break
    assert not died
    assert step > 40  # so many steps there are, or the wrappers count nothing


@pytest.mark.parametrize("size", [16, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_at_every_step_of_compacting(tmp_path, size):
    texts = TEXTS[:40]
    for start in range(0, 40, 8):
        with EmbeddingStore(tmp_path / "store", Counting()) as store:
            store.add(texts[start : start + 8])
    for step in range(400):
        folder = tmp_path / f"store{step}"
        shutil.copytree(tmp_path / "store", folder)
        died = run_until(step, lambda folder=folder: EmbeddingStore(folder, shard_size=size).compact(), halves=True)
        with EmbeddingStore(folder, shard_size=size) as again:
            np.testing.assert_array_equal(again.lookup(texts), expected(texts))
            if step % 7 == 0 or not died:
                again.compact()
                np.testing.assert_array_equal(again.lookup(texts), expected(texts))
                assert again.info()["n_shards"] <= 4
                assert (again.verify(), len(again)) == ([], 40)
        if not died:
            break
    assert not died
    assert step > 30


@pytest.mark.parametrize("call", ["os.write", "os.fsync", "os.replace"])
@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_disk_that_is_full_at_any_call_leaves_the_store_usable(path, call, when, monkeypatch):
    store, count = EmbeddingStore(path, Counting(), shard_size=_SHARD), 0
    original = getattr(os, call[3:])

    def full(*given):
        nonlocal count
        count += 1
        if count > when:
            raise OSError(28, "No space left on device")
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(OSError, match="No space"):
            store.encode(TEXTS)
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert list(path.glob("*.tmp")) == []
    assert store.verify() == []


def test_a_disk_that_is_full_for_the_index(path):
    """SQLite's own limit stands for the disk's; the shards that it has no room for are taken in later."""
    store = EmbeddingStore(path, Counting(), shard_size=_SHARD)
    store._folder._index._db.execute("PRAGMA max_page_count=4")
    texts = [f"{i}" for i in range(1000)]
    with pytest.raises(Exception, match="full"):
        store.encode(texts)
    store.close()
    n_shards = len(list(path.glob("*.safetensors")))
    again = EmbeddingStore(path, Counting(), shard_size=_SHARD)
    assert len(again) == n_shards * _SHARD > 0
    np.testing.assert_array_equal(again.encode(texts), expected(texts))


@pytest.fixture
def slowly(monkeypatch):
    """No call of an encoder is so quick that it gets more texts the next time."""
    monkeypatch.setattr("micropref.embed._filling._QUICK_SECONDS", 0.0)


def interrupting(store, after: int):
    """Make the encoder press Ctrl-C when it is asked for the given time."""
    right, calls = store.encoder.encode, [0]

    def encode(texts):
        calls[0] += 1
        if calls[0] == after:
            os.kill(os.getpid(), signal.SIGINT)
        return right(texts)

    store.encoder.encode = encode


def test_ctrl_c_keeps_what_was_computed_and_says_how_to_go_on(path, capsys, slowly):
    store = EmbeddingStore(path, Counting(), shard_size=100)
    store.encoder.batch_size = 1  # sixteen at once
    interrupting(store, after=3)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after 48 texts, kept in .*resumes from there"):
        store.encode([f"{i:03}" for i in range(100)])
    assert "Ctrl-C again to stop at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = EmbeddingStore(path, Counting())
    assert len(again) == 48
    assert again.add(f"{i:03}" for i in range(100)) == 52


def test_ctrl_c_twice_stops_at_once_and_keeps_whole_batches(path, slowly):
    store = EmbeddingStore(path, Counting(), shard_size=100)
    store.encoder.batch_size = 1
    right, calls = store.encoder.encode, [0]

    def encode(texts):
        calls[0] += 1
        if calls[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return right(texts)

    store.encoder.encode = encode
    with pytest.raises(KeyboardInterrupt):
        store.encode([f"{i:03}" for i in range(100)])
    assert len(EmbeddingStore(path)) == 32


def test_a_quick_encoder_gets_more_texts_at_once(path):
    store, sizes = EmbeddingStore(path, Counting(), shard_size=1000), []
    store.encoder.batch_size = 1
    right = store.encoder.encode

    def encode(texts):
        sizes.append(len(texts))
        return right(texts)

    store.encoder.encode = encode
    store.encode([f"{i}" for i in range(1000)])
    assert sizes == [16, 32, 64, 128, 256, 504]


def test_ctrl_c_while_the_source_is_read(path):
    store = EmbeddingStore(path, Counting(), shard_size=4)

    def source():
        yield "one"
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="stopped after"):
        store.add(source())


def test_a_program_that_hears_ctrl_c_itself_goes_on_doing_so(path):
    heard = []
    old = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        store = EmbeddingStore(path, Counting(), shard_size=16)
        interrupting(store, after=2)
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    finally:
        signal.signal(signal.SIGINT, old)
    assert heard == [1]


def test_other_threads_hear_no_signals():
    def body():
        with Interruption("never"):
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_progress_shows_rate_remaining_time_and_truncations(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("micropref.embed._progress.time.monotonic", lambda: clock[0])
    progress = EmbeddingProgress(1000, shown=False)
    assert progress.remaining is None
    progress.looked_at(500, 400, 4000)  # so the second half is expected to have 4 000 characters as well
    clock[0] += 10
    progress.embedded(100, 2000, 3)
    assert progress.rate == pytest.approx(10)
    assert progress.remaining == pytest.approx(30)  # 2 000 of 8 000 characters took 10 s
    assert progress.summary() == "100 embedded, 10 texts/s, 3 truncated, 30 s left"
    clock[0] += 100_000
    assert "h" in progress.summary()
    assert EmbeddingProgress(None, shown=False).remaining is None


def test_a_bar_is_drawn_for_who_watches_and_nobody_else(capsys):
    for shown in (True, False, None):
        with EmbeddingProgress(10, shown) as progress:
            progress.looked_at(10, 10, 100)
            progress.embedded(5, 50, 1)
        assert ("5 embedded" in capsys.readouterr().err) == bool(shown)


def test_the_bar_is_there_from_the_first_batch_and_not_where_nothing_is_missing(capsys):
    with EmbeddingProgress(10, shown=True) as progress:
        progress.looked_at(10, 0, 0)
        assert capsys.readouterr().err == ""
    with EmbeddingProgress(10, shown=True) as progress:
        progress.looked_at(10, 10, 100)
        assert "Embedding" in capsys.readouterr().err
        progress.embedded(1, 10, 0)


def test_a_writer_waits_for_the_other(path):
    """While one process holds the lock, another one's writing ends only after it."""
    store = EmbeddingStore(path, Counting(), shard_size=_SHARD)
    order = []
    with store._folder.locked():
        other = threading.Thread(target=lambda: (EmbeddingStore(path, Counting()).encode(["a"]), order.append("other")))
        other.start()
        other.join(0.3)
        order.append("first")
    other.join()
    assert order == ["first", "other"]


def test_two_processes_fill_one_store(path):
    """Both write the same texts at once, each sees the other's shards, and all are right."""
    children = []
    for number in range(2):
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                store = EmbeddingStore(path, Counting(), shard_size=5)
                texts = TEXTS if number else TEXTS[::-1]
                code = int(not np.array_equal(store.encode(texts), expected(texts)))
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    store = EmbeddingStore(path)
    np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
    assert (store.verify(), len(store)) == ([], 70)
