"""HierarchicalBradleyTerry: its limits, what it recovers and chooses, and the promises of every estimator."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, load, save
from micropref._engine.gaussian_users import filter_votes
from micropref._engine.population import Shape, shaped
from micropref._engine.user_axes import _leading, axes_of_differences
from micropref._engine.user_votes import UserVotes
from micropref._rows.comparisons import Comparisons
from micropref.kernels._pointwise import log_sigmoid
from micropref.pairs import swap_pairs

# EM of a model that is explicit in everything, in few iterations.
QUICK = {"tol": 1e-4, "n_init": 2, "random_state": 0}


def people(seed=0, users=150, votes=10, d=4, tau=1.0, heads=1, size=1.5, context=0):
    """Votes of users who scatter around heads."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(heads, d)) * size
    z = rng.integers(heads, size=users)
    rewards = centres[z] + rng.normal(size=(users, d)) * tau
    groups = np.repeat(np.arange(users), votes)
    X = rng.normal(size=(len(groups), d))
    y = (rng.random(len(groups)) < 1 / (1 + np.exp(-(X * rewards[groups]).sum(axis=1)))).astype(int)
    if context:
        contexts = np.eye(heads)[z][groups] * 2 + rng.normal(size=(len(groups), heads)) * 0.3
        X = np.hstack([contexts, X])
    return X, y, groups, centres


@pytest.fixture(scope="module")
def world():
    return people()


@pytest.fixture(scope="module")
def scattered(world):
    X, y, groups, _ = world
    return HierarchicalBradleyTerry(1, rank=0, alpha=1e-3, random_state=0).fit(X, y, groups=groups)


# -------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("context", [0, 2])
def test_without_scatter_it_is_the_mixture(context):
    X, y, groups, _ = people(heads=2, tau=0.0, size=2.5, context=context)
    kind = {"alpha": 0.01, "n_context_features": context, "n_init": 2, "random_state": 0}
    mixture = MixtureBradleyTerry(2, gate_alpha=1e-3, **kind).fit(X, y, groups=groups)
    model = HierarchicalBradleyTerry(2, rank=0, tau=0.0, gate_alpha=1e-3, **kind).fit(X, y, groups=groups)
    assert model.scatter_ is None
    assert (model.rank_, model.tau_.tolist()) == (0, [0.0, 0.0])
    np.testing.assert_allclose(model.decision_function(X), mixture.decision_function(X), atol=1e-6)
    np.testing.assert_allclose(
        model.log_likelihood(X, y, groups=groups), mixture.log_likelihood(X, y, groups=groups), atol=1e-8
    )
    np.testing.assert_allclose(
        model.responsibilities(X, y, groups=groups), mixture.responsibilities(X, y, groups=groups), atol=1e-6
    )


def test_one_component_without_rank_is_a_gaussian_prior():
    """Two features, so that the integral over a user's reward can be a sum over a grid."""
    X, y, groups, _ = people(users=40, votes=4, d=2)
    model = HierarchicalBradleyTerry(1, rank=0, tau=0.8, alpha=1e-3, **QUICK).fit(X, y, groups=groups)
    np.testing.assert_allclose(model.tau_, 0.8)
    assert model.rank_ == 0
    axis = np.linspace(-6, 6, 241) * 0.8
    a, b = (part.ravel() for part in np.meshgrid(axis, axis))
    prior = np.exp(-0.5 * (a**2 + b**2) / 0.8**2)
    prior /= prior.sum()
    signs = 2 * y - 1
    rewards = model.coef_[0] + np.stack([a, b], axis=1)
    total, mean = 0.0, np.empty(40)
    probe = np.array([1.0, -0.5])
    router = ContextRouter(model).partial_fit(X, y, groups=groups)
    for u in range(40):
        mine = groups == u
        log_likelihood = log_sigmoid((X[mine] * signs[mine, None]) @ rewards.T).sum(axis=0)
        density = prior * np.exp(log_likelihood)
        total += np.log(density.sum())
        mean[u] = density @ (1 / (1 + np.exp(-rewards @ probe))) / density.sum()
    np.testing.assert_allclose(model.log_likelihood(X, y, groups=groups), total / len(y), atol=1e-3)
    found = router.predict_proba(np.repeat(probe[None], 40, axis=0), groups=np.arange(40))[:, 1]
    np.testing.assert_allclose(found, mean, atol=0.01)


