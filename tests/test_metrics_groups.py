"""Scores by group and the best head of every group: against loops over rows, swapped, shuffled and renamed."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

import micropref.metrics._groups
import micropref.metrics._heads
from micropref.metrics import best_head_per_group, group_metrics
from micropref.plotting import CalibrationDisplay

FIGURES = ("accuracy", "log_loss", "brier", "calibration_error")


def values(scores):
    return [getattr(scores, name) for name in FIGURES]


@st.composite
def judged(draw):
    """Log-odds on a grid that has zeros and edges of bins, labels, groups with gaps, weights with zeros."""
    n = draw(st.integers(2, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    odds = rng.choice([0.0, np.log(1.5), -np.log(1.5), np.log(4.0), 2.5, -30.0], n) * rng.choice([1.0, 1.1], n)
    groups = rng.integers(-1, 4, n)
    groups[0] = 0
    weight = rng.choice([0.0, 0.5, 1.0, 2.0], n)
    weight[0] = 1.0
    return odds, rng.integers(0, 2, n), groups, weight


def by_hand(odds, y, weight, bins):
    """Every pair in both orders, one row after the other, in bins of the first response's probability."""
    right = loss = brier = total = 0.0
    table = {}
    for g, label, w in zip(odds, y, weight, strict=True):
        for order in (1, -1):
            margin = order * g
            first = label if order == 1 else 1 - label
            p = expit(margin)
            right += w * (0.5 if margin == 0 else (margin > 0) == first)
            loss += w * np.logaddexp(0, -margin if first else margin)
            brier += w * (p - first) ** 2
            total += w
        confidence = expit(abs(g))
        entry = table.setdefault(min(int((confidence - 0.5) * 2 * bins), bins - 1), [0.0, 0.0])
        entry[0] += w * confidence
        entry[1] += w * (0.5 if g == 0 else (g > 0) == label)
    error = sum(abs(a - b) for a, b in table.values()) / weight.sum()
    return [right / total, loss / total, brier / total, error]


@settings(max_examples=60, deadline=None)
@given(judged(), st.integers(1, 12))
def test_scores_are_those_of_loops_over_both_orders(case, bins):
    odds, y, groups, weight = case
    found = group_metrics(odds, y, groups, weight, bins=bins)
    np.testing.assert_allclose(values(found.pooled), by_hand(odds, y, weight, bins), rtol=1e-9, atol=1e-12)
    assert found.groups == tuple(g for g in range(4) if weight[groups == g].sum() > 0)
    for group, scores in zip(found.groups, found.per_group, strict=True):
        rows = groups == group
        np.testing.assert_allclose(
            values(scores), by_hand(odds[rows], y[rows], weight[rows], bins), rtol=1e-9, atol=1e-12
        )
        assert scores.n == ((weight > 0) & rows).sum()
    np.testing.assert_allclose(values(found.macro), np.mean([values(s) for s in found.per_group], axis=0), rtol=1e-12)
    assert found.macro.n == sum(s.n for s in found.per_group)
    assert found.pooled.n == (weight > 0).sum()


@settings(max_examples=40, deadline=None)
@given(judged(), st.randoms(use_true_random=False))
def test_swaps_shuffles_and_names_change_nothing(case, random):
    odds, y, groups, weight = case
    found = group_metrics(odds, y, groups, weight)
    swap = np.array([random.random() < 0.5 for _ in odds])
    assert group_metrics(np.where(swap, -odds, odds), np.where(swap, 1 - y, y), groups, weight) == found
    order = random.sample(range(len(odds)), len(odds))
    shuffled = group_metrics(odds[order], y[order], groups[order], weight[order])
    assert shuffled.groups == found.groups
    for a, b in zip((*shuffled.per_group, shuffled.pooled), (*found.per_group, found.pooled), strict=True):
        np.testing.assert_allclose(values(a), values(b), rtol=1e-12, atol=1e-12)
    names = np.array(["zeta", "beta", "alpha", "eta", None], dtype=object)  # the last for -1
    renamed = group_metrics(odds, y, names[groups], weight)
    assert dict(zip(renamed.groups, renamed.per_group, strict=True)) == {
        names[g]: s for g, s in zip(found.groups, found.per_group, strict=True)
    }


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    odds, y = 2 * rng.normal(size=300), rng.integers(0, 2, 300)
    pooled = group_metrics(odds, y).pooled
    assert pooled.log_loss == pytest.approx(log_loss(y, expit(odds)), rel=1e-12)
    assert pooled.brier == pytest.approx(brier_score_loss(y, expit(odds)), rel=1e-12)
    assert pooled.accuracy == pytest.approx(np.mean((odds > 0) == y))


