"""The one rule for what a user id is."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from micropref._rows.ids import integer_of_float, restored_id, storable_id, text_id, user_id

BIG = 1234567890123456789


class Name(str, enum.Enum):  # noqa: UP042
    ANN = "ann"
    TWELVE = "12"


class Number(enum.IntEnum):
    SEVEN = 7


class Color(enum.Enum):
    RED = 1


class Position(tuple):
    pass


def shown(value):
    try:
        return repr(value)[:40]
    except ValueError:
        return "an integer too long to be written"


NOBODY = [
    *(None, float("nan"), np.nan, np.float16("nan"), np.float32("nan"), Decimal("nan"), Decimal("sNaN")),
    *(np.datetime64("NaT"), np.timedelta64("NaT"), pd.NaT, pd.NA, complex("nan"), pyarrow.scalar(None)),
    *("", " ", "\t\n", "\u00a0", np.str_("")),
    *(-1, -1.0, np.int8(-1), np.int64(-1), np.float16(-1), np.float32(-1), Decimal(-1), Decimal("-1.0"), Fraction(-1)),
    *("-1", np.str_("-1"), torch.tensor(-1)),
]


@pytest.mark.parametrize("value", NOBODY, ids=repr)
def test_what_says_that_there_is_no_user(value):
    assert user_id(value) is None


SAME = [
    (12, [12, 12.0, "12", np.int8(12), np.uint64(12), np.float16(12), np.float32(12), np.float64(12), Decimal("12.0")]),
    (12, [Fraction(12), np.str_("12"), Name.TWELVE, torch.tensor(12), pyarrow.scalar(12), np.longdouble(12)]),
    (0, [0, 0.0, -0.0, "0", Decimal("-0"), Decimal("0.00")]),
    (7, [Number.SEVEN, 7]),
    (-2, [-2, "-2", -2.0]),
    (BIG, [BIG, str(BIG), np.int64(BIG), Decimal(BIG), Fraction(BIG)]),
    (2**63 + 1, [2**63 + 1, np.uint64(2**63 + 1), str(2**63 + 1)]),
    (10**4000, [10**4000, "1" + "0" * 4000, Decimal("1E+4000")]),
    ("ann", ["ann", np.str_("ann"), Name.ANN]),
    (("x", 1), [("x", 1), ("x", 1.0), ("x", "1"), Position(("x", 1)), (np.str_("x"), np.int8(1))]),
    ((-1,), [(-1,), ("-1",), (-1.0,)]),
    (((1, 2), "a"), [((1, 2), "a"), (("1", 2.0), "a")]),
]


@pytest.mark.parametrize(("id", "values"), SAME, ids=shown)
def test_what_is_one_user(id, values):
    for value in values:
        found = user_id(value)
        assert found == id
        assert type(found) is type(id)


@pytest.mark.parametrize(
    "text", ["12.0", "012", "+5", " 12", "12 ", "1_000", "-0", "- 1", "1e3", "nan", "NA", "None", "true", "١٢", "12\n"]
)
def test_other_text_is_itself(text):
    assert user_id(text) == text


@pytest.mark.parametrize(
    "value",
    [
        b"12",
        uuid.UUID(int=12),
        datetime.date(2024, 1, 1),
        pd.Timestamp("2024-01-01"),
        np.datetime64("2024-01-01"),
        frozenset({1}),
        Color.RED,
        ("x", uuid.UUID(int=1)),
    ],
)
def test_other_hashable_values_are_themselves_but_are_not_saved(value):
    assert user_id(value) == value
    assert type(user_id(value)) is type(value)
    with pytest.raises(TypeError, match=r"expected an integer, a string or a tuple.*got .*live in memory only"):
        storable_id(value)


REFUSED = [
    *((value, "got (np.)?True.*would be 1") for value in (True, np.True_)),
    *((value, "got (np.)?False.*would be 0") for value in (False, np.False_)),
    *((value, "an integer, a string or a tuple") for value in (1.5, np.float32(0.5), float("inf"), -np.inf)),
    *((value, "got ") for value in (Decimal("1.5"), Decimal("1E-999999999"), Decimal("Infinity"), Fraction(1, 2))),
    *((value, r"below 2\*\*53") for value in (2.0**53, -(2.0**53), 1e300, np.float64(2**60))),
    *((value, r"below 2\*\*24") for value in (np.float32(2**24), np.float32(-1e30))),
    *((value, r"below 2\*\*11") for value in (np.float16(2**11), np.float16(-4096))),
    *((value, "at most 4300 digits") for value in (10**4300, -(10**4300), "1" * 4301, "-" + "1" * 4301)),
    *((value, "at most 4300 digits") for value in (Decimal("1E+4300"), Decimal("1E+999999999"))),
    *((value, "got ") for value in ([1], {"a": 1}, {1}, np.array([1]), np.array(1), bytearray(b"a"), slice(1, 2))),
    *((value, "got ") for value in (1j, 1 + 0j, np.complex64(1), np.timedelta64(5, "D"), np.timedelta64(5))),
    *((value, "got ") for value in (torch.tensor([1]), torch.tensor(1.0))),
    *((value, "none missing") for value in ((), ("x", None), ("x", ""), ("x", float("nan")), (1, ()), (pd.NA,))),
    *((value, "got ") for value in (("x", True), (1.5, "x"), ("x", [1]), ("x", 2.0**53))),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=shown)
def test_what_is_refused(value, message):
    with pytest.raises(ValueError, match=f"(?s)^expected .*{message}"):
        user_id(value)


def test_the_largest_floats_that_are_ids():
    assert user_id(2.0**53 - 1) == 2**53 - 1
    assert user_id(np.float32(2**24 - 1)) == 2**24 - 1
    assert user_id(np.float16(2**11 - 1)) == 2**11 - 1
    assert user_id("9" * 4300) == 10**4300 - 1
    assert user_id(10**4300 - 1) == 10**4300 - 1


# ------------------------------------------------------------------------------------------------ cells without a type


@pytest.mark.parametrize(
    "cell",
    [
        *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "null", "NULL", "None", "NaN", "nan", "-nan", "-NaN"),
        *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "", "  ", "-1", "-1.0", "-1.00"),
    ],
)
def test_cells_that_say_that_there_is_no_user(cell):
    assert text_id(cell) is None


def test_every_marker_that_pandas_writes_or_reads_is_no_user():
    from pandas._libs.parsers import STR_NA_VALUES

    assert {cell for cell in STR_NA_VALUES if text_id(cell) is not None} == set()


@pytest.mark.parametrize(
    ("cell", "id"),
    [
        *(("12", 12), ("12.0", 12), ("12.000", 12), ("-2.0", -2), ("0.0", 0), ("-0.0", 0), (str(BIG), BIG)),
        *((text, text) for text in ("012", "012.0", "12.", "12.5", ".0", "+12.0", " 12.0", "1e5", "ann", "Na", "a.0")),
    ],
)
def test_cells_that_name_a_user(cell, id):
    assert text_id(cell) == id
    assert type(text_id(cell)) is type(id)


@pytest.mark.parametrize("cell", ["9007199254740992.0", f"{BIG}.0", "1.2345678901234568e+18", "-1.5E+20"])
def test_cells_in_which_digits_were_lost(cell):
    with pytest.raises(ValueError, match=r"below 2\*\*53.*integers or strings"):
        text_id(cell)


@pytest.mark.parametrize("cell", ["1" * 4301, "1" * 4301 + ".0"])
def test_cells_that_are_too_long(cell):
    with pytest.raises(ValueError, match="at most 4300 digits"):
        text_id(cell)


# --------------------------------------------------------------------------------------------------------- properties

SIMPLE = st.one_of(st.integers(), st.integers(2**53, 2**70), st.text(), st.integers().map(str), st.just("12.0"))
VALUES = st.recursive(SIMPLE, lambda parts: st.lists(parts, min_size=1, max_size=3).map(tuple), max_leaves=5)


def id_or_none(value):
    try:
        return user_id(value)
    except ValueError:
        assume(False)


@given(VALUES)
def test_an_id_is_its_own_id(value):
    id = id_or_none(value)
    assert user_id(id) == id


@given(VALUES)
def test_a_saved_id_is_restored(value):
    id = id_or_none(value)
    assume(id is not None)
    restored = restored_id(json.loads(json.dumps(storable_id(id))))
    assert restored == id
    assert type(restored) is type(id)


@given(st.integers(-(2**80), 2**80))
def test_all_spellings_of_an_integer_are_one_user(number):
    assume(number != -1)
    spelled = [number, str(number), Decimal(number), Fraction(number)]
    spelled += [float(number)] if abs(number) < 2**53 else []
    assert [user_id(one) for one in spelled] == [number] * len(spelled)
    assert text_id(str(number)) == number


@given(st.integers(), st.integers())
def test_different_integers_never_meet(one, other):
    assume(one != other and -1 not in (one, other))
    assert user_id(one) != user_id(other)
    assert user_id(str(one)) != user_id(other)
    assert text_id(str(one)) != text_id(str(other))


@given(st.text(), st.text())
def test_different_texts_never_meet(one, other):
    ids = user_id(one), user_id(other)
    assume(one != other and None not in ids)
    assert ids[0] != ids[1]


@given(st.floats())
def test_a_float_is_an_exact_integer_or_refused(value):
    try:
        id = user_id(value)
    except ValueError:
        assert not (value.is_integer() and abs(value) < 2**53)
        return
    assert (id is None) == (value != value or value == -1)
    assert id is None or (type(id) is int and id == value)


@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, [None], [[]]], ids=repr)
def test_what_no_saved_id_is(value):
    with pytest.raises(ValueError, match="expected a saved id"):
        restored_id(value)


def test_numbers_of_numpy_are_saved_as_integers():
    assert type(storable_id(np.int32(7))) is int
    assert type(storable_id(np.str_("a"))) is str
    for value in (True, np.True_, None, 1.5):
        with pytest.raises(TypeError, match="expected"):
            storable_id(value)


@pytest.mark.parametrize(
    ("text", "digits"),
    [("12.0", "12"), ("-3.000", "-3"), ("0.0", "0"), ("012.0", None), ("12", None), ("1.5", None), ("", None)],
)
def test_integers_of_floats(text, digits):
    assert integer_of_float(text) == digits
