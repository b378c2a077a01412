"""What a store promises under faults of its index, its disk and its lock, and among processes that compact at once."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from test_store import TEXTS, Counting, expected, filled

from micropref.embed import EmbeddingStore, _indexed
from micropref.embed._index import Index
from micropref.embed._index_faults import DamagedIndexError, faults_named

N_COMPACTIONS = 40
N_OTHER_BYTES = 250  # in each of four parts
# Each takes every fourth byte of the page. CI, which has other things to do, takes the first.
PARTS = range(1 if os.environ.get("CI") else 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def forked(work) -> int:
    """The process that does some work without a warning; it ends with 0 if nothing was raised."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        warnings.simplefilter("error")
        work()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
    finally:
        os._exit(code)


def codes(children) -> set[int]:
    return {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}


# ---------------------------------------------------------------------------------------------------- a damaged index


class Flipped:
    """A small store whose index is put back, with one byte changed, as often as it is asked for."""

    def __init__(self, path):
        self.path = path
        self.texts = [f"text {i}" for i in range(60)]
        with EmbeddingStore(path, Counting(), shard_size=30) as store:
            store.encode(self.texts)
        self.blob = (path / "index.sqlite").read_bytes()
        self.vectors = expected(self.texts)

    def healed(self, at: int, bit: int) -> str | None:
        """What is wrong after a flip; None where everything is as it was, with and without an encoder."""
        for file in self.path.glob("index.sqlite*"):
            file.unlink()
        blob = bytearray(self.blob)
        blob[at] ^= bit
        (self.path / "index.sqlite").write_bytes(blob)
        try:
            with EmbeddingStore(self.path) as reader:
                if not np.array_equal(reader.lookup(self.texts), self.vectors):
                    return "wrong vectors"
            with EmbeddingStore(self.path, Counting()) as store:
                if not np.array_equal(store.encode(self.texts), self.vectors) or store.encoder.asked:
                    return f"{len(store.encoder.asked)} texts embedded again"
                store.verify()  # whatever a read does not touch is healed here
                if store.verify() or len(store) != len(self.texts) or store.info()["n_damaged"]:
                    return f"{store.verify()}, {store.info()}"
        except Exception as error:
            return repr(error)
        return None


