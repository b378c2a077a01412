"""Products with rows and their gradient: every path against float64, whatever the dtype, layout and number of rows."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from micropref.kernels import use_path
from micropref.kernels._products import linear_gradient, linear_products

PATHS = ["numba", "blas", "reference"]


@pytest.fixture(autouse=True)
def no_shortcut(monkeypatch):
    """So that small arrays, too, take the path that they are told to."""
    monkeypatch.setattr("micropref.kernels._products._SMALL", -1)


def rows(n, width, kind, layout, seed=0):
    """X as it is stored, and the same numbers in float64."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, width)).astype(np.float32)
    if kind == "torch-bfloat16":
        stored = torch.tensor(X).bfloat16()
        truth = stored.double().numpy()
    elif kind.startswith("torch"):
        stored = torch.tensor(X)
        truth = X.astype(np.float64)
    else:
        stored = X.astype(kind)
        truth = stored.astype(np.float64)
    if layout == "transposed":
        stored = stored.T.contiguous().T if kind.startswith("torch") else np.asfortranarray(stored)
    elif layout == "strided":
        wide = torch.zeros(2 * n, width + 3, dtype=stored.dtype) if kind.startswith("torch") else None
        wide = np.zeros((2 * n, width + 3), stored.dtype) if wide is None else wide
        wide[::2, 1 : width + 1] = stored
        stored = wide[::2, 1 : width + 1]
    return stored, truth


def vectors(shape, stored, seed=1):
    values = np.random.default_rng(seed).normal(size=shape)
    double = stored.dtype in (np.float64, torch.float64)
    values = values if double else values.astype(np.float32)
    return torch.tensor(values) if isinstance(stored, torch.Tensor) else values


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["plain", "transposed", "strided"])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "torch-float32", "torch-bfloat16"])
@pytest.mark.parametrize(("n", "width", "first", "k"), [(1, 3, 1, 1), (5, 7, 0, 2), (259, 40, 13, 5), (1030, 9, 2, 3)])
def test_every_path_agrees_with_float64(path, layout, kind, n, width, first, k):
    X, truth = rows(n, width, kind, layout)
    W = vectors((k, width - first), X)
    d = vectors((k, n), X, seed=2)
    with use_path(path):
        products = linear_products(X, W, first)
        gradient = linear_gradient(d, X, first, width - first)
    assert type(products) is type(X)
    assert products.dtype == W.dtype
    assert isinstance(gradient, np.ndarray)
    assert gradient.dtype == np.float64
    tolerance = 1e-12 if kind == "float64" else 2e-5
    np.testing.assert_allclose(np.asarray(products), np.asarray(W) @ truth[:, first:].T, rtol=0, atol=tolerance)
    # Sums over rows are kept in double precision after some hundred of them.
    np.testing.assert_allclose(gradient, np.asarray(d) @ truth[:, first:], rtol=0, atol=tolerance * max(1, n**0.5))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_many_blocks_and_threads(path, kind, monkeypatch):
    """Every block takes its own columns of what is given for the rows, and writes its own."""
    monkeypatch.setattr("micropref.kernels._blas._BLOCK_BYTES", 1)
    monkeypatch.setattr("micropref.kernels._blas._SMALL_PRODUCT", 100)
    monkeypatch.setattr("micropref._arrays.blocks._BLOCK_BYTES", 1)
    monkeypatch.setattr("micropref.kernels._threads._ENTRIES_PER_SLICE", 1000)
    X, truth = rows(1003, 9, kind, "plain")
    W, d = vectors((3, 7), X), vectors((3, 1003), X, seed=2)
    with use_path(path):
        np.testing.assert_allclose(linear_products(X, W, 1), W @ truth[:, 1:8].T, rtol=0, atol=2e-5)
        np.testing.assert_allclose(linear_gradient(d, X, 1, 7), d @ truth[:, 1:8], rtol=0, atol=5e-4)


@pytest.mark.parametrize("path", PATHS)
def test_columns_behind_are_not_read(path):
    X, truth = rows(70, 9, "float32", "plain")
    X[:, 7:] = np.nan
    W = vectors((2, 5), X)
    with use_path(path):
        found = linear_products(X, W, 2)
        gradient = linear_gradient(found, X, 2, 5)
    np.testing.assert_allclose(found, W @ truth[:, 2:7].T, atol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("path", [None, *PATHS])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_comes_through_in_its_row_alone(path, bad, monkeypatch):
    X, _ = rows(37, 6, "float32", "plain")
    X[36, 4] = bad
    W = vectors((3, 6), X)
    W[1, 4] = 0.0  # infinity times zero
    if path is None:  # and then small arrays take the shortcut
        monkeypatch.setattr("micropref.kernels._products._SMALL", 1 << 15)
        found = linear_products(X, W)
        np.testing.assert_allclose(found[:, :36], W @ X[:36].T, rtol=1e-5)
        assert linear_gradient(found[:, :36], X[:36], 2, 4).shape == (3, 4)
    else:
        with use_path(path):
            found = linear_products(X, W)
    assert not np.isfinite(found[:, 36]).any()
    assert np.isfinite(found[:, :36]).all()


@pytest.mark.parametrize("path", PATHS)
def test_no_rows(path):
    X, _ = rows(0, 4, "float32", "plain")
    with use_path(path):
        assert linear_products(X, vectors((2, 4), X)).shape == (2, 0)
        assert linear_gradient(np.zeros((2, 0), np.float32), X, 1, 3).tolist() == [[0.0] * 3] * 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 40), width=st.integers(1, 20), k=st.integers(1, 9), seed=st.integers(0, 100))
def test_one_is_the_transpose_of_the_other(n, width, k, seed):
    """⟨d, W Xᵀ⟩ = ⟨d X, W⟩."""
    X, _ = rows(n, width, "float64", "plain", seed)
    W, d = vectors((k, width), X, seed + 1), vectors((k, n), X, seed + 2)
    found = []
    for path in ("numba", "blas"):
        with use_path(path):
            left = np.vdot(d, linear_products(X, W))
            right = np.vdot(linear_gradient(d, X, 0, width), W)
        assert left == pytest.approx(right, abs=1e-10)
        found.append(left)
    assert found[0] == pytest.approx(found[1], abs=1e-10)
