"""Learning is a transaction and prediction reads what was fitted: rules over all estimators of pairs.

Every rule is asked of every estimator, so that none can be forgotten.
"""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, PairEncoder, PairScaler
from micropref._users.stream import Stream
from micropref.heads import audit_heads, mask_heads, merge_heads
from micropref.persistence import load, save
from micropref.theory import estimate_irreducible_error
from micropref.theory._bounds import bounds_of_fit

N, C, D = 80, 2, 3
GROUPS = np.arange(N) // 4


def world(seed=0, n=N):
    rng = np.random.default_rng(seed)
    difference = rng.normal(size=(n, D))
    kind = np.arange(n) // 4 % 2
    y = (difference[:, 0] * np.where(kind, -3, 3) + 0.3 * rng.normal(size=n) > 0).astype(int)
    return np.hstack([np.eye(C)[kind] + 0.1 * rng.normal(size=(n, C)), difference]), y


X, Y = world()
X2, Y2 = world(1)
SMALL = {"n_init": 1, "hidden_units": 3, "random_state": 0}
ROWS = [{"prompt": f"say {i}", "response_a": f"yes {i}", "response_b": f"no {i * i}", "label": "a"} for i in range(8)]


def mixture(**parameters):
    return MixtureBradleyTerry(2, **{"n_context_features": C, **SMALL, **parameters})


def heads(seed=0, **parameters):
    return MixtureBradleyTerry(2, **{**SMALL, "random_state": seed, **parameters}).fit(X[:, C:], Y, groups=GROUPS)


def router(mixture=None, **parameters):
    settings = {"hidden_units": 3, "random_state": 0, "n_neighbors": 5, **parameters}
    return ContextRouter(heads() if mixture is None else mixture, **settings)


def around_heads():
    model = HierarchicalBradleyTerry(2, rank=0, tau=0.5, alpha=0.01, max_iter=1000, random_state=0)
    return model.fit(X[:, C:], Y, groups=GROUPS)


CREATE = {
    "mixture": mixture,
    "mixture, mlp": lambda: mixture(gate="mlp"),
    "router": router,
    "router, mlp": lambda: router(gate="mlp"),
    "router, knn": lambda: router(gate="knn"),
    "router, users around heads": lambda: router(around_heads()),
    "router, frozen": lambda: router(FrozenEstimator(heads())),
    "router, not prefit": lambda: router(MixtureBradleyTerry(2, **SMALL), prefit=False, n_context_features=C),
    "scaler": lambda: PairScaler(C),
    "encoder": lambda: PairEncoder(context=("prompt",), norms={"prompt": 1.0}),
}
LEARNERS = [name for name in CREATE if "mixture" in name or "router" in name]
STREAMED = ["fit", "partial_fit"]


def learn(model, rows=X, labels=Y, how="fit"):
    """Fitted, and in a stream also with votes of users."""
    if isinstance(model, PairEncoder):
        return model.fit(ROWS)
    if isinstance(model, PairScaler):
        return model.fit(rows)
    if how == "fit":
        return model.fit(rows, labels)
    return model.partial_fit(rows, labels).partial_fit(rows[:20], labels[:20], groups=GROUPS[:20])


def answers(model):
    """Everything that a user can ask of a fitted estimator, by name."""
    if isinstance(model, PairEncoder):
        return {
            "transform": model.transform(ROWS),
            "responses": model.encode_responses(["a"], ["b"]),
            "context": model.encode_context(["a"]),
            "texts": model.texts(ROWS),
            "names": model.get_feature_names_out().tolist(),
            "config": model.to_config(),
        }
    if isinstance(model, PairScaler):
        return {"transform": model.transform(X2), "scale": model.scale_.copy()}
    known = {"groups": GROUPS} if isinstance(model, ContextRouter) else {}
    found = {name: getattr(model, name)(X2, **known) for name in ("decision_function", "predict_proba", "predict")}
    found["mixture_weights"] = model.mixture_weights(X2, **known)
    found["score"] = model.score(X2, Y2), model.score(X2)
    found["log_likelihood"] = model.log_likelihood(X2, Y2, **known), model.log_likelihood(X2)
    if isinstance(model, ContextRouter):
        found["rewards"] = model.rewards(X2[:, C:], X2[:, :C], groups=GROUPS)
    else:
        found["rewards"] = model.rewards(X2[:, C:])
        found["component_scores"] = model.component_scores(X2)
        found["responsibilities"] = model.responsibilities(X2, Y2), model.responsibilities(X2, Y2, groups=GROUPS)
        found["context_log_weights"] = model.context_log_weights(X2[:, :C])
    return found


