"""Budget curves: what each copy is taught, what it is asked, and what is reported."""

from __future__ import annotations

import doctest
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.special import expit, log_expit
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import micropref.metrics._budget
from micropref import ContextRouter, MixtureBradleyTerry
from micropref._rows.pair_keys import NoQuestionLeftError
from micropref.baselines._base import PersonalRewards
from micropref.metrics import budget_curve, mean_interval


class Notebook(BaseEstimator):
    """Writes down what it is taught, for all of its copies; says the number of labels of each user."""

    seen: list[tuple[np.ndarray, np.ndarray | None, list]]

    def __init__(self, seen=None):
        self.seen = seen
        self.classes_ = np.array([0, 1])
        self.known = {}

    def __deepcopy__(self, memo):
        copy = Notebook(self.seen)
        copy.known = dict(self.known)
        return copy

    def fit(self, X, y=None):
        raise AssertionError("a budget is learned by partial_fit")

    def partial_fit(self, X, y=None, groups=None):
        self.seen.append((X[:, 0].copy(), None if y is None else y.copy(), list(groups)))
        for user in groups:
            self.known[user] = self.known.get(user, 0) + 1
        return self

    def decision_function(self, X, groups=None):
        return np.array([float(self.known.get(user, 0)) for user in groups])


class OneDirection(PersonalRewards):
    """The mean of the differences that somebody preferred: the smallest method on the frame of the rivals."""

    def __init__(self, n_context_features=0):
        self.n_context_features = n_context_features

    def _learn(self, rows):
        self._width = rows.difference.shape[1]

    def _represent(self, context, difference):
        return difference

    def _start(self):
        return np.zeros(self._width)

    def _adapt(self, votes, start):
        return start + 3 * (votes.weight * votes.signs) @ votes.values / len(votes)

    def _log_odds(self, values, numbers):
        return (values * numbers).sum(axis=1)


@pytest.fixture(scope="module")
def world():
    """Users of two kinds with opposite tastes; their rows are first to be labelled, then to be judged."""
    rng = np.random.default_rng(0)
    n = 1200
    user = np.arange(n) // 12
    X = rng.normal(size=(n, 3))
    taste = np.where(user % 2 == 0, -3.0, 3.0)
    y = (rng.random(n) < expit(X[:, 0] * taste)).astype(int)
    pool = np.arange(n) % 12 < 6
    mixture = MixtureBradleyTerry(2, n_init=2, random_state=0).fit(X, y, groups=user)
    return SimpleNamespace(X=X, y=y, user=user, pool=pool, mixture=mixture)


def halves(world):
    pool, test = world.pool, ~world.pool
    return (world.X[pool], world.y[pool], world.user[pool]), {
        "X_test": world.X[test], "y_test": world.y[test], "groups_test": world.user[test],
    }  # fmt: skip


def taught(names, budgets=(0, 1, 3), n_draws=3, order=None, **more):
    """What copies of a notebook were taught of 4 users with 5 rows each and a row of nobody."""
    X = np.arange(21.0)[:, None]
    users = np.append(np.arange(20) % 4, -1)
    order = np.arange(21) if order is None else order
    book = Notebook([])
    budget_curve(
        book, X[order], np.arange(21)[order] % 2, names[users[order]], budgets=budgets, n_draws=n_draws,
        X_test=np.zeros((4, 1)), groups_test=names[:4], **more,
    )  # fmt: skip
    assert not book.known
    return book.seen


NAMES = np.array(["ann", "bob", "cal", "dee", None], dtype=object)


def test_every_group_gets_its_number_of_labels_and_draws_are_nested():
    seen = taught(NAMES)
    assert len(seen) == 2 * 3
    for one, three in zip(seen[::2], seen[1::2], strict=True):
        for (rows, labels, groups), number in ((one, 1), (three, 3)):
            assert sorted(groups) == sorted(["ann", "bob", "cal", "dee"] * number)
            assert [NAMES[int(row) % 4] for row in rows] == groups
            np.testing.assert_array_equal(labels, rows % 2)
            assert (np.diff(rows) > 0).all()  # in the order of time
        assert set(one[0]) < set(three[0])
    assert len({tuple(rows) for rows, _, _ in seen[::2]}) == 3


