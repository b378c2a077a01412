"""Groups of rows: whatever holds the ids, each is read by the one rule, and no two of them become one."""

from __future__ import annotations

import datetime
import re
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micropref._rows import groups as groups_module
from micropref._rows.groups import check_groups
from micropref._rows.ids import user_id

BIG = 1234567890123456789


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
    monkeypatch.setattr(groups_module, "_CHUNK", 7)
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
    assert check_groups(objects([("x", 1), ("x", 0)]), 2).index.tolist() == [1, 0]


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


TWO_USERS = [
    [BIG, BIG + 1, float("nan")],
    [BIG, BIG + 1, None],
    (BIG, BIG + 1, None),
    [str(BIG), BIG + 1, None],
    [2**63 + 1, 2**63 + 2, -1],
    [2**63 + 1, -(2**70), ""],
    np.array([2**63 + 1, 2**63 + 2, 2**63 + 2], dtype=np.uint64),
    pd.Series([BIG, BIG + 1, None], dtype=object),
    pd.Series([BIG, BIG + 1, None], dtype="Int64"),
    pd.Series([BIG, BIG + 1, None], dtype="int64[pyarrow]"),
    pd.Index([BIG, BIG + 1, BIG]),
    pd.Categorical(["a", "b", None]),
    pd.Series(["a", "b", None], dtype="string"),
    pd.Series(["a", "b", None], dtype="category"),
    polars.Series([BIG, BIG + 1, None]),
    polars.Series(["a", "b", None]),
    polars.Series([7.0, 8.0, None]),
    pyarrow.array([BIG, BIG + 1, None]),
    pyarrow.chunked_array([[BIG, BIG + 1], [None]]),
    [pyarrow.scalar(BIG), pyarrow.scalar(BIG), BIG + 1],
    np.ma.array([7, 8, 9], mask=[False, False, True]),
    torch.tensor([BIG, BIG + 1, -1]),
    list(torch.tensor([7, 8, 7])),
    [("x", 1), ("x", 2), None],
    [(1, 2), (1, 3), (1, 2)],
    [("x", 1), ("x", "1"), "x"],
    [7, "7", "ann"],
    [7, "ann", 7.0],
    [7, Decimal(7), "7.0"],
    ["7", 7.0, "ann"],
    ["12", "12.0", "-1"],
    ["", "ann", "bob"],
    ["a\0", "a", None],
    [b"ann", "ann", None],
    [uuid.UUID(int=1), 1, None],
    np.array(["ann", "bob", "-1"]),
    np.array(["7", "07", ""]),
    np.array([b"ann", b"bob", b"ann"]),
    np.array(["ann", "bob", "ann"], dtype=np.dtypes.StringDType()),
    np.array(["2024-01-01", "2024-01-02", "NaT"], dtype="datetime64[ns]"),
    pd.Series([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2), None]),
    objects([1, 2.0, float("nan")]),
    objects([np.float64(7), np.int8(7), np.str_("ann")]),
]


@pytest.mark.parametrize("groups", TWO_USERS, ids=lambda groups: re.sub(r" at 0x\w+", "", repr(groups))[:60])
def test_two_users_are_two(groups):
    found = check_groups(groups, 3)
    assert found.n_groups == 2
    assert sorted({*found.index.tolist()} - {-1}) == [0, 1]


def test_ids_are_what_the_rule_says_they_are():
    ids = [7, "7", 7.0, "ann", None, ("x", "1"), "-1", b"ann"]
    found = check_groups(ids, len(ids))
    assert [None if i < 0 else found.ids[i] for i in found.index] == [user_id(one) for one in ids]


@pytest.mark.parametrize("ids", [[3, 1, 2], ["3", "1", "2"], np.array(["3", "1", "2"]), [3.0, 1.0, 2.0]])
def test_ids_that_are_integers_are_held_as_such(ids):
    found = check_groups(ids, 3)
    assert found.ids.dtype == np.int64
    assert found.ids.tolist() == [1, 2, 3]


def test_ids_that_do_not_fit_are_held_as_objects():
    for ids in ([2**63 + 1, 1], np.array([2**63 + 1, 1], dtype=np.uint64), ["b", "a"], [(2,), (1,)]):
        found = check_groups(ids, 2)
        assert found.ids.dtype == object
        assert found.index.tolist() == [1, 0]
    assert check_groups([2**63 + 1, 1], 2).ids.tolist() == [1, 2**63 + 1]


@given(
    st.lists(
        st.one_of(
            st.integers(-3, 3),
            st.integers(),
            st.sampled_from(["a", "7", "-1", "7.0", ""]),
            st.none(),
            st.sampled_from([1.0, float("nan"), -1.0]),
            st.tuples(st.integers(0, 2)),
        ),
        min_size=1,
    )
)
def test_every_row_has_the_id_of_its_value(values):
    expected = [user_id(value) for value in values]
    for groups in (values, objects(values), pd.Series(objects(values)), tuple(values)):
        found = check_groups(groups, len(values))
        read = [None] * len(values) if found is None else [None if i < 0 else found.ids[i] for i in found.index]
        assert read == expected
        assert [isinstance(id, tuple) for id in read] == [isinstance(id, tuple) for id in expected]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3), min_size=1))
