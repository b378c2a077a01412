from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from micropref.datasets.demo import load_demo
from micropref.embed import HashingEncoder

TABLES = ("train", "labelled", "test", "history")

# Of the tables of `load_demo(n_annotators=40, seed=3)`: renew it when the texts of the world change, and only then.
DIGEST = "76c7ef3951aa511cc0c41be894b92e559ccca67a4bcfcfbe38c2a31d7a79b4a0"


@pytest.fixture(scope="module")
def world():
    return load_demo()


@pytest.fixture(scope="module")
def embedded(world):
    """Differences of the answers of train and test, at an RMS norm of 8 in train."""
    row = {text: i for i, text in enumerate(world.attributes)}
    vectors = HashingEncoder().encode(list(row)).astype(np.float64)
    train, test = (
        vectors[[row[text] for text in table.chosen]] - vectors[[row[text] for text in table.rejected]]
        for table in (world.train, world.test)
    )
    scale = 8 / np.sqrt((train**2).sum(axis=1).mean())
    return scale * train, scale * test


def head(difference):
    """A Bradley-Terry model; every other row is turned around, so that both labels occur."""
    sign = np.where(np.arange(len(difference)) % 2, 1, -1)
    model = LogisticRegression(C=1 / (0.03 * len(sign)), fit_intercept=False, max_iter=500)
    return model.fit(sign[:, None] * difference, sign).coef_[0]


def test_sizes_and_columns(world):
    assert {name: len(getattr(world, name)) for name in TABLES} == {
        "train": 3200,
        "labelled": 200,
        "test": 1200,
        "history": 1000,
    }
    assert world.taste_names == ("brief", "warm", "evidence", "playful")
    for name in TABLES:
        table = getattr(world, name)
        assert (table.context is not None) == (name in ("labelled", "test"))
        assert (table.group is None) == (name == "labelled")
        assert set(table.extra) == {"taste", "probability"}
        assert set(table.extra["taste"]) == set(world.taste_names)
    assert set(Counter(world.train.group).values()) == {8}
    assert set(Counter(world.test.group).values()) == {12}
    assert set(Counter(world.history.group).values()) == {10}


def test_every_person_has_one_taste_and_tastes_are_even(world):
    taste_of = {}
    for table in (world.train, world.test, world.history):
        for person, taste in zip(table.group, table.extra["taste"], strict=True):
            assert taste_of.setdefault(person, taste) == taste
    assert set(Counter(taste_of.values()).values()) == {125}
    # The order of the people must not give their tastes away.
    annotators = [taste for person, taste in taste_of.items() if person.startswith("annotator")]
    assert len(set(annotators[::4])) == 4


def test_test_users_are_new_but_have_a_history(world):
    assert set(world.test.group) == set(world.history.group)
    assert not set(world.test.group) & set(world.train.group)


def test_test_questions_and_test_contexts_are_new(world):
    seen = {*world.train.prompt, *world.labelled.prompt, *world.history.prompt}
    assert len(set(world.test.prompt)) == 11
    assert len(seen) == 33
    assert not seen & set(world.test.prompt)
    assert not set(world.labelled.context) & set(world.test.context)


def test_a_wish_belongs_to_one_taste_and_has_many_wordings(world):
    wordings = {taste: set() for taste in world.taste_names}
    for table in (world.labelled, world.test):
        for wish, taste in zip(table.context, table.extra["taste"], strict=True):
            wordings[taste].add(wish)
    assert min(map(len, wordings.values())) >= 20
    assert len(set.union(*wordings.values())) == sum(map(len, wordings.values()))


@pytest.mark.parametrize("labels", [1, 5, 10, 50])
def test_a_budget_is_so_many_rows_of_each_taste(world, labels):
    budget = world.budget(labels)
    assert Counter(budget.extra["taste"]) == dict.fromkeys(world.taste_names, labels)
    assert budget.chosen == world.labelled.chosen[: 4 * labels]
    assert len(set(budget.context)) == 4 * min(labels, 21)


@pytest.mark.parametrize("labels", [0, 51])
def test_a_budget_that_is_not_there(world, labels):
    with pytest.raises(ValueError, match=f"from 1 to 50, got {labels}"):
        world.budget(labels)