def quick_syncs(monkeypatch) -> None:
    """A test of damage waits for no disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    connected = Index._connected

    def unsynced(self):
        database = connected(self)
        database.execute("PRAGMA synchronous=OFF")
        return database

    monkeypatch.setattr(Index, "_connected", unsynced)


# Write version, read version, page size, schema version, text encoding, user version, the first cells of the schema.
HEADER = (16, 18, 19, 20, 28, 36, 43, 47, 59, 63, 100, 103, 105)


@pytest.mark.filterwarnings("error")
def test_one_bit_of_the_index_is_healed(path, monkeypatch):
    """The bytes that made every later open fail, and words of the schema and names of shards."""
    quick_syncs(monkeypatch)
    flipped = Flipped(path)
    words = [flipped.blob.index(word) for word in (b"CREATE TABLE", b"AUTOINCREMENT", b"vectors", b"safetensors")]
    faults = {at: flipped.healed(at, 1 << at % 8) for at in (*HEADER, *words)}
    assert not {at: fault for at, fault in faults.items() if fault}


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("part", PARTS)
def test_every_byte_of_the_first_page_and_a_thousand_others_are_healed(path, monkeypatch, part):
    quick_syncs(monkeypatch)
    flipped, draw = Flipped(path), random.Random(part)
    places = [*range(part, 4096, 4), *(draw.randrange(4096, len(flipped.blob)) for _ in range(N_OTHER_BYTES))]
    faults = {at: flipped.healed(at, 1 << draw.randrange(8)) for at in places}
    assert len(places) == 1024 + N_OTHER_BYTES
    assert not {at: fault for at, fault in faults.items() if fault}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE shards SET name = '../../other' WHERE id = 1",
        "UPDATE shards SET name = CAST(x'ff00' AS TEXT) WHERE id = 1",
        "UPDATE shards SET name = 5 WHERE id = 1",
        "UPDATE vectors SET shard = 77",
        "UPDATE vectors SET shard = NULL",
        "UPDATE vectors SET row = 'text'",
        "DELETE FROM vectors WHERE row = 3",
        "UPDATE vectors SET key = x'00' WHERE row = 1 AND shard = 1",
        "ALTER TABLE shards RENAME COLUMN truncated TO t",
        "DROP TABLE vectors",
    ],
)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_index_that_says_something_else_is_healed(path, damage, read_only):
    filled(path).close()
    database = sqlite3.connect(path / "index.sqlite", isolation_level=None)
    database.execute(damage)
    database.close()
    with EmbeddingStore(path, read_only=read_only) as store:
        np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
    with EmbeddingStore(path, Counting()) as store:
        assert store.missing(TEXTS) == []
        store.verify()
        assert (store.verify(), len(store)) == ([], 70)
    assert not list(path.parent.glob("other*"))


@pytest.mark.parametrize(
    "change", ["ALTER TABLE shards ADD COLUMN more", "CREATE TABLE other (x)", "DROP TABLE vectors"]
)
def test_other_tables_than_those_of_an_index_are_damage(path, change):
    filled(path).close()
    database = sqlite3.connect(path / "index.sqlite", isolation_level=None)
    database.execute(change)
    database.close()
    for writable in (True, False):
        with pytest.raises(DamagedIndexError, match="expected the tables of an index"):
            Index(path / "index.sqlite", writable=writable)


def test_what_is_poured_is_counted_and_written_under_one_lock(path, monkeypatch):
    """Between the two, another process could pour the same shards."""
    many_small_shards(path)
    store, held = EmbeddingStore(path, shard_size=20), []
    append = store._folder.append

    def appended(*given, **more):
        held.append(getattr(store._folder._held, "depth", 0))
        return append(*given, **more)

    monkeypatch.setattr(store._folder, "append", appended)
    store.compact()
    assert set(held) == {1}


def test_verify_says_what_was_wrong_and_heals_it(path):
    filled(path).close()
    database = sqlite3.connect(path / "index.sqlite", isolation_level=None)
    database.execute("DELETE FROM vectors WHERE row = 3")
    database.close()
    store = EmbeddingStore(path, Counting())
    (fault,) = store.verify()
    assert "index.sqlite is damaged: it lacks the places of some vectors of" in fault
    assert fault.endswith("; it was rebuilt from the shards")
    assert store.verify() == []


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (sqlite3.SQLITE_FULL, OSError, "expected room for the index"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, OSError, "full disk"),
        (sqlite3.SQLITE_BUSY, TimeoutError, "another process keeps locked"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, TimeoutError, "another process keeps locked"),
        (sqlite3.SQLITE_IOERR_LOCK, TimeoutError, "another process keeps locked"),
        (sqlite3.SQLITE_READONLY, DamagedIndexError, "damaged"),
        (sqlite3.SQLITE_CORRUPT, DamagedIndexError, "damaged"),
        (sqlite3.SQLITE_CANTOPEN, DamagedIndexError, "damaged"),
        (sqlite3.SQLITE_IOERR_READ, DamagedIndexError, "damaged"),
        (None, DamagedIndexError, "damaged"),
    ],
)
def test_a_full_disk_and_a_lock_are_known_by_their_codes(tmp_path, code, kind, message):
    error = sqlite3.OperationalError("database or disk is full, database is locked")
    if code is not None:
        error.sqlite_errorcode = code
    with pytest.raises(kind, match=message) as raised, faults_named(tmp_path / "index.sqlite"):
        raise error
    assert type(raised.value) is kind
    assert str(tmp_path / "index.sqlite") in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_system_does_not_make_is_no_damage(tmp_path):
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    with pytest.raises(FileNotFoundError), faults_named(tmp_path / "nowhere" / "index.sqlite"):
        raise error


# ------------------------------------------------------------------------------------------------------- a full disk


@pytest.mark.parametrize("index", ["current", "damaged", "missing"])
@pytest.mark.parametrize("no_room_for", ["lock", "index"])
def test_a_store_on_a_full_disk_is_read(path, monkeypatch, index, no_room_for):
    filled(path).close()
    (path / "lock").unlink()
    if index == "missing":
        (path / "index.sqlite").unlink()
    elif index == "damaged":
        (path / "index.sqlite").write_bytes(b"no database")
    files = {file.name for file in path.glob("*.safetensors")}
    opened, connected = os.open, Index._connected

    def full(name, *given, **more):
        if str(name).endswith("lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))
        return opened(name, *given, **more)

    def full_index(self):
        if self.writable:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error
        return connected(self)

    with monkeypatch.context() as patch:
        if no_room_for == "lock":
            patch.setattr("os.open", full)
        else:
            patch.setattr(Index, "_connected", full_index)
        with pytest.warns(UserWarning, match="the disk of the store .* is full; stored vectors can be read") as said:
            store = EmbeddingStore(path, Counting())
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
        for adding in (lambda: store.encode(["new"]), store.compact, lambda: store.merge(path)):
            with pytest.raises(OSError, match=f"{path}") as raised:
                adding()
            assert raised.value.errno == errno.ENOSPC
        assert store.verify() == []
        assert len(said) == 1
        assert {file.name for file in path.glob("*.safetensors")} == files
    np.testing.assert_array_equal(store.encode(["new"]), expected(["new"]))  # there is room again
    assert (store.verify(), len(EmbeddingStore(path))) == ([], 71)


def test_a_shard_that_does_not_fit_is_named_by_its_store(path, monkeypatch):
    store = filled(path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="expected room for 1 vector more, got a full disk") as error:
        store.encode(["new"])
    assert error.value.filename == str(path)
    assert error.value.__cause__.filename.endswith(".safetensors")


# --------------------------------------------------------------------------------------------------------- the lock


def stopped_holder(path) -> int:
    """A process that holds the lock and is stopped."""
    reader, writer = os.pipe()

    def hold():
        with EmbeddingStore(path)._folder.locked():
            os.write(writer, b"x")
            time.sleep(600)

    child = forked(hold)
    os.read(reader, 1)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    return child


def test_a_stopped_holder_of_the_lock_is_named_and_the_wait_ends(path, monkeypatch):
    filled(path).close()
    monkeypatch.setattr("micropref._support.files._SILENT_S", 0.2)
    monkeypatch.setattr(_indexed, "_PATIENCE_S", 1.0)
    child = stopped_holder(path)
    try:
        holder = rf"the process {child} \(it is stopped\)"
        with (
            pytest.warns(UserWarning, match=rf"waiting for the lock {path}/lock, which {holder} holds") as said,
            pytest.raises(TimeoutError, match=rf"lock {path}/lock to be free within 1 s, got .* {holder} .* end it"),
        ):
            EmbeddingStore(path)
        assert said[0].filename == __file__
        with EmbeddingStore(path, read_only=True) as store:  # waits for nothing
            np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    np.testing.assert_array_equal(EmbeddingStore(path).lookup(TEXTS), expected(TEXTS))


def test_a_holder_that_works_is_waited_for(path, monkeypatch):
    """Its signs of life, or another holder, begin the wait anew."""
    filled(path).close()
    monkeypatch.setattr(_indexed, "_PATIENCE_S", 0.6)
    reader, writer = os.pipe()

    def work():
        folder = EmbeddingStore(path)._folder
        with folder.locked():
            os.write(writer, b"x")
            for _ in range(8):
                time.sleep(0.2)
                folder.alive()

    child = forked(work)
    os.read(reader, 1)
    start = time.monotonic()
    EmbeddingStore(path).close()
    assert time.monotonic() - start > 0.9
    assert codes([child]) == {0}


def test_another_thread_that_holds_the_lock_is_named(path, monkeypatch):
    monkeypatch.setattr(_indexed, "_PATIENCE_S", 0.1)
    store = filled(path)
    with (
        store._folder.locked(),
        pytest.raises(TimeoutError, match=rf"another thread of this process \({os.getpid()}\)"),
    ):
        EmbeddingStore(path)


# ------------------------------------------------------------------------------------------- many processes at once


def many_small_shards(path) -> None:
    for start in range(0, 70, 2):
        with EmbeddingStore(path, Counting()) as store:
            store.add(TEXTS[start : start + 2])


@pytest.mark.parametrize("n", [6, pytest.param(N_COMPACTIONS, marks=pytest.mark.slow)])
def test_compactions_at_once(path, n):
    """None fails, none warns, and nothing is lost."""
    many_small_shards(path)
    assert codes([forked(lambda: EmbeddingStore(path, Counting(), shard_size=20).compact()) for _ in range(n)]) == {0}
    with EmbeddingStore(path, Counting()) as store:
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
        assert (store.encoder.asked, len(store), store.verify()) == ([], 70, [])
        assert store.info()["n_damaged"] == 0
        assert store.info()["n_shards"] <= 8


def test_compactions_beside_writers_and_readers(path):
    many_small_shards(path)
    texts = [f"more {i}" for i in range(60)]

    def write(part):
        store = EmbeddingStore(path, Counting(), shard_size=3)
        assert np.array_equal(store.encode(part), expected(part))

    def read():
        store = EmbeddingStore(path)
        for _ in range(5):
            assert np.array_equal(store.lookup(TEXTS), expected(TEXTS))

    works = [lambda: EmbeddingStore(path, shard_size=20).compact()] * 4 + [read, lambda: write(texts[:30])]
    assert codes([forked(work) for work in [*works, lambda: write(texts[30:])]]) == {0}
    store = EmbeddingStore(path)
    np.testing.assert_array_equal(store.lookup([*TEXTS, *texts]), expected([*TEXTS, *texts]))
    assert (store.verify(), len(store)) == ([], 130)


def test_a_wait_can_be_interrupted(path):
    filled(path).close()
    child = stopped_holder(path)
    try:
        code = """
import sys
from micropref.embed import EmbeddingStore
print("go", flush=True)
EmbeddingStore(sys.argv[1])
"""
        waiting = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        waiting.stdout.readline()
        time.sleep(0.3)
        waiting.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in waiting.communicate(timeout=20)[1]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
