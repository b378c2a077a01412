"""Labels, ties, and columns that answer twice which response was preferred."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_cases import ROWS, write_jsonl, write_text

from micropref._rows.vocabulary import FIRST_NAMES, SECOND_NAMES
from micropref.datasets import MalformedRowError, read_preferences

FIRST = [
    1,
    True,
    1.0,
    np.int64(1),
    np.True_,
    "1",
    "1.0",
    "a",
    "A",
    " first ",
    "True",
    "model_a",
    "Model A",
    "left",
    "A>B",
]
SECOND = [
    0,
    False,
    -1,
    2,
    "0",
    "-1",
    "2",
    "2.0",
    "b",
    "second",
    "false",
    np.float32(0),
    "model_b",
    "Response 2",
    "B > A",
]
TIED = [0.5, "0.5", "tie", "Tie", "draw", "both", "neither", "tie (bothbad)", "A=B"]
LABELS = [(label, "A") for label in FIRST] + [(label, "B") for label in SECOND] + [(label, "AB") for label in TIED]


@pytest.mark.parametrize("pair", [("response_a", "response_b"), ("first", "second"), ("response_1", "response_2")])
@pytest.mark.parametrize("label_name", ["label", "preference"])
@pytest.mark.parametrize(("label", "order"), LABELS, ids=repr)
def test_labels(pair, label_name, label, order):
    table = read_preferences([{"prompt": "p", pair[0]: "A", pair[1]: "B", label_name: label}])
    assert "".join(table.chosen) == order
    assert "".join(table.rejected) == {"A": "B", "B": "A", "AB": "BA"}[order]
    assert (None if table.weight is None else table.weight.tolist()) == (None if len(order) == 1 else [0.5, 0.5])
    assert table.extra == {}


def labelled(*labels, **cells):
    return [
        {"prompt": "p", "response_a": f"A{i}", "response_b": f"B{i}", "label": label, **cells}
        for i, label in enumerate(labels)
    ]


@given(first=st.sampled_from(sorted(FIRST_NAMES)), second=st.sampled_from(sorted(SECOND_NAMES)), upper=st.booleans())
def test_every_name_of_the_vocabulary_is_understood(first, second, upper):
    names = [name.upper() if upper else name for name in (first, second)]
    assert [text[0] for text in read_preferences(labelled(*names)).chosen] == ["A", "B"]


@pytest.mark.parametrize("label", ["maybe", 3, 7.5, "yes", "gpt-4", [1], "1 or 2", "c"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_label_that_is_not_understood_is_a_fault_of_the_source(tmp_path, label, skip_bad):
    path = write_jsonl(tmp_path / "a.jsonl", labelled(1, label, 0))
    message = r"a\.jsonl, line 2: expected 1, true or a name of .*, got the label .* in column 'label'; say.*columns="
    with pytest.raises(MalformedRowError, match=message) as caught:
        read_preferences(path, skip_bad=skip_bad)
    assert repr(label) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("labels", [[0.9, 0.2], ["0.9", 1, ".25", 0], [1e-05]])
def test_what_to_do_with_probabilities(labels):
    with pytest.raises(MalformedRowError, match=r"a probability p that the first .* rows of weights p and 1 - p"):
        read_preferences(labelled(*labels))


@pytest.mark.parametrize("labels", [[1.5], [0.9, 3], ["90 %"], ["x"]])
def test_other_labels_are_no_probabilities(labels):
    with pytest.raises(MalformedRowError) as caught:
        read_preferences(labelled(*labels))
    assert "probability" not in str(caught.value)


@pytest.mark.parametrize("empty", [None, float("nan"), "", " "])
def test_a_row_without_a_label_is_a_bad_row(tmp_path, empty):
    rows = labelled(1, empty, 0)
    with pytest.raises(MalformedRowError, match="the list, row 1: expected a label in column 'label', got"):
        read_preferences(rows)
    with pytest.warns(UserWarning, match="1 of 3 rows are left out"):
        assert read_preferences(rows, skip_bad=True).chosen == ["A0", "B2"]


def test_markers_of_missing_labels_in_csv(tmp_path):
    path = write_text(tmp_path / "a.csv", "response_a,response_b,label\nA,B,1\nA,B,NA\nA,B,2\n")
    with pytest.raises(MalformedRowError, match="line 3: expected a label in column 'label', got 'NA'"):
        read_preferences(path)


@pytest.mark.parametrize("numbers", [(0, -1), (0, 2), (2, -1), ("0", "1", "2"), ("0.0", 2.0)])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_two_numbers_for_the_second_response_are_refused(numbers, skip_bad):
    with pytest.raises(ValueError, match=r"got both .* and .* in column 'label', so that one of them may be a tie"):
        read_preferences(labelled(1, *numbers), skip_bad=skip_bad)


@pytest.mark.parametrize("numbers", [(1, 0, 1), (1, -1), (1, 2, 2), (2,), (0,)])
def test_one_number_for_the_second_response_is_understood(numbers):
    chosen = read_preferences(labelled(*numbers)).chosen
    assert [text[0] for text in chosen] == ["A" if number == 1 else "B" for number in numbers]


PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (PAIR | {"label": 1}, "'chosen', 'rejected', 'label'"),
        (PAIR | {"label": "cooking"}, "'chosen', 'rejected', 'label'"),
        (PAIR | {"label": None}, "'chosen', 'rejected', 'label'"),
        (PAIR | {"preference": 0}, "'chosen', 'rejected', 'preference'"),
        (PAIR | {"response_a": "good", "response_b": "bad"}, "'chosen', 'rejected', 'response_a', 'response_b'"),
        (PAIR | {"response_1": "good", "response_2": "bad"}, "'chosen', 'rejected', 'response_1', 'response_2'"),
        (PAIR | {"response_a": "g", "response_b": "b", "label": 0}, "'chosen', .*'response_a', 'response_b', 'label'"),
        (
            {"response_a": "g", "response_b": "b", "response_1": "b", "response_2": "g", "label": 0},
            "'response_a', 'response_b', 'response_1', 'response_2', 'label'",
        ),
        ({"response_a": "g", "response_b": "b", "label": 0, "preference": 1}, "'response_a', .*'label', 'preference'"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_two_answers_to_which_response_was_preferred_are_refused(row, columns, skip_bad):
    message = f"the list: expected one answer to which response was preferred, got the columns {columns}; which one"
    with pytest.raises(ValueError, match=message) as caught:
        read_preferences([row], skip_bad=skip_bad)
    python, _, shell = str(caught.value).rpartition("columns=")[2].partition(", in the shell ")
    rename = eval(python)
    assert shlex.split(shell) == [part for new, old in rename.items() for part in ("--column", f"{new}={old}")]
    assert read_preferences([row], columns=rename).chosen == [row.get("chosen", "b")]


def test_chosen_and_rejected_with_a_label_may_be_two_responses_with_a_label():
    rows = [PAIR | {"label": 0}]
    assert read_preferences(rows, columns={"response_a": "chosen", "response_b": "rejected"}).chosen == ["bad"]


def test_a_preference_that_is_no_label_comes_along():
    assert read_preferences([PAIR | {"preference": "short answers"}]).extra == {"preference": ["short answers"]}
    table = read_preferences(labelled(0, preference="short answers"))
    assert (table.chosen, table.extra) == (["B0"], {"preference": ["short answers"]})


def test_a_tie_is_two_adjacent_rows_of_half_the_weight():
    rows = [
        row | {"weight": weight, "tie": tie, "user": "ann", "context": "c", "id": i}
        for i, (row, weight, tie) in enumerate(zip(ROWS, [1, 3, 0], [False, True, None], strict=True))
    ]
    table = read_preferences(rows)
    assert table.chosen == ["Yes.", "A little.", "A lot.", "Green."]
    assert table.rejected == ["No.", "A lot.", "A little.", "Black."]
    assert table.weight.tolist() == [1, 1.5, 1.5, 0]
    assert table.extra == {"id": [0, 1, 1, 2]}
    assert table.group.tolist() == ["ann"] * 4


@pytest.mark.parametrize("tie", [True, 1, "true", "1", "True"])
def test_a_tie_column_needs_no_label(tie):
    table = read_preferences([{"response_a": "A", "response_b": "B", "label": None, "tie": tie}])
    assert table.chosen == ["A", "B"]
