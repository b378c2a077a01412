"""Saved models: what comes back is what was saved, and what was damaged does not come back."""

from __future__ import annotations

import doctest
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

import micropref.persistence
from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry
from micropref._estimator.model_folder import read_folder, write_folder
from micropref.persistence import ModelFileError, load, save

N, C, D, K = 120, 3, 4, 3
HUGE = 2**70

rng = np.random.default_rng(5)
DIFFERENCE = rng.normal(size=(N, D))
CONTEXT = rng.normal(size=(N, C))
X = np.hstack([CONTEXT, DIFFERENCE])
ANNOTATOR = np.arange(N) // 4
Y = (DIFFERENCE[:, 0] * np.where(ANNOTATOR % 2, 2, -2) + rng.logistic(size=N) > 0).astype(int)


def mixture(**parameters) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(**{"n_components": K, "n_init": 1, "max_iter": 500, "random_state": 0, **parameters})


def around_heads() -> HierarchicalBradleyTerry:
    model = HierarchicalBradleyTerry(2, rank=0, tau=0.5, alpha=0.01, max_iter=1000, random_state=0)
    return model.fit(DIFFERENCE, Y, groups=ANNOTATOR)


@pytest.fixture(scope="module")
def heads() -> MixtureBradleyTerry:
    return mixture().fit(DIFFERENCE, Y, groups=ANNOTATOR)


def voted(router: ContextRouter, users: list) -> ContextRouter:
    """With votes of these users in its history, whether or not it was fitted before."""
    columns = X if hasattr(router, "history_") or router.n_context_features else DIFFERENCE
    rows = np.arange(len(users))
    return router.partial_fit(columns[rows], Y[rows], groups=np.array(users, dtype=object))


