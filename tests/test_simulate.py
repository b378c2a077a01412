from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from micropref.datasets import make_world
from micropref.datasets.simulate import make_preferences
from micropref.datasets.worlds import WORLDS
from micropref.pairs import split_pairs

FINGERPRINTS = ["da9aa480bfccb779", "9ba096ed7c55c0a3", "9a8640afd97da0eb"]
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
        ({"n_samples": 0}, "expected n_samples to be an integer of at least 1, got 0"),
        ({"n_features": 2.5}, "expected n_features to be an integer of at least 1, got 2.5"),
        ({"n_components": 0}, "expected n_components to be an integer"),
        ({"n_context_features": -1}, "expected n_context_features to be an integer of at least 0, got -1"),
        ({"pairs_per_group": 0}, "expected pairs_per_group to be an integer of at least 1, got 0"),
        ({"tie_rate": 1.5}, "expected tie_rate to be from 0 to 1, got 1.5"),
        ({"noise": float("nan")}, "expected noise to be from 0 to 1, got nan"),
        ({"noise": "some"}, "expected noise to be from 0 to 1, got 'some'"),
        ({"drift": -0.1}, "expected drift to be from 0 to 1, got -0.1"),
        ({"drift": 0.1}, "expected pairs_per_group .*, got drift=0.1 only"),
        ({"length_bias": np.inf}, "expected length_bias to be a finite number, got inf"),
        ({"length_bias": "long"}, "expected length_bias to be a finite number, got 'long'"),
        ({"dtype": int}, "expected a floating dtype, got int64"),
        ({"weights": [1, 1, 1]}, "expected weights=None with n_context_features=32"),
        ({"n_context_features": 0, "weights": [1, 1]}, r"expected weights of shape \(3,\).*got \(2,\)"),
        ({"n_context_features": 0, "weights": [1, 0, 1]}, "expected weights that are positive and finite"),
        ({"n_context_features": 0, "weights": [1, np.inf, 1]}, "expected weights that are positive and finite"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_preferences(**arguments)


# ------------------------------------------------------------------------------------------- drift and length


def test_a_seed_gives_the_world_that_it_gave_before_drift_and_length_bias():
    """Draws of arguments that were there before, by the hash of what no rounding of a product can touch."""

    def fingerprint(**arguments):
        data = make_preferences(**arguments)
        drawn = hashlib.sha256()
        for array in (data.X, data.y, data.components, data.coef, data.gate_coef):
            drawn.update(np.ascontiguousarray(array).tobytes())
        return drawn.hexdigest()[:16]

    found = [
        fingerprint(n_samples=500, random_state=0),
        fingerprint(n_samples=500, random_state=1, pairs_per_group=7, tie_rate=0.3, noise=0.1, dtype=np.float32),
        fingerprint(n_samples=300, n_context_features=0, weights=[1, 2, 3], random_state=2, pairs_per_group=4),
    ]
    assert found == FINGERPRINTS


@pytest.mark.parametrize("name", ["drift", "length_bias"])
def test_a_new_difficulty_leaves_all_other_draws_as_they_are(name):
    arguments = {"n_samples": 400, "pairs_per_group": 8, "tie_rate": 0.2, "random_state": 5}
    plain, changed = make_preferences(**arguments), make_preferences(**arguments, **{name: 0.5})
    for attribute in ("X", "groups", "coef", "gate_coef", "mixture_weights", "sample_weight"):
        np.testing.assert_array_equal(getattr(plain, attribute), getattr(changed, attribute))
    assert not plain.redrawn.any()
    assert plain.length_bias == 0
    assert plain.unbiased_probabilities.tolist() == plain.probabilities.tolist()
    differs = plain.components != changed.components if name == "drift" else plain.y != changed.y
    assert differs.any()


def standardised_excess(y, probability):
    """How far the number of ones is from its mean, in standard deviations of a sum of coins."""
    return (y - probability).sum() / np.sqrt((probability * (1 - probability)).sum())


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    n_context_features=st.sampled_from([0, 4]),
    pairs_per_group=st.sampled_from([1, 20]),
    noise=st.sampled_from([0.0, 0.25]),
    drift=st.sampled_from([0.0, 0.1, 1.0]),
    length_bias=st.sampled_from([-1.0, 0.0, 2.0]),
)
def test_labels_are_calibrated_in_every_world(seed, n_context_features, pairs_per_group, noise, drift, length_bias):
    data = make_preferences(
        6000,
        n_features=4,
        n_context_features=n_context_features,
        pairs_per_group=pairs_per_group,
        noise=noise,
        drift=drift,
        length_bias=length_bias,
        random_state=seed,
    )
    rows = np.arange(len(data.y))
    given_component = data.component_probabilities[rows, data.components]
    # Rows of a group share their component, so only given the component are labels independent coins.
    stated = given_component * (1 - noise) + (1 - given_component) * noise
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (given_component >= low) & (given_component < low + 0.25)
        assert abs(standardised_excess(data.y[chosen], stated[chosen])) < 5
    for k in range(3):
        weight = data.mixture_weights[:, k]
        # At most pairs_per_group rows share a draw, which widens the deviation by its root.
        assert abs(standardised_excess(data.components == k, weight)) < 5 * np.sqrt(pairs_per_group)


