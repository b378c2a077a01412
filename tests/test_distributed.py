"""Fits on several ranks: the heads of one process, the same bits on every rank, and errors that reach all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micropref import MixtureBradleyTerry, PairEncoder, PreferenceModel, load_demo
from micropref._agreement import root_mean_square
from micropref._gates import Gate
from micropref._objective import MixtureObjective
from micropref._validation import check_groups, distinct_labels
from micropref.datasets import PreferenceTable
from micropref.distributed import (
    ALONE,
    Communicator,
    RankError,
    TorchCommunicator,
    active_communicator,
    check_groups_not_split,
    distributed_fit,
    hash_ids,
    shard_rows,
    torchrun,
)
from micropref.embed import HashingEncoder
from micropref.pairs import PairReader

ROOT = Path(__file__).parents[1]


class Thread(Communicator):
    """One of several ranks that are threads of this process."""

    def __init__(self, rank, slots, barrier):
        self.rank, self.world_size = rank, len(slots)
        self.slots, self.barrier = slots, barrier
        self.n_reductions = 0

    def exchange(self, value):
        self.slots[self.rank] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values

    def reduce(self, values):
        self.n_reductions += 1
        return np.sum(self.exchange(values), axis=0)


def on_ranks(world_size, work):
    """``work(communicator)`` on every rank, in a `distributed_fit`: results and errors in the order of ranks."""
    slots, barrier = [None] * world_size, threading.Barrier(world_size, timeout=60)
    results, errors = [None] * world_size, [None] * world_size

    def run(rank):
        try:
            with distributed_fit(Thread(rank, slots, barrier)) as ranks:
                results[rank] = work(ranks)
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, errors


def fits(model, shares):
    """One fitted copy of the model per rank; `shares` has the arguments of `fit` for each of them."""
    from sklearn.base import clone

    results, errors = on_ranks(len(shares), lambda ranks: clone(model).fit(**shares[ranks.rank]))
    for error in errors:
        if error is not None:
            raise error
    return results


def planted(n=400, width=4, context=0, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, context + width)).astype(dtype)
    groups = np.arange(n) // 5
    heads = rng.normal(size=(2, width)) * 2
    margins = np.einsum("ij,ij->i", X[:, context:], heads[rng.integers(0, 2, size=n // 5 + 1)[groups]])
    y = (rng.random(n) < 1 / (1 + np.exp(-margins))).astype(int)
    return {"X": X, "y": y, "groups": groups, "sample_weight": rng.uniform(0.5, 2, size=n)}


def split(data, world_size):
    n = len(data["X"])
    rows = [shard_rows(n, data.get("groups"), rank, world_size) for rank in range(world_size)]
    return [{name: values[one] for name, values in data.items()} for one in rows]


def parameters(model):
    return [model.coef_, model.weights_, *model.gate_parameters_, np.array([model.objective_])]


def assert_same_fit(models, alone, tolerance=1e-6):
    for model in models:
        assert model.n_iter_ == models[0].n_iter_
        np.testing.assert_array_equal(model.classes_, alone.classes_)
        for mine, first, whole in zip(parameters(model), parameters(models[0]), parameters(alone), strict=True):
            np.testing.assert_array_equal(mine, first)
            np.testing.assert_allclose(mine, whole, rtol=0, atol=tolerance)


# ----------------------------------------------------------------------------------------------------------- the fit

SETTINGS = {
    "static": {},
    "one head": {"n_components": 1},
    "linear gate": {"n_context_features": 3},
    "mlp gate": {"n_context_features": 3, "gate": "mlp", "hidden_units": 4, "n_init": 1, "gate_alpha": 0.03},
    "balance": {"n_context_features": 3, "balance": 0.3},
}


def model_of(**settings):
    return MixtureBradleyTerry(
        **{"n_components": 2, "alpha": 0.05, "tol": 1e-9, "n_init": 2, "random_state": 3, **settings}
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_ranks_find_what_one_process_finds(settings, grouped, weighted):
    data = planted(context=settings.get("n_context_features", 0))
    for name, wanted in (("groups", grouped), ("sample_weight", weighted)):
        if not wanted:
            del data[name]
    if not settings and not grouped:  # one component alone would explain such rows, with an offset that has no end
        settings = {"balance": 0.3}
    model = model_of(**settings)
    assert_same_fit(fits(model, split(data, 3)), model.fit(**data))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_half_and_single_precision(dtype):
    data = planted(dtype=dtype)
    model = model_of(tol=1e-6)
    assert_same_fit(fits(model, split(data, 2)), model.fit(**data), tolerance=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_the_sum_of_the_shares_is_the_whole(seed, world_size, grouped):
    """Loss and gradient at a random start: one iteration from it, whatever the rows and the ranks."""
    rng = np.random.default_rng(seed)
    n, context = int(rng.integers(2, 40)), int(rng.integers(0, 3))
    data = planted(n, context=context, seed=seed)
    # Norms of shares differ by orders of magnitude.
    data["X"] *= 10.0 ** rng.integers(-3, 3)
    data["groups"] = rng.integers(-1, 4, size=n) if grouped else np.full(n, -1)
    model = model_of(n_context_features=context, max_iter=1, n_init=1, tol=1e9, random_state=seed % 1000)
    shares = split(data, world_size)
    assert sum(len(share["X"]) for share in shares) == n
    models = fits(model, shares)
    alone = model.fit(**data)
    scale = np.abs(alone.coef_).max()
    assert_same_fit(models, alone, tolerance=1e-9 * max(1.0, scale))


def test_one_reduction_per_evaluation():
    data = planted(20)
    gate = Gate.create("linear", 0, 2, 1)
    whole = MixtureObjective(PairReader(data["X"], 0), gate, alpha=0.5)
    vector = np.random.default_rng(0).normal(size=whole.penalties.size)

    def work(ranks):
        rows = shard_rows(20, None, ranks.rank, 2)
        part = MixtureObjective(
            PairReader(data["X"][rows], 0), gate, alpha=0.5, communicator=ranks, total_weight=whole.total_weight
        )
        return *part.value_and_gradient(vector), ranks.n_reductions

    results, errors = on_ranks(2, work)
    assert errors == [None, None]
    for value, gradient, n_reductions in results:
        assert n_reductions == 1
        assert value == pytest.approx(whole.value_and_gradient(vector)[0], rel=1e-13)
        np.testing.assert_allclose(gradient, whole.value_and_gradient(vector)[1], rtol=1e-12, atol=1e-15)
