"""Tables of comparisons, and everything they are read from."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import datasets as hf_datasets
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

import micropref.datasets
from micropref._rows.ids import text_id, user_id
from micropref._rows.vocabulary import FIRST_NAMES, SECOND_NAMES
from micropref.datasets import MalformedRowError, PreferenceTable, read_preferences

BIG = 1234567890123456789

ROWS = [
    {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Milk?", "chosen": "A little.", "rejected": "A lot."},
    {"prompt": "Tea?", "chosen": "Green.", "rejected": "Black."},
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def table_of(n=6, **columns):
    return PreferenceTable(
        prompt=[f"q{i % 2}" for i in range(n)],
        chosen=[f"good {i}" for i in range(n)],
        rejected=[f"bad {i}" for i in range(n)],
        **columns,
    )


@pytest.fixture
def full_table():
    return table_of(
        context=["short", "", "long", "", "short", "long"],
        group=["ann", None, "bob", -1, float("nan"), "ann"],
        weight=[1, 0.5, 2, 0, 1, 1],
        extra={"query_id": [0, 1, 2, 3, 4, 5], "tags": [["a"], [], None, ["b"], [], []]},
    )


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_text(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts(table):
    return list(zip(table.prompt, table.chosen, table.rejected, strict=True))


# ---------------------------------------------------------------- the table


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


# ---------------------------------------------------------------- the table as X of scikit-learn


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


# ---------------------------------------------------------------- writing and reading back

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


# ---------------------------------------------------------------- sources


def sources(tmp_path):
    frame = pd.DataFrame(ROWS)
    yield write_jsonl(tmp_path / "a.jsonl", ROWS)
    yield str(write_jsonl(tmp_path / "a.NDJSON", ROWS))
    yield write_text(tmp_path / "a.json", json.dumps(ROWS, indent=1))
    for name, separator in (("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")):
        frame.to_csv(tmp_path / name, sep=separator, index=False)
        yield tmp_path / name
    yield write_text(tmp_path / "a.jsonl.gz", gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    yield write_text(tmp_path / "a.json.gz", gzip.compress((tmp_path / "a.json").read_bytes()))
    frame.to_parquet(tmp_path / "a.parquet")
    yield tmp_path / "a.parquet"
    yield frame
    yield frame.set_index(pd.Index([5, 5, 5]))
    yield hf_datasets.Dataset.from_list(ROWS)
    yield hf_datasets.Dataset.from_list(ROWS[::-1]).select([2, 1, 0]).with_format("numpy")
    yield ROWS
    yield tuple(ROWS)
    yield {name: [row[name] for row in ROWS] for name in ROWS[0]}
    yield {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
    yield {name: frame[name] for name in frame}


def test_every_source_gives_the_same_table(tmp_path):
    expected = PreferenceTable(*({name: [row[name] for row in ROWS] for name in ROWS[0]}.values()))
    count = 0
    for source in sources(tmp_path):
        table = read_preferences(source)
        assert table == expected, source
        assert {type(text) for row in texts(table) for text in row} == {str}
        count += 1
    assert count == 18


def test_a_table_is_returned_as_it_is(full_table):
    assert read_preferences(full_table) is full_table
    with pytest.raises(ValueError, match="expected a PreferenceTable without columns="):
        read_preferences(full_table, columns={"chosen": "better"})


def test_chat_messages_of_parquet_pandas_and_datasets(tmp_path):
    rows = [
        {"prompt": [user("Hi")], "chosen": [assistant("Hello!")], "rejected": [assistant("What?")], "user_id": 3},
        {"prompt": [user("Yo")], "chosen": [assistant("Hey!")], "rejected": [assistant("Go.")], "user_id": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert isinstance(frame["prompt"][0], np.ndarray)
    for source in (rows, tmp_path / "a.parquet", frame, hf_datasets.Dataset.from_list(rows)):
        table = read_preferences(source)
        assert texts(table) == [("Hi", "Hello!", "What?"), ("Yo", "Hey!", "Go.")]
        assert table.group.tolist() == [3, None]
        assert type(table.group[0]) is int


def test_missing_cells_of_pandas_are_missing():
    frame = pd.DataFrame(ROWS).assign(
        prompt=["p", np.nan, pd.NA],
        context=["c", None, np.nan],
        user=pd.array([4, None, 5], dtype="Int64"),
        n=[1, 2, 3],
    )
    table = read_preferences(frame)
    assert table.prompt == ["p", "", ""]
    assert table.context == ["c", "", ""]
    assert table.group.tolist() == [4, None, 5]
    assert table.extra == {"n": [1, 2, 3]}


def test_missing_cells_of_a_list_are_missing():
    rows = [row | {"prompt": empty} for row, empty in zip(ROWS, [None, float("nan"), ""], strict=True)]
    assert read_preferences(rows).prompt == ["", "", ""]


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    mark = b"\xef\xbb\xbf"
    line = json.dumps(ROWS[0]).encode()
    header = b'"prompt",chosen,rejected\nTea?,Yes.,No.\n'
    for name, data in (("a.jsonl", line), ("a.json", b"[" + line + b"]"), ("a.csv", header)):
        assert texts(read_preferences(write_text(tmp_path / name, mark + data))) == [("Tea?", "Yes.", "No.")]


def test_csv_cells_may_be_long_and_the_limit_of_the_csv_module_stays(tmp_path):
    before = csv.field_size_limit()
    path = write_text(tmp_path / "a.csv", f"chosen,rejected,prompt\n{'a' * 200_000},b,\n")
    assert len(read_preferences(path).chosen[0]) == 200_000
    assert csv.field_size_limit() == before < 200_000


def test_blank_lines_are_no_rows(tmp_path):
    line = json.dumps(ROWS[0])
    assert len(read_preferences(write_text(tmp_path / "a.jsonl", f"\n{line}\r\n\n{line}\n \n"))) == 2
    assert len(read_preferences(write_text(tmp_path / "a.csv", "\nprompt,chosen,rejected\r\n\np,a,b\n\n"))) == 1


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (7, TypeError, "expected a path.*got a int"),
        ([], ValueError, "the list: expected rows of comparisons, got an empty"),
        ({}, ValueError, "the dict of columns: expected rows"),
        (pd.DataFrame({"chosen": [], "rejected": []}), ValueError, "the DataFrame: expected rows"),
        (
            pd.DataFrame([["a", "b"]], columns=["chosen", "chosen"]),
            ValueError,
            "expected column names that differ, got 'chosen', 'chosen'",
        ),
        (
            hf_datasets.DatasetDict(train=hf_datasets.Dataset.from_list(ROWS)),
            ValueError,
            "expected one split, .*got a DatasetDict with the splits 'train'",
        ),
        (ROWS[0], ValueError, "expected a list with a cell for each row, got 'Tea.' in column 'prompt'"),
        (
            {"chosen": 3, "rejected": ["a"]},
            ValueError,
            "expected a list with a cell for each row, got 3 in column 'chosen'",
        ),
        ({"chosen": ["a", "b"], "rejected": ["c"]}, ValueError, r"different lengths \(chosen 2, rejected 1\)"),
        ("no/such.jsonl", FileNotFoundError, r"no/such\.jsonl: there is no such file"),
    ],
)
def test_sources_that_cannot_be_read(source, error, message):
    with pytest.raises(error, match=message):
        read_preferences(source)


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("a.txt", "", ValueError, r"a\.txt: expected one of \.jsonl, .*\.parquet.*got '\.txt'"),
        ("a.parquet.gz", "", ValueError, r"got '\.gz'"),
        ("a.jsonl", "\n\n", ValueError, r"a\.jsonl: expected rows of comparisons, got an empty"),
        ("a.json", "[]", ValueError, r"a\.json: expected rows"),
        ("a.csv", "", ValueError, r"a\.csv: expected rows"),
        ("a.csv", "prompt,chosen,rejected\n", ValueError, r"a\.csv: expected rows"),
        (
            "a.csv",
            "chosen,chosen\na,b\n",
            MalformedRowError,
            "line 1: .*names that differ, got 'chosen', 'chosen'",
        ),
        ("a.csv", b"chosen,\xff\na,b\n", MalformedRowError, "line 1: .*got the byte 0xff, which is not UTF-8"),
        ("a.json", '{"a": 1}', ValueError, "expected one list of objects.*got {'a': 1}"),
        ("a.json", "[{},\n\n{]", MalformedRowError, "line 3: expected one list of objects, got malformed JSON"),
        ("a.json", '{"a": 1}\n{"a": 1}', MalformedRowError, r"line 2: .*one object on each line is called \.jsonl"),
        ("a.json", b'[{"a":\n"\xff"}]', MalformedRowError, "line 2: .*got the byte 0xff, which is not UTF-8"),
        ("a.json", "[" * 200_000, ValueError, "got JSON that cannot be read"),
        ("a.json", "[3]", ValueError, r"a\.json, row 0: expected an object.*got 3"),
        ("a.parquet", "PAR1", ValueError, ".*expected a Parquet file, got one that cannot be read"),
        ("a.jsonl.gz", "plain", ValueError, ".*expected a gzip file, got a damaged or incomplete one"),
        (
            "a.csv.gz",
            gzip.compress(b"chosen,rejected\na,b\n", mtime=0)[:-9],
            ValueError,
            "expected a gzip file, got a damaged or incomplete one",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, data, error, message):
    path = write_text(tmp_path / name, data)
    with pytest.raises(error, match=message):
        read_preferences(path)
    with pytest.raises(error):
        read_preferences(path, skip_bad=True)


# ---------------------------------------------------------------- layouts: prompts

HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (HH + " I see.", HH + " I say.", (HH, " I see.", " I say.")),
        (HH + " I see.", HH + " No.\n\nHuman: Why?\n\nAssistant: So.", (HH, " I see.", None)),
        ("The cat sat.", "The cat ran.", ("The cat ", "sat.", "ran.")),
        ("The cat", "The catalogue", ("The ", "cat", "catalogue")),
        ("One\ttwo three", "One\ttwo  four", ("One\ttwo ", "three", " four")),
        ("alpha", "alpine", ("", "alpha", "alpine")),
        ("The cat ", "The cat sat", ("The ", "cat ", "cat sat")),
        ("Q Assistant: yes", "Q Assistant: no", ("Q Assistant: ", "yes", "no")),
        # Cutting at the last marker would leave nothing of the first answer.
        (HH[: HH.index("\n\nHuman: And?")] + HH[:0] + "\n\nAssistant: ", HH, None),
        ("yes", "no", ("", "yes", "no")),
    ],
)
def test_implicit_prompt_of_texts(chosen, rejected, expected):
    ((prompt, first, second),) = texts(read_preferences([{"chosen": chosen, "rejected": rejected}]))
    assert prompt + first == chosen
    assert prompt + second == rejected
    assert first.strip()
    assert second.strip()
    if expected is not None:
        assert (prompt, first) == expected[:2]


def test_the_last_marker_that_leaves_an_answer_is_where_the_prompt_ends():
    start = "\n\nHuman: a\n\nAssistant:"
    chosen = start + " x\n\nAssistant: "
    ((prompt, first, second),) = texts(read_preferences([{"chosen": chosen, "rejected": chosen + "more"}]))
    assert (prompt, first, second) == (start, " x\n\nAssistant: ", " x\n\nAssistant: more")


@given(st.text("ab \n", max_size=30), *[st.text("ab \n", max_size=8).filter(lambda text: text.strip())] * 2)
def test_implicit_prompt_loses_nothing_and_leaves_something(prompt, first, second):
    assume(first != second)
    ((found, chosen, rejected),) = texts(read_preferences([{"chosen": prompt + first, "rejected": prompt + second}]))
    assert (found + chosen, found + rejected) == (prompt + first, prompt + second)
    assert chosen.strip()
    assert rejected.strip()
    assert not found or found[-1].isspace()
    if prompt and prompt[-1].isspace():
        assert found.startswith(prompt)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([user("Hi"), assistant("A")], [user("Hi"), assistant("B")], ("Hi", "A", "B")),
        (
            [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("A")],
            [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("B")],
            ("system: Be kind.\n\nuser: Hi", "A", "B"),
        ),
        (
            [user("Hi"), assistant("A"), user("Go on"), assistant("C")],
            [user("Hi"), assistant("B")],
            ("Hi", "assistant: A\n\nuser: Go on\n\nassistant: C", "B"),
        ),
        ([user("Hi")], [user("Hi"), assistant("B")], ("", "user: Hi", "user: Hi\n\nassistant: B")),
        ([assistant("A")], [assistant("B")], ("", "A", "B")),
    ],
)
def test_implicit_prompt_of_messages(chosen, rejected, expected):
    assert texts(read_preferences([{"chosen": chosen, "rejected": rejected}])) == [expected]


@pytest.mark.parametrize("prompt", ["Hi", " Hi\n", [user("Hi")]])
def test_messages_of_an_explicit_prompt_are_not_repeated_in_the_responses(prompt):
    row = {"prompt": prompt, "chosen": [user("Hi"), assistant("A")], "rejected": [user("Hi"), assistant("B")]}
    table = read_preferences([row])
    assert table.prompt[0].strip() == "Hi"
    assert (table.chosen, table.rejected) == (["A"], ["B"])


def test_an_explicit_prompt_stays_beside_text_and_other_messages():
    rows = [
        {"prompt": "Hi", "chosen": "Hi there", "rejected": [assistant("B")]},
        {"prompt": [user("a"), assistant("b")], "chosen": [user("a"), user("c")], "rejected": "Hi"},
        {"prompt": [], "chosen": [assistant("A")], "rejected": "B"},
    ]
    assert texts(read_preferences(rows)) == [
        ("Hi", "Hi there", "B"),
        ("user: a\n\nassistant: b", "user: a\n\nuser: c", "Hi"),
        ("", "A", "B"),
    ]


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    rows = [{"prompt": "p", "chosen": [assistant(parts)], "rejected": [assistant(np.array(parts))]}]
    rows[0]["rejected"].append(user("Bye"))
    assert texts(read_preferences(rows)) == [("p", "Hello", "assistant: Hello\n\nuser: Bye")]


def test_messages_in_csv_cells(tmp_path):
    chosen, rejected = json.dumps([user("Hi"), assistant("A")]), json.dumps([user("Hi"), assistant("B")])
    path = tmp_path / "a.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["chosen", "rejected", "context"], [chosen, rejected, json.dumps([user("Short!")])]])
        writer.writerows([["[1, 2]", "[3, 4]", "[" * 10_000], ["[{}]", "[]", '[{"role": "user"}]']])
    table = read_preferences(path)
    assert texts(table) == [("Hi", "A", "B"), ("", "[1, 2]", "[3, 4]"), ("", "[{}]", "[]")]
    assert table.context == ["Short!", "[" * 10_000, '[{"role": "user"}]']


# ---------------------------------------------------------------- layouts: labels, ties, groups, names


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
    message = r"a\.jsonl, line 2: expected 1, true or a name of .*, got the label .* in column 'label' .*columns="
    with pytest.raises(MalformedRowError, match=message) as caught:
        read_preferences(path, skip_bad=skip_bad)
    assert repr(label) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


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
    rename = eval(str(caught.value).rpartition("columns=")[2])
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


@pytest.mark.parametrize("name", ["group", "user", "user_id", "worker", "annotator", "annotator_id"])
def test_names_of_the_group(name):
    rows = [row | {name: group} for row, group in zip(ROWS, ["ann", 3, -1], strict=True)]
    table = read_preferences(rows)
    assert table.group.tolist() == ["ann", 3, None]
    assert table.extra == {}


def test_a_group_column_comes_before_its_aliases():
    table = read_preferences([row | {"group": 1, "worker": 2} for row in ROWS])
    assert table.group.tolist() == [1, 1, 1]
    assert table.extra == {"worker": [2, 2, 2]}


def test_two_possible_groups_are_none_and_a_warning():
    rows = [row | {"user": 1, "worker": 2} for row in ROWS]
    with pytest.warns(
        UserWarning, match=r"any of the columns 'user', 'worker' may be the group.*=..group.: 'user'"
    ) as seen:
        table = read_preferences(rows)
    assert seen[0].filename == __file__
    assert table.group is None
    assert table.extra == {"user": [1, 1, 1], "worker": [2, 2, 2]}
    assert read_preferences(rows, columns={"group": "worker"}).group.tolist() == [2, 2, 2]


NO_USER_CELLS = ["", " ", "-1", "-1.0", "NaN", "nan", "NA", "N/A", "<NA>", "#N/A", "null", "NULL", "None", "n/a"]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_users_in_cells_without_types(tmp_path, suffix):
    cells = [*NO_USER_CELLS, ".0", "12", "12.0", "012", str(BIG), "ann"]
    text = "prompt,chosen,rejected,worker\n" + "".join(f"p,a,b,{cell}\n" for cell in cells)
    path = write_text(tmp_path / f"a.{suffix}", text.replace(",", "," if suffix == "csv" else "\t"))
    assert read_preferences(path).group.tolist() == [None] * len(NO_USER_CELLS) + [".0", 12, 12, "012", BIG, "ann"]


def test_users_in_cells_with_types(tmp_path):
    cells = [7, "7", 7.0, "7.0", BIG, str(BIG), 2**70, "NA", "null", ["x", 1], ["x", [1, "2"]], *NOBODY]
    rows = [ROWS[0] | {"worker": cell} for cell in cells]
    expected = [7, 7, 7, "7.0", BIG, BIG, 2**70, "NA", "null", ("x", 1), ("x", (1, 2)), *[None] * len(NOBODY), None]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, ROWS[0]])
    assert read_preferences(path).group.tolist() == expected
    path = write_text(tmp_path / "a.json", json.dumps([*rows, ROWS[0]]))
    assert read_preferences(path).group.tolist() == expected
    assert read_preferences([*rows, ROWS[0]]).group.tolist() == expected


NOBODY = [None, float("nan"), -1, -1.0, "-1", "", " "]


def test_one_user_in_every_format(tmp_path):
    rows = [row | {"user": id} for row, id in zip(ROWS, [BIG, BIG + 1, None], strict=True)]
    frame = pd.DataFrame(ROWS).assign(user=pd.array([BIG, BIG + 1, None], dtype="Int64"))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    write_jsonl(tmp_path / "a.jsonl", rows)
    paths = [tmp_path / f"a.{suffix}" for suffix in ("csv", "parquet", "jsonl")]
    for source in (*paths, frame, frame.astype({"user": object}), rows, hf_datasets.Dataset.from_pandas(frame)):
        assert read_preferences(source).group.tolist() == [BIG, BIG + 1, None]


def test_ids_that_were_floats_are_integers_or_refused(tmp_path):
    frame = pd.DataFrame([row | {"user": id} for row, id in zip(ROWS, [12, 7, None], strict=True)])
    assert frame.user.dtype == np.float64
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, tmp_path / "a.csv"):
        assert read_preferences(source).group.tolist() == [12, 7, None]
    frame["user"] = [float(BIG), float(BIG + 1), None]
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, tmp_path / "a.csv"):
        with pytest.raises(MalformedRowError, match=r"below 2\*\*53 where ids are floats, .*column 'user'"):
            read_preferences(source)


@pytest.mark.parametrize("id", [True, 1.5, ["x", None], [], {"a": 1}])
def test_cells_that_are_no_id(tmp_path, id):
    path = write_jsonl(tmp_path / "a.jsonl", [ROWS[0] | {"user": id}])
    with pytest.raises(MalformedRowError, match=r"line 1: expected .* got .*column 'user'"):
        read_preferences(path)


def test_contexts_and_extra_columns_may_be_missing_in_some_rows():
    table = read_preferences([ROWS[0], ROWS[1] | {"context": [user("Short!")], "id": 5}, ROWS[2] | {"context": None}])
    assert table.context == ["", "Short!", ""]
    assert table.extra == {"id": [None, 5, None]}
    assert read_preferences(ROWS).context is None


def test_weights_are_numbers_or_their_text():
    assert read_preferences([row | {"weight": weight} for row, weight in zip(ROWS, [2, "0.5", 0], strict=True)]).weight[
        :
    ].tolist() == [2, 0.5, 0]


def test_columns_renames():
    rows = [{"question": "p", "better": "a", "worse": "b", "label": "cooking", "group": "x", "worker": "ann"}]
    names = {
        "prompt": "question",
        "chosen": "better",
        "rejected": "worse",
        "topic": "label",
        "group": "worker",
        "demography": "group",
    }
    table = read_preferences(rows, columns=names)
    assert texts(table) == [("p", "a", "b")]
    assert table.group.tolist() == ["ann"]
    assert table.extra == {"topic": ["cooking"], "demography": ["x"]}
    with pytest.raises(MalformedRowError, match=r"row 0: .*got an empty response in column 'better'"):
        read_preferences([rows[0] | {"better": " "}], columns=names)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"chosen": "best"}, "got 'best' for 'chosen'; it has only 'prompt', 'chosen', 'rejected'"),
        ({"context": "prompt", "topic": "prompt"}, "expected columns to give 'prompt' one new name, got more"),
        ({"chosen": "prompt"}, "there is a column 'chosen' as well; give that one another name"),
    ],
)
def test_columns_that_do_not_fit_the_source(columns, message):
    with pytest.raises(ValueError, match=message):
        read_preferences(ROWS, columns=columns)


# ---------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "expected one object on the line.*got malformed JSON .*column 2"),
        ("[" * 200_000, "expected one object on the line.*got malformed JSON"),
        ("3", "expected an object with named cells.*got 3"),
        (b'{"prompt": "\xe9"}', "got the byte 0xe9, which is not UTF-8"),
        ({"chosen": "a", "prompt": "p"}, "expected the columns 'rejected', 'weight' too, got 'chosen', 'prompt'"),
        ({"prompt": 3}, "expected text or a list of messages.*got 3 in column 'prompt'"),
        ({"chosen": None}, "expected text or a list of messages.*got None in column 'chosen'"),
        ({"chosen": " \n"}, "got an empty response in column 'chosen'"),
        ({"rejected": [assistant(" "), user("")]}, "got an empty response in column 'rejected'"),
        ({"rejected": []}, "got an empty response in column 'rejected'"),
        ({"rejected": "Yes."}, "got the same text in the columns 'chosen' and 'rejected'"),
        ({"chosen": "\ud800"}, "got a lone surrogate in column 'chosen'"),
        ({"chosen": ["Yes."]}, "expected an object with 'role' and.*got the message 'Yes.' in column 'chosen'"),
        ({"chosen": [{"role": 3, "content": "a"}]}, "got the message .* in column 'chosen'"),
        ({"chosen": [{"role": "user"}]}, "got the message .* in column 'chosen'"),
        ({"chosen": [assistant(None)]}, "got a message with the content None in column 'chosen'"),
        ({"chosen": [assistant([{"type": "image_url"}])]}, "got a message part of type 'image_url' in column"),
        ({"chosen": [assistant(["text"])]}, "got a message part of type 'text' in column"),
        ({"chosen": [assistant([{"type": "plan", "text": "a"}])]}, "got a message part of type 'plan' in column"),
        ({"chosen": [assistant([{"type": "text"}])]}, "got a message part of type 'text' in column"),
        ({"weight": -1}, "expected a finite number that is not negative.*got the weight -1 in column 'weight'"),
        ({"weight": float("inf")}, "got the weight inf"),
        ({"weight": None}, "got the weight None"),
        ({"weight": True}, "got the weight True"),
        ({"weight": "heavy"}, "got the weight 'heavy'"),
        ({"weight": 10**400}, "got the weight 1000"),
        ({"tie": "perhaps"}, "expected true, false, 1 or 0.*got 'perhaps' in column 'tie'"),
        ({"user": 1.5}, "expected an integer, a string or a tuple of these as an id, got 1.5 .column 'user'"),
        ({"context": 4}, "expected text.*got 4 in column 'context'"),
    ],
)
def test_a_bad_row_says_where_and_what_and_can_be_left_out(tmp_path, row, message):
    good = ROWS[0] | {"weight": 1}
    if isinstance(row, dict):
        row = json.dumps(row if "rejected" not in row and len(row) == 2 else good | row)
    row = row if isinstance(row, bytes) else row.encode()
    path = write_text(
        tmp_path / "a.jsonl", b"\n".join([json.dumps(good).encode(), b"", row, json.dumps(good).encode()])
    )
    with pytest.raises(MalformedRowError, match=rf"a\.jsonl, line 3: .*{message}"):
        read_preferences(path)
    with pytest.warns(
        UserWarning, match=r"1 of 3 rows are left out; they are kept in .*a\.jsonl\.rejected\.jsonl; the"
    ):
        table = read_preferences(path, skip_bad=True)
    assert (len(table), table.n_rejected) == (2, 1)
    (kept,) = [json.loads(line) for line in (tmp_path / "a.jsonl.rejected.jsonl").read_text().splitlines()]
    assert list(kept) == ["line", "reason", "row"]
    assert kept["line"] == 3
    assert kept["row"] == (
        json.loads(row) if isinstance(kept["row"], dict | int) else row.decode(errors="surrogateescape")
    )


@pytest.mark.parametrize(
    ("row", "message", "kept"),
    [
        ("p,a", "expected 3 cells as in the header, got 2", ["p", "a"]),
        ("p,a,b,c", "expected 3 cells as in the header, got 4", ["p", "a", "b", "c"]),
        ('p,"a"x,b', ".*expected CSV with doubled quotes in quoted cells, got malformed CSV", 'p,"a"x,b'),
        (b"p,\xff,b", "expected text in UTF-8, got the byte 0xff, which is not UTF-8", "p,\udcff,b"),
        (
            "p,,b",
            "expected text, got an empty response in column 'chosen'",
            {"prompt": "p", "chosen": "", "rejected": "b"},
        ),
    ],
)
def test_a_bad_csv_row_is_where_it_begins(tmp_path, row, message, kept):
    row = row if isinstance(row, bytes) else row.encode()
    path = write_text(tmp_path / "a.csv", b'prompt,chosen,rejected\n\n"p\nq\r\nr",a,b\r\n' + row + b"\np,a,b")
    with pytest.raises(MalformedRowError, match=rf"a\.csv, line 6: .*{message}"):
        read_preferences(path)
    with pytest.warns(UserWarning, match="1 of 3 rows are left out"):
        table = read_preferences(path, skip_bad=True, rejected_path=tmp_path / "bad.jsonl")
    assert texts(table) == [("p\nq\r\nr", "a", "b"), ("p", "a", "b")]
    assert json.loads((tmp_path / "bad.jsonl").read_text())["row"] == kept
    assert not (tmp_path / "a.csv.rejected.jsonl").exists()


def test_a_quote_that_is_never_closed_is_one_bad_row(tmp_path):
    path = write_text(tmp_path / "a.csv", 'prompt,chosen,rejected\np,a,b\np,"a,b\np,a,b\n')
    with pytest.raises(MalformedRowError, match=r"line 3: .*got malformed CSV"):
        read_preferences(path)


def test_bad_rows_in_memory_are_kept_only_where_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [ROWS[0], {**ROWS[1], "chosen": pd.Timestamp(0)}, 7]
    with pytest.raises(MalformedRowError, match=r"the list, row 1: .*got Timestamp"):
        read_preferences(rows)
    with pytest.warns(UserWarning, match="2 of 3 rows are left out; the first is row 1: expected") as seen:
        assert read_preferences(rows, skip_bad=True).n_rejected == 2
    assert seen[0].filename == __file__
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="left out"):
        read_preferences(rows, skip_bad=True, rejected_path="bad.jsonl")
    kept = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [one["line"] for one in kept] == [1, 2]
    assert kept[0]["row"]["chosen"] == "1970-01-01 00:00:00"


def test_nothing_is_said_or_written_when_all_rows_are_good(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_preferences(path, skip_bad=True).n_rejected == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("lines", [["{", "3"], [json.dumps({**ROWS[0], "chosen": ""})]])
def test_a_source_of_bad_rows_only_is_an_error_that_keeps_them(tmp_path, lines):
    path = write_text(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(
        ValueError, match=rf"expected good rows, got {len(lines)} bad .* they are kept in .*the first is line 1"
    ):
        read_preferences(path, skip_bad=True, columns={"chosen": "chosen"})
    assert len((tmp_path / "a.jsonl.rejected.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.parametrize(
    "row", [{"prompt": "p", "text": "t"}, {"chosen": "a"}, {"response_a": "a", "response_b": "b"}, {"first": "a"}, {}]
)
def test_columns_that_are_no_layout(tmp_path, row):
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    with pytest.raises(MalformedRowError, match=r"a\.jsonl, line 1: expected chosen and rejected, or.*got the columns"):
        read_preferences(path, skip_bad=True)


def test_text_against_messages_needs_a_prompt_column():
    with pytest.raises(MalformedRowError, match=r"row 0: .*got one response as text and the other as messages"):
        read_preferences([{"chosen": "a", "rejected": [assistant("b")]}])


# ---------------------------------------------------------------- the package


def test_reading_jsonl_and_csv_imports_nothing_heavy(tmp_path):
    jsonl = write_jsonl(tmp_path / "a.jsonl", ROWS)
    table = write_text(tmp_path / "a.csv", "chosen,rejected\na,b\n")
    code = (
        "import sys; from micropref import read_preferences as read\n"
        f"read({str(jsonl)!r}), read({str(table)!r}), read([{{'chosen': 'a', 'rejected': 'b'}}])\n"
        "print(sorted({'pandas', 'pyarrow', 'datasets', 'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_names_of_the_datasets_package():
    for name in micropref.datasets.__all__:
        assert getattr(micropref.datasets, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        micropref.datasets.nothing  # noqa: B018
