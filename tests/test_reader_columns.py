"""Users, contexts, weights and names of columns."""

from __future__ import annotations

import json

import datasets as hf_datasets
import numpy as np
import pandas as pd
import pytest
from reading_cases import BIG, ROWS, texts, user, write_jsonl, write_text

from micropref.datasets import MalformedRowError, read_preferences


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
        with pytest.raises(MalformedRowError, match=r"below 2\*\*53 if ids are floats, .*column 'user'"):
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
        ({"chosen": "best"}, "is there as 'chosen', got 'best'; there are only 'prompt', 'chosen', 'rejected'"),
        ({"context": "prompt", "topic": "prompt"}, "expected columns to give 'prompt' one new name, got more"),
        ({"chosen": "prompt"}, "there is a column 'chosen' as well; give that one another name"),
    ],
)
def test_columns_that_do_not_fit_the_source(columns, message):
    with pytest.raises(ValueError, match=message):
        read_preferences(ROWS, columns=columns)
