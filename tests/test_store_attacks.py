"""The store among other files, other users, other threads and processes, and encoders that change."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_store import TEXTS, WIDTH, Counting, expected, filled, shards

from micropref.embed import DamagedShardError, EmbeddingStore, EncoderMismatchError, HashingEncoder, PairEncoder
from micropref.embed import _shards as shard_files
from micropref.embed._index_faults import DamagedIndexError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


# ------------------------------------------------------------------------------------------------ what is no damage


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ESTALE])
def test_a_shard_that_cannot_be_read_just_now_is_left_alone(path, code, monkeypatch):
    """Want of rights or of descriptors passes; vectors thrown away for it would not come back."""
    filled(path).close()
    before, opening = sorted(path.iterdir()), Path.open

    def failing(self, *given, **more):
        if self.suffix == ".safetensors":
            raise OSError(code, os.strerror(code))
        return opening(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        for using in (
            lambda store: store.encode(TEXTS),
            lambda store: store.lookup(TEXTS),
            lambda store: store.compact(),
        ):
            with pytest.raises(OSError, match=os.strerror(code)):
                using(EmbeddingStore(path, Counting()))
        (path / "index.sqlite").unlink()  # so that all shards have to be taken in anew
        with pytest.raises(OSError, match=os.strerror(code)):
            EmbeddingStore(path)
    assert [file for file in before if file.suffix == ".safetensors"] == shards(path)
    again = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(again.encode(TEXTS), expected(TEXTS))
    assert again.encoder.asked == []


def test_other_files_in_the_folder_are_left_alone(path):
    path.mkdir()
    foreign = ["model.safetensors", "notes.tmp", "old.safetensors.damaged", "config.json", "x.safetensors.12.tmp"]
    for name in foreign:
        (path / name).write_text(name)
    with pytest.raises(FileNotFoundError, match="expected a store, got none there"):
        EmbeddingStore(path)
    assert sorted(file.name for file in path.iterdir()) == sorted(foreign)
    store = filled(path)
    store.compact()
    store.close()
    np.testing.assert_array_equal(EmbeddingStore(path, Counting()).encode(TEXTS), expected(TEXTS))
    for name in foreign:
        assert (path / name).read_text() == name
    with pytest.raises(ValueError, match="outside of the store"):
        store.export(path / "all.safetensors")


def test_the_path_of_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="expected the folder of a store, got the file"):
        EmbeddingStore(tmp_path / "file", Counting())


@pytest.mark.parametrize("name", ["a b", "100%", "what?", "a#b", "ä", "-x"])
def test_folders_of_any_name(tmp_path, name):
    filled(tmp_path / name).close()
    for read_only in (False, True):
        store = EmbeddingStore(tmp_path / name, read_only=read_only)
        np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
        store.close()


# -------------------------------------------------------------------------------------------- changes that are noticed


def test_an_encoder_that_changes_is_noticed(path):
    store = filled(path)
    store.encoder.fingerprint = "changed"
    with pytest.raises(EncoderMismatchError, match=r"changed.*plain"):
        store.encode(["new"])
    assert len(EmbeddingStore(path)) == 70


def test_an_encoder_that_changes_at_work_is_noticed_before_anything_is_written(path):
    store = EmbeddingStore(path, Counting())
    right = store.encoder.encode

    def encode(texts):
        store.encoder.fingerprint = "changed"
        return right(texts)

    store.encoder.encode = encode
    with pytest.raises(EncoderMismatchError, match=r"changed.*plain"):
        store.encode(["new"])
    assert shards(path) == []


@pytest.mark.parametrize("fingerprint", [None, "", 5, lambda: "name"])
def test_a_fingerprint_is_a_text(path, fingerprint):
    filled(path)
    with pytest.raises(TypeError, match="expected a string that names the encoder"):
        EmbeddingStore(path, Counting(fingerprint))


def test_a_change_that_hides_behind_the_old_time_is_noticed(path):
    store = filled(path)
    store.lookup(TEXTS)
    victim = shards(path)[0]
    before = victim.stat()
    with victim.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedShardError, match="the file has changed"):
        store.lookup(TEXTS)


def test_verify_makes_the_next_read_look_again(path, monkeypatch):
    store = filled(path)
    store.lookup(TEXTS)
    monkeypatch.setattr("micropref.embed._folder.file_state", lambda _: (1,))
    store.lookup(TEXTS)
    victim = shards(path)[0]
    blob = bytearray(victim.read_bytes())
    blob[-1] ^= 1
    victim.write_bytes(blob)
    assert len(store.verify()) == 1
    with pytest.raises(DamagedShardError):
        store.lookup(TEXTS)


def test_a_width_that_changes_between_shards_is_refused(path):
    store, calls = EmbeddingStore(path, Counting(), shard_size=16), [0]

    def encode(texts):
        calls[0] += 1
        return np.ones((len(texts), WIDTH + (calls[0] > 1)))

    store.encoder.encode = encode
    with pytest.raises(ValueError, match="width 9"):
        store.encode(TEXTS)
    assert {shard.vectors.shape[1] for shard in EmbeddingStore(path)._folder.shards()} == {WIDTH}


@pytest.mark.parametrize("other", ["dtype", "width", "encoder", "no shard"])
def test_shards_of_another_kind_are_left_out(path, tmp_path, other):
    class Wide(Counting):
        def encode(self, texts):
            return np.ones((len(texts), 2 * WIDTH))

    encoder = {"width": Wide(), "encoder": Counting("foreign")}.get(other, Counting())
    foreign = EmbeddingStore(tmp_path / "other", encoder, dtype="float32" if other == "dtype" else None)
    foreign.encode(["x"])
    if other == "no shard":
        blob = b"another program's file"
        shards(foreign.path)[0].unlink()
        (foreign.path / f"{hashlib.sha256(blob).hexdigest()[:32]}.safetensors").write_bytes(blob)
    filled(path).close()
    for shard in shards(foreign.path):
        (path / shard.name).write_bytes(shard.read_bytes())
    for is_indexed in (True, False):
        for read_only in (True, False):
            with pytest.warns(UserWarning, match=rf"leaves out a file .*{shard.name}: expected|, got .*{shard.name},"):
                store = EmbeddingStore(path, None if is_indexed else Counting(), read_only=read_only)
            np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
            assert (len(store), store.verify()) == (70, [])
            store.close()
        if is_indexed:
            (path / "index.sqlite").unlink()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with EmbeddingStore(path, Counting()) as store:
            store.encode(["new"])
            store.compact()
            assert (len(store), store.verify()) == (71, [])
    assert len(said) == 1
    assert (path / shard.name).exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling"])
@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_no_file_is_no_shard(path, kind, read_only):
    """Nothing waits for a pipe, reads a device, or fails over a folder that has the name of a shard."""
    filled(path).close()
    odd = path / f"{'0' * 32}.safetensors"

    def make(place):
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to("/dev/zero" if kind == "device" else "/nowhere")

    make(odd)
    with EmbeddingStore(path, Counting(), read_only=read_only) as store:
        np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
        assert (store.verify(), len(store), store.encoder.asked) == ([], 70, [])
    victim = shards(path)[-1]
    assert victim != odd
    victim.unlink()
    make(victim)
    if read_only:  # what an index that is out of date says is not believed, and not missed
        assert 0 < len(EmbeddingStore(path, Counting(), read_only=True).missing(TEXTS)) < 70
    else:
        with pytest.warns(UserWarning, match="1 shard of the store .* is damaged or missing"):
            store = EmbeddingStore(path, Counting())
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert os.path.lexists(odd)


def test_a_shard_that_becomes_a_pipe_under_a_reader_is_damage(path):
    filled(path).close()
    store, victim = EmbeddingStore(path), shards(path)[0]
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(DamagedShardError, match=f"{victim.name}: expected a shard, got no regular file"):
        store.lookup(TEXTS)


@pytest.mark.parametrize("read_only", [True, False])
def test_an_index_that_is_a_pipe_is_made_anew(path, read_only):
    filled(path).close()
    for file in path.glob("index.sqlite*"):
        file.unlink()
    os.mkfifo(path / "index.sqlite")
    with EmbeddingStore(path, Counting(), read_only=read_only) as store:
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert (path / "index.sqlite").is_file() is not read_only


def test_two_processes_that_begin_a_store_in_different_ways(path):
    """The one that comes second is told; nothing is mixed."""
    one, two = EmbeddingStore(path, Counting(), dtype="float16"), EmbeddingStore(path, Counting(), dtype="float32")
    one.encode(["a"])
    with pytest.raises(ValueError, match=r"expected vectors in float16, as the store keeps, got float32"):
        two.encode(["b"])
    assert len(EmbeddingStore(path)) == 1


def test_lost_shards_are_told_of_and_counted(path):
    filled(path).close()
    shards(path)[0].unlink()
    victim = shards(path)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="1 shard of the store .* is damaged or missing; the texts there"):
        store = EmbeddingStore(path, Counting())
    with pytest.warns(UserWarning, match="1 shard"):
        np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert store.info()["n_damaged"] == 1
    assert store.verify() == []


def test_compacting_sets_a_damaged_shard_aside(path):
    store = filled(path)
    victim = shards(path)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="1 shard"):
        EmbeddingStore(path, shard_size=64).compact()
    rest = [text for text in TEXTS if text in store]
    assert 50 < len(set(rest)) < 70
    np.testing.assert_array_equal(store.lookup(rest), expected(rest))


@pytest.mark.parametrize("kind", ["bfloat16", "float64"])
def test_tensors_and_wide_numbers_are_vectors(path, kind):
    import torch

    class Tensors(Counting):
        def encode(self, texts):
            return torch.tensor(super().encode(texts)).to(getattr(torch, kind))

    np.testing.assert_array_equal(EmbeddingStore(path, Tensors()).encode(TEXTS), expected(TEXTS))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda n: np.full((n, WIDTH), 1e-9), "too small to be anything but zero in float16"),
        (lambda n: np.ones((n, 0)), "a row for each"),
    ],
)
def test_vectors_of_no_use(path, vectors, message):
    store = EmbeddingStore(path, Counting())
    store.encoder.encode = lambda texts: vectors(len(texts))
    with pytest.raises(ValueError, match=message):
        store.encode(["x"])


def test_zeros_are_a_vector_and_blank_texts_have_one(path):
    store = EmbeddingStore(path, HashingEncoder(16))
    np.testing.assert_array_equal(store.encode(["", "  "]), np.zeros((2, 16)))


@pytest.mark.parametrize("out", [np.zeros((100, WIDTH), dtype=int), np.zeros((99, WIDTH)), np.zeros(100)])
def test_places_that_vectors_do_not_fit_into(path, out):
    store = filled(path)
    for reading in (store.encode, store.lookup):
        with pytest.raises(ValueError, match="out: expected"):
            reading(TEXTS, out)


def test_long_texts_end_a_window_early(path, monkeypatch):
    monkeypatch.setattr("micropref.embed._filling._WINDOW_CHARACTERS", 100)
    store, held = EmbeddingStore(path, Counting(), shard_size=2), []
    missing = store._folder.missing
    monkeypatch.setattr(store._folder, "missing", lambda keys: held.append(len(keys)) or missing(keys))
    store.add(f"{i:060}" for i in range(20))
    assert max(held) == 2
    assert len(store) == 20


def test_an_error_of_the_disk_after_one_of_the_encoder_is_told_too(path, monkeypatch):
    store = EmbeddingStore(path, Counting(), shard_size=100)
    store.encoder.batch_size, calls = 1, [0]
    right = store.encoder.encode

    def encode(texts):
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("out of memory")
        return right(texts)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    store.encoder.encode = encode
    monkeypatch.setattr("os.write", full)
    with pytest.raises(RuntimeError, match="out of memory") as error:
        store.encode([f"{i}" for i in range(100)])
    assert "No space left" in error.value.__notes__[0]


# -------------------------------------------------------------------------------------------- threads, forks, processes


def test_many_threads_read_at_once(path, monkeypatch):
    monkeypatch.setattr("micropref.embed._folder._OPEN_SHARDS", 2)
    EmbeddingStore(path, Counting(), shard_size=5).encode(TEXTS)
    store, errors = EmbeddingStore(path), []

    def read():
        order = np.random.default_rng(threading.get_ident() % 1000).permutation(100)
        texts = [TEXTS[i] for i in order]
        try:
            for _ in range(30):
                np.testing.assert_array_equal(store.lookup(texts), expected(texts))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_fork_neither_keeps_the_lock_nor_the_connection(path):
    store = filled(path)
    with store._folder.locked():
        child = os.fork()
        if not child:
            time.sleep(20)
            os._exit(0)
    try:
        start = time.monotonic()
        store.encode(["new"])
        assert time.monotonic() - start < 15
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    child = os.fork()
    if not child:
        code = 1
        try:
            before = store._folder._index
            store.encode(["of the child"])
            code = int(store._folder._index is before)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(store.lookup(["of the child", "new"]), expected(["of the child", "new"]))


def test_texts_of_an_index_made_anew_elsewhere_are_found(path):
    store = filled(path)
    for file in path.glob("index.sqlite*"):
        file.unlink()
    EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))


def test_moved_rows_are_looked_up_and_nothing_is_rebuilt(path, monkeypatch):
    store = filled(path)
    rows = store.locate(TEXTS)
    EmbeddingStore(path, shard_size=100).compact()
    monkeypatch.setattr(store._folder, "rebuild", lambda: pytest.fail("the index is right"))
    np.testing.assert_array_equal(store.gather(rows), expected(TEXTS))
    rows["key"] ^= 1
    with pytest.raises(KeyError, match="expected vectors of 100 rows, got none of 100 among them"):
        store.gather(rows)


def test_a_read_only_store_follows_its_writer(path):
    writer = filled(path)
    reader = EmbeddingStore(path, read_only=True)
    rows = reader.locate(TEXTS)
    writer.encode(["new"])
    np.testing.assert_array_equal(reader.lookup([*TEXTS, "new"]), expected([*TEXTS, "new"]))
    EmbeddingStore(path, shard_size=100).compact()
    np.testing.assert_array_equal(reader.gather(rows), expected(TEXTS))


def test_read_only_changes_nothing(path):
    filled(path).close()
    for file in path.glob("index.sqlite-*"):
        file.unlink()
    shards(path)[0].unlink()
    victim = shards(path)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    before = {file: file.read_bytes() for file in path.iterdir()}
    with pytest.warns(UserWarning, match="1 shard of the store .* is damaged"):
        store = EmbeddingStore(path, Counting(), read_only=True)
    assert 0 < len(store.missing(TEXTS)) <= 32
    for writing in (store.encode, store.add):
        with pytest.raises(PermissionError, match="cannot be written to"):
            writing(TEXTS)
    assert {file: file.read_bytes() for file in path.iterdir()} == before
    with pytest.raises(FileNotFoundError, match="none is made with read_only=True"):
        EmbeddingStore(path.parent / "nowhere", Counting(), read_only=True)


def test_files_of_somebody_else_are_read(path):
    """The folder may be written to, the files not: what is there is read and nothing is tried."""
    filled(path).close()
    for file in path.iterdir():
        file.chmod(0o444)
    if os.geteuid() == 0:
        for folder in (path, *path.parents):
            if folder.stat().st_uid == 0 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0o777)
    child = os.fork()
    if not child:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            store = EmbeddingStore(path, Counting())
            code = int(not np.array_equal(store.encode(TEXTS), expected(TEXTS)) or store._folder.writable)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_malformed_index_does_not_stop_the_work(path, monkeypatch):
    store = filled(path)
    add, calls = store._folder._index.add, [0]

    def malformed(*given):
        calls[0] += 1
        if calls[0] == 1:
            raise DamagedIndexError("expected an index, got none")
        return add(*given)

    monkeypatch.setattr(store._folder._index, "add", malformed)
    np.testing.assert_array_equal(store.encode(["new", *TEXTS]), expected(["new", *TEXTS]))
    assert len(store) == 71


def test_the_index_is_in_wal_mode_so_that_readers_never_wait(path):
    store = filled(path)
    assert store._folder._index._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_index(path, monkeypatch):
    store, order = filled(path), []
    fsync, replace, add = os.fsync, os.replace, store._folder._index.add

    def synced(descriptor):
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", lambda *names: (order.append("name"), replace(*names))[1])
    monkeypatch.setattr(store._folder._index, "add", lambda *given: (order.append("index"), add(*given))[1])
    store.encode(["new"])
    assert order == ["file", "name", "folder", "index"]


def test_a_shard_is_written_under_the_lock_and_its_temporary_file_survives_an_opening(path, monkeypatch):
    store, seen = filled(path), []
    write = os.write

    def slow(*given):
        opener = threading.Thread(target=lambda: EmbeddingStore(path, Counting()))
        opener.start()
        opener.join(0.3)
        seen.append((opener.is_alive(), len(list(path.glob("*.tmp")))))
        threads.append(opener)
        return write(*given)

    threads: list[threading.Thread] = []
    with monkeypatch.context() as patch:
        patch.setattr("os.write", slow)
        store.encode(["new"])
    for thread in threads:
        thread.join()
    assert seen[0] == (True, 1)
    np.testing.assert_array_equal(store.lookup(["new"]), expected(["new"]))


def test_a_pair_encoder_tells_a_store_without_encoder_by_its_vectors(path):
    EmbeddingStore(path, HashingEncoder(32)).encode(["a", "b"])
    store = EmbeddingStore(path)
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    assert PairEncoder(HashingEncoder(32), store=store).fit_transform(rows).shape == (1, 32)
    with pytest.raises(EncoderMismatchError, match=r"n_features=64.*n_features=32"):
        PairEncoder(HashingEncoder(64), store=store).fit(rows)
    assert PairEncoder(HashingEncoder(32), store=str(path)).fit_transform(rows).shape == (1, 32)


@pytest.mark.slow
def test_killed_at_random_while_others_read_and_compact(path):
    """Writers and compacting processes are killed for some seconds; a reader never sees a wrong vector."""
    random_ = random.Random(0)
    texts = [f"text {i}" for i in range(400)]
    truth = expected(texts)

    def spawn(work) -> int:
        child = os.fork()
        if not child:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            try:
                while True:
                    work()
            finally:
                os._exit(1)
        return child

    def write():
        store = EmbeddingStore(path, Counting(), shard_size=7, progress=False)
        assert np.array_equal(store.encode(texts), truth)

    def tidy():
        EmbeddingStore(path, Counting(), shard_size=50).compact()

    EmbeddingStore(path, Counting()).encode(texts[:5])
    deadline = time.monotonic() + 8
    children = {spawn(work): work for work in (write, tidy, write)}
    while time.monotonic() < deadline:
        time.sleep(random_.uniform(0.02, 0.2))
        victim = random_.choice(list(children))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        work = children.pop(victim)
        with EmbeddingStore(path, Counting()) as reader:
            there = [i for i, text in enumerate(texts) if text in reader]
            np.testing.assert_array_equal(reader.encode([texts[i] for i in there]), truth[there])
        children[spawn(work)] = work
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(texts), truth)
    assert store.verify() == []
    assert store.info()["n_damaged"] == 0


def test_names_of_shards_are_told_from_others():
    assert all(shard_files._OURS.fullmatch("0" * 32 + end) for end in (".safetensors", ".safetensors.damaged"))
    assert not shard_files._OURS.fullmatch("0" * 31 + ".safetensors")