def state(model):
    """All attributes, as bytes, the parameters included: what pickle keeps. The table of annotators is part of it."""
    return {name: pickle.dumps(settled(value)) for name, value in vars(model).items()}


def settled(value):
    """A stream as it is when its next call begins, wherever it is kept."""
    if isinstance(value, MixtureBradleyTerry) and getattr(value, "_stream", None) is not None:
        value = copy.copy(value)
        value._stream = settled(value._stream)
    return copy.deepcopy(value).forked() if isinstance(value, Stream) else value


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict | list | str):
            assert value == other[name], name
            continue
        for part, of_other in zip(parts(value), parts(other[name]), strict=True):
            np.testing.assert_array_equal(part, of_other, err_msg=name)


def parts(value):
    return value if isinstance(value, tuple) else (value,)


# ------------------------------------------------------------------------------------------------ refused learning


def with_entry(value, row=5, column=1):
    rows = X.copy()
    rows[row, column] = value
    return rows


REFUSED = {
    "width": (X[:, :2], Y, {}),
    "wider": (np.hstack([X, X, X]), Y, {}),
    "nan": (with_entry(np.nan), Y, {}),
    "infinity": (with_entry(np.inf, column=-1), Y, {}),
    "too large": (with_entry(1e200, column=-1), Y, {}),
    "one dimension": (X[0], Y[:1], {}),
    "no rows": (X[:0], Y[:0], {}),
    "labels, length": (X, Y[:-1], {}),
    "labels, three": (X, np.arange(N) % 3, {}),
    "labels, tie": (X, np.where(np.arange(N) == 3, 0.5, Y), {}),
    "labels, names": (X, np.where(Y == 1, "model_a", "model_b"), {}),
    "weights, negative": (X, Y, {"sample_weight": -np.ones(N)}),
    "weights, nan": (X, Y, {"sample_weight": np.full(N, np.nan)}),
    "weights, zero": (X, Y, {"sample_weight": np.zeros(N)}),
    "weights, length": (X, Y, {"sample_weight": np.ones(N - 1)}),
    "groups, length": (X, Y, {"groups": GROUPS[:-1]}),
    "groups, booleans": (X, Y, {"groups": [True] * N}),
    "groups, halves": (X, Y, {"groups": np.full(N, 0.5)}),
}
BAD_PARAMETERS = {
    "mixture": {"n_components": 0, "alpha": -1.0, "gate": "none", "n_context_features": 9, "max_iter": 0},
    "router": {"temperature": 0.0, "history_decay": 2.0, "gate": "none", "alpha": np.nan, "solver": "none"},
    "scaler": {"context_norm": 0.0, "n_context_features": 9, "difference_norm": np.inf},
    "encoder": {"template": "none", "context": ("mood",), "norms": {"prompt": -1.0}, "encoder": 3},
}


@pytest.mark.parametrize("method", STREAMED)
@pytest.mark.parametrize("before", ["nothing", *STREAMED])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_refused_call_changes_nothing(name, before, method):
    model = CREATE[name]()
    if before != "nothing":
        learn(model, how=before)
    kept, known = state(model), None if before == "nothing" else answers(model)
    for kind, (rows, labels, arguments) in REFUSED.items():
        if kind == "wider" and (method == "fit" or before == "nothing"):
            continue  # as good as any
        with pytest.raises((ValueError, TypeError)):
            getattr(model, method)(rows, labels, **arguments)
        assert state(model) == kept, kind
    if known is not None:
        same(answers(model), known)
    else:
        with pytest.raises(NotFittedError):
            model.predict(X)


@pytest.mark.parametrize("name", CREATE)
@pytest.mark.parametrize("method", STREAMED)
def test_a_refused_parameter_changes_nothing_else(name, method):
    model = learn(CREATE[name]())
    if not hasattr(model, method):
        return
    known = answers(model)
    for parameter, value in BAD_PARAMETERS[name.split(",")[0]].items():
        good = model.get_params(deep=False)[parameter]
        model.set_params(**{parameter: value})
        kept = state(model)
        with pytest.raises((ValueError, TypeError), match=parameter if parameter != "encoder" else None):
            model.fit(ROWS) if name == "encoder" else getattr(model, method)(X, Y)
        assert state(model) == kept
        same(answers(model), known)
        model.set_params(**{parameter: good})


