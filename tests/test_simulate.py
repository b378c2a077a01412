from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from micropref.datasets.simulate import make_preferences
from micropref.pairs import split_pairs

ARRAYS = ("X", "y", "groups", "components", "coef", "gate_coef", "probabilities", "mixture_weights")


def test_shapes_and_layout():
    data = make_preferences(50, n_features=6, n_components=4, n_context_features=3, pairs_per_group=7, random_state=0)
    assert data.X.shape == (50, 9)
    assert data.coef.shape == (4, 6)
    assert data.gate_coef.shape == (4, 3)
    assert data.component_probabilities.shape == data.mixture_weights.shape == (50, 4)
    assert data.n_context_features == 3
    assert data.sample_weight is None
    assert set(data.y) == {0, 1}
    assert np.bincount(data.groups).tolist() == [7] * 7 + [1]
    assert make_preferences(5, random_state=0).groups is None


@settings(max_examples=30, deadline=None)
@given(
    n_components=st.integers(1, 4),
    n_context_features=st.integers(0, 3),
    pairs_per_group=st.none() | st.integers(1, 5),
    tie_rate=st.sampled_from([0.0, 0.5]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 2**31),
)
def test_the_truth_follows_from_the_stored_rows(
    n_components, n_context_features, pairs_per_group, tie_rate, dtype, seed
):
    data = make_preferences(
        20,
        n_features=3,
        n_components=n_components,
        n_context_features=n_context_features,
        pairs_per_group=pairs_per_group,
        tie_rate=tie_rate,
        dtype=dtype,
        random_state=seed,
    )
    assert data.X.dtype == dtype
    context, difference = (part.astype(np.float64) for part in split_pairs(data.X, n_context_features))
    if data.groups is not None:
        # Half the weight on each of the two rows of a tie leaves the mean over comparisons unchanged.
        weight = np.ones(len(context)) if data.sample_weight is None else data.sample_weight
        of_group = (data.groups[:, None] == np.unique(data.groups)) * weight[:, None]
        context = ((of_group.T @ context) / of_group.sum(axis=0)[:, None])[data.groups]
    np.testing.assert_allclose(data.mixture_weights, softmax(context @ data.gate_coef.T, axis=1), atol=1e-12)
    np.testing.assert_allclose(data.component_probabilities, expit(difference @ data.coef.T), atol=1e-12)
    np.testing.assert_allclose(
        data.probabilities, (data.mixture_weights * data.component_probabilities).sum(axis=1), atol=1e-12
    )


def test_labels_and_components_have_the_stated_probabilities():
    data = make_preferences(40_000, n_features=8, n_context_features=4, random_state=1)
    given_component = data.component_probabilities[np.arange(len(data.y)), data.components]
    for low in np.arange(0, 1, 0.2):
        for truth in (data.probabilities, given_component):
            rows = (truth >= low) & (truth < low + 0.2)
            assert rows.sum() > 1000
            assert data.y[rows].mean() == pytest.approx(truth[rows].mean(), abs=0.03)
    for k in range(3):
        rows = data.mixture_weights[:, k] > 0.8
        assert np.mean(data.components[rows] == k) == pytest.approx(data.mixture_weights[rows, k].mean(), abs=0.02)


def test_scales_are_the_spread_of_margins_and_gate_logits():
    data = make_preferences(
        2000, n_features=50, n_context_features=400, n_components=20, scale=5.0, gate_scale=0.5, random_state=0
    )
    context, difference = split_pairs(data.X, 400)
    assert np.std(difference @ data.coef.T) == pytest.approx(5.0, rel=0.05)
    assert np.std(context @ data.gate_coef.T) == pytest.approx(0.5, rel=0.05)


def test_a_group_has_one_component_and_groups_differ():
    data = make_preferences(600, pairs_per_group=6, random_state=0)
    by_group = data.components.reshape(100, 6)
    assert (by_group == by_group[:, :1]).all()
    assert len(set(by_group[:, 0])) == 3


def test_without_context_the_weights_are_those_given():
    data = make_preferences(20_000, n_context_features=0, weights=[1, 2, 5], random_state=0)
    assert data.X.shape == (20_000, 64)
    np.testing.assert_allclose(data.mixture_weights, np.tile([0.125, 0.25, 0.625], (20_000, 1)))
    np.testing.assert_allclose(np.bincount(data.components) / 20_000, [0.125, 0.25, 0.625], atol=0.015)
    uniform = make_preferences(5, n_context_features=0, n_components=4, random_state=0)
    np.testing.assert_allclose(uniform.mixture_weights, 0.25)


def test_a_tie_is_two_rows_of_half_weight_in_both_orders():
    data = make_preferences(500, n_context_features=2, pairs_per_group=5, tie_rate=0.3, random_state=0)
    first = np.flatnonzero(data.sample_weight == 0.5)[::2]
    assert 100 < len(first) < 200
    assert len(data.y) == 500 + len(first)
    assert data.sample_weight.sum() == 500
    np.testing.assert_array_equal(data.X[first, :2], data.X[first + 1, :2])
    np.testing.assert_array_equal(data.X[first, 2:], -data.X[first + 1, 2:])
    np.testing.assert_allclose(data.probabilities[first] + data.probabilities[first + 1], 1)
    np.testing.assert_array_equal(data.groups[first], data.groups[first + 1])
    np.testing.assert_array_equal(data.components[first], data.components[first + 1])
    assert (data.y[data.sample_weight == 0.5] == 1).all()
    assert set(data.y[data.sample_weight == 1]) == {0, 1}


def test_noise_flips_labels_and_nothing_else():
    clean, noisy = (make_preferences(20_000, noise=noise, random_state=0) for noise in (0.0, 0.2))
    np.testing.assert_array_equal(clean.X, noisy.X)
    np.testing.assert_array_equal(clean.probabilities, noisy.probabilities)
    assert np.mean(clean.y != noisy.y) == pytest.approx(0.2, abs=0.01)


def test_the_seed_decides_everything():
    one, two, other = (make_preferences(30, pairs_per_group=4, random_state=seed) for seed in (3, 3, 4))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.X, other.X)
    assert not np.array_equal(one.coef, other.coef)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples must be an integer of at least 1; got 0"),
        ({"n_features": 2.5}, "n_features must be an integer of at least 1; got 2.5"),
        ({"n_components": 0}, "n_components must be an integer"),
        ({"n_context_features": -1}, "n_context_features must be an integer of at least 0; got -1"),
        ({"pairs_per_group": 0}, "pairs_per_group must be an integer of at least 1; got 0"),
        ({"tie_rate": 1.5}, "tie_rate must be from 0 to 1; got 1.5"),
        ({"noise": float("nan")}, "noise must be from 0 to 1; got nan"),
        ({"noise": "some"}, "noise must be from 0 to 1; got 'some'"),
        ({"dtype": int}, "dtype must be floating; got int64"),
        ({"weights": [1, 1, 1]}, "weights are for n_context_features=0; here the gate sees 32"),
        ({"n_context_features": 0, "weights": [1, 1]}, r"weights must have shape \(3,\).*got \(2,\)"),
        ({"n_context_features": 0, "weights": [1, 0, 1]}, "weights must be positive and finite"),
        ({"n_context_features": 0, "weights": [1, np.inf, 1]}, "weights must be positive and finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_preferences(**arguments)
