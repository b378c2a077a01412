"""What takes a mixture takes a hierarchical model, or refuses it with a reason: a table over the public functions."""

from __future__ import annotations

import json
import pickle

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from micropref import ContextRouter, MixtureBradleyTerry, PreferenceModel, load_demo, make_pairs, plotting
from micropref._engine import population_selection
from micropref._engine.population import evidence_of_first_votes
from micropref._reward.users import UserChoice, fit_first_stage
from micropref._users.posteriors import UserPosteriors
from micropref.heads import audit_heads, mask_heads, merge_heads
from micropref.hierarchical import HierarchicalBradleyTerry
from micropref.metrics import best_head_per_group, budget_curve, grouped_log_likelihood
from micropref.persistence import load, save
from micropref.selection import select_n_components
from micropref.theory import estimate_irreducible_error

mpl.use("Agg")

C, D, N = 2, 4, 600
GROUPS = np.arange(N) // 6


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users of two kinds, each around the reward of theirs; the context says which kind."""
    rng = np.random.default_rng(seed)
    kind = GROUPS % 2
    users = np.where(kind[:, None], [2.0, 1.0, 0.0, 0.0], [-2.0, 0.0, 1.0, 0.0])
    users = users + rng.normal(size=(GROUPS.max() + 1, D))[GROUPS]
    differences = rng.normal(size=(N, D))
    y = ((differences * users).sum(axis=1) + rng.logistic(size=N) > 0).astype(int)
    return make_pairs(differences, 0 * differences, context=np.eye(C)[kind]), y


X, Y = world()
DIFFERENCES = X[:, C:]


def hierarchical(**parameters) -> HierarchicalBradleyTerry:
    return HierarchicalBradleyTerry(**{"n_components": 2, "rank": 0, "tau": 1.0, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def heads() -> HierarchicalBradleyTerry:
    model = hierarchical().fit(DIFFERENCES, Y, groups=GROUPS)
    assert model.scatter_ is not None
    return model


def routers(heads) -> dict:
    return {
        "fitted": lambda: ContextRouter(heads).fit(X[:100], Y[:100]),
        "hedge": lambda: ContextRouter(heads, solver="hedge", n_iter=3).fit(X[:100], Y[:100]),
        "mlp": lambda: ContextRouter(heads, gate="mlp", hidden_units=4, random_state=0).fit(X[:100], Y[:100]),
        "knn": lambda: ContextRouter(heads, gate="knn", n_neighbors=9).fit(X[:100], Y[:100]),
        "cluster": lambda: ContextRouter(heads, gate="cluster").fit(X[:100], Y[:100]),
        "stream": lambda: ContextRouter(heads, history_decay=0.9, history_temperature=2.0).partial_fit(
            X[:100], Y[:100]
        ),
        "frozen": lambda: ContextRouter(FrozenEstimator(heads)).fit(X[:100], Y[:100]),
        "whole": lambda: ContextRouter(hierarchical(), n_context_features=C, prefit=False).fit(X, Y, groups=GROUPS),
        "gated": lambda: ContextRouter(hierarchical(n_context_features=C).fit(X, Y, groups=GROUPS)).fit(X, Y),
    }


ROUTERS = list(routers(None))
VOTERS = np.resize(np.array(["ann", 7, ("bob", 1)], dtype=object), 30)


@pytest.fixture(params=ROUTERS)
def router(request, heads) -> ContextRouter:
    """A router that has learned from contexts and from the votes of three users."""
    return routers(heads)[request.param]().partial_fit(X[100:130], Y[100:130], groups=VOTERS)


def answers(router: ContextRouter) -> list[np.ndarray]:
    users = np.resize(np.array(["ann", 7, ("bob", 1), "new", None], dtype=object), N)
    return [
        router.decision_function(X),
        router.decision_function(X, users),
        router.mixture_weights(X, users),
        router.margin_interval(X, users),
        *router.rewards(X[:, C:], X[:, :C], users, return_std=True),
    ]


def test_a_router_knows_users_as_posteriors(router):
    assert isinstance(router.history_, UserPosteriors)
    assert len(router.history_) == 3
    for log_odds in answers(router)[:2]:
        assert np.isfinite(log_odds).all()
    users = ["ann"] * N
    assert np.abs(router.decision_function(X, users) - router.decision_function(X)).max() > 0.05
    np.testing.assert_array_equal(router.decision_function(X, ["new"] * N), router.decision_function(X))


def test_it_is_saved_and_loaded_bit_for_bit_and_goes_on_learning(router, tmp_path):
    save(router, tmp_path)
    loaded, pickled = load(tmp_path), pickle.loads(pickle.dumps(router))
    for copy in (loaded, pickled):
        for one, other in zip(answers(copy), answers(router), strict=True):
            np.testing.assert_array_equal(one, other)
        assert copy.history_.export()[0] == router.history_.export()[0]
        np.testing.assert_array_equal(copy.history_.export()[1], router.history_.export()[1])
        assert copy.history_.export()[1].dtype == np.float32
    before = answers(router)[1]
    forked = router._forked()
    if router.prefit:
        for model in (router, loaded, pickled):
            model.partial_fit(X[130:140], Y[130:140], groups=["ann"] * 10)
        for copy in (loaded, pickled):
            np.testing.assert_array_equal(answers(copy)[1], answers(router)[1])
        assert np.abs(answers(router)[1] - before).max() > 1e-3
    np.testing.assert_array_equal(answers(forked)[1], before)


def test_votes_teach(heads):
    """Users known by their answers are predicted better than the population, in heads that scatter."""
    router = ContextRouter(heads).partial_fit(DIFFERENCES[::2], Y[::2], groups=GROUPS[::2])
    known = router.log_likelihood(DIFFERENCES[1::2], Y[1::2], groups=GROUPS[1::2])
    assert known > router.log_likelihood(DIFFERENCES[1::2], Y[1::2]) + 0.05


def test_a_stream_of_both_stages(heads):
    router = ContextRouter(hierarchical(), n_context_features=C, prefit=False, random_state=0)
    for batch in np.array_split(np.arange(N), 4):
        router.partial_fit(X[batch], Y[batch], groups=GROUPS[batch])
    assert len(router.history_) == GROUPS.max() + 1
    assert np.isfinite(router.decision_function(X, GROUPS)).all()


def test_a_clone_of_a_frozen_one_keeps_its_fit(heads):
    router = clone(ContextRouter(FrozenEstimator(heads))).partial_fit(DIFFERENCES[:9], Y[:9], groups=["ann"] * 9)
    assert isinstance(router.history_, UserPosteriors)


# ------------------------------------------------------------------------------------------- what takes a first stage

TAKES = {
    "budget_curve": lambda heads: budget_curve(
        ContextRouter(heads).partial_fit(DIFFERENCES[:2], groups=["new"] * 2),
        DIFFERENCES[:300], Y[:300], GROUPS[:300],
        X_test=DIFFERENCES[300:], y_test=Y[300:], groups_test=GROUPS[300:] - 50, budgets=(0, 3), n_draws=2,
    ),
    "best_head_per_group": lambda heads: best_head_per_group(heads.component_scores(DIFFERENCES), Y, GROUPS % 2),
    "grouped_log_likelihood": lambda heads: grouped_log_likelihood(heads, DIFFERENCES, Y, groups=GROUPS),
    "select_n_components": lambda heads: select_n_components(
        hierarchical(), DIFFERENCES, Y, groups=GROUPS, candidates=(1, 2), cv=2
    ),
    "CalibrationDisplay": lambda heads: plotting.CalibrationDisplay.from_estimator(heads, DIFFERENCES, Y),
    "HeadsByAttributeDisplay": lambda heads: plotting.HeadsByAttributeDisplay.from_estimator(
        heads, DIFFERENCES, Y, attributes=GROUPS % 2
    ),
    "RouterWeightsDisplay": lambda heads: plotting.RouterWeightsDisplay.from_estimator(
        ContextRouter(heads).fit(X, Y), X, GROUPS % 2
    ),
}  # fmt: skip
REFUSES = {
    "estimate_irreducible_error": lambda heads: estimate_irreducible_error(heads, DIFFERENCES, Y, groups=GROUPS),
    "ErrorDecompositionDisplay": lambda heads: plotting.ErrorDecompositionDisplay.from_estimator(
        heads, DIFFERENCES, Y, groups=GROUPS
    ),
    "BoundsDisplay": lambda heads: plotting.BoundsDisplay.from_estimator(heads, DIFFERENCES),
    "audit_heads": lambda heads: audit_heads(heads, DIFFERENCES, Y),
    "mask_heads": lambda heads: mask_heads(heads, [True, False]),
    "merge_heads": lambda heads: merge_heads(heads, DIFFERENCES),
}


@pytest.mark.parametrize("name", TAKES)
def test_functions_that_take_a_hierarchical_model(heads, name):
    assert TAKES[name](heads) is not None


@pytest.mark.parametrize("name", REFUSES)
def test_functions_that_refuse_a_hierarchical_model_say_why(heads, name):
    with pytest.raises(TypeError, match=r"expected users on their heads.*got a HierarchicalBradleyTerry whose users"):
        REFUSES[name](heads)
    mixture = MixtureBradleyTerry(2, random_state=0).fit(DIFFERENCES, Y, groups=GROUPS)
    if name != "ErrorDecompositionDisplay":  # which takes a while
        assert REFUSES[name](mixture) is not None


# --------------------------------------------------------------------------------------------------------- with texts


@pytest.fixture(scope="module")
def demo():
    return load_demo(n_annotators=80)


def test_a_model_of_texts_on_users_around_heads(demo, tmp_path):
    unfitted = hierarchical(n_components=4, n_directions=4, tau=0.5, alpha=0.01)
    model = PreferenceModel.fit(demo.train, mixture=unfitted)
    assert model.choice is None
    model.route(demo.labelled).route(demo.history)
    assert isinstance(model.router.history_, UserPosteriors)
    assert {row["method"] for row in model.evaluate(demo.test)} == {"mixture", "routed", "history"}
    user = demo.history.group[0]
    asked = ["How do I sleep?"] * 2, ["Read a book.", "First, read. Then, keep the same bedtime. Finally, sleep."]
    first = model.reward(*asked, contexts=[""] * 2, users=[user] * 2)
    assert model.rank(asked[0][0], asked[1], user=user).tolist() == np.argsort(-first, kind="stable").tolist()
    model.save(tmp_path)
    loaded = PreferenceModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.log_odds(demo.test), model.log_odds(demo.test))
    np.testing.assert_array_equal(loaded.reward(*asked, [""] * 2, [user] * 2), first)


def test_one_reward_of_a_hierarchical_model_has_no_deviation_and_says_which_model_has(demo):
    agreed = hierarchical(n_components=1, n_directions=0, tau=0.0, alpha=0.01)
    model = PreferenceModel.fit(demo.train, mixture=agreed)
    with pytest.raises(ValueError, match="fit with users='one', and call estimate_uncertainty"):
        model.reward(["How?"], ["So."], return_std=True)
    with pytest.raises(TypeError, match="HierarchicalBradleyTerry; fit with users='one'"):
        model.estimate_uncertainty(demo.train)


@pytest.mark.parametrize("kind", ["one", "heads", "hierarchical"])
def test_users_name_the_first_stage(demo, kind):
    table = demo.train[np.arange(200)]
    around = {"n_components": 1, "rank": 0, "tau": 0.5, "n_directions": 2, "alpha": 0.01}
    own = {"one": {}, "heads": {"n_components": 2}, "hierarchical": around}
    parameters = own[kind]
    model = PreferenceModel.fit(table, users=kind, random_state=0, **parameters)
    assert len(model.mixture.coef_) == (2 if kind == "heads" else 1)
    assert (model.mixture.scatter_ is None) == (kind != "hierarchical")
    assert model.choice is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": "people"}, "users: expected one of 'one', 'heads', 'hierarchical', 'auto', got 'people'"),
        ({"users": "auto", "mixture": MixtureBradleyTerry(2)}, "expected the default together with mixture="),
    ],
)
def test_users_that_are_refused(demo, arguments, message):
    with pytest.raises(ValueError, match=message):
        PreferenceModel.fit(demo.train, **arguments)


def test_a_parameter_that_no_first_stage_has_is_refused(demo):
    with pytest.raises(TypeError, match="expected parameters of the HierarchicalBradleyTerry, got n_heads"):
        PreferenceModel.fit(demo.train, users="auto", n_heads=3)


# ----------------------------------------------------------------------------------------------- one, heads or a cloud


def people(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "one":
        return np.tile([2.0, 1.0, 0.0], (n, 1))
    if kind == "heads":
        return np.where(rng.integers(2, size=(n, 1)), [3.0, 1.0, 0.0], [-3.0, 0.0, 1.0])
    return np.array([1.0, 0.0, 0.0]) + 2.0 * rng.normal(size=(n, 3))


@pytest.mark.parametrize("kind", ["one", "heads", "hierarchical"])
def test_the_first_stage_that_was_planted_is_chosen(kind):
    rng = np.random.default_rng(3)
    users = people(kind, 150, rng)
    rows = rng.normal(size=(150, 10, 3))
    chosen = np.einsum("ujf,uf->uj", rows, users) + rng.logistic(size=(150, 10)) > 0
    X, groups = np.where(chosen, 1, -1).reshape(-1, 1) * rows.reshape(-1, 3), np.repeat(np.arange(150), 10)
    stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, groups))
    assert choice.chosen == kind
    assert isinstance(stage, HierarchicalBradleyTerry) == (kind == "hierarchical")
    assert (stage.scatter_ is not None) == (kind == "hierarchical")
    assert (len(stage.coef_) == 1) == (kind != "heads")
    assert set(choice.log_likelihood) >= {"one", kind}
    assert choice.gain == choice.log_likelihood[kind] - choice.log_likelihood["one"]
    assert (choice.gain > 0.02) == (kind != "one")
    assert choice.reason.startswith({"one": "one reward", "heads": "heads", "hierarchical": "users around"}[kind])
    assert UserChoice(**json.loads(json.dumps(choice.to_config()))) == choice


def test_no_scatter_is_seen_where_no_annotator_answers_twice():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(300, 3)) + 0.3
    for groups in (None, np.arange(300)):
        stage, choice = fit_first_stage("auto", None, {"random_state": 0, "n_components": 1}, 0, (X, None, groups))
        assert choice.chosen == "one"
        assert isinstance(stage, MixtureBradleyTerry)
        assert "no annotator answers twice" in choice.reason


# ------------------------------------------------------------------------------------------- users who have not voted


WORLDS = {
    "one taste": lambda n, mean, rng: np.tile(mean, (n, 1)),
    "two tastes": lambda n, mean, rng: np.where(rng.random((n, 1)) < 0.3, -mean, mean),
    "a cloud": lambda n, mean, rng: mean + rng.normal(size=(n, len(mean))),
    "surer and less sure": lambda n, mean, rng: mean * np.exp(0.8 * rng.normal(size=(n, 1))),
}


@pytest.mark.parametrize("size", [(60, 5, 3), pytest.param((40, 20, 10), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("kind", WORLDS)
def test_new_users_are_served_as_well_as_by_one_reward(kind, size):
    n, votes, d = size
    found = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        users = WORLDS[kind](n + 400, rng.normal(size=d) * 3 / np.sqrt(d), rng)
        rows = rng.normal(size=(n + 400, votes, d))
        first = np.einsum("ujf,uf->uj", rows, users) + rng.logistic(size=rows.shape[:2]) > 0
        rows = np.where(first[..., None], rows, -rows)
        X, new, groups = rows[:n].reshape(-1, d), rows[n:].reshape(-1, d), np.repeat(np.arange(n), votes)
        stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, groups))
        found.append(stage.log_likelihood(new) - MixtureBradleyTerry(1).fit(X).log_likelihood(new))
        if choice.chosen == "one":
            assert abs(found[-1]) < 0.01
    assert np.mean(found) > -0.002


def test_what_fails_new_users_is_not_chosen(monkeypatch):
    """However much is gained from votes."""
    rng = np.random.default_rng(3)
    users = people("hierarchical", 100, rng)
    rows = rng.normal(size=(100, 10, 3))
    first = np.einsum("ujf,uf->uj", rows, users) + rng.logistic(size=(100, 10)) > 0
    X, groups = np.where(first, 1, -1).reshape(-1, 1) * rows.reshape(-1, 3), np.repeat(np.arange(100), 10)

    def worse(votes, population):
        loss = 0.0 if population.n_components == 1 and not population.scatter.n_directions else 0.01
        return evidence_of_first_votes(votes, population) - loss * np.bincount(votes.index)

    monkeypatch.setattr(population_selection, "evidence_of_first_votes", worse)
    choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, groups))[1]
    assert choice.chosen == "one"
    assert choice.log_likelihood["hierarchical"] > choice.log_likelihood["one"] + 0.02
    assert choice.reason.endswith("users around heads are worse for users who have not voted")


def test_first_votes_are_predicted_by_the_population():
    """By quadrature over the users of every component."""
    rng = np.random.default_rng(4)
    rows, users = rng.normal(size=(12, 2)), rng.normal(size=(200_000, 2))
    model = HierarchicalBradleyTerry(2, rank=0, tau=0.7, alpha=0.01, random_state=0)
    model.fit(DIFFERENCES[:, :2], Y, groups=GROUPS)
    votes = model._votes(rows, None, None, np.arange(12) // 4)
    each = [
        weight / (1 + np.exp(-rows @ (head + 0.7 * users).T))
        for head, weight in zip(model.coef_, model.weights_, strict=True)
    ]
    expected = np.log(np.sum(each, axis=0).mean(axis=1)).reshape(3, 4).sum(axis=1)
    np.testing.assert_allclose(evidence_of_first_votes(votes, model._population()), expected, atol=0.03)


def test_prompts_that_repeat_choose_no_wider_prior():
    """Rows held out are about the prompts of those that teach, and say nothing of others."""
    rng = np.random.default_rng(5)
    prompts, reward, d = rng.normal(size=(100, 40)), rng.normal(size=40), 40
    sign = np.where(prompts @ reward + 4 * rng.normal(size=100) > 0, 1, -1)
    X = np.repeat(prompts * sign[:, None], 4, axis=0) + 0.1 * rng.normal(size=(400, d))
    one = MixtureBradleyTerry(1).fit(X)
    stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, None))
    assert choice.chosen == "one"
    np.testing.assert_array_equal(stage.coef_, one.coef_)
    stage, _ = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, rng.permutation(400) // 5))
    assert stage.alpha_ >= one.alpha_ * (1 - 1e-9)


def test_a_choice_is_saved_with_the_model(demo, tmp_path):
    model = PreferenceModel.fit(demo.train[np.arange(100)], users="one", random_state=0)
    model.choice = UserChoice("one", {"one": -0.6}, 0.0, "one reward")
    model.save(tmp_path)
    assert PreferenceModel.load(tmp_path).choice == model.choice


def test_deviations_of_rewards_shrink_with_votes(demo):
    """Without a router, and of a user who has not voted, a reward is as uncertain as users differ."""
    model = PreferenceModel.fit(demo.train, mixture=hierarchical(n_components=1, n_directions=4, tau=0.5, alpha=0.01))
    asked = ["How do I sleep?"] * 2, ["Read a book.", "First, read. Then, keep the same bedtime. Finally, sleep."]
    rewards, std = model.reward(*asked, return_std=True)
    np.testing.assert_array_equal(rewards, model.reward(*asked))
    user = demo.history.group[0]
    routed = model.route(demo.history)
    np.testing.assert_allclose(routed.reward(*asked, users=["new"] * 2, return_std=True)[1], std, rtol=1e-6)
    assert (routed.reward(*asked, users=[user] * 2, return_std=True)[1] < std).all()
