"""Work split over threads; those of BLAS, kept away while a solver runs and given back whatever happens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread, current_thread

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from micropref import ContextRouter, MixtureBradleyTerry
from micropref._engine import solvers
from micropref.kernels import _threads
from micropref.kernels._threads import blas_threads


def blas_counts() -> set[int]:
    """Of NumPy's and SciPy's BLAS; other packages of the process bring their own, which no solver here calls."""
    libraries = ThreadpoolController().select(user_api="blas").info()
    ours = [library for library in libraries if "numpy" in library["filepath"] or "scipy" in library["filepath"]]
    return {library["num_threads"] for library in ours or libraries}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        assert blas_counts() == {2}
        yield
        assert blas_counts() == {2}


def test_one_thread_inside_and_all_after_an_error():
    seen = []

    def failing():
        with blas_threads(False):
            with blas_threads(False):
                seen.append(blas_counts())
            seen.append(blas_counts())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert seen == [{1}, {1}]


def test_wanted_threads_stay():
    with blas_threads(True):
        assert blas_counts() == {2}


def test_other_threads_leave_the_process_alone():
    def elsewhere():
        with blas_threads(False):
            return blas_counts()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == {2}


@pytest.mark.parametrize(("gate", "expected"), [("linear", {1}), ("mlp", {2})])
def test_solvers_use_them_only_behind_a_hidden_layer(gate, expected, monkeypatch):
    seen = []
    original = solvers.minimize

    def watched(*given, **more):
        seen.append(blas_counts())
        return original(*given, **more)

    monkeypatch.setattr(solvers, "minimize", watched)
    X = np.random.default_rng(0).normal(size=(300, 5))
    heads = MixtureBradleyTerry(2, n_context_features=2, gate=gate, hidden_units=3, n_init=1, tol=1e-2, random_state=0)
    heads.fit(X, groups=np.arange(300) // 5)
    assert len(seen) == 2, "one start, and the short fit that the temperature of histories comes from"
    ContextRouter(heads, gate=gate, hidden_units=3, random_state=0, alpha=1.0).fit(X)
    assert seen == [expected] * 3


def test_every_thread_has_one_workspace(monkeypatch):
    monkeypatch.setattr(_threads, "available", lambda: 3)
    made = []

    def workspace():
        made.append([])
        return (made[-1],)

    def work(part, own):
        own.append(part.start)
        return part.stop

    parts = [slice(i, i + 1) for i in range(50)]
    assert _threads.run(work, parts, workspace) == list(range(1, 51))
    assert 1 <= len(made) <= 3
    assert sorted(i for own in made for i in own) == list(range(50))


def test_work_may_hand_out_work(monkeypatch):
    monkeypatch.setattr(_threads, "available", lambda: 3)
    parts = [slice(i, i + 1) for i in range(6)]

    def inner(part):
        time.sleep(1e-3)
        return part.stop

    found = []
    caller = Thread(target=lambda: found.extend(_threads.run(lambda _: _threads.run(inner, parts), parts)), daemon=True)
    caller.start()
    caller.join(10)
    assert found == [list(range(1, 7))] * 6


def test_what_a_thread_raises_is_raised_here(monkeypatch):
    monkeypatch.setattr(_threads, "available", lambda: 2)
    caller = current_thread()

    def work(part):
        time.sleep(1e-3)
        if current_thread() is not caller:
            raise ValueError("in another thread")

    with pytest.raises(ValueError, match="in another thread"):
        _threads.run(work, [slice(i, i + 1) for i in range(20)])
