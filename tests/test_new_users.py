"""People who have not voted: the first stage that users="auto" chooses serves them as well as one reward does."""

from __future__ import annotations

import copy
import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, load, make_pairs, save
from micropref._engine.logistic_normal import expected_log_odds
from micropref._engine.new_users import _length
from micropref._reward.users import fit_first_stage


class Split(NamedTuple):
    """Pairs to learn from, the preferred one first, with their annotators; and pairs of new people or prompts."""

    train: np.ndarray
    groups: np.ndarray | None
    test: np.ndarray


def folder(name: str) -> Path:
    return Path(os.environ["MICROPREF_DATA"]) / name


def read_lines(path: Path) -> list:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def vectors_of(name: str, keys: tuple[str, ...]) -> tuple[list, dict[str, np.ndarray]]:
    pairs, vectors = read_lines(folder(name) / "pairs.jsonl.gz"), np.load(folder(name) / "embeddings.npy").astype(float)
    row = {text: i for i, text in enumerate(read_lines(folder(name) / "texts.jsonl.gz"))}
    return pairs, {key: vectors[[row[pair[key]] for pair in pairs]] for key in keys}


def sushi(random: np.random.Generator) -> Split:
    """300 people with 15 pairs each; 500 others."""
    orders = random.permutation(np.load(folder("sushi2500") / "orders.npy").astype(int))
    a, b = np.triu_indices(10, 1)
    pairs = np.eye(10)[orders[:, a]] - np.eye(10)[orders[:, b]]
    asked = np.argsort(random.random((300, 45)), axis=1)[:, :15]
    train = np.take_along_axis(pairs[:300], asked[..., None], 1).reshape(-1, 10)
    return Split(train, np.repeat(np.arange(300), 15), pairs[-500:].reshape(-1, 10))


