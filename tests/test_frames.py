"""Tables of pandas, Polars and Arrow: one meaning, whichever library made them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from micropref import read_preferences
from micropref.datasets._frames import columns_of_frame
from micropref.datasets.responses import read_responses

ROWS = [
    {"prompt": "tea?", "response_a": "yes", "response_b": "no", "label": "a", "user": 2**62 + 1, "weight": 1.0},
    {"prompt": "tea?", "response_a": "yes", "response_b": "never", "label": "b", "user": None, "weight": 2.0},
    {"prompt": None, "response_a": "mate", "response_b": "milk", "label": "b", "user": 2**62 + 3, "weight": 0.5},
]
MAKERS = {
    # By itself pandas makes floats of integers with a gap, which hold no 19 digits.
    "pandas": lambda rows: pd.DataFrame(rows).assign(user=pd.array([row["user"] for row in rows], dtype="Int64")),
    "polars": pl.DataFrame,
    "arrow": pa.Table.from_pylist,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_frame_reads_as_the_list_of_its_rows(make):
    assert read_preferences(make(ROWS)) == read_preferences(ROWS)


@pytest.mark.parametrize("make", [pl.DataFrame, pa.Table.from_pylist], ids=["polars", "arrow"])
def test_messages_in_a_nested_column_are_read(make):
    rows = [
        {
            "prompt": [{"role": "user", "content": "tea?"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
    ]
    assert read_preferences(make(rows)) == read_preferences(rows)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "arrow"])
def test_responses_come_from_frames_too(make):
    frame = make({"prompt": ["tea?"] * 2, "response": ["yes", "no"]})
    assert read_responses(frame).response == ["yes", "no"]


MISSING_CELLS = {
    "pandas": pd.DataFrame(
        {
            "number": [1.0, np.nan, None],
            "integer": pd.array([1, None, pd.NA], dtype="Int64"),
            "text": ["x", pd.NA, np.nan],
            "kind": pd.Categorical(["x", None, None]),
            "time": pd.to_datetime(["2026-01-01", None, pd.NaT]),
        }
    ),
    "polars": pl.DataFrame(
        {
            "number": [1.0, float("nan"), None],
            "integer": [1, None, None],
            "text": ["x", None, None],
            "kind": pl.Series(["x", None, None], dtype=pl.Categorical),
            "enum": pl.Series(["x", None, None], dtype=pl.Enum(["x", "y"])),
        }
    ),
    "arrow": pa.table(
        {
            "number": [1.0, float("nan"), None],
            "integer": [1, None, None],
            "text": ["x", None, None],
            "kind": pa.array(["x", None, None]).dictionary_encode(),
        }
    ),
}


@pytest.mark.parametrize("frame", MISSING_CELLS.values(), ids=MISSING_CELLS)
def test_what_is_missing_is_none_and_categories_are_text(frame):
    columns = columns_of_frame(frame)
    assert all(column[1:] == [None, None] for column in columns.values())
    first = {name: column[0] for name, column in columns.items()}
    assert first.items() >= {"number": 1.0, "integer": 1, "text": "x", "kind": "x"}.items()
    assert type(first["integer"]) is int
    assert type(first["kind"]) is str


def test_names_that_occur_twice_are_refused():
    for frame in (
        pd.DataFrame([["a", "b"]], columns=["chosen", "chosen"]),
        pd.DataFrame([["a", "b"]], columns=["1", 1]),
        pa.table([["a"], ["b"]], names=["chosen", "chosen"]),
    ):
        with pytest.raises(ValueError, match=f"the {type(frame).__name__}: expected each column name once, got '"):
            read_preferences(frame)


def test_a_lazy_frame_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"expected a path, .* got a LazyFrame; .collect\(\) makes a DataFrame of it"):
        read_preferences(pl.DataFrame(ROWS).lazy())