@pytest.mark.parametrize("name", ["scaler", "encoder"])
def test_a_transformer_that_refuses_changes_nothing(name):
    model = learn(CREATE[name]())
    kept, known = state(model), answers(model)
    bad = [[{"prompt": "x"}], [], 3] if name == "encoder" else [with_entry(np.nan), X[:, :2], X[:0], with_entry(1e200)]
    for rows in bad:
        with pytest.raises((ValueError, TypeError)):
            model.fit(rows)
        with pytest.raises((ValueError, TypeError)):
            model.fit_transform(rows)
        assert state(model) == kept
    same(answers(model), known)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("method", STREAMED)
def test_a_call_that_breaks_half_way_changes_nothing(name, method, monkeypatch):
    """Whatever is raised, and wherever: here where the last attributes would be set."""
    model = learn(CREATE[name](), how="partial_fit")
    kept, known = state(model), answers(model)

    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("micropref._estimator.fitting.keep_parameters", broken)
    if "router" in name:
        monkeypatch.setattr(ContextRouter, "_learn_votes", broken)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, method)(X2, Y2, groups=None if method == "fit" else GROUPS + 7)
    monkeypatch.undo()
    assert state(model) == kept
    same(answers(model), known)
    others = [learn(CREATE[name](), how="partial_fit"), model]
    for other in others:
        other.partial_fit(X2, Y2, groups=GROUPS)
    same(answers(others[0]), answers(others[1]))


# ------------------------------------------------------------------------------------------------------- parameters

OTHER_VALUES = {
    "n_components": 7, "n_context_features": 0, "alpha": 5.0, "gate_alpha": 9.0, "balance": 0.7, "gate": "mlp",
    "hidden_units": 11, "max_iter": 1, "tol": 0.5, "n_init": 9, "warm_start": True, "device": None, "random_state": 9,
    "verbose": 1, "temperature": 0.01, "history_temperature": 0.01, "history_decay": 0.1, "solver": "hedge",
    "n_iter": 2, "n_neighbors": 1, "prefit": False, "context_norm": 9.0, "difference_norm": 9.0,
    "encoder": "none", "store": "none", "template": "Q {response}", "context": (), "norms": {"prompt": 9.0},
    "interactions": True, "clauses": True, "length": True,
}  # fmt: skip


@pytest.mark.parametrize("how", STREAMED)
@pytest.mark.parametrize("name", CREATE)
def test_parameters_that_are_set_change_no_prediction(name, how):
    model = learn(CREATE[name](), how=how)
    known = answers(model)
    for parameter, value in model.get_params(deep=False).items():
        other = MixtureBradleyTerry(5) if parameter == "mixture" else OTHER_VALUES[parameter]
        model.set_params(**{parameter: other if other != value else None})
        same(answers(model), known)
    # One and all survive copies, which read what was fitted too.
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model)):
        same(answers(copied), known)


@pytest.mark.parametrize("name", ["mixture", "router", "router, knn", "router, not prefit"])
def test_what_shapes_a_model_cannot_change_within_a_stream(name):
    model = learn(CREATE[name](), how="partial_fit")
    is_router = isinstance(model, ContextRouter)
    shape = ["n_context_features", "gate", "hidden_units"] + (
        ["n_neighbors", "prefit", "mixture"] if is_router else ["n_components"]
    )
    known = answers(model)
    for parameter in shape:
        before = getattr(model, parameter)
        other = (
            heads()
            if parameter == "mixture"
            else {"gate": "mlp", "prefit": not getattr(model, "prefit", 0)}.get(parameter, 1 if before != 1 else 2)
        )
        model.set_params(**{parameter: other})
        with pytest.raises(ValueError, match=f"expected {parameter}=.* as in the first call, got {parameter}="):
            model.partial_fit(X, Y)
        same(answers(model), known)
        model.set_params(**{parameter: before})
    model.partial_fit(X, Y)


def test_a_parameter_changed_in_place_counts_from_the_next_fit_on():
    norms = {"prompt": 1.0}
    encoder = PairEncoder(context=("prompt",), norms=norms).fit(ROWS)
    known = answers(encoder)
    norms["prompt"] = 9.0
    same(answers(encoder), known)
    assert np.abs(encoder.fit(ROWS).transform(ROWS)).sum() > np.abs(known["transform"]).sum()