def test_draws_do_not_depend_on_names_budgets_or_later_draws():
    rows = [tuple(seen[0]) for seen in taught(NAMES)]
    renamed = np.array(["zed", 7, "abe", 3, None], dtype=object)
    assert [tuple(seen[0]) for seen in taught(renamed)] == rows
    assert [tuple(seen[0]) for seen in taught(NAMES, budgets=(3, 1))] == [rows[i] for i in (1, 0, 3, 2, 5, 4)]
    assert [tuple(seen[0]) for seen in taught(NAMES, n_draws=1)] == rows[:2]
    assert [tuple(seen[0]) for seen in taught(NAMES, random_state=1)] != rows


def test_every_row_is_drawn_as_often():
    seen = taught(NAMES, budgets=(1,), n_draws=400)
    count = np.bincount(np.concatenate([rows for rows, _, _ in seen]).astype(int), minlength=21)
    assert count[20] == 0
    assert (np.abs(count[:20] - 80) < 40).all()


def test_figures_are_those_of_the_copies():
    """The notebook says how many labels it has, so all figures are known."""
    X, users = np.zeros((7, 1)), np.array(["a"] * 5 + ["b"] * 2)
    y_test, groups_test = np.array([1, 1, 0, 1]), np.array(["a", "b", "b", "stranger"])
    curve = budget_curve(
        Notebook([]), X, groups=users, X_test=np.zeros((4, 1)), y_test=y_test, groups_test=groups_test,
        budgets=(0, 1, 4), n_draws=2, clusters=[0, 1, 2, 3], n_resamples=50,
    )  # fmt: skip
    assert curve.budgets == (0, 1, 4)
    np.testing.assert_allclose(curve.mean_labels, [0, 2 / 3, 2])
    np.testing.assert_array_equal(curve.min_labels, [0, 0, 0])
    odds = np.array([[0, 0, 0, 0], [1, 1, 1, 0], [4, 2, 2, 0]]) * np.array([1, 1, -1, 1])
    np.testing.assert_allclose([a.mean for a in curve.accuracy], [0.5, 0.625, 0.625])
    np.testing.assert_allclose([a.mean for a in curve.log_loss], -log_expit(odds).mean(axis=1))
    assert curve.draw_accuracy.shape == curve.draw_log_loss.shape == (2, 3)
    assert (curve.draw_accuracy == [0.5, 0.625, 0.625]).all()
    row = curve.rows()[2]
    assert (row["budget"], row["mean_labels"], row["min_labels"]) == (4, 2.0, 0)
    assert [row[f"accuracy{end}"] for end in ("", "_low", "_high")] == list(curve.accuracy[2])
    assert [row[f"log_loss{end}"] for end in ("", "_low", "_high")] == list(curve.log_loss[2])


def test_a_router_learns_who_is_who(world):
    pool, test = halves(world)
    router = ContextRouter(world.mixture).fit(world.X[:24], world.y[:24])
    before = router.decision_function(world.X, groups=world.user)
    curve = budget_curve(router, *pool, budgets=(0, 1, 6), n_draws=2, **test)
    np.testing.assert_array_equal(router.decision_function(world.X, groups=world.user), before)
    means = [interval.mean for interval in curve.accuracy]
    assert means[0] == pytest.approx(0.5, abs=0.06)
    assert means[0] < means[1] < means[2]
    assert means[2] > 0.8
    assert curve.accuracy[2].low > curve.accuracy[0].high
    # With all labels every draw is the same: what a router says that has seen them.
    told = ContextRouter(world.mixture).fit(world.X[:24], world.y[:24]).partial_fit(*pool[:2], groups=pool[2])
    odds = told.decision_function(test["X_test"], groups=test["groups_test"])
    right = (odds > 0) == test["y_test"]
    np.testing.assert_allclose(curve.draw_accuracy[:, 2], right.mean())
    seed = np.random.RandomState(0).randint(2**31 - 1)
    assert curve.accuracy[2] == mean_interval(right, test["groups_test"], random_state=seed)


