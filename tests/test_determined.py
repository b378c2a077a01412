"""Fits that say nothing of the data warn, and say why; ordinary ones do not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from baseline_cases import RIVALS, C, rows
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.base import clone

from micropref import HierarchicalBradleyTerry, MixtureBradleyTerry
from micropref._engine.determined import Games, games_between_items, is_separated

STRONG, WEAK, APART, ONE_SIDED = "so strong that", "can predict every", "never compared with", "never lose to"


def heard(model, *args, **kwargs) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*args, **kwargs)
    words = (STRONG, WEAK, APART, ONE_SIDED)
    return [word for one in caught for word in words if word in str(one.message)]


def games(pairs: list[tuple[int, int]], n_items: int) -> np.ndarray:
    """Winner first."""
    X = np.zeros((len(pairs), n_items))
    for row, (winner, loser) in zip(X, pairs, strict=True):
        row[winner], row[loser] = 1.0, -1.0
    return X


RING = [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1)]
APARTS = [*RING, (3, 4), (4, 5), (5, 3)]
WINS = [*RING, (3, 0), (3, 1), (3, 2)]
ALPHAS = {name for name, rival in RIVALS.items() if "alpha" in rival.get_params(deep=False)}


@pytest.mark.parametrize(
    ("X", "alpha", "expected"),
    [
        (games(RING, 3), 0.0, []),
        (games(RING, 3), "auto", []),
        (games(APARTS, 6), 0.0, [APART]),
        (games(APARTS, 6), "auto", [APART]),
        (games(APARTS, 6) * 0.25, 0.1, [APART]),
        (games(WINS, 4), "auto", []),
        (games(WINS, 4), 0.05, []),
        (games(WINS, 4), 0.0, [ONE_SIDED]),
        (games(WINS, 4), 1e-9, [ONE_SIDED]),
        (games([(b, a) for a, b in WINS], 4), 0.0, [ONE_SIDED]),
        (games(RING, 3), 1e9, [STRONG]),
        (games(RING, 3) * 1e-3, 0.01, [STRONG]),
        (np.array([[1.0, 0.2], [0.5, -0.1], [0.1, 0.4]]), 0.0, [WEAK]),
        (np.array([[1.0, 0.2], [0.5, -0.1], [0.1, 0.4]]), 1e-12, [WEAK]),
        (np.array([[1.0, 0.2], [0.5, -0.1], [0.1, 0.4]]), "auto", []),
        (np.array([[1.0, 0.2], [0.5, -0.1], [0.0, 1.0], [0.0, -1.0]]), 0.0, [WEAK]),  # quasi-complete
        (np.array([[1.0, 0.2], [0.5, -0.1], [-0.1, 0.4], [-0.7, -0.3]]), 0.0, []),
    ],
)
def test_what_one_head_means(X, alpha, expected):
    assert heard(MixtureBradleyTerry(1, alpha=alpha, max_iter=3000), X) == expected
    half = np.arange(len(X)) % 2 == 0
    y = np.where(half, 1, 0)
    assert heard(MixtureBradleyTerry(1, alpha=alpha, max_iter=3000), np.where(half[:, None], X, -X), y) == expected


def test_columns_are_named_as_in_X():
    X = np.hstack([np.ones((8, 2)), games(APARTS, 6)])
    with pytest.warns(UserWarning, match=r"2 sets of 3, 3 that are never compared .* columns 2, 3, 4 and 5, 6, 7"):
        MixtureBradleyTerry(1, n_context_features=2).fit(X)
    with pytest.warns(UserWarning, match=r"1 items or sets of items .* \(column 3\)"):
        MixtureBradleyTerry(1, alpha=0.0, max_iter=3000).fit(games(WINS, 4))


def test_a_row_without_weight_joins_nothing():
    X = games([*APARTS, (0, 3)], 6)
    weight = np.r_[np.ones(8), 0.0]
    assert heard(MixtureBradleyTerry(1), X, sample_weight=weight) == [APART]
    assert heard(MixtureBradleyTerry(1), X) == []


@pytest.mark.parametrize("name", [*sorted(ALPHAS), "mixture", "hierarchical"])
def test_every_estimator_with_a_penalty_warns_of_one_that_is_too_strong(name):
    X, y, annotator = rows()
    own = {
        "mixture": MixtureBradleyTerry(2, n_context_features=C, n_init=1, random_state=0),
        "hierarchical": HierarchicalBradleyTerry(2, rank=1, tau=0.5, n_init=1, n_context_features=C, random_state=0),
    }
    model = clone(own[name] if name in own else RIVALS[name])
    assert heard(model, X, y, groups=annotator) == []
    assert heard(model.set_params(alpha=1e8), X, y, groups=annotator) == [STRONG]


@pytest.mark.parametrize("name", [name for name in RIVALS if "given" not in name])
def test_every_rival_warns_of_items_that_never_meet(name):
    X = np.tile(games(APARTS, 6), (3, 1))
    rng = np.random.default_rng(0)
    model = clone(RIVALS[name]).set_params(n_context_features=0)
    assert APART in heard(model, X, rng.integers(0, 2, len(X)), groups=np.arange(len(X)) // 3)


def test_separated_heads_are_seen():
    """Two groups of annotators who disagree on everything: each head wins all."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    annotator = np.arange(200) // 10
    y = (X[:, 0] * np.where(annotator % 2, 1, -1) > 0).astype(int)
    model = MixtureBradleyTerry(2, alpha=0.0, n_init=2, random_state=0, max_iter=3000)
    assert WEAK in heard(model, X, y, groups=annotator)
    assert heard(clone(model).set_params(alpha="auto"), X, y, groups=annotator) == []


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(8, 40), st.floats(0.3, 3))
def test_ordinary_comparisons_warn_of_nothing(seed, width, n, scale):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, width)) * scale
    y = (X @ rng.normal(size=width) + rng.logistic(size=n) > 0).astype(int)
    assert heard(MixtureBradleyTerry(1), X, y) == []
    if not separated_by_margin(X * np.where(y == 1, 1.0, -1.0)[:, None]):
        assert heard(MixtureBradleyTerry(1, alpha=0.0, max_iter=3000), X, y) == []


def separated_by_margin(won: np.ndarray) -> bool:
    """By another programme: a v with won @ v >= 1 for one row and >= 0 for all."""
    return any(
        linprog(
            np.zeros(won.shape[1]),
            A_ub=-won,
            b_ub=-(np.arange(len(won)) == i).astype(float),
            bounds=(None, None),
        ).status
        == 0
        for i in range(len(won))
    )


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 3))
def test_separation_is_that_of_another_programme(seed, n, width):
    won = np.random.default_rng(seed).integers(-3, 4, size=(n, width)).astype(float)
    assert is_separated(won, np.ones(n)) == separated_by_margin(won)


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 6))
def test_items_are_one_sided_where_rewards_have_no_end(seed, n, n_items):
    rng = np.random.default_rng(seed)
    pairs = [tuple(rng.choice(n_items, 2, replace=False)) for _ in range(n)]
    found = games_between_items(games(pairs, n_items), np.ones(n))
    assert isinstance(found, Games)
    assert len(found.parts()) > 1 or bool(found.one_sided()) == separated_by_margin(games(pairs, n_items))


def test_other_rows_are_no_games():
    for X in (np.eye(3), np.array([[1.0, -0.5], [1.0, -1.0]]), np.ones((2, 2)), np.zeros((2, 3)), np.ones((2, 1))):
        assert games_between_items(X, np.ones(len(X))) is None
