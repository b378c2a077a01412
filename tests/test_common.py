"""micropref among scikit-learn's own tools: its estimator checks, pipelines, searches, clones, pickles and displays."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr
from sklearn_checks import assert_checks_pass

import micropref._users.nearest
from micropref.embed import PairEncoder
from micropref.features import ContextInteractions
from micropref.hierarchical import HierarchicalBradleyTerry
from micropref.metrics import grouped_log_likelihood
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import PairScaler, make_pairs
from micropref.router import ContextRouter

CLASSIFIERS = [
    MixtureBradleyTerry(2, n_init=1),
    MixtureBradleyTerry(n_components=1),
    ContextRouter(MixtureBradleyTerry(2, n_init=1), prefit=False),
    HierarchicalBradleyTerry(1, rank=0, tau=1.0, alpha=0.01),
    HierarchicalBradleyTerry(n_init=1),
]


def heads(n_components: int = 2, **parameters) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(n_components, **({"n_init": 2, "random_state": 0} | parameters))


@pytest.fixture(scope="module")
def world():
    """Two opposed tastes, announced by the first two columns; annotators answer four pairs each."""
    rng = np.random.default_rng(0)
    D = rng.normal(size=(400, 3))
    annotator = np.arange(400) // 4
    kind = annotator % 2
    y = (rng.random(400) < 1 / (1 + np.exp(-3 * np.where(kind, 1, -1) * D[:, 0]))).astype(int)
    return make_pairs(D, 0 * D, context=np.eye(2)[kind] * 3), y, annotator


# ---------------------------------------------------------------------------------------------- scikit-learn's checks


# The count that a skipped or a no longer collected check would lower. Most of them want numbers in, not texts.
@pytest.mark.filterwarnings("ignore:Can't test estimator PairEncoder:sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    ("estimator", "at_least"),
    [
        *((classifier, 55) for classifier in CLASSIFIERS),
        *((transformer, 50) for transformer in (PairScaler(), ContextInteractions(1, width=1))),
        (PairEncoder(), 1),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else str(value),
)
def test_scikit_learn_checks(estimator, at_least):
    assert_checks_pass(estimator, at_least)


# -------------------------------------------------------------------------------------- pipelines and cross-validation


def test_two_stages_in_a_pipeline(world):
    X, y, annotator = world
    pipeline = make_pipeline(
        PairScaler(n_context_features=2), ContextRouter(heads(), n_context_features=2, prefit=False, random_state=0)
    )
    pipeline.fit(X[:300], y[:300], contextrouter__groups=annotator[:300])
    assert pipeline.score(X[300:], y[300:]) > 0.75
    assert pipeline.predict_proba(X[300:]).shape == (100, 2)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_cross_val_predict_predicts_every_row_from_the_others(world, method):
    X, y, annotator = world
    model = ContextRouter(heads(), n_context_features=2, prefit=False)
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_val_predict(
            clone(model).set_fit_request(groups=True),
            X,
            y,
            cv=GroupKFold(3),
            method=method,
            params={"groups": annotator},
        )
    train, test = next(GroupKFold(3).split(X, y, annotator))
    by_hand = clone(model).fit(X[train], y[train], groups=annotator[train])
    np.testing.assert_allclose(found[test], getattr(by_hand, method)(X[test]), rtol=1e-10)
    first = found[:, 1] > 0.5 if method == "predict_proba" else found > 0
    assert (first == y).mean() > 0.75


def test_router_over_a_frozen_mixture_survives_cloning_and_cross_validation(world):
    X, y, annotator = world
    mixture = heads().fit(X[:, 2:], y, groups=annotator)
    router = ContextRouter(FrozenEstimator(mixture)).fit(X[:40], y[:40])
    again = clone(router).fit(X[:40], y[:40])
    np.testing.assert_array_equal(again.predict_proba(X), router.predict_proba(X))
    plain = ContextRouter(mixture).fit(X[:40], y[:40])
    np.testing.assert_array_equal(plain.predict_proba(X), router.predict_proba(X))
    result = cross_validate(router, X, y, cv=3, return_estimator=True, error_score="raise")
    assert result["test_score"].min() > 0.7
    for fitted in result["estimator"]:
        np.testing.assert_array_equal(fitted.mixture_.coef_, mixture.coef_)
        assert not np.shares_memory(fitted.mixture_.coef_, mixture.coef_)


def test_router_over_a_frozen_mixture_need_not_know_that_it_is_frozen(world):
    X, y, annotator = world
    mixture = heads(random_state=None).fit(X[:, 2:], y, groups=annotator)
    frozen = ContextRouter(FrozenEstimator(mixture), n_context_features=2, prefit=False).fit(X[:40], y[:40])
    np.testing.assert_array_equal(frozen.predict_proba(X), ContextRouter(mixture).fit(X[:40], y[:40]).predict_proba(X))


def test_router_over_a_mixture_that_lost_its_fit_says_what_to_do(world):
    X, y, annotator = world
    router = ContextRouter(heads().fit(X[:, 2:], y, groups=annotator))
    for action in (
        lambda: clone(router).fit(X, y),
        lambda: clone(router).partial_fit(X, y),
        lambda: cross_val_score(router, X, y, error_score="raise"),
    ):
        with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
            action()
    with pytest.raises(NotFittedError, match=r"FrozenEstimator.*prefit=False"):
        ContextRouter(FrozenEstimator(heads())).fit(X, y)


@pytest.mark.parametrize("scale", [False, True])
def test_search_over_annotators_held_out_finds_the_number_of_tastes(scale):
    rng = np.random.default_rng(0)
    D = 1.5 * rng.normal(size=(1200, 4))
    annotator = np.arange(1200) // 6
    taste = 3 * np.vstack([np.eye(4)[:2], -np.eye(4)[:2]])[annotator % 4]
    y = (rng.random(1200) < 1 / (1 + np.exp(-np.einsum("nd,nd->n", D, taste)))).astype(int)
    with sklearn.config_context(enable_metadata_routing=True):
        model = heads(alpha=1e-2).set_fit_request(groups=True)
        search = GridSearchCV(
            make_pipeline(PairScaler(), model) if scale else model,
            {"mixturebradleyterry__n_components" if scale else "n_components": [1, 2, 4]},
            scoring=grouped_log_likelihood.set_score_request(groups=True),
            cv=GroupKFold(3),
            error_score="raise",
        ).fit(D, y, groups=annotator)
    means = search.cv_results_["mean_test_score"]
    assert list(search.best_params_.values()) == [4]
    assert means[2] > means[1] + 0.02
    assert means[1] > means[0] + 0.02
    final = search.best_estimator_[-1] if scale else search.best_estimator_
    assert final.coef_.shape == (4, 4)
    # Fitted to all rows with annotators: without them, pairs on which the tastes are evenly split tell nothing.
    X = search.best_estimator_[0].transform(D) if scale else D
    with sklearn.config_context(enable_metadata_routing=True):
        score = search.score(D, y, groups=annotator)
    assert score == final.log_likelihood(X, y, groups=annotator)


@pytest.mark.data
def test_search_finds_four_criteria_in_text():
    folder = Path(os.environ["MICROPREF_DATA"]) / "dsp"
    with gzip.open(folder / "texts.jsonl.gz", "rt", encoding="utf-8") as lines:
        position = {json.loads(line): row for row, line in enumerate(lines)}
    with gzip.open(folder / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    vectors = np.load(folder / "embeddings.npy").astype(np.float32)
    chosen, rejected = (vectors[[position[pair[key]] for pair in pairs]] for key in ("chosen", "rejected"))
    criterion = np.array([pair["context"] for pair in pairs])
    rng = np.random.default_rng(0)
    flip = rng.random(len(pairs)) < 0.5
    X = make_pairs(np.where(flip[:, None], rejected, chosen), np.where(flip[:, None], chosen, rejected))
    y = (~flip).astype(int)
    annotator = np.empty(len(pairs), dtype=int)
    for number, name in enumerate(np.unique(criterion)):
        rows = rng.permutation(np.flatnonzero(criterion == name))
        annotator[rows] = 10_000 * number + np.arange(len(rows)) // 5
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make_pipeline(PairScaler(), heads().set_fit_request(groups=True)),
            {"mixturebradleyterry__n_components": [1, 2, 4]},
            scoring=grouped_log_likelihood.set_score_request(groups=True),
            cv=GroupKFold(3),
            error_score="raise",
        ).fit(X, y, groups=annotator)
    folds = np.stack([search.cv_results_[f"split{i}_test_score"] for i in range(3)])
    assert search.best_params_ == {"mixturebradleyterry__n_components": 4}
    assert (np.diff(folds, axis=1) > 0).all()  # in every fold, not only in the mean


# -------------------------------------------------------------------------------------------- clones, pickles, displays


def test_clone_takes_parameters_and_nothing_else(world):
    X, y, annotator = world
    for model in (heads(balance=0.1), ContextRouter(heads(), n_context_features=2, prefit=False, temperature=0.5)):
        copy = clone(clone(model).fit(X, y, groups=annotator))
        assert repr(copy) == repr(model)
        assert not [name for name in vars(copy) if name.endswith("_")]


def _same_before_and_after_pickling(model, X, **arguments):
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X, **arguments), model.predict_proba(X, **arguments))
    return copy


def test_pickled_mixture_goes_on_with_its_stream(world):
    X, y, annotator = world
    model = heads().partial_fit(X[:200, 2:], y[:200], groups=annotator[:200])
    copy = _same_before_and_after_pickling(model, X[:, 2:])
    for each in (model, copy):
        each.partial_fit(X[100:, 2:], y[100:], groups=annotator[100:])
    np.testing.assert_array_equal(copy.coef_, model.coef_)


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn", "knn with faiss"])
def test_pickled_router_knows_its_users_and_goes_on_learning(world, gate, monkeypatch):
    X, y, annotator = world
    if gate == "knn with faiss":
        monkeypatch.setattr(micropref._users.nearest, "_FAISS_ROWS", 1)
    mixture = heads().fit(X[:, 2:], y, groups=annotator)
    router = ContextRouter(mixture, gate=gate.split()[0], random_state=0).fit(X[:40], y[:40])
    users = np.where(np.arange(60) % 2, "ann", "bob").tolist()
    router.partial_fit(X[40:100], y[40:100], groups=users)
    copy = _same_before_and_after_pickling(router, X[100:160], groups=users)
    assert len(copy.history_) == 2
    if gate == "knn with faiss":
        assert copy._context_gate.pairs._points._index.ntotal == 2  # contexts
    for each in (router, copy):
        each.partial_fit(X[200:210], y[200:210]).partial_fit(X[210:220], y[210:220], groups=["ann"] * 10)
    _same_before_and_after_pickling(copy, X)
    np.testing.assert_array_equal(copy.predict_proba(X), router.predict_proba(X))
    np.testing.assert_array_equal(copy.predict_proba(X[:60], groups=users), router.predict_proba(X[:60], groups=users))


def test_html_shows_the_router_and_its_heads(world):
    X, y, annotator = world
    html = estimator_html_repr(make_pipeline(PairScaler(2), ContextRouter(heads(), prefit=False)))
    for name in ("PairScaler", "ContextRouter", "MixtureBradleyTerry"):
        assert name in html
    assert "Not fitted" in html
    fitted = ContextRouter(heads().fit(X[:, 2:], y, groups=annotator)).fit(X[:40], y[:40])
    assert "<span>Fitted</span>" in estimator_html_repr(fitted)


def test_scaler_gives_a_data_frame_with_the_names_it_was_given(world):
    import pandas

    X = pandas.DataFrame(world[0], columns=["x", "y", "a", "b", "c"])
    scaler = PairScaler(n_context_features=2).set_output(transform="pandas").fit(X)
    frame = scaler.transform(X)
    assert list(frame.columns) == ["x", "y", "a", "b", "c"]
    np.testing.assert_array_equal(frame.to_numpy(), PairScaler(n_context_features=2).fit_transform(world[0]))


def test_estimators_fitted_with_names_want_the_same_names(world):
    import pandas

    X, y, _ = world
    frame = pandas.DataFrame(X, columns=["x", "y", "a", "b", "c"])
    model = ContextRouter(heads(), n_context_features=2, prefit=False).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(
        model.predict(frame), ContextRouter(heads(), n_context_features=2, prefit=False).fit(X, y).predict(X)
    )
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"x": "z"}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


# -------------------------------------------------------------------------------------------------------------- import

_IMPORT = """
import json, os, random, sys, warnings, logging
import numpy as np
def state():
    return [
        sorted(os.environ.items()), [str(f) for f in warnings.filters], repr(np.geterr()), repr(np.get_printoptions()),
        random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), logging.getLogger().level,
        len(logging.getLogger().handlers), sys.getrecursionlimit(),
    ]