def test_a_rival_learns_who_is_who(world):
    pool, test = halves(world)
    rival = OneDirection().fit(world.X, world.y)
    curve = budget_curve(rival, *pool, budgets=(0, 2, 6), n_draws=2, **test)
    means = [interval.mean for interval in curve.accuracy]
    assert means[0] == 0.5  # ties
    assert curve.log_loss[0].mean == pytest.approx(np.log(2))
    assert 0.6 < means[1] < means[2]
    assert not rival._votes_of


def test_a_short_group_is_reported_or_an_error(world):
    pool, test = halves(world)
    rival = OneDirection().fit(world.X, world.y)
    curve = budget_curve(rival, *pool, budgets=(4, 50), n_draws=1, **test)
    assert curve.mean_labels.tolist() == [4.0, 6.0]
    assert curve.min_labels.tolist() == [4, 6]
    with pytest.raises(ValueError, match="budgets: expected at most 6, the labelled rows of group 0, got 7"):
        budget_curve(rival, *pool, budgets=(2, 7), short="raise", **test)
    assert budget_curve(rival, *pool, budgets=(6,), short="raise", n_draws=1, **test).min_labels.tolist() == [6]


def test_labels_of_any_two_names_and_tensors(world):
    pool, test = halves(world)
    words = np.array(["no", "yes"])
    numbers = budget_curve(OneDirection().fit(world.X, world.y), *pool, budgets=(3,), n_draws=1, **test)
    X, y, users = pool
    named = budget_curve(
        OneDirection().fit(world.X, words[world.y]), torch.tensor(X), words[y], users, budgets=(3,), n_draws=1,
        X_test=torch.tensor(test["X_test"]), y_test=words[test["y_test"]], groups_test=test["groups_test"],
    )  # fmt: skip
    assert named.accuracy == numbers.accuracy


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("table", [pd.DataFrame, pl.DataFrame, np.ndarray.tolist], ids=["pandas", "polars", "lists"])
def test_rows_of_tables_and_lists(world, table):
    """Rows are drawn, not columns."""
    (X, y, users), test = halves(world)
    rival = OneDirection().fit(world.X, world.y)
    arrays = budget_curve(rival, X, y, users, budgets=(0, 3), n_draws=2, **test)
    tables = test | {"X_test": table(test["X_test"])}
    assert budget_curve(rival, table(X), y, users, budgets=(0, 3), n_draws=2, **tables).accuracy == arrays.accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budgets": ()}, r"budgets: expected at least one whole number, none below 0, got \[\]"),
        ({"budgets": (1, -1)}, r"got \[1, -1\]"),
        ({"budgets": (1.5,)}, r"got \[1\.5\]"),
        ({"n_draws": 0}, "n_draws: expected an integer of at least 1, got 0"),
        ({"short": "pad"}, "short: expected one of 'use_all', 'raise', got 'pad'"),
        ({"groups": None}, "groups: expected the user of every row, got None"),
        ({"groups_test": [None, -1]}, "groups_test: expected the user of every row"),
        ({"groups": ["a"]}, "inconsistent numbers of samples"),
        ({"y": [1]}, "X has 2 rows, y has 1"),
        ({"y": [1, 5]}, r"got the label .*5.* in row 1"),
        ({"y_test": [1]}, "X has 2 rows, y has 1"),
        ({"groups_test": ["a", "a"]}, "at least two clusters"),
        ({"clusters": ["a"]}, "inconsistent numbers of samples"),
    ],
)
def test_bad_input_is_named(arguments, message):
    given = {"X": np.zeros((2, 1)), "groups": ["a", "b"], "X_test": np.zeros((2, 1)), "groups_test": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        budget_curve(Notebook([]), **(given | {"budgets": (1,), "n_draws": 1} | arguments))


def test_an_estimator_must_be_fitted(world):
    pool, test = halves(world)
    with pytest.raises(NotFittedError, match="ContextRouter"):
        budget_curve(ContextRouter(world.mixture), *pool, **test)


def test_predictions_that_are_not_finite_are_an_error():
    class Broken(Notebook):
        def decision_function(self, X, groups=None):
            return np.full(len(X), np.nan)

    with pytest.raises(ValueError, match="log_odds: expected finite numbers, got nan"):
        budget_curve(
            Broken([]), np.zeros((2, 1)), groups=["a", "b"], X_test=np.zeros((2, 1)), groups_test=["a", "b"],
            budgets=(0,),
        )  # fmt: skip


def test_examples_run():
    failed, attempted = doctest.testmod(micropref.metrics._budget)
    assert attempted > 5
    assert failed == 0


# ------------------------------------------------------------------------------------------------------------- asking


class Asker(Notebook):
    """Asks about the row with the largest second column."""

    def __deepcopy__(self, memo):
        copy = Asker(self.seen)
        copy.known = dict(self.known)
        return copy

    def suggest(self, X, n_queries=1, group=None, *, random_state=0):
        assert isinstance(random_state, int)
        if X[:, 1].max() < 0:
            raise NoQuestionLeftError("expected candidates that have not been answered, got none")
        return np.array([X[:, 1].argmax()])


def asked_rows(**settings):
    """What a notebook asked four users of five rows each, in rounds."""
    X = np.stack([np.arange(20.0), np.random.default_rng(0).permutation(20)], axis=1)
    X[3::4, 1] = [1, -1, -1, 2, -1]  # the last user has two questions alone
    book = Asker([])
    curve = budget_curve(
        book, X, np.arange(20) % 2, NAMES[np.arange(20) % 4], X_test=np.zeros((4, 1)), groups_test=NAMES[:4],
        strategy="information", **{"budgets": (0, 1, 3), "n_draws": 1, **settings},
    )  # fmt: skip
    assert not book.known
    return X, book.seen, curve


def test_questions_are_asked_one_after_the_other():
    X, seen, curve = asked_rows()
    assert len(seen) == 3
    for place, (rows, labels, groups) in enumerate(seen):
        assert groups == ["ann", "bob", "cal", "dee"][: len(rows)]
        np.testing.assert_array_equal(labels, rows % 2)
        for row in rows:
            own = np.sort(X[int(row) % 4 :: 4, 1])[::-1]
            assert X[int(row), 1] == own[place]
    assert [len(rows) for rows, _, _ in seen] == [4, 4, 3]
    assert curve.mean_labels.tolist() == [0.0, 1.0, (3 + 3 + 3 + 2) / 4]
    assert curve.min_labels.tolist() == [0, 1, 2]


def test_pools_are_drawn_and_budgets_do_not_change_them():
    _, seen, _ = asked_rows(n_draws=4, pool=2, budgets=(2,))
    first = [tuple(rows) for rows, _, _ in seen[::2]]
    assert len(set(first)) > 1
    _, again, _ = asked_rows(n_draws=4, pool=2, budgets=(0, 1, 2))
    assert [tuple(rows) for rows, _, _ in again] == [tuple(rows) for rows, _, _ in seen]


def test_a_router_that_asks_needs_fewer_labels(world):
    rows, test = halves(world)
    router = ContextRouter(world.mixture).partial_fit(world.X[:1], world.y[:1], groups=["another"])
    curves = {
        strategy: budget_curve(router, *rows, budgets=(0, 1, 2), n_draws=2, strategy=strategy, **test)
        for strategy in ("random", "information", "epig")
    }
    for asked in ("information", "epig"):
        assert curves[asked].log_loss[0] == curves["random"].log_loss[0]
        for b in (1, 2):
            assert curves[asked].log_loss[b].mean < curves["random"].log_loss[b].mean


def test_who_cannot_ask(world):
    rows, test = halves(world)
    with pytest.raises(TypeError, match="expected an estimator with a rule for what to ask, `suggest`, got a OneDir"):
        budget_curve(OneDirection().fit(world.X, world.y), *rows, strategy="information", **test)
    with pytest.raises(ValueError, match="strategy: expected 'random' or 'information' of a Asker"):
        budget_curve(Asker([]), *rows, strategy="epig", **test)
    router = ContextRouter(world.mixture).partial_fit(world.X[:1], world.y[:1], groups=["another"])
    with pytest.raises(ValueError, match="strategy: expected one of 'information', 'epig', got 'best'"):
        budget_curve(router, *rows, strategy="best", **test)
    for pool in (0, 1.5, True):
        with pytest.raises(ValueError, match="pool: expected an integer of at least 1"):
            budget_curve(router, *rows, strategy="information", pool=pool, **test)
