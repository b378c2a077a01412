"""What happens to a rival's state: threads, refusals, parameters set between calls, read-only arrays."""

from __future__ import annotations

import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache

import joblib
import numpy as np
import pytest
from baseline_cases import RIVALS, C, D, each, ratings_for, rows
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator

from micropref import MixtureBradleyTerry, baselines, load, save
from micropref.baselines import HypothesisReweighting
from micropref.baselines._base import PersonalRewards, known_users

# Another value for every parameter, which is as good as that of `rivals`.
OTHER = {
    "n_context_features": 1,
    "n_components": 4,
    "n_atoms": 3,
    "n_neighbors": 5,
    "rank": 2,
    "largest": 3.0,
    "alpha": 0.5,
    "user_alpha": 0.03,
    "local_alpha": 0.03,
    "variance_alpha": 0.5,
    "score_alpha": 0.5,
    "user_precision": 0.03,
    "gate_alpha": 0.5,
    "pooling": 30.0,
    "weight_penalty": 0.05,
    "prior_margin": 0.1,
    "margin": 0.1,
    "temperature": 0.05,
    "max_iter": 7,
    "tol": 1e-2,
    "n_init": 3,
    "random_state": 5,
    "init": "svd",
    "refine": False,
    "user_prior": "none",
    "basis": "random",
    "center": False,
    "average": "probabilities",
    "prefit": False,
    "heads": "random",
}
EVERY_PARAMETER = [(name, parameter) for name, rival in RIVALS.items() for parameter in rival.get_params(deep=False)]


def other(name: str, parameter: str) -> object:
    """Another value of a parameter of a rival."""
    if name == "RewardFactorization, refined" and parameter in ("init", "user_prior"):
        return {"init": "votes", "user_prior": "population"}[parameter]
    if parameter == "prior":
        return "heads" if name == "HypothesisReweighting" else "uniform"
    return OTHER[parameter]


@cache
def _taught(name: str) -> tuple[type[PersonalRewards], bytes]:
    X, y, annotator = rows()
    model = clone(RIVALS[name]).fit(X, y, groups=annotator)
    users = np.array(["ann", "bob", 3, None] * 6, dtype=object)
    model.partial_fit(X[:24], 1 - y[:24], groups=users)
    return type(model), pickle.dumps(model.__getstate__())


def taught(name: str) -> PersonalRewards:
    """Fitted, with votes of known and new users and of the population; nothing was asked yet."""
    kind, state = _taught(name)
    model = kind.__new__(kind)
    model.__setstate__(pickle.loads(state))
    return model


def answers(model: PersonalRewards) -> dict[str, np.ndarray]:
    """What every public method of prediction says, for the population and for users."""
    X, y, _ = rows(30, seed=1)
    users = np.array(["ann", "bob", "unknown", 3, 0, None] * 5, dtype=object)
    found = {}
    for who in (None, users):
        for method in ("decision_function", "predict_proba", "predict", "mixture_weights", "utility_mean"):
            if hasattr(model, method):
                found[method, who is None] = getattr(model, method)(X, groups=who)
        for method in ("score", "log_likelihood"):
            found[method, who is None] = np.array(getattr(model, method)(X, y, groups=who))
        if hasattr(model, "utility_variance"):
            found["utility_variance", who is None] = model.utility_variance(X, groups=who)
            found["hidden_context_share", who is None] = np.array(model.hidden_context_share(X, groups=who))
        if hasattr(model, "rewards"):
            # The width in force, which is that of the fit, whatever was set since.
            width = getattr(model, "_fitted_parameters", {}).get("n_context_features", C)
            found["rewards", who is None] = model.rewards(X[:, width:], X[:, :width], groups=who)
    if hasattr(model, "predict_scores"):
        width = getattr(model, "_fitted_parameters", {}).get("n_context_features", C)
        found["predict_scores", True] = model.predict_scores(X[:, width:])
    if hasattr(model, "query_scores"):
        for who in (None, users):
            found["query_scores", who is None] = model.query_scores(X, groups=who)
        found["suggest", True] = model.suggest(X, 3, "ann")
    if hasattr(model, "component_scores"):
        found["component_scores", True] = model.component_scores(X)
    return found


@cache
def first_answers(name: str) -> dict[str, np.ndarray]:
    return answers(taught(name))