@pytest.mark.parametrize("n_context_features", [0, 3])
def test_probabilities_are_those_of_labels(n_context_features):
    """Of ungrouped rows labels are independent coins of the stated probability, with a bias for length and without."""
    for length_bias in (0.0, 1.5):
        data = make_preferences(
            40_000,
            n_features=4,
            n_context_features=n_context_features,
            length_bias=length_bias,
            random_state=3,
        )
        order = np.argsort(data.probabilities)
        for part in np.array_split(order, 10):
            assert abs(standardised_excess(data.y[part], data.probabilities[part])) < 4
        assert (np.abs(data.probabilities - data.unbiased_probabilities).max() > 0.1) == (length_bias > 0)


@pytest.mark.parametrize(("drift", "n_context_features"), [(0.05, 0), (0.3, 0), (0.3, 4), (1.0, 0)])
def test_drift_changes_components_at_the_stated_rate(drift, n_context_features):
    data = make_preferences(
        30_000,
        n_features=2,
        n_context_features=n_context_features,
        pairs_per_group=30,
        drift=drift,
        random_state=0,
    )
    within = data.groups[1:] == data.groups[:-1]
    redrawn, changed = data.redrawn[1:], data.components[1:] != data.components[:-1]
    assert not data.redrawn[np.concatenate(([True], ~within))].any()
    n_chances = within.sum()
    assert n_chances == 29_000
    tolerance = 5 * np.sqrt(drift * (1 - drift) / n_chances)
    assert redrawn[within].mean() == pytest.approx(drift, abs=tolerance + 1e-12)
    # A new draw is from the same weights, so it changes the component with probability 1 − Σ_k π_k².
    other = 1 - (data.mixture_weights[1:][redrawn] ** 2).sum(axis=1)
    assert abs(standardised_excess(changed[redrawn], other)) < 5
    assert not changed[within & ~redrawn].any()


def test_drift_and_ties():
    data = make_preferences(3000, n_features=2, pairs_per_group=10, tie_rate=0.5, drift=0.5, random_state=1)
    second = np.flatnonzero(data.sample_weight == 0.5)[1::2]
    np.testing.assert_array_equal(data.components[second], data.components[second - 1])
    assert not data.redrawn[second].any()
    assert data.redrawn[second - 1].any()
    assert data.redrawn.sum() == pytest.approx(0.5 * 2700, abs=5 * np.sqrt(2700) / 2)


@settings(max_examples=20)
@given(length_bias=st.floats(-3, 3), seed=st.integers(0, 2**31), tie_rate=st.sampled_from([0.0, 0.5]))
def test_length_bias_is_in_nats_per_standard_deviation_of_the_last_feature(length_bias, seed, tie_rate):
    data = make_preferences(
        50, n_features=3, n_context_features=2, length_bias=length_bias, tie_rate=tie_rate, random_state=seed
    )
    assert data.length_bias == length_bias
    difference = split_pairs(data.X, 2)[1]
    wanted = difference @ data.coef.T
    np.testing.assert_allclose(data.unbiased_component_probabilities, expit(wanted), atol=1e-12)
    biased = expit(wanted + length_bias * difference[:, [2]])
    np.testing.assert_allclose(data.component_probabilities, biased, atol=1e-12)
    weights = data.mixture_weights
    np.testing.assert_allclose(data.probabilities, (weights * biased).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(data.unbiased_probabilities, (weights * expit(wanted)).sum(axis=1), atol=1e-12)


def test_the_length_has_a_standard_deviation_of_1():
    data = make_preferences(20_000, n_features=3, n_context_features=0, length_bias=1.0, random_state=0)
    assert data.X[:, -1].std() == pytest.approx(1, abs=5 / np.sqrt(2 * 20_000))
    assert data.X[:, -1].mean() == pytest.approx(0, abs=5 / np.sqrt(20_000))


# ------------------------------------------------------------------------------------------------ named worlds


def test_the_worlds_are_those_that_are_named():
    before = ["groups", "contexts", "noisy", "ties", "drift", "length_bias"]
    assert list(WORLDS) == [*before, "continuous", "discrete", "mixed", "profiles", "stated"]
    for name in WORLDS:
        assert f'"{name}"' in make_world.__doc__


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_what_its_settings_say(name):
    world = make_world(name, n_samples=4000, random_state=7)
    same = make_preferences(4000, **WORLDS[name], random_state=7)
    np.testing.assert_array_equal(world.X, same.X)
    np.testing.assert_array_equal(world.y, same.y)
    assert world.coef.shape == (1 if name in ("continuous", "stated") else 3, 32)
    assert (world.groups is None) == (name in ("contexts", "stated"))
    assert (world.n_context_features > 0) == (name in ("contexts", "profiles", "stated"))
    assert world.tau.any() == (name in ("continuous", "mixed", "profiles"))
    assert (world.factors.shape[2] > 0) == (name in ("continuous", "mixed"))
    assert (world.topic is not None) == (name == "stated")
    assert (world.sample_weight is not None) == (name == "ties")
    assert world.redrawn.any() == (name == "drift")
    assert (world.length_bias != 0) == (name == "length_bias")
    known = world.known_user_probabilities
    stated = known * 0.8 + (1 - known) * 0.2 if name == "noisy" else known
    ordinary = slice(None) if world.sample_weight is None else world.sample_weight == 1
    for part in np.array_split(np.argsort(known[ordinary]), 5):
        assert abs(standardised_excess(world.y[ordinary][part], stated[ordinary][part])) < 4


def test_an_unknown_world():
    with pytest.raises(ValueError, match=r"expected name to be one of 'groups', .*'stated', got 'group'"):
        make_world("group")


def test_settings_of_a_world_cannot_be_changed():
    with pytest.raises(TypeError):
        WORLDS["groups"]["noise"] = 0.5
