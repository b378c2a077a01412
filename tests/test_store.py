"""The store: every text embedded once, whatever happens in between, and nothing wrong ever returned."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from micropref.embed import EmbeddingStore, EncoderMismatchError, HashingEncoder, PairEncoder
from micropref.embed import DamagedShardError

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
        "n_texts": 70, "n_shards": 5, "n_bytes": 0, "n_truncated": 0, "encoder": "plain", "dtype": dtype,
        "n_dimensions": WIDTH,
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
    with pytest.raises(EncoderMismatchError, match=r"plain.*other"):
        EmbeddingStore(path, Counting("other"))


def test_reading_without_an_encoder(path, tmp_path):
    filled(path)
    store = EmbeddingStore(path)
    np.testing.assert_array_equal(store.lookup(["text 3"]), expected(["text 3"]))
    with pytest.raises(KeyError, match="'new'"):
        store.lookup(["text 3", "new"])
    with pytest.raises(ValueError, match="without an encoder"):
        store.encode(["new"])
    with pytest.raises(FileNotFoundError, match="no store"):
        EmbeddingStore(tmp_path / "nothing")
    assert EmbeddingStore(path).lookup([]).shape == (0, 0)


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
        with pytest.raises(DamagedShardError, match="changed since it was written"):
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


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "index"])
@pytest.mark.parametrize("when", [0, 1, 2, 5])
def test_stopped_at_any_step_of_a_write(path, call, when, monkeypatch):
    """What was written is found again; nothing is half there."""
    count = [0]

    def stopping(original):
        def stop(*given, **more):
            count[0] += 1
            if count[0] > when:
                raise Killed
            return original(*given, **more)

        return stop

    store = EmbeddingStore(path, Counting(), shard_size=16)
    with monkeypatch.context() as patch:
        if call == "index":
            patch.setattr(store._index, "add", stopping(store._index.add))
        else:
            patch.setattr(call, stopping(getattr(os, call[3:])))
        try:
            store.encode(TEXTS)
            stopped = False
        except Killed:
            stopped = True
    assert stopped == (count[0] > when)
    again = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(again.encode(TEXTS), expected(TEXTS))
    assert list(path.glob("*.tmp")) == []
    written = {"os.fsync": when // 2, "os.replace": when, "index": when + 1}[call]
    assert len(again.encoder.asked) <= max(0, 70 - 16 * written)


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
    filled(path)._index.close()
    monkeypatch.setattr("os.access", lambda *_: False)
    store = EmbeddingStore(path, Counting())
    np.testing.assert_array_equal(store.encode(TEXTS), expected(TEXTS))
    with pytest.raises(PermissionError, match="cannot be written to"):
        store.encode(["new"])


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


@pytest.mark.parametrize("bad", [{"shard_size": 0}, {"shard_size": True}, {"dtype": "int8"}])
def test_bad_parameters(path, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EmbeddingStore(path, Counting(), **bad)