PREDICTS = {
    *("decision_function", "predict_proba", "predict", "score", "log_likelihood", "rewards"),
    *("mixture_weights", "component_scores", "utility_mean", "utility_variance", "hidden_context_share"),
    *("query_scores", "suggest", "predict_scores"),
}
LEARNS = {"fit", "partial_fit"}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for method, value in expected.items():
        np.testing.assert_allclose(found[method], value, rtol=0, atol=atol, err_msg=str(method))


def apart(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(found[m] - expected[m]).max()) for m in expected if found[m].dtype.kind == "f")


def test_every_rival_and_every_method_is_tried():
    assert {name.partition(",")[0] for name in RIVALS} == set(baselines.__all__)
    assert {parameter for _, parameter in EVERY_PARAMETER} == {*OTHER, "prior"}
    tried = {method for name in RIVALS for method, _ in answers(taught(name))}
    assert tried == PREDICTS
    of_scikit_learn = {"get_params", "set_params", "get_metadata_routing"}
    for rival in RIVALS.values():
        public = {m for m in dir(rival) if not m.startswith("_") and callable(getattr(rival, m))}
        requests = {m for m in public if m.startswith("set_") and m.endswith("_request")}
        assert public - requests - of_scikit_learn - LEARNS <= PREDICTS, rival


# ------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(("name", "parameter"), EVERY_PARAMETER)
def test_parameters_set_after_fit_change_no_prediction(name, parameter):
    expected = first_answers(name)
    model = taught(name)
    assert model.get_params(deep=False)[parameter] != other(name, parameter)
    model.set_params(**{parameter: other(name, parameter)})
    same(answers(model), expected)
    same(answers(pickle.loads(pickle.dumps(model))), expected)
    same(answers(deepcopy(model)), expected)


@pytest.mark.parametrize(("name", "parameter"), EVERY_PARAMETER)
def test_parameters_set_before_partial_fit_are_refused_or_do_not_depend_on_what_was_asked(name, parameter):
    X, y, _ = rows(seed=2)
    asked, unasked = taught(name), taught(name)
    before = answers(asked)
    for model in (asked, unasked):
        model.set_params(**{parameter: other(name, parameter)})
    votes = {"X": X[:8], "y": y[:8], "groups": ["new"] * 8}
    if parameter in asked._SHAPE:
        with pytest.raises(ValueError, match=rf"(?s)expected {parameter}=.*as in the first call, got {parameter}="):
            asked.partial_fit(**votes)
        same(answers(asked), before)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer iterations
        asked.partial_fit(**votes)
        unasked.partial_fit(**votes)
        after = answers(asked)
        # What `fit` itself found for an annotator is the same only to the precision of its solver.
        same(after, answers(unasked), atol=1e-9)
    if parameter in asked._ADAPTS_BY and parameter not in ("alpha", "max_iter", "tol"):
        assert apart(after, before) > 1e-3
    elif parameter not in ("alpha", "max_iter", "tol", "average"):
        same(after, before)


# --------------------------------------------------------------------------------------------------------- refusals

