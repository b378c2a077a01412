"""Rows that repeat: found exactly, scored once, and the same to every objective and fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micropref import HierarchicalBradleyTerry, MixtureBradleyTerry
from micropref._engine import mixture_objective
from micropref._engine.gates import Gate
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._rows import distinct_pairs as module
from micropref._rows.comparisons import Comparisons
from micropref._rows.distinct_pairs import DistinctPairs, distinct_pairs, merged_repetitions
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader


@pytest.fixture(autouse=True)
def rows_of_any_number(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_ENTRIES", 0)
    monkeypatch.setattr(module, "_NARROW", 0)


@pytest.fixture
def any_share(monkeypatch):
    monkeypatch.setattr(module, "_MOST_DISTINCT", 1.0)


def repeated(n_distinct, n, d=4, dtype=np.float64, seed=0, turned=True):
    """Rows, which of the distinct differences each has, and its sign."""
    rng = np.random.default_rng(seed)
    pairs = rng.normal(size=(n_distinct, d)).astype(dtype)
    which = np.concatenate([np.arange(n_distinct), rng.integers(n_distinct, size=n - n_distinct)])
    signs = np.where(turned & (rng.random(n) < 0.5), -1, 1)
    return (pairs[which] * signs[:, None]).astype(dtype), which, signs


def rebuilt(pairs: DistinctPairs):
    return pairs.differences[pairs.index] * pairs.signs[:, None]


# ---------------------------------------------------------------------------------------------------- what is found


@given(
    st.integers(1, 12),
    st.integers(24, 60),
    st.sampled_from([1, 2, 5, 40]),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.integers(0, 99),
)
def test_distinct_differences_are_found_up_to_their_sign(n_distinct, n, d, dtype, seed):
    X, which, _ = repeated(n_distinct, n, d, dtype, seed)
    pairs = distinct_pairs(PairReader(X, 0))
    # In half precision two of few numbers may happen to be equal.
    n_different = len(np.unique(np.abs(X[:, 0]) if d == 1 else X * np.sign(X[:, :1]), axis=0))
    assert pairs.n_distinct == n_different <= n_distinct
    assert pairs.differences.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(rebuilt(pairs), X)
    for one in range(n_distinct):
        assert len(np.unique(pairs.index[which == one])) == 1


def test_zeros_lead_rows_and_negative_zeros_are_zeros():
    X = np.array([[0.0, 2.0], [-0.0, -2.0], [0.0, 0.0], [-0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [-2.0, -0.0], [0.0, -2.0]])
    pairs = distinct_pairs(PairReader(X, 0))
    assert pairs.n_distinct == 3
    np.testing.assert_array_equal(rebuilt(pairs), X)


@pytest.mark.usefixtures("any_share")
def test_rows_that_differ_beyond_single_precision_are_different():
    X = np.repeat(np.array([[1.0, 1.0], [1.0, 1.0 + 1e-12]]), 4, axis=0)
    np.testing.assert_array_equal(rebuilt(distinct_pairs(PairReader(X, 0))), X)
    tiny = np.repeat(np.array([[1e-60, -1.0], [-1e-60, -1.0]]), 6, axis=0)
    np.testing.assert_array_equal(rebuilt(distinct_pairs(PairReader(tiny, 0))), tiny)


def test_hashes_that_collide_confuse_no_rows(monkeypatch):
    X, _, _ = repeated(3, 40)
    original = module._keys
    monkeypatch.setattr(module, "_keys", lambda X, turned: (np.zeros(len(X), np.uint64), original(X, turned)[1]))
    assert distinct_pairs(PairReader(X, 0)) is None  # most rows differ from the one they were taken for
    monkeypatch.setattr(module, "_MOST_DISTINCT", 1.0)
    np.testing.assert_array_equal(rebuilt(distinct_pairs(PairReader(X, 0))), X)


def test_what_is_left_as_it_is(tmp_path, monkeypatch):
    X, _, _ = repeated(3, 40)
    assert distinct_pairs(PairReader(X, 0)) is not None
    assert distinct_pairs(PairReader(torch.from_numpy(X), 0)) is None
    np.save(tmp_path / "x.npy", X)
    assert distinct_pairs(PairReader(np.load(tmp_path / "x.npy", mmap_mode="r"), 0)) is None
    assert distinct_pairs(PairReader(X[:5], 0)) is None  # three of five are distinct
    monkeypatch.setattr(module, "_NARROW", 100)
    assert distinct_pairs(PairReader(X, 0)) is None  # four columns: three of forty are too many
    monkeypatch.setattr(module, "_LEAST_ENTRIES", 1000)
    assert distinct_pairs(PairReader(X, 0)) is None


def test_a_few_columns_show_that_rows_do_not_repeat(monkeypatch):
    asked = []
    original = module._keys
    monkeypatch.setattr(module, "_keys", lambda X, turned: (asked.append(X.shape), original(X, turned))[1])
    assert distinct_pairs(PairReader(np.random.default_rng(0).normal(size=(50, 320)), 0)) is None
    assert asked == [(50, 16)]


def test_contexts_are_no_part_of_a_pair():
    X, _, _ = repeated(3, 40)
    wide = np.hstack([np.random.default_rng(1).normal(size=(40, 2)), X])
    pairs = distinct_pairs(PairReader(wide, 2))
    assert pairs.n_distinct == 3
    np.testing.assert_array_equal(rebuilt(pairs), X)


# ------------------------------------------------------------------------------------------------------- objectives

GATES = ((0, 0), (2, 0), (2, 3))


def of_rows(X, c, signs, weight, groups):
    return Comparisons(PairReader(X, c), signs, weight, check_groups(groups, len(X)))


@given(
    st.sampled_from(GATES),
    st.integers(1, 3),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_votes_on_distinct_pairs_have_the_value_and_gradient_of_the_rows(gate, k, dtype, weighted, signed, seed):
    (c, hidden), rng = gate, np.random.default_rng(seed)
    D, _, _ = repeated(6, 40, dtype=dtype, seed=seed)
    X = np.hstack([rng.normal(size=(40, c)).astype(dtype), D])
    weight = rng.integers(0, 3, size=40).astype(float) if weighted else None
    if weighted:
        weight[0] = 1.5
    groups = rng.integers(-1, 7, size=40)
    rows = of_rows(X, c, rng.choice([-1, 1], size=40).astype(np.int8) if signed else None, weight, groups)
    gate = Gate.create("mlp" if hidden else "linear", c, k, hidden)
    settings = (rows, gate, Penalties(0.3, 0.7, 0.5))
    plain, once = MixtureObjective(*settings), MixtureObjective.of_fit(*settings)
    assert (plain.pairs, once.pairs.n_distinct) == (None, len(np.unique(D * np.sign(D[:, :1]), axis=0)))
    vectors = rng.normal(size=(3, sum(int(np.prod(s)) for s in plain.shapes)))
    tolerance = 1e-12 if dtype is np.float64 else 2e-5
    values, gradients = once.values_and_gradients(vectors)
    for vector, value, gradient in zip(vectors, values, gradients, strict=True):
        expected, slope = plain.value_and_gradient(vector)
        assert value == pytest.approx(expected, rel=tolerance)
        np.testing.assert_allclose(gradient, slope, atol=tolerance)
        alone, alone_slope = once.value_and_gradient(vector)
        assert alone == pytest.approx(value, rel=tolerance)
        np.testing.assert_allclose(alone_slope, gradient, atol=tolerance)


def test_evidence_from_before_counts_with_distinct_pairs():
    X, _, _ = repeated(4, 30)
    rows, prior = of_rows(X, 0, None, None, np.arange(30) // 5), np.random.default_rng(0).normal(size=(2, 6))
    gate, vector = Gate.create("linear", 0, 2, 0), np.random.default_rng(1).normal(size=10)
    found = [
        MixtureObjective(rows, gate, prior_evidence=prior, pairs=pairs).value_and_gradient(vector)
        for pairs in (None, distinct_pairs(rows.reader))
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-12)


def test_margins_of_any_size_and_rows_without_weight():
    X, _, _ = repeated(4, 30)
    groups, weight = np.arange(30) // 5, np.repeat([0.0, 1.0], 15)
    rows = of_rows(X * 1e4, 0, None, weight, groups)
    settings = (rows, Gate.create("linear", 0, 2, 0))
    vector = np.random.default_rng(1).normal(size=10)
    found = [
        MixtureObjective(*settings, pairs=pairs).value_and_gradient(vector)
        for pairs in (None, distinct_pairs(rows.reader))
    ]
    assert np.isfinite(found[1][0])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-8)


# ------------------------------------------------------------------------------------------------ ungrouped rows


@given(st.integers(0, 2), st.booleans(), st.booleans(), st.sampled_from([np.float32, np.float64]), st.integers(0, 99))
def test_repetitions_become_weights(c, signed, weighted, dtype, seed):
    rng = np.random.default_rng(seed)
    D, which, _ = repeated(5, 60, dtype=dtype, seed=seed)
    context = rng.normal(size=(3, c)).astype(dtype)[which % 3]
    signs = rng.choice([-1, 1], size=60).astype(np.int8) if signed else None
    weight = rng.integers(0, 4, size=60).astype(float) if weighted else None
    if weighted:
        weight[0] = 2.0
    rows = of_rows(np.hstack([context, D]), c, signs, weight, None)
    merged = merged_repetitions(rows)
    assert merged.n_samples <= 10
    assert merged.total_weight == rows.total_weight
    gate = Gate.create("linear", c, 2, 0)
    vector = rng.normal(size=8 + (2 * c + 2))
    expected, slope = MixtureObjective(rows, gate).value_and_gradient(vector)
    value, gradient = MixtureObjective(merged, gate).value_and_gradient(vector)
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    assert value == pytest.approx(expected, rel=tolerance)
    np.testing.assert_allclose(gradient, slope, atol=tolerance)


def test_rows_with_other_contexts_are_no_repetitions():
    D, _, _ = repeated(5, 60)
    rng = np.random.default_rng(0)
    each = of_rows(np.hstack([rng.normal(size=(60, 1)), D]), 1, None, None, None)
    assert merged_repetitions(each) is each
    # A context and its negative are different contexts.
    opposite = of_rows(np.hstack([rng.choice([-1.0, 1.0], size=(60, 1)), D]), 1, None, None, None)
    pairs = distinct_pairs(opposite.reader)
    cells = np.unique(np.stack([pairs.index * pairs.signs, pairs.signs, opposite.reader.X[:, 0]]), axis=1)
    assert merged_repetitions(opposite).n_samples == cells.shape[1]


def test_groups_and_distinct_rows_are_not_merged():
    D, _, _ = repeated(5, 60)
    grouped = of_rows(D, 0, None, None, np.arange(60) // 2)
    assert merged_repetitions(grouped) is grouped
    weighted = grouped.with_group_weight(np.repeat(np.arange(1.0, 31.0), 2))
    assert merged_repetitions(weighted) is weighted
    distinct = of_rows(np.random.default_rng(0).normal(size=(60, 4)), 0, None, None, None)
    assert merged_repetitions(distinct) is distinct


# ------------------------------------------------------------------------------------------------------------- fits


def votes(n=400, c=0, seed=0):
    rng = np.random.default_rng(seed)
    D, _, _ = repeated(25, n, d=3, seed=seed)
    group = rng.integers(40, size=n)
    y = (D[:, 0] * np.where(group % 2, 3, -3) + rng.logistic(size=n) > 0).astype(int)
    kinds = rng.normal(size=(2, c))
    return np.hstack([kinds[group % 2], D]), y, group


@pytest.mark.parametrize("c", [0, 2])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("k", [1, 2])
def test_a_fit_is_the_fit_of_the_rows(k, grouped, c, monkeypatch):
    X, y, group = votes(c=c)
    rng = np.random.default_rng(1)
    weight, group = rng.integers(1, 3, size=len(X)).astype(float), group if grouped else None
    fits = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(module, "_LEAST_ENTRIES", least)
        model = MixtureBradleyTerry(k, n_context_features=c, random_state=0, tol=1e-9, max_iter=2000)
        fits.append(model.fit(X, y, sample_weight=weight, groups=group))
    assert fits[0].objective_ == pytest.approx(fits[1].objective_, abs=1e-12)
    assert fits[0].history_temperature_ == fits[1].history_temperature_
    np.testing.assert_allclose(fits[0].predict_proba(X), fits[1].predict_proba(X), atol=1e-7)
    np.testing.assert_allclose(fits[0].weights_, fits[1].weights_, atol=1e-7)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_repeated_row_equals_weight_2(grouped):
    X, y, group = votes()
    group = group if grouped else None
    again = np.r_[np.arange(len(X)), np.arange(0, len(X), 3)]
    weight = 1.0 + (np.arange(len(X)) % 3 == 0)
    settings = {"n_components": 2, "random_state": 0, "tol": 1e-9, "max_iter": 2000, "alpha": 1e-2}
    rows = MixtureBradleyTerry(**settings).fit(X[again], y[again], groups=None if group is None else group[again])
    weights = MixtureBradleyTerry(**settings).fit(X, y, sample_weight=weight, groups=group)
    assert rows.objective_ == pytest.approx(weights.objective_, abs=1e-12)
    np.testing.assert_allclose(rows.predict_proba(X), weights.predict_proba(X), atol=1e-7)


def test_a_fit_of_votes_reads_its_rows_no_more(monkeypatch):
    """The products with heads are those of the distinct pairs, in the temperature's own short fit too."""
    X, y, group = votes()
    monkeypatch.setattr(mixture_objective, "stacked_sums", None)
    monkeypatch.setattr(mixture_objective, "linear_products", None)
    MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=group)


def test_heads_of_a_hierarchical_model_are_the_same(monkeypatch):
    X, y, group = votes(120)
    found = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(module, "_LEAST_ENTRIES", least)
        settings = {"rank": 0, "tau": 0.5, "alpha": 0.01, "n_init": 1, "random_state": 0}
        model = HierarchicalBradleyTerry(2, **settings).fit(X, y, groups=group)
        found.append(model.predict_proba(X))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
