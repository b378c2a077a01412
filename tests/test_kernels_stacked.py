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
    for most in (1, 3, 100):
        blocks = units.blocks(slice(0, units.n_present), most)
        assert [u for block in blocks for u in range(block.start, block.stop)] == list(range(units.n_present))
        for block in blocks:
            assert units.starts[block.stop] - units.starts[block.start] <= most or block.stop == block.start + 1


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
