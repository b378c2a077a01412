"""Which annotator to ask which pair: planted worlds against random at equal cost, and the equation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, suggest_annotations

K, D = 3, 6


def world(seed, n_annotators=90, votes=2):
    """Heads, the head of every annotator, and a few answers of each."""
    rng = np.random.default_rng(seed)
    heads = 3 * rng.normal(size=(K, D)) / np.sqrt(D)
    head_of = rng.integers(K, size=n_annotators)
    users = np.repeat(np.arange(n_annotators), votes)
    X = rng.normal(size=(len(users), D))
    return heads, head_of, X, answers(rng, X, heads[head_of[users]]), users, rng


def answers(rng, X, heads):
    return (rng.random(len(X)) < expit((X * heads).sum(axis=1))).astype(int)


def fitted(X, y, users, n_components=K):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MixtureBradleyTerry(n_components, n_init=2, random_state=0).fit(X, y, groups=users)


def distance(heads, mixture, X):
    """Root mean square difference of probabilities, heads matched."""
    cost = ((expit(X @ heads.T)[:, :, None] - expit(X @ mixture.coef_.T)[:, None]) ** 2).mean(axis=0)
    return np.sqrt(cost[linear_sum_assignment(cost)].mean())


@pytest.mark.slow
def test_heads_are_found_sooner_than_from_random_answers():
    gain = []
    for seed in range(12):
        heads, head_of, *start, rng = world(seed)
        test = rng.normal(size=(1000, D))
        X_new, who = rng.normal(size=(3, 800, D)), rng.integers(90, size=(3, 800))
        y_new = [answers(rng, x, heads[head_of[w]]) for x, w in zip(X_new, who, strict=True)]
        errors = {}
        for how in ("asked", "drawn"):
            X, y, users = start
            for x, w, labels in zip(X_new, who, y_new, strict=True):
                rows = np.arange(90)
                if how == "asked":
                    rows = suggest_annotations(fitted(X, y, users), x, w, 90, labelled=(X, y, users))
                X, y, users = np.vstack([X, x[rows]]), np.append(y, labels[rows]), np.append(users, w[rows])
            errors[how] = distance(heads, fitted(X, y, users), test)
        gain.append(errors["drawn"] - errors["asked"])
    assert np.mean(gain) > 2 * np.std(gain) / np.sqrt(12) > 0, np.round(gain, 3)


def test_the_first_answer_is_that_of_the_largest_determinant():
    _, _, X, y, users, rng = world(0, n_annotators=12, votes=4)
    mixture = fitted(X, y, users)
    pool, who = rng.normal(size=(30, D)), rng.integers(12, size=30)
    shares = mixture.responsibilities(X, y, users)
    scale = 1.75 / np.sqrt((pool**2).sum(axis=1).mean())

    def features(pairs, annotators):
        p = expit(pairs @ mixture.coef_.T)
        r = shares[annotators]
        mean = (r * p).sum(axis=1)
        slopes = r * p * (1 - p) / np.sqrt(mean * (1 - mean))[:, None]
        return np.einsum("nk,nd->nkd", slopes, scale * pairs).reshape(len(pairs), -1)

    known = features(X, users)
    value = [np.linalg.slogdet(np.eye(K * D) + known.T @ known + np.outer(row, row))[1] for row in features(pool, who)]
    chosen = suggest_annotations(mixture, pool, who, 5, labelled=(X, y, users))
    assert chosen[0] == np.argmax(value)
    assert len(set(chosen.tolist())) == 5
    assert chosen.tolist() == suggest_annotations(mixture, -pool, who, 5, labelled=(X, y, users)).tolist()


def test_no_annotator_answers_a_pair_twice():
    _, _, X, y, users, rng = world(1, n_annotators=10, votes=3)
    mixture = fitted(X, y, users)
    pool = np.concatenate([X[:4], -X[:4], rng.normal(size=(2, D))])
    who = np.concatenate([users[:4], users[:4], [0, 1]])
    assert sorted(suggest_annotations(mixture, pool, who, 2, labelled=(X, y, users)).tolist()) == [8, 9]
    with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 2, .* got 3"):
        suggest_annotations(mixture, pool, who, 3, labelled=(X, y, users))
    others = suggest_annotations(mixture, pool, who + 100, 6, labelled=(X, y, users))  # who have not answered
    assert len(set(others.tolist())) == 6


def test_annotators_who_are_known_are_asked_first():
    """Of a new one it is not known which head an answer would be about."""
    _, _, X, y, users, rng = world(2, n_annotators=12, votes=12)
    mixture, pair = fitted(X, y, users), rng.normal(size=(1, D))
    rows = np.repeat(pair, 2, axis=0)
    names = np.array(["new", 3], dtype=object)
    assert suggest_annotations(mixture, rows, names, labelled=(X, y, users)).tolist() == [1]


def test_models_and_rows_of_other_kinds():
    _, _, X, y, users, rng = world(3, n_annotators=20, votes=4)
    pool = rng.normal(size=(20, D))
    assert len(suggest_annotations(fitted(X, y, users), pool, n_queries=3)) == 3
    chosen = np.where(y[:, None] == 1, X, -X)
    assert len(suggest_annotations(fitted(X, y, users), pool, None, 2, labelled=(chosen, None, users))) == 2
    gated = MixtureBradleyTerry(2, n_context_features=2, n_init=1, random_state=0).fit(X, y, groups=users)
    assert len(suggest_annotations(gated, pool, np.arange(20), 2, labelled=(X, y, users))) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scattered = HierarchicalBradleyTerry(1, rank=1, max_iter=5, random_state=0).fit(X, y, groups=users)
    assert len(suggest_annotations(scattered, pool, np.arange(20), 2, labelled=(X, y, users))) == 2


@pytest.mark.parametrize("labelled", [(1, 2), "abc", 3.0])
def test_answers_that_are_none(labelled):
    _, _, X, y, users, _ = world(4, n_annotators=8)
    with pytest.raises((ValueError, TypeError)):
        suggest_annotations(fitted(X, y, users), X, users, labelled=labelled)


def test_rows_of_any_size_and_no_answers_yet():
    _, _, X, y, users, rng = world(1, n_annotators=10)
    mixture, pool = fitted(X, y, users), rng.normal(size=(30, D))
    none = suggest_annotations(mixture, pool, np.arange(30), 3, labelled=(X[:0], y[:0], users[:0]))
    assert none.tolist() == suggest_annotations(mixture, pool, np.arange(30), 3).tolist()
    for size in (1e200, 1e-200, 0.0):
        assert len(set(suggest_annotations(mixture, size * pool, np.arange(30), 3).tolist())) == 3


def test_a_router_is_no_mixture():
    _, _, X, y, users, _ = world(1, n_annotators=10)
    with pytest.raises(TypeError, match=r"mixture: expected a MixtureBradleyTerry .*, got a ContextRouter"):
        suggest_annotations(ContextRouter(fitted(X, y, users)), X)