def test_what_is_set_while_another_thread_learns_stays_set(monkeypatch):
    model, started, go_on = mixture(), threading.Event(), threading.Event()
    solve = MixtureBradleyTerry._solve

    def slow(self, *args):
        started.set()
        assert go_on.wait(20)
        return solve(self, *args)

    monkeypatch.setattr(MixtureBradleyTerry, "_solve", slow)
    thread = threading.Thread(target=model.fit, args=(X, Y))
    thread.start()
    assert started.wait(20)
    model.set_params(alpha=7.0)
    go_on.set()
    thread.join(20)
    assert model.alpha == 7.0
    same(answers(model), answers(mixture().fit(X, Y)))


def functions_of_a_mixture():
    return {
        "bounds": lambda model: bounds_of_fit(model, X),
        "error": lambda model: estimate_irreducible_error(model, X, Y, GROUPS, n_bootstrap=20),
        "mask": lambda model: mask_heads(model, [0], X).predict_proba(X),
        "merge": lambda model: merge_heads(model, X, threshold=1e-9).mixture.predict_proba(X),
        "audit": lambda model: audit_heads(model, X, Y, n_resamples=10).rows(),
    }


@pytest.mark.parametrize("name", functions_of_a_mixture())
@pytest.mark.parametrize("wrap", [lambda model: model, FrozenEstimator])
def test_functions_of_a_mixture_read_what_was_fitted(name, wrap):
    ask = functions_of_a_mixture()[name]
    model = mixture().fit(X, Y, groups=GROUPS)
    known = ask(model)
    model.set_params(alpha=5.0, gate_alpha=9.0, balance=0.7, gate="mlp", n_context_features=0, hidden_units=9)
    found = ask(wrap(model))
    np.testing.assert_equal(found, known) if isinstance(known, np.ndarray) else None
    assert isinstance(known, np.ndarray) or found == known


# ----------------------------------------------------------------------------------------------- what is shared


@pytest.mark.parametrize("wrap", ["plain", "frozen", "not prefit"])
@pytest.mark.parametrize("gate", ["linear", "knn"])
def test_nothing_that_happens_to_the_heads_changes_a_router(wrap, gate):
    own = MixtureBradleyTerry(2, **SMALL) if wrap == "not prefit" else heads()
    given = FrozenEstimator(own) if wrap == "frozen" else own
    model = router(given, gate=gate, prefit=wrap != "not prefit", n_context_features=C)
    model.fit(X, Y)
    model.partial_fit(X[:20], Y[:20], groups=GROUPS[:20])
    known = answers(model)
    other = router(FrozenEstimator(model.mixture_), gate=gate, n_context_features=C).fit(X, Y)
    of_other = answers(other)
    for change in (
        lambda: own.fit(X2[:, C:], 1 - Y2),
        lambda: own.partial_fit(X2[:, C:], 1 - Y2, groups=GROUPS),
        lambda: own.set_params(alpha=3.0, n_context_features=1, gate="mlp", n_components=5),
        lambda: own.coef_.fill(0.0),
        lambda: own.weights_.fill(0.5),
        lambda: [p.fill(1.0) for p in own.gate_parameters_],
        lambda: own.classes_.fill(9),
    ):
        change()
        same(answers(model), known)
    # A second router of the first one's heads is as independent.
    model.fit(X2, 1 - Y2)
    same(answers(other), of_other)


def test_a_stream_of_both_stages_does_not_read_the_caller_s_mixture():
    own = MixtureBradleyTerry(2, **SMALL)
    models = [router(m, prefit=False, n_context_features=C) for m in (own, clone(own))]
    for model in models:
        model.partial_fit(X, Y)
    own.set_params(n_context_features=1)
    for model in models:
        model.partial_fit(X2, Y2)
    same(answers(models[0]), answers(models[1]))


@pytest.mark.parametrize("how", STREAMED)
@pytest.mark.parametrize("name", LEARNERS)
def test_neither_arguments_nor_results_are_shared(name, how):
    """Arrays of the caller are not changed, and changing them, or what was returned, changes no model."""
    for dtype in ("float64", "float32"):
        arguments = [X.astype(dtype), Y.copy(), np.ones(N), np.where(GROUPS > 9, -1, GROUPS)]
        copies = copy.deepcopy(arguments)
        model, classes = CREATE[name](), np.array([0, 1])
        if how == "fit":
            model.fit(*arguments[:3])
        else:
            model.partial_fit(arguments[0], arguments[1], classes, *arguments[2:])
        for given, kept in zip(arguments, copies, strict=True):
            np.testing.assert_array_equal(given, kept)
        known = answers(model)
        for given in (*arguments, classes):
            given.fill(3)
        same(answers(model), known)
        spoiled = answers(model)
        for value in spoiled.values():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value.fill(0)
        same(answers(model), known)


