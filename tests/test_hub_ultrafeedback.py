"""UltraFeedback: ratings of aspects as comparisons."""

from __future__ import annotations

from typing import Any

import datasets as hf_datasets
import pytest
from hub_cases import completion, ultrafeedback_row

from micropref.datasets import (
    MalformedRowError,
    load_ultrafeedback,
)
from micropref.datasets.hub.ultrafeedback import ULTRAFEEDBACK_CONTEXTS


def test_ultrafeedback_chooses_the_higher_rating_of_each_aspect() -> None:
    table = load_ultrafeedback(hf_datasets.Dataset.from_list([ultrafeedback_row()])).train
    found = [
        (aspect, chosen.split()[1], rejected.split()[1])
        for aspect, chosen, rejected in zip(table.extra["aspect"], table.chosen, table.rejected, strict=True)
    ]
    # Helpfulness is a tie, so are 1 and 2 on following and honesty; 0 has no rating of truthfulness.
    assert found == [
        ("instruction_following", "0", "1"),
        ("honesty", "1", "0"),
        ("instruction_following", "0", "2"),
        ("honesty", "2", "0"),
        ("truthfulness", "2", "1"),
    ]
    assert table.context == [ULTRAFEEDBACK_CONTEXTS[aspect] for aspect in table.extra["aspect"]]
    assert table.extra["chosen_rating"] == [5, 4, 5, 4, 4]
    assert table.extra["rejected_rating"] == [1, 2, 1, 2, 3]
    assert table.extra["chosen_model"] == ["model-0", "model-1", "model-0", "model-2", "model-2"]
    assert table.extra["source"] == ["sharegpt"] * 5
    assert set(table.prompt) == {"Instruction 0"}


def test_ultrafeedback_completions_of_the_same_text_are_no_pair() -> None:
    twins = [completion(0, ("5",) * 4, response="Same."), completion(1, ("1",) * 4, response="Same.")]
    other = completion(2, ("3",) * 4)
    table = load_ultrafeedback([ultrafeedback_row(completions=[*twins, other])]).train
    assert table.chosen == ["Same."] * 4 + [other["response"]] * 4


def test_ultrafeedback_splits_by_instruction() -> None:
    rows = [ultrafeedback_row(i % 6) for i in range(8)]
    loaded = load_ultrafeedback(rows, test_size=0.5)
    assert not set(loaded.train.prompt) & set(loaded.test.prompt)
    assert len(loaded.train) + len(loaded.test) == 40
    assert len(set(loaded.test.prompt)) == 3


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ("text", "expected a list.*got 'text' in column 'completions'"),
        (["text"], "completion 0: expected an object with 'response' and 'annotations'.*got 'text'"),
        ([completion(0, ("1",) * 4), {"response": "x"}], "completion 1: expected an object.*got {'response': 'x'}"),
        (
            [completion(0, ("1",) * 4, response="")],
            "completion 0: .*expected text, got an empty one in column 'response'",
        ),
        ([completion(0, ("1",) * 4, annotations=None)], "completion 0: expected an object.*got the annotations None"),
        (
            [completion(0, ("1",) * 4, annotations={})],
            "completion 0: .*expected a number .* as 'Rating' of the aspect 'instruction_following', got none",
        ),
        ([completion(0, ("1", "2", "3", "?"))], r"completion 0: expected a number.*got '\?' in column 'Rating'"),
    ],
)
def test_ultrafeedback_bad_completions(completions: Any, message: str) -> None:
    row = ultrafeedback_row() | {"completions": completions}
    with pytest.raises(MalformedRowError, match=f"row 1: {message}"):
        load_ultrafeedback([ultrafeedback_row(), row])