def frame(columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(columns, columns=[f"column {i} é" for i in range(columns.shape[1])])


def mixtures() -> dict:
    words = np.where(Y == 1, "yes", "no")
    return {
        "static": lambda: mixture().fit(DIFFERENCE, Y, groups=ANNOTATOR),
        "linear gate": lambda: mixture(n_context_features=C).fit(X, Y),
        "mlp gate": lambda: mixture(n_context_features=C, gate="mlp", hidden_units=5, gate_alpha=0.1, tol=1e-3).fit(
            X, Y
        ),
        "one component": lambda: mixture(n_components=1, n_context_features=C).fit(X, Y),
        "string classes": lambda: mixture().fit(DIFFERENCE, words),
        "object classes": lambda: mixture().fit(DIFFERENCE, words.astype(object)),
        "bool classes": lambda: mixture().fit(DIFFERENCE, Y == 1),
        "small integer classes": lambda: mixture().fit(DIFFERENCE, (2 * Y - 1).astype(np.int8)),
        "feature names": lambda: mixture().fit(frame(DIFFERENCE), Y),
        "single precision": lambda: mixture().fit(DIFFERENCE.astype(np.float32), Y),
        "half precision": lambda: mixture().fit(DIFFERENCE.astype(np.float16), Y),
        "torch": lambda: mixture(device=torch.device("cpu")).fit(torch.tensor(DIFFERENCE), Y),
        "stream": lambda: mixture().partial_fit(DIFFERENCE, Y, groups=ANNOTATOR),
        "frozen": lambda: FrozenEstimator(mixture().fit(DIFFERENCE, Y)),
    }


USERS = {
    "int users": [0, 5, 12, 12, 1000],
    "negative ints": [-2, -(2**63), 2**63 - 1],
    "huge ints": [HUGE, -HUGE, 3],
    "string users": ["ann", "bøb", "ann", "7"],
    "mixed ids": ["ann", 7, "7", HUGE],
    "numpy ids": [np.int64(4), "ann", np.str_("cy")],
    "lone surrogate": ["\ud800", "ann"],
    "tuples": [("ann", 1), ("ann", "b"), (("ann", 1), 2), "ann", 7],
}


def routers() -> dict:
    def heads():
        return mixture().fit(DIFFERENCE, Y, groups=ANNOTATOR)

    def knn(**parameters):
        return ContextRouter(heads(), gate="knn", **parameters)

    def gated():
        return mixture(n_context_features=2).fit(X[:, 1:], Y)

    return {
        "linear gate": lambda: voted(ContextRouter(heads()).fit(X, Y), [1, 2]),
        "mlp gate": lambda: ContextRouter(heads(), gate="mlp", hidden_units=4, random_state=0).fit(X, Y),
        "knn gate": lambda: voted(knn(n_neighbors=3).fit(X, Y), [1]),
        "knn gate in pieces": lambda: knn().fit(X[:50], Y[:50]).partial_fit(X[50:], Y[50:]),
        "knn gate without rows": lambda: voted(knn(), [1, 2]),
        "hedge": lambda: ContextRouter(heads(), solver="hedge", n_iter=3).fit(X, Y),
        "gated mixture": lambda: ContextRouter(gated()).fit(X[:, 1:], Y),
        "one head": lambda: ContextRouter(mixture(n_components=1).fit(DIFFERENCE, Y)).fit(X, Y),
        "frozen mixture": lambda: ContextRouter(FrozenEstimator(heads())).fit(X, Y),
        "frozen router": lambda: FrozenEstimator(ContextRouter(heads()).fit(X, Y)),
        "own first stage": lambda: ContextRouter(mixture(), n_context_features=C, prefit=False).fit(X, Y),
        "feature names": lambda: ContextRouter(heads()).fit(frame(X), Y),
        "string classes": lambda: ContextRouter(heads()).fit(X, np.where(Y == 1, "x", "m")),
        "stream": lambda: ContextRouter(heads()).partial_fit(X, Y),
        "users around heads": lambda: voted(ContextRouter(around_heads()).fit(X, Y), [1, "ann", HUGE]),
        **{name: lambda users=users: voted(ContextRouter(heads()), users) for name, users in USERS.items()},
    }


EVERYTHING = {f"mixture, {name}": make for name, make in mixtures().items()}
EVERYTHING |= {f"router, {name}": make for name, make in routers().items()}


def columns_of(estimator, n_features_in: int):
    """Rows that the estimator takes, as it was given them."""
    rows = X[:, X.shape[1] - n_features_in :] * 1.7
    return frame(rows) if hasattr(estimator, "feature_names_in_") else rows


def predictions(estimator, users: list | None = None) -> dict[str, np.ndarray]:
    rows = columns_of(estimator, estimator.n_features_in_)
    found = {
        "predict": estimator.predict(rows),
        "predict_proba": estimator.predict_proba(rows),
        "mixture_weights": estimator.mixture_weights(rows),
    }
    for i, user in enumerate(users or ()):
        who = [user] * len(rows)
        found[f"decision_function of user {i}"] = estimator.decision_function(rows, groups=who)
    return found


# ------------------------------------------------------------------------------------------------------- round trip


def test_a_fresh_process_predicts_the_same_bits_without_pickle(tmp_path):
    expected = {}
    for i, (name, make) in enumerate(EVERYTHING.items()):
        estimator = make()
        save(estimator, tmp_path / f"{i}")
        users = [*USERS.get(name.removeprefix("router, "), [1, 2]), "nobody"] if name.startswith("router") else []
        expected[name] = predictions(getattr(estimator, "estimator", estimator), users)
    code = f"""
import pickle, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})

def forbidden(*args, **kwargs):
    raise AssertionError("a saved model is no pickle")

import test_persistence as tests
pickle.load = pickle.loads = pickle.Unpickler = forbidden
import numpy as np
np.lib.format.read_array = forbidden
found = {{}}
for i, name in enumerate(tests.EVERYTHING):
    users = [*tests.USERS.get(name.removeprefix("router, "), [1, 2]), "nobody"] if name.startswith("router") else []
    for method, values in tests.predictions(tests.load({str(tmp_path)!r} + f"/{{i}}"), users).items():
        print(name, method, values.dtype.str, tests.digest(values), sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = [
        "|".join([name, method, values.dtype.str, digest(values)])
        for name, methods in expected.items()
        for method, values in methods.items()
    ]
    assert done.stdout.splitlines() == wanted


def digest(values: np.ndarray) -> str:
    data = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", EVERYTHING)
def test_attributes_and_parameters_come_back(name, tmp_path):
    estimator = EVERYTHING[name]()
    save(estimator, tmp_path)
    loaded = load(tmp_path)
    estimator = getattr(estimator, "estimator", estimator)
    assert type(loaded) is type(estimator)
    for attribute, value in vars(estimator).items():
        if not attribute.endswith("_") or attribute in ("mixture_", "history_"):
            continue
        restored = getattr(loaded, attribute)
        if attribute == "gate_parameters_":
            assert len(restored) == len(value)
            assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(restored, value, strict=True))
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(restored, value)
            assert restored.dtype == value.dtype
        else:
            assert restored == value
            assert type(restored) is type(value)
    same = [p for p in estimator.get_params(deep=False) if p not in ("mixture", "prefit", "device")]
    assert {p: getattr(loaded, p) for p in same} == {p: getattr(estimator, p) for p in same}


@pytest.mark.parametrize("name", ["mixture, static", "mixture, mlp gate", "router, linear gate", "router, knn gate"])
def test_learning_goes_on_from_a_loaded_model(name, tmp_path):
    estimator = EVERYTHING[name]()
    save(estimator, tmp_path / "first")
    loaded = load(tmp_path / "first")
    rows = columns_of(loaded, loaded.n_features_in_)
    before = loaded.predict_proba(rows)
    users = None if name.startswith("mixture") else np.array(["new"] * N, dtype=object)
    loaded.partial_fit(rows, Y, groups=users)
    after = loaded.predict_proba(rows) if users is None else loaded.predict_proba(rows, groups=users)
    assert not np.array_equal(before, after)
    save(loaded, tmp_path / "second")
    np.testing.assert_array_equal(load(tmp_path / "second").predict_proba(rows), loaded.predict_proba(rows))


def test_a_loaded_model_of_named_features_refuses_others(tmp_path):
    save(mixture().fit(frame(DIFFERENCE), Y), tmp_path)
    with pytest.raises(ValueError, match="feature names should match"):
        load(tmp_path).predict(frame(DIFFERENCE).iloc[:, ::-1])


def test_parameters_set_after_fit_are_saved_and_change_no_prediction(heads, tmp_path):
    router = voted(ContextRouter(heads, history_temperature=2.0), ["ann", 7])
    users = np.array(["ann", 7] * (N // 2), dtype=object)
    before = router.predict_proba(DIFFERENCE, groups=users)
    router.set_params(history_temperature=5.0, random_state=3)
    save(router, tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(DIFFERENCE, groups=users), before)
    assert (loaded.history_temperature, loaded.random_state) == (5.0, 3)
    for either in (router, loaded):
        either.partial_fit(DIFFERENCE[2:4], Y[2:4], groups=users[:2])
    after = router.predict_proba(DIFFERENCE, groups=users)
    np.testing.assert_array_equal(loaded.predict_proba(DIFFERENCE, groups=users), after)
    assert np.abs(after - before).max() > 1e-3


def test_a_model_that_learns_is_saved_between_two_votes(heads, tmp_path):
    """Every saved history is that of some number of votes: none is half there."""
    router = voted(ContextRouter(heads), ["first"])
    pair = np.tile(DIFFERENCE[:1], (2, 1))
    stop = threading.Event()

    def vote():
        for i in range(100_000):
            if stop.is_set():
                return
            router.partial_fit(pair, [1, 1], groups=np.array([f"a {i}", f"b {i}"]))

    thread = threading.Thread(target=vote)
    thread.start()
    try:
        for _ in range(15):
            save(router, tmp_path)
            users, evidence = load(tmp_path).history_.export()
            assert len(users) % 2 == 1
            assert (evidence[1:] == evidence[1:2]).all()
            assert len(users) == 1 or evidence[1].any()
    finally:
        stop.set()
        thread.join()
    assert len(users) > 10


def test_a_generator_is_not_saved(tmp_path):
    save(mixture(random_state=np.random.RandomState(3)).fit(DIFFERENCE, Y), tmp_path)
    assert load(tmp_path).random_state is None


def test_numpy_scalars_are_saved_as_the_numbers_they_are(tmp_path):
    parameters = {
        "n_components": np.int32(2),
        "alpha": np.float32(0.25),
        "random_state": np.int64(7),
        "warm_start": np.bool_(True),
        "gate": np.str_("linear"),
    }
    save(mixture(**parameters).fit(DIFFERENCE, Y), tmp_path)
    loaded = load(tmp_path)
    assert {name: getattr(loaded, name) for name in parameters} == parameters
    assert all(not isinstance(getattr(loaded, name), np.generic) for name in parameters)


def test_the_device_is_saved_by_name(tmp_path):
    save(mixture(device=torch.device("cpu")).fit(torch.tensor(DIFFERENCE), Y), tmp_path)
    assert load(tmp_path).device == "cpu"


@pytest.mark.parametrize("user", [b"ann", UUID(int=5)])
def test_users_that_are_neither_text_nor_integers_nor_tuples_cannot_be_saved(heads, user, tmp_path):
    router = ContextRouter(heads)
    users = np.empty(2, dtype=object)
    users[:] = ["ann", user]
    router.partial_fit(DIFFERENCE[:2], Y[:2], groups=users)
    with pytest.raises(
        TypeError, match="expected an integer, a string or a tuple of these as an id that is saved, got"
    ):
        save(router, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_parameter_that_json_cannot_hold_is_named(tmp_path):
    fitted = mixture().fit(DIFFERENCE, Y)
    fitted.verbose = {1, 2}
    with pytest.raises(TypeError, match=r"JSON can hold, got a set \(\{1, 2\}\)"):
        save(fitted, tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_only_fitted_estimators_of_the_library_are_saved(tmp_path):
    with pytest.raises(NotFittedError):
        save(mixture(), tmp_path)
    with pytest.raises(
        TypeError, match=r"expected one of MixtureBradleyTerry, .*ContextRouter, .* to save, got a LogisticRegression"
    ):
        save(LogisticRegression().fit(DIFFERENCE, Y), tmp_path)


# ------------------------------------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def saved(heads, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(voted(ContextRouter(heads).fit(X, Y), ["ann", 7]), folder)
    return folder


@pytest.fixture
def model(saved, tmp_path) -> Path:
    """A saved model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def tensors_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_a_model_is_two_files_without_a_pickle(saved):
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".safetensors"]
    for path in saved.iterdir():
        assert not path.name.startswith(".")
        with pytest.raises(Exception):  # noqa: B017
            pickle.loads(path.read_bytes())
    description = json.loads((saved / "model.json").read_text())
    assert description["micropref"] == micropref.__version__
    assert description["tensors"]["file"] == tensors_file(saved).name


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
@example(position=0.0, bit=0)
@example(position=0.999999, bit=6)
@pytest.mark.parametrize("which", ["model.json", "tensors"])
def test_one_bit_flipped_anywhere_is_noticed(saved, which, position, bit):
    path = saved / "model.json" if which == "model.json" else tensors_file(saved)
    whole = path.read_bytes()
    where = int(position * len(whole))
    try:
        path.write_bytes(whole[:where] + bytes([whole[where] ^ (1 << bit)]) + whole[where + 1 :])
        with pytest.raises(ModelFileError, match=r"model"):
            load(saved)
    finally:
        path.write_bytes(whole)


