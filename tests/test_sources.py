"""Files and tables in memory, and what cannot be read of them."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys

import datasets as hf_datasets
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from reading_cases import ROWS, assistant, texts, user, write_jsonl, write_text

import micropref.datasets
from micropref.datasets import MalformedRowError, PreferenceTable, read_preferences


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
            "expected each column name once, got 'chosen', 'chosen'",
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
        ("https://x.org/a.jsonl", FileNotFoundError, r"https://x\.org/a\.jsonl: .* got an address; download the file"),
        ("no/such.jsonl", FileNotFoundError, r"no/such\.jsonl: expected a file, got none: there is no such file"),
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
        ("a.json", "3", ValueError, "expected one list of objects.*got 3"),
        ("a.json", '{"a": 1,\n"b": {"c": 2}}', ValueError, "expected one list of objects.*with the keys 'a', 'b'"),
        ("a.json", "[{},\n\n{]", MalformedRowError, "line 3: expected one list of objects, got malformed JSON"),
        ("a.json", '{"a": 1}\n{"a": }', MalformedRowError, r"line 2: .*one object on each line is called \.jsonl"),
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
