"""Stand-ins of published sets: their schema, their splits, and what is planted in them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hub_cases import LOADERS, ROWS, bench_row, first_table
from sklearn.linear_model import LogisticRegression

from micropref.datasets import PreferenceTable
from micropref.datasets.hub.helpsteer2 import HELPSTEER2_CONTEXTS
from micropref.datasets.stand_ins import (
    ATTRIBUTES,
    RPR_CATEGORIES,
    STAND_INS,
    USER_TASTES,
    make_stand_in,
    planted_levels,
)
from micropref.embed import HashingEncoder

every_set = pytest.mark.parametrize("name", STAND_INS)


def load(name: str, **settings):
    if name == "reward_bench_v1":
        settings["version"], name = 1, "reward_bench"
    return LOADERS[f"load_{name}"](**settings)


@every_set
def test_every_loader_reads_its_stand_in(name):
    records = make_stand_in(name, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no row is left out
        loaded = load(name, source=records)
    table = first_table(loaded)
    assert len(table) >= 30
    assert table.n_rejected == 0
    example = bench_row() if name == "reward_bench_v1" else ROWS[f"load_{name}"][0]
    added = {"hh_rlhf": {"subset"}}.get(name, set())  # on the hub, the folder says it
    for split in records.values():
        for record in split:
            assert set(record) == set(example) | added
            assert {key: type(value) for key, value in record.items() if key not in added} == {
                key: type(value) for key, value in example.items()
            }


@every_set
def test_a_seed_gives_the_same_records(name):
    assert make_stand_in(name, 16, random_state=3) == make_stand_in(name, 16, random_state=3)
    assert make_stand_in(name, 16, random_state=3) != make_stand_in(name, 16, random_state=4)


def test_sizes_and_splits():
    assert {name: {split: len(rows) for split, rows in make_stand_in(name, 80).items()} for name in STAND_INS} == {
        "helpsteer2": {"train": 80, "validation": 20},
        "hh_rlhf": {"train": 80, "test": 20},
        "personal_reward_bench": {"train": 48, "val": 16, "test": 16},
        "prism": {"train": 84},
        "reward_bench": {"test": 80},
        "reward_bench_v1": {"filtered": 40, "raw": 80},
        "rpr": {"train": 80, "test": 20},
        "ultrafeedback": {"train": 80},
    }


@pytest.mark.parametrize("n", [7, 2.5, True, "many"])
def test_sizes_that_are_none(n):
    with pytest.raises(ValueError, match=r"expected n to be an integer of at least 8, got"):
        make_stand_in("rpr", n)
    with pytest.raises(ValueError, match=r"expected a set with a stand-in, one of 'helpsteer2', .*got 'demo'"):
        make_stand_in("demo")


def _margins(table: PreferenceTable, taste: dict[str, float]) -> np.ndarray:
    weights = np.array([taste.get(name, 0.0) for name in ATTRIBUTES])
    return (planted_levels(table.chosen) - planted_levels(table.rejected)) @ weights


def _share(margins: np.ndarray) -> float:
    """How often the taste is right; ties count half."""
    return float((margins > 0).mean() + (margins == 0).mean() / 2)


def test_what_is_planted_in_rpr():
    table = load("rpr", source=make_stand_in("rpr", 2000)).train
    category = np.array(table.extra["category"])
    for name, taste in RPR_CATEGORIES.items():
        rows = np.flatnonzero(category == name)
        assert len(rows) > 200
        own = _share(_margins(table[rows], taste))
        others = [_share(_margins(table[rows], other)) for key, other in RPR_CATEGORIES.items() if key != name]
        assert 0.8 < own < 0.99  # with noise
        assert own > max(others)


def test_what_is_planted_in_ratings():
    table = load("helpsteer2", source=make_stand_in("helpsteer2", 2000)).train
    attribute = np.array(table.extra["attribute"])
    for name in HELPSTEER2_CONTEXTS:
        margins = _margins(table[np.flatnonzero(attribute == name)], {name: 1.0})
        assert 0.85 < _share(margins) < 0.99
    table = load("ultrafeedback", source=make_stand_in("ultrafeedback", 100)).train
    honest = table[[row for row, aspect in enumerate(table.extra["aspect"]) if aspect == "honesty"]]
    assert 0.85 < (_margins(honest, {"candour": 1.0}) >= 0).mean() < 0.99


@pytest.mark.parametrize("name", ["prism", "personal_reward_bench"])
def test_users_have_one_of_the_planted_tastes(name):
    table = first_table(load(name, source=make_stand_in(name)))
    right = np.stack([_margins(table, taste) > 0 for taste in USER_TASTES])
    users = np.unique(table.group)
    of_user = np.array([right[:, np.asarray(table.group) == user].mean(axis=1) for user in users])
    best = of_user.max(axis=1)
    assert len(users) > 50
    assert best.mean() > 0.75 > of_user.mean() + 0.1
    assert np.bincount(of_user.argmax(axis=1)).min() > len(users) / 8


def test_right_answers_and_subsets():
    table = load("reward_bench", source=make_stand_in("reward_bench", 120)).test
    assert set(table.extra["subset"]) == {"Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"}
    assert (_margins(table, {"correctness": 1.0}) > 0).all()
    table = load("hh_rlhf", source=make_stand_in("hh_rlhf", 600)).train
    harmless = np.array(table.extra["subset"]) == "harmless-base"
    helpful = _margins(table, {"helpfulness": 1.0})
    assert helpful[harmless].mean() < -0.3 < 0.3 < helpful[~harmless].mean()


def test_the_hashing_encoder_learns_what_is_planted():
    """One reward for each category of RPR beats one for all of them, on pairs that were not seen."""
    loaded = load("rpr", source=make_stand_in("rpr", 1500))
    encoder = HashingEncoder(256)

    def rows(table):
        keep = [row for row, name in enumerate(table.extra["category"]) if name in RPR_CATEGORIES]
        table = table[keep]
        return encoder.encode(table.chosen) - encoder.encode(table.rejected), np.array(table.extra["category"])

    (D, category), (D_test, category_test) = rows(loaded.train), rows(loaded.test)

    def reward(rows):
        both = np.concatenate([D[rows], -D[rows]])
        model = LogisticRegression(C=30.0, fit_intercept=False)
        return model.fit(both, np.repeat([1, 0], len(rows))).coef_[0]

    single = (D_test @ reward(np.arange(len(D))) > 0).mean()
    own = [(D_test[category_test == c] @ reward(np.flatnonzero(category == c)) > 0) for c in RPR_CATEGORIES]
    heads = np.concatenate(own).mean()
    assert 0.5 < single < 0.75
    assert single + 0.05 < heads < 0.95
