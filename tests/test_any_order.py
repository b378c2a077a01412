"""Calls in any order: a refused one leaves the estimator as it was, whatever came before it."""

from __future__ import annotations

import inspect
import pickle
import warnings

import numpy as np
import pytest
from baseline_cases import RIVALS, C, D
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, load, save

KIND = {"n_context_features": C}
N_SEQUENCES = {"every run": 12, "slow": 150}
ESTIMATORS = {
    **RIVALS,
    "mixture": MixtureBradleyTerry(2, n_init=1, random_state=0, **KIND),
    "one head": MixtureBradleyTerry(1, **KIND),
    "hierarchical": HierarchicalBradleyTerry(
        2, rank=1, tau=0.5, n_directions=2, n_init=1, max_iter=20, random_state=0, **KIND
    ),
    **{
        f"router, {gate}": ContextRouter(
            MixtureBradleyTerry(2, n_init=1, random_state=0), prefit=False, gate=gate, random_state=0, **KIND
        )
        for gate in ("linear", "knn", "cluster")
    },
}
ASKED = np.random.default_rng(1).normal(size=(5, C + D + 1))
WHO = np.array(["a", "b", 3, None, "new"], dtype=object)
IDS = ["a", "b", 3, None, ("t", 1)]

X_KINDS = [*["plain"] * 6, "NaN", "no difference", "all zero", "too large", "no rows", "wider"]
Y_KINDS = [*["plain"] * 5, "none", "words", "one label", "short"]
WEIGHTS = [*["none"] * 4, "plain", "one zero", "all zero", "negative", "too large", "too small"]
GROUPS = [*["ids"] * 4, "none", "all None", "booleans", "long"]
PARAMETERS = {
    **{name: [0.5, "auto", -1.0, "much", 1e300] for name in ("alpha", "local_alpha", "user_alpha")},
    **{name: [0.5, -1.0, "much", np.inf] for name in ("temperature", "pooling", "tol")},
    "n_context_features": [C, C + 1, 0, -1],
    "n_components": [2, 3, 0, "many"],
}

batches = st.tuples(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 7, 20]),
    *map(st.sampled_from, (X_KINDS, Y_KINDS, WEIGHTS, GROUPS)),
)
calls = st.one_of(
    st.tuples(st.just("fit"), batches),
    st.tuples(st.just("partial_fit"), batches),
    st.tuples(st.just("partial_fit"), batches),
    st.tuples(st.sampled_from(["clone", "save", "load", "pickle"])),
    st.tuples(st.just("set"), st.sampled_from(sorted(PARAMETERS)), st.integers(0, 4)),
)


def batch(seed: int, n: int, x: str, label: str, weight: str, group: str) -> dict:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, C + D + (x == "wider")))
    y = rng.integers(0, 2, n)
    ids = np.empty(n, dtype=object)
    ids[:] = [IDS[i] for i in rng.integers(0, len(IDS), n)]
    if x == "NaN":
        X[0, 0] = np.nan
    X[:, C if x == "no difference" else 0 :] *= {"no difference": 0.0, "all zero": 0.0, "too large": 1e150}.get(x, 1.0)
    labels = {"none": None, "words": np.where(y, "yes", "no"), "one label": y * 0, "short": y[:-1]}
    weights = {
        "none": None,
        "plain": rng.random(n) + 0.1,
        "one zero": np.where(np.arange(n) == 0, 0.0, 1.0),
        "all zero": np.zeros(n),
        "negative": -np.ones(n),
        "too large": np.full(n, 1e300),
        "too small": np.full(n, 1e-320),
    }
    groups = {"ids": ids, "none": None, "all None": np.full(n, None), "booleans": [True] * n, "long": ["a"] * (n + 1)}
    if x == "no rows":
        X, y, ids = X[:0], y[:0], ids[:0]
    return {"X": X, "y": labels.get(label, y), "sample_weight": weights[weight], "groups": groups[group]}


def answers(model) -> np.ndarray | None:
    """Of no user and of some; None before a fit."""
    X = ASKED[:, : getattr(model, "n_features_in_", C + D)]
    try:
        found = [model.decision_function(X)]
        if "groups" in inspect.signature(model.decision_function).parameters:
            found.append(model.decision_function(X, groups=WHO))
    except NotFittedError:
        return None
    assert np.isfinite(found).all()
    return np.array(found)


def same(found, expected, atol: float = 0.0) -> None:
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol * (1 + np.abs(expected).max()))


def call(model, what: tuple, folder):
    """The model after a call; it has to be as it was where the call is refused."""
    name, before, attributes = what[0], answers(model), dict(vars(model))
    if name in ("fit", "partial_fit"):
        try:
            assert getattr(model, name)(**batch(*what[1])) is model
        except (ValueError, TypeError):
            same(answers(model), before)
            assert vars(model).keys() == attributes.keys()
            assert all(vars(model)[each] is value for each, value in attributes.items())
    elif name == "set" and what[1] in model.get_params(deep=False):
        values = PARAMETERS[what[1]]
        model.set_params(**{what[1]: values[what[2] % len(values)]})
        same(answers(model), before)
    elif name == "clone":
        assert answers(clone(model)) is None or "given" in str(type(model))
    elif name == "pickle":
        model = pickle.loads(pickle.dumps(model))
        same(answers(model), before)
    elif name in ("save", "load") and before is not None:
        save(model, folder)
        loaded = load(folder)
        same(answers(loaded), before, atol=1e-9)
        return loaded if name == "load" else model
    return model


def run(name: str, sequence: list[tuple], folder) -> None:
    model = clone(ESTIMATORS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        for what in sequence:
            model = call(model, what, folder)
        answers(model)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_calls_in_any_order(name, tmp_path):
    @settings(max_examples=N_SEQUENCES["every run"])
    @given(st.lists(calls, min_size=2, max_size=8))
    def check(sequence):
        run(name, sequence, tmp_path)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_many_calls_in_any_order(name, tmp_path):
    @settings(max_examples=N_SEQUENCES["slow"])
    @given(st.lists(calls, min_size=2, max_size=12))
    def check(sequence):
        run(name, sequence, tmp_path)

    check()