def test_a_rank_is_a_subspace(world):
    X, y, groups, _ = world
    model = HierarchicalBradleyTerry(1, rank=1, tau=0.0, alpha=1e-3, random_state=0).fit(X, y, groups=groups)
    values = np.linalg.eigvalsh(model.scatter_.covariances[0])
    assert model.rank_ == 1
    assert np.abs(values[:-1]).max() < 1e-9 * values[-1]
    np.testing.assert_allclose(model.tau_, 0, atol=1e-6)


def test_a_rank_beyond_the_directions_is_kept_or_refused():
    X, y, groups, _ = people(users=40, votes=6, d=20)
    fixed = {"tau": 0.0, "alpha": 0.01, **QUICK, "max_iter": 300}
    assert HierarchicalBradleyTerry(1, rank=18, **fixed).fit(X, y, groups=groups).scatter_.basis.shape == (20, 18)
    assert HierarchicalBradleyTerry(1, rank=99, **fixed).fit(X, y, groups=groups).scatter_.basis.shape == (20, 20)
    with pytest.raises(ValueError, match=r"n_directions: expected at least the rank, 8, got 5"):
        HierarchicalBradleyTerry(1, rank=8, n_directions=5, **fixed).fit(X, y, groups=groups)


def test_with_few_directions_the_rest_is_variance():
    X, y, groups, _ = people(d=6)
    model = HierarchicalBradleyTerry(1, rank=0, tau=1.0, n_directions=2, alpha=1e-3, **QUICK).fit(X, y, groups=groups)
    scatter = model.scatter_
    assert scatter.basis.shape == (6, 2)
    np.testing.assert_allclose(scatter.residual, 1.0)
    full = HierarchicalBradleyTerry(1, rank=0, tau=1.0, alpha=1e-3, **QUICK).fit(X, y, groups=groups)
    part, whole = model.log_likelihood(X, y, groups=groups), full.log_likelihood(X, y, groups=groups)
    assert part < whole
    # Of one vote each, users have nothing to remember: every direction is variance alone.
    full.coef_ = model.coef_
    np.testing.assert_allclose(model.log_likelihood(X, y), full.log_likelihood(X, y), rtol=1e-9)


def test_axes_of_users_are_found_where_features_are_many():
    rng = np.random.default_rng(0)
    users, votes, d = 250, 12, 30
    direction = np.eye(d)[3]
    groups = np.repeat(np.arange(users), votes)
    X = rng.normal(size=(users * votes, d))
    taste = rng.normal(size=users) * 2.5
    y = rng.random(len(X)) < 1 / (1 + np.exp(-(X[:, 0] + taste[groups] * (X @ direction))))
    model = HierarchicalBradleyTerry(1, rank=1, n_directions=4, alpha="auto", **QUICK).fit(X, y, groups=groups)
    assert abs(model.scatter_.basis[3, 0]) > 0.9
    assert model.scatter_.basis.shape == (d, 1)
    assert 1.5 < np.sqrt(model.scatter_.covariances[0, 0, 0]) < 3.5


# ------------------------------------------------------------------------------------------------- what is recovered


@pytest.mark.parametrize(
    ("width", "n_axes", "rows"), [(20, 5, 60), (20, 20, 60), (300, 0, 400), (300, 6, 400), (300, 6, 3)]
)
def test_leading_axes_are_eigenvectors_however_many_columns(width, n_axes, rows):
    X = np.random.default_rng(0).normal(size=(rows, width)) * np.geomspace(3, 1, width)
    moment = X.T @ X
    axes = _leading(moment, n_axes)
    np.testing.assert_allclose(axes.T @ axes, np.eye(n_axes), atol=1e-10)
    expected = np.linalg.eigvalsh(moment)[::-1][:n_axes]
    np.testing.assert_allclose(np.einsum("ik,ij,jk->k", axes, moment, axes), expected, atol=1e-8 * moment.max())


def test_axes_of_differences_are_those_beside_the_axes_that_are_given():
    X = np.random.default_rng(0).normal(size=(80, 6)) * np.arange(1, 7)
    votes = UserVotes(Comparisons.read(MixtureBradleyTerry(1), X, None, None, None, first=True, host=True), 1.0)
    beside = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 2)))[0]
    outside = np.eye(6) - beside @ beside.T
    expected = np.linalg.eigh(outside @ X.T @ X @ outside)[1][:, :-4:-1]
    axes = axes_of_differences(votes, 3, beside)
    np.testing.assert_allclose(axes @ axes.T, expected @ expected.T, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 2, 5])