def test_arrays_of_texts_are_read_as_lists_of_texts(texts):
    as_list, as_array = check_groups(texts, len(texts)), check_groups(np.array(texts), len(texts))
    assert (as_list is None) == (as_array is None)
    if as_list is not None:
        assert as_list.ids.tolist() == as_array.ids.tolist()
        assert as_list.index.tolist() == as_array.index.tolist()


REFUSED = [
    ([True, False], "row 0: .*got True"),
    ([1, True], "row 1: .*got True"),
    ([True, None], "row 0: .*got True"),
    (np.array([True, False]), "row 0: .*got True"),
    (pd.Series([1, True], dtype=object), "row 1: .*got True"),
    (pd.Series([None, True], dtype="boolean"), "row 1: .*got True"),
    (torch.tensor([True, False]), "row 0: .*got True"),
    (polars.Series([None, True]), "row 1: .*got True"),
    ([("x", 1), ("x", True)], "row 1: .*got True"),
    ([1.5, 2.0], "row 0: .*got 1.5"),
    ([1.0, np.inf], "row 1: .*got inf"),
    (np.array([1.0, -np.inf]), r"row 1: .*got .*-inf"),
    ([2.0**53, 1.0], r"row 0: .*below 2\*\*53"),
    ([2**53, 2.0**53], r"row 1: .*below 2\*\*53"),
    (["a", 2.0**53], r"row 1: .*below 2\*\*53"),
    (np.array([1, 2**24], dtype=np.float32), r"row 1: .*below 2\*\*24"),
    (np.array([1, 2**11], dtype=np.float16), r"row 1: .*below 2\*\*11"),
    (torch.tensor([1.0, 2.0**24]), r"row 1: .*below 2\*\*24"),
    (torch.tensor([1, 2], dtype=torch.bfloat16), "integers or strings, got a tensor of torch.bfloat16"),
    (pd.Series([1, 2**24], dtype="Float32"), r"row 1: .*below 2\*\*24"),
    (pd.Series([None, 2**24], dtype="float[pyarrow]"), r"row 1: .*below 2\*\*24"),
    (polars.Series([None, 2.0**24], dtype=polars.Float32), r"row 1: .*below 2\*\*24"),
    (pyarrow.array([None, 2.0**24], pyarrow.float32()), r"row 1: .*below 2\*\*24"),
    ([1, [2]], r"row 1: .*got \[2\]"),
    ([[1], [2]], r"row 0: .*got \[1\]"),
    (["a", {}], "row 1: .*got {}"),
    (["a", "1" * 4301], "row 1: .*4300 digits"),
    (np.array(["a", "1" * 4301]), "row 1: .*4300 digits"),
    ([("x", None), "a"], "row 0: .*none missing"),
    ([1, 2j], "row 1: .*got 2j"),
    (np.array([1, 2], dtype="timedelta64[s]"), "row 0: .*timedelta"),
    (np.array([[1], [2]]), r"shape \(n_samples,\), got 2"),
    (torch.tensor([[1], [2]]), r"shape \(n_samples,\), got 2"),
    (np.array(1), r"shape \(n_samples,\), got 0"),
    ("ab", r"shape \(n_samples,\).* got a str"),
    ({1: 2, 3: 4}, r"shape \(n_samples,\).* got a dict"),
    ({1, 2}, r"shape \(n_samples,\).* got a set"),
    (iter([1, 2]), r"shape \(n_samples,\).* got a list_iterator"),
    (5, r"shape \(n_samples,\).* got a int"),
    ([1, 2, 3], r"\[2, 3\]"),
]


@pytest.mark.parametrize(("groups", "message"), REFUSED, ids=lambda part: re.sub(r" at 0x\w+", "", repr(part))[:50])
def test_what_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 2)


ONE_ROW = [
    *([5], (5,), [5.0], ["5"], [np.int8(5)], np.array([5]), np.array([5.0]), np.array(["5"]), objects([5])),
    *(torch.tensor([5]), pd.Series([5]), polars.Series([5])),
]


@pytest.mark.parametrize("groups", ONE_ROW, ids=repr)
def test_one_row_at_a_time(groups):
    found = check_groups(groups, 1)
    assert found.ids.tolist() == [5]
    assert found.ids.dtype == np.int64
    assert found.index.tolist() == [0]
    assert found.index.dtype == np.int32


def test_one_row_that_is_no_user_or_no_integer():
    given_ids = np.array([5])
    found = check_groups(given_ids, 1)
    given_ids[0] = 6
    assert found.ids.tolist() == [5]
    for nobody in ([-1], [None], ["-1"], np.array([""]), np.array([np.nan]), objects([pd.NA])):
        assert check_groups(nobody, 1) is None
    assert check_groups(["u"], 1).ids.tolist() == ["u"]
    assert check_groups([("x", 1)], 1).ids.tolist() == [("x", 1)]
    for refused in ([True], np.array([True]), objects([True]), [[1]], [1.5]):
        with pytest.raises(ValueError, match="row 0: expected"):
            check_groups(refused, 1)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        check_groups([1, 2], 1)


def test_nobody_is_grouped():
    assert check_groups(None, 3) is None
    assert check_groups([-1, -1, -1], 3) is None
    assert check_groups([np.nan] * 3, 3) is None
    assert check_groups(["", None, "-1"], 3) is None
    assert check_groups(np.array(["", "-1", " "]), 3) is None
    assert check_groups([], 0) is None
    assert check_groups(np.empty(0, dtype=int), 0) is None