def test_every_digit_of_the_description_matters(saved):
    """Among them the last digits of numbers, and "e" against "E", which may be the same number to a parser."""
    path = saved / "model.json"
    whole = path.read_bytes()
    flips = {ord("e"): 32, **dict.fromkeys(b"0123456789", 1)}
    places = [(where, flips[byte]) for where, byte in enumerate(whole) if byte in flips]
    assert len(places) > 200
    try:
        for where, flip in places:
            path.write_bytes(whole[:where] + bytes([whole[where] ^ flip]) + whole[where + 1 :])
            with pytest.raises(ModelFileError):
                read_folder(saved)
    finally:
        path.write_bytes(whole)


@given(kept=st.floats(0, 1, exclude_max=True))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("which", ["model.json", "tensors"])
def test_a_file_cut_short_is_noticed(saved, which, kept):
    path = saved / "model.json" if which == "model.json" else tensors_file(saved)
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ModelFileError, match="damaged" if which == "model.json" else "cut short or altered"):
            load(saved)
    finally:
        path.write_bytes(whole)


def test_tensors_gone(model):
    tensors_file(model).unlink()
    with pytest.raises(ModelFileError, match=r"tensors-.*safetensors: expected .* is missing"):
        load(model)


def test_tensors_of_another_model(model, heads, tmp_path):
    save(heads, tmp_path / "other")
    shutil.copy(tensors_file(tmp_path / "other"), tensors_file(model))
    with pytest.raises(ModelFileError, match="expected content that has its checksum, got other content"):
        load(model)