def test_the_figure_and_the_number_are_one_calibration_error():
    rng = np.random.default_rng(1)
    odds = rng.normal(size=400)
    y = (rng.random(400) < expit(2 * odds)).astype(int)
    display = CalibrationDisplay.from_predictions(expit(odds), y, n_bins=7)
    assert group_metrics(odds, y, bins=7).pooled.calibration_error == pytest.approx(display.error, rel=1e-9)
    assert display.error > 0.05
    assert display.n_rows.dtype.kind == "i"
    assert display.n_rows.sum() == 400


def test_a_repeated_row_is_weight_two():
    rng = np.random.default_rng(2)
    odds, groups = rng.normal(size=20), np.arange(20) % 3
    twice = np.r_[np.arange(20), 4]
    weight = np.ones(20)
    weight[4] = 2
    for a, b in zip(
        group_metrics(odds[twice], groups=groups[twice]).per_group,
        group_metrics(odds, groups=groups, sample_weight=weight).per_group,
        strict=True,
    ):
        np.testing.assert_allclose(values(a), values(b), rtol=1e-12)


def test_rows_of_the_table():
    found = group_metrics([3.0, -1.0, 0.0], groups=["b", "a", None])
    table = found.rows()
    assert [(row["over"], row["group"], row["n"]) for row in table] == [
        ("group", "a", 1), ("group", "b", 1), ("macro", None, 2), ("pooled", None, 3),
    ]  # fmt: skip
    assert [row["accuracy"] for row in table] == [0.0, 1.0, 0.5, 0.5]
    assert all(np.isfinite(row[name]) for row in table for name in FIGURES)
    assert group_metrics([3.0, -1.0]).groups == ("all",)


