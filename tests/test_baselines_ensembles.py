"""Rivals made of linear heads: what each is exactly, where each must win, and what must not matter to any of them."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.baselines import DecomposedRewards, HypothesisReweighting, LowRankRewards, SharedBaseEnsemble
from micropref.baselines._base import PersonalRewards, known_users
from micropref.baselines._low_rank_objective import LowRankObjective, WeightObjective
from micropref.baselines._votes import Votes
from micropref.baselines.shared_base import _EnsembleObjective
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import make_pairs, swap_pairs
from micropref.router import ContextRouter

LEARNERS = [
    SharedBaseEnsemble(4),
    HypothesisReweighting(n_components=4),
    HypothesisReweighting(MixtureBradleyTerry(2, n_init=1), prefit=False),
    DecomposedRewards(),
    DecomposedRewards(3, center=False, average="probabilities"),
    LowRankRewards(2, n_init=1),
    LowRankRewards(1),
]
# What learns no label in `fit` cannot know that there was only one.
LABEL_FREE = [
    HypothesisReweighting("random", random_state=0),
    DecomposedRewards(prior="uniform"),
    DecomposedRewards(basis="random", random_state=0),
]


def models(seed: int = 0, n_context_features: int = 0) -> list[PersonalRewards]:
    kind = {"random_state": seed, "n_context_features": n_context_features}
    return [
        SharedBaseEnsemble(5, **kind),
        SharedBaseEnsemble(5, average="probabilities", **kind),
        HypothesisReweighting(n_components=3, **kind),
        HypothesisReweighting("random", n_components=6, **kind),
        DecomposedRewards(3, **kind),
        DecomposedRewards(3, basis="random", prior="uniform", **kind),
        LowRankRewards(2, n_init=1, tol=1e-8, max_iter=5000, **kind),
        LowRankRewards(1, **kind),
    ]


def identify(model: PersonalRewards) -> str:
    return repr(model).replace("\n", "")[:60]


def rows(seed: int = 0, n_users: int = 30, n_each: int = 6, d: int = 4):
    """Users between two tastes, with a user more whose label is a coin."""
    rng = np.random.default_rng(seed)
    D = 1.5 * rng.normal(size=(n_users * n_each, d))
    users = np.repeat(np.arange(n_users), n_each)
    share = rng.random(n_users)[users]
    y = (rng.random(len(D)) < expit(2 * share * D[:, 0] + 2 * (1 - share) * D[:, 1])).astype(int)
    return D, y, users


def training_rows(seed: int = 0, **kind) -> Comparisons:
    D, y, users = rows(seed, **kind)
    rng = np.random.default_rng(seed)
    users = np.where(rng.random(len(users)) < 0.2, -1, users)
    return Comparisons(
        PairReader(D, 0), (2 * y - 1).astype(np.int8), rng.uniform(0.2, 2, len(D)), check_groups(users, len(D))
    )


# ---------------------------------------------------------------------------------------------- scikit-learn's checks


@parametrize_with_checks(LEARNERS)
def test_scikit_learn_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as reason:
        if "SCIPY_ARRAY_API" not in str(reason):  # one check wants it to be set before SciPy is imported
            raise


@pytest.mark.parametrize("estimator", LEARNERS + LABEL_FREE, ids=identify)
def test_so_many_checks_ran(estimator):
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    status = Counter(result["status"] for result in results)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed <= ({"check_classifiers_one_label"} if estimator in LABEL_FREE else set())
    assert status["passed"] >= 58


# ---------------------------------------------------------------------------------------------------- the objectives


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_gradient_of_low_rank_rewards(seed, n_components):
    data = training_rows(seed)
    objective = LowRankObjective(
        data, data.groups.index, data.groups.n_groups, n_components, alpha=0.3, weight_penalty=2.0
    )
    assert objective.has_weights == (n_components > 1)
    vector = np.random.default_rng(seed).normal(size=len(objective.scale()))
    value = lambda v: objective.value_and_gradient(v)[0]  # noqa: E731
    gradient = lambda v: objective.value_and_gradient(v)[1]  # noqa: E731
    error = check_grad(value, gradient, vector, epsilon=1e-6)
    assert error < 1e-6 * max(1.0, np.linalg.norm(gradient(vector)))


def test_objective_of_low_rank_rewards_is_its_equation():
    data = training_rows(1)
    objective = LowRankObjective(data, data.groups.index, data.groups.n_groups, 3, alpha=0.3, weight_penalty=2.0)
    vector = np.random.default_rng(0).normal(size=len(objective.scale()))
    basis, center, offsets = objective.unpack(vector)
    total = 0.0
    for i, user in enumerate(data.groups.index):
        weights = softmax(center + (offsets[user] if user >= 0 else 0))
        total += data.weight[i] * np.logaddexp(0, -data.signs[i] * weights @ basis @ data.difference[i])
    total += (offsets**2).sum() + (center**2).sum()
    expected = total / data.weight.sum() + 0.5 * 0.3 / 3 * (basis**2).sum()
    assert objective.value_and_gradient(vector)[0] == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_gradient_of_one_users_weights(seed, n_components, n_votes):
    rng = np.random.default_rng(seed)
    objective = WeightObjective(
        3 * rng.normal(size=(n_votes, n_components)),
        rng.uniform(0.1, 3, n_votes),
        rng.normal(size=n_components),
        rng.uniform(0, 3),
    )
    logits = rng.normal(size=n_components)
    error = check_grad(
        lambda v: objective.value_and_gradient(v)[0],
        lambda v: objective.value_and_gradient(v)[1],
        logits,
        epsilon=1e-6,
    )
    assert error < 1e-5


def test_gradient_of_the_ensemble():
    data = training_rows(2)
    prior = np.random.default_rng(1).normal(size=(3, 4))
    objective = _EnsembleObjective(data, prior, 0.2)
    vector = np.random.default_rng(2).normal(size=12)
    error = check_grad(
        lambda v: objective.value_and_gradient(v)[0], lambda v: objective.value_and_gradient(v)[1], vector, epsilon=1e-6
    )
    assert error < 1e-5


# --------------------------------------------------------------------------------------------------- what each equals


@pytest.mark.parametrize("alpha", [1e-3, 0.1])
@pytest.mark.parametrize(
    "make",
    [
        lambda alpha: LowRankRewards(1, alpha=alpha, tol=1e-9),
        lambda alpha: LowRankRewards(3, alpha=alpha, tol=1e-9),  # without groups
        lambda alpha: SharedBaseEnsemble(3, alpha=alpha, prior_margin=0.0, tol=1e-9),
    ],
    ids=["K=1", "no groups", "no prior"],
)
def test_is_the_bradley_terry_model_of_that_penalty(make, alpha):
    D, y, users = rows()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(D))
    model = make(alpha)
    model.fit(D, y, sample_weight=weight, groups=users if model.n_components == 1 else None)
    bradley_terry = MixtureBradleyTerry(1, alpha=alpha, tol=1e-9).fit(D, y, sample_weight=weight)
    by_hand = LogisticRegression(C=1 / (alpha * weight.sum()), fit_intercept=False, tol=1e-10)
    by_hand.fit(D, y, sample_weight=weight)
    for head in model.coef_:
        np.testing.assert_allclose(head, by_hand.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(model.decision_function(D), bradley_terry.decision_function(D), rtol=1e-5, atol=1e-7)


def test_identical_users_share_one_reward_whatever_the_rank():
    D, y, _ = rows(n_users=100)
    users = np.zeros(len(D), dtype=int)
    found = LowRankRewards(3, weight_penalty=1e6, n_init=1, random_state=0).fit(D, y, groups=users)
    expected = LowRankRewards(1).fit(D, y)
    np.testing.assert_allclose(found.decision_function(D), expected.decision_function(D), atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("average", ["rewards", "probabilities"])
def test_hyre_on_a_mixture_of_equal_weights_is_the_routers_history(temperature, average):
    D, y, users = rows()
    mixture = MixtureBradleyTerry(3, n_init=1, random_state=0).fit(D, y, groups=users)
    mixture.gate_parameters_ = [np.zeros(3)]
    names = np.where(np.arange(20) % 2, "ann", "bob").tolist()
    router = ContextRouter(mixture, history_temperature=temperature).partial_fit(D[:20], y[:20], groups=names)
    hyre = HypothesisReweighting(mixture, temperature=temperature, average=average)
    hyre.partial_fit(D[:20], y[:20], groups=names)
    # The router keeps its evidence in single precision.
    who = ["ann", "bob", "new"] * 20
    np.testing.assert_allclose(
        hyre.mixture_weights(D[:60], groups=who), router.mixture_weights(D[:60], groups=who), rtol=1e-5
    )
    np.testing.assert_allclose(
        hyre.rewards(D[:60], groups=who), router.rewards(D[:60], groups=who), rtol=1e-5, atol=1e-6
    )
    odds = hyre.decision_function(D[:60], groups=who)
    if average == "probabilities":
        np.testing.assert_allclose(odds, router.decision_function(D[:60], groups=who), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(odds, router.rewards(D[:60], groups=who), rtol=1e-5, atol=1e-6)


def test_weights_of_hyre_are_its_equation():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(3, n_init=1, random_state=0).fit(D, y, groups=users)
    hyre = HypothesisReweighting(mixture, temperature=1.7, prior="heads").fit(D, y)
    np.testing.assert_allclose(hyre.weights_, mixture.weights_, rtol=1e-12)
    weight = np.random.default_rng(0).uniform(0.1, 2, 7)
    hyre.partial_fit(D[:7], y[:7], sample_weight=weight, groups=["ann"] * 7)
    loss = np.logaddexp(0, -(2 * y[:7, None] - 1) * (D[:7] @ mixture.coef_.T))
    expected = mixture.weights_ * np.exp(-weight @ loss / 1.7)
    found = hyre.mixture_weights(D[:1], groups=["ann"])[0]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-10)


def test_hyre_of_its_own_is_the_ensemble():
    D, y, _ = rows()
    found = HypothesisReweighting(n_components=5, random_state=3).fit(D, y)
    ensemble = SharedBaseEnsemble(5, random_state=3).fit(D, y)
    given = HypothesisReweighting(ensemble).fit(D, y)
    for model in (found, ensemble, given):
        model.partial_fit(D[:9], y[:9], groups=[1] * 9)
    for model in (found, given):
        np.testing.assert_array_equal(model.coef_, ensemble.coef_)
        np.testing.assert_array_equal(
            model.decision_function(D, groups=np.ones(len(D))), ensemble.decision_function(D, groups=np.ones(len(D)))
        )


@pytest.mark.parametrize("center", [False, True])
def test_directions_are_principal_components(center):
    D, y, _ = rows()
    model = DecomposedRewards(3, center=center, margin=1.5).fit(D, y)
    Z = (2 * y - 1)[:, None] * D
    if center:
        Z = Z - Z.mean(axis=0)
    _, singular, components = np.linalg.svd(Z, full_matrices=False)
    np.testing.assert_allclose(model.explained_variance_, singular[:3] ** 2 / len(D), rtol=1e-10)
    units = model.coef_[:3] / np.linalg.norm(model.coef_[:3], axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(np.einsum("nd,nd->n", units, components[:3])), 1, rtol=1e-10)
    np.testing.assert_array_equal(model.coef_[3:], -model.coef_[:3])
    np.testing.assert_allclose(np.sqrt((model.component_scores(D) ** 2).mean(axis=0)), 1.5, rtol=1e-10)
    assert (((2 * y - 1) @ D) @ model.coef_[:3].T > 0).all()  # signed as the rows prefer


def test_only_centring_lets_labels_into_the_basis():
    D, y, _ = rows()
    other = np.random.default_rng(1).integers(0, 2, len(D))

    def basis(labels, **kind):
        coef = DecomposedRewards(2, prior="uniform", **kind).fit(D, labels).coef_[:2]
        return coef * np.sign(coef[:, :1])

    np.testing.assert_allclose(basis(y, center=False), basis(other, center=False), rtol=1e-12)
    assert np.abs(basis(y) - basis(other)).max() > 0.01
    # What everybody agrees on is taken out of the directions in which they are said to differ.
    agreement = DecomposedRewards(4).fit(D, D[:, 2] > 0)
    assert np.abs(agreement.coef_[3]).argmax() == 2


def test_opposite_heads_of_equal_weight_say_nothing_at_all():
    D, y, _ = rows()
    model = DecomposedRewards(3, prior="uniform").fit(D, y)
    assert (model.decision_function(D) == 0).all()
    assert (model.rewards(D) == 0).all()
    model.partial_fit(D[:5], y[:5], groups=["ann"] * 5)
    assert (model.decision_function(D, groups=["ann"] * len(D)) != 0).all()


def test_directions_without_variance_are_dropped():
    rng = np.random.default_rng(0)
    D = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6))
    model = DecomposedRewards(6).fit(D, D[:, 0] > 0)
    assert model.n_components_ == 2
    assert model.coef_.shape == (4, 6)
    one = DecomposedRewards(6).fit(D[:1], [1])  # nothing varies about the mean
    assert one.n_components_ == 1
    assert one.predict(D[:1]) == [1]
    tied = DecomposedRewards(2).fit(np.vstack([D, -D]), np.ones(100), sample_weight=np.full(100, 0.5))
    assert (np.take_along_axis(tied.coef_[:2], np.abs(tied.coef_[:2]).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_the_ensemble_stays_diverse_where_the_rows_say_nothing():
    rng = np.random.default_rng(0)
    D = rng.normal(size=(2000, 6)) * [1, 1, 1, 1, 0.01, 0.01]
    y = (rng.random(2000) < expit(2 * D[:, 0])).astype(int)
    model = SharedBaseEnsemble(64, random_state=0).fit(D, y)
    spread = model.coef_.std(axis=0)
    assert spread[:4].max() < 0.1 * spread[4:].min()
    np.testing.assert_allclose(model.coef_[:, 4:], model.prior_coef_[:, 4:], rtol=0.2, atol=0.05)
    margins = D @ model.prior_coef_.T
    np.testing.assert_allclose(np.sqrt((margins**2).mean(axis=0)), 1, rtol=1e-9)


def test_random_heads_do_not_look_at_labels():
    D, y, _ = rows()
    first = HypothesisReweighting("random", n_components=50, random_state=1).fit(D, y)
    second = HypothesisReweighting("random", n_components=50, random_state=1).fit(D, 1 - y)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_allclose(np.sqrt((first.component_scores(D) ** 2).mean(axis=0)), 1, rtol=1e-9)
    assert first.heads_ is None


def test_new_users_get_what_joint_training_gave_the_same_votes():
    D, y, users = rows(n_users=60, n_each=10)
    model = LowRankRewards(2, random_state=0, tol=1e-8, max_iter=3000).fit(D, y, groups=users)
    assert known_users(model) == list(range(60))
    joint = model.mixture_weights(D, groups=users)
    model.partial_fit(D, y, groups=users + 1000)
    np.testing.assert_allclose(model.mixture_weights(D, groups=users + 1000), joint, atol=1e-4)
    assert joint[:, 0].std() > 0.05
    # The mean of users is in their logits, and is what a stranger gets.
    stranger = model.mixture_weights(D[:1], groups=["stranger"])
    np.testing.assert_array_equal(stranger[0], model.weights_)
    each = np.log(joint[::10])
    center = (each - each.mean(axis=1, keepdims=True)).sum(axis=0) / 61  # and of one who is at equal weights
    np.testing.assert_allclose(softmax(center), model.weights_, atol=1e-4)
    assert model.weights_[0] >= model.weights_[1]


# ---------------------------------------------------------------------------------------------------- planted worlds


def _labels(rng, margins):
    return (rng.random(len(margins)) < expit(margins)).astype(int)


def _quality(model, X, margins, groups):
    """Expected accuracy and log-likelihood of new labels."""
    p, odds = expit(margins), model.decision_function(X, groups=groups)
    return np.array(
        [
            np.where(odds > 0, p, 1 - p).mean(),
            -(p * np.logaddexp(0, -odds) + (1 - p) * np.logaddexp(0, odds)).mean(),
        ]
    )


def _compare(seed, n_votes, heads, draw, candidates, n_new=100, n_test=50):
    """Qualities of fitted candidates for new users of these heads (n_new, d), each after `n_votes` votes."""
    rng = np.random.default_rng(seed + 1000)
    users, asked = np.repeat(np.arange(n_new), n_votes), np.repeat(np.arange(n_new), n_test)
    votes, X = draw(rng, len(users)), draw(rng, len(asked))
    y = _labels(rng, np.einsum("nd,nd->n", votes, heads[users]))
    margins = np.einsum("nd,nd->n", X, heads[asked])
    names, who = users + 5000, asked + 5000
    return {
        name: _quality(model.partial_fit(votes, y, groups=names), X, margins, who) for name, model in candidates.items()
    }


def _standard(seed, X, y, users=None, n_components=3):
    mixture = MixtureBradleyTerry(n_components, n_init=2, random_state=seed).fit(X, y, groups=users)
    return {
        "single": LowRankRewards(1).fit(X, y),
        "shared": SharedBaseEnsemble(random_state=seed).fit(X, y),
        "random": HypothesisReweighting("random", random_state=seed).fit(X, y),
        "hyre": HypothesisReweighting(mixture).fit(X, y),
        "drm": DecomposedRewards(random_state=seed).fit(X, y),
        "lore": LowRankRewards(n_components, max_iter=2000, random_state=seed).fit(X, y, groups=users),
    }


def _assert_best(found, winner, accuracy, nats):
    for name, quality in found.items():
        if name != winner:
            ahead = found[winner] - quality
            assert ahead[0] > accuracy, (name, found)
            assert ahead[1] > nats, (name, found)


def _normal(d):
    return lambda rng, n: rng.normal(size=(n, d))


@pytest.mark.parametrize("seed", range(3))
def test_low_rank_rewards_win_where_users_combine_rewards(seed):
    rng = np.random.default_rng(seed)
    basis = 10 / np.sqrt(8) * rng.normal(size=(3, 8))
    users = np.repeat(np.arange(300), 30)
    X = rng.normal(size=(9000, 8))
    y = _labels(rng, np.einsum("nd,nd->n", X, (rng.dirichlet(np.ones(3), 300) @ basis)[users]))
    candidates = _standard(seed, X, y, users)
    found = _compare(seed, 20, rng.dirichlet(np.ones(3), 100) @ basis, _normal(8), candidates)
    _assert_best(found, "lore", accuracy=0.008, nats=0.015)
    assert found["lore"][0] > found["single"][0] + 0.03


@pytest.mark.parametrize("seed", range(3))
def test_hypothesis_reweighting_wins_where_a_user_is_one_of_the_heads(seed):
    rng = np.random.default_rng(seed)
    heads = 5 / np.sqrt(8) * rng.normal(size=(6, 8))
    users = np.repeat(np.arange(300), 20)
    X = rng.normal(size=(6000, 8))
    y = _labels(rng, np.einsum("nd,nd->n", X, heads[rng.integers(0, 6, 300)[users]]))
    candidates = _standard(seed, X, y, users, n_components=6)
    found = _compare(seed, 6, heads[rng.integers(0, 6, 100)], _normal(8), candidates)
    _assert_best(found, "hyre", accuracy=0.01, nats=0.03)
    assert found["hyre"][0] > found["single"][0] + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_decomposed_rewards_win_where_users_differ_in_what_varies_most(seed):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    size = np.r_[np.full(4, 3.0), np.full(36, 0.3)]

    def draw(rng, n):
        return (rng.normal(size=(n, 40)) * size) @ axes.T

    def heads(n):
        return axes.T[rng.integers(0, 4, n)] * rng.choice([-1, 1], n)[:, None]

    X = draw(rng, 2000)  # 2 000 annotators of one vote: nothing tells them apart
    y = _labels(rng, np.einsum("nd,nd->n", X, heads(2000)))
    candidates = _standard(seed, X, y)
    candidates |= {
        "drm": DecomposedRewards(4).fit(X, y),
        "drm, random": DecomposedRewards(4, basis="random", random_state=seed).fit(X, y),
    }
    found = _compare(seed, 8, heads(100), draw, candidates)
    _assert_best(found, "drm", accuracy=0.0, nats=0.015)
    assert found["drm"][0] > found["single"][0] + 0.15
    assert found["drm"][0] > found["drm, random"][0] + 0.03


@pytest.mark.parametrize("seed", range(3))
def test_the_shared_base_ensemble_wins_where_training_left_something_open(seed):
    rng = np.random.default_rng(seed)
    shared = np.r_[3 / np.sqrt(12) * rng.normal(size=10), 0, 0]
    X = rng.normal(size=(1500, 12)) * np.r_[np.ones(10), 0.02, 0.02]
    y = _labels(rng, X @ shared)
    own = np.hstack([np.zeros((100, 10)), 2 * rng.normal(size=(100, 2))])
    candidates = _standard(seed, X, y, n_components=2)
    candidates["shared"] = SharedBaseEnsemble(64, prior_margin=3.0, random_state=seed).fit(X, y)
    candidates["without priors"] = SharedBaseEnsemble(64, prior_margin=0.0).fit(X, y)
    found = _compare(seed, 8, shared + own, _normal(12), candidates)
    _assert_best(found, "shared", accuracy=0.03, nats=0.05)


# ---------------------------------------------------------------------------------------------- what must not matter


@pytest.mark.parametrize("model", models(), ids=identify)
def test_the_same_seed_gives_the_same_bits(model):
    D, y, users = rows()
    first, second = (clone(model).fit(D, y, groups=users) for _ in range(2))
    np.testing.assert_array_equal(first.coef_, second.coef_)
    first.partial_fit(D[:9], y[:9], groups=[99] * 9)
    second.partial_fit(D[:9], y[:9], groups=[99] * 9)
    who = np.where(users % 2, users, 99)
    np.testing.assert_array_equal(first.decision_function(D, groups=who), second.decision_function(D, groups=who))
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(copy.decision_function(D, groups=who), first.decision_function(D, groups=who))


def _adapted(model, X, y, users, weight=None):
    """Fitted on all rows but the last 20, which are votes of a new user, of a known one and of everybody."""
    part = (lambda w: None if w is None else w[:-20]), (lambda w: None if w is None else w[-20:])
    model = clone(model).fit(X[:-20], y[:-20], sample_weight=part[0](weight), groups=users[:-20])
    return model.partial_fit(X[-20:], y[-20:], sample_weight=part[1](weight), groups=users[-20:])


def _world(seed):
    D, y, users = rows(seed)
    names = users.astype(object)
    names[-20:] = ["new"] * 8 + [0] * 8 + [None] * 4
    return D, y, names


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1))
def test_swapped_pairs_change_nothing(seed, which):
    D, y, users = _world(seed)
    X = make_pairs(D, 0 * D, context=np.random.default_rng(seed).normal(size=(len(D), 2)))
    model = models(seed, n_context_features=2)[which]
    flip = np.random.default_rng(seed + 1).random(len(X)) < 0.5
    swapped = np.where(flip[:, None], swap_pairs(X, 2), X)
    expected = _adapted(model, X, y, users)
    found = _adapted(model, swapped, np.where(flip, 1 - y, y), users)
    odds = expected.decision_function(X, groups=users)
    np.testing.assert_allclose(found.decision_function(X, groups=users), odds, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        expected.decision_function(swap_pairs(X, 2), groups=users), -odds, rtol=1e-12, atol=1e-14
    )


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1))
def test_a_repeated_row_equals_weight_two(seed, which):
    D, y, users = _world(seed)
    weight = np.random.default_rng(seed).integers(1, 3, len(D))
    again = np.repeat(np.arange(len(D)), weight)
    model = models(seed)[which]
    expected = _adapted(model, D, y, users, weight)
    last = int(weight[-20:].sum())
    found = clone(model).fit(D[again[:-last]], y[again[:-last]], groups=users[again[:-last]])
    found.partial_fit(D[again[-last:]], y[again[-last:]], groups=users[again[-last:]])
    np.testing.assert_allclose(
        found.decision_function(D, groups=users), expected.decision_function(D, groups=users), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=8)
@given(st.integers(0, 1000), st.integers(0, len(models()) - 1), st.permutations(range(30)))
def test_names_of_users_do_not_matter(seed, which, permutation):
    D, y, users = _world(seed)
    renamed = np.array([permutation[u] if isinstance(u, int) else u for u in users.tolist()], dtype=object)
    model = models(seed)[which]
    expected = _adapted(model, D, y, users).decision_function(D, groups=users)
    np.testing.assert_array_equal(_adapted(model, D, y, renamed).decision_function(D, groups=renamed), expected)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_votes_never_reach_what_was_learned_nor_other_users(model):
    D, y, users = rows()
    model.fit(D, y, groups=users)
    coef, before = model.coef_.copy(), model.decision_function(D, groups=users)
    model.partial_fit(D[:50], 1 - y[:50], groups=["new"] * 50)
    np.testing.assert_array_equal(model.coef_, coef)
    np.testing.assert_array_equal(model.decision_function(D, groups=users), before)
    np.testing.assert_array_equal(model.decision_function(D, groups=["stranger"] * len(D)), model.decision_function(D))
    if len(coef) > 1:
        moved = np.abs(model.decision_function(D, groups=["new"] * len(D)) - model.decision_function(D)).max()
        assert moved > (1e-6 if np.ptp(coef, axis=0).max() < 0.01 else 0.01)  # trained heads hardly differ
    model.fit(D, y, groups=users)
    np.testing.assert_array_equal(model.decision_function(D, groups=["new"] * len(D)), model.decision_function(D))


@pytest.mark.parametrize("model", models(), ids=identify)
def test_rows_without_a_user_move_everybody(model):
    D, y, users = rows()
    model.fit(D, y, groups=users)
    before = model.mixture_weights(D[:1])[0]
    one, two = clone(model).fit(D, y, groups=users), clone(model).fit(D, y, groups=users)
    one.partial_fit(D[:6], 1 - y[:6])
    two.partial_fit(D[:3], 1 - y[:3]).partial_fit(D[3:6], 1 - y[3:6], groups=[np.nan, -1, np.nan])
    np.testing.assert_allclose(two.decision_function(D), one.decision_function(D), rtol=1e-9, atol=1e-12)
    if len(before) > 1:
        assert np.abs(one.mixture_weights(D[:1])[0] - before).max() > 1e-3
    two.partial_fit(D[:6], y[:6], sample_weight=np.r_[1, np.zeros(5)], groups=["a", "b", "b", "b", "b", "b"])
    assert "a" in known_users(two)
    assert "b" not in known_users(two)  # a vote without weight was never cast


@pytest.mark.parametrize("model", models()[:-1], ids=identify)
def test_everybodys_votes_are_where_every_user_starts_whichever_came_first(model):
    D, y, users = rows()
    one, two = (clone(model).fit(D, y, groups=users) for _ in range(2))
    one.partial_fit(D[:6], 1 - y[:6], groups=["ann"] * 6)
    before = one.mixture_weights(D[:1], groups=["ann"])[0]
    one.partial_fit(D[6:12], 1 - y[6:12])
    two.partial_fit(D[6:12], 1 - y[6:12]).partial_fit(D[:6], 1 - y[:6], groups=["ann"] * 6)
    found = one.mixture_weights(D[:1], groups=["ann"])[0]
    np.testing.assert_array_equal(found, two.mixture_weights(D[:1], groups=["ann"])[0])
    assert np.abs(found - before).max() > 1e-6


# -------------------------------------------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("model", models(), ids=identify)
@pytest.mark.parametrize("kind", ["float16", "float32", "memmap", "torch", "torch.half", "strided"])
def test_any_kind_of_matrix(model, kind, tmp_path):
    D, y, users = rows()
    D = D.astype(np.float16).astype(np.float64)  # values that every kind holds
    if kind.startswith("torch"):
        import torch

        X = torch.tensor(D, dtype=torch.float16 if kind == "torch.half" else torch.float32)
    elif kind == "memmap":
        X = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=D.shape)
        X[...] = D
    elif kind == "strided":
        X = np.asfortranarray(np.repeat(D, 2, axis=1))[:, ::2]
    else:
        X = D.astype(kind)
    if isinstance(model, LowRankRewards):
        model = model.set_params(tol=1e-5)
    expected = clone(model).fit(D, y, groups=users).partial_fit(D[:5], y[:5], groups=["ann"] * 5)
    found = clone(model).fit(X, y, groups=users).partial_fit(X[:5], y[:5], groups=["ann"] * 5)
    for who in (None, ["ann"] * len(D)):
        odds = found.decision_function(X, groups=who)
        assert isinstance(odds, np.ndarray)
        np.testing.assert_allclose(odds, expected.decision_function(D, groups=who), rtol=0.02, atol=0.02)
        np.testing.assert_allclose(found.rewards(X, groups=who), expected.rewards(D, groups=who), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_ties_everywhere_teach_nothing(model):
    D, _, users = rows()
    X, weight, names = np.vstack([D, -D]), np.full(2 * len(D), 0.5), np.tile(users, 2)
    model.fit(X, np.ones(len(X)), sample_weight=weight, groups=names)
    trained = not (isinstance(model, HypothesisReweighting) and model.heads == "random")
    if trained:
        np.testing.assert_allclose(model.predict_proba(X, groups=names), 0.5, atol=5e-3)
    before = model.mixture_weights(D[:1])
    model.partial_fit(X, np.ones(len(X)), sample_weight=weight, groups=["tied"] * len(X))
    assert np.isfinite(model.decision_function(X, groups=["tied"] * len(X))).all()
    if isinstance(model, DecomposedRewards):
        np.testing.assert_allclose(model.mixture_weights(D[:1], groups=["tied"])[0, :3], before[0, :3], atol=0.5)
        assert np.abs(model.decision_function(X, groups=["tied"] * len(X))).max() < 1e-9


@pytest.mark.parametrize("model", models(), ids=identify)
def test_few_rows_and_few_users(model):
    D, y, _ = rows()
    for n, users in ((1, ["a"]), (2, ["a", "b"]), (3, ["a", None, "a"]), (4, None)):
        fitted = clone(model).fit(D[:n], y[:n], groups=users)
        assert np.isfinite(fitted.decision_function(D, groups=["a"] * len(D))).all()
        fitted.partial_fit(D[9:10], [1], groups=["once"])
        up = fitted.decision_function(D[9:10], groups=["once"])
        assert up >= fitted.decision_function(D[9:10]) - 1e-9  # one vote moves its pair the voter's way


def test_more_heads_than_users_and_users_without_weight():
    D, y, users = rows(n_users=3)
    model = LowRankRewards(8, random_state=0).fit(D, y, groups=users)
    assert model.mixture_weights(D, groups=users).shape == (18, 8)
    weight = np.where(users == 1, 0.0, 1.0)
    some = LowRankRewards(3, random_state=0).fit(D, y, sample_weight=weight, groups=users)
    assert known_users(some) == [0, 2]
    np.testing.assert_array_equal(some.mixture_weights(D[:1], groups=[1])[0], some.weights_)
    left = LowRankRewards(3, random_state=0).fit(D[weight > 0], y[weight > 0], groups=users[weight > 0])
    np.testing.assert_allclose(some.coef_, left.coef_, rtol=1e-6, atol=1e-9)
    none = LowRankRewards(3).fit(D, y, sample_weight=np.r_[0, np.ones(17)], groups=["a"] + [None] * 17)
    assert known_users(none) == []
    assert none.n_iter_ > 0


def test_without_penalties_of_the_weights_one_vote_decides():
    D, y, users = rows(n_users=60, n_each=10)
    model = LowRankRewards(2, random_state=0, tol=1e-4).fit(D, y, groups=users)
    model.set_params(weight_penalty=0.0).partial_fit(D[:1], y[:1], groups=["ann"])
    assert model.mixture_weights(D[:1], groups=["ann"]).max() > 0.99  # the paper's rule: a corner of the simplex


# --------------------------------------------------------------------------------------------------- heads of others


def test_given_heads_need_no_fit_and_lose_no_vote():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(D, y, groups=users)
    direct = HypothesisReweighting(mixture).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    first = HypothesisReweighting(mixture).fit(D, y, groups=users).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    for model in (direct, first):
        assert known_users(model) == ["ann"]
        np.testing.assert_array_equal(model.heads_.coef_, mixture.coef_)
        assert model.heads_ is not mixture
    np.testing.assert_array_equal(
        direct.decision_function(D, groups=["ann"] * len(D)), first.decision_function(D, groups=["ann"] * len(D))
    )
    words = HypothesisReweighting(mixture).partial_fit(D[:2], ["no", "no"], classes=["no", "yes"])
    assert words.classes_.tolist() == ["no", "yes"]
    assert set(words.predict(D)) == {"no", "yes"}


def test_heads_that_lost_their_fit_say_what_to_do():
    D, y, users = rows()
    mixture = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(D, y, groups=users)
    model = HypothesisReweighting(mixture)
    for lost in (clone(model), HypothesisReweighting(FrozenEstimator(clone(mixture)))):
        with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
            lost.fit(D, y)
        with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
            lost.partial_fit(D, y)
    frozen = clone(HypothesisReweighting(FrozenEstimator(mixture), prefit=False)).fit(D, y)
    np.testing.assert_array_equal(frozen.coef_, mixture.coef_)


def test_heads_are_fitted_on_the_same_rows():
    D, y, users = rows()
    context = np.random.default_rng(0).normal(size=(len(D), 3))
    X = make_pairs(D, 0 * D, context=context)
    heads = MixtureBradleyTerry(2, n_context_features=2, n_init=1)
    model = HypothesisReweighting(heads, n_context_features=3, prefit=False, random_state=5)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(D))
    model.fit(X, y, sample_weight=weight, groups=users)
    by_hand = MixtureBradleyTerry(2, n_context_features=2, n_init=1, random_state=5)
    by_hand.fit(np.delete(X, 2, axis=1), y, sample_weight=weight, groups=users)
    np.testing.assert_allclose(model.coef_, by_hand.coef_, rtol=1e-9)
    assert not hasattr(heads, "coef_")
    # An estimator that knows nothing of annotators or seeds has heads, too.
    plain = HypothesisReweighting(LogisticRegression(fit_intercept=False), prefit=False, n_context_features=3)
    assert plain.fit(X, y).coef_.shape == (1, 4)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_scores_are_of_the_labels_predicted(model):
    D, y, users = rows()
    weight = np.random.default_rng(0).uniform(0.1, 2, len(D))
    model.fit(D, y, groups=users).partial_fit(D[:9], y[:9], groups=["ann"] * 9)
    who = np.array(["ann", None] * 90, dtype=object)
    p = model.predict_proba(D, groups=who)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    expected = np.average(np.log(p[np.arange(len(D)), y]), weights=weight)
    assert model.log_likelihood(D, y, sample_weight=weight, groups=who) == pytest.approx(expected, rel=1e-9)
    assert model.log_likelihood(D, groups=who) == pytest.approx(np.log(p[:, 1]).mean(), rel=1e-9)
    assert model.score(D, y, sample_weight=weight, groups=who) == pytest.approx(
        np.average(model.predict(D, groups=who) == y, weights=weight)
    )


def test_rewards_rank_as_pairs_are_decided():
    D, y, users = rows()
    first, second = np.random.default_rng(0).normal(size=(2, 40, 4))
    who = (["ann"] * 20) + [None] * 20
    for model in models():
        model.fit(D, y, groups=users).partial_fit(D[:7], y[:7], groups=["ann"] * 7)
        apart = model.rewards(first, groups=who) - model.rewards(second, groups=who)
        if model.average == "rewards":
            np.testing.assert_allclose(apart, model.decision_function(first - second, groups=who), atol=1e-9)
        np.testing.assert_array_equal(model.rewards(first), model.rewards(first, np.ones((40, 2))))
        assert model.rewards([[1, 0, 0, 0]]).shape == (1,)
        np.testing.assert_allclose(model.mixture_weights(first, groups=who).sum(axis=1), np.ones(40), rtol=1e-9)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SharedBaseEnsemble(0), "n_components: expected an integer of at least 1, got 0"),
        (SharedBaseEnsemble(2, prior_margin=-1), r"prior_margin: expected a number in \[0, 1e\+30\]"),
        (SharedBaseEnsemble(2, tol=0), r"tol: expected a number in \(0"),
        (SharedBaseEnsemble(2, temperature=0), r"temperature: expected a number in \(0"),
        (SharedBaseEnsemble(2, average="votes"), "average: expected one of 'rewards', 'probabilities', got 'votes'"),
        (SharedBaseEnsemble(2, n_context_features=-1), "n_context_features: expected an integer of at least 0"),
        (SharedBaseEnsemble(2, n_context_features=4), "got n_context_features=4"),
        (HypothesisReweighting("mlp"), "heads: expected one of 'random', got 'mlp'"),
        (HypothesisReweighting(3), 'expected an estimator, "random" or None as heads, got 3'),
        (
            HypothesisReweighting(prior="heads"),
            'whose weights prior="heads" can take, got heads=None',
        ),
        (HypothesisReweighting(prior="flat"), "prior: expected one of 'uniform', 'heads'"),
        (
            HypothesisReweighting(MixtureBradleyTerry(2, n_context_features=1), prefit=False),
            r"at most the first 0 context column\(s\), as n_context_features says, got 1",
        ),
        (DecomposedRewards(basis="ica"), "basis: expected one of 'pca', 'random', got 'ica'"),
        (DecomposedRewards(prior="flat"), "prior: expected one of 'population', 'uniform'"),
        (DecomposedRewards(margin=0), r"margin: expected a number in \(0"),
        (LowRankRewards(2, n_init=0), "n_init: expected an integer of at least 1"),
        (LowRankRewards(2, alpha=-1), "alpha must be a number"),
        (LowRankRewards(2, weight_penalty=np.inf), "weight_penalty must be a number"),
        (LowRankRewards(2, tol=0), "tol must be a number"),
    ],
)
def test_bad_parameters(model, message):
    D, y, _ = rows()
    with pytest.raises(ValueError, match=message):
        model.fit(D, y)


@pytest.mark.parametrize("model", models(), ids=identify)
def test_bad_input(model):
    D, y, users = rows()
    with pytest.raises(ValueError, match="every difference is zero"):
        clone(model).fit(0 * D, y)
    with pytest.raises(ValueError, match="every difference is zero"):
        clone(model).fit(np.vstack([0 * D[:1], D[1:]]), y, sample_weight=np.r_[1, np.zeros(len(D) - 1)])
    broken = D.copy()
    broken[7, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in row 7, column 2"):
        clone(model).fit(broken, y)
    with pytest.raises(NotFittedError):
        clone(model).rewards(D)
    with pytest.raises(NotFittedError):
        clone(model).component_scores(D)
    with pytest.raises(NotFittedError):
        clone(model).mixture_weights(D)
    model.fit(D, y, groups=users)
    with pytest.raises(ValueError, match=r"expected features of shape \(n_responses, 4\).*got \(2, 3\)"):
        model.rewards(np.ones((2, 3)))
    with pytest.raises(ValueError, match="NaN in row 7, column 2"):
        model.rewards(broken)
    with pytest.raises(ValueError, match=r"expected classes=\[0, 1\], as in the first call, got \['a', 'b'\]"):
        model.partial_fit(D, y, classes=["a", "b"])


def test_heads_of_another_width():
    D, y, _ = rows()
    mixture = MixtureBradleyTerry(1).fit(D, y)
    with pytest.raises(ValueError, match=r"coef_ of shape \(n_components, 3\).*got \(1, 4\)"):
        HypothesisReweighting(mixture, n_context_features=1).fit(D, y)


@pytest.mark.parametrize("model", [SharedBaseEnsemble(3, max_iter=1), LowRankRewards(2, max_iter=1)], ids=identify)
def test_stopping_early_is_a_warning(model):
    D, y, users = rows()
    with pytest.warns(ConvergenceWarning, match="L-BFGS stopped after 1 iterations before the gradient fell below tol"):
        model.fit(D, y, groups=users)
    assert not model.converged_
    assert model.n_iter_ == 1
    model.set_params(max_iter=2000).fit(D, y, groups=users)
    assert model.converged_


def test_votes_add_up():
    votes = Votes(np.ones((2, 3)), np.array([1.0, -1.0]), np.ones(2))
    both = votes + votes.of(np.array([1]))
    assert len(both) == 3
    assert both.signs.tolist() == [1, -1, -1]


def test_lore_starts_nobody_by_the_order_of_rows():
    """More components than kinds of users: another start would end elsewhere."""
    rng = np.random.default_rng(5)
    X, user = rng.normal(size=(400, 6)), np.arange(400) // 10
    y = (X[:, 0] * np.where(user % 2, 1, -1) + rng.normal(size=400) > 0).astype(int)
    order, names = rng.permutation(400), rng.permutation(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LowRankRewards(4, random_state=0, max_iter=2000).fit(X, y, groups=user)
        other = LowRankRewards(4, random_state=0, max_iter=2000).fit(X[order], y[order], groups=names[user[order]])
    found = model.decision_function(X, groups=user)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(other.decision_function(X, groups=names[user]), found, atol=0.05)


def test_votes_without_weight_were_never_cast():
    rng = np.random.default_rng(6)
    X, user = rng.normal(size=(60, 3)), np.arange(60) // 6
    model = LowRankRewards(2, random_state=0).fit(X, rng.integers(0, 2, 60), groups=user)
    before = model.decision_function(X, groups=["new"] * 60)
    model.partial_fit(X[:5], [1] * 5, sample_weight=[0.0] * 5, groups=["new"] * 5)
    np.testing.assert_array_equal(model.decision_function(X, groups=["new"] * 60), before)