def edited(folder: Path, change) -> None:
    path = folder / "model.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))


def test_a_changed_number_is_noticed(model):
    edited(model, lambda content: content["parameters"].update(temperature=2.0))
    with pytest.raises(ModelFileError, match=r"model\.json: expected content that has its checksum, .* it was altered"):
        load(model)


@pytest.mark.parametrize("version", [2, 1000, "2.0", None])
def test_a_later_format_says_who_wrote_it(model, version):
    edited(model, lambda content: content.update(version=version, micropref="9.8.7"))
    with pytest.raises(ModelFileError, match=rf"expected .*, got format {version}, written by micropref 9\.8\.7"):
        load(model)


def test_a_later_format_may_look_different(model):
    (model / "model.json").write_text('{"format": "micropref", "version": 2, "sha256": ""}')
    with pytest.raises(ModelFileError, match="expected a model in format 1"):
        load(model)


@pytest.mark.parametrize("content", ["[]", "7", "null", '"text"', "", "{", "{}", "[" * 100_000, "\xff"])
def test_other_json(model, content):
    (model / "model.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelFileError, match=r"model\.json: expected the JSON .* is damaged"):
        load(model)


def test_another_format(model):
    edited(model, lambda content: content.update(format="pytorch"))
    with pytest.raises(ModelFileError, match=r"expected the description of a model of micropref, got one of"):
        load(model)


def test_tensors_that_are_none(tmp_path, monkeypatch):
    """Checksums can be right where the writer was wrong."""
    monkeypatch.setattr("micropref._estimator.model_folder.save_tensors", lambda arrays: b"no tensors at all")
    write_folder(tmp_path, {}, {"estimator": "MixtureBradleyTerry"})
    with pytest.raises(ModelFileError, match=r"safetensors: expected tensors, got content that cannot be read"):
        load(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a saved model, a folder with model\.json"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: expected a saved model"):
        load(tmp_path / "empty")


def test_a_file_where_a_folder_should_be(heads, tmp_path):
    path = tmp_path / "model"
    path.write_text("precious")
    with pytest.raises(FileNotFoundError, match="expected a saved model"):
        load(path)
    with pytest.raises(ModelFileError, match="expected a folder, as which a model is saved, got a file"):
        save(heads, path)
    assert path.read_text() == "precious"


def test_folders_are_made_and_paths_may_be_strings(heads, tmp_path):
    save(heads, str(tmp_path / "a" / "b"))
    np.testing.assert_array_equal(load(str(tmp_path / "a" / "b")).coef_, heads.coef_)


# ------------------------------------------------------------------------------------------------------ replacement


def test_saving_over_an_older_model_replaces_it_as_a_whole(model, heads):
    (model / "notes.txt").write_text("mine")
    save(heads, model)
    assert type(load(model)) is MixtureBradleyTerry
    assert (model / "notes.txt").read_text() == "mine"
    (model / "notes.txt").unlink()
    assert len(list(model.iterdir())) == 2


def test_saving_the_same_model_twice(model):
    loaded = load(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    save(loaded, model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_save_that_fails_half_way_leaves_the_old_model(model, heads, monkeypatch, failing_call):
    old = load(model)
    calls = []
    replace = os.replace

    def full_disk(source, target):
        calls.append(target)
        if len(calls) == failing_call:
            raise OSError("No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save(heads, model)
    assert len(calls) == failing_call
    still = load(model)
    assert type(still) is ContextRouter
    np.testing.assert_array_equal(still.predict_proba(X, groups=[7] * N), old.predict_proba(X, groups=[7] * N))
    assert not [path.name for path in model.iterdir() if path.name.endswith(".part")]
    save(heads, model)
    assert len(list(model.iterdir())) == 2


def test_a_model_of_texts_is_loaded_elsewhere(tmp_path):
    write_folder(tmp_path, {}, {"encoder": {}, "stage": {}})
    with pytest.raises(
        ModelFileError, match=r"expected an estimator, got a model of texts; load it with PreferenceModel\.load"
    ):
        load(tmp_path)


def test_a_million_users_are_an_array(heads, tmp_path):
    """Not a list of numbers in JSON."""
    n = 20_000
    router = ContextRouter(heads)
    router.partial_fit(np.tile(DIFFERENCE, (n // N + 1, 1))[:n], groups=np.arange(n))
    save(router, tmp_path)
    assert (tmp_path / "model.json").stat().st_size < 10_000
    # 12 bytes a vote say which pairs have been answered.
    assert tensors_file(tmp_path).stat().st_size < n * (8 + 4 * K) + 10_000 + (n + 4096) * 12
    assert len(load(tmp_path).history_) == n


def test_examples_in_the_docstrings():
    failures, tried = doctest.testmod(micropref.persistence)
    assert (failures, tried > 3) == (0, True)