@pytest.mark.parametrize("name", ["mixture", "router", "router, knn"])
def test_a_loaded_model_lives_on_its_own(name, tmp_path):
    model = learn(CREATE[name](), how="partial_fit")
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    known = answers(loaded)
    model.partial_fit(X2, Y2, groups=GROUPS)
    same(answers(loaded), known)
    changed = answers(model)
    loaded.partial_fit(X2, 1 - Y2, groups=GROUPS)
    same(answers(model), changed)


# ------------------------------------------------------------------------------------------- copies and read-only


def through_mapping(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


COPIES = {
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "mapped": through_mapping,
}


@pytest.mark.parametrize("how", STREAMED)
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", CREATE)
def test_copies_answer_and_learn_on_their_own(name, way, how, tmp_path):
    model = learn(CREATE[name](), how=how)
    known = answers(model)
    copied = COPIES[way](model, tmp_path)
    same(answers(copied), known)
    if hasattr(model, "partial_fit"):
        for one in (copied, model):
            one.partial_fit(X2, Y2, groups=GROUPS).partial_fit(X2, Y2)
        same(answers(copied), answers(model))
        copied.partial_fit(X, Y, groups=GROUPS)
        with pytest.raises(AssertionError):
            same(answers(copied), answers(model))
    again = learn(copied)
    same(answers(again), answers(learn(CREATE[name]())))


def wide(name, n=700, width=400):
    """A model whose every large array is beyond the megabyte from which joblib maps its arguments."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, C + width)) / 10
    labels = (rows[:, C] > 0).astype(int)
    model = MixtureBradleyTerry(2, n_context_features=C, max_iter=3, n_init=1, random_state=0)
    if "router" in name:
        given = MixtureBradleyTerry(2, max_iter=3, n_init=1, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given.fit(rows[:, C:], labels)
        model = ContextRouter(given, gate="knn" if "knn" in name else "linear", n_context_features=C)
    return model, rows, labels


def work_of(model, rows, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(model, "coef_") or hasattr(model, "history_"):
            first = model.predict_proba(rows)
            model.partial_fit(rows, labels, groups=np.arange(len(rows)) % 9)
        else:
            first = None
        model.partial_fit(rows, labels)
        second = model.predict_proba(rows)
        return first, second, model.fit(rows, labels).predict_proba(rows)


@pytest.mark.parametrize("name", ["mixture", "router", "router, knn"])
def test_models_work_inside_of_parallel_jobs(name):
    """joblib maps large arguments read-only; every array of the estimator is one, with max_nbytes=1."""
    model, rows, labels = wide(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.partial_fit(rows, labels)
    expected = work_of(copy.deepcopy(model), rows, labels)
    run = joblib.Parallel(n_jobs=2, backend="loky", max_nbytes=1)
    for found in run(joblib.delayed(work_of)(model, rows, labels) for _ in range(2)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("name", CREATE)
def test_clones_have_the_parameters_and_nothing_else(name):
    model = learn(CREATE[name]())
    cloned = clone(model)
    assert set(vars(cloned)) == set(model.get_params(deep=False))
    # Those of a frozen one keep their fit.
    if name in ("router", "router, mlp", "router, knn", "router, users around heads"):
        with pytest.raises(NotFittedError):
            learn(cloned)
    else:
        same(answers(learn(cloned)), answers(model))


# ------------------------------------------------------------------------------------------------------------ threads


class Switching:
    """Threads that change as often as they can."""

    def __enter__(self):
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)

    def __exit__(self, *error):
        sys.setswitchinterval(self.interval)


def run(*works):
    """All at the same time, for at most 60 seconds; the first error is raised."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    with Switching():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("how", ["fit", "partial_fit", "votes"])
@pytest.mark.parametrize("name", ["mixture", "mixture, mlp", "router", "router, knn", "router, not prefit", "scaler"])
def test_predictions_beside_learning_are_those_of_a_complete_state(name, how):
    """What four threads see while one learns is what one of the states says that it goes through."""
    if (name == "scaler" and how != "fit") or (name == "router, not prefit" and how == "votes"):
        return  # votes are counted in the one table of users while the heads that they teach are being replaced

    def step(model, i):
        rows, labels = ((X, Y), (X2, Y2))[i % 2]
        if how == "fit":
            return learn(model, rows, labels)
        part = slice(0, 20) if how == "partial_fit" else slice(i % 20, i % 20 + 1)
        return model.partial_fit(rows[part], labels[part], **({} if how == "partial_fit" else {"groups": ["ann"]}))

    def ask(model):
        if name == "scaler":
            return model.transform(X[:3]).tobytes()
        users = {"groups": ["ann", "ann", None]} if "router" in name else {}
        return model.predict_proba(X[:3], **users).tobytes()

    n_steps = 8
    model, states = learn(CREATE[name](), how="partial_fit" if how != "fit" else "fit"), set()
    twin = copy.deepcopy(model)
    states.add(ask(twin))
    for i in range(n_steps):
        states.add(ask(step(twin, i)))
    seen, done = [], threading.Event()

    def learner():
        try:
            for i in range(n_steps):
                step(model, i)
        finally:
            done.set()

    def reader():
        while not done.is_set():
            seen.append(ask(model))
        seen.append(ask(model))

    run(learner, *[reader] * 4)
    assert set(seen) <= states
    assert len(states) > 1


@pytest.mark.parametrize("name", CREATE)
def test_a_state_that_is_being_read_is_replaced_and_never_written(name):
    """So that no thread can see half of it: the attributes of before are still those of before."""
    model = learn(CREATE[name](), how="partial_fit")
    for again in STREAMED if hasattr(model, "partial_fit") else ["fit"]:
        attributes = vars(model)
        before = dict(attributes)
        learn(model, X2, Y2, how=again)
        assert vars(model) is not attributes
        assert attributes.keys() == before.keys()
        assert all(attributes[key] is value for key, value in before.items())


@pytest.mark.parametrize("name", ["router", "router, not prefit"])
def test_every_vote_of_four_threads_is_counted(name):
    model = learn(CREATE[name]())
    alone = copy.deepcopy(model)

    def vote():
        for _ in range(250):
            model.partial_fit(X[:1], Y[:1], groups=["ann"])

    if name == "router":
        run(vote, vote, vote, vote)
        alone.partial_fit(np.repeat(X[:1], 1000, axis=0), np.repeat(Y[:1], 1000), groups=["ann"] * 1000)
        got, expected = (m.history_.export()[1] for m in (model, alone))
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    else:
        run(*[lambda: [model.partial_fit(X[:1], Y[:1], groups=["ann"]) for _ in range(50)]] * 4)
        assert model.mixture_._stream.adam.count == 200


@pytest.mark.parametrize("name", ["mixture", "router", "router, knn", "router, not prefit", "scaler"])
def test_two_threads_that_fit_one_object_leave_one_of_two_results(name):
    results = [answers(learn(CREATE[name](), rows, labels)) for rows, labels in ((X, Y), (X2, Y2))]
    for _ in range(3):
        model = CREATE[name]()
        run(lambda model=model: learn(model, X, Y), lambda model=model: learn(model, X2, Y2))
        found = answers(model)
        assert any(is_same(found, one) for one in results)


def is_same(one, other):
    try:
        same(one, other)
    except AssertionError:
        return False
    return True


def of_child(model, connection):
    learn(model, how="partial_fit") if hasattr(model, "partial_fit") else learn(model)
    connection.send(len(answers(model)))


def fork_three_children_while_a_thread_learns(name):
    model = learn(CREATE[name]())
    stop = threading.Event()

    def learner():
        while not stop.is_set():
            learn(model)

    thread = threading.Thread(target=learner, daemon=True)
    thread.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(3):
            ours, theirs = context.Pipe()
            child = context.Process(target=of_child, args=(model, theirs))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child.start()
            answered = ours.poll(20)
            child.kill()
            child.join(20)
            assert answered
            assert ours.recv() == len(answers(model))
    finally:
        stop.set()
        thread.join(20)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.parametrize("name", ["mixture", "router", "router, knn", "scaler", "encoder"])
def test_a_child_forked_while_a_thread_learns_can_learn(name):
    # In a process of its own: where coverage is measured here, a child may inherit a lock of coverage's that the
    # learning thread held, and would wait for it for ever.
    script = f"import test_fitting; test_fitting.fork_three_children_while_a_thread_learns({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------- habits of scikit-learn


SCORED = {
    "mixture": mixture,
    "router, frozen": lambda: router(FrozenEstimator(heads())),
    "router, not prefit": CREATE["router, not prefit"],
    "pipeline": lambda: make_pipeline(PairScaler(C), mixture()),
    "pipeline, router": lambda: make_pipeline(PairScaler(C), CREATE["router, not prefit"]()),
}


@pytest.mark.parametrize("name", SCORED)
def test_no_labels_mean_first_preferred_in_all_of_model_selection(name):
    """Rows turned so that the first response is preferred, with and without labels."""
    rows = X.copy()
    rows[Y == 0, C:] *= -1
    model, ones = SCORED[name](), np.ones(N, dtype=int)
    fitted = clone(model).fit(rows)
    assert fitted.score(rows) == fitted.score(rows, ones)
    assert fitted.score(rows) + fitted.score(rows, 1 - ones) == pytest.approx(1.0)
    np.testing.assert_array_equal(cross_val_score(model, rows, cv=3), cross_val_score(model, rows, ones, cv=KFold(3)))
    grid = {f"{model.steps[-1][0]}__alpha" if "pipeline" in name else "alpha": [1e-3, 10.0]}
    search = GridSearchCV(model, grid, cv=3).fit(rows)
    np.testing.assert_array_equal(search.predict_proba(rows), search.best_estimator_.predict_proba(rows))
    assert search.score(rows) == search.best_estimator_.score(rows)


def test_annotators_are_routed_to_fits_and_scores():
    with config_context(enable_metadata_routing=True):
        model = mixture().set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(
            make_pipeline(PairScaler(C).set_fit_request(sample_weight=True), model),
            X,
            Y,
            cv=GroupKFold(4),
            params={"groups": GROUPS, "sample_weight": np.ones(N)},
            return_estimator=True,
            error_score="raise",
        )
        (train, _), *_ = GroupKFold(4).split(X, Y, GROUPS)
    rows = PairScaler(C).fit_transform(X[train])
    expected = mixture().fit(rows, Y[train], groups=GROUPS[train], sample_weight=np.ones(len(train)))
    np.testing.assert_allclose(found["estimator"][0][-1].coef_, expected.coef_, rtol=1e-9)


def test_tables_of_texts_go_through_a_whole_pipeline():
    table = pd.DataFrame(ROWS * 5)
    labels = np.arange(len(table)) % 2
    table["label"] = np.where(labels == 1, "a", "b")
    pipeline = make_pipeline(PairEncoder(), MixtureBradleyTerry(1, random_state=0))
    assert cross_val_score(pipeline, table, labels, cv=2, error_score="raise").shape == (2,)
    assert cross_val_score(pipeline, table, cv=2, error_score="raise").shape == (2,)
    search = GridSearchCV(pipeline, {"pairencoder__norms": [{"response": 1.0}, {"response": 3.0}]}, cv=2)
    assert search.fit(table, labels).predict(table).shape == labels.shape


@pytest.mark.parametrize("output", ["pandas", "polars", "default"])
def test_scaled_rows_come_in_the_container_that_is_asked_for(output):
    table = pd.DataFrame(X, columns=[f"feature {i}" for i in range(C + D)])
    with config_context(transform_output=output):
        found = PairScaler(C).fit_transform(table)
        pipeline = make_pipeline(PairScaler(C), mixture()).fit(table, Y)
        predicted = pipeline.predict_proba(table)
    assert type(found).__module__.split(".")[0] == {"default": "numpy"}.get(output, output)
    if output != "default":
        assert list(found.columns) == list(table.columns)
    np.testing.assert_array_equal(np.asarray(found), PairScaler(C).fit_transform(X))
    np.testing.assert_array_equal(predicted, make_pipeline(PairScaler(C), mixture()).fit(X, Y).predict_proba(X))


@pytest.mark.parametrize("name", CREATE)
def test_frozen_estimators_answer_and_never_learn(name):
    model = learn(CREATE[name]())
    known = answers(model)
    wrapped = clone(FrozenEstimator(model))
    wrapped.fit(X2, Y2)
    same(answers(model), known)
    if name != "encoder":
        ask = "transform" if name == "scaler" else "predict_proba"
        np.testing.assert_array_equal(getattr(wrapped, ask)(X2), getattr(model, ask)(X2))
