"""Labels, weights, groups and matrices: what they mean, and what their errors say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from micropref._rows import groups
from micropref._rows.groups import check_groups
from micropref._rows.labels import check_labels
from micropref._rows.matrix import check_context_width, check_matrix
from micropref._rows.weights import check_sample_weight


class Estimator(BaseEstimator):
    pass


def fitted(n_features):
    estimator = Estimator()
    estimator.n_features_in_ = n_features
    return estimator


# -------------------------------------------------------------------------------------------------------------- labels

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


@pytest.mark.parametrize(
    "labels", [["b", "a", "b"], np.array(["b", "a", "b"], dtype=object), [7, 3, 7], [2.5, 2.0, 2.5]]
)
def test_other_labels_stand_in_sorted_order(labels):
    if isinstance(labels[0], float):
        with pytest.raises(ValueError, match="continuous"):
            check_labels(labels, 3)
        return
    signs, classes = check_labels(labels, 3)
    assert signs.tolist() == [1, -1, 1]
    assert classes.tolist() == sorted({*labels})


def test_classes_say_what_a_lone_label_means_even_against_the_alphabet():
    assert check_labels(["win"], 1, classes=["win", "loss"])[0].tolist() == [-1]
    assert check_labels(["win"], 1, classes=["loss", "win"])[0].tolist() == [1]
    assert check_labels([1], 1, classes=[1, 0])[0].tolist() == [-1]
    assert check_labels([1], 1, classes=torch.tensor([0, 1]))[0].tolist() == [1]


def test_no_labels_mean_first_preferred():
    signs, classes = check_labels(None, 5)
    assert signs is None
    assert classes.tolist() == [0, 1]
    assert check_labels(None, 5, classes=["a", "b"])[1].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "y has 3 different labels"),
        ([-1, 0, 1], "y has 3 different labels"),
        (["a", "b", "c"], "y has 3 different labels"),
        (["a", "a", "a"], r"only one class, .*'a'.*cannot be known.*partial_fit"),
        ([5, 5, 5], "only one class, .*5"),
        ([0.0, np.nan, 1.0], "NaN or infinity: nan in row 1"),
        ([0.0, 1.0, np.inf], "NaN or infinity: inf in row 2"),
        ([0.1, 0.2, 0.3], "continuous"),
        ([0, 1], "X has 3 rows, y has 2"),
        ([0, 1, 0, 1], "X has 3 rows, y has 4"),
        (5, "1d array"),
        ([[0, 1], [0, 1], [1, 1]], "1d array"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, 3)


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", "b", "c"], [], "ab"])
def test_bad_classes(classes):
    with pytest.raises(ValueError, match="classes must hold two different labels"):
        check_labels([1], 1, classes=classes)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (["a", "c"], ["a", "b"], r"label .*'c'.* in row 1; the classes are \['a', 'b'\]"),
        ([1, 0], ["a", "b"], r"label .*1.* in row 0"),
        (["a"], [0, 1], r"label .*'a'.* in row 0"),
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


# ------------------------------------------------------------------------------------------------------------- weights


def test_weights_become_double_precision():
    for given_weights in ([1, 2], np.array([1, 2], dtype=np.float16), torch.tensor([1.0, 2.0])):
        weight = check_sample_weight(given_weights, 2)
        assert weight.dtype == np.float64
        assert weight.tolist() == [1, 2]
    assert check_sample_weight(3, 2).tolist() == [3, 3]
    assert check_sample_weight(None, 2) is None


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, 2.0], r"sample_weight.shape == \(2,\), expected \(3,\)"),
        ([[1.0], [1.0], [1.0]], "1D array or scalar"),
        ([1.0, np.nan, np.nan], "NaN or infinity in row 1"),
        ([1.0, 1.0, np.inf], "NaN or infinity in row 2"),
        ([1.0, -1.0, -5.0], r"not be negative; row 1 has -1\.0"),
        ([0.0, 0.0, 0.0], "zero in every row"),
        (0.0, "zero in every row"),
    ],
)
def test_bad_weights(weight, message):
    with pytest.raises(ValueError, match=message):
        check_sample_weight(weight, 3)


# -------------------------------------------------------------------------------------------------------------- groups


def plain_groups(ids, is_missing):
    present = sorted({u for u in ids if not is_missing(u)})
    return present, [-1 if is_missing(u) else present.index(u) for u in ids]


DTYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_integer_groups(dtype, data):
    limits = np.iinfo(dtype)
    low = data.draw(st.integers(limits.min, limits.max))
    span = data.draw(st.sampled_from([0, 5, 60, 250, 10**5, 2**63]))
    ids = data.draw(st.lists(st.integers(low, min(low + span, limits.max)), min_size=1, max_size=80))
    if data.draw(st.booleans()) and limits.min < 0:
        ids.append(-1)
    present, index = plain_groups(ids, lambda u: u == -1)
    found = check_groups(np.array(ids, dtype=dtype), len(ids))
    if not present:
        assert found is None
        return
    assert found.ids.tolist() == present
    assert found.index.tolist() == index
    assert found.index.dtype == np.int32
    assert found.n_groups == len(present)


@pytest.mark.parametrize(("dtype", "reach"), [(np.int8, 120), (np.int16, 30_000)])
def test_ids_further_apart_than_their_type_can_say(dtype, reach):
    ids = np.random.default_rng(0).integers(-reach, reach, size=reach).astype(dtype)
    present, index = plain_groups(ids.tolist()[:50], lambda u: u == -1)
    found = check_groups(ids, reach)
    assert found.ids.tolist() == sorted({*ids.tolist()} - {-1})
    assert found.ids[found.index[:50]].tolist() == [present[i] for i in index]


def test_integer_groups_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr(groups, "_CHUNK", 7)
    ids = np.random.default_rng(0).integers(-1, 30, size=100)
    present, index = plain_groups(ids.tolist(), lambda u: u == -1)
    found = check_groups(ids, 100)
    assert found.ids.tolist() == present
    assert found.index.tolist() == index


GAPS = [None, np.nan, float("nan"), -1, np.int64(-1), np.float32(-1), pd.NA, pd.NaT]


@pytest.mark.parametrize("gap", GAPS, ids=repr)
def test_every_kind_of_gap_is_ungrouped(gap):
    for ids in (["b", "a", gap, "b"], np.array(["b", "a", gap, "b"], dtype=object), pd.Series(["b", "a", gap, "b"])):
        found = check_groups(ids, 4)
        assert found.index.tolist() == [1, 0, -1, 1]
        assert found.ids.tolist() == ["a", "b"]
    assert check_groups(np.array([gap, gap], dtype=object), 2) is None


def test_the_same_group_ids_whatever_holds_them():
    kinds = [
        [7, -1, 3, 7],
        (7, -1, 3, 7),
        np.array([7.0, np.nan, 3.0, 7.0]),
        np.array([7.0, -1.0, 3.0, 7.0], dtype=np.float16),
        np.array([7, None, 3, 7], dtype=object),
        pd.Series([7, None, 3, 7]),
        pd.Series([7, None, 3, 7], dtype="Int64"),
        torch.tensor([7, -1, 3, 7]),
        torch.tensor([7, torch.nan, 3, 7]),
    ]
    for ids in kinds:
        found = check_groups(ids, 4)
        assert found.ids.tolist() == [3, 7], ids
        assert found.index.tolist() == [1, -1, 0, 1]
        assert {hash(u) for u in found.ids.tolist()} == {hash(3), hash(7)}


@pytest.mark.parametrize("ids", [["b", "a", "b"], np.array(["b", "a", "b"]), np.array(["b", "a", "b"], dtype=object)])
def test_strings_stand_in_ascending_order(ids):
    found = check_groups(ids, 3)
    assert found.ids.tolist() == ["a", "b"]
    assert found.index.tolist() == [1, 0, 1]


def test_ids_without_an_order_stand_as_they_come():
    found = check_groups(np.array(["b", 7, "b", None], dtype=object), 4)
    assert found.ids.tolist() == ["b", 7]
    assert found.index.tolist() == [0, 1, 0, -1]
    pairs = np.empty(2, dtype=object)
    pairs[:] = [("x", 1), ("x", 0)]
    assert check_groups(pairs, 2).index.tolist() == [1, 0]


def test_fractions_and_infinity_are_ids_of_their_own():
    assert check_groups([1.5, 2.0, 1.5], 3).index.tolist() == [0, 1, 0]
    assert check_groups([1.0, np.inf, 1e30, np.inf], 4).index.tolist() == [0, 2, 1, 2]


def test_one_row_at_a_time():
    given_ids = np.array([5])
    found = check_groups(given_ids, 1)
    given_ids[0] = 6
    assert found.ids.tolist() == [5]
    assert found.index.tolist() == [0]
    assert check_groups([-1], 1) is None
    assert check_groups(["u"], 1).ids.tolist() == ["u"]
    assert check_groups(np.array([True]), 1).ids.tolist() == [True]


def test_nobody_is_grouped():
    assert check_groups(None, 3) is None
    assert check_groups([-1, -1, -1], 3) is None
    assert check_groups([np.nan] * 3, 3) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [([1, 2], r"\[3, 2\]"), ([[1], [2], [3]], r"shape \(n_samples,\); got 2"), ("abc", "got 0"), (5, "got 0")],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 3)


# ------------------------------------------------------------------------------------------------------------ matrices


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_matrices_keep_their_precision_and_are_not_copied(dtype, tmp_path):
    X = np.ones((3, 2), dtype=dtype)
    for reset in (True, False):
        assert np.shares_memory(check_matrix(fitted(2), X, reset=reset), X)
    tensor = torch.tensor(X, requires_grad=True)
    found = check_matrix(fitted(2), tensor, reset=False)
    assert found.data_ptr() == tensor.data_ptr()
    assert not found.requires_grad
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="w+", shape=(3, 2))
    assert np.shares_memory(check_matrix(fitted(2), mapped, reset=True), mapped)


def test_other_numbers_become_double_precision():
    assert check_matrix(Estimator(), [[1, 2], [3, 4]], reset=True).dtype == np.float64
    assert check_matrix(Estimator(), torch.tensor([[1, 2]]), reset=True).dtype == torch.float64


def test_a_fit_on_a_tensor_learns_the_width_and_forgets_the_names():
    estimator = Estimator()
    check_matrix(estimator, pd.DataFrame({"a": [1.0], "b": [2.0]}), reset=True)
    assert estimator.feature_names_in_.tolist() == ["a", "b"]
    check_matrix(estimator, torch.ones(2, 3), reset=True)
    assert estimator.n_features_in_ == 3
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1.0, 2.0], "Expected 2D array"),
        ([[[1.0, 2.0]]], "dim 3|3D"),
        ([[1.0, 2.0, 3.0]], "X has 3 features, but Estimator is expecting 2 features"),
        ([[1.0]], "X has 1 features, but Estimator is expecting 2 features"),
    ],
)
def test_bad_matrices(kind, X, message):
    with pytest.raises(ValueError, match=message):
        check_matrix(fitted(2), kind(X), reset=False)


@pytest.mark.parametrize(("shape", "reset"), [((0, 2), True), ((0, 2), False), ((2, 0), True)])
def test_empty_matrices(shape, reset):
    with pytest.raises(ValueError, match=r"0 (sample|feature)\(s\).*minimum of 1"):
        check_matrix(fitted(shape[1]), np.zeros(shape), reset=reset)
    with pytest.raises(ValueError, match="minimum of 1 row and 1 column"):
        check_matrix(fitted(shape[1]), torch.zeros(shape), reset=reset)


def test_strings_and_complex_numbers_are_no_features():
    with pytest.raises(ValueError, match="could not convert"):
        check_matrix(Estimator(), np.array([["a", "b"]]), reset=True)
    with pytest.raises(ValueError, match="Complex"):
        check_matrix(Estimator(), np.ones((2, 2), dtype=complex), reset=True)


@pytest.mark.parametrize(
    ("width", "columns", "message"),
    [
        (-1, 3, "at least 0; got -1"),
        (1.0, 3, "integer of at least 0; got 1.0"),
        (3, 3, r"n_context_features=3 leaves no column.*X has 3 feature\(s\)"),
        (4, 3, "leaves no column"),
    ],
)
def test_bad_context_widths(width, columns, message):
    with pytest.raises(ValueError, match=message):
        check_context_width(width, columns)


def test_labels_that_both_mean_the_second_response():
    with pytest.raises(ValueError, match="0 and -1, which both mean that the second response is preferred"):
        check_labels([0, -1, 0], 3)


@pytest.mark.parametrize("labels", [[True, False, True], [1, 0, 1], [1, -1, 1], ["b", "a", "b"]])
def test_labels_in_columns_of_objects(labels):
    signs, classes = check_labels(np.array(labels, dtype=object), 3)
    assert signs.tolist() == [1, -1, 1]
    assert classes.tolist() == [labels[1], labels[0]]
