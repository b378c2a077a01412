"""Several mixtures in one read of X: every path against plain sums in double precision, with and without units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micropref.kernels import use_path
from micropref.kernels._pointwise import log_sigmoid, sigmoid, unit_terms
from micropref.kernels._stacked import StackedSums, stacked_sums
from micropref.kernels._units import RowUnits

PATHS = ["blas", "numba"]


def plain(X, heads, gate_weights, offsets, c, *, units=None, contexts=None, prior=None, weight=None, signs=None,
          balance=0.0):  # fmt: skip
    """The same sums in double precision, unit by unit."""
    X, heads = X.astype(np.float64), heads.astype(np.float64)
    n, (s, k, d) = len(X), heads.shape
    sign = np.ones(n) if signs is None else signs.astype(np.float64)
    weight = np.ones(n) if weight is None else weight.astype(np.float64)
    index = np.arange(n) if units is None else units["index"]
    outer, mass = (weight, weight) if units is None else (units["outer"], units["mass"])
    inner = np.ones(n) if units is None else weight
    contexts = X[:, :c] if units is None else contexts
    found = StackedSums(
        np.zeros(s), np.zeros((s, k, d)), None if gate_weights is None else np.zeros((s, k, c)), np.zeros((s, k))
    )
    for i in range(s):
        margins = sign * (heads[i] @ X[:, c:].T)
        evidence = np.zeros((k, len(outer)))
        np.add.at(evidence.T, index, (inner * log_sigmoid(margins)).T)
        if prior is not None:
            evidence[:, : prior.shape[1]] += prior
        logits = np.zeros((k, len(outer)))
        if offsets is not None:
            logits += offsets[i].astype(np.float64)[:, None]
        if gate_weights is not None:
            logits += gate_weights[i].astype(np.float64) @ contexts.astype(np.float64).T
        found.loss[i], d_logits, responsibilities = unit_terms(logits, evidence, outer, mass, balance)
        d_margins = -(outer[index] * inner) * responsibilities[:, index] * sigmoid(-margins) * sign
        found.heads[i] = d_margins @ X[:, c:]
        found.offsets[i] = d_logits.sum(axis=1)
        if gate_weights is not None:
            found.gate_weights[i] = d_logits @ contexts.astype(np.float64)
    return found


def world(seed, n=90, c=3, d=5, s=2, k=3, dtype=np.float64, grouped="unsorted", weighted=True, prior=False):
    """Arguments of `stacked_sums` and of `plain`."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, c + d)).astype(dtype)
    compute = np.float64 if dtype == np.float64 else np.float32
    heads, gate, offsets = (rng.normal(size=(s, k, *more)).astype(compute) for more in ((d,), (c,), ()))
    given = {"weight": rng.exponential(size=n) if weighted else None, "signs": rng.choice([-1, 1], n).astype(np.int8)}
    truth = dict(given)
    if grouped is not None:
        index = rng.integers(0, max(1, n // 4), n)
        if grouped == "sorted":
            index = np.sort(index)
        elif grouped == "runs":
            index = rng.permutation(max(1, n // 4))[np.sort(index)]
        elif grouped == "one":
            index = np.zeros(n, int)
        n_units = int(index.max(initial=0)) + 1
        outer, mass = rng.exponential(size=n_units) * (rng.random(n_units) < 0.9), rng.exponential(size=n_units)
        present = np.bincount(index, minlength=n_units) > 0
        outer, mass = outer * present, mass * present
        contexts = rng.normal(size=(n_units, c)).astype(compute)
        more = {"contexts": contexts, "prior": rng.normal(size=(k, n_units // 2)) if prior else None}
        given.update(units=RowUnits.of(index.astype(np.int32), outer, mass), **more)
        truth.update(units={"index": index, "outer": outer, "mass": mass}, **more)
    return (X, heads, gate if c else None, offsets, c), given, truth


def assert_close(found, expected, tolerance):
    for value, true in zip(found, expected, strict=True):
        if true is None:
            assert value is None
        else:
            assert value.dtype == np.float64
            np.testing.assert_allclose(value, true, rtol=0, atol=tolerance * max(1e-30, np.abs(true).max(initial=0)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grouped", [None, "unsorted", "sorted", "runs", "one"])
@pytest.mark.parametrize(("c", "k", "s"), [(0, 1, 1), (0, 4, 3), (3, 2, 1), (7, 5, 2), (2, 32, 2)])
@pytest.mark.parametrize("balance", [0.0, 0.3])
def test_sums_are_the_plain_ones(path, grouped, c, k, s, balance):
    given, keywords, truth = world(0, c=c, k=k, s=s, grouped=grouped, prior=True)
    with use_path(path):
        found = stacked_sums(*given, **keywords, balance=balance)
    assert_close(found, plain(*given, **truth, balance=balance), 1e-13)


@pytest.mark.parametrize("path", PATHS)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 300),
    c=st.integers(0, 4),
    k=st.integers(1, 6),
    s=st.integers(1, 4),
    grouped=st.sampled_from([None, "unsorted", "sorted", "runs", "one"]),
    weighted=st.booleans(),
)
def test_any_units(path, seed, n, c, k, s, grouped, weighted):
    given, keywords, truth = world(seed, n=n, c=c, k=k, s=s, grouped=grouped, weighted=weighted)
    with use_path(path):
        assert_close(stacked_sums(*given, **keywords), plain(*given, **truth), 1e-12)


@given(st.lists(st.integers(0, 6), max_size=40))
def test_units_hold_every_row_once(index):
    index = np.array(index, np.int32)
    units = RowUnits.of(index, np.ones(7), np.ones(7))
    order = np.arange(len(index)) if units.order is None else units.order
    assert sorted(order) == list(range(len(index)))
    assert sorted(units.numbers) == sorted(set(index))
    assert units.largest == max(np.bincount(index), default=0)
    first = []
    for number, start, stop in zip(units.numbers, units.starts[:-1], units.starts[1:], strict=True):
        rows = order[start:stop]
        assert len(rows)
        assert (np.diff(rows) > 0).all()
        assert set(index[rows]) == {number}
        first.append(rows[0])
    assert first == sorted(first)
    assert units.in_stored_order == (list(order) == list(range(len(index))))
    for most in (1, 3, 100):
        blocks = units.blocks(slice(0, units.n_present), most)
        assert [u for block in blocks for u in range(block.start, block.stop)] == list(range(units.n_present))
        for block in blocks:
            assert units.starts[block.stop] - units.starts[block.start] <= most or block.stop == block.start + 1


@pytest.mark.parametrize("path", PATHS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**20), grouped=st.sampled_from(["unsorted", "sorted", "runs"]), share=st.floats(0, 1))
def test_rows_of_units_without_weight_are_not_read(path, seed, grouped, share):
    (X, *parameters), keywords, truth = world(seed, n=200, grouped=grouped)
    units = truth["units"]
    used = np.random.default_rng(seed).random(len(units["mass"])) >= share
    outer, mass = units["outer"] * used, units["mass"] * used
    keywords["units"] = RowUnits.of(units["index"].astype(np.int32), outer, mass)
    assert keywords["units"].in_stored_order or grouped == "unsorted"
    X[~used[units["index"]]] = np.nan
    with use_path(path):
        found = stacked_sums(X, *parameters, **keywords, balance=0.3)
    truth["units"] = dict(units, outer=outer, mass=mass)
    assert_close(found, plain(np.nan_to_num(X), *parameters, **truth, balance=0.3), 1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["float16", "float32", "bfloat16", "torch"])
@pytest.mark.parametrize("grouped", [None, "unsorted", "sorted"])
def test_any_precision(path, kind, grouped):
    (X, *parameters), keywords, truth = world(1, n=200, dtype=np.float32, grouped=grouped)
    stored = X.astype(np.float16) if kind == "float16" else X
    if kind in ("bfloat16", "torch"):
        stored = torch.tensor(X)
        stored = stored.bfloat16() if kind == "bfloat16" else stored
    exact = stored.double().numpy() if isinstance(stored, torch.Tensor) else stored.astype(np.float64)
    with use_path(path):
        found = stacked_sums(stored, *parameters, **keywords)
    assert_close(found, plain(exact, *parameters, **truth), 2e-6)


@pytest.mark.parametrize("path", PATHS)
def test_no_rows(path):
    given, keywords, _ = world(0, n=0, grouped=None)
    with use_path(path):
        found = stacked_sums(*given, **keywords)
    assert not any(value.any() for value in found)


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr("micropref.kernels._threads._ENTRIES_PER_SLICE", 500)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grouped", [None, "unsorted", "sorted", "runs", "one"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("small_slices")
def test_the_number_of_threads_changes_no_bit(path, grouped, dtype, monkeypatch):
    given, keywords, truth = world(5, n=900, dtype=dtype, grouped=grouped, prior=True)
    found = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        with use_path(path):
            found.append(stacked_sums(*given, **keywords, balance=0.2))
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)
    assert_close(found[0], plain(*given, **truth, balance=0.2), 1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("grouped", [None, "unsorted", "sorted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "d"), [(1, 8), (2, 19), (3, 64), (4, 5), (5, 100)])
def test_a_mixture_has_the_same_bits_alone_and_in_a_stack(k, d, dtype, grouped):
    (X, heads, gate, offsets, c), keywords, _ = world(6, n=203, d=d, k=k, s=5, dtype=dtype, grouped=grouped)
    with use_path("numba"):
        together = stacked_sums(X, heads, gate, offsets, c, **keywords, balance=0.1)
        for i in range(5):
            own = slice(i, i + 1)
            alone = stacked_sums(X, heads[own], gate[own], offsets[own], c, **keywords, balance=0.1)
            for one, all_of_them in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one[0], all_of_them[i])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grouped", [None, "unsorted", "sorted"])
@pytest.mark.parametrize("layout", ["Fortran", "columns of wider rows", "every other row", "reversed"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_layout(path, grouped, layout, dtype):
    (X, *parameters), keywords, truth = world(2, n=130, dtype=np.float32, grouped=grouped)
    wide = np.full((2 * len(X), 3 * X.shape[1]), np.nan, dtype)
    if layout == "Fortran":
        stored = np.asfortranarray(X.astype(dtype))
    elif layout == "columns of wider rows":
        stored = wide[: len(X), 4 : 4 + X.shape[1]]
    elif layout == "every other row":
        stored = wide[::2, 4 : 4 + X.shape[1]]
    else:
        stored = wide[: len(X), : X.shape[1]][::-1]
    stored[:] = X
    with use_path(path):
        found = stacked_sums(stored, *parameters, **keywords)
    assert_close(found, plain(stored.astype(np.float64), *parameters, **truth), 2e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grouped", [None, "unsorted"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_comes_through(path, grouped, bad):
    (X, *parameters), keywords, _ = world(3, n=70, grouped=grouped)
    X[33, 4] = bad
    with use_path(path), np.errstate(invalid="ignore"):
        found = stacked_sums(X, *parameters, **keywords)
    if np.isnan(bad):
        assert np.isnan(found.loss).all()
    assert not np.isfinite(found.heads[..., 1]).any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [1e3, 1e6])
@pytest.mark.parametrize("grouped", [None, "unsorted", "one"])
def test_margins_of_any_size(path, size, grouped):
    (X, heads, *parameters), keywords, truth = world(4, n=400, grouped=grouped)
    with use_path(path):
        found = stacked_sums(X, heads * size, *parameters, **keywords)
    assert_close(found, plain(X, heads * size, *parameters, **truth), 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vector_functions_are_as_exact_as_the_library(dtype):
    from micropref.kernels._numba_pointwise import log_sigmoids, posterior

    margins = np.concatenate([np.linspace(-80, 80, 4001), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e4, -1e4]]).astype(
        dtype
    )
    found = np.empty((2, len(margins)), dtype)
    log_sigmoids(margins, len(margins), *found)
    exact = margins.astype(np.longdouble)
    with np.errstate(over="ignore"):
        true = np.minimum(exact, 0) - np.log1p(np.exp(-np.abs(exact))), 1 / (1 + np.exp(exact))
    for value, expected in zip(found, true, strict=True):
        np.testing.assert_allclose(
            value, expected.astype(np.float64), rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny
        )
    evidence = np.random.default_rng(0).normal(size=(3, 64)).astype(dtype) * np.logspace(-4, 3, 64).astype(dtype)
    log_weights = np.log(np.array([[0.2], [0.3], [0.5]])).repeat(64, 1).astype(dtype)
    joint = evidence.astype(np.float64) + log_weights
    spare = np.empty((2, 64), dtype)
    posterior(log_weights, evidence, 64, *spare)
    true = np.logaddexp.reduce(joint, axis=0)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(spare[0], true, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(evidence, np.exp(joint - true), atol=tolerance * np.abs(joint).max())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("grouped", [None, "sorted", "unsorted"])
@pytest.mark.usefixtures("small_slices")
def test_a_mapped_file_gives_the_bits_of_the_array(path, grouped, tmp_path, monkeypatch):
    (X, *parameters), keywords, _ = world(7, n=400, dtype=np.float32, grouped=grouped)
    X.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=X.dtype, mode="r", shape=X.shape)
    monkeypatch.setattr("micropref.kernels._stacked._MAPPED_BYTES", 1)
    with use_path(path):
        found = [stacked_sums(rows, *parameters, **keywords) for rows in (X, mapped)]
    for in_memory, on_disk in zip(*found, strict=True):
        np.testing.assert_array_equal(in_memory, on_disk)
