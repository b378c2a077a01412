"""The store: every text embedded once, whatever happens in between, and nothing wrong ever returned."""

from __future__ import annotations

import hashlib
import pickle
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from micropref.embed import DamagedShardError, EmbeddingStore, EncoderMismatchError, HashingEncoder, PairEncoder

WIDTH = 8


def truth(text: str, name: str = "plain") -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(f"{name}:{text}".encode(), digest_size=WIDTH).digest(), np.uint8) / 32


class Counting:
    """Vectors from a checksum of the text; counts what it is asked."""

    def __init__(self, name: str = "plain"):
        self.fingerprint = name
        self.asked: list[str] = []

    def encode(self, texts):
        self.asked += texts
        return np.stack([truth(text, self.fingerprint) for text in texts]).astype(np.float32)


def expected(texts):
    return np.stack([truth(text) for text in texts])


TEXTS = [f"text {i % 70}" for i in range(100)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def filled(path, **more) -> EmbeddingStore:
    store = EmbeddingStore(path, Counting(), shard_size=16, **more)
    store.encode(TEXTS)
    return store


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_text_once_and_in_order(path, dtype):
    store = EmbeddingStore(path, Counting(), shard_size=16, dtype=dtype)
    found = store.encode(TEXTS)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected(TEXTS))
    assert sorted(store.encoder.asked) == sorted(set(TEXTS))
    again = EmbeddingStore(path, Counting(), dtype=dtype)
    out = np.empty((3, WIDTH))
    assert again.encode(["text 5", "text 1", "text 5"], out=out) is out
    np.testing.assert_array_equal(out, expected(["text 5", "text 1", "text 5"]))
    assert again.encoder.asked == []
    assert len(again) == 70
    assert again.info() | {"n_bytes": 0} == {
        "n_texts": 70, "n_shards": 5, "n_bytes": 0, "n_truncated": 0, "n_damaged": 0, "encoder": "plain",
        "dtype": dtype, "n_dimensions": WIDTH,
    }  # fmt: skip
    assert again.verify() == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30), st.integers(1, 7))
def test_any_texts_in_any_pieces(tmp_path_factory, texts, size):
    store = EmbeddingStore(tmp_path_factory.mktemp("any"), Counting(), shard_size=size)
    half = len(texts) // 2
    store.add(texts[:half])
    found = store.encode(texts)
    assert sorted(store.encoder.asked) == sorted(set(texts))
    if texts:
        np.testing.assert_array_equal(found, expected(texts))


def test_letters_that_look_alike_are_other_texts(path):
    texts = ["\u00e9", "e\u0301", "\u0430", "a", "", " ", "x" * 1_000_000]
    np.testing.assert_array_equal(EmbeddingStore(path, Counting()).encode(texts), expected(texts))


def test_a_stream_is_never_held_whole(path):
    alive, most = 0, 0

    class Text(str):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def stream():
        nonlocal alive, most
        for i in range(3000):
            alive += 1
            most = max(most, alive)
            yield Text(f"{i}")

    store = EmbeddingStore(path, Counting(), shard_size=16)
    store.encoder.encode = lambda texts: np.zeros((len(texts), WIDTH))
    assert store.add(stream()) == 3000
    assert most < 400


def test_another_encoder_is_an_error_that_names_both(path):
    filled(path)
    with pytest.raises(EncoderMismatchError, match=r"other.*plain"):
        EmbeddingStore(path, Counting("other"))


