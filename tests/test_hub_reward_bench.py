"""RewardBench, both versions."""

from __future__ import annotations

import datasets as hf_datasets
import numpy as np
import pytest
from hub_cases import bench2_row, bench_row

from micropref.datasets import (
    MalformedRowError,
    load_reward_bench,
)


def test_reward_bench_1() -> None:
    splits = hf_datasets.DatasetDict(
        {
            "raw": hf_datasets.Dataset.from_list([bench_row(0), bench_row(1)]),
            "filtered": hf_datasets.Dataset.from_list([bench_row(1)]),
        }
    )
    loaded = load_reward_bench(splits, version=1)
    assert loaded.train is None
    assert loaded.name == "RewardBench"
    assert (loaded.test.prompt, loaded.test.chosen, loaded.test.rejected) == (["Prompt 1"], ["Right 1"], ["Wrong 1"])
    assert loaded.test.extra == {"subset": ["llmbar-natural"], "id": [1]}
    assert loaded.test.weight is None
    assert load_reward_bench(splits, version=1, split="raw").test.extra["id"] == [0, 1]
    with pytest.raises(ValueError, match="expected split to be one of 'filtered', 'raw' in version 1, got 'test'"):
        load_reward_bench(splits, version=1, split="test")
    with pytest.raises(ValueError, match="expected split to be one of 'test' in version 2, got 'raw'"):
        load_reward_bench(splits, split="raw")
    with pytest.raises(ValueError, match="expected version to be 1 or 2, got 3"):
        load_reward_bench(splits, version=3)


def test_reward_bench_1_prompts_of_messages() -> None:
    messages = [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C?"},
    ]
    table = load_reward_bench([bench_row(prompt=messages)], version=1).test
    assert table.prompt == ["user: A?\n\nassistant: B\n\nuser: C?"]


def test_reward_bench_2_every_right_against_every_wrong() -> None:
    rows = [bench2_row(), bench2_row(2, 3, "Ties")]
    loaded = load_reward_bench(hf_datasets.DatasetDict({"test": hf_datasets.Dataset.from_list(rows)}))
    table = loaded.test
    assert table.chosen == ["right 0"] * 3 + ["right 0"] * 3 + ["right 1"] * 3
    assert table.rejected == ["wrong 0", "wrong 1", "wrong 2"] * 3
    assert table.extra["id"] == ["Focus-1"] * 3 + ["Ties-2"] * 6
    assert table.extra["num_correct"] == [1] * 3 + [2] * 6
    np.testing.assert_allclose(table.weight, [1 / 3] * 3 + [1 / 6] * 6)
    assert (loaded.name, loaded.train) == ("RewardBench 2", None)
    without = load_reward_bench(rows, include_ties=False).test
    assert set(without.extra["subset"]) == {"Focus"}


def test_reward_bench_of_the_other_version() -> None:
    with pytest.raises(
        MalformedRowError, match=r"row 0: expected a list of at least.*got 'Right 0' in column 'chosen'"
    ):
        load_reward_bench([bench_row() | {"num_correct": 1}])
    with pytest.raises(MalformedRowError, match=r"row 0: .*got the message 'right 0' in column 'chosen'"):
        load_reward_bench([bench2_row()], version=1)
    with pytest.raises(MalformedRowError, match=r"row 0: expected a list of at least.*got \[\] in column 'rejected'"):
        load_reward_bench([bench2_row(rejected=[])])
    with pytest.raises(MalformedRowError, match=r"row 0: .*got the same text in both"):
        load_reward_bench([bench2_row(rejected=["right 0"])])
