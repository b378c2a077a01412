"""HH-RLHF: two dialogues with a common beginning."""

from __future__ import annotations

import datasets as hf_datasets
import pytest
from hub_cases import hh_row

from micropref.datasets import (
    MalformedRowError,
    load_hh_rlhf,
)


def test_hh_rlhf_takes_the_common_turns_as_the_prompt() -> None:
    table = load_hh_rlhf([hh_row(), hh_row(chosen="Nein.", rejected="Nein!", subset="helpful-online")]).train
    assert table.prompt == ["user: Tea?\n\nassistant: Which?\n\nuser: Green."] * 2
    assert table.chosen == ["Gern: 湯!", "Nein."]
    assert table.rejected == ["No.", "Nein!"]
    assert table.extra == {"subset": [None, "helpful-online"]}


def test_hh_rlhf_dialogues_of_one_turn_and_dialogues_that_part_early() -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    rows = [
        {"chosen": f"{start} Hello.\n\nNice day.", "rejected": f"{start} Hello."},
        {"chosen": f"{start} A\n\nHuman: And?\n\nAssistant: B", "rejected": f"{start} C"},
    ]
    table = load_hh_rlhf(rows).train
    assert table.prompt == ["Hi", "Hi"]
    assert table.chosen == ["Hello.\n\nNice day.", "assistant: A\n\nuser: And?\n\nassistant: B"]
    assert table.rejected == ["Hello.", "C"]


def test_hh_rlhf_reads_every_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path, data_dir=None):
        rows = [hh_row(chosen=data_dir)]
        return hf_datasets.DatasetDict({split: hf_datasets.Dataset.from_list(rows) for split in ("train", "test")})

    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    subsets = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    loaded = load_hh_rlhf()
    assert loaded.train.chosen == loaded.test.chosen == loaded.train.extra["subset"] == subsets
    assert load_hh_rlhf(subset="helpful-online").train.chosen == ["helpful-online"]
    for wrong in ("red-team-attempts", ()):
        with pytest.raises(ValueError, match=r"expected subset to be of 'harmless-base', .*, got "):
            load_hh_rlhf(subset=wrong)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (hh_row(chosen="Yes.", rejected="Yes. "), "expected two different responses, got the same text in both"),
        (hh_row(chosen=""), "expected text.*got an empty response"),
        ({"chosen": "Yes.", "rejected": "No."}, "expected a dialogue that begins with.*got 'Yes.' in column 'chosen'"),
        (
            hh_row() | {"rejected": "Sir!\n\nHuman: Tea?\n\nAssistant: No."},
            "expected a di.*got .* in column 'rejected'",
        ),
        (hh_row() | {"rejected": None}, "expected text.*got None in column 'rejected'"),
    ],
)
def test_hh_rlhf_bad_rows(row: dict, message: str) -> None:
    with pytest.raises(MalformedRowError, match=f"row 1: {message}"):
        load_hh_rlhf([hh_row(), row])
