"""PreferenceModel.suggest: tables of texts as candidates, users, contexts, and what was answered."""

from __future__ import annotations

import numpy as np
import pytest

from micropref import PreferenceModel, load_demo, read_preferences
from micropref._rows.pair_keys import NoQuestionLeftError


@pytest.fixture(scope="module")
def world():
    return load_demo(n_annotators=120)


@pytest.fixture(scope="module")
def model(world):
    return PreferenceModel.fit(world.train, n_components=4, alpha=1e-3, random_state=0)


@pytest.fixture(scope="module")
def routed(model, world):
    again = PreferenceModel(model.encoder, model.mixture)
    return again.route(world.labelled)


def records(table, label=None):
    rows = zip(table.prompt, table.chosen, table.rejected, strict=True)
    found = [{"prompt": p, "response_a": a, "response_b": b} for p, a, b in rows]
    return found if label is None else [{**row, "label": label} for row in found]


def vote(table, row, user):
    return {"prompt": [table.prompt[row]], "chosen": [table.chosen[row]], "rejected": [table.rejected[row]],
            "group": [user]}  # fmt: skip


@pytest.mark.parametrize("which", ["model", "routed"])
def test_what_is_asked_is_what_the_router_asks(which, world, request):
    model = request.getfixturevalue(which)
    candidates = world.labelled[:20]
    information = model.expected_information(candidates, "me")
    assert information.shape == (20,)
    assert model.suggest(candidates, user="me").tolist() == [int(information.argmax())]
    rows = model.suggest(candidates, 4, "me")
    assert len(set(rows.tolist())) == 4
    bare = records(candidates)
    contexts = {} if which == "model" else {"context": ""}
    expected = model.suggest(candidates, 4, "me", **({"context": ""} if contexts else {}))
    assert model.suggest(bare, 4, "me").tolist() == expected.tolist()
    # Labels, whichever they are, are not read.
    for label in ("a", "b"):
        assert model.suggest(records(candidates, label), 4, "me").tolist() == expected.tolist()
    assert model.suggest(bare, 4).tolist() == model.suggest(bare, 4, "never seen").tolist()


def test_asking_a_model_without_a_router_changes_nothing(model, world):
    model.suggest(world.labelled[:5], user="me")
    model.expected_information(world.labelled[:5], "me")
    assert model.router is None


def test_a_comparison_that_was_answered_is_not_asked_again(model, world, tmp_path):
    candidates = world.labelled[:3]
    asked = PreferenceModel(model.encoder, model.mixture)
    for left in (2, 1, 0):
        row = int(asked.suggest(candidates, user="me")[0])
        asked.route(vote(candidates, row, "me"))
        assert len(asked.suggest(candidates, 3, user="you")) == 3
        if left:
            assert row not in asked.suggest(candidates, left, user="me")
    asked.save(tmp_path / "model")
    swapped = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} for row in records(candidates)]
    for each in (asked, PreferenceModel.load(tmp_path / "model")):
        for table in (candidates, swapped):
            with pytest.raises(NoQuestionLeftError):
                each.suggest(table, user="me")


def test_contexts_and_targets(routed, world):
    candidates = world.labelled[:20]
    wish = world.labelled.context[0]
    known, open_ = (routed.expected_information(candidates, context=c).mean() for c in (wish, ""))
    assert known < open_
    given = read_preferences(records(candidates, "a"))
    assert routed.suggest(given, 2, context=wish).tolist() == routed.suggest(candidates, 2, context=wish).tolist()
    rows = routed.suggest(candidates, 2, "me", target=world.test[:20])
    assert rows.tolist() == routed.suggest(candidates, 2, "me", strategy="epig", target=world.test[:20]).tolist()
    assert len(routed.suggest(candidates, 3, "me", strategy="epig")) == 3


def test_what_cannot_be_asked(model, world):
    with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 5, .* got 6"):
        model.suggest(world.labelled[:5], 6)
    with pytest.raises(ValueError, match="strategy: expected one of"):
        model.suggest(world.labelled[:5], strategy="best")
    with pytest.raises(ValueError, match="group: expected"):
        model.suggest(world.labelled[:5], user=True)


def test_questions_find_a_taste_sooner_than_drawn_ones(model, world):
    """Users of the demo want what their contexts say."""
    wishes = sorted(set(world.labelled.context))[::4]
    rows = {wish: [i for i, c in enumerate(world.labelled.context) if c == wish] for wish in wishes}
    assert min(map(len, rows.values())) >= 1
    router = PreferenceModel(model.encoder, model.mixture)
    row = int(router.suggest(world.labelled, user="me")[0])
    weights = router.route(vote(world.labelled, row, "me")).router.mixture_weights(
        router.encoder.encode_pairs(world.labelled[:1], ()), groups=["me"]
    )
    assert weights.max() > np.max(model.mixture.weights_) + 0.05