@pytest.mark.parametrize("tau", [None, 0.5])
def test_a_covariance_of_a_rank_keeps_its_largest_directions(rank, tau):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 5, 9))
    users = np.array([3.0, 7.0])
    spread = roots @ roots.swapaxes(1, 2)
    free = spread / users[:, None, None]
    found = shaped(spread, users, Shape(rank, tau=tau))
    for before, after in zip(np.linalg.eigvalsh(free)[:, ::-1], np.linalg.eigvalsh(found)[:, ::-1], strict=True):
        rest = before[rank:].mean() if tau is None and rank < 5 else (tau or 0.0) ** 2
        np.testing.assert_allclose(after[:rank], np.maximum(before[:rank], rest))
        np.testing.assert_allclose(after[rank:], rest)


def test_planted_scatter_is_recovered(scattered, world):
    _, _, _, centres = world
    np.testing.assert_allclose(scattered.tau_, 1.0, atol=0.25)
    np.testing.assert_allclose(scattered.coef_, centres, atol=0.4)
    assert scattered.converged_


def test_auto_chooses_a_gaussian_where_people_scatter(world):
    X, y, groups, _ = world
    model = HierarchicalBradleyTerry(random_state=0, n_init=2).fit(X, y, groups=groups)
    assert model.n_components_ == 1
    assert model.scatter_ is not None
    chosen = [one for one in model.selection_ if one["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["nats_per_row"] > max(one["nats_per_row"] for one in model.selection_ if not one["scatter"])


def test_the_smallest_that_is_within_a_standard_error_of_the_best_is_chosen():
    """In worlds so small that the best is often the best by chance."""
    is_best = []
    for seed in range(4):
        X, y, groups, _ = people(seed, users=40, votes=5, tau=0.5)
        tried = HierarchicalBradleyTerry(random_state=0, n_init=1).fit(X, y, groups=groups).selection_
        best = max(one["nats_per_row"] for one in tried)
        near = [one for one in tried if best - one["nats_per_row"] <= max(one["standard_error"], 2e-4)]
        (chosen,) = (one for one in tried if one["chosen"])
        smallest = min(one["numbers_per_user"] for one in near)
        assert chosen in near
        assert chosen["numbers_per_user"] == smallest
        is_best.append(chosen["nats_per_row"] == best)
    assert not all(is_best)


def test_auto_chooses_heads_where_people_are_points():
    X, y, groups, _ = people(users=300, votes=8, heads=2, tau=0.0, size=2.5)
    model = HierarchicalBradleyTerry(random_state=0, n_init=2).fit(X, y, groups=groups)
    assert model.n_components_ == 2
    assert model.scatter_ is None


def test_auto_chooses_one_reward_where_people_agree():
    X, y, groups, _ = people(users=200, votes=8, tau=0.0)
    shuffled = np.random.default_rng(1).permutation(groups)
    model = HierarchicalBradleyTerry(random_state=0, n_init=2).fit(X, y, groups=shuffled)
    assert (model.n_components_, model.scatter_) == (1, None)


def test_contexts_move_the_weights():
    X, y, groups, _ = people(users=200, heads=2, size=2.5, context=2, tau=0.7)
    model = HierarchicalBradleyTerry(
        2, rank=0, n_context_features=2, alpha=0.01, gate_alpha=1e-3, n_init=2, random_state=0
    ).fit(X, y, groups=groups)
    assert model.n_context_features_ == 2
    weights = model.mixture_weights(X)
    assert weights.max(axis=1).mean() > 0.9
    assert model.log_likelihood(X, y, groups=groups) > MixtureBradleyTerry(
        2, n_context_features=2, alpha=0.01, random_state=0
    ).fit(X, y, groups=groups).log_likelihood(X, y, groups=groups)


# -------------------------------------------------------------------------------------------------- every estimator's


def test_the_same_seed_gives_the_same_bits(world):
    X, y, groups, _ = world
    one, other = (HierarchicalBradleyTerry(2, **QUICK).fit(X, y, groups=groups) for _ in range(2))
    np.testing.assert_array_equal(one.coef_, other.coef_)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))


