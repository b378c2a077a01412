"""NumPy and torch through the same few operations."""

from __future__ import annotations

import sys

import array_api_compat
import array_api_compat.numpy
import numpy as np
import pytest
import torch

from micropref._arrays.backend import (
    add_at,
    compute_dtype,
    index_like,
    is_torch,
    like,
    namespace,
    place,
    precision,
    to_numpy,
    zeros,
)
from micropref._support import optional as _optional


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_computation_is_in_single_or_double_precision(dtype):
    wanted = "float64" if dtype == "float64" else "float32"
    X = np.ones(2, dtype=dtype)
    assert compute_dtype(X) == getattr(np, wanted)
    assert compute_dtype(torch.tensor(X)) == getattr(torch, wanted)
    assert precision(X) == precision(torch.tensor(X)) == (2e-16 if dtype == "float64" else 1e-10)


def test_namespaces():
    assert namespace(np.ones(1)) is array_api_compat.numpy
    assert namespace(torch.ones(1)) is array_api_compat.array_namespace(torch.ones(1))
    assert is_torch(torch.ones(1))
    assert not is_torch(np.ones(1))
    assert not is_torch([1.0])


def test_arrays_and_tensors_become_each_other():
    tensor = torch.ones(2, requires_grad=True)
    assert to_numpy(tensor).tolist() == [1, 1]
    array = np.ones(2)
    assert to_numpy(array) is array
    assert like(array, array) is array
    assert like(np.arange(2), tensor, torch.float64).dtype == torch.float64
    assert index_like(np.array([1], dtype=np.int32), tensor).dtype == torch.int64
    assert index_like(array, array) is array
    for kind in (np.asarray, torch.tensor):
        made = zeros((2, 3), kind(np.ones(1, dtype=np.float32)))
        assert type(made) is type(kind(0.0))
        assert to_numpy(made).dtype == np.float32
        assert not to_numpy(made).any()


def test_place():
    X = np.ones((2, 2), dtype=np.float32)
    assert place(X, None) is X
    placed = place(X, "cpu")
    assert placed.dtype == torch.float32
    placed[0, 0] = 5
    assert X[0, 0] == 1
    assert place(placed, "meta").device.type == "meta"


def test_a_device_without_torch_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"fitting on a device needs torch.*pip install 'micropref\[torch\]'"):
        place(np.ones((2, 2)), "cpu")
    assert _optional.require("math", "counting").pi > 3


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_repeated_indices_all_count(kind):
    rng = np.random.default_rng(0)
    values, index = rng.normal(size=(2, 50)), rng.integers(0, 4, size=50)
    expected = np.stack([np.bincount(index, weights=row, minlength=4) for row in values])
    total = kind(np.zeros((2, 4)))
    assert add_at(total, index_like(index, total), kind(values)) is total
    np.testing.assert_allclose(to_numpy(total), expected, rtol=1e-14)
