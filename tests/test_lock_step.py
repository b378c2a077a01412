"""Solvers in lock step find what each finds alone, in one order of evaluations, and end together when one fails."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import rosen, rosen_der

from micropref import MixtureBradleyTerry
from micropref._engine import starts
from micropref._engine.lock_step import in_lock_step
from micropref._engine.mixture_objective import MixtureObjective
from micropref._engine.solvers import lbfgs


def one_by_one(points):
    return np.array([rosen(p) for p in points]), np.stack([rosen_der(p) for p in points])


def solver(start, **options):
    settings = {"max_iter": 200, "tol": 1e-8, **options}
    return lambda function: lbfgs(function, np.asarray(start, float), **settings)


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "micropref-start"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_every_solver_ends_where_it_ends_alone_in_any_order(seeds, random):
    points = [np.random.default_rng(seed).normal(size=4) for seed in seeds]
    alone = [solver(p)(lambda x: (rosen(x), rosen_der(x))) for p in points]
    order = list(range(len(points)))
    random.shuffle(order)
    found = in_lock_step([solver(points[i]) for i in order], one_by_one)
    for i, one in zip(order, found, strict=True):
        np.testing.assert_array_equal(one.vector, alone[i].vector)
        assert (one.value, one.n_iter, one.converged) == (alone[i].value, alone[i].n_iter, alone[i].converged)
    assert not running()


def test_points_come_in_the_order_of_the_solvers_and_those_that_have_ended_leave():
    n_points, rounds = [], []

    def evaluate(points):
        n_points.append(len(points))
        rounds.append(points[:, 0].copy())
        return one_by_one(points)

    after = []
    begun = [[1.0, 1.0], [-1.0, 2.0], [0.0, 0.5]]  # the first is the minimum
    found = in_lock_step([solver(start) for start in begun], evaluate, lambda: after.append(len(n_points)))
    np.testing.assert_array_equal(rounds[0], [1.0, -1.0, 0.0])
    assert n_points == sorted(n_points, reverse=True)
    assert n_points[0] == 3
    assert n_points[-1] == 1
    # Evaluations are as many as those of the longest alone; the last look follows the last of them.
    assert after == list(range(len(n_points) + 1))
    assert [one.converged for one in found] == [True] * 3


def test_no_solvers_and_solvers_that_ask_for_nothing():
    assert in_lock_step([], one_by_one) == []
    assert in_lock_step([lambda _: 7, lambda _: 8], one_by_one) == [7, 8]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("where", ["evaluation", "solver", "after a round"])
def test_what_fails_is_raised_and_ends_all_solvers(error, where):
    seen = []

    def fail(at):
        seen.append(at)
        if at == where and seen.count(at) > 2:
            raise error

    def evaluate(points):
        fail("evaluation")
        return one_by_one(points)

    def bad(function):
        def watched(x):
            fail("solver")
            return function(x)

        return solver([-1.0, 2.0])(watched)

    with pytest.raises(type(error)) as caught:
        in_lock_step([solver([3.0, -2.0]), bad, solver([0.0, 0.5])], evaluate, lambda: fail("after a round"))
    assert caught.value is error
    assert not running()


def test_settings_of_numpy_hold_inside_the_solvers():
    def divides(function):
        function(np.zeros(2))
        return np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        assert in_lock_step([divides, divides], one_by_one) == [np.inf, np.inf]
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        in_lock_step([divides, divides], one_by_one)


# ------------------------------------------------------------------------------------------------------------- fits


def world(n=300, d=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(dtype)
    group = np.arange(n) // 5
    y = (X[:, 0] * np.where(group % 2, 3, -3) + rng.logistic(size=n) > 0).astype(int)
    return X, y, group


def counted(monkeypatch, model, X, y, group):
    """The fit, how often X was read, and for how many vectors."""
    reads = []
    original = MixtureObjective.values_and_gradients

    def watch(objective, vectors):
        reads.append(len(vectors))
        return original(objective, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(MixtureObjective, "values_and_gradients", watch)
        patch.setattr("micropref.mixture.vote_temperature", lambda *_: 1.0)
        model.fit(X, y, groups=group)
    return reads


@pytest.mark.parametrize("grouped", [True, False])
def test_starts_share_reads_and_end_where_they_end_alone(grouped, monkeypatch):
    X, y, group = world()
    group = group if grouped else None
    settings = {"n_components": 2, "random_state": 3, "tol": 1e-7}
    together, alone = (MixtureBradleyTerry(n_init=4, **settings) for _ in range(2))
    reads = counted(monkeypatch, together, X, y, group)
    monkeypatch.setattr(MixtureObjective, "shares_reads", False)
    counted(monkeypatch, alone, X, y, group)
    assert reads[0] == 4
    assert sum(reads) > 2 * len(reads)
    assert together.objective_ == pytest.approx(alone.objective_, abs=1e-12)
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), atol=1e-6)


def test_the_order_of_the_starts_does_not_matter(monkeypatch):
    X, y, group = world()
    original = starts.in_lock_step

    def reversed_order(solvers, *others):
        return original(solvers[::-1], *others)[::-1]

    fits = []
    for run in (original, reversed_order):
        monkeypatch.setattr(starts, "in_lock_step", run)
        fits.append(MixtureBradleyTerry(2, random_state=0, tol=1e-7).fit(X, y, groups=group))
    assert fits[0].objective_ == pytest.approx(fits[1].objective_, abs=1e-12)
    np.testing.assert_allclose(fits[0].predict_proba(X), fits[1].predict_proba(X), atol=1e-6)


def test_the_same_seed_gives_the_same_bits_in_any_thread():
    X, y, group = world(dtype=np.float32)
    found = {}

    def fit(name):
        found[name] = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=group).coef_.tobytes()

    fit("main")
    threads = [threading.Thread(target=fit, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_reads_as_if_one_start_came_after_the_other(verbose, capfd, monkeypatch):
    X, y, group = world()
    shown = []
    for shares in (None, False):
        if shares is not None:
            monkeypatch.setattr(MixtureObjective, "shares_reads", shares)
        MixtureBradleyTerry(2, n_init=3, random_state=0, verbose=verbose).fit(X, y, groups=group)
        shown.append(capfd.readouterr().out)
    assert shown[0] == shown[1]
    assert [line for line in shown[0].splitlines() if line.startswith("start ")][2].startswith("start 3 of 3")


def test_a_fit_that_is_interrupted_leaves_no_thread_and_the_model_as_it_was(monkeypatch):
    X, y, group = world()
    model = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=group)
    before = model.coef_.copy()
    original, calls = MixtureObjective.values_and_gradients, []

    def interrupted(objective, vectors):
        calls.append(len(vectors))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(objective, vectors)

    monkeypatch.setattr(MixtureObjective, "values_and_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[::-1], y, groups=group)
    assert not running()
    np.testing.assert_array_equal(model.coef_, before)
