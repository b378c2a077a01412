"""PreferenceTable: comparisons column by column, and as X of scikit-learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from reading_cases import a_full_table, table_of
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from micropref.datasets import PreferenceTable, read_preferences


@pytest.fixture
def full_table():
    return a_full_table()


def test_columns_are_plain_lists_and_typed_arrays(full_table):
    assert full_table.prompt == ["q0", "q1", "q0", "q1", "q0", "q1"]
    assert full_table.group.dtype == object
    assert full_table.group.tolist() == ["ann", None, "bob", None, None, "ann"]
    assert full_table.weight.dtype == np.float64
    assert len(full_table) == 6
    assert full_table.shape == (6,)
    assert full_table.n_rejected == 0


def test_a_table_cannot_be_changed(full_table):
    with pytest.raises(dataclasses.FrozenInstanceError):
        full_table.prompt = []
    for column in (full_table.group, full_table.weight):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 3


def test_a_table_does_not_share_what_it_was_made_of():
    weight, chosen = np.ones(2), ["a", "b"]
    table = PreferenceTable(np.array(["", ""]), chosen, ["x", "y"], weight=weight)
    assert type(table.prompt[0]) is str
    weight[0], chosen[0] = 7, "other"
    assert table.weight[0] == 1
    assert table.chosen[0] == "a"


@pytest.mark.parametrize(
    ("group", "stored"),
    [
        (None, None),
        (float("nan"), None),
        (np.float32("nan"), None),
        (-1, None),
        (-1.0, None),
        (np.int64(-1), None),
        (" ", None),
        (7, 7),
        (7.0, 7),
        (np.int32(7), 7),
        (np.float64(7), 7),
        ("-1", None),
        (pd.NA, None),
        ("7", 7),
        ("7.0", "7.0"),
        (2**70, 2**70),
        (("ann", 1), ("ann", 1)),
        ("ann", "ann"),
    ],
)
def test_group_ids_are_read_by_the_rule_of_ids(group, stored):
    table = PreferenceTable(["", ""], ["a", "b"], ["x", "y"], group=[group, "other"])
    assert table.group[0] == stored
    assert type(table.group[0]) is type(stored)


@pytest.mark.parametrize("group", [True, 1.5, float("inf"), 2.0**53, [1]])
def test_other_group_ids_are_refused(group):
    with pytest.raises(ValueError, match=r"group, row 1: expected an .*id.*, got"):
        PreferenceTable(["", ""], ["a", "b"], ["x", "y"], group=["ann", group])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": ["a"]}, r"different lengths \(prompt 2, chosen 1, rejected 2\)"),
        ({"context": ["a"]}, r"different lengths .*context 1"),
        ({"group": ["a"]}, r"different lengths .*group 1"),
        ({"weight": [1, 1, 1]}, r"different lengths .*weight 3"),
        ({"extra": {"id": [1]}}, r"different lengths .*id 1"),
        ({"prompt": "ab"}, "prompt: expected a list.*got one text"),
        ({"prompt": ["a", 3]}, "prompt, row 1: expected text.*got 3"),
        ({"context": ["a", None]}, "context, row 1: expected text.*got None"),
        ({"chosen": ["a", "\ud800"]}, "chosen, row 1: .*got a lone surrogate"),
        ({"chosen": ["a", " \n"]}, "row 1: .*got an empty chosen"),
        ({"rejected": ["", "y"]}, "row 0: .*got an empty rejected"),
        ({"rejected": ["x", "b"]}, "row 1: .*expected two different responses, got the same text twice"),
        ({"weight": [1, -1]}, "weight, row 1: expected a finite number that is not negative.*got -1.0"),
        ({"weight": [np.inf, 1]}, "weight, row 0: .*got inf"),
        ({"weight": [1, np.nan]}, "weight, row 1: .*got nan"),
        ({"weight": [[1, 1]]}, r"weight: .*got shape \(1, 2\)"),
        ({"extra": {"label": [1, 0]}}, "expected another name, got 'label', which means something else"),
        ({"extra": {3: [1, 0]}}, "extra: expected text as the name of a column, got 3"),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes, message):
    columns = {"prompt": ["p", "q"], "chosen": ["a", "b"], "rejected": ["x", "y"]} | changes
    with pytest.raises(ValueError, match=message):
        PreferenceTable(**columns)


@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 5, 2),
        slice(None, None, -1),
        [5, 0, 0],
        np.array([-1, 2]),
        np.array([True, False] * 3),
        [],
        np.array([], dtype=float),
        ([1, 2], Ellipsis),
        (np.array([False] * 6), ...),
    ],
)
def test_rows_are_taken_as_from_an_array(full_table, rows):
    inner = rows[0] if isinstance(rows, tuple) else rows
    positions = np.arange(6)[inner if isinstance(inner, slice) or np.size(inner) else slice(0)].tolist()
    part = full_table[rows]
    assert part.shape == (len(positions),)
    assert part.chosen == [full_table.chosen[i] for i in positions]
    assert part.context == [full_table.context[i] for i in positions]
    assert part.group.tolist() == [full_table.group[i] for i in positions]
    assert part.weight.tolist() == [full_table.weight[i] for i in positions]
    assert part.extra["tags"] == [full_table.extra["tags"][i] for i in positions]


def test_columns_that_do_not_exist_stay_so_in_a_part():
    part = table_of()[1:3]
    assert (part.context, part.group, part.weight, part.extra) == (None, None, None, {})


@pytest.mark.parametrize("row", [2, np.int64(2), -4, (2, Ellipsis)])
def test_one_row_is_a_dict(full_table, row):
    assert full_table[row] == {
        "prompt": "q0",
        "chosen": "good 2",
        "rejected": "bad 2",
        "context": "long",
        "group": "bob",
        "weight": 2.0,
        "query_id": 2,
        "tags": None,
    }


def test_a_table_is_iterated_by_row():
    assert [row["chosen"] for row in table_of(3)] == ["good 0", "good 1", "good 2"]


@pytest.mark.parametrize("rows", ["chosen", [0.5], [[0, 1]], None, (0, 1)])
def test_other_indices_are_refused(rows):
    with pytest.raises(IndexError, match=r"expected an integer, a slice, .*got the index"):
        table_of()[rows]


def test_a_row_or_mask_out_of_range_is_an_index_error():
    for rows in (6, [0, 6], [True, False]):
        with pytest.raises(IndexError):
            table_of()[rows]


def test_equality_looks_at_every_column(full_table):
    assert full_table == full_table[:]
    assert full_table != full_table[::-1]
    assert full_table != "a table"
    for column in ("context", "group", "weight"):
        assert full_table != dataclasses.replace(full_table, **{column: None})
    assert full_table != dataclasses.replace(full_table, extra={})
    assert full_table == dataclasses.replace(full_table, n_rejected=3)


def test_repr_counts(full_table):
    assert repr(full_table) == (
        "PreferenceTable(6 rows, 2 prompts, 2 groups, 2 contexts, weighted, extra: query_id, tags)"
    )
    assert repr(table_of(1)) == "PreferenceTable(1 row, 1 prompt, no groups, no contexts)"


def test_concat_fills_columns_that_some_lack(full_table):
    both = PreferenceTable.concat([full_table, dataclasses.replace(table_of(2), n_rejected=3)])
    assert both[:6] == full_table
    assert both.context[6:] == ["", ""]
    assert both.group[6:].tolist() == [None, None]
    assert both.weight[6:].tolist() == [1, 1]
    assert both.extra["query_id"][6:] == [None, None]
    assert both.n_rejected == 3
    assert PreferenceTable.concat([table_of(2), table_of(2)]) == table_of(2)[[0, 1, 0, 1]]
    assert len(PreferenceTable.concat(iter([table_of(2)[:0]]))) == 0


def test_concat_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected at least one table, got none"):
        PreferenceTable.concat([])


def test_a_table_is_returned_as_it_is(full_table):
    assert read_preferences(full_table) is full_table
    with pytest.raises(ValueError, match="expected a PreferenceTable without columns="):
        read_preferences(full_table, columns={"chosen": "better"})


class Lengths(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.array([[len(row["chosen"]), len(row["rejected"])] for row in X])


@pytest.mark.parametrize("rows", [[2, 0], np.array([True, False, True] * 2), slice(1, 4), 3])
def test_safe_indexing_slices_a_table(full_table, rows):
    assert _safe_indexing(full_table, rows) == full_table[rows]


def test_a_table_goes_through_a_pipeline_and_cross_validation():
    table = PreferenceTable(
        [""] * 12, ["y" * (1 + i % 4) for i in range(12)], ["x" * (2 + i) for i in range(12)], group=[0, 1, 2] * 4
    )
    y = np.arange(12) % 4 > 1
    model = make_pipeline(Lengths(), LogisticRegression(C=1e3))
    assert (cross_val_predict(model, table, y, cv=KFold(3)) == y).all()
    for train, test in GroupKFold(3).split(table, groups=table.group):
        assert set(table[train].group) & set(table[test].group) == set()
    train, test = train_test_split(table, test_size=0.25, random_state=0)
    assert sorted(train.rejected + test.rejected) == sorted(table.rejected)
    assert len(test) == 3