def test_swapping_negates_exactly(scattered, world):
    X = world[0]
    np.testing.assert_array_equal(
        scattered.decision_function(swap_pairs(X, n_context_features=0)), -scattered.decision_function(X)
    )


@pytest.mark.parametrize("scale", [1e-8, 10.0, 1e6])
def test_the_scale_of_features_changes_nothing(world, scale):
    X, y, groups, _ = world
    one = HierarchicalBradleyTerry(**QUICK).fit(X, y, groups=groups)
    other = HierarchicalBradleyTerry(**QUICK).fit(X * scale, y, groups=groups)
    np.testing.assert_allclose(other.predict_proba(X * scale), one.predict_proba(X), atol=1e-3)
    np.testing.assert_allclose(other.tau_ * scale, one.tau_, rtol=2e-2, atol=1e-3)


def test_the_order_of_groups_does_not_matter(world):
    X, y, groups, _ = world
    rows = np.argsort(np.random.default_rng(0).permutation(150)[groups], kind="stable")
    kind = {"rank": 0, "alpha": 0.01, **QUICK}
    one = HierarchicalBradleyTerry(1, **kind).fit(X, y, groups=groups)
    other = HierarchicalBradleyTerry(1, **kind).fit(X[rows], y[rows], groups=groups[rows])
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-6)


def test_the_order_of_votes_matters_little(world):
    X, y, groups, _ = world
    rows = np.random.default_rng(0).permutation(len(y))
    kind = {"rank": 0, "alpha": 0.01, **QUICK}
    one = HierarchicalBradleyTerry(1, **kind).fit(X, y, groups=groups)
    other = HierarchicalBradleyTerry(1, **kind).fit(X[rows], y[rows], groups=groups[rows])
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=0.02)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_repeated_row_is_a_weight_of_two(world, grouped):
    X, y, groups, _ = (part[:400] for part in world)
    repeats = np.random.default_rng(0).integers(1, 3, len(y))
    who = groups if grouped else None
    again = np.repeat(groups, repeats) if grouped else None
    kind = {"rank": 0, "tau": 0.7, "alpha": 0.01, **QUICK}
    one = HierarchicalBradleyTerry(1, **kind).fit(X, y, sample_weight=repeats, groups=who)
    other = HierarchicalBradleyTerry(1, **kind).fit(np.repeat(X, repeats, 0), np.repeat(y, repeats), groups=again)
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-6)


def test_a_group_weight_is_a_number_of_respondents(world):
    X, y, groups, _ = (part[:400] for part in world)
    weight = 1.0 + groups % 2
    twice = groups % 2 == 1
    kind = {"rank": 0, "alpha": 0.01, **QUICK}
    one = HierarchicalBradleyTerry(1, **kind).fit(X, y, groups=groups, group_weight=weight)
    rows = np.concatenate([X, X[twice]]), np.concatenate([y, y[twice]])
    other = HierarchicalBradleyTerry(1, **kind).fit(*rows, groups=np.concatenate([groups, groups[twice] + 1000]))
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=2e-3)
    plain = HierarchicalBradleyTerry(1, **kind).fit(X, y, groups=groups)
    assert np.abs(plain.predict_proba(X) - one.predict_proba(X)).max() > 5e-3


@pytest.mark.parametrize("scatter", [{"tau": 0.0}, {"tau": 0.7}, {"tau": "auto"}], ids=["heads", "given", "learned"])
@pytest.mark.parametrize("grouped", [True, False])
def test_a_stream_counts_respondents_by_their_weight(world, scatter, grouped):
    X, y, groups, _ = (part[:300] for part in world)
    model = HierarchicalBradleyTerry(1, rank=0, alpha=0.01, **scatter, **QUICK).partial_fit(X, y, groups=groups)
    found = [deepcopy(model) for _ in range(3)]
    for later in (slice(100), slice(100, 200)):  # the first step of Adam has one size, whatever the weights
        X_now, y_now, now = X[later], y[later], groups[later] + 500
        weight = 1.0 + now % 2
        twice = weight == 2
        rows = np.concatenate([X_now, X_now[twice]]), np.concatenate([y_now, y_now[twice]])
        found[0].partial_fit(X_now, y_now, groups=now if grouped else None, group_weight=weight)
        found[1].partial_fit(*rows, groups=np.concatenate([now, now[twice] + 500]) if grouped else None)
        found[2].partial_fit(X_now, y_now, groups=now if grouped else None)
    weighted, repeated, plain = (one.predict_proba(X) for one in found)
    np.testing.assert_allclose(weighted, repeated, atol=1e-9)
    assert np.abs(weighted - plain).max() > 1e-4


