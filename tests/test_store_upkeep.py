"""The store's blocks, pairs, rows, compacting, merging and exporting."""

from __future__ import annotations

from sqlite3 import ProgrammingError

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_store import TEXTS, WIDTH, Counting, expected

from micropref.embed import DamagedShardError, EmbeddingStore, EncoderMismatchError, plan_embedding
from micropref.embed._shards import text_keys
from micropref.pairs import make_pairs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(path):
    store = EmbeddingStore(path, Counting(), shard_size=16)
    store.add(TEXTS)
    return store


FIRST, SECOND, CONTEXT = TEXTS[:40], TEXTS[10:50], TEXTS[5:45]


def test_rows_are_found_once_and_gathered_in_any_order(store):
    rows = store.locate(TEXTS)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(store.gather(rows[order]), expected(TEXTS)[order])
    out = np.zeros((len(rows), WIDTH))
    assert store.gather(rows, out=out) is out
    np.testing.assert_array_equal(out, expected(TEXTS))
    assert rows.nbytes == 24 * len(rows)
    with pytest.raises(KeyError, match=r"expected 3 texts of the store, got 2 that are not there, first 'never'"):
        store.locate(["text 1", "never", "nowhere"])
    with pytest.raises(ValueError, match=r"out: expected shape \(100, 8\), got \(3, 8\)"):
        store.gather(rows, out=np.zeros((3, WIDTH)))


def test_rows_outlive_compacting_and_a_new_index(store, path):
    rows = store.locate(TEXTS)
    other = EmbeddingStore(path, shard_size=64)
    other.compact()
    np.testing.assert_array_equal(store.gather(rows), expected(TEXTS))
    other._folder.rebuild()
    np.testing.assert_array_equal(store.gather(rows), expected(TEXTS))
    rows = store.locate(TEXTS)
    rows["key"][3] = 0
    with pytest.raises(KeyError, match="expected vectors of 100 rows, got none of 1 among them"):
        store.gather(rows)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks(store, size):
    for texts in (TEXTS, iter(TEXTS), store.locate(TEXTS)):
        blocks = list(store.blocks(texts, size))
        assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
        np.testing.assert_array_equal(np.concatenate(blocks), expected(TEXTS))
    for bad in (0, True, 2.0):
        with pytest.raises(ValueError, match="block_size"):
            next(store.blocks(TEXTS, bad))


@pytest.mark.parametrize("context", [None, CONTEXT])
def test_pairs_are_what_make_pairs_makes_of_the_vectors(store, context, tmp_path):
    wanted = make_pairs(expected(FIRST), expected(SECOND), None if context is None else expected(context))
    found = store.make_pairs(FIRST, SECOND, context)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    blocks = list(store.pair_blocks(FIRST, SECOND, context, block_size=7))
    assert [len(block) for block in blocks] == [7] * 5 + [5]
    np.testing.assert_array_equal(np.concatenate(blocks), wanted)
    rows = [store.locate(texts) for texts in (FIRST, SECOND, *([] if context is None else [context]))]
    out = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float16, shape=wanted.shape)
    assert store.make_pairs(*rows, out=out) is out
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), wanted.astype(np.float16))


def test_pairs_that_do_not_fit(store):
    with pytest.raises(ValueError, match=r"as many first as second responses and contexts, got \[40, 39\]"):
        store.make_pairs(FIRST, SECOND[:-1])
    with pytest.raises(ValueError, match=r"out: expected shape \(40, 8\), got \(40, 3\)"):
        store.make_pairs(FIRST, SECOND, out=np.zeros((40, 3)))
    with pytest.raises(KeyError, match="'never'"):
        store.make_pairs(["never"], ["text 1"])
    assert store.make_pairs([], []).shape == (0, WIDTH)


def test_compacting_puts_small_shards_together(path):
    for start in range(0, 70, 3):
        with EmbeddingStore(path, Counting()) as store:
            store.add(TEXTS[start : start + 3])
    with EmbeddingStore(path, shard_size=20) as store:
        before = store.info()
        found = store.compact()
        after = store.info()
        assert (found.n_shards_before, found.n_shards_after) == (24, 4) == (before["n_shards"], after["n_shards"])
        assert found.n_bytes_freed == before["n_bytes"] - after["n_bytes"] > 0
        assert (len(store), store.verify()) == (70, [])
        np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))
        assert len(list(path.glob("*.safetensors"))) == 4
        assert store.compact() == (4, 4, 0)


def test_compacting_drops_what_is_there_twice(path, tmp_path):
    """Two processes may have embedded the same texts; one vector of each is kept."""
    other = EmbeddingStore(tmp_path / "other", Counting(), shard_size=50)
    other.add(TEXTS[:50])
    store = EmbeddingStore(path, Counting(), shard_size=16)
    store.add(TEXTS)
    assert store.merge(other.path) == 0
    assert store.info()["n_shards"] == 6
    store.compact()
    assert sum(len(shard.keys) for shard in store._folder.shards()) == 70
    np.testing.assert_array_equal(store.lookup(TEXTS), expected(TEXTS))