def test_reading_without_an_encoder(path, tmp_path):
    filled(path)
    store = EmbeddingStore(path)
    np.testing.assert_array_equal(store.lookup(["text 3"]), expected(["text 3"]))
    with pytest.raises(KeyError, match="'new'"):
        store.lookup(["text 3", "new"])
    with pytest.raises(ValueError, match="without an encoder"):
        store.encode(["new"])
    with pytest.raises(
        FileNotFoundError, match="expected a store, got none there, and none is made without an encoder"
    ):
        EmbeddingStore(tmp_path / "nothing")
    assert EmbeddingStore(path).lookup([]).shape == (0, WIDTH)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda n: np.full((n, WIDTH), np.nan), "not finite"),
        (lambda n: np.full((n, WIDTH), 1e6), "not finite in float16"),
        (lambda n: np.zeros((n + 1, WIDTH)), "a row for each"),
        (lambda n: np.zeros(n), "a row for each"),
        (lambda n: np.zeros((n, WIDTH), dtype=int), "floating numbers"),
        (lambda n: np.zeros((n, WIDTH + 1)), "width 9"),
    ],
)
def test_an_encoder_that_is_wrong_leaves_the_store_as_it_was(path, vectors, message):
    store = filled(path)
    store.encoder.encode = lambda texts: vectors(len(texts))
    with pytest.raises(ValueError, match=message):
        store.encode(["new"])
    assert len(store) == 70
    assert EmbeddingStore(path, Counting()).encode(["new"]).shape == (1, WIDTH)


def test_an_encoder_that_fails_later_keeps_what_was_done(path):
    store, calls = EmbeddingStore(path, Counting(), shard_size=16), []
    right = store.encoder.encode

    def failing(texts):
        calls.append(texts)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return right(texts)

    store.encoder.encode = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        store.encode(TEXTS)
    assert len(EmbeddingStore(path)) == 32


def shards(path) -> list[Path]:
    return sorted(Path(path).glob("*.safetensors"))


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_shard_is_noticed_and_computed_again(path, damage):
    filled(path)
    victim = shards(path)[2]
    blob = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    else:
        blob[len(blob) // 2] ^= 1
        victim.write_bytes(blob if damage == "flip" else blob[:-1])
    store = EmbeddingStore(path, Counting())
    if damage != "missing":
        assert len(store.verify()) == 1
        with pytest.raises(DamagedShardError, match="the file has changed"):
            store.lookup(TEXTS)
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert 0 < len(store.encoder.asked) <= 16
    assert store.verify() == []


def test_every_flipped_byte_of_a_shard_is_noticed(path):
    store = EmbeddingStore(path, Counting())
    store.encode(["one"])
    (victim,) = shards(path)
    blob = victim.read_bytes()
    for at in range(len(blob)):
        victim.write_bytes(blob[:at] + bytes([blob[at] ^ 255]) + blob[at + 1 :])
        assert len(store.verify()) == 1


@pytest.mark.parametrize("damage", ["missing", "rubbish", "wrong rows"])
def test_the_index_is_made_anew(path, damage):
    filled(path)
    index = path / "index.sqlite"
    if damage == "wrong rows":
        with sqlite3.connect(index) as database:
            database.execute("UPDATE vectors SET row = (row + 1) % 3")
        database.close()
    else:
        for file in path.glob("index.sqlite*"):
            file.unlink()
        if damage == "rubbish":
            index.write_bytes(b"no database" * 1000)
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert store.encoder.asked == []


def test_a_full_disk_leaves_the_store_usable(path, monkeypatch):
    store = filled(path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            store.encode(["new"])
    np.testing.assert_array_equal(store.encode(["text 1", "new"]), expected(["text 1", "new"]))
    assert list(path.glob("*.tmp")) == []


def test_two_writers_at_once(path):
    stores = [EmbeddingStore(path, Counting(), shard_size=4) for _ in range(2)]
    parts = [TEXTS[:60], TEXTS[40:]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: pair[0].encode(pair[1]), zip(stores, parts, strict=True)))
    for vectors, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(vectors, expected(part))
    assert len(EmbeddingStore(path)) == 70


def test_a_folder_that_cannot_be_written_to_is_read(path, monkeypatch):
    filled(path).close()
    monkeypatch.setattr("os.access", lambda *_: False)
    before = sorted(path.iterdir())
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    for writing in (lambda: store.encode(["new"]), store.compact):
        with pytest.raises(PermissionError, match="cannot be written to"):
            writing()
    assert sorted(path.iterdir()) == before


@pytest.mark.parametrize("index", ["behind", "rubbish", "missing", "wrong rows"])
def test_a_read_only_folder_whose_index_is_of_no_use_is_read_by_its_shards(path, index, monkeypatch):
    filled(path).close()
    file = path / "index.sqlite"
    if index == "behind":
        kept = file.read_bytes()
        with EmbeddingStore(path, Counting(), shard_size=16) as store:
            store.encode(["new"])
        file.write_bytes(kept)
    elif index == "wrong rows":
        with sqlite3.connect(file) as database:
            database.execute("UPDATE vectors SET row = (row + 1) % 3")
        database.close()
    elif index == "rubbish":
        file.write_bytes(b"no database" * 1000)
    else:
        file.unlink()
    for left in path.glob("index.sqlite-*"):
        left.unlink()
    texts = [*TEXTS, "new"] if index == "behind" else TEXTS
    monkeypatch.setattr("os.access", lambda *_: False)
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(texts), expected(texts))
    assert store.encoder.asked == []


