"""Labels: which response won. No name that says so is ever taken in sorted order."""

from __future__ import annotations

import enum
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from micropref import ContextRouter, MixtureBradleyTerry
from micropref._rows.labels import check_labels, distinct_labels
from micropref._rows.vocabulary import FIRST_NAMES, SECOND_NAMES, TIE_NAMES, meaning_of, normalized


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# ---------------------------------------------------------------------------------------------------------- vocabulary

NAMES = [
    ("a", "b"),
    ("A", "B"),
    ("model_a", "model_b"),
    ("Model A", "Model B"),
    ("model-a", "model-b"),
    ("modelA", "modelB"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("output_a", "output_b"),
    ("completion_a", "completion_b"),
    ("assistant_a", "assistant_b"),
    ("first", "second"),
    ("FIRST", "SECOND"),
    ("1st", "2nd"),
    ("left", "right"),
    ("chosen", "rejected"),
    ("response_1", "response_2"),
    ("Response 1", "Response 2"),
    ("response1", "response2"),
    ("model_1", "model_2"),
    ("first response", "second response"),
    ("a>b", "b>a"),
    ("A > B", "A < B"),
    ("[[A>B]]", "[[B>A]]"),
    ("[[A>>B]]", "[[B>>A]]"),
    ("[[A]]", "[[B]]"),
    ("1>2", "2>1"),
    ("A wins", "B wins"),
    ("a_is_better", "b_is_better"),
    ("winner_model_a", "winner_model_b"),
    ("better", "worse"),
    ("accepted", "rejected"),
    ("b loses", "a loses"),
    ("Response 2 is worse", "Response 1 is worse"),
]
TIES = ["tie", "Tie", "draw", "equal", "same", "both", "neither", "a=b", "A = B", "[[A=B]]", "tie (bothbad)"]
TIES += ["both_bad", "both bad", "bothbad", "no preference", "about the same"]


@pytest.mark.parametrize(("first", "second"), NAMES)
def test_names_of_both_responses(first, second):
    assert meaning_of(first) == "first"
    assert meaning_of(second) == "second"
    assert meaning_of(f" {first}\n") == "first"
    assert meaning_of(second.encode()) == "second"


@pytest.mark.parametrize("name", TIES)
def test_names_of_ties(name):
    assert meaning_of(name) == "tie"


@pytest.mark.parametrize(
    "label", [0, 1, 2, -1, 0.5, True, None, "", "0", "1", "2", "yes", "no", "one", "two", "win", "gpt-4", "c", ("a",)]
)
def test_numbers_and_other_names_have_no_meaning(label):
    assert meaning_of(label) is None


def test_no_name_has_two_meanings_and_all_are_normalized():
    every = [*FIRST_NAMES, *SECOND_NAMES, *TIE_NAMES]
    assert len(set(every)) == len(every)
    assert [name for name in every if normalized(name) != name] == []
    assert len(FIRST_NAMES) > 500 < len(SECOND_NAMES)


# -------------------------------------------------------------------------------------------------------------- names

ROWS = np.random.default_rng(0).normal(size=(60, 2))
WON = ROWS[:, 0] > 0


@st.composite
def spelled(draw, names):
    name = draw(st.sampled_from(sorted(names)))
    cased = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in name)
    return cased.replace("_", draw(st.sampled_from(["_", " ", "-"])))


@given(
    first=spelled(FIRST_NAMES), second=spelled(SECOND_NAMES), kind=st.sampled_from([list, np.array, objects, pd.Series])
)
def test_names_are_refused_with_the_line_that_resolves_it(first, second, kind):
    y = kind([first if won else second for won in WON])
    for fit in (MixtureBradleyTerry(1).fit, MixtureBradleyTerry(1).partial_fit):
        with pytest.raises(ValueError, match=r"expected labels that say .*got .* and .*; pass y ==") as caught:
            fit(ROWS, y)
        assert repr(first) in str(caught.value)
    line = str(caught.value).rpartition("pass ")[2]
    assert (eval(line, {"y": np.array(y), "np": np}) == WON).all()


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (["model_a", "model_a"], "pass y == 'model_a'"),
        (["model_b", "model_b"], "pass y != 'model_b'"),
        (["A", "a", "b"], r"pass np.isin\(y, \['A', 'a'\]\)"),
        (["B", "b"], r"pass ~np.isin\(y, \['B', 'b'\]\)"),
        (["response_0", "response_1"], "pass y == L with the label L that means 'first preferred'$"),
        (["model_a", "gpt"], "pass y == L with the label L that means 'first preferred'$"),
        (["model_a", "model_b", "tie"], "pass y == 'model_a'; a tie is two rows of weight 1/2, one in each order$"),
        (["tie", "tie"], "pass y == L .*a tie is two rows of weight 1/2"),
        ([b"model_a", b"model_b"], "pass y == b'model_a'"),
        ([1, "model_a"], "pass y == L"),
        (["model_a", "model_b", "tie (bothbad)", "tie", "x", "y"], r"'model_b', 'tie \(bothbad\)', 'tie', \.\.\.;"),
    ],
)
def test_the_line_for_other_mixtures_of_names(labels, line):
    for read in (check_labels, distinct_labels):
        if read is distinct_labels and len(set(labels)) == 1:
            continue
        with pytest.raises(ValueError, match=line):
            read(objects(labels), len(labels))


