"""The report before a fit: counts, effective dimension, and a verdict that fits come to agree with."""

from __future__ import annotations

import numpy as np
import pytest

from micropref.theory import identifiability_report


def differences(n=300, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_counts():
    groups = [1, 1, 1, 2, -1, 3, 3, -1]
    report = identifiability_report(differences(8), groups)
    assert (report.n_rows, report.n_groups, report.n_ungrouped, report.n_repeats) == (8, 3, 2, 3)
    assert report.pairs_per_group == (1, 2, 3)


def test_effective_dimension():
    X = np.zeros((400, 10))
    X[np.arange(400), np.arange(400) % 4] = 3.0  # four directions of the same size, whatever the width
    assert identifiability_report(X).effective_dimension == pytest.approx(4)
    assert identifiability_report(np.hstack([X, X])).effective_dimension == pytest.approx(4)
    assert identifiability_report(np.ones((5, 3))).effective_dimension == pytest.approx(1)
    context = np.random.default_rng(0).normal(size=(400, 2))
    with_context = identifiability_report(np.hstack([context, X]), n_context_features=2)
    assert with_context.effective_dimension == pytest.approx(4)
    assert identifiability_report(X.astype(np.float16)).effective_dimension == pytest.approx(4)


def test_blocks_do_not_matter():
    X = differences(9000, 3)
    second = X.T @ X
    expected = np.trace(second) ** 2 / (second**2).sum()
    assert identifiability_report(X).effective_dimension == pytest.approx(expected)


@pytest.mark.parametrize(
    ("per_group", "sufficient", "words"),
    [
        (None, False, "no annotator is known to answer twice"),
        (1, False, "no annotator is known"),
        (5, True, "enough to look"),
    ],
)
def test_verdicts(per_group, sufficient, words):
    groups = None if per_group is None else np.arange(300) // per_group
    report = identifiability_report(differences(), groups)
    assert report.sufficient is sufficient
    assert words in report.explanation


def test_few_repeats_are_named():
    groups = np.where(np.arange(300) < 40, np.arange(300) // 2, -1)
    report = identifiability_report(differences(), groups)
    assert not report.sufficient
    assert report.repeats_per_dimension == pytest.approx(20 / report.effective_dimension)
    assert "ask the same annotators again" in report.explanation


@pytest.mark.parametrize("X", [np.zeros((4, 2)), np.full((4, 2), np.nan)])
def test_bad_differences(X):
    with pytest.raises(
        ValueError, match=r"expected differences that are finite and not all zero, got (zeros only|NaN)"
    ):
        identifiability_report(X)