def test_probabilities_are_those_of_the_rewards(world):
    for name in TABLES:
        table = getattr(world, name)
        taste = [world.taste_names.index(taste) for taste in table.extra["taste"]]
        margins = world.rewards(table.chosen) - world.rewards(table.rejected)
        expected = expit(margins[np.arange(len(table)), taste])
        np.testing.assert_allclose(table.extra["probability"], expected, atol=1e-8)


def test_people_choose_with_those_probabilities(world):
    probability = np.array(world.train.extra["probability"] + world.history.extra["probability"])
    confidence = np.maximum(probability, 1 - probability)
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        rows = (confidence >= low) & (confidence < high)
        assert rows.sum() > 400
        assert (probability[rows] > 0.5).mean() == pytest.approx(confidence[rows].mean(), abs=0.05)


def test_rewards_are_linear_in_attributes(world):
    answers = list(world.attributes)[:5]
    attributes = np.array([world.attributes[answer] for answer in answers])
    assert world.taste_weights.shape == (4, len(world.attribute_names))
    np.testing.assert_allclose(world.rewards(answers), attributes @ world.taste_weights.T)
    with pytest.raises(ValueError, match=r"expected an answer of this world.*'I made this up'"):
        world.rewards([answers[0], "I made this up"])


def test_answers_vary_and_are_well_formed(world):
    texts = list(world.attributes)
    attributes = np.array([world.attributes[text] for text in texts])
    assert len(texts) == 44 * 48
    assert [sorted(set(column)) for column in attributes.T] == [[0, 1, 2, 3], *[[0, 1, 2]] * 3, [0, 1]]
    correlation = np.corrcoef(attributes.T) - np.eye(5)
    assert np.abs(correlation).max() < 0.2
    for text in texts:
        assert 20 <= len(text.split()) <= 120
        assert text[0].isupper()
        assert text[-1] in ".?!"
        assert not set(text) & set("{}|")
        assert "  " not in text


def test_attributes_are_in_the_text(world):
    for text, (detail, _, evidence, _, caution) in world.attributes.items():
        assert len(re.findall(r"\b20\d\d\b", text)) == evidence
        assert text.count(" caution:") == caution
        assert ("just " in text) >= (detail == 0)
        assert ("step by step" in text) == (detail == 3)


def test_each_taste_is_predictable_up_to_its_noise_and_the_crowd_is_not(world, embedded):
    probability = np.array(world.test.extra["probability"])
    ceiling = np.maximum(probability, 1 - probability).mean()
    assert 0.82 <= ceiling <= 0.88

    train, test = embedded
    train_taste, test_taste = np.array(world.train.extra["taste"]), np.array(world.test.extra["taste"])
    # Counted by probability, not by the one label drawn, which would add its own noise to the figure.
    accuracy = np.empty(len(test))
    for taste in world.taste_names:
        rows = test_taste == taste
        right = test[rows] @ head(train[train_taste == taste]) > 0
        accuracy[rows] = np.where(right, probability[rows], 1 - probability[rows])
    assert accuracy.mean() >= ceiling - 0.05

    assert (test @ head(train) > 0).mean() <= 0.60


def test_a_wish_can_be_recognised_by_its_words(world):
    encode = HashingEncoder().encode
    found = []
    for labels in (5, 50):
        budget = world.budget(labels)
        model = LogisticRegression(C=100).fit(encode(budget.context), budget.extra["taste"])
        found.append(model.score(encode(world.test.context), world.test.extra["taste"]))
    assert found[0] >= 0.6
    assert found[1] >= 0.95


def test_the_seed_decides_everything_on_every_machine():
    world = load_demo(n_annotators=40, seed=3)
    tables = [getattr(world, name) for name in TABLES]
    rows = [
        [t.prompt, t.chosen, t.rejected, t.context, t.extra, None if t.group is None else list(t.group)] for t in tables
    ]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == DIGEST
    assert load_demo(n_annotators=40, seed=4).train.chosen != world.train.chosen


def test_number_of_annotators_and_pairs():
    world = load_demo(n_annotators=6, pairs_per_annotator=3)
    assert len(world.train) == 18
    assert len(set(world.train.group)) == 6
    assert len(set(world.train.extra["taste"])) == 4


@pytest.mark.parametrize("name", ["n_annotators", "pairs_per_annotator"])
@pytest.mark.parametrize("value", [0, 2.0])
def test_bad_counts_are_named(name, value):
    with pytest.raises(ValueError, match=f"expected {name} to be an integer of at least 1, got {value}"):
        load_demo(**{name: value})
