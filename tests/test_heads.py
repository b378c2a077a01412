"""Upkeep of heads: unsafe ones found and masked, redundant ones merged, and what is exact is exact."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

import micropref.heads._audit
import micropref.heads._mask
import micropref.heads._merge
from micropref import ContextRouter, MixtureBradleyTerry, persistence
from micropref.heads import audit_heads, mask_heads, merge_heads
from micropref.metrics import mean_interval

GATES = ("static", "linear", "mlp")
C = 3
D = 4


def planted(kind: str, coef, gate_parameters=None, seed: int = 0) -> MixtureBradleyTerry:
    """A fitted mixture whose heads, and gate, are then replaced by these."""
    rng = np.random.default_rng(seed)
    coef = np.asarray(coef, dtype=float)
    k, width = len(coef), 0 if kind == "static" else C
    mixture = MixtureBradleyTerry(
        k, n_context_features=width, gate="mlp" if kind == "mlp" else "linear", hidden_units=5, n_init=1, max_iter=300,
        tol=1e-2, alpha=0.1, gate_alpha=0.1, random_state=0,
    )  # fmt: skip
    X = rng.normal(size=(60, width + coef.shape[1]))
    mixture.fit(X)
    if gate_parameters is None:
        gate_parameters = [rng.normal(size=p.shape) for p in mixture.gate_parameters_]
    mixture.coef_, mixture.gate_parameters_ = coef.copy(), [np.array(p) for p in gate_parameters]
    mixture.weights_ = mixture.mixture_weights(X).mean(axis=0)
    return mixture


def rows_for(mixture, n=50, seed=1):
    return np.random.default_rng(seed).normal(size=(n, mixture.n_features_in_))


# -------------------------------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize("kind", GATES)
def test_every_head_is_judged_on_the_safe_responses(kind):
    mixture = planted(kind, np.random.default_rng(2).normal(size=(3, D)))
    X = rows_for(mixture, 80)
    X[::9, -D:] = 0  # ties
    rng = np.random.default_rng(3)
    y, weight, clusters = rng.choice(["no", "yes"], 80), rng.random(80), np.arange(80) // 4
    mixture.classes_ = np.array(["no", "yes"])
    audit = audit_heads(mixture, X, y, weight, clusters=clusters, level=0.8, n_resamples=100, random_state=7)
    margins = mixture.component_scores(X) * np.where(y == "yes", 1, -1)[:, None]
    right = (margins > 0) + 0.5 * (margins == 0)
    np.testing.assert_allclose(audit.accuracy, np.average(right, axis=0, weights=weight))
    seed = np.random.RandomState(7).randint(2**31 - 1)
    for k in range(3):
        expected = mean_interval(right[:, k], clusters, weight, level=0.8, n_resamples=100, random_state=seed)
        assert (audit.accuracy[k], audit.low[k], audit.high[k]) == expected
    np.testing.assert_array_equal(audit.unsafe, audit.accuracy < 0.5)
    np.testing.assert_array_equal(audit.weights, mixture.weights_)
    assert (audit.n, audit.level, audit.threshold, audit.rule) == (80, 0.8, 0.5, "estimate")
    assert audit.rows()[1] == {
        "head": 1, "weight": mixture.weights_[1], "accuracy": audit.accuracy[1], "low": audit.low[1],
        "high": audit.high[1], "unsafe": bool(audit.unsafe[1]), "n": 80,
    }  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapped_pairs_are_judged_alike(seed):
    rng = np.random.default_rng(seed)
    mixture = planted("static", [[1.0, 0.0], [-1.0, 0.3]])
    X, y = rng.normal(size=(30, 2)), rng.integers(0, 2, 30)
    swap = rng.random(30) < 0.5
    found = audit_heads(mixture, X, y, n_resamples=20)
    swapped = audit_heads(mixture, np.where(swap[:, None], -X, X), np.where(swap, 1 - y, y), n_resamples=20)
    for name in ("accuracy", "low", "high", "unsafe"):
        np.testing.assert_array_equal(getattr(found, name), getattr(swapped, name))


def test_the_two_rules():
    """A head that is wrong 55 times out of 100 is unsafe by the estimate, and not yet by the interval."""
    mixture = planted("static", [[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    X = np.ones((100, 2))
    X[:55, 0], X[:90, 1] = -1, -1
    by_estimate = audit_heads(mixture, X)
    np.testing.assert_allclose(by_estimate.accuracy, [0.45, 0.1, 0.9])
    assert by_estimate.unsafe.tolist() == [True, True, False]
    by_interval = audit_heads(mixture, X, rule="interval")
    assert by_interval.unsafe.tolist() == [False, True, False]
    assert by_interval.high[0] > 0.5
    assert audit_heads(mixture, X, rule="interval", threshold=0.99).unsafe.all()
    # Two prompts only: 90 wrong out of 100 prove nothing.
    assert not audit_heads(mixture, X, rule="interval", clusters=np.arange(100) // 90).unsafe.any()


def test_heads_are_judged_on_the_same_resamples():
    mixture = planted("static", [[1.0, 0.0], [2.0, 0.0]])
    audit = audit_heads(mixture, rows_for(mixture), random_state=np.random.RandomState(0))
    assert (audit.low[0], audit.high[0]) == (audit.low[1], audit.high[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, r"expected a threshold between 0 and 1, got 1\.5"),
        ({"rule": "upper"}, "expected a rule of 'estimate', 'interval', got 'upper'"),
        ({"clusters": ["p"] * 4}, "at least two clusters with positive weight for an interval, got 1"),
        ({"clusters": ["p"]}, "inconsistent numbers of samples"),
        ({"y": [1, 0]}, "X has 4 rows, y has 2"),
        ({"X": np.full((4, 2), np.nan)}, "NaN"),
        ({"X": np.ones((4, 3))}, "X has 3 features"),
        ({"X": np.ones((0, 2))}, "0 sample"),
        ({"level": 2}, "level: expected a number between 0 and 1, got 2"),
        ({"sample_weight": [0, 0, 0, 0]}, "sample_weight: .* got zero in every row"),
    ],
)
def test_bad_safety_sets_are_named(arguments, message):
    mixture = planted("static", [[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=message):
        audit_heads(mixture, **({"X": np.ones((4, 2))} | arguments))


# --------------------------------------------------------------------------------------------------------------- mask


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("dropped", [[0], [1, 3], [3], [0, 1, 2]])
def test_the_weights_of_the_others_are_renormalised(kind, dropped):
    mixture = planted(kind, np.random.default_rng(4).normal(size=(4, D)))
    X = rows_for(mixture)
    before = mixture.mixture_weights(X)
    old = [p.copy() for p in mixture.gate_parameters_]
    masked = mask_heads(mixture, dropped)
    kept = np.setdiff1d(np.arange(4), dropped)
    expected = before[:, kept] / before[:, kept].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(masked.mixture_weights(X), expected, rtol=1e-12)
    np.testing.assert_array_equal(masked.coef_, mixture.coef_[kept])
    np.testing.assert_allclose(masked.component_scores(X), mixture.component_scores(X)[:, kept], rtol=1e-12)
    probs = (expected * expit(mixture.component_scores(X)[:, kept])).sum(axis=1)
    np.testing.assert_allclose(masked.predict_proba(X)[:, 1], probs, rtol=1e-10)
    assert masked.get_params() == mixture.get_params() | {"n_components": len(kept)}
    assert tuple(p.shape for p in masked.gate_parameters_) == masked._gate().shapes
    assert masked.weights_.sum() == pytest.approx(1)
    mask = np.isin(np.arange(4), dropped)
    np.testing.assert_array_equal(mask_heads(mixture, mask).coef_, masked.coef_)
    # The old one is as it was, and nothing is shared with it.
    for array in (masked.coef_, masked.weights_, masked.classes_, *masked.gate_parameters_):
        array += 1
    np.testing.assert_array_equal(mixture.mixture_weights(X), before)
    for p, q in zip(mixture.gate_parameters_, old, strict=True):
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("kind", GATES)
def test_mean_weights_are_those_of_the_rows(kind):
    mixture = planted(kind, np.random.default_rng(5).normal(size=(3, D)))
    X, weight = rows_for(mixture), np.random.default_rng(6).random(50)
    masked = mask_heads(mixture, 1, X, weight)
    expected = np.average(masked.mixture_weights(X), axis=0, weights=weight)
    np.testing.assert_allclose(masked.weights_, expected, rtol=1e-10)
    without = mask_heads(mixture, 1)
    np.testing.assert_allclose(without.weights_, mixture.weights_[[0, 2]] / mixture.weights_[[0, 2]].sum())
    if kind == "static":
        np.testing.assert_allclose(without.weights_, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("dropped", [[1], [0, 2]])
def test_a_masked_mixture_is_saved_and_learns_on(kind, dropped, tmp_path):
    mixture = planted(kind, np.random.default_rng(7).normal(size=(3, D)))
    mixture.feature_names_in_ = np.array([f"f{i}" for i in range(mixture.n_features_in_)], dtype=object)
    masked = mask_heads(mixture, dropped)
    persistence.save(masked, tmp_path / "m")
    loaded = persistence.load(tmp_path / "m")
    assert loaded.get_params() == masked.get_params()
    assert loaded.feature_names_in_.tolist() == mixture.feature_names_in_.tolist()
    del mixture.feature_names_in_, masked.feature_names_in_, loaded.feature_names_in_
    X = rows_for(mixture)
    np.testing.assert_array_equal(loaded.decision_function(X), masked.decision_function(X))
    np.testing.assert_array_equal(loaded.weights_, masked.weights_)
    assert (loaded.converged_, loaded.n_iter_, loaded.objective_) == (False, mixture.n_iter_, mixture.objective_)
    before = masked.coef_.copy()
    masked.partial_fit(X, groups=np.arange(50) // 5)
    assert masked.coef_.shape == (3 - len(dropped), D)
    assert not np.array_equal(masked.coef_, before)
    router = ContextRouter(mask_heads(FrozenEstimator(mixture), dropped), n_context_features=C).fit(
        np.random.default_rng(8).normal(size=(40, C + D))
    )
    assert router.mixture_.coef_.shape == (3 - len(dropped), D)


def test_nothing_masked_is_a_copy():
    mixture = planted("linear", np.random.default_rng(9).normal(size=(3, D)))
    X = rows_for(mixture)
    for nothing in ([], [False] * 3):
        copy = mask_heads(mixture, nothing)
        assert copy is not mixture
        np.testing.assert_array_equal(copy.decision_function(X), mixture.decision_function(X))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, True], "expected a mask that leaves at least one head, got one of all 2"),
        ([0, 1, 1], "got one of all 2"),
        ([True], "expected a mask of 2 entries, one for every head, got 1"),
        ([0, 2], "expected heads from 0 to 1, got 2"),
        (-1, "expected heads from 0 to 1, got -1"),
        ([0.0], "expected a mask of True and False, or indices"),
        ([[True, False]], "expected a mask"),
        ("one", "expected a mask"),
    ],
)
def test_bad_masks_are_named(mask, message):
    with pytest.raises(ValueError, match=message):
        mask_heads(planted("static", [[1.0, 0.0], [0.0, 1.0]]), mask)


@pytest.mark.parametrize("function", [lambda m: audit_heads(m, [[1.0]]), lambda m: mask_heads(m, [0]),
                                      lambda m: merge_heads(m, [[1.0]])])  # fmt: skip
def test_only_fitted_mixtures(function):
    with pytest.raises(TypeError, match="expected a MixtureBradleyTerry, got a LogisticRegression"):
        function(LogisticRegression())
    with pytest.raises(NotFittedError):
        function(MixtureBradleyTerry())


def test_an_unsafe_kind_of_annotators_is_found_and_masked():
    """One annotator out of three prefers what is harmful; the safety set shows which head that is."""
    rng = np.random.default_rng(10)
    X, annotator = rng.normal(size=(1200, D)), np.arange(1200) // 4
    taste = np.where((annotator % 3 == 0)[:, None], [-3, 1, 0, 0], [3, 1, 0, 0])
    y = (rng.random(1200) < expit((X * taste).sum(axis=1))).astype(int)
    mixture = MixtureBradleyTerry(2, n_init=2, random_state=0).fit(X, y, groups=annotator)
    safety = rng.normal(size=(150, D))
    audit = audit_heads(mixture, safety, safety[:, 0] > 0, rule="interval")
    assert audit.unsafe.tolist() == [False, True]
    masked = mask_heads(mixture, audit.unsafe)
    assert masked.score(safety, safety[:, 0] > 0) > 0.85
    assert not audit_heads(masked, safety, safety[:, 0] > 0).unsafe.any()


# -------------------------------------------------------------------------------------------------------------- merge


def test_static_weights_of_merged_heads_are_their_sums():
    coef = np.array([[2.0, 0.0], [0.0, 1.0], [2.2, 0.1], [1.9, -0.1]])
    mixture = planted("static", coef, [np.log([0.1, 0.3, 0.4, 0.2])])
    merge = merge_heads(mixture, rows_for(mixture))
    assert merge.members == ((0, 2, 3), (1,))
    np.testing.assert_allclose(merge.mixture.weights_, [0.7, 0.3], rtol=1e-12)
    np.testing.assert_allclose(merge.mixture.mixture_weights(rows_for(mixture))[0], [0.7, 0.3], rtol=1e-12)
    np.testing.assert_allclose(merge.mixture.coef_[0], np.average(coef[[0, 2, 3]], axis=0, weights=[0.1, 0.4, 0.2]))
    np.testing.assert_array_equal(merge.mixture.coef_[1], coef[1])
    assert merge.divergence == 0.0
    assert merge.mixture.n_components == 2


def test_correlation_is_that_of_both_orders():
    mixture = planted("static", np.random.default_rng(11).normal(size=(3, D)))
    X, weight = rows_for(mixture), np.random.default_rng(12).random(50)
    both = 2 * expit(np.vstack([X, -X]) @ mixture.coef_.T) - 1
    covariance = np.cov(both.T, aweights=np.r_[weight, weight])
    size = np.sqrt(np.diag(covariance))
    merge = merge_heads(mixture, X, sample_weight=weight, threshold=0.99999)
    np.testing.assert_allclose(merge.correlation, covariance / np.outer(size, size), atol=1e-10)
    swap = np.random.default_rng(13).choice([-1, 1], size=(50, 1))
    again = merge_heads(mixture, X * swap, sample_weight=weight, threshold=0.99999)
    np.testing.assert_allclose(again.correlation, merge.correlation, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_gate_of_equal_rows_merges_exactly(kind):
    """Two heads whose logits differ by a constant: the sum of their weights is a softmax of the same form."""
    base = planted(kind, np.random.default_rng(14).normal(size=(3, D)))
    *hidden, rows, offsets = base.gate_parameters_
    rows[2] = rows[0]
    coef = base.coef_.copy()
    coef[2] = 1.02 * coef[0]
    mixture = planted(kind, coef, [*hidden, rows, offsets])
    X = rows_for(mixture, 200)
    merge = merge_heads(mixture, X, threshold=0.999)
    assert sorted(merge.members) == [(0, 2), (1,)]
    old = mixture.mixture_weights(rows_for(mixture, 30, seed=3))
    wanted = np.stack([old[:, list(m)].sum(axis=1) for m in merge.members], axis=1)
    np.testing.assert_allclose(merge.mixture.mixture_weights(rows_for(mixture, 30, seed=3)), wanted, atol=1e-6)
    assert merge.divergence < 1e-10
    np.testing.assert_allclose(merge.mixture.weights_, _means(mixture, X, merge.members), rtol=1e-8)


def _means(mixture, X, members, weight=None):
    mean = np.average(mixture.mixture_weights(X), axis=0, weights=weight)
    return [mean[list(m)].sum() for m in members]


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_other_gates_keep_the_mean_weights(kind):
    coef = np.random.default_rng(15).normal(size=(4, D))
    coef[3] = coef[1]
    mixture = planted(kind, coef)
    X, weight = rows_for(mixture, 300), np.random.default_rng(16).random(300)
    merge = merge_heads(mixture, X, sample_weight=weight)
    assert (1, 3) in merge.members
    assert len(merge.members) == 3
    means = np.average(merge.mixture.mixture_weights(X), axis=0, weights=weight)
    np.testing.assert_allclose(means, _means(mixture, X, merge.members, weight), atol=3e-4)
    np.testing.assert_allclose(merge.mixture.weights_, _means(mixture, X, merge.members, weight), atol=1e-8)
    assert (np.diff(merge.mixture.weights_) <= 0).all()
    old = mixture.mixture_weights(X)
    wanted = np.stack([old[:, list(m)].sum(axis=1) for m in merge.members], axis=1)
    new = merge.mixture.mixture_weights(X)
    divergence = np.average((wanted * np.log(wanted / new)).sum(axis=1), weights=weight)
    assert merge.divergence == pytest.approx(divergence, rel=1e-4, abs=1e-8)
    # Better than the mean of the gate's rows, which is where the fit starts.
    *hidden, rows, offsets = mixture.gate_parameters_
    share = np.average(old, axis=0, weights=weight)
    inputs = X[:, :C]
    if hidden:
        inputs = np.maximum(inputs @ hidden[0].T + hidden[1], 0)
    logits = np.stack(
        [
            inputs @ np.average(rows[list(m)], axis=0, weights=share[list(m)]) + np.logaddexp.reduce(offsets[list(m)])
            for m in merge.members
        ],
        axis=1,
    )
    naive = np.average((wanted * np.log(wanted / softmax(logits, axis=1))).sum(axis=1), weights=weight)
    assert 1e-6 < merge.divergence < naive


def test_every_two_of_a_merged_set_are_correlated():
    """A chain of heads, each near the next: its ends are not merged, which single linkage would do."""
    angles = np.deg2rad([0, 15, 30, 45, 60])
    mixture = planted("static", 0.1 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    X = rows_for(mixture, 4000)
    merge = merge_heads(mixture, X, threshold=0.94)
    assert sorted(k for m in merge.members for k in m) == [0, 1, 2, 3, 4]
    assert 2 <= len(merge.members) <= 3
    for member in merge.members:
        assert merge.correlation[np.ix_(member, member)].min() >= 0.94


def test_opposed_and_silent_heads():
    mixture = planted("static", [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [np.zeros(4)])
    merge = merge_heads(mixture, rows_for(mixture))
    assert sorted(merge.members) == [(0,), (1,), (2, 3)]
    assert merge.correlation[0, 1] == pytest.approx(-1)
    assert merge.correlation[0, 2] == 0


def test_copies_are_merged_at_threshold_one():
    coef = np.random.default_rng(17).normal(size=(2, D))
    mixture = planted("static", np.repeat(coef, 2, axis=0))
    X = rows_for(mixture)
    merge = merge_heads(mixture, X, threshold=1.0)
    assert sorted(merge.members) == [(0, 1), (2, 3)]
    np.testing.assert_allclose(merge.mixture.decision_function(X), mixture.decision_function(X), rtol=1e-10)


def test_a_head_that_is_never_used_can_be_merged():
    mixture = planted("static", [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.1]], [np.array([0.0, 0.0, -2e3, -2e3])])
    merge = merge_heads(mixture, rows_for(mixture))
    assert merge.members == ((0, 1), (2, 3))
    np.testing.assert_allclose(merge.mixture.coef_, [[1.0, 0.0], [0.0, 1.05]])
    np.testing.assert_array_equal(merge.mixture.weights_, [1.0, 0.0])


@pytest.mark.parametrize("kind", GATES)
def test_all_merged_is_one_head_without_gate(kind, tmp_path):
    coef = np.outer([1.0, 1.01, 0.99], [1.0, -1.0, 2.0, 0.5])
    mixture = planted(kind, coef)
    X = rows_for(mixture)
    merge = merge_heads(mixture, X)
    assert merge.members == ((0, 1, 2),)
    assert merge.mixture.gate_parameters_ == []
    mean = np.average(mixture.mixture_weights(X), axis=0)
    np.testing.assert_allclose(merge.mixture.coef_[0], mean @ coef, rtol=1e-8)
    persistence.save(merge.mixture, tmp_path / "m")
    np.testing.assert_array_equal(persistence.load(tmp_path / "m").predict(X), merge.mixture.predict(X))


@pytest.mark.parametrize("kind", GATES)
def test_nothing_to_merge_changes_no_prediction(kind):
    mixture = planted(kind, 2 * np.eye(3, D))
    X = rows_for(mixture)
    merge = merge_heads(mixture, X)
    assert sorted(merge.members) == [(0,), (1,), (2,)]
    assert merge.divergence == 0.0
    np.testing.assert_allclose(merge.mixture.decision_function(X), mixture.decision_function(X), rtol=1e-12)
    alone = mask_heads(mixture, [0, 1])
    assert merge_heads(alone, X).members == ((0,),)


@pytest.mark.parametrize("convert", [lambda X: X.astype(np.float16), lambda X: torch.tensor(X, dtype=torch.float32)])
def test_half_precision_and_tensors(convert):
    coef = np.random.default_rng(18).normal(size=(3, D))
    coef[2] = coef[0]
    mixture = planted("linear", coef)
    X = rows_for(mixture, 200).astype(np.float16).astype(np.float64)
    expected, found = merge_heads(mixture, X), merge_heads(mixture, convert(X))
    assert found.members == expected.members
    np.testing.assert_allclose(found.mixture.weights_, expected.mixture.weights_, rtol=1e-3)
    np.testing.assert_allclose(found.mixture.mixture_weights(X), expected.mixture.mixture_weights(X), atol=5e-3)
    y = np.random.default_rng(19).integers(0, 2, 200)
    np.testing.assert_allclose(audit_heads(mixture, convert(X), y).accuracy, audit_heads(mixture, X, y).accuracy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0}, r"expected a threshold in \(0, 1\], got 0"),
        ({"threshold": 1.1}, r"expected a threshold in \(0, 1\], got 1\.1"),
        ({"X": np.full((3, 2), np.inf)}, "infinit"),
        ({"X": np.ones((3, 5))}, "X has 5 features"),
        ({"sample_weight": [1.0]}, "sample_weight.shape"),
    ],
)
def test_bad_input_to_merging_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_heads(planted("static", [[1.0, 0.0], [0.0, 1.0]]), **({"X": np.ones((3, 2))} | arguments))


@pytest.mark.parametrize("module", [micropref.heads._audit, micropref.heads._mask, micropref.heads._merge])
def test_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 3
    assert failed == 0
