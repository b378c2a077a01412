"""Responses to be scored, from the same sources as comparisons."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from micropref.datasets import MalformedRowError, PreferenceTable, read_preferences
from micropref.datasets.responses import ResponseTable, read_responses

ROWS = [
    {"prompt": "Say hello.", "response": "Hello!", "context": "be kind", "user": "ann"},
    {"prompt": "Say hello.", "response": "Hi, «you».", "context": "", "user": "bob"},
    {"prompt": "", "response": "Nothing, really.", "context": "be brief", "user": "ann"},
]
EXPECTED = ResponseTable(
    prompt=["Say hello.", "Say hello.", ""],
    response=["Hello!", "Hi, «you».", "Nothing, really."],
    context=["be kind", "", "be brief"],
    user=["ann", "bob", "ann"],
    row=[0, 1, 2],
)

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: not text.isspace())


def write(path, rows):
    """Rows in the format that the suffix names."""
    name = path.name.removesuffix(".gz")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    frame = pd.DataFrame(rows)
    content = {
        "jsonl": lambda: lines,
        "ndjson": lambda: lines,
        "json": lambda: json.dumps(rows),
        "csv": lambda: frame.to_csv(index=False),
        "tsv": lambda: frame.to_csv(index=False, sep="\t"),
    }
    if name.endswith(".parquet"):
        frame.to_parquet(path)
        return path
    data = content[name.rsplit(".", 1)[1]]().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# ---------------------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize(
    "name", ["r.jsonl", "r.ndjson", "r.json", "r.csv", "r.tsv", "r.parquet", "r.jsonl.gz", "r.csv.gz"]
)
def test_files(name, tmp_path):
    assert read_responses(write(tmp_path / name, ROWS)) == EXPECTED
    assert read_responses(str(tmp_path / name)) == EXPECTED


@pytest.mark.parametrize(
    "convert",
    [list, pd.DataFrame, Dataset.from_list, lambda rows: {name: [row[name] for row in rows] for name in rows[0]}],
    ids=["list of dicts", "DataFrame", "Dataset", "dict of columns"],
)
def test_tables_in_memory(convert):
    assert read_responses(convert(ROWS)) == EXPECTED
    assert len(read_responses(convert(ROWS))) == 3


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",))), texts), min_size=1, max_size=5))
def test_any_text_comes_through(pairs):
    table = read_responses([{"prompt": prompt, "response": response} for prompt, response in pairs])
    assert list(zip(table.prompt, table.response, strict=True)) == pairs


# ---------------------------------------------------------------------------------------------------------- columns


def test_only_a_response_is_needed():
    assert read_responses([{"response": "Hello!"}]) == ResponseTable([""], ["Hello!"], None, None, [0])


def test_a_list_of_candidates_stays_with_its_row():
    table = read_responses(
        [
            {"prompt": "p", "responses": ["a", "b"], "user": 1},
            {"prompt": "q", "responses": ["c"], "context": "brief"},
        ]
    )
    assert table == ResponseTable(["p", "p", "q"], ["a", "b", "c"], ["", "", "brief"], [1, 1, None], [0, 0, 1])


def test_a_list_of_candidates_in_parquet(tmp_path):
    rows = [{"prompt": "p", "responses": ["a", "b"]}, {"prompt": "q", "responses": ["c"]}]
    path = write(tmp_path / "r.parquet", rows)
    assert read_responses(path).response == ["a", "b", "c"]
    frame = pd.read_parquet(path)
    assert isinstance(frame["responses"][0], np.ndarray)
    assert read_responses(frame).response == ["a", "b", "c"]


def test_rows_may_be_of_both_kinds():
    table = read_responses([{"response": "a", "responses": None}, {"response": None, "responses": ["b", "c"]}])
    assert (table.response, table.row) == (["a", "b", "c"], [0, 1, 1])


@pytest.mark.parametrize("column", ["group", "user", "user_id", "worker", "annotator", "annotator_id"])
def test_users_under_every_name_that_comparisons_know(column):
    votes = read_preferences([{"prompt": "p", "chosen": "a", "rejected": "b", column: "ann"}])
    assert votes.group.tolist() == ["ann"]
    assert read_responses([{"response": "a", column: "ann"}]).user == ["ann"]


def test_the_first_column_that_a_row_fills_names_the_user():
    assert read_responses([{"response": "a", "group": None, "user": "ann", "user_id": "x"}]).user == ["ann"]


@pytest.mark.parametrize(
    ("cell", "user"),
    [
        ("ann", "ann"),
        (7, 7),
        (7.0, 7),
        (np.int64(3), 3),
        ("7", 7),
        ("7.0", "7.0"),
        (2**70, 2**70),
        ([1, "a"], (1, "a")),
    ],
)
def test_ids_of_users(cell, user):
    (found,) = read_responses([{"response": "a", "user": cell}]).user
    assert found == user
    assert type(found) is type(user)


@pytest.mark.parametrize("cell", [None, float("nan"), -1, "", " "])
def test_unknown_users(cell):
    rows = [{"response": "a", "user": cell}, {"response": "b", "user": "ann"}]
    assert read_responses(rows).user == [None, "ann"]
    assert read_responses(rows[:1]).user is None


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_cells_are_blank(missing):
    rows = [{"prompt": missing, "response": "a", "context": missing}, {"response": "b", "context": "brief"}]
    assert read_responses(rows) == ResponseTable(["", ""], ["a", "b"], ["", "brief"], None, [0, 1])
    assert read_responses(pd.DataFrame(rows)) == read_responses(rows)
    assert read_responses(rows[:1]).context is None


# ------------------------------------------------------------------------------------------------------------- chat


def say(role, content):
    return {"role": role, "content": content}


def test_chat_messages():
    asked, answer = say("user", "Hi?"), [say("assistant", "Hello!")]
    table = read_responses(
        [
            {"prompt": [asked], "response": answer, "context": [say("user", "kind")]},
            {"prompt": [say("system", "Be kind."), asked], "responses": [answer, "Yo."]},
        ]
    )
    assert table.prompt == ["Hi?", "system: Be kind.\n\nuser: Hi?", "system: Be kind.\n\nuser: Hi?"]
    assert table.response == ["Hello!", "Hello!", "Yo."]
    assert table.context == ["kind", "", ""]


def test_chat_messages_in_csv_cells(tmp_path):
    rows = [{"prompt": json.dumps([say("user", "Hi?")]), "response": json.dumps([say("assistant", "Hello!")])}]
    table = read_responses(write(tmp_path / "r.csv", rows))
    assert (table.prompt, table.response) == (["Hi?"], ["Hello!"])


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("Hi?", "Hello!"),
        ([say("user", "Hi?")], [say("assistant", "Hello!")]),
        ([say("user", "Hi?")], [say("user", "Hi?"), say("assistant", "Hello!")]),
        ("Hi?", [say("user", " Hi? "), say("assistant", "Hello!")]),
        ([say("user", "Hi?")], [say("assistant", "Hello!"), say("assistant", "Bye.")]),
    ],
)
def test_a_response_reads_as_it_did_in_a_comparison(prompt, response):
    """Else a model would score other texts than it was fitted to."""
    other = [say("assistant", "Something else.")] if isinstance(response, list) else "Something else."
    comparison = read_preferences([{"prompt": prompt, "chosen": response, "rejected": other}])
    scored = read_responses([{"prompt": prompt, "response": response}])
    assert (scored.prompt, scored.response) == (comparison.prompt, comparison.chosen)


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "expected 'response' or 'responses', got the columns 'prompt', 'chosen'"),
        ({}, "expected 'response' or 'responses', got the columns none"),
        ({"response": None}, "got the columns none"),
        ({"response": "  "}, "expected text, got an empty response"),
        ({"response": []}, "expected text, got an empty response"),
        ({"responses": ["a", ""]}, "expected text, got an empty response"),
        ({"responses": []}, "expected a list of at least one as 'responses', got []"),
        ({"responses": "a"}, "expected a list of at least one as 'responses', got 'a'"),
        ({"response": 7}, "expected text or a list of messages, got 7 in column 'response'"),
        ({"response": "a", "prompt": 7}, "expected text or a list of messages, got 7 in column 'prompt'"),
        (
            {"response": "a", "context": {"b": 1}},
            "expected text or a list of messages, got {'b': 1} in column 'context'",
        ),
        ({"response": [{"role": "assistant"}]}, "expected an object with 'role' and 'content'"),
        ({"response": "a", "user": 1.5}, "expected an integer, a string or a tuple of these as an id, got 1.5"),
        ({"response": "a", "user": True}, "expected an integer, a string or a tuple of these as an id, got True"),
        ({"response": "a\ud800"}, "got a lone surrogate in column 'response'"),
        ("text", "expected an object with named cells, got 'text'"),
    ],
)
def test_a_bad_row_is_named_with_its_place(row, message, tmp_path):
    with pytest.raises(MalformedRowError, match="^the list, row 1: .*" + re.escape(message)):
        read_responses([ROWS[0], row])
    path = tmp_path / "responses.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(MalformedRowError, match="^" + re.escape(f"{path}, line 3: ") + ".*" + re.escape(message)):
        read_responses(path)


def test_a_csv_record_stands_where_it_begins(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('prompt,response\n"two\nlines",fine\n,""\n')
    with pytest.raises(MalformedRowError, match=r"r\.csv, line 4: .*got an empty response"):
        read_responses(path)
    path.write_text("prompt,response\na\n")
    with pytest.raises(MalformedRowError, match=r"r\.csv, line 2: expected 2 cells as in the header, got 1"):
        read_responses(path)


def test_malformed_json(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"response": "a"}\n{"response": \n')
    with pytest.raises(MalformedRowError, match=r"r\.jsonl, line 2: .*got malformed JSON"):
        read_responses(path)


def test_long_cells_are_shortened_in_errors():
    with pytest.raises(MalformedRowError) as error:
        read_responses([{"responses": "a" * 10_000}])
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("source", [[], {}, {"response": []}])
def test_nothing_to_score(source):
    with pytest.raises(ValueError, match="expected at least one response, got none"):
        read_responses(source)


def test_an_empty_file(tmp_path):
    (tmp_path / "r.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"r\.jsonl: expected at least one response, got none"):
        read_responses(tmp_path / "r.jsonl")


def test_no_file_and_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_responses(tmp_path / "nowhere.jsonl")
    with pytest.raises(TypeError, match=r"expected a path, .* got a PreferenceTable"):
        read_responses(PreferenceTable(["p"], ["a"], ["b"]))
