"""The layout of X, its scaling, and the norms that everything else is measured in."""

from __future__ import annotations

import doctest
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from micropref import pairs
from micropref._arrays import blocks
from micropref._rows.layout import PairReader, narrow_context, root_mean_square_norms
from micropref.features import scaler as scaler_module
from micropref.pairs import PairScaler, make_pairs, split_pairs, swap_pairs


def rows(n, width, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(dtype)


kinds = pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["numpy", "torch"])
dtypes = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


# -------------------------------------------------------------------------------------------------------------- layout


@kinds
@dtypes
def test_make_split_swap(kind, dtype):
    first, second, context = rows(6, 3, 1, dtype), rows(6, 3, 2, dtype), rows(6, 2, 3, dtype)
    X = make_pairs(kind(first), kind(second), context=kind(context))
    assert X.dtype == kind(first).dtype
    np.testing.assert_array_equal(np.asarray(X), np.hstack([context, first - second]))
    back_context, difference = split_pairs(X, 2)
    np.testing.assert_array_equal(np.asarray(back_context), context)
    np.testing.assert_array_equal(np.asarray(difference), first - second)
    swapped = swap_pairs(X, 2)
    assert swapped.dtype == X.dtype
    np.testing.assert_array_equal(
        np.asarray(swapped), np.asarray(make_pairs(kind(second), kind(first), context=kind(context)))
    )
    np.testing.assert_array_equal(np.asarray(swap_pairs(swapped, 2)), np.asarray(X))
    np.testing.assert_array_equal(np.asarray(make_pairs(kind(first), kind(second))), first - second)


def test_split_pairs_gives_views():
    X = rows(4, 5)
    for part in split_pairs(X, 2):
        assert np.shares_memory(part, X)


@kinds
def test_integers_become_double_precision(kind):
    X = make_pairs(kind([[3, 1]]), kind([[1, 2]]), context=kind([[0.5]]))
    assert np.asarray(X).tolist() == [[0.5, 2.0, -1.0]]
    assert np.asarray(X).dtype == np.float64


def test_unsigned_integers_do_not_wrap_around():
    assert make_pairs(np.array([[1]], dtype=np.uint8), np.array([[3]], dtype=np.uint8)).tolist() == [[-2.0]]


TABLES = {
    "lists": np.ndarray.tolist,
    "pandas": pd.DataFrame,
    "pandas, nullable": lambda values: pd.DataFrame(values).convert_dtypes(),
    "polars": pl.DataFrame,
    "arrow": lambda values: pa.Table.from_pandas(pd.DataFrame(values)),
}
NUMBERS = st.floats(-100, 100, width=32) | st.integers(-5, 5).map(float)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@given(arrays(float, st.tuples(st.integers(1, 5), st.integers(2, 5)), elements=NUMBERS), st.data())
def test_tables_and_lists_are_read_like_arrays(table, values, data):
    n_context = data.draw(st.integers(0, values.shape[1] - 1))
    for found, expected in zip(split_pairs(table(values), n_context), split_pairs(values, n_context), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)
    np.testing.assert_array_equal(swap_pairs(table(values), n_context), swap_pairs(values, n_context), strict=True)
    np.testing.assert_array_equal(
        make_pairs(table(values), table(2 * values), context=table(values)),
        make_pairs(values, 2 * values, context=values),
        strict=True,
    )


@kinds
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_a_swap_of_integers_does_not_wrap_around(kind, dtype):
    swapped = swap_pairs(kind(np.array([[1, 1, 0]], dtype=dtype)), 1)
    assert np.asarray(swapped).tolist() == [[1.0, -1.0, 0.0]]
    assert np.asarray(swapped).dtype == np.float64


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([["tall", "short"]], "X: expected numbers, got a list with entries of type <U5"),
        ([[1.0], [1.0, 2.0]], r"X: expected numbers of shape \(n_samples, n_features\), got a list: "),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "got a DataFrame: could not convert string to float: 'x'"),
        ([[1j, 0.0]], "got a list with entries of type complex128"),
        ([1.0, 2.0], "got a list of 1 dimension"),
        (pd.Series([1.0, 2.0]), "got a Series of 1 dimension"),
        (torch.ones(2), "got a Tensor of 1 dimension"),
        (scipy.sparse.eye_array(3), "expected dense rows, got a sparse dia_array"),
    ],
)
def test_rows_that_are_no_numbers(X, message):
    for function in (split_pairs, swap_pairs):
        with pytest.raises(ValueError, match=message):
            function(X, 0)


