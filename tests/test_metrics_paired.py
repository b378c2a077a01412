"""Paired tests and adjusted p-values: against SciPy and brute force, at their level, and not fooled by copies."""

from __future__ import annotations

import doctest
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

import micropref.metrics._adjust
import micropref.metrics._paired
from micropref.metrics import adjust_p_values, mcnemar, mean_interval, paired_bootstrap

SEEDS = st.integers(0, 2**32 - 1)


# ------------------------------------------------------------------------------------------------------------ mcnemar


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_without_clusters_it_is_binomial(only_a, only_b, both):
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(both), np.zeros(1)]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(both), np.zeros(1)]
    found = mcnemar(a, b)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    assert (found.only_a, found.only_b, found.n_clusters, found.exact) == (only_a, only_b, only_a + only_b, True)
    assert found.difference == pytest.approx((only_a - only_b) / len(a))
    assert mcnemar(a, b, clusters=np.arange(len(a))) == found if len(a) > 1 else True


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_with_clusters_it_is_every_exchange_of_names(seed):
    rng = np.random.default_rng(seed)
    n_clusters = int(rng.integers(2, 9))
    clusters = rng.integers(0, n_clusters, 40)
    clusters[:2] = 0, 1
    a, b = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    found = mcnemar(a, b, clusters)
    sums = np.array([(a - b)[clusters == c].sum() for c in range(n_clusters)])
    exchanged = [abs(np.dot(signs, sums)) >= abs(sums.sum()) for signs in product((-1, 1), repeat=n_clusters)]
    assert found.p_value == pytest.approx(np.mean(exchanged), rel=1e-12)
    assert found.n_clusters == (sums != 0).sum()


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_order_and_names_change_nothing_and_methods_are_alike(seed):
    rng = np.random.default_rng(seed)
    a, b, clusters = rng.integers(0, 2, 60), rng.integers(0, 2, 60), rng.integers(0, 12, 60)
    found = mcnemar(a, b, clusters)
    order = rng.permutation(60)
    names = rng.permutation([f"user {i}" for i in range(12)])
    assert mcnemar(a[order], b[order], names[clusters[order]]).p_value == pytest.approx(found.p_value, rel=1e-12)
    reverse = mcnemar(b, a, clusters)
    assert reverse.p_value == found.p_value
    assert reverse.difference == -found.difference


def test_the_normal_limit_is_near_the_exact_test(monkeypatch):
    rng = np.random.default_rng(5)
    clusters = np.arange(6000) // 6
    a, b = rng.random(6000) < 0.715, rng.random(6000) < 0.70
    exact = mcnemar(a, b, clusters)
    monkeypatch.setattr(micropref.metrics._paired, "_EXACT_ADDITIONS", 10)
    limit = mcnemar(a, b, clusters)
    assert (exact.exact, limit.exact) == (True, False)
    assert 0.001 < exact.p_value < 0.2
    assert limit.p_value == pytest.approx(exact.p_value, rel=0.1)


def test_copies_in_a_cluster_prove_nothing():
    """Ten copies of every row: the level is kept with clusters, and lost without."""
    rng = np.random.default_rng(6)
    tests = 400
    with_clusters = without = bootstrap = 0
    clusters = np.repeat(np.arange(40), 5)
    for seed in range(tests):
        ability = rng.beta(2, 2, size=40)
        a, b = (np.repeat(rng.random(40) < ability, 5) for _ in range(2))
        with_clusters += mcnemar(a, b, clusters).p_value <= 0.05
        bootstrap += paired_bootstrap(a, b, clusters, n_resamples=199, random_state=seed).p_value <= 0.05
        without += mcnemar(a, b).p_value <= 0.05
    assert with_clusters / tests < 0.05 + 0.025
    assert bootstrap / tests < 0.07 + 0.025
    assert without / tests > 0.25


def test_a_better_method_is_found():
    rng = np.random.default_rng(7)
    clusters = np.arange(600) // 4
    found = mcnemar(rng.random(600) < 0.85, rng.random(600) < 0.65, clusters)
    assert found.p_value < 1e-6
    assert found.difference == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 0], [1]), "correct_b: expected 2 rows, as correct_a has, got 1"),
        (([], []), "correct_a: expected shape"),
        (([[1]], [1]), r"got shape \(1, 1\)"),
        (([1, 0], [1, np.nan]), "correct_b: expected True and False only, got .*nan.* in row 1"),
        (([1, 0], [0, 1], ["u", "u"]), "expected at least two clusters for a test of clusters, got 1"),
        (([1, 0], [0, 1], ["u"]), "inconsistent numbers of samples"),
    ],
)
def test_mcnemar_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        mcnemar(*arguments)


# ---------------------------------------------------------------------------------------------------------- bootstrap


def test_bootstrap_by_hand():
    rng = np.random.default_rng(8)
    a, b, weight = rng.normal(size=60), rng.normal(size=60), rng.random(60)
    clusters = np.array([f"user {i:02}" for i in rng.integers(0, 12, 60)])
    found = paired_bootstrap(a, b, clusters, weight, level=0.9, n_resamples=150, random_state=3)
    assert found.n_clusters == len(np.unique(clusters))
    assert tuple(mean_interval(a - b, clusters, weight, level=0.9, n_resamples=150, random_state=3)) == (
        found.difference, found.low, found.high,
    )  # fmt: skip
    names = np.unique(clusters)
    m = len(names)
    means = []
    for drawn in np.random.RandomState(3).randint(m, size=(150, m), dtype=np.int32):
        rows = np.concatenate([np.flatnonzero(clusters == names[i]) for i in drawn])
        means.append(np.average((a - b)[rows], weights=weight[rows]))
    beyond = np.sqrt(m / (m - 1)) * np.abs(np.array(means) - found.difference) >= abs(found.difference)
    assert found.p_value == (1 + beyond.sum()) / 151
    assert 0.01 < found.p_value < 0.99