def test_compacting_a_shard_with_rows_that_nobody_needs(path, tmp_path):
    other = EmbeddingStore(tmp_path / "other", Counting())
    other.add(TEXTS[10:60])
    with EmbeddingStore(path, Counting()) as store:
        store.add(TEXTS[:20])
        store.merge(other.path)
        store.compact()
        assert (len(store), store.info()["n_shards"]) == (60, 1)
        (shard,) = store._folder.shards()
        assert len(shard.keys) == 60


def test_merging(store, tmp_path):
    other = EmbeddingStore(tmp_path / "other", Counting(), shard_size=4)
    other.add(["new 1", "new 2", "text 3"])
    assert store.merge(other.path) == 2
    np.testing.assert_array_equal(store.encode(["new 2", "text 3"]), expected(["new 2", "text 3"]))
    assert store.encoder.asked.count("new 2") == 0
    with pytest.raises(FileNotFoundError, match="expected a store, got no such folder"):
        store.merge(tmp_path / "nowhere")
    foreign = EmbeddingStore(tmp_path / "foreign", Counting("foreign"))
    foreign.add(["x"])
    with pytest.raises(EncoderMismatchError, match=r"encoder plain.*vectors of foreign"):
        store.merge(foreign.path)
    wide = EmbeddingStore(tmp_path / "wide", Counting(), dtype="float32")
    wide.add(["x"])
    with pytest.raises(ValueError, match=r"expected vectors in float16, .* got float32"):
        store.merge(wide.path)
    (shard,) = (tmp_path / "wide").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedShardError, match="the file has changed"):
        store.merge(wide.path)


def test_shards_copied_by_hand_are_taken_in_and_foreign_ones_left_out(path, tmp_path):
    other = EmbeddingStore(tmp_path / "other", Counting())
    other.add(["new"])
    store = EmbeddingStore(path, Counting())
    store.add(["old"])
    for shard in (tmp_path / "other").glob("*.safetensors"):
        (path / shard.name).write_bytes(shard.read_bytes())
    assert store.add(["new"]) == 0
    foreign = EmbeddingStore(tmp_path / "foreign", Counting("foreign"))
    foreign.add(["x"])
    for shard in (tmp_path / "foreign").glob("*.safetensors"):
        (path / shard.name).write_bytes(shard.read_bytes())
    for adding in (lambda: EmbeddingStore(path, Counting()).add(["even more"]), lambda: store.add(["more"])):
        with pytest.warns(UserWarning, match=rf"leaves out .*encoder plain.*{shard.name}.*vectors of foreign"):
            assert adding() == 1


def test_exporting(store, tmp_path):
    store.export(tmp_path / "some.npy", ["text 9", "text 1", "text 9"])
    found = np.load(tmp_path / "some.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, expected(["text 9", "text 1", "text 9"]))
    store.export(tmp_path / "none.npy", [])
    assert np.load(tmp_path / "none.npy").shape == (0, WIDTH)
    store.export(tmp_path / "all.safetensors")
    everything = load_file(tmp_path / "all.safetensors")
    assert everything["vectors"].shape == (70, WIDTH)
    place = {key.tobytes(): row for row, key in enumerate(everything["keys"])}
    rows = [place[key] for key in text_keys("plain", TEXTS)]
    np.testing.assert_array_equal(everything["vectors"][rows], expected(TEXTS))
    with pytest.raises(ValueError, match=r"ends in .npy"):
        store.export(tmp_path / "x.safetensors", TEXTS)
    with pytest.raises(ValueError, match=r"ends in .safetensors"):
        store.export(tmp_path / "x.npy")
    with pytest.raises(KeyError, match="'never'"):
        store.export(tmp_path / "x.npy", ["never"])
    assert not (tmp_path / "x.npy").exists()


def test_missing_texts_are_named_once_and_in_order(store):
    assert store.missing(["b", "text 1", "a", "b"]) == ["b", "a"]
    assert len(store) == 70


def test_a_plan_keeps_nothing_and_counts(store, path):
    encoder = Counting()
    plan = plan_embedding(encoder, ["text 1", "new", "newer", "new"], store)
    assert (plan.n_distinct, plan.n_cached, plan.n_missing, plan.n_truncated, plan.n_sampled) == (3, 1, 2, None, 2)
    assert plan.seconds > 0
    assert len(store) == 70
    encoder.count_truncated = lambda texts: sum(len(text) > 3 for text in texts)
    assert plan_embedding(encoder, ["text 1", "new", "newer"], store).n_truncated == 1
    assert plan_embedding(encoder, TEXTS, store).seconds == 0
    assert plan_embedding(encoder, TEXTS).n_missing == 70


def test_time_is_estimated_by_characters(path, monkeypatch):
    """1 000 texts of 10 characters, a sample of 64: the time of the sample times 1000 / 64."""
    clock = [0.0]
    encoder = Counting()
    right = encoder.encode

    def slow(texts):
        clock[0] += sum(map(len, texts)) / 1000
        return right(texts)

    encoder.encode = slow
    monkeypatch.setattr("micropref.embed._plan.time.perf_counter", lambda: clock[0])
    plan = plan_embedding(encoder, [f"{i:010}" for i in range(1000)])
    assert (plan.n_sampled, plan.seconds) == (64, pytest.approx(10.0))


def test_a_store_is_closed_with_its_block(path):
    with EmbeddingStore(path, Counting()) as store:
        store.add(["a"])
    with pytest.raises(ProgrammingError, match="closed"):
        store.lookup(["a"])
