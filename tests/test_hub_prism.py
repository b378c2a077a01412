"""PRISM: the choice of each turn against the other answers."""

from __future__ import annotations

import pytest
from hub_cases import prism_row, prism_talk

from micropref.datasets import (
    MalformedRowError,
    load_prism,
)


def test_prism_compares_the_chosen_with_the_others_of_its_turn() -> None:
    rows = prism_talk()
    table = load_prism(rows).train
    # Answer 0.1 has the score of the chosen one: a tie.
    assert table.chosen == ["Answer 0.2 of c7", "Answer 0.2 of c7", "Answer 1.1 of c7"]
    assert table.rejected == ["Answer 0.0 of c7", "Answer 0.3 of c7", "Answer 1.0 of c7"]
    conversation = "user: ¿Pregunta 0?\n\nassistant: Answer 0.2 of c7\n\nuser: ¿Pregunta 1?"
    assert table.prompt == ["¿Pregunta 0?", "¿Pregunta 0?", conversation]
    assert list(table.group) == ["user3"] * 3
    assert table.extra["chosen_score"] == [90, 90, 80]
    assert table.extra["rejected_score"] == [40, 5, 70]
    assert table.extra["rejected_model"] == ["model-0", "model-3", "model-0"]
    assert table.extra["chosen_model"] == ["model-2", "model-2", "model-1"]
    assert table.extra["conversation_id"] == ["c7"] * 3
    assert table.extra["turn"] == [0, 0, 1]
    assert table.context is None
    shuffled = [rows[i] for i in (5, 3, 0, 4, 2, 1)]
    assert sorted(load_prism(shuffled).train.rejected) == sorted(table.rejected)
    assert set(load_prism(shuffled).train.prompt) == set(table.prompt)


def test_prism_goes_by_the_choice_not_by_the_order() -> None:
    rows = [prism_row(0, 0, 90, True), prism_row(0, 1, 10, False)]
    assert load_prism(rows).train.chosen == load_prism(rows[::-1]).train.chosen == ["Answer 0.0 of c7"]


def test_prism_same_text_and_two_chosen_rows_are_ties() -> None:
    rows = [
        prism_row(0, 0, 90, True, model_response="Same."),
        prism_row(0, 1, 80, False, model_response="Same."),
        prism_row(0, 2, 70, True),
        prism_row(0, 3, 60, False),
    ]
    table = load_prism(rows).train
    assert (table.chosen, table.rejected) == (["Same."], ["Answer 0.3 of c7"])


def test_prism_marks_choices_that_the_scores_contradict() -> None:
    rows = [prism_row(0, 0, 50, True), prism_row(0, 1, 80, False), prism_row(0, 2, 20, False)]
    table = load_prism([*rows, *prism_talk(talk="c8")]).train
    assert table.chosen[:2] == ["Answer 0.0 of c7"] * 2
    assert table.rejected[:2] == ["Answer 0.1 of c7", "Answer 0.2 of c7"]
    assert table.extra["choice_below_score"] == [True, False, False, False, False]
    assert sum(table.extra["choice_below_score"]) == 1


def test_prism_splits_by_person() -> None:
    rows = [row for i in range(10) for row in prism_talk(user=f"user{i % 5}", talk=f"c{i}")]
    loaded = load_prism(rows, test_size=0.4, random_state=1)
    assert not set(loaded.train.group) & set(loaded.test.group)
    assert len(set(loaded.test.group)) == 2
    assert len(loaded.train) + len(loaded.test) == 30
    assert load_prism(rows).test is None


def test_prism_conversations_with_a_gap() -> None:
    unchosen = [prism_row(0, 0, 90, False), prism_row(0, 1, 10, False)]
    with pytest.raises(
        MalformedRowError, match=r"row 0: .*expected one chosen answer in turn 0 of its conversation, got none"
    ):
        load_prism(unchosen)
    later = [prism_row(1, 0, 90, True), prism_row(1, 1, 10, False)]
    with pytest.raises(
        MalformedRowError, match=r"row 0: .*expected all earlier turns .*, got turn 1 after an incomplete one"
    ):
        load_prism(later)
    with pytest.warns(UserWarning, match="2 of 10 rows are left out; the first is row 0"):
        table = load_prism([*unchosen, *later, *prism_talk(talk="c8")], skip_bad=True).train
    assert table.extra["conversation_id"] == ["c8"] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"if_chosen": None}, "expected true or false.*got None in column 'if_chosen'"),
        ({"turn": 0.5}, "expected an integer that is not negative, got 0.5 in column 'turn'"),
        ({"turn": -1}, "expected an integer that is not negative, got -1 in column 'turn'"),
        ({"score": "good"}, "expected a number.*got 'good' in column 'score'"),
        ({"score": True}, "expected a number.*got True in column 'score'"),
        ({"model_response": ""}, ".*expected text, got an empty one in column 'model_response'"),
    ],
)
def test_prism_bad_cells(changes: dict, message: str) -> None:
    with pytest.raises(MalformedRowError, match=f"row 0: {message}"):
        load_prism([prism_row(0, 0, 90, True) | changes, prism_row(0, 1, 10, False)])