def test_damage_in_a_read_only_folder_is_reported(path, monkeypatch):
    filled(path).close()
    victim = shards(path)[2]
    blob = bytearray(victim.read_bytes())
    blob[-1] ^= 1
    victim.write_bytes(blob)
    monkeypatch.setattr("os.access", lambda *_: False)
    store = EmbeddingStore(path, Counting())
    assert 0 < len(store.missing(TEXTS)) <= 16
    for reading in (store.encode, store.lookup):
        with pytest.raises(DamagedShardError, match=f"{victim.name}: expected the content that was written"):
            reading(TEXTS)
    assert len(store.verify()) == 1


def test_a_pair_encoder_reads_from_it(path):
    table = {"prompt": ["q", "q"], "chosen": ["good answer", "short"], "rejected": ["bad answer", "very long"]}
    encoder = HashingEncoder(n_features=64)
    store = EmbeddingStore(path, encoder, dtype="float32")
    plain = PairEncoder(encoder).fit_transform(table)
    kept = PairEncoder(encoder, store=store)
    np.testing.assert_allclose(kept.fit_transform(table), plain, atol=1e-6)
    assert clone(kept).store is store
    assert len(store) == 4
    with pytest.raises(EncoderMismatchError):
        PairEncoder(HashingEncoder(n_features=32), store=store).fit(table)


def test_the_dtype_of_a_store_is_kept(path):
    filled(path, dtype="float32")
    assert EmbeddingStore(path, Counting()).encode(["text 1", "new"]).dtype == np.float32
    with pytest.raises(ValueError, match=r"dtype: expected float32, in which .* keeps vectors, got 'float16'"):
        EmbeddingStore(path, Counting(), dtype="float16")


def test_damage_after_a_shard_was_opened_is_noticed(path):
    store = filled(path)
    store.lookup(TEXTS)
    victim = shards(path)[1]
    blob = bytearray(victim.read_bytes())
    blob[-1] ^= 1
    victim.write_bytes(blob)
    with pytest.raises(DamagedShardError, match="the file has changed"):
        store.lookup(TEXTS)
    victim.unlink()
    with pytest.warns(UserWarning, match="1 shard of the store .* is damaged or missing"), pytest.raises(KeyError):
        store.lookup(TEXTS)
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))


def test_a_store_that_was_empty_when_it_was_opened(path):
    reader = EmbeddingStore(path, Counting())
    assert (reader.n_dimensions, len(reader), reader.lookup([]).shape) == (None, 0, (0, 0))
    filled(path)
    np.testing.assert_array_equal(reader.lookup(TEXTS), expected(TEXTS))
    assert ("text 3" in reader, "new" in reader) == (True, False)
    assert "70 texts of plain" in repr(reader)


def test_the_index_of_another_version_is_made_anew(path):
    filled(path).close()
    with sqlite3.connect(path / "index.sqlite") as database:
        database.execute("PRAGMA user_version=1")
    database.close()
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    assert store.encoder.asked == []


