"""Ratings of single responses, as tables, from the records of HelpSteer2 and UltraFeedback."""

from __future__ import annotations

import numpy as np
import pytest

from micropref.datasets import (
    MalformedRowError,
    load_helpsteer2,
    load_helpsteer2_ratings,
    load_ultrafeedback,
    load_ultrafeedback_ratings,
)
from micropref.datasets.stand_ins import make_stand_in


def test_helpsteer2_rates_every_response_on_five_attributes():
    source = make_stand_in("helpsteer2", 60)
    table = load_helpsteer2_ratings(source)
    assert table.attributes == ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    assert table.response == [row["response"] for row in source["train"]]
    assert table.scores.tolist() == [[row[name] for name in table.attributes] for row in source["train"]]
    assert len(load_helpsteer2_ratings(source, split="validation")) == len(source["validation"])
    assert repr(table) == f"RatingTable(60 responses, rated for {', '.join(table.attributes)})"
    # Prompts are the texts of the comparisons, and their scores those of the two responses.
    compared = load_helpsteer2(source).train
    assert set(compared.prompt) <= set(table.prompt)
    score = {
        (prompt, response, name): value
        for prompt, response, row in zip(table.prompt, table.response, table.scores.tolist(), strict=True)
        for name, value in zip(table.attributes, row, strict=True)
    }
    for i in range(len(compared)):
        for side in ("chosen", "rejected"):
            key = compared.prompt[i], getattr(compared, side)[i], compared.extra["attribute"][i]
            assert score[key] == compared.extra[f"{side}_score"][i]


def test_ultrafeedback_rates_every_completion_and_leaves_out_what_was_not_rated():
    source = make_stand_in("ultrafeedback", 50)
    table = load_ultrafeedback_ratings(source)
    assert table.attributes == ("instruction_following", "honesty", "truthfulness", "helpfulness")
    assert len(table) == 200
    given = [
        one["annotations"][name]["Rating"]
        for row in source["train"]
        for one in row["completions"]
        for name in table.attributes
    ]
    expected = [np.nan if rating == "N/A" else float(rating) for rating in given]
    assert 0 < np.isnan(expected).sum() < 40
    np.testing.assert_array_equal(table.scores.ravel(), expected)
    assert set(load_ultrafeedback(source).train.prompt) <= set(table.prompt)


@pytest.mark.parametrize(
    ("load", "name", "column"),
    [
        (load_helpsteer2_ratings, "helpsteer2", "verbosity"),
        (load_ultrafeedback_ratings, "ultrafeedback", "completions"),
    ],
)
def test_bad_rows_stop_or_are_counted(load, name, column):
    rows = make_stand_in(name, 16)["train"]
    rows[3] = {**rows[3], column: "many"}
    with pytest.raises(MalformedRowError, match=rf"row 3: expected .* got 'many' in column '{column}'"):
        load(rows)
    with pytest.warns(UserWarning, match=f"1 of {len(rows)} rows are left out"):
        table = load(rows, skip_bad=True)
    assert table.n_rejected == 1
    assert len(table) < len(load(rows[4:])) + 16
    with pytest.raises(ValueError, match="expected a good row, got none"):
        load([rows[3]], skip_bad=True)


def test_a_split_that_is_none():
    with pytest.raises(ValueError, match="expected split to be 'train' or 'validation', got 'test'"):
        load_helpsteer2_ratings([], split="test")