before = json.dumps(state())
import micropref
assert json.dumps(state()) == before, "something global was set"
free = sorted(name for name in sys.modules if "." not in name)
assert micropref.__version__ and "ContextRouter" in dir(micropref)
import scipy.optimize, sklearn.metrics  # these two set warning filters of their own
before = json.dumps([state(), sklearn.get_config()])
theirs = set(sys.modules)  # scikit-learn imports pandas where it finds it
micropref.ContextRouter, micropref.MixtureBradleyTerry, micropref.PairScaler
assert json.dumps([state(), sklearn.get_config()]) == before, "something global was set"
print(json.dumps([free, sorted({name.split(".")[0] for name in set(sys.modules) - theirs})]))
"""
_HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "faiss",
    "pandas",
    "pyarrow",
    "datasets",
    "matplotlib",
    "typer",
}


def test_import_is_free_and_sets_nothing():
    output = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, timeout=120, check=False)
    assert output.returncode == 0, output.stderr
    after_import, after_use = (set(names) for names in json.loads(output.stdout))
    assert "micropref" in after_import
    assert not after_import & (_HEAVY | {"sklearn", "scipy", "rich", "safetensors"})
    assert "micropref" in after_use
    assert not after_use & _HEAVY


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'micropref' has no attribute 'Mixture'"):
        micropref.Mixture  # noqa: B018