def test_a_group_with_two_weights_is_refused(world):
    X, y, groups, _ = world
    weight = np.ones(len(y))
    weight[3] = 2.0
    with pytest.raises(ValueError, match="expected one weight for all rows of a group, got 1 and 2 for group 0 "):
        HierarchicalBradleyTerry(1).fit(X, y, groups=groups, group_weight=weight)
    with pytest.raises(ValueError, match="group_weight: expected no negative number"):
        HierarchicalBradleyTerry(1).fit(X, y, groups=groups, group_weight=-weight)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("n_components", 0), ("n_components", "many"), ("rank", -1), ("tau", -1.0), ("n_directions", 1.5), ("tol", 0.0)],
)
def test_bad_parameters_are_named(world, parameter, value):
    X, y, groups, _ = world
    with pytest.raises(ValueError, match=f"{parameter}: expected"):
        HierarchicalBradleyTerry(**{parameter: value}).fit(X, y, groups=groups)


def test_too_few_iterations_warn(world):
    X, y, groups, _ = world
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        HierarchicalBradleyTerry(1, rank=4, alpha=0.01, max_iter=1, n_init=1).fit(X, y, groups=groups)


@pytest.mark.parametrize("kind", [{"rank": 0}, {"rank": 0, "tau": 0.0}, {"n_components": 2, "rank": 4}])
def test_saved_and_loaded_it_is_the_same(world, kind, tmp_path):
    X, y, groups, _ = world
    model = HierarchicalBradleyTerry(**{"n_components": 1, "alpha": 0.01, **QUICK, **kind}).fit(X, y, groups=groups)
    save(model, tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    np.testing.assert_array_equal(loaded.tau_, model.tau_)
    assert loaded.selection_ == model.selection_
    for one in (model, loaded):
        one.partial_fit(X[:50], y[:50], groups=groups[:50])
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))


def test_torch_in_torch_out(scattered, world):
    torch = pytest.importorskip("torch")
    X, y, groups, _ = world
    rows = torch.tensor(X, dtype=torch.float32)
    model = HierarchicalBradleyTerry(1, rank=0, alpha=1e-3, random_state=0).fit(rows, y, groups=groups)
    found = model.predict_proba(rows)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), scattered.predict_proba(X), atol=2e-3)


# ------------------------------------------------------------------------------------------------------------ streams


def test_a_stream_learns_what_a_fit_learns():
    X, y, groups, centres = people(users=400, votes=10, d=3)
    order = np.random.default_rng(0).permutation(len(y))  # groups come in pieces
    model = HierarchicalBradleyTerry(1, rank=0, random_state=0)
    for rows in np.split(order, [2000, 2500, 3000, 3500]):
        model.partial_fit(X[rows], y[rows], groups=groups[rows])
    np.testing.assert_allclose(model.coef_, centres, atol=0.4)
    np.testing.assert_allclose(model.tau_, 1.0, atol=0.35)
    rows = order[:2000]
    first = HierarchicalBradleyTerry(1, rank=0, random_state=0).fit(X[rows], y[rows], groups=groups[rows])
    assert model.log_likelihood(X, y, groups=groups) > first.log_likelihood(X, y, groups=groups)


def test_a_stream_learns_the_size_of_the_scatter_that_its_first_batch_does_not_show():
    X, y, groups, _ = people(users=600, votes=15, d=4)
    order = np.random.default_rng(0).permutation(len(y))  # hardly a user answers twice in the first batch
    stream = HierarchicalBradleyTerry(1, rank=4, random_state=0)
    for rows in np.split(order, range(300, len(y), 300)):
        stream.partial_fit(X[rows], y[rows], groups=groups[rows])
    fit = HierarchicalBradleyTerry(1, rank=4, random_state=0).fit(X, y, groups=groups)
    assert stream.log_likelihood(X, y, groups=groups) > fit.log_likelihood(X, y, groups=groups) - 0.02


