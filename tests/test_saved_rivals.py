"""Rival methods on disk: they come back with their users, and learn on as if they had never been saved."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
from baseline_cases import ratings_for
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from micropref import MixtureBradleyTerry, baselines, load, save
from micropref._estimator.saveable import _HOME
from micropref.baselines._votes import Votes, flattened, unflattened
from micropref.persistence import ModelFileError

N, C, D = 240, 2, 4
rng = np.random.default_rng(8)
X = np.hstack([rng.normal(size=(N, C)), rng.normal(size=(N, D))])
ANNOTATOR = np.arange(N) // 6
Y = (X[:, C] * np.where(ANNOTATOR % 2, 2, -2) + rng.logistic(size=N) > 0).astype(int)
USERS = [3, "ann", ("ann", 1), 2**70, -7, "new"]


def mixture(**parameters) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(2, n_init=1, random_state=0, **parameters).fit(X[:, C:], Y, groups=ANNOTATOR)


MAKE = {
    "CategoricalRewards": lambda: baselines.CategoricalRewards(n_context_features=C),
    "ContextNeighbors": lambda: baselines.ContextNeighbors(15, n_context_features=C),
    "ContextNeighbors, no context": lambda: baselines.ContextNeighbors(15),
    "DecomposedRewards": lambda: baselines.DecomposedRewards(3, n_context_features=C),
    "GroupRewards": lambda: baselines.GroupRewards(1e-2, n_context_features=C),
    "GroupRewards, pooled": lambda: baselines.GroupRewards(1e-2, n_context_features=C, pooling=2.0),
    "HardMixture": lambda: baselines.HardMixture(2, n_context_features=C, random_state=0, max_iter=500),
    "HypothesisReweighting": lambda: baselines.HypothesisReweighting(
        n_components=5, n_context_features=C, random_state=0
    ),
    "HypothesisReweighting, random": lambda: baselines.HypothesisReweighting(
        "random", n_components=5, n_context_features=C, random_state=0
    ),
    "HypothesisReweighting, given": lambda: baselines.HypothesisReweighting(
        mixture(), n_context_features=C, prior="heads"
    ),
    "HypothesisReweighting, frozen": lambda: baselines.HypothesisReweighting(
        FrozenEstimator(mixture()), n_context_features=C, average="probabilities"
    ),
    "HypothesisReweighting, fitted here": lambda: baselines.HypothesisReweighting(
        MixtureBradleyTerry(2, n_init=1, random_state=0), n_context_features=C, prefit=False
    ),
    "LowRankRewards": lambda: baselines.LowRankRewards(2, n_context_features=C, random_state=0),
    "MeanVarianceRewards": lambda: baselines.MeanVarianceRewards(n_context_features=C),
    "MeanVarianceRewards, rank": lambda: baselines.MeanVarianceRewards(1, n_context_features=C, random_state=0),
    "MultiObjectiveRewards": lambda: baselines.MultiObjectiveRewards(n_context_features=C),
    "RewardFactorization": lambda: baselines.RewardFactorization(2, n_context_features=C),
    "RewardFactorization, refined": lambda: baselines.RewardFactorization(2, refine=True, n_context_features=C),
    "SharedBaseEnsemble": lambda: baselines.SharedBaseEnsemble(5, n_context_features=C, random_state=0),
    "UserRewards": lambda: baselines.UserRewards(n_context_features=C),
}
DTYPES = {"double": (np.float64, np.float64), "single, then double": (np.float32, np.float64)}


def users(names: list, n: int, seed: int) -> np.ndarray:
    column = np.empty(n, dtype=object)
    column[:] = [names[i] for i in np.random.default_rng(seed).integers(len(names), size=n)]
    return column


def needed(model, width: int = D) -> dict:
    """What `fit` of a method needs beside comparisons."""
    return {"ratings": ratings_for(width)} if isinstance(model, baselines.MultiObjectiveRewards) else {}


def taught(model, dtypes=(np.float64, np.float64)):
    """Fitted with annotators, and then with the votes of users and, some of them, of no user."""
    given = np.where(ANNOTATOR < 35, ANNOTATOR, -1)
    model.fit(X.astype(dtypes[0]), Y, groups=given, **needed(model))
    rows = np.random.default_rng(2).permutation(N)[:60]
    return model.partial_fit(X[rows].astype(dtypes[1]), Y[rows], groups=users([*USERS[:-1], None], 60, 1))


def answers(model) -> np.ndarray:
    """Of no user, of users of `fit`, of users of `partial_fit`, and of one who is not known."""
    asked = users([None, 0, 12, 34, *USERS], N, 2)
    return np.stack([model.predict_proba(X)[:, 1], model.predict_proba(X, groups=asked)[:, 1]])


def same(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_every_rival_is_tried():
    assert {name.partition(",")[0] for name in MAKE} == set(baselines.__all__)
    others = {"MixtureBradleyTerry", "HierarchicalBradleyTerry", "ContextRouter", "ContextInteractions"}
    assert set(_HOME) == {*baselines.__all__, *others}


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize("name", MAKE)
def test_a_rival_comes_back_and_learns_on(name, dtypes, asked_before, tmp_path):
    model = taught(MAKE[name](), DTYPES[dtypes])
    if asked_before:  # what users are described by is kept once it is known
        answers(model)
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert type(loaded) is type(model)
    before = answers(model)
    same(answers(loaded), before)
    assert baselines._base.known_users(loaded) == baselines._base.known_users(model)

    rows = np.random.default_rng(1).permutation(N)[:50]  # the same whichever tests ran before
    groups = users([*USERS, None, 0], 50, 3)
    for either in (model, loaded):
        either.partial_fit(X[rows], Y[rows], groups=groups)
    after = answers(model)
    same(answers(loaded), after)
    assert np.abs(after - before).max() > 1e-7

    save(loaded, tmp_path / "model")
    same(answers(load(tmp_path / "model")), after)


@pytest.mark.parametrize("name", MAKE)
def test_attributes_come_back(name, tmp_path):
    model = taught(MAKE[name]())
    save(FrozenEstimator(model), tmp_path)
    loaded = load(tmp_path)
    public = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert public == {name for name in vars(loaded) if name.endswith("_") and not name.startswith("_")}
    for attribute in public - {"heads_"}:
        value, restored = getattr(model, attribute), getattr(loaded, attribute)
        assert type(restored) is type(value)
        np.testing.assert_array_equal(restored, value)
    given = {"heads", "prefit"} if ", given" in name or ", frozen" in name or ", fitted here" in name else set()
    parameters = model.get_params(deep=False)
    assert {p: v for p, v in loaded.get_params(deep=False).items() if p not in given} == {
        p: v for p, v in parameters.items() if p not in given
    }
    if hasattr(model, "heads_") and model.heads_ is not None:
        heads = getattr(model.heads_, "estimator", model.heads_)
        np.testing.assert_array_equal(loaded.heads_.coef_, heads.coef_)
        np.testing.assert_array_equal(loaded.heads_.predict_proba(X[:, C:]), heads.predict_proba(X[:, C:]))


@pytest.mark.parametrize("name", MAKE)
def test_a_rival_without_users_comes_back(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MAKE[name]()
        model.fit(X, np.where(Y == 1, "yes", "no"), **needed(model))
    save(model, tmp_path)
    loaded = load(tmp_path)
    same(loaded.predict_proba(X), model.predict_proba(X))
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    assert baselines._base.known_users(loaded) == []


@pytest.mark.parametrize("name", ["LowRankRewards", "GroupRewards", "UserRewards"])
def test_what_fit_found_for_its_annotators_comes_back(name, tmp_path):
    """To the last bit, although it would follow from their votes to within the tolerance of a solver."""
    model = MAKE[name]().fit(X, Y, groups=ANNOTATOR)
    expected = model.decision_function(X, groups=ANNOTATOR)
    save(model, tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.decision_function(X, groups=ANNOTATOR), expected)


def test_heads_of_other_libraries_cannot_be_saved(tmp_path):
    class Heads(LogisticRegression):
        """Whose coef_ (1, D) is a head."""

    heads = Heads(fit_intercept=False).fit(X[:, C:], Y)
    model = baselines.HypothesisReweighting(heads, n_context_features=C).fit(X, Y)
    with pytest.raises(TypeError, match=r"expected one of MixtureBradleyTerry, .* to save, got a Heads"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_class_of_the_same_name_is_another_class(tmp_path):
    class UserRewards(baselines.UserRewards):
        pass

    with pytest.raises(TypeError, match="to save, got a UserRewards"):
        save(UserRewards(n_context_features=C).fit(X, Y), tmp_path)


def test_a_model_that_only_a_later_version_knows(tmp_path):
    from micropref._estimator.model_folder import write_folder

    write_folder(tmp_path, {}, {"estimator": "ClairvoyantRewards"})
    with pytest.raises(ModelFileError, match=r"expected one of .* in a saved model, got 'ClairvoyantRewards'"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["GroupRewards", "ContextNeighbors", "UserRewards", "MeanVarianceRewards"])
def test_training_rows_are_saved_once(name, tmp_path):
    """And lie in memory once when they are loaded, and in the pickle of the loaded model."""
    n = 6000
    rows = np.random.default_rng(0).normal(size=(n, C + 40))
    model = MAKE[name]().fit(rows, rows[:, C] > 0, groups=np.arange(n) // 20)
    save(model, tmp_path)
    one_copy = n * (C + 40) * 8
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.5 * one_copy
    loaded = load(tmp_path)
    votes = [*loaded._votes_of.values()]
    assert all(np.shares_memory(one.values, votes[0].place[0].values) for one in votes)
    assert len(pickle.dumps(loaded)) < 2.5 * one_copy  # the neighbours are laid out beside the rows


def test_the_file_has_no_names_of_private_attributes(tmp_path):
    save(taught(MAKE["LowRankRewards"]()), tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["users"][-5:] == [json.loads(json.dumps(user)) for user in content["users"][-5:]]
    assert not [name for name in content["state"] if name.startswith("_")]


# --------------------------------------------------------------------------------------------------- votes as arrays


def votes(n: int, dtype=np.float64) -> Votes:
    return Votes(rng.normal(size=(n, 3)).astype(dtype), rng.choice([-1.0, 1.0], n), rng.random(n))


def test_votes_as_arrays():
    everything = votes(10)
    parts = [everything.part(0, 4), everything.part(4, 4), everything.part(7, 10)]
    given = [*parts, None, votes(5, np.float32), everything, votes(2), votes(3, np.float32)]
    arrays = flattened(given)
    assert {name: len(array) for name, array in arrays.items()} == {
        "places": 8, "0.values": 12, "0.signs": 12, "0.weight": 12, "1.values": 8, "1.signs": 8, "1.weight": 8,
    }  # fmt: skip
    width = everything.values.shape[1]
    found = unflattened(arrays, len(given), width)
    for one, expected in zip(found, given, strict=True):
        assert (one is None) == (expected is None)
        if one is not None and expected is not None:
            for field in ("values", "signs", "weight"):
                np.testing.assert_array_equal(getattr(one, field), getattr(expected, field))
            assert one.values.dtype == expected.values.dtype
    again = flattened(found)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert unflattened(flattened([]), 0, width) == []
