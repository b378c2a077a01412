"""Labels with a meaning that the caller gives: ``read_preferences(source, labels=...)``."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_cases import ROWS, table_of, write_jsonl, write_text

from micropref.datasets import MalformedRowError, read_preferences

MEANINGS = ("first", "second", "tie")


def labelled(labels):
    return [
        {"prompt": "p", "response_a": f"A{i}", "response_b": f"B{i}", "label": label} for i, label in enumerate(labels)
    ]


def verdicts(cells, mapping):
    """What a list of labels says, a letter for each row of the table: A, B, or AB for a tie."""
    return "".join(text[0] for text in read_preferences(labelled(cells), labels=mapping).chosen)


@pytest.mark.parametrize(
    ("mapping", "labels", "read"),
    [
        ({"+": "first", "-": "second", "=": "tie"}, ["+", "-", "=", " + "], "ABABA"),
        ({0: "first", 1: "second", 2: "tie"}, [0, 1, 2, 1.0, "0", "2.0", np.int64(1)], "ABABBAABB"),
        ({"0": "first", "1.0": "second", 2.0: "tie"}, [0, 1, 2], "ABAB"),
        ({"1": "first", "2": "second", "tie": "tie"}, [2, 1, "Tie"], "BAAB"),
        ({"GPT-4": "second", " Claude ": "first"}, ["gpt-4", "CLAUDE", "b", "tie", 0.5], "BABABAB"),
        ({2: "tie"}, [0, 1, 2], "BAAB"),
        ({-1: "second", 0: "tie"}, [-1, 0, 1], "BABA"),
        ({True: "second", False: "first"}, [True, False, np.True_, "true", "both"], "BABBAB"),
        ({"both": "first"}, ["both", "neither"], "AAB"),
        ({3: "tie", "never used": "first"}, [1, 3, 0], "AABB"),
        ({1: "first", 2: "first", 3: "tie", 4: "second", 5: "second"}, [5, 4, 3, 2, 1], "BBABAA"),
        ({7.5: "first", np.float64(2.5): "second"}, [7.5, "2.5"], "AB"),
        ({"none": "tie", "nan": "first"}, ["None", "NaN", "a"], "ABAA"),
        ({}, ["a", 0], "AB"),
        (None, ["a", 0], "AB"),
    ],
)
def test_a_mapping_goes_before_the_built_in_meanings(mapping, labels, read):
    assert verdicts(labels, mapping) == read


def test_ties_of_a_mapping_are_two_rows_of_half_the_weight():
    table = read_preferences(labelled([0, 1, 2]), labels={0: "first", 1: "second", 2: "tie"})
    assert table.chosen == ["A0", "B1", "A2", "B2"]
    assert table.rejected == ["B0", "A1", "B2", "A2"]
    assert table.weight.tolist() == [1, 1, 0.5, 0.5]


def spelled(label):
    text = str(label).strip().casefold()
    return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text) else text


KEYS = (
    st.text(min_size=1, max_size=6).filter(str.strip)
    | st.sampled_from(["a", "b", "model_a", "Second", "tie", "both", "true", "=", "1>2", "none", "2.0"])
    | st.integers(-3, 9)
    | st.sampled_from([0.5, 1.0, 2.0, 2.5, True, False])
)


@st.composite
def mapped_rows(draw):
    """A mapping of two or three labels, and rows that use these labels in several spellings."""
    keys = draw(st.lists(KEYS, min_size=2, max_size=3, unique_by=(spelled, lambda key: key)))
    meanings = draw(st.lists(st.sampled_from(MEANINGS), min_size=len(keys), max_size=len(keys)))
    used = draw(st.lists(st.integers(0, len(keys) - 1), min_size=1, max_size=8))
    cells = [draw(st.sampled_from([keys[i], str(keys[i]), f" {keys[i]}\t"])) for i in used]
    return dict(zip(keys, meanings, strict=True)), cells, [meanings[i] for i in used]


@given(mapped_rows())
def test_a_mapping_is_what_relabelling_the_rows_by_hand_is(case):
    mapping, cells, by_hand = case
    assert read_preferences(labelled(cells), labels=mapping) == read_preferences(labelled(by_hand))


@given(mapped_rows())
def test_swapping_first_and_second_in_a_mapping_swaps_chosen_and_rejected(case):
    mapping, cells, _ = case
    swap = {"first": "second", "second": "first", "tie": "tie"}
    table = read_preferences(labelled(cells), labels=mapping)
    swapped = read_preferences(labelled(cells), labels={label: swap[meaning] for label, meaning in mapping.items()})
    ordered = sorted(zip(table.chosen, table.rejected, strict=True))
    assert sorted(zip(swapped.rejected, swapped.chosen, strict=True)) == ordered
    assert (table.weight is None) == (swapped.weight is None)


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("mapping", "labels", "place"),
    [
        ({"+": "first"}, ["+", "-"], 1),
        ({0: "first", 1: "second"}, [0, 1, 2], 2),  # 2 is a tie there
        ({0: "first"}, [0, 1], 1),
        ({1: "second", 0: "first"}, [0, True], 1),
        ({True: "second"}, [True, 0], 1),
        ({"a": "second"}, ["a", "b"], 1),
        ({"model a": "second", "model b": "first"}, ["model_a", "model b"], 0),
    ],
)
def test_a_label_that_is_not_covered_is_a_fault_of_the_source(mapping, labels, place, skip_bad):
    with pytest.raises(MalformedRowError, match=f"the list, row {place}: expected a label in labels=.*, got the label"):
        read_preferences(labelled(labels), labels=mapping, skip_bad=skip_bad)


@pytest.mark.parametrize("label", ["maybe", 3, 7.5, "yes", "gpt-4's", "1 or 2", "=", "-", "--", "a$b"])
def test_the_error_has_the_fix_for_python_and_for_the_shell(label):
    with pytest.raises(MalformedRowError) as caught:
        read_preferences(labelled([label]))
    python, shell = re.search(r"such as labels=(\{.*\}), in the shell (.*) \(if the", str(caught.value)).groups()
    assert verdicts([label], eval(python)) == "A"
    assert shlex.split(shell) == ["--label", f"{label}=first"]


@pytest.mark.parametrize("label", ["two\nlines", "long " * 30])
def test_the_fix_has_no_label_that_cannot_be_shown(label):
    with pytest.raises(MalformedRowError, match=r"labels=\{'\.\.\.': 'first'\}") as caught:
        read_preferences(labelled([label]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("mapping", "labels", "pair"),
    [
        ({}, [1, 0, -1], "0 and -1"),
        ({-1: "second"}, [1, 0, -1], "0 and -1"),
        ({2: "second"}, [1, 2, 0], "0 and 2"),
        ({0: "tie"}, [1, 0, 2, -1], "-1 and 2"),
        ({3: "tie", 4: "second", 5: "second", 1: "first"}, [1, 2, 3, 4], "2 and 4"),
        ({2: "second", 3: "tie", 4: "first"}, [1, 2, 3, 4], "1 and 4"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_number_that_is_not_mapped_beside_another_of_its_meaning_is_refused(mapping, labels, pair, skip_bad):
    message = f"got both {pair} in column 'label', so that one of them may be a tie; say what they mean"
    with pytest.raises(ValueError, match=message) as caught:
        read_preferences(labelled(labels), labels=mapping, skip_bad=skip_bad)
    fix = eval(re.search(r"such as labels=(\{.*\}), in the shell --label", str(caught.value))[1])
    assert set(fix) == set(pair.split(" and "))
    assert "tie" in fix.values()


@pytest.mark.parametrize("numbers", [(0, -1), (0, 2), (2, -1), (0, -1, 2)])
def test_numbers_that_are_mapped_are_not_doubtful(numbers):
    mapping = dict.fromkeys(numbers, "second")
    assert verdicts([1, *numbers], mapping) == "A" + "B" * len(numbers)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({1: "one"}, "labels: expected 'first', 'second' or 'tie' as the meaning of 1, got 'one'"),
        ({"x": "First"}, "as the meaning of 'x', got 'First'"),
        ({"x": 1}, "as the meaning of 'x', got 1"),
        ({"x": ["first"]}, r"as the meaning of 'x', got \['first'\]"),
        ({None: "tie"}, "labels: expected text, numbers or booleans as labels, got None"),
        ({float("nan"): "tie"}, "labels: expected text, numbers or booleans as labels, got nan"),
        ({" ": "tie"}, "labels: expected text, numbers or booleans as labels, got ' '"),
        ({(1, 2): "tie"}, r"labels: expected text, numbers or booleans as labels, got \(1, 2\)"),
        ({b"x": "tie"}, "labels: expected text, numbers or booleans as labels, got b'x'"),
        ({"X": "first", "x ": "second"}, "labels: expected one meaning of each label, got two of 'x'"),
        ({1: "first", "1.0": "tie"}, "labels: expected one meaning of each label, got two of '1'"),
    ],
)
def test_a_mapping_that_is_none(mapping, message):
    with pytest.raises(ValueError, match=message):
        read_preferences(labelled([1]), labels=mapping)


def test_labels_that_are_no_mapping():
    with pytest.raises(TypeError, match=r"labels: expected a mapping of labels .*, got \['first'"):
        read_preferences(labelled([1]), labels=["first", "second"])


def test_one_label_in_two_spellings_of_one_meaning():
    assert verdicts(["x", 1], {"X": "first", "x": "first", "1": "first", 1: "first"}) == "AA"


# ------------------------------------------------------------------------------------------------- where labels stand


def test_labels_for_a_source_without_any():
    message = "the list: expected a column 'label' or 'preference' .*labels=.*, got the columns 'prompt', 'chosen'"
    for rows in (ROWS, [row | {"preference": "short answers"} for row in ROWS]):
        with pytest.raises(ValueError, match=message):
            read_preferences(rows, labels={"x": "first"})
    assert read_preferences(ROWS, labels={}) == read_preferences(ROWS)


def test_labels_for_a_table():
    with pytest.raises(ValueError, match=r"expected a PreferenceTable without labels=, got \{'x': 'first'\}"):
        read_preferences(table_of(2), labels={"x": "first"})


def test_a_mapping_makes_a_column_of_labels_of_a_preference():
    rows = [row | {"preference": "top"} for row in ROWS]
    with pytest.raises(ValueError, match="expected one answer to which response was preferred"):
        read_preferences(rows, labels={"top": "first"})
    rows = [{"response_a": "A", "response_b": "B", "preference": name} for name in ("top", "bottom")]
    assert read_preferences(rows, labels={"top": "first", "bottom": "second"}).chosen == ["A", "B"]


def test_a_column_of_another_name_holds_mapped_labels():
    rows = [{"response_a": "A", "response_b": "B", "winner": name} for name in ("top", "bottom")]
    table = read_preferences(rows, columns={"label": "winner"}, labels={"top": "second", "bottom": "first"})
    assert table.chosen == ["B", "A"]


def test_a_mapped_label_is_not_missing(tmp_path):
    path = write_text(tmp_path / "a.csv", "response_a,response_b,label\nA,B,NA\nA,B,none\nA,B,x\n")
    assert read_preferences(path, labels={"na": "second", "None": "tie", "x": "first"}).chosen == ["B", "A", "B", "A"]
    with pytest.raises(MalformedRowError, match="line 2: expected a label in column 'label', got 'NA'"):
        read_preferences(path, labels={"none": "tie", "x": "first"})


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_no_label_is_no_label_under_any_mapping(missing):
    with pytest.raises(MalformedRowError, match="the list, row 1: expected a label in column 'label', got"):
        read_preferences(labelled(["x", missing]), labels={"x": "first", "none": "tie", "nan": "tie"})


def test_bad_rows_are_left_out_as_without_a_mapping(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", labelled(["+", None, "-"]))
    with pytest.warns(UserWarning, match="1 of 3 rows are left out"):
        table = read_preferences(path, labels={"+": "first", "-": "second"}, skip_bad=True)
    assert (table.chosen, table.n_rejected) == (["A0", "B2"], 1)


def test_a_row_of_a_column_of_ties_needs_no_mapped_label():
    rows = [row | {"tie": row["label"] == "?"} for row in labelled(["x", "?"])]
    assert read_preferences(rows, labels={"x": "second"}).chosen == ["B0", "A1", "B1"]