def test_what_an_annotator_has_said_is_remembered():
    """Half of every annotator's votes, then the other half: the beliefs are those of one filter over both."""
    from micropref._engine.population import beliefs_of
    from micropref._users.scatter_stream import ScatterStream

    X, y, groups, _ = people(users=60, votes=10, d=3, heads=2)
    model = HierarchicalBradleyTerry(2, rank=3, alpha=0.01, **QUICK).fit(X, y, groups=groups)
    stream = model._begin_stream()
    assert isinstance(stream, ScatterStream)
    population = model._scaled_population()
    half = np.arange(len(y)) % 10 < 5
    votes = model._votes(X, y, None, groups).rows
    parts = [UserVotes(votes.part(np.flatnonzero(some)), stream.norm) for some in (half, ~half)]
    for part in parts:
        again = stream._take(part, population)
    kept = beliefs_of(parts[0], population)
    z, outside = parts[1].coordinates(population.scatter)
    variance = population.scatter.residual[:, None] * outside
    filter_votes(kept, parts[1].rounds, parts[1].margins(population.heads), z, variance)
    np.testing.assert_allclose(again.means, kept.means, atol=1e-4)
    np.testing.assert_allclose(again.covariances, kept.covariances, atol=1e-4)
    np.testing.assert_allclose(np.diff(again.evidence, axis=0), np.diff(kept.evidence, axis=0), atol=1e-3)
    assert np.diff(kept.evidence, axis=0).std() > 0.5  # or there would be nothing to compare


def test_what_votes_have_said_is_integrated_over_any_population():
    from micropref._users.scatter_stream import _posterior, _said

    a = np.linspace(-30.0, 30.0, 20001)
    said = np.array([[0.3]]), np.array([[[1.2]]]), np.array([[[[0.7]]]])  # exp(c + ηa − ½Λa²)
    for centre, variance in ((0.0, 1.0), (-1.5, 4.0), (2.0, 0.1)):
        prior = np.array([[[variance]]])
        beliefs = _posterior(said, np.array([[centre]]), prior)
        density = np.exp(0.3 + 1.2 * a - 0.35 * a**2 - 0.5 * (a - centre) ** 2 / variance) / np.sqrt(
            2 * np.pi * variance
        )
        mass = density.sum() * (a[1] - a[0])
        mean = (density * a).sum() / density.sum()
        np.testing.assert_allclose(beliefs.evidence, np.log(mass), atol=1e-9)
        np.testing.assert_allclose(beliefs.means, mean - centre, atol=1e-9)
        np.testing.assert_allclose(beliefs.covariances, (density * (a - mean) ** 2).sum() / density.sum(), atol=1e-9)
        for part, expected in zip(_said(beliefs, np.array([[centre]]), prior), said, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-9)


@pytest.mark.parametrize("grouped", [True, False])
def test_in_a_stream_a_repeated_row_is_a_weight_of_two(grouped):
    X, y, groups, _ = people(users=60, votes=8, heads=2, context=2)
    times = 1 + (np.arange(len(y)) % 3 == 0)
    first, later = np.arange(200), np.arange(200, 480)
    again = np.repeat(later, times[later])
    later_groups, again_groups = (groups[later], groups[again]) if grouped else (None, None)
    weighted, repeated = (HierarchicalBradleyTerry(2, n_context_features=2, rank=4, alpha=0.01, **QUICK) for _ in "ab")
    for model in (weighted, repeated):
        model.partial_fit(X[first], y[first], groups=groups[first])
    weighted.partial_fit(X[later], y[later], sample_weight=times[later], groups=later_groups)
    repeated.partial_fit(X[again], y[again], groups=again_groups)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-9)
    np.testing.assert_allclose(weighted.scatter_.covariances, repeated.scatter_.covariances, atol=1e-9)
    np.testing.assert_allclose(weighted.gate_parameters_[0], repeated.gate_parameters_[0], atol=1e-9)


def test_a_refused_batch_leaves_no_trace(world):
    X, y, groups, _ = world
    model = HierarchicalBradleyTerry(1, rank=0, alpha=0.01, **QUICK).partial_fit(X[:500], y[:500], groups=groups[:500])
    before = model.decision_function(X)
    bad = X[500:600].copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(bad, y[500:600], groups=groups[500:600])
    np.testing.assert_array_equal(model.decision_function(X), before)
    with pytest.raises(ValueError, match="expected rank=0, as in the first call"):
        model.set_params(rank=1).partial_fit(X[500:600], y[500:600])
