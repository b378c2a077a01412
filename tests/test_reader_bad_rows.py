"""Bad rows: where they are, what they lack, and where they are kept."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest
from reading_cases import ROWS, assistant, texts, user, write_jsonl, write_text

from micropref.datasets import MalformedRowError, read_preferences


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "expected one object on the line.*got malformed JSON .*column 2"),
        ("[" * 200_000, "expected one object on the line.*got malformed JSON"),
        ("3", "expected an object with named cells.*got 3"),
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
        ("p,a\rc,b", ".*got a carriage return alone in a cell without quotes; save the file with", "p,a\rc,b"),
        ('p,"a"x,b', ".*expected CSV with doubled quotes in quoted cells, got malformed CSV", 'p,"a"x,b'),
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


def test_a_quote_that_is_never_closed_is_a_fault_of_the_file(tmp_path):
    path = write_text(tmp_path / "a.csv", 'prompt,chosen,rejected\np,a,b\np,"a,b\np,a,b\n')
    for skip_bad in (False, True):  # as one bad row, it would silently take all rows after it with it
        with pytest.raises(MalformedRowError, match=r"line 3: .*a quote that is never closed and takes in the rest"):
            read_preferences(path, skip_bad=skip_bad)


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


@pytest.mark.parametrize("one", ["votes", "label", "preference"])
def test_neither_half_of_a_pair_of_columns_is_proposed_as_the_label(one):
    row = {"prompt": "p", "response_a": "x", "response_b": "y", f"{one}_a": 3, f"{one}_b": 1}
    with pytest.raises(ValueError, match=r"say which one it is: columns=\{'label': 'NAME'\}"):
        read_preferences([row])
