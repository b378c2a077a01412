"""A table that is written and read back is the same table."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reading_cases import a_full_table, table_of

from micropref._rows.ids import text_id, user_id
from micropref.datasets import PreferenceTable, read_preferences


@pytest.fixture
def full_table():
    return a_full_table()


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        '"',
        '""',
        ",",
        "a\nb",
        "a\r\nb",
        "\r",
        "\t",
        "\u2028",
        "\x85",
        "\ufeff",
        "\x00",
        "\\n",
        "[",
        "[1]",
        "'",
        "🫖",
        " ",
    ]
)
answers = st.lists(any_text.filter(lambda text: text.strip()), min_size=2, max_size=2, unique=True)
json_cells = st.none() | st.integers() | any_text | st.lists(st.booleans(), max_size=2)
other_names = any_text.filter(
    lambda name: (
        name
        not in {"prompt", "chosen", "rejected", "context", "group", "weight", "label", "tie"}
        | {"user", "user_id", "worker", "annotator", "annotator_id"}
    )
)


json_ids = any_text | st.integers()
json_groups = json_ids | st.none() | st.tuples(json_ids.filter(lambda id: user_id(id) is not None), st.integers())


@st.composite
def tables(draw, groups=json_groups):
    n = draw(st.integers(1, 4))

    def column(cells):
        return draw(st.lists(cells, min_size=n, max_size=n))

    pairs = column(answers)
    return PreferenceTable(
        prompt=column(any_text),
        chosen=[pair[0] for pair in pairs],
        rejected=[pair[1] for pair in pairs],
        context=column(any_text) if draw(st.booleans()) else None,
        group=column(groups) if draw(st.booleans()) else None,
        weight=column(st.floats(0, allow_infinity=False)) if draw(st.booleans()) else None,
        extra={name: column(json_cells) for name in draw(st.lists(other_names, max_size=2, unique=True))},
    )


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["t.jsonl", "t.jsonl.gz", "T.NDJSON"]))
def test_jsonl_round_trip(table, name):
    with tempfile.TemporaryDirectory() as folder:
        table.to_jsonl(Path(folder) / name)
        assert read_preferences(Path(folder) / name) == table


@settings(max_examples=60, deadline=None)
@given(tables(groups=any_text), st.sampled_from(["csv", "tsv", "csv.gz"]))
def test_csv_round_trip(table, suffix):
    assume(table.group is None or all(one is None or text_id(str(one)) == one for one in table.group))
    names = ["prompt", "chosen", "rejected", *(["context"] if table.context is not None else [])]
    columns = [getattr(table, name) for name in names]
    if table.group is not None:
        names, columns = [*names, "group"], [*columns, ["" if one is None else one for one in table.group]]
    if table.weight is not None:
        names, columns = [*names, "weight"], [*columns, table.weight.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t.{suffix}"
        opener = gzip.open if suffix.endswith("gz") else open
        with opener(path, "wt", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if suffix == "tsv" else ",")
            writer.writerow(names)
            writer.writerows(zip(*columns, strict=True))
        assert read_preferences(path) == dataclasses.replace(table, extra={})


def test_pandas_round_trip(full_table):
    frame = full_table.to_pandas()
    assert list(frame) == ["prompt", "chosen", "rejected", "context", "group", "weight", "query_id", "tags"]
    assert read_preferences(frame) == full_table
    assert list(table_of().to_pandas()) == ["prompt", "chosen", "rejected"]


def test_jsonl_holds_numpy_values_and_surrogates_of_extra_columns(tmp_path):
    table = table_of(2, extra={"n": np.array([1, 2]), "v": [np.ones(2), np.float32(0.5)], "s": ["\udc80", "é"]})
    table.to_jsonl(tmp_path / "t.jsonl")
    assert read_preferences(tmp_path / "t.jsonl").extra == {"n": [1, 2], "v": [[1.0, 1.0], 0.5], "s": ["\udc80", "é"]}


def test_jsonl_refuses_what_json_cannot_hold(tmp_path):
    table = table_of(2, extra={"when": [None, pd.Timestamp(0)]})
    with pytest.raises(TypeError, match=r"row 1 cannot be written as JSON: .*got a Timestamp"):
        table.to_jsonl(tmp_path / "t.jsonl")