@pytest.mark.parametrize(
    ("first", "second", "context", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], None, r"second: expected the shape of first, \(1, 2\), got \(1, 1\)"),
        ([1.0], [[1.0]], None, r"first: expected shape \(n_samples, n_features\), got a list of 1 dimension"),
        ([[1.0]], [1.0], None, "second: expected shape"),
        ([[1.0]], [[1.0]], [1.0], "context: expected shape"),
        ([[1.0]], [[1.0]], [[1.0], [2.0]], "context: expected 1 rows, as the responses have, got 2"),
    ],
)
def test_bad_features(first, second, context, message):
    with pytest.raises(ValueError, match=message):
        make_pairs(first, second, context=context)


@pytest.mark.parametrize("function", [split_pairs, swap_pairs, PairReader, root_mean_square_norms])
def test_a_context_that_leaves_no_difference(function):
    with pytest.raises(ValueError, match=r"one column for the difference, got n_context_features=3 and X with 3"):
        function(rows(4, 3), 3)


@kinds
def test_narrow_context(kind):
    X = kind(rows(5, 6))
    assert narrow_context(X, 3, 3) is X
    np.testing.assert_array_equal(np.asarray(narrow_context(X, 3, 0)), np.asarray(X)[:, 3:])
    np.testing.assert_array_equal(np.asarray(narrow_context(X, 3, 2)), np.asarray(X)[:, [0, 1, 3, 4, 5]])


# -------------------------------------------------------------------------------------------------------------- reader


@kinds
@dtypes
@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_blocks_cover_every_row_once_in_the_dtype_of_computation(n, dtype, kind, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X = rows(n, 5, dtype=dtype)
    parts = list(PairReader(kind(X), 2))
    assert len(parts) == -(-n // 64)
    wanted = np.float64 if dtype == np.float64 else np.float32
    for block in parts:
        assert np.asarray(block.context).dtype == np.asarray(block.difference).dtype == wanted
        np.testing.assert_array_equal(np.asarray(block.context), X[block.rows, :2])
        np.testing.assert_array_equal(np.asarray(block.difference), X[block.rows, 2:])
    assert np.concatenate([np.arange(n)[b.rows] for b in parts]).tolist() == list(range(n))


# --------------------------------------------------------------------------------------------------------------- norms


@kinds
@given(
    n=st.integers(1, 150),
    widths=st.tuples(st.integers(0, 3), st.integers(1, 4)),
    exponent=st.sampled_from([-200, -20, 0, 20, 200]),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_norms_are_root_mean_squares_at_any_scale(kind, n, widths, exponent, weighted, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, sum(widths))) * rng.exponential(size=(n, 1))
    weight = rng.exponential(size=n) if weighted else None
    expected = [
        np.sqrt(np.average((part**2).sum(axis=1), weights=weight)) for part in (X[:, : widths[0]], X[:, widths[0] :])
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", 1)
        found = root_mean_square_norms(kind(X * 10.0**exponent), widths[0], weight)
    np.testing.assert_allclose(found / 10.0**exponent, expected, rtol=1e-10)


def test_norms_of_growing_and_of_vanishing_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X = np.ones((256, 2))
    X[64:128] = 1e200
    X[128:192] = 0.0
    X[192:] = 1e-200
    np.testing.assert_allclose(root_mean_square_norms(X, 1), [0.5e200, 0.5e200])


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.float32, 1e-20), (np.float32, 1e20), (np.float32, 1e-40), (np.float64, 1e-310)]
)
def test_norms_at_the_edge_of_the_precision(dtype, value):
    np.testing.assert_allclose(
        root_mean_square_norms(np.full((3, 4), value, dtype=dtype), 0), [0.0, 2 * value], rtol=1e-4
    )