@pytest.mark.parametrize("classes", [["a", "b"], ["model_a", "x"], ["x", "Model B"], ["tie", "a"], ["b", "tie"]])
def test_classes_that_contradict_their_names(classes):
    with pytest.raises(ValueError, match=r"expected classes=\[second, first\], got .*; pass y .="):
        check_labels(classes[:1], 1, classes=classes)
    with pytest.raises(ValueError, match="expected classes="):
        MixtureBradleyTerry(1).partial_fit(ROWS, np.where(WON, *classes), classes=classes)


@given(first=spelled(FIRST_NAMES), second=spelled(SECOND_NAMES))
def test_classes_that_agree_with_their_names(first, second):
    y = [first if won else second for won in WON]
    assert (check_labels(y, len(y), classes=[second, first])[0] == np.where(WON, 1, -1)).all()


def test_routers_refuse_names_too():
    heads = MixtureBradleyTerry(2, random_state=0).fit(ROWS, WON)
    for learn in (ContextRouter(heads).fit, ContextRouter(heads).partial_fit):
        with pytest.raises(ValueError, match="pass y == 'left'"):
            learn(ROWS, np.where(WON, "left", "right"))


def test_fit_says_which_of_two_labels_it_took_for_first():
    with pytest.warns(UserWarning, match="'yes' was read as 'first preferred'") as caught:
        model = MixtureBradleyTerry(1).fit(ROWS, np.where(WON, "yes", "no"))
    assert [one.filename for one in caught] == [__file__]
    assert model.coef_[0, 0] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(ROWS, np.where(WON, "yes", "no"))
        model.fit(ROWS, WON)
        MixtureBradleyTerry(1).partial_fit(ROWS, np.where(WON, "yes", "no"), classes=["no", "yes"])


# ------------------------------------------------------------------------------------------------------------- arrays

SECOND_FIRST = [
    [0, 1],
    [0.0, 1.0],
    [-1, 1],
    [-1.0, 1.0],
    [False, True],
    np.array([0, 1], dtype=np.uint8),
    torch.tensor([0, 1]),
    torch.tensor([-1.0, 1.0]),
    torch.tensor([False, True]),
]


@pytest.mark.parametrize("pair", SECOND_FIRST, ids=repr)
def test_conventional_labels_mean_the_same_alone_and_together(pair):
    together, classes = check_labels(pair, 2)
    assert together.tolist() == [-1, 1]
    assert together.dtype == np.int8
    second, first = (check_labels(part, 1) for part in (pair[:1], pair[1:]))
    assert second[0].tolist() == [-1]
    assert first[0].tolist() == [1]
    assert classes.tolist() == [float(v) for v in pair]
    assert second[1].tolist() == classes.tolist()


def test_a_lone_one_may_be_followed_by_zero_or_by_minus_one():
    _, classes = check_labels([1], 1)
    assert classes.tolist() == [0, 1]
    for label in (0, -1, False):
        signs, kept = check_labels([label, 1], 2, classes=classes)
        assert signs.tolist() == [-1, 1]
        assert kept.tolist() == [0, 1]


@pytest.mark.parametrize("labels", [["yes", "no", "yes"], [7, 3, 7], ["two", "one", "two"], [2, 1, 2]])
@pytest.mark.parametrize("kind", [list, np.array, objects])
def test_other_labels_stand_in_sorted_order_and_a_warning_says_so(labels, kind):
    larger, smaller = labels[:2]
    message = f"labels {smaller!r} and {larger!r}: {larger!r} was read as 'first preferred'.*pass y == {larger!r}"
    with pytest.warns(UserWarning, match=message) as caught:
        signs, classes = check_labels(kind(labels), 3)
    assert caught[0].filename == __file__
    assert signs.tolist() == [1, -1, 1]
    assert classes.tolist() == [smaller, larger]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_labels(kind(labels), 3, classes=classes)[0].tolist() == [1, -1, 1]
        assert distinct_labels(kind(labels), 3).tolist() == [smaller, larger]


def test_classes_say_what_a_lone_label_means_even_against_the_alphabet():
    assert check_labels(["win"], 1, classes=["win", "loss"])[0].tolist() == [-1]
    assert check_labels(["win"], 1, classes=["loss", "win"])[0].tolist() == [1]
    assert check_labels([1], 1, classes=[1, 0])[0].tolist() == [-1]
    assert check_labels([1], 1, classes=torch.tensor([0, 1]))[0].tolist() == [1]