NAN = np.full((3, C + D), np.nan)
BAD = {
    "X with NaN": ({"X": NAN}, "NaN"),
    "X too large": ({"X": np.full((3, C + D), 1e150)}, "expected .* with a root mean square norm"),
    "X too small": ({"X": np.full((3, C + D), 1e-150)}, "expected .* with a root mean square norm"),
    "labels": ({"y": [0, 1, 2]}, "label|class"),
    "length of y": ({"y": [0, 1]}, "length|inconsistent|y has|rows|expected"),
    "names that say who won": ({"y": ["model_a", "model_b", "model_a"]}, "model_a"),
    "negative weight": ({"sample_weight": [1, -1, 1]}, "negative"),
    "huge weight": ({"sample_weight": [1, 1e300, 1]}, "expected weights"),
    "NaN weight": ({"sample_weight": [1, np.nan, 1]}, "NaN"),
    "groups": ({"groups": [True, False, True]}, "got True"),
    "length of groups": ({"groups": ["a"]}, "inconsistent numbers of samples"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("bad", [*BAD, "parameter", "fails half-way"])
@each
def test_a_refused_call_leaves_a_rival_as_it_was(name, bad, method, monkeypatch):
    X, y, _ = rows(3, seed=3)
    good = {"X": X, "y": y, "sample_weight": np.ones(3), "groups": ["ann", "new", None]}
    model = taught(name)
    before, users = answers(model), known_users(model)
    attributes = dict(vars(model))
    change, message = BAD.get(bad, ({}, "n_context_features|broken"))
    if bad == "parameter":
        model.set_params(n_context_features=-1)
        attributes["n_context_features"] = -1
    if bad == "fails half-way":

        def broken(*_args):
            raise ValueError("broken")

        # After all else was learned, or after the votes of the first user.
        monkeypatch.setattr(type(model), "_keep", broken)
        monkeypatch.setattr(type(model), "_know", broken)
        monkeypatch.setattr(type(model), "_forget", broken)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(model, method)(**(good | change))
    monkeypatch.undo()
    assert vars(model).keys() == attributes.keys()
    assert all(vars(model)[attribute] is value for attribute, value in attributes.items())
    assert known_users(model) == users
    same(answers(model), before)


@each
def test_another_width_is_refused_by_partial_fit_alone(name):
    X, y, _ = rows(width=D + 1)
    model = taught(name)
    before = answers(model)
    with pytest.raises(ValueError, match=r"X has 7 features, but \w+ is expecting 6 features"):
        model.partial_fit(X, y, groups=["ann"] * len(X))
    same(answers(model), before)
    if "given" not in name:
        assert model.fit(X, y).n_features_in_ == C + D + 1


# ---------------------------------------------------------------------------------------------------------- threads


@each
def test_votes_of_four_threads_are_all_counted(name):
    X, y, _ = rows(1000, seed=4)
    model = taught(name)

    def vote(thread: int) -> None:
        for row in range(thread, 1000, 4):
            model.partial_fit(X[row : row + 1], y[row : row + 1], groups=["voter"])

    before = known_users(model)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(vote, range(4)))
    assert known_users(model) == [*before, "voter"]
    assert len(model._votes_of["voter"]) == 1000
    # All of them, once each.
    expected = taught(name)
    expected.partial_fit(X, y, groups=["voter"] * 1000)
    found, wanted = (np.sort(one._votes_of["voter"].values, axis=0) for one in (model, expected))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@each
def test_predictions_beside_votes_are_those_of_a_moment(name):
    """Whatever threads asked meanwhile, at the end all votes decide."""
    X, y, _ = rows(40, seed=5)
    model, alone = taught(name), taught(name)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            odds = model.decision_function(X[:4], groups=["ann", "bob", 0, None])
            assert np.isfinite(odds).all()
            pickle.dumps(model)

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask) for _ in range(3)]
        for row in range(40):
            groups = [["ann"], ["bob"], [None]][row % 3]
            model.partial_fit(X[row : row + 1], y[row : row + 1], groups=groups)
        stop.set()
        for one in asking:
            one.result()
    for row in range(40):
        groups = [["ann"], ["bob"], [None]][row % 3]
        alone.partial_fit(X[row : row + 1], y[row : row + 1], groups=groups)
    same(answers(model), answers(alone), atol=1e-9)


@pytest.mark.parametrize("voter", ["ann", None])
@each
def test_what_an_old_prediction_computes_answers_for_no_new_vote(name, voter, monkeypatch):
    """A prediction computes from old votes, waits, and goes on once new votes are in."""
    X, y, _ = rows(24, seed=6)
    model, expected = taught(name), taught(name)
    expected.partial_fit(X, y, groups=[voter] * 24)
    computing, voted = threading.Event(), threading.Event()
    adapt = type(model)._adapt

    def slow(self, votes, start):
        numbers = adapt(self, votes, start)
        if threading.current_thread() is not threading.main_thread():
            computing.set()
            assert voted.wait(30)
        return numbers

    monkeypatch.setattr(type(model), "_adapt", slow)
    old = answers(expected)  # made without waiting: in the main thread
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(model.decision_function, X, ["ann"] * 24)
        assert computing.wait(30)
        model.partial_fit(X, y, groups=[voter] * 24)
        voted.set()
        before = asking.result()
    same(answers(model), old)
    np.testing.assert_array_equal(before, taught(name).decision_function(X, ["ann"] * 24))


@each
def test_what_is_computed_while_votes_are_taken_in_answers_for_no_new_vote(name, monkeypatch):
    """A prediction in the middle of `partial_fit` sees the state of before, and leaves nothing behind."""
    X, y, _ = rows(24, seed=6)
    model, expected = taught(name), taught(name)
    expected.partial_fit(X, y, groups=["ann"] * 24)
    know = PersonalRewards._know
    seen = []

    def asked_meanwhile(self, user, votes):
        seen.append(model.decision_function(X, ["ann"] * 24))
        know(self, user, votes)
        seen.append(model.decision_function(X, ["ann"] * 24))

    monkeypatch.setattr(PersonalRewards, "_know", asked_meanwhile)
    model.partial_fit(X, y, groups=["ann"] * 24)
    monkeypatch.undo()
    before = taught(name).decision_function(X, ["ann"] * 24)
    for odds in seen:
        np.testing.assert_array_equal(odds, before)
    same(answers(model), answers(expected))


