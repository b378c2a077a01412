"""RPR: every pair under two criteria."""

from __future__ import annotations

import datasets as hf_datasets
import pytest
from hub_cases import rpr_row

from micropref.datasets import (
    MalformedRowError,
    load_rpr,
)


def test_rpr_reverses_every_pair() -> None:
    dataset = hf_datasets.DatasetDict(
        {
            "train": hf_datasets.Dataset.from_list([rpr_row(0), rpr_row(1)]),
            "test": hf_datasets.Dataset.from_list([rpr_row(2)]),
        }
    )
    loaded = load_rpr(dataset)
    train = loaded.train
    assert (len(train), len(loaded.test)) == (4, 2)
    assert train.prompt == [rpr_row(i)["prompt"] for i in (0, 0, 1, 1)]
    assert train.context == ["Brevity and directness", "Depth of explanation"] * 2
    assert train.chosen == ["Short 0.", "A long answer 0, with reasons.", "Short 1.", "A long answer 1, with reasons."]
    assert train.rejected == [train.chosen[i] for i in (1, 0, 3, 2)]
    assert train.extra["category"] == ["Conciseness", "Completeness"] * 2
    assert train.extra["id"] == [100, 100, 101, 101]
    assert train.group is None
    assert train.weight is None
    by_scenario = load_rpr(dataset, context="scenario").train
    assert (
        by_scenario.context
        == train.extra["scenario"]
        == ["A commuter reads on a phone.", train.extra["scenario"][1]] * 2
    )
    assert by_scenario.chosen == train.chosen
    with pytest.raises(ValueError, match="expected context to be 'criteria' or 'scenario', got 'profile'"):
        load_rpr(dataset, context="profile")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response_a": " "}, "row 1: .*expected text, got an empty one in column 'response_a'"),
        ({"response_a": None}, "row 1: expected text or a list of messages.*got None in column 'response_a'"),
        ({"response_b": "Short 1."}, "row 1: expected two different responses, got the same text in both"),
        ({"criteria_y": ""}, "row 1: .*expected text, got an empty one in column 'criteria_y'"),
        ({"prompt": [{"role": "user", "content": "x"}]}, r"row 1: expected text.*got \[.*\] in column 'prompt'"),
        ({"prompt": "\ud800"}, "row 1: .*got a lone surrogate in column 'prompt'"),
    ],
)
def test_bad_rows_stop_or_are_counted(changes: dict, message: str) -> None:
    rows = [rpr_row(0), rpr_row(1, **changes), rpr_row(2)]
    with pytest.raises(MalformedRowError, match=f"^a list, {message}"):
        load_rpr(rows)
    with pytest.warns(UserWarning, match=f"^a list: 1 of 3 rows are left out; the first is {message}"):
        train = load_rpr(rows, skip_bad=True).train
    assert train.n_rejected == 1
    assert train.extra["id"] == [100, 100, 102, 102]
