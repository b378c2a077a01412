"""Reading in blocks: which pages may be dropped, and that nothing is lost when they are."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from micropref._arrays import blocks
from micropref._arrays.blocks import row_blocks, shared_mapping


def written(path, shape=(200, 3), dtype=np.float32):
    X = np.random.default_rng(0).normal(size=shape).astype(dtype)
    mapped = np.memmap(path, dtype=dtype, mode="w+", shape=shape)
    mapped[:] = X
    return X, mapped


@pytest.mark.parametrize("mode", ["r", "r+", "w+"])
def test_pages_of_a_shared_mapping_are_dropped_and_come_back(mode, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X, mapped = written(tmp_path / "x")
    if mode != "w+":
        mapped.flush()
        mapped = np.memmap(tmp_path / "x", dtype=X.dtype, mode=mode, shape=X.shape)
    for view in (mapped, np.asarray(mapped), mapped[::-1], mapped[3:, 1:], mapped.T.T):
        assert isinstance(shared_mapping(view), mmap.mmap)
    if mode != "r":
        mapped[5] = X[5] = 7.0  # not yet on disk
    for _ in range(2):
        parts = [block.copy() for _, block in row_blocks(np.asarray(mapped))]
        assert len(parts) == 4
        np.testing.assert_array_equal(np.vstack(parts), X)


def test_private_pages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X, mapped = written(tmp_path / "x")
    mapped.flush()
    private = np.memmap(tmp_path / "x", dtype=X.dtype, mode="c", shape=X.shape)
    private[:] = 5.0
    assert shared_mapping(np.asarray(private)[2:]) is None
    assert all((block == 5.0).all() for _, block in row_blocks(np.asarray(private)))
    assert all((block == 5.0).all() for _, block in row_blocks(np.asarray(private)))


def test_memory_has_no_mapping():
    assert shared_mapping(np.ones((2, 2))) is None
    assert shared_mapping(torch.ones(2, 2)) is None
    assert shared_mapping(np.frombuffer(bytearray(8))) is None


def test_systems_that_cannot_drop_pages_read_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_DONTNEED", raising=False)
    X, mapped = written(tmp_path / "x")
    assert shared_mapping(mapped) is None
    np.testing.assert_array_equal(np.vstack([block for _, block in row_blocks(mapped)]), X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_are_views_where_nothing_needs_converting(dtype):
    X = np.ones((5, 2), dtype=dtype)
    (_, block), *rest = row_blocks(X)
    assert not rest
    assert np.shares_memory(block, X)


def test_a_block_of_wide_rows_is_bounded():
    X = np.zeros((4096, 4096), dtype=np.float16)
    assert {block.nbytes for _, block in row_blocks(X)} == {blocks._BLOCK_BYTES}