def test_extreme_log_odds_are_finite():
    found = group_metrics([800.0, -800.0], [1, 1])
    assert found.pooled.log_loss == 400.0
    assert found.pooled.brier == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_odds": [1.0, np.inf]}, "expected finite numbers, got inf in row 1"),
        ({"log_odds": []}, "at least one row, got shape"),
        ({"log_odds": [[1.0]]}, r"got shape \(1, 1\)"),
        ({"log_odds": [1.0, 2.0], "y": [1]}, "X has 2 rows, y has 1"),
        ({"log_odds": [1.0, 2.0], "groups": ["a"]}, "inconsistent numbers of samples"),
        ({"log_odds": [1.0, 2.0], "groups": [None, np.nan]}, "expected a group in some row with weight"),
        (
            {"log_odds": [1.0, 2.0], "groups": ["a", None], "sample_weight": [0, 1]},
            "expected a group in some row with weight",
        ),
        ({"log_odds": [1.0], "bins": 0}, "bins: expected an integer of at least 1, got 0"),
        ({"log_odds": [1.0], "bins": 2.5}, r"bins: expected .*got 2\.5"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_metrics(**arguments)


# ----------------------------------------------------------------------------------------------------------- best heads


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_best_heads_are_those_of_loops(seed, n_heads, held_out):
    rng = np.random.default_rng(seed)
    n = 48
    margins = rng.choice([-2.0, 0.0, 1.0], size=(n, n_heads))
    y, groups, weight = rng.choice([-1, 1], n), np.arange(n) % 4 - 1, rng.choice([0.5, 1.0], n)
    choose = rng.random(n) < 0.5
    choose[:8], choose[8:16] = True, False
    found = best_head_per_group(margins, y, groups, sample_weight=weight, choose_on=choose if held_out else None)
    assert found.groups == (0, 1, 2)
    assert found.held_out == held_out
    assert found.table.shape == (n_heads, 3)

    def accuracy(rows, k):
        right = [0.5 if margins[i, k] == 0 else float(np.sign(margins[i, k]) == y[i]) for i in rows]
        return np.average(right, weights=weight[rows])

    for g in found.groups:
        chosen = np.flatnonzero((groups == g) & (choose if held_out else True))
        rows = np.flatnonzero((groups == g) & (~choose if held_out else True))
        best = int(np.argmax([round(accuracy(chosen, k), 12) for k in range(n_heads)]))
        assert accuracy(chosen, found.best[g]) == pytest.approx(accuracy(chosen, best))
        assert found.accuracy[g] == pytest.approx(accuracy(rows, found.best[g]))
        np.testing.assert_allclose(found.table[:, g], [accuracy(rows, k) for k in range(n_heads)])
        assert found.n[g] == len(rows)
    assert found.mean_accuracy == pytest.approx(found.accuracy.mean())


def test_swapped_pairs_have_the_same_best_heads():
    rng = np.random.default_rng(3)
    margins, y, groups = rng.normal(size=(60, 3)), rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    swap = rng.random(60) < 0.5
    found = best_head_per_group(margins, y, groups)
    swapped = best_head_per_group(np.where(swap[:, None], -margins, margins), np.where(swap, 1 - y, y), groups)
    np.testing.assert_array_equal(found.table, swapped.table)


def test_chosen_on_the_labels_it_is_an_upper_end():
    """Heads that know nothing are a coin, unless the best of them is chosen on the labels it is judged by."""
    rng = np.random.default_rng(4)
    margins, groups = rng.normal(size=(2000, 6)), np.arange(2000) % 40
    assert best_head_per_group(margins, groups=groups).mean_accuracy > 0.57
    held_out = best_head_per_group(margins, groups=groups, choose_on=np.arange(2000) < 1000)
    assert held_out.mean_accuracy == pytest.approx(0.5, abs=0.035)


def test_rows_of_best_heads():
    found = best_head_per_group([[1.0, -1.0], [1.0, 0.0]], [1, 0], ["x", "y"])
    assert found.rows() == [
        {"group": "x", "n": 1, "best_head": 0, "accuracy": 1.0, "head 0": 1.0, "head 1": 0.0},
        {"group": "y", "n": 1, "best_head": 1, "accuracy": 0.5, "head 0": 0.0, "head 1": 0.5},
    ]
    assert best_head_per_group([[1.0]]).groups == ("all",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"component_scores": [1.0]}, r"expected shape \(n_samples, n_components\), not empty, got \(1,\)"),
        ({"component_scores": np.empty((0, 2))}, "not empty"),
        ({"component_scores": [[0.0, 1.0], [0.0, np.nan]]}, "expected finite numbers, got nan in row 1, head 1"),
        ({"component_scores": [[1.0]], "groups": [-1]}, "expected a group in some row with weight"),
        ({"component_scores": [[1.0], [1.0]], "choose_on": [0, 1]}, "choose_on: expected True or False .*int64"),
        ({"component_scores": [[1.0], [1.0]], "choose_on": [True]}, r"shape \(1,\)"),
        (
            {"component_scores": [[1.0], [1.0]], "groups": ["a", "b"], "choose_on": [True, False]},
            "expected rows with weight in every group, got none of group 'b' on which choose_on is True",
        ),
        (
            {"component_scores": [[1.0], [1.0]], "choose_on": [True, True]},
            "expected rows with weight in every group, got none of group 'all' on which choose_on is False",
        ),
    ],
)
def test_bad_margins_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        best_head_per_group(**arguments)


@pytest.mark.parametrize("module", [micropref.metrics._groups, micropref.metrics._heads])
def test_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 2
    assert failed == 0