def test_no_labels_mean_first_preferred():
    signs, classes = check_labels(None, 5)
    assert signs is None
    assert classes.tolist() == [0, 1]
    assert check_labels(None, 5, classes=["no", "yes"])[1].tolist() == ["no", "yes"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "Only binary classification is supported.*multiclass.*got 3 different labels: 0, 1 and 2"),
        ([-1, 0, 1], "Only binary classification is supported.*got 3 .*a tie is two rows of weight 1/2"),
        (["x", "y", "z"], "Only binary classification is supported.*got 3 different labels"),
        (["x", "x", "x"], r"got only one class, .*'x'.*cannot be known.*partial_fit"),
        ([5, 5, 5], "got only one class, 5"),
        ([0.0, np.nan, 1.0], "y: expected labels that are finite, got nan in row 1"),
        ([0.0, 1.0, np.inf], "y: expected labels that are finite, got inf in row 2"),
        ([0.1, 0.2, 0.3], r"Unknown label type: continuous.*got 0.1 in row 0; a probability p .* weights p and 1 - p"),
        ([0.5, 0.9, 1.0], "got 0.5 in row 0; a probability p"),
        ([0.5, 1.5, 0.2], "got 0.5 in row 0; a tie is two rows"),
        ([0, 1, 0.5], "Unknown label type: continuous.*got 0.5 in row 2; a tie is two rows of weight 1/2"),
        (torch.tensor([0, 0.5, 1]), "Unknown label type: continuous.*got 0.5 in row 1; a tie is two rows"),
        ([0, -1, 0], "0 and -1, which both mean that the second response is preferred"),
        ([0, 1], "X has 3 rows, y has 2"),
        ([0, 1, 0, 1], "X has 3 rows, y has 4"),
        (5, "1d array"),
        ([[0, 1], [0, 1], [1, 1]], "1d array"),
        (sparse.csr_matrix([[0], [1], [1]]), "got a sparse one; pass y.toarray"),
        (sparse.coo_array([0, 1, 1]), "got a sparse one; pass y.toarray"),
        (torch.tensor([0, 1, 1]).to_sparse(), "got a sparse one"),
    ],
    ids=repr,
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 3)


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", "b", "c"], [], "ab"])
def test_bad_classes(classes):
    with pytest.raises(ValueError, match="classes: expected two different labels"):
        check_labels([1], 1, classes=classes)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["no", "c"], ["no", "yes"], r"y: expected one of the classes \['no', 'yes'\], got the label 'c' in row 1"),
        ([1, 0], ["no", "yes"], r"label .*1.* in row 0"),
        (["a"], [0, 1], r"label .*'a'.* in row 0"),
        ([1, "tie"], [0, 1], r"label 'tie' in row 1.*a tie is two rows of weight 1/2"),
        ([1, 0.5], [0, 1], r"label 0.5 in row 1.*a tie is two rows of weight 1/2"),
        ([0, 2], [0, 1], r"label .*2.* in row 1"),
        ([3, 0], [3, 4], r"label .*0.* in row 1"),
    ],
)
def test_labels_that_are_none_of_the_classes(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, len(labels), classes=classes)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_all_spellings_of_two_labels_agree(first):
    want = [1 if f else -1 for f in first]
    for second_label, first_label in ((0, 1), (-1, 1), (False, True), (0.0, 1.0)):
        labels = [first_label if f else second_label for f in first]
        assert check_labels(labels, len(first))[0].tolist() == want
    strings = ["yes" if f else "no" for f in first]
    assert check_labels(strings, len(first), classes=["no", "yes"])[0].tolist() == want


@pytest.mark.parametrize("labels", [[True, False, True], [1, 0, 1], [1, -1, 1], ["yes", "no", "yes"]])
def test_labels_in_columns_of_objects(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signs, classes = check_labels(np.array(labels, dtype=object), 3)
    assert signs.tolist() == [1, -1, 1]
    assert classes.tolist() == [labels[1], labels[0]]


class _Winner(str, enum.Enum):  # noqa: UP042 - the idiom from before StrEnum
    A = "model_a"
    B = "model_b"


@pytest.mark.parametrize("kind", [list, objects])
def test_members_of_an_enumeration_of_texts_are_their_texts(kind):
    labels = kind([_Winner.A, _Winner.B, _Winner.A])
    with pytest.raises(ValueError, match="got 'model_a' and 'model_b'; pass y == 'model_a'"):
        check_labels(labels, 3)


def test_booleans_are_no_labels_beside_classes_that_one_of_them_equals():
    with pytest.raises(ValueError, match=r"expected the labels \[1, 2\], got True or False"):
        check_labels(np.array([True, False]), 2, classes=[1, 2])
    np.testing.assert_array_equal(check_labels(np.array([True, False]), 2, classes=[0, 1])[0], [1, -1])


@pytest.mark.parametrize(
    ("first", "second"),
    [("(A)", "(B)"), ("'A'", '"B"'), ("A.", "B."), ("Ａ", "Ｂ"), ("L", "R"), ("Model A:", "Model B:")],
)
def test_marks_around_a_name_do_not_hide_it(first, second):
    assert meaning_of(first) == "first"
    assert meaning_of(second) == "second"