def test_level_and_coverage_of_the_bootstrap():
    rng = np.random.default_rng(9)
    tests, rejected, covered = 400, 0, 0
    clusters = np.arange(120) // 3
    for seed in range(tests):
        user = rng.normal(size=40)[clusters]
        a, b = user + 0.3 + rng.normal(size=120), user + rng.normal(size=40)[clusters]
        found = paired_bootstrap(a, b, clusters, n_resamples=199, random_state=seed)
        covered += found.low <= 0.3 <= found.high
        rejected += paired_bootstrap(a - 0.3, b, clusters, n_resamples=199, random_state=seed).p_value <= 0.05
    assert covered / tests == pytest.approx(0.94, abs=0.03)
    assert rejected / tests == pytest.approx(0.055, abs=0.03)


def test_p_is_never_0_and_few_clusters_prove_little():
    clusters = np.repeat([0, 1, 2], 50)
    assert paired_bootstrap(np.ones(150), np.zeros(150), clusters).p_value == 0.25
    assert paired_bootstrap(np.ones(150), np.zeros(150), n_resamples=99).p_value == 0.01
    assert paired_bootstrap(np.ones(5), np.ones(5)).p_value == 1.0


def test_the_bootstrap_is_odd_and_blind_to_a_common_shift():
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=50), rng.normal(size=50)
    found, reverse = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert (reverse.difference, reverse.p_value) == (-found.difference, found.p_value)
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))
    shifted = paired_bootstrap(a + 5, b + 5)
    assert shifted.difference == pytest.approx(found.difference)
    assert shifted.p_value == found.p_value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values_b": [1.0]}, r"values_b: expected the shape of values_a, \(3,\), got \(1,\)"),
        ({"values_a": [1.0, np.nan, 0.0]}, "values_a: expected finite numbers, got nan in row 1"),
        ({"values_b": [1.0, 1.0, np.inf]}, "values_b: expected finite numbers, got inf in row 2"),
        ({"values_a": [], "values_b": []}, "at least one row"),
        ({"clusters": ["u", "u", "u"]}, "expected at least two clusters with positive weight for an interval, got 1"),
        ({"clusters": ["u"]}, "inconsistent numbers of samples"),
        ({"level": 1.0}, "level: expected a number between 0 and 1"),
        ({"n_resamples": 0}, "n_resamples: expected at least 1"),
    ],
)
def test_bootstrap_names_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(**({"values_a": [1.0, 0.0, 2.0], "values_b": [0.0, 0.0, 1.0]} | arguments))


# ----------------------------------------------------------------------------------------------------- several tests


def test_adjusted_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(adjust_p_values(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_p_values(p, "benjamini-hochberg"), [0.02, 0.04, 0.04, 0.02])
    np.testing.assert_allclose(adjust_p_values(p, "bonferroni"), [0.04, 0.16, 0.12, 0.02])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.03, 0.2, 0.7, 1.0]) | st.floats(0, 1), min_size=1, max_size=8)
)
def test_adjusted_values_are_the_levels_at_which_procedures_reject(p):
    """Rejected at exactly those levels that the step-by-step procedure rejects at."""
    p = np.array(p)
    m, order = len(p), np.argsort(p, kind="stable")
    holm, bh = adjust_p_values(p, "holm"), adjust_p_values(p, "benjamini-hochberg")
    for level in (0.004, 0.05, 0.11, 0.5):
        rejected = np.zeros(m, dtype=bool)
        for step, i in enumerate(order):
            if (m - step) * p[i] > level:
                break
            rejected[i] = True
        near = np.isclose(holm, level, rtol=1e-9)
        np.testing.assert_array_equal((holm <= level) | near, rejected | near)
        last = max((step for step, i in enumerate(order) if m * p[i] / (step + 1) <= level), default=-1)
        rejected = np.isin(np.arange(m), order[: last + 1])
        near = np.isclose(bh, level, rtol=1e-9)
        np.testing.assert_array_equal((bh <= level) | near, rejected | near)
    for method in ("holm", "benjamini-hochberg", "bonferroni"):
        adjusted = adjust_p_values(p, method)
        assert ((adjusted >= p * (1 - 1e-12)) & (adjusted <= 1)).all()
        assert (np.diff(adjusted[order]) >= 0).all()
        shuffle = np.random.default_rng(0).permutation(m)
        np.testing.assert_allclose(adjust_p_values(p[shuffle], method), adjusted[shuffle], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "at least one p-value, got shape"),
        ((0.5,), r"got shape \(\)"),
        (([0.1, np.nan],), r"expected p-values in \[0, 1\], got nan in place 1"),
        (([1.1],), r"got 1\.1 in place 0"),
        (([0.1], "sidak"), "method: expected one of 'holm', 'benjamini-hochberg', 'bonferroni', got 'sidak'"),
    ],
)
def test_bad_p_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        adjust_p_values(*arguments)


@pytest.mark.parametrize("module", [micropref.metrics._adjust, micropref.metrics._paired])
def test_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