@kinds
@dtypes
@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("column", [0, 2, 4])
def test_norms_name_the_first_entry_that_is_not_finite(column, bad, name, dtype, kind, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X = rows(200, 5, dtype=dtype)
    X[130, column] = X[140, 3] = bad
    with pytest.raises(ValueError, match=f"X contains NaN or infinity: {name} in row 130, column {column}$"):
        root_mean_square_norms(kind(X), 2)


def test_a_bfloat16_tensor_names_its_bad_entry_too():
    X = torch.ones(3, 4, dtype=torch.bfloat16)
    X[2, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN in row 2, column 1"):
        root_mean_square_norms(X, 0)


# -------------------------------------------------------------------------------------------------------------- scaler


@kinds
@dtypes
def test_scaled_norms_are_what_was_asked_for(dtype, kind, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    X = rows(150, 5, dtype=dtype) * np.array([7, 7, 0.2, 0.2, 0.2], dtype=dtype)
    scaler = PairScaler(2, context_norm=4.0, difference_norm=2.0)
    scaled = scaler.fit(kind(X)).transform(kind(X))
    assert np.asarray(scaled).dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(root_mean_square_norms(scaled, 2), [4.0, 2.0], rtol=1e-5)
    factors = np.repeat(scaler.scale_, [2, 3])
    np.testing.assert_allclose(np.asarray(scaled), X.astype(np.float64) * factors, rtol=1e-5)
    assert type(scaled) is type(kind(X))
    assert np.asarray(X).dtype == dtype


def test_defaults_and_their_scale():
    scaler = PairScaler(2)
    scaler.fit(rows(50, 5))
    np.testing.assert_allclose(
        root_mean_square_norms(scaler.transform(rows(50, 5)), 2),
        [scaler.context_norm, scaler.difference_norm],
        rtol=1e-12,
    )


@given(st.integers(0, 1000), st.sampled_from([1e-20, 0.3, 1e20]))
def test_scaling_commutes_with_swapping_and_forgets_the_unit(seed, unit):
    X = rows(20, 5, seed)
    scaler = PairScaler(2).fit(X)
    np.testing.assert_array_equal(scaler.transform(swap_pairs(X, 2)), swap_pairs(scaler.transform(X), 2))
    np.testing.assert_allclose(PairScaler(2).fit_transform(X * unit), scaler.transform(X), rtol=1e-10)


def test_a_weight_of_two_is_a_repeated_row_of_the_scaler():
    X = rows(10, 4)
    weight = np.ones(10)
    weight[3] = 2
    weighted = PairScaler(1).fit(X, sample_weight=weight).scale_
    np.testing.assert_allclose(weighted, PairScaler(1).fit(np.vstack([X, X[3:4]])).scale_, rtol=1e-14)
    assert np.abs(weighted - PairScaler(1).fit(X).scale_).max() > 1e-4


def test_blocks_without_columns_or_with_zeros_only_stay():
    assert PairScaler(0).fit(rows(5, 3)).scale_[0] == 1.0
    X = rows(5, 3)
    X[:, :1] = 0
    scaler = PairScaler(1).fit(X)
    assert scaler.scale_[0] == 1.0
    assert scaler.transform(X)[:, 0].tolist() == [0.0] * 5


@kinds
def test_scaler_errors(kind):
    X = rows(70, 4)
    scaler = PairScaler(1).fit(kind(X))
    X[66, 2] = np.inf
    for act in (PairScaler(1).fit, scaler.transform):
        with pytest.raises(ValueError, match="infinity in row 66, column 2"):
            act(kind(X))
    X[66, 0] = np.nan
    with pytest.raises(ValueError, match="NaN in row 66, column 0"):
        scaler.transform(kind(X))
    with pytest.raises(ValueError, match="X has 3 features, but PairScaler is expecting 4"):
        scaler.transform(kind(X[:, :3]))


@pytest.mark.parametrize("name", ["context_norm", "difference_norm"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_norms_must_be_positive(name, value):
    with pytest.raises(ValueError, match=rf"{name}: expected a number in \[1e-10, 1e\+10\], got {value}"):
        PairScaler(**{name: value}).fit(rows(3, 2))


def test_scaler_survives_pickling_and_reads_files(tmp_path):
    X = rows(300, 5, dtype=np.float16)
    mapped = np.memmap(tmp_path / "x", dtype=np.float16, mode="w+", shape=X.shape)
    mapped[:] = X
    scaler = pickle.loads(pickle.dumps(PairScaler(2).fit(mapped)))
    np.testing.assert_array_equal(scaler.scale_, PairScaler(2).fit(X).scale_)
    np.testing.assert_array_equal(scaler.transform(mapped), scaler.transform(X))


def test_examples_in_the_documentation():
    found = [doctest.testmod(module) for module in (pairs, scaler_module)]
    assert sum(one.attempted for one in found) >= 4
    assert not any(one.failed for one in found)


def test_arrays_of_two_libraries_do_not_make_pairs():
    array, tensor = np.ones((2, 3)), torch.ones(2, 3)
    with pytest.raises(
        TypeError, match=r"first and second: expected NumPy arrays alone .* got a NumPy array and a torch tensor"
    ):
        make_pairs(array, tensor)
    with pytest.raises(
        TypeError, match=r"context and responses: expected NumPy arrays alone .* got a NumPy array and a torch"
    ):
        make_pairs(tensor, tensor, context=array)


def test_a_context_beyond_half_precision_widens_the_pairs():
    X = make_pairs(np.ones((1, 1), np.float16), np.zeros((1, 1), np.float16), context=np.array([[1e5]], np.float32))
    assert X.dtype == np.float32
    assert X.tolist() == [[1e5, 1.0]]
