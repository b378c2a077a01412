"""Planted users that scatter around heads, and stated criteria: moments, limits, exact probabilities and nats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, softmax
from scipy.stats import norm

from micropref.datasets import make_world
from micropref.datasets._tastes import mean_probability
from micropref.datasets.simulate import make_preferences
from micropref.pairs import split_pairs

ARRAYS = ("X", "y", "groups", "components", "coef", "gate_coef", "probabilities", "mixture_weights")


def excess(y, probability):
    """How far the number of ones is from its mean, in standard deviations of a sum of independent coins."""
    return (y - probability).sum() / np.sqrt((probability * (1 - probability)).sum())


def planted(n=6000, **settings):
    return make_preferences(n, **{"n_features": 4, "n_components": 2, "n_context_features": 0, **settings})


# ------------------------------------------------------------------------------------------------- users


@settings(max_examples=8, deadline=None)
@given(
    spread=st.sampled_from([0.0, 0.5, 3.0]),
    rank=st.integers(0, 3),
    k=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_moments_of_users_are_those_stated(spread, rank, k, seed):
    """Mean w_k and covariance τ_k² I + F_k F_kᵀ, entry by entry, within five standard errors."""
    data = planted(
        8000,
        n_components=k,
        spread=spread * np.arange(1, k + 1),
        rank=rank,
        rank_spread=2.0 if rank else 0.0,
        pairs_per_group=2,
        random_state=seed,
    )
    np.testing.assert_allclose(data.tau, spread * np.arange(1, k + 1) / 2)  # √n_features = 2
    assert data.factors.shape == (k, 4, rank)
    assert data.user_coef.shape == (4000, 4)
    np.testing.assert_array_equal(data.user, data.groups)
    of_user = data.components[::2]
    for j in range(k):
        users = data.user_coef[of_user == j] - data.coef[j]
        n = len(users)
        covariance = data.tau[j] ** 2 * np.eye(4) + data.factors[j] @ data.factors[j].T
        variance = np.diag(covariance)
        assert (np.abs(users.mean(axis=0)) <= 5 * np.sqrt(variance / n) + 1e-12).all()
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
        assert (np.abs(users.T @ users / n - covariance) <= 5 * error + 1e-12).all()


def test_spreads_are_standard_deviations_of_margins():
    data = planted(8000, n_features=60, n_components=3, spread=[0.0, 1.0, 2.0], scale=0.0, random_state=0)
    margins = (data.X * data.user_coef[data.user]).sum(axis=1)
    found = [margins[data.components == k].std() for k in range(3)]
    np.testing.assert_allclose(found, [0, 1, 2], rtol=0.05)
    low_rank = planted(4000, n_features=200, n_components=20, rank=5, rank_spread=2.0, scale=0.0, random_state=0)
    assert np.std((low_rank.X * low_rank.user_coef[low_rank.user]).sum(axis=1)) == pytest.approx(2, rel=0.05)


def test_users_and_seeds_differ():
    arguments = {"pairs_per_group": 5, "spread": 1.0, "rank": 2, "rank_spread": 1.0}
    one, same, other = (planted(500, **arguments, random_state=seed) for seed in (3, 3, 4))
    for name in (*ARRAYS, "user_coef", "factors", "known_user_probabilities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert len(np.unique(one.user_coef, axis=0)) == 100
    assert not np.isin(one.user_coef, other.user_coef).any()
    assert not np.isin(one.factors, other.factors).any()


# ------------------------------------------------------------------------------------------------ limits


def test_without_a_spread_users_are_their_components():
    data = planted(pairs_per_group=5, random_state=0)
    np.testing.assert_array_equal(data.user_coef[data.user], data.coef[data.components])
    rows = np.arange(len(data.y))
    np.testing.assert_allclose(
        data.known_user_probabilities, data.component_probabilities[rows, data.components], atol=1e-14
    )


def test_one_component_without_rank_is_a_gaussian_prior_for_each_user():
    data = planted(20_000, n_components=1, spread=2.0, pairs_per_group=1, random_state=0)
    deviation = (data.user_coef - data.coef).ravel()
    assert abs(deviation.mean()) < 5 / np.sqrt(len(deviation))
    assert deviation.std() == pytest.approx(1, rel=5 / np.sqrt(2 * len(deviation)))
    quantiles = np.quantile(deviation, [0.05, 0.25, 0.75, 0.95])
    np.testing.assert_allclose(quantiles, norm.ppf([0.05, 0.25, 0.75, 0.95]), atol=0.03)
    assert (data.components == 0).all()


def test_a_spread_leaves_all_earlier_draws_as_they_are():
    arguments = {"pairs_per_group": 8, "tie_rate": 0.2, "random_state": 5, "drift": 0.1}
    plain, scattered = planted(400, **arguments), planted(400, **arguments, spread=1.0, rank=1, rank_spread=1.0)
    for name in ("X", "groups", "components", "coef", "redrawn", "mixture_weights", "sample_weight"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(scattered, name))
    assert (plain.y != scattered.y).any()


def test_a_drifting_group_is_another_user_after_every_draw():
    data = planted(3000, pairs_per_group=10, drift=0.3, spread=1.0, tie_rate=0.3, random_state=0)
    starts = np.concatenate(([True], data.groups[1:] != data.groups[:-1])) | data.redrawn
    np.testing.assert_array_equal(data.user, np.cumsum(starts) - 1)
    assert len(data.user_coef) == data.user[-1] + 1 > 700
    assert len(np.unique(data.user_coef, axis=0)) == len(data.user_coef)


# ----------------------------------------------------------------------------------- exact probabilities


@settings(max_examples=25, deadline=None)
@given(margin=st.floats(-30, 30), deviation=st.floats(0, 60))
def test_the_mean_probability_is_the_integral(margin, deviation):
    def integrand(z):
        return expit(margin + deviation * z) * norm.pdf(z)

    # The step of σ lies at z = −margin/deviation, where the integral is cut.
    cut = float(np.clip(-margin / max(deviation, 1e-9), -9, 9))
    parts = [quad(integrand, a, b, epsabs=1e-13, limit=400)[0] for a, b in ((-10, cut), (cut, 10))]
    found = mean_probability(np.array([[margin]]), np.array([[deviation**2]]))[0, 0]
    assert found == pytest.approx(sum(parts), abs=1e-10)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    pairs_per_group=st.sampled_from([None, 10]),
    noise=st.sampled_from([0.0, 0.25]),
    spread=st.sampled_from([0.0, 2.0]),
    rank=st.sampled_from([0, 2]),
    length_bias=st.sampled_from([0.0, 1.0]),
    criterion_scale=st.sampled_from([0.0, 2.0]),
)
def test_labels_are_coins_of_the_known_probability(
    seed, pairs_per_group, noise, spread, rank, length_bias, criterion_scale
):
    data = planted(
        n_context_features=3,
        pairs_per_group=pairs_per_group,
        noise=noise,
        spread=spread,
        rank=rank,
        rank_spread=1.5 if rank else 0.0,
        length_bias=length_bias,
        criterion_scale=criterion_scale,
        random_state=seed,
    )
    stated = data.known_user_probabilities * (1 - 2 * noise) + noise
    for part in np.array_split(np.argsort(stated), 4):
        assert abs(excess(data.y[part], stated[part])) < 5
    # One who does not know the user is right on average too; rows of a group vary together.
    stated = data.probabilities * (1 - 2 * noise) + noise
    for part in np.array_split(np.argsort(stated), 4):
        assert abs(excess(data.y[part], stated[part])) < 5 * np.sqrt(pairs_per_group or 1)


def test_the_population_is_the_mean_over_users():
    """Probabilities of unknown users, against the mean over many users that are drawn by hand."""
    data = planted(5, spread=2.0, rank=1, rank_spread=2.0, weights=[1, 3], length_bias=0.5, random_state=0)
    rng = np.random.default_rng(0)
    n = 200_000
    for k in range(2):
        users = data.coef[k] + data.tau[k] * rng.normal(size=(n, 4)) + rng.normal(size=(n, 1)) @ data.factors[k].T
        draws = expit(data.X @ users.T + 0.5 * data.X[:, -1:])
        np.testing.assert_allclose(data.component_probabilities[:, k], draws.mean(axis=1), atol=5 * 0.5 / np.sqrt(n))
    np.testing.assert_allclose(data.probabilities, data.component_probabilities @ [0.25, 0.75], atol=1e-12)


def test_a_tie_shows_both_orders_of_a_known_user():
    data = planted(300, tie_rate=0.5, spread=1.0, pairs_per_group=5, random_state=0)
    first = np.flatnonzero(data.sample_weight == 0.5)[::2]
    for name in ("known_user_probabilities", "probabilities"):
        values = getattr(data, name)
        np.testing.assert_allclose(values[first] + values[first + 1], 1, atol=1e-12)
    np.testing.assert_array_equal(data.user[first], data.user[first + 1])


@pytest.mark.parametrize("name", ["discrete", "continuous", "mixed", "profiles"])
def test_nats_are_the_log_loss_of_the_best_predictors(name):
    """The expected loss is that of the labels drawn, within five standard errors, and no scaled predictor is better."""
    world = make_world(name, n_samples=20_000, random_state=1)
    assert world.known_user_nats < world.unknown_user_nats - 0.1
    known, unknown = world.known_user_probabilities, world.probabilities
    loss = -np.log(np.where(world.y == 1, known, 1 - known))
    assert loss.mean() == pytest.approx(world.known_user_nats, abs=5 * loss.std() / np.sqrt(len(loss)))
    by_user = -np.log(np.where(world.y == 1, unknown, 1 - unknown)).reshape(-1, 40).mean(axis=1)
    assert by_user.mean() == pytest.approx(world.unknown_user_nats, abs=5 * by_user.std() / np.sqrt(len(by_user)))
    for factor in (0.8, 1.25):
        other = expit(factor * np.log(known / (1 - known)))
        assert -np.log(np.where(world.y == 1, other, 1 - other)).mean() > loss.mean()


def test_nats_with_noise_and_ties():
    data = planted(40_000, noise=0.2, tie_rate=0.3, spread=1.0, scale=6.0, random_state=0)
    p = data.known_user_probabilities * 0.6 + 0.2
    q = p * 0.7 + 0.15
    loss = -np.log(np.where(data.y == 1, q, 1 - q))
    assert np.average(loss, weights=data.sample_weight) == pytest.approx(data.known_user_nats, abs=0.005)
    assert data.known_user_nats > 0.5 > planted(2000, spread=1.0, scale=6.0, random_state=0).known_user_nats


# ------------------------------------------------------------------------------------------------ contexts


def test_a_shared_context_moves_the_weights_of_components():
    data = planted(n_context_features=3, pairs_per_group=10, shared_context=True, spread=1.0, random_state=0)
    context = split_pairs(data.X, 3)[0].reshape(600, 10, 3)
    np.testing.assert_array_equal(context, np.repeat(context[:, :1], 10, axis=1))
    weights = softmax(context[:, 0] @ data.gate_coef.T, axis=1)
    np.testing.assert_allclose(data.mixture_weights[::10], weights, atol=1e-12)
    assert weights[:, 0].std() > 0.3
    assert abs(excess(data.components[::10] == 0, weights[:, 0])) < 5
    assert np.corrcoef(data.components[::10] == 0, weights[:, 0])[0, 1] > 0.5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), n_context_features=st.sampled_from([0, 3]), shared=st.booleans())
def test_a_criterion_is_in_the_context_and_acts_on_the_response(seed, n_context_features, shared):
    data = make_preferences(
        400,
        n_features=5,
        n_components=2,
        n_context_features=n_context_features,
        pairs_per_group=4,
        shared_context=shared,
        criterion_scale=2.0,
        n_topics=6,
        random_state=seed,
    )
    context, difference = split_pairs(data.X, n_context_features + 5)
    assert data.n_context_features == n_context_features + 5
    stated = context[:, n_context_features:]
    np.testing.assert_allclose(np.linalg.norm(stated, axis=1), 1)
    topics, sign = data.topics[data.topic], data.criterion_sign
    polarity = (np.sqrt(2) * stated - topics) * sign[:, None]
    np.testing.assert_allclose(polarity, np.tile(polarity[0], (400, 1)), atol=1e-12)
    np.testing.assert_allclose(data.topics @ polarity[0], 0, atol=1e-12)
    margins = (difference * data.user_coef[data.user]).sum(axis=1) + 2 * sign * (difference * topics).sum(axis=1)
    np.testing.assert_allclose(data.known_user_probabilities, expit(margins), atol=1e-12)
    assert set(sign) == {-1.0, 1.0}
    assert len(set(data.topic)) == 6
    assert len(np.unique(stated.round(9), axis=0)) <= 12
    assert not data.gate_coef[:, n_context_features:].any()
    if shared:
        np.testing.assert_array_equal(data.topic.reshape(-1, 4), np.repeat(data.topic[::4, None], 4, axis=1))


def test_the_sign_of_a_criterion_reverses_what_it_adds():
    """A reward (p·c)(cᵀd), which the context itself turns, explains the stated world; cᵀd without the sign does not."""
    world = make_world("stated", n_samples=8000, random_state=0)
    context, difference = split_pairs(world.X, 32)
    topic = world.topics[world.topic]
    polarity = (np.sqrt(2) * context[:1] - topic[:1])[0] * world.criterion_sign[0]
    margin = difference @ world.coef[0] + 2 * 2.5 * (context @ polarity) * (context * difference).sum(axis=1)
    # (x + a p)ᵀd (a/√2)(1/√2)·2 = a xᵀd + pᵀd, and pᵀd is linear in d.
    np.testing.assert_allclose(expit(margin - 2.5 * difference @ polarity), world.known_user_probabilities, atol=1e-12)
    signed = world.y * 2 - 1
    along = (context * difference).sum(axis=1)
    assert abs(np.corrcoef(along, signed)[0, 1]) < 0.1 < np.corrcoef(along * world.criterion_sign, signed)[0, 1]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spread": -1}, "expected spread to be finite and not negative, got -1"),
        ({"spread": np.nan}, "expected spread to be finite and not negative, got nan"),
        ({"spread": "wide"}, "expected spread to be a number or one for each component, got 'wide'"),
        ({"spread": [1, 1]}, r"expected spread to be .* shape \(3,\), one for each component, got shape \(2,\)"),
        ({"rank": 1}, "expected rank and rank_spread to be both 0 or both above 0, got rank=1, rank_spread=0.0"),
        ({"rank_spread": 1}, "expected rank and rank_spread to be both 0 or both above 0, got rank=0, rank_spread=1"),
        ({"rank": 65, "rank_spread": 1}, "expected rank to be an integer from 0 to n_features=64, got 65"),
        ({"rank": 1.5, "rank_spread": 1}, "expected rank to be an integer from 0 to n_features=64, got 1.5"),
        ({"shared_context": True}, "expected pairs_per_group with shared_context=True"),
        ({"criterion_scale": -1}, "expected criterion_scale to be finite and not negative, got -1"),
        ({"criterion_scale": 1, "n_topics": 0}, "expected n_topics to be an integer of at least 1, got 0"),
        ({"criterion_scale": 1, "n_features": 1}, "expected at least 2 features with stated criteria"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_preferences(**arguments)