def test_an_index_that_another_process_made_anew_is_found(path):
    store, other = filled(path), EmbeddingStore(path, Counting(), shard_size=16)
    other._folder.rebuild()
    other.encode(["new"])
    np.testing.assert_array_equal(store.encode([*TEXTS, "new"]), expected([*TEXTS, "new"]))
    assert "new" not in store.encoder.asked


def test_index_damaged_while_it_is_open(path):
    store = filled(path, dtype="float32")
    store._folder._index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = path / "index.sqlite"
    blob = bytearray(file.read_bytes())
    blob[4096:] = bytes(len(blob) - 4096)
    file.write_bytes(blob)
    again = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(again.encode(TEXTS), expected(TEXTS))
    assert again.encoder.asked == []
    assert again.verify() == []


def test_pickled_it_opens_the_same_folder(path):
    store = pickle.loads(pickle.dumps(filled(path)))
    np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
    assert (store.shard_size, clone(store) is store) == (16, True)


def test_more_shards_than_may_be_open(path, monkeypatch):
    monkeypatch.setattr("micropref.embed._folder._OPEN_SHARDS", 2)
    store = filled(path)
    for _ in range(2):
        np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
    assert len(store._folder._open) == 2


def test_parts_share_the_work_and_nothing_is_done_twice(path):
    encoders = [Counting() for _ in range(3)]
    n_new = [
        EmbeddingStore(path, encoder, shard_size=4).add(iter(TEXTS), part=(i, 3)) for i, encoder in enumerate(encoders)
    ]
    assert sum(n_new) == 70
    assert min(n_new) > 5
    assert sorted(text for encoder in encoders for text in encoder.asked) == sorted(set(TEXTS))
    np.testing.assert_array_equal(EmbeddingStore(path).lookup(TEXTS), expected(TEXTS))
    for part in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"part: expected \(i, n\)"):
            EmbeddingStore(path, Counting()).add(TEXTS, part=part)


def test_duplicates_across_windows_are_embedded_once(path):
    """A text may come again while its vector is still on its way to the disk."""
    store = EmbeddingStore(path, Counting(), shard_size=4)
    store.add(iter([f"{i % 24}" for i in range(240)]))
    assert len(store.encoder.asked) == 24


def test_the_longest_texts_come_first(path):
    store = EmbeddingStore(path, Counting(), shard_size=16)
    store.add("x" * (1 + i * 7 % 50) for i in range(50))
    lengths = [len(text) for text in store.encoder.asked]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 50


def test_a_bad_text_deep_in_a_stream_is_named(path):
    store = EmbeddingStore(path, Counting(), shard_size=4)
    with pytest.raises(TypeError, match="text 37: expected a string, got 5"):
        store.add(5 if i == 37 else f"{i}" for i in range(100))
    with pytest.raises(TypeError, match="one string"):
        store.add("abc")


def test_an_encoder_draws_no_bar_beside_the_stores(path):
    store, wishes = EmbeddingStore(path, Counting()), []
    store.encoder.show_progress = None
    right = store.encoder.encode

    def encode(texts):
        wishes.append(store.encoder.show_progress)
        return right(texts)

    store.encoder.encode = encode
    store.encode(TEXTS)
    assert (wishes, store.encoder.show_progress) == ([False], None)


def test_truncations_are_counted_and_kept(path):
    class Cutting(Counting):
        n_truncated_total_ = 5

        def encode(self, texts):
            self.n_truncated_total_ += sum(len(text) > 6 for text in texts)
            return super().encode(texts)

    store = EmbeddingStore(path, Cutting(), shard_size=16)
    store.encode(TEXTS)
    assert store.info()["n_truncated"] == 60
    store._folder.rebuild()
    assert store.info()["n_truncated"] == 60


@pytest.mark.parametrize("bad", [{"shard_size": 0}, {"shard_size": True}, {"dtype": "int8"}])
def test_bad_parameters(path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EmbeddingStore(path, Counting(), **bad)