def prefeval10(random: np.random.Generator, annotators: bool = False) -> Split:
    """Eight topics, without annotators or with some who answer five rows; the other two topics."""
    pairs, part = vectors_of("prefeval10", ("chosen", "rejected"))
    topic = np.array([pair["topic"] for pair in pairs])
    test = np.isin(topic, random.permutation(np.unique(topic))[:2])
    X, n = make_pairs(part["chosen"], part["rejected"]), int((~test).sum())
    return Split(X[~test], random.permutation(n) // 5 if annotators else None, X[test])


def ukpconvarg1(random: np.random.Generator) -> Split:
    """Workers who judge pairs of arguments, several of them each; a fifth of the pairs is left for the test."""
    vectors = np.load(folder("ukpconvarg1") / "embeddings.npy").astype(float) * 3
    with gzip.open(folder("ukpconvarg1") / "votes.csv.gz", "rt", encoding="utf-8") as file:
        votes = list(csv.DictReader(file))
    columns = {key: np.array([vote[key] for vote in votes]) for key in votes[0]}
    some = np.isin(columns["prompt"], random.permutation(np.unique(columns["prompt"]))[:8])
    chosen, rejected = (vectors[columns[key][some].astype(int)] for key in ("chosen", "rejected"))
    pair, worker = (np.unique(columns[key][some], return_inverse=True)[1] for key in ("pair", "worker"))
    test = np.isin(pair, random.permutation(pair.max() + 1)[: pair.max() // 5])
    X = make_pairs(chosen, rejected)
    return Split(X[~test], worker[~test], X[test])


SETS: dict[str, Callable[[np.random.Generator], Split]] = {
    "ukpconvarg1": ukpconvarg1,
    "sushi2500": sushi,
    "prefeval10": prefeval10,
    "prefeval10, annotators who share prompts": lambda random: prefeval10(random, annotators=True),
}


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*less than 2 %:UserWarning")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SETS)
def test_new_users_are_served_as_well_as_by_one_reward(name: str, seed: int) -> None:
    split = SETS[name](np.random.default_rng(seed))
    one = MixtureBradleyTerry(1).fit(split.train)
    stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (split.train, None, split.groups))
    assert stage.log_likelihood(split.test) > one.log_likelihood(split.test) - 0.002
    if name in ("sushi2500", "ukpconvarg1"):
        assert choice.chosen != "one"


# ---------------------------------------------------------------------------------- how long the head of clouds must be


@pytest.mark.parametrize("variance", [0.0, 0.3, 2.0, 30.0])
def test_a_variance_that_all_pairs_share_is_made_up_for(variance: float) -> None:
    margins = np.full((1, 20), 1.3) * np.where(np.arange(20) % 3, 1, -1)
    around = np.zeros((1, 20))
    length = _length(np.concatenate([margins, around]), np.full((1, 20), variance), np.zeros(1), np.ones(20))
    assert expected_log_odds(length * margins, variance) == pytest.approx(margins, abs=2e-5)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Margins of one reward and of three heads around it, variances, log π and weights of 50 rows."""
    random = np.random.default_rng(seed)
    log_weights = np.log([0.5, 0.3, 0.2])
    around = random.normal(size=(3, 50))
    around -= np.exp(log_weights) @ around
    margins = np.concatenate([2 * random.normal(size=(1, 50)), around])
    return margins, random.exponential(size=(3, 50)), log_weights, random.integers(0, 3, size=50).astype(float)


@pytest.mark.parametrize("seed", range(3))
def test_the_length_is_where_the_divergence_is_least(seed: int) -> None:
    """Against the equation written out with probabilities instead of logarithms."""
    margins, variance, log_weights, weight = drawn(seed)

    def divergence(length: float) -> float:
        p = 1 / (1 + np.exp(-margins[0]))
        q = np.exp(log_weights) @ (1 / (1 + np.exp(-expected_log_odds(length * margins[:1] + margins[1:], variance))))
        return float(weight @ (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))

    found = _length(margins, variance, log_weights, weight)
    assert divergence(found) < min(divergence(0.99 * found), divergence(1.01 * found))


def test_rows_twice_or_swapped_and_rows_without_weight_change_nothing() -> None:
    margins, variance, log_weights, weight = drawn(1)
    rows = np.repeat(np.arange(50), weight.astype(int))
    sign = np.random.default_rng(1).choice([-1.0, 1.0], size=len(rows))
    expected = _length(margins, variance, log_weights, weight)
    again = _length(sign * margins[:, rows], variance[:, rows], log_weights, np.ones(len(rows)))
    assert again == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 1e-300, 1e4])
@pytest.mark.parametrize("variance", [0.0, 1e6])
def test_margins_of_any_size_have_a_length(margin: float, variance: float) -> None:
    margins = np.concatenate([np.full((1, 3), margin), np.zeros((2, 3))])
    assert 0.01 <= _length(margins, np.full((2, 3), variance), np.log([0.5, 0.5]), np.ones(3)) <= 100


def gaussian_tastes() -> tuple[np.ndarray, np.ndarray]:
    """Pairs, the preferred response first, of 100 people whose tastes are normally distributed; and the people."""
    random = np.random.default_rng(2)
    user = np.arange(1500) // 15
    X = random.normal(size=(1500, 4))
    taste = np.array([2.0, 0, 0, 0]) + 1.5 * random.normal(size=(100, 4))
    return X * np.where((X * taste[user]).sum(axis=1) + random.logistic(size=1500) > 0, 1, -1)[:, None], user


def two_tastes() -> tuple[np.ndarray, np.ndarray]:
    """The same of 200 people who have one of two tastes."""
    random = np.random.default_rng(3)
    user = np.arange(3000) // 15
    X = random.normal(size=(3000, 3))
    taste = np.array([[1.0, 6, 0], [1, -6, 0]])[random.integers(2, size=200)]
    return X * np.where((X * taste[user]).sum(axis=1) + random.logistic(size=3000) > 0, 1, -1)[:, None], user


STAGES = {"hierarchical": ({}, gaussian_tastes), "heads": ({"tau": 0, "rank": 0}, two_tastes)}


@pytest.fixture(scope="module", params=STAGES)
def chosen(request: pytest.FixtureRequest) -> tuple[HierarchicalBradleyTerry | MixtureBradleyTerry, np.ndarray]:
    """A first stage of this kind as users="auto" chooses it, and the rows that taught it."""
    parameters, people = STAGES[request.param]
    X, user = people()
    stage, choice = fit_first_stage("auto", None, {**parameters, "random_state": 0}, 0, (X, None, user))
    assert choice.chosen == request.param
    return stage, X


def same_population(stage):
    """The stage without the reward of users who have not voted."""
    other = copy.copy(stage)
    other.new_user_coef_ = None
    return other


def test_users_who_have_not_voted_are_answered_by_one_reward(chosen) -> None:
    stage, X = chosen
    expected = MixtureBradleyTerry(1).fit(X).decision_function(X)
    router = ContextRouter(stage).partial_fit(X[:3], groups=[7, 7, 8])
    for found in (
        stage.decision_function(X),
        router.decision_function(X),
        router.decision_function(X, groups=np.full(len(X), 9)),
        ContextRouter(stage).partial_fit(X[:1], groups=[7]).forget(7).decision_function(X, groups=np.full(len(X), 7)),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert stage.log_likelihood(X) == pytest.approx(-np.logaddexp(0, -stage.decision_function(X)).mean(), abs=1e-12)
    assert np.abs(same_population(stage).decision_function(X) - expected).max() > 0.05


def test_users_who_have_voted_are_answered_by_the_population(chosen) -> None:
    stage, X = chosen
    users = np.array([7, 9, -1, 8, 7])
    votes = {"X": X[:3], "groups": [7, 7, 8]}
    found = ContextRouter(stage).partial_fit(**votes).decision_function(X[:5], groups=users)
    population = ContextRouter(same_population(stage)).partial_fit(**votes).decision_function(X[:5], groups=users)
    voted = np.array([True, False, False, True, True])
    np.testing.assert_array_equal(found[voted], population[voted])
    np.testing.assert_array_equal(found[~voted], stage.decision_function(X[:5])[~voted])


@pytest.mark.parametrize("gate", ["linear", "knn", "cluster"])
def test_what_labelled_contexts_teach_is_not_answered_by_one_reward(chosen, gate) -> None:
    stage, X = chosen
    context = np.where(np.abs(X[:, 1:2]) > 1, 1.0, -1.0)
    routed = np.concatenate([context, X], axis=1)
    of_population = ContextRouter(same_population(stage), gate=gate).fit(routed)
    taught = ContextRouter(stage, gate=gate).fit(routed)
    np.testing.assert_array_equal(taught.decision_function(routed), of_population.decision_function(routed))
    untaught = ContextRouter(stage, gate=gate).partial_fit(routed[:2], groups=[1, 1])
    np.testing.assert_array_equal(untaught.decision_function(routed), stage.decision_function(X))


def test_the_reward_of_new_users_is_saved(chosen, tmp_path) -> None:
    stage, X = chosen
    router = ContextRouter(stage).partial_fit(X[:3], groups=[7, 7, 8])
    groups = np.resize([7, 8, 9, -1], len(X))
    for model, arguments in ((stage, {}), (router, {"groups": groups})):
        path = tmp_path / type(model).__name__
        save(model, path)
        np.testing.assert_array_equal(
            load(path).decision_function(X, **arguments), model.decision_function(X, **arguments)
        )


def test_votes_that_teach_the_population_end_the_reward_of_before(chosen) -> None:
    stage, X = chosen
    later = copy.deepcopy(stage).partial_fit(X[:40], groups=np.arange(40) // 10)
    assert later.new_user_coef_ is None
    assert stage.new_user_coef_ is not None
    assert np.isfinite(later.decision_function(X)).all()


@pytest.mark.parametrize("users", [None, [7, 9, -1, 8, 7]])
def test_tensors_are_answered_as_arrays_are(chosen, users) -> None:
    torch = pytest.importorskip("torch")
    stage, X = chosen
    router = ContextRouter(stage).partial_fit(X[:3], groups=[7, 7, 8])
    found = router.decision_function(torch.from_numpy(X[:5]), groups=users)
    np.testing.assert_allclose(found.numpy(), router.decision_function(X[:5], groups=users), rtol=1e-9)
    np.testing.assert_allclose(stage.decision_function(torch.from_numpy(X[:5])).numpy(), stage.decision_function(X[:5]))


def test_only_auto_moves_the_head() -> None:
    """The head of users="auto" points where one reward does; `HierarchicalBradleyTerry` has the likeliest."""
    X, user = gaussian_tastes()
    stage, choice = fit_first_stage("auto", None, {"random_state": 0}, 0, (X, None, user))
    one = MixtureBradleyTerry(1).fit(X)
    alone = HierarchicalBradleyTerry(random_state=0).fit(X, groups=user)
    assert choice.chosen == "hierarchical"
    cosine = stage.coef_[0] @ one.coef_[0] / np.linalg.norm(stage.coef_[0]) / np.linalg.norm(one.coef_[0])
    assert cosine == pytest.approx(1, abs=1e-9)
    assert np.abs(alone.coef_[0] - stage.coef_[0]).max() > 1e-3
    assert stage.evidence_ == pytest.approx(stage.log_likelihood(X, groups=user), abs=1e-9)


def test_heads_that_auto_chooses_have_their_mean_where_one_reward_is() -> None:
    X, user = two_tastes()
    stage, choice = fit_first_stage("auto", None, {"tau": 0, "rank": 0, "random_state": 0}, 0, (X, None, user))
    one = MixtureBradleyTerry(1).fit(X).coef_[0]
    assert choice.chosen == "heads"
    centre = stage.weights_ @ stage.coef_
    assert centre @ one / np.linalg.norm(centre) / np.linalg.norm(one) == pytest.approx(1, abs=1e-9)
    assert np.abs(np.diff(stage.coef_[:, 1])) == pytest.approx(12, abs=2.5)