def test_numbers_are_kept_for_just_the_votes_and_parameters_that_they_come_from():
    model = taught("UserRewards")
    answers(model)
    kept = model._adaptations
    ann = kept["ann"]
    assert model._adaptation("ann") is ann  # computed once
    assert ann.votes is model._votes_of["ann"]
    assert ann.start is kept[None]
    # However they came there, numbers of other votes, of another start or of other parameters are no answer.
    model._votes_of = {**model._votes_of, "ann": model._votes_of["bob"]}
    assert model._adaptation("ann") is not ann
    np.testing.assert_array_equal(model._describe("ann"), model._describe("bob"))
    bob = kept["bob"]
    model._votes_of_all = model._votes_of["ann"]
    assert model._adaptation(None) is not ann.start
    assert model._adaptation("bob") is not bob
    bob = model._adaptation("bob")
    model.user_alpha = 0.5
    assert model._adaptation("bob") is not bob


def test_what_is_asked_while_a_rival_is_pickled_does_not_disturb():
    model = taught("UserRewards")
    answers(model)

    class Asks:
        """Adds to what is kept, in the middle of its own pickling."""

        def __reduce__(self):
            model._adaptations["later"] = model._adaptations["ann"]
            return int, ()

    model._adaptations["now"] = Asks()
    assert {"ann", "now"} <= pickle.loads(pickle.dumps(model))._adaptations.keys()
    assert "later" in model._adaptations


# ---------------------------------------------------------------------------------------------------- saved, mapped


@each
def test_votes_after_arrays_were_mapped_read_only(name, tmp_path):
    """joblib maps arrays beyond 1 MB to files, in its workers too."""
    X, y, annotator = rows(700, width=220)
    method = clone(RIVALS[name])
    method.set_params(**{p: v for p, v in {"tol": 1e-2, "max_iter": 500}.items() if p in method.get_params()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if "given" in name:
            heads = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(X[:, C:], y)
            method.set_params(heads=FrozenEstimator(heads))
        model = method.fit(X, y, groups=annotator).partial_fit(X[:40], y[:40])
        model.partial_fit(X[:600], y[:600], groups=["ann"] * 600)
        ask = {"X": X[:9], "groups": ["ann", 3, None] * 3}
        before = model.decision_function(**ask)
        joblib.dump(model, tmp_path / "model")
        mapped = joblib.load(tmp_path / "model", mmap_mode="r")
        if name in ("UserRewards", "GroupRewards", "ContextNeighbors", "MeanVarianceRewards"):
            assert isinstance(mapped._votes_of["ann"].values, np.memmap)
            assert not mapped._votes_of["ann"].values.flags.writeable
        np.testing.assert_allclose(mapped.decision_function(**ask), before, atol=1e-9)
        for one in (model, mapped):
            one.partial_fit(X[:6], 1 - y[:6], groups=["ann", "ann", "new", 3, None, 4])
        ask["groups"] = ["ann", "new", 4] * 3
        np.testing.assert_allclose(mapped.decision_function(**ask), model.decision_function(**ask), atol=1e-9)
        needed = {"ratings": ratings_for(220)} if name == "MultiObjectiveRewards" else {}
        mapped.fit(X[:90], y[:90], groups=annotator[:90], **needed)


def test_heads_of_a_rival_are_copied_with_all_that_prediction_reads(tmp_path):
    """And its later votes and fits change nothing."""
    X, y, annotator = rows()
    for name in ("SharedBaseEnsemble", "DecomposedRewards", "LowRankRewards", "HypothesisReweighting"):
        heads = taught(name).set_params(n_context_features=C)
        model = HypothesisReweighting(heads, n_context_features=C).fit(X, y)
        expected = heads.decision_function(X, groups=annotator)
        np.testing.assert_array_equal(model.heads_.decision_function(X, groups=annotator), expected)
        heads.partial_fit(X[:9], 1 - y[:9]).fit(X[:40], 1 - y[:40])
        np.testing.assert_array_equal(model.heads_.decision_function(X, groups=annotator), expected)
        save(model, tmp_path / name)
        np.testing.assert_array_equal(load(tmp_path / name).decision_function(X), model.decision_function(X))
