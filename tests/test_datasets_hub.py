"""Loaders of published sets, on rows written in the schemas in which they are published."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets as hf_datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import micropref.datasets
from micropref.datasets import (
    MalformedRowError,
    PreferenceSet,
    PreferenceTable,
    load_helpsteer2,
    load_hh_rlhf,
    load_personal_reward_bench,
    load_prism,
    load_reward_bench,
    load_rpr,
    load_ultrafeedback,
)
from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub.helpsteer2 import HELPSTEER2_CONTEXTS
from micropref.datasets.hub.ultrafeedback import ULTRAFEEDBACK_CONTEXTS

# --------------------------------------------------------------------------------------------- rows as published


def rpr_row(number: int = 0, **changes: Any) -> dict:
    return {
        "prompt": f"Erkläre Regen, Teil {number} 🌧️",
        "response_a": f"Short {number}.",
        "response_b": f"A long answer {number}, with reasons.",
        "criteria_x": "Brevity and directness",
        "criteria_y": "Depth of explanation",
        "category_x": "Conciseness",
        "category_y": "Completeness",
        "id": 100 + number,
        "scenario_x": "A commuter reads on a phone.",
        "scenario_y": "A student prepares an exam.",
        **{f"profile_{i}": f"Person {i}" for i in range(5)},
        **changes,
    }


def helpsteer2_rows(prompt: str, first: tuple[int, ...], second: tuple[int, ...], **changes: Any) -> list[dict]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return [
        {"prompt": prompt, "response": f"{which} to {prompt}", **dict(zip(names, scores, strict=True)), **changes}
        for which, scores in (("First", first), ("Second", second))
    ]


def prism_row(
    turn: int, within: int, score: int, chosen: bool, *, user: str = "user3", talk: str = "c7", **changes: Any
):
    return {
        "utterance_id": f"ut{turn}{within}",
        "interaction_id": f"int{turn}",
        "conversation_id": talk,
        "user_id": user,
        "turn": turn,
        "within_turn_id": within,
        "included_in_balanced_subset": True,
        "conversation_type": "unguided",
        "user_prompt": f"¿Pregunta {turn}?",
        "model_response": f"Answer {turn}.{within} of {talk}",
        "model_name": f"model-{within}",
        "model_provider": "someone",
        "score": score,
        "if_chosen": chosen,
        **changes,
    }


def prism_talk(**names: str) -> list[dict]:
    first = [prism_row(0, i, score, i == 2, **names) for i, score in enumerate((40, 90, 90, 5))]
    return [*first, prism_row(1, 0, 70, False, **names), prism_row(1, 1, 80, True, **names)]


def personal_row(split: str = "train", user: str = "user9", **changes: Any) -> dict:
    return {
        "conversation_id": "c1",
        "user_id": user,
        "split": split,
        "context": [
            {"role": "user", "content": "Gauges?"},
            {"role": "model", "content": "Which ones?"},
            {"role": "user", "content": "In ears — är det farligt?"},
        ],
        "chosen": {"role": "model", "content": f"Listen to her ({split}, {user})."},
        "rejected": {"role": "model", "content": f"Forbid it ({split}, {user})."},
        "chosen_score": 81.0,
        "rejected_score": 12.0,
        "dataset": "prism",
        "agreement": 0.4,
        **changes,
    }


def completion(number: int, ratings: tuple[str, str, str, str], **changes: Any) -> dict:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {
        aspect: {"Rating": rating, "Rationale": "Because."}
        | ({"Type": ["1"], "Rationale For Rating": "So."} if aspect in aspects[2:] else {})
        for aspect, rating in zip(aspects, ratings, strict=True)
    }
    return {
        "annotations": annotations,
        "critique": "Fine.",
        "custom_system_prompt": "Help.",
        "fine-grained_score": 3.5,
        "model": f"model-{number}",
        "overall_score": 7.0,
        "principle": "helpfulness",
        "response": f"Completion {number} — ünïcode",
        **changes,
    }


def ultrafeedback_row(number: int = 0, completions: list[dict] | None = None, **changes: Any) -> dict:
    if completions is None:
        ratings = [("5", "2", "N/A", "3"), ("1", "4", "3", "3"), ("1", "4", "4", "3")]
        completions = [completion(i, rating) for i, rating in enumerate(ratings)]
    return {
        "source": "sharegpt",
        "instruction": f"Instruction {number}",
        "models": [one["model"] for one in completions],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        **changes,
    }


def hh_row(chosen: str = "Gern: 湯!", rejected: str = "No.", **changes: Any) -> dict:
    opening = "\n\nHuman: Tea?\n\nAssistant: Which?\n\nHuman: Green.\n\nAssistant:"
    return {"chosen": f"{opening} {chosen}", "rejected": f"{opening} {rejected}", **changes}


def bench_row(number: int = 0, **changes: Any) -> dict:
    return {
        "prompt": f"Prompt {number}",
        "chosen": f"Right {number}",
        "chosen_model": "human",
        "rejected": f"Wrong {number}",
        "rejected_model": "model",
        "subset": "llmbar-natural",
        "id": number,
        **changes,
    }


def bench2_row(n_right: int = 1, n_wrong: int = 3, subset: str = "Focus", **changes: Any) -> dict:
    return {
        "id": f"{subset}-{n_right}",
        "prompt": f"Name a colour ({subset}). 🌈",
        "chosen": [f"right {i}" for i in range(n_right)],
        "rejected": [f"wrong {i}" for i in range(n_wrong)],
        "num_correct": n_right,
        "num_incorrect": n_wrong,
        "total_completions": n_right + n_wrong,
        "models": ["model"] * (n_right + n_wrong),
        "subset": subset,
        "additional_metadata": {"category": "x", "correct": None, "index": 0.0},
        **changes,
    }


# Conversation-level rows that make one complete, readable set for each loader.
ROWS: dict[str, list[dict]] = {
    "load_rpr": [rpr_row(0), rpr_row(1)],
    "load_helpsteer2": [*helpsteer2_rows("P", (4, 4, 4, 1, 1), (2, 2, 2, 3, 3))],
    "load_prism": prism_talk(),
    "load_personal_reward_bench": [personal_row()],
    "load_ultrafeedback": [ultrafeedback_row()],
    "load_hh_rlhf": [hh_row()],
    "load_reward_bench": [bench2_row()],
}
LOADERS: dict[str, Callable[..., PreferenceSet]] = {name: getattr(micropref.datasets, name) for name in ROWS}
NEEDED = {
    "load_rpr": "criteria_y",
    "load_helpsteer2": "coherence",
    "load_prism": "if_chosen",
    "load_personal_reward_bench": "context",
    "load_ultrafeedback": "completions",
    "load_hh_rlhf": "rejected",
    "load_reward_bench": "num_correct",
}
FIRST_SPLIT = dict.fromkeys(ROWS, "train") | {"load_reward_bench": "test"}


def first_table(loaded: PreferenceSet) -> PreferenceTable:
    table = loaded.test if loaded.train is None else loaded.train
    assert table is not None
    return table


every_loader = pytest.mark.parametrize("name", ROWS)


# ------------------------------------------------------------------------------------------------- what all share


@every_loader
def test_every_source_gives_the_same_tables(name: str, tmp_path: Path) -> None:
    load, rows = LOADERS[name], ROWS[name]
    dataset = hf_datasets.Dataset.from_list(rows)
    # Some sets have two splits; the second one here is a copy, of which only the first is compared.
    names = {"load_helpsteer2": ("train", "validation"), "load_reward_bench": ("test",)}.get(name, ("train", "test"))
    other = [{**row, "prompt": "Elsewhere"} for row in rows] if name == "load_helpsteer2" else rows
    splits = hf_datasets.DatasetDict(
        {split: hf_datasets.Dataset.from_list(rows if i == 0 else other) for i, split in enumerate(names)}
    )
    if name in ("load_prism", "load_ultrafeedback", "load_personal_reward_bench"):
        splits.pop("test")
    splits.save_to_disk(tmp_path / "dict")
    dataset.save_to_disk(tmp_path / "one")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = first_table(load(rows))
    assert len(wanted) >= 1
    for source in (dataset, splits, tmp_path / "dict", str(tmp_path / "one"), tmp_path / "rows.jsonl"):
        found = first_table(load(source))
        if name == "load_personal_reward_bench":  # where a person stood is known from named splits alone
            found = PreferenceTable(found.prompt, found.chosen, found.rejected, group=found.group)
            assert (found.chosen, found.prompt) == (wanted.chosen, wanted.prompt)
        else:
            assert found == wanted


@every_loader
def test_the_hub_is_asked_for_the_set_by_name_and_never_for_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []

    def load_dataset(path, name=None, data_dir=None, revision=None, trust_remote_code=None):
        asked.append(
            {"path": path, "name": name, "data_dir": data_dir, "revision": revision, "code": trust_remote_code}
        )
        return hf_datasets.DatasetDict({split: hf_datasets.Dataset.from_list(ROWS[called]) for split in splits})

    called = name
    splits = ("train", "validation") if name == "load_helpsteer2" else ("train", "test")
    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    loaded = LOADERS[name](revision="abc123")
    assert {one["revision"] for one in asked} == {"abc123"}
    assert {one["code"] for one in asked} == {False}
    assert loaded.source == f"{asked[0]['path']}@abc123"
    assert (asked[0]["path"], asked[0]["name"]) == {
        "load_rpr": ("microsoft/rpr", None),
        "load_helpsteer2": ("nvidia/HelpSteer2", None),
        "load_prism": ("HannahRoseKirk/prism-alignment", "utterances"),
        "load_personal_reward_bench": ("MichaelR207/prism_personalized_0125", None),
        "load_ultrafeedback": ("openbmb/UltraFeedback", None),
        "load_hh_rlhf": ("Anthropic/hh-rlhf", None),
        "load_reward_bench": ("allenai/reward-bench-2", None),
    }[name]
    LOADERS[name]("someone/copy")
    assert (asked[-1]["path"], asked[-1]["revision"]) == ("someone/copy", None)


def test_releases_that_cannot_run_code_are_not_told_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path, name=None, data_dir=None, revision=None, **config):
        assert not config
        return hf_datasets.Dataset.from_list(ROWS["load_rpr"])

    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    loaded = load_rpr()
    assert loaded.source == "microsoft/rpr"
    assert len(loaded.train) == 4


@every_loader
def test_licence_and_citation(name: str) -> None:
    loaded = LOADERS[name](ROWS[name])
    doc = " ".join((LOADERS[name].__doc__ or "").split())
    assert isinstance(loaded, PreferenceSet)
    assert "arXiv:2" in loaded.citation
    assert loaded.citation.rsplit("arXiv:", 1)[1] in doc
    assert f"Licence: {loaded.licence.split(';')[0].split(',')[0]}"[:20] in doc
    assert loaded.source == "a list"
    assert loaded.name in repr(loaded)


@every_loader
def test_without_datasets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"from the hub needs datasets, .*pip install 'micropref\[data\]'"):
        LOADERS[name]()
    assert len(first_table(LOADERS[name](ROWS[name]))) >= 1


@every_loader
def test_a_missing_column(name: str) -> None:
    rows = [{key: cell for key, cell in row.items() if key != NEEDED[name]} for row in ROWS[name]]
    with pytest.raises(MalformedRowError, match=rf"^a list, row 0: expected the columns '{NEEDED[name]}' too, got"):
        LOADERS[name](rows)
    with pytest.raises(MalformedRowError, match=rf"^a Dataset, row 0: .*'{NEEDED[name]}' too, .*skip_bad=True"):
        LOADERS[name](hf_datasets.Dataset.from_list(rows))
    with pytest.raises(ValueError, match=rf"^a list: nothing is left; \d+ of {len(rows)} rows are bad, first row 0: "):
        LOADERS[name](rows, skip_bad=True)


@every_loader
def test_an_unknown_split(name: str) -> None:
    if name == "load_personal_reward_bench":
        message = "row 0: expected one of 'train', 'val', 'test'.*got 'dev' in column 'split'"
        with pytest.raises(MalformedRowError, match=message):
            load_personal_reward_bench([personal_row(split="dev")])
        return
    splits = hf_datasets.DatasetDict({"training": hf_datasets.Dataset.from_list(ROWS[name])})
    with pytest.raises(
        ValueError, match=rf"^a DatasetDict: expected the split '{FIRST_SPLIT[name]}', got the splits 'training'"
    ):
        LOADERS[name](splits)


@every_loader
def test_rows_that_are_none_and_no_rows(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a list: expected rows, got an empty source"):
        LOADERS[name]([])
    with pytest.raises(MalformedRowError, match=r"^a list, row 0: expected an object with named cells.*got 'text'"):
        LOADERS[name](["text"])
    with pytest.raises(TypeError, match=r"expected a path.*got a int"):
        LOADERS[name](3)
    with pytest.raises(ValueError, match=r"^a dict: expected at least one split, got none"):
        LOADERS[name]({})
    with pytest.raises(FileNotFoundError, match=r"nothing: there is no such file or folder, and no set on the hub"):
        LOADERS[name](tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"^./nothing: there is no such file"):
        LOADERS[name]("./nothing")
    with pytest.raises(ValueError, match=r".*expected revision=None with a list, which has no revisions, got 'v1'"):
        LOADERS[name](ROWS[name], revision="v1")


def test_revisions_are_for_the_hub(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(rpr_row()) + "\n")
    for path in (tmp_path, tmp_path / "rows.jsonl"):
        with pytest.raises(ValueError, match=rf".*expected revision=None with {path}, .*got 'v1'"):
            load_rpr(path, revision="v1")


def test_a_copy_of_the_files_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "hh"
    for folder, answer in (("harmless-base", "Lieber nicht."), ("helpful-base", "Gern.")):
        (copy / folder).mkdir(parents=True)
        for split in ("train", "test"):
            rows = [hh_row(chosen=f"{answer} {split}")]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (copy / folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    loaded = load_hh_rlhf(str(copy), subset=("helpful-base", "harmless-base"))
    assert loaded.train.chosen == ["Gern. train", "Lieber nicht. train"]
    assert loaded.train.extra == {"subset": ["helpful-base", "harmless-base"]}
    assert loaded.test.chosen == ["Gern. test", "Lieber nicht. test"]
    assert loaded.source == str(copy)


def test_columns_that_nobody_needs_are_not_read() -> None:
    dataset = hf_datasets.Dataset.from_list([rpr_row()])
    opened = open_splits(dataset, hub_name="a/b", columns=("prompt", "id"))
    assert opened.splits[None].records[0].cells == {"prompt": rpr_row()["prompt"], "id": 100}
    opened = open_splits(dataset, hub_name="a/b", columns=("prompt", "identity"))
    assert len(opened.splits[None].records[0].cells) == 15


def test_public_names_are_lazy() -> None:
    assert set(micropref.datasets._LAZY_HOME) <= set(micropref.datasets.__all__)
    for name in micropref.datasets.__all__:
        assert getattr(micropref.datasets, name).__name__ == name
    assert repr(PreferenceSet(name="Empty")) == "PreferenceSet('Empty', rows: none, licence: unknown)"


# ------------------------------------------------------------------------------------------------------------ RPR


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


# ----------------------------------------------------------------------------------------------------- HelpSteer2


def test_helpsteer2_chooses_the_higher_rating() -> None:
    rows = helpsteer2_rows("Ünïcode?", (4, 3, 2, 1, 0), (1, 3, 4, 2, 3))
    table = load_helpsteer2(rows).train
    assert table.extra["attribute"] == ["helpfulness", "coherence", "complexity", "verbosity"]
    assert [text.split()[0] for text in table.chosen] == ["First", "Second", "Second", "Second"]
    assert [text.split()[0] for text in table.rejected] == ["Second", "First", "First", "First"]
    assert table.extra["chosen_score"] == [4, 4, 2, 3]
    assert table.extra["rejected_score"] == [1, 2, 1, 0]
    assert table.context == [HELPSTEER2_CONTEXTS[name] for name in table.extra["attribute"]]
    assert table.extra["pair"] == ["train-0"] * 4
    assert table.weight is None
    assert load_helpsteer2(rows, weight_by_margin=True).train.weight.tolist() == [3, 2, 1, 3]


@given(
    first=st.tuples(*[st.integers(0, 4)] * 5),
    second=st.tuples(*[st.integers(0, 4)] * 5),
)
def test_helpsteer2_unanimous_pairs_are_removed(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    disputed = helpsteer2_rows("other", (4, 0, 0, 0, 0), (0, 4, 0, 0, 0))
    rows = helpsteer2_rows("this", first, second) + disputed
    kept = [name for name in load_helpsteer2(rows).train.prompt if name == "this"]
    signs = np.sign(np.subtract(first, second))
    assert len(kept) == (np.count_nonzero(signs) if {-1, 1} <= set(signs) else 0)
    everything = load_helpsteer2(rows, keep_unanimous=True).train
    assert everything.prompt.count("this") == np.count_nonzero(signs)


DISPUTED = ((4, 0, 1, 2, 2), (0, 4, 1, 2, 2))


@given(n_prompts=st.integers(4, 12), test_size=st.sampled_from([0.2, 0.5]), seed=st.integers(0, 9))
def test_helpsteer2_splits_by_prompt(n_prompts: int, test_size: float, seed: int) -> None:
    """Also where two pairs answer the same prompt, one of them in the published validation split."""
    rows = [row for i in range(n_prompts) for row in helpsteer2_rows(f"prompt {i % (n_prompts - 1)}", *DISPUTED)]
    validation = helpsteer2_rows("prompt 1", *DISPUTED) + helpsteer2_rows("prompt v", *DISPUTED)
    published = load_helpsteer2({"train": rows, "validation": validation})
    assert set(published.test.prompt) == {"prompt 1", "prompt v"}
    assert set(published.train.prompt) == {f"prompt {i}" for i in range(n_prompts - 1)} - {"prompt 1"}
    drawn = load_helpsteer2({"train": rows, "validation": validation}, test_size=test_size, random_state=seed)
    assert not set(drawn.train.prompt) & set(drawn.test.prompt)
    assert not set(drawn.train.extra["pair"]) & set(drawn.test.extra["pair"])
    assert len(drawn.train) + len(drawn.test) == 2 * (n_prompts + 2)
    assert len(set(drawn.test.prompt)) == round(test_size * n_prompts)
    again = load_helpsteer2({"train": rows, "validation": validation}, test_size=test_size, random_state=seed)
    assert again.test == drawn.test


def test_helpsteer2_prompts_of_several_turns() -> None:
    prompt = "c#<extra_id_1>Assistant\nA language.\n<extra_id_1>User\nMore, bitte"
    table = load_helpsteer2(helpsteer2_rows(prompt, *DISPUTED)).train
    assert table.prompt == ["user: c#\n\nassistant: A language.\n\nuser: More, bitte"] * 2
    assert load_helpsteer2(helpsteer2_rows("c#", *DISPUTED)).train.prompt == ["c#"] * 2


def test_helpsteer2_rows_without_a_partner() -> None:
    pair, other = helpsteer2_rows("one", *DISPUTED), helpsteer2_rows("two", *DISPUTED)
    for rows, number in (([pair[0], *other], 0), ([*pair, other[0]], 2), ([pair[0], *other, pair[1]], 0)):
        with pytest.raises(MalformedRowError, match=f"row {number}: expected a second response .*, got one only"):
            load_helpsteer2(rows)
    bad = {**pair[1], "verbosity": 5}
    with pytest.raises(MalformedRowError, match=r"row 1: expected a rating from 0 to 4.*got 5 in column 'verbosity'"):
        load_helpsteer2([pair[0], bad])
    # Twice the same prompt: without its second row, the first must not be paired with the third.
    with pytest.warns(UserWarning, match="2 of 4 rows are left out"):
        table = load_helpsteer2([pair[0], bad, *pair], skip_bad=True).train
    assert table.chosen == ["First to one", "Second to one"]
    assert table.n_rejected == 2
    with pytest.raises(MalformedRowError, match=r"row 0: expected a number.*got None in column 'complexity'"):
        load_helpsteer2([{**pair[0], "complexity": None}, pair[1]])
    same = [{**row, "response": "Same."} for row in pair]
    with pytest.raises(MalformedRowError, match=r"row 0: .*got the same text in both"):
        load_helpsteer2(same)


@pytest.mark.parametrize("test_size", [0, 1, -0.5, True, "0.2", float("nan")])
def test_sizes_of_a_test_that_are_none(test_size: object) -> None:
    with pytest.raises(ValueError, match="expected a test_size between 0 and 1, the share of the test, got"):
        load_helpsteer2(ROWS["load_helpsteer2"], test_size=test_size)  # type: ignore[arg-type]


def test_a_test_that_would_be_empty() -> None:
    with pytest.raises(ValueError, match=r"expected a test_size that leaves no side empty, got 0.2 of 1"):
        load_helpsteer2(ROWS["load_helpsteer2"], test_size=0.2)


# ---------------------------------------------------------------------------------------------------------- PRISM


def test_prism_compares_the_chosen_with_the_others_of_its_turn() -> None:
    rows = prism_talk()
    table = load_prism(rows).train
    # Answer 0.1 has the score of the chosen one: a tie.
    assert table.chosen == ["Answer 0.2 of c7", "Answer 0.2 of c7", "Answer 1.1 of c7"]
    assert table.rejected == ["Answer 0.0 of c7", "Answer 0.3 of c7", "Answer 1.0 of c7"]
    conversation = "user: ¿Pregunta 0?\n\nassistant: Answer 0.2 of c7\n\nuser: ¿Pregunta 1?"
    assert table.prompt == ["¿Pregunta 0?", "¿Pregunta 0?", conversation]
    assert list(table.group) == ["user3"] * 3
    assert table.extra["chosen_score"] == [90, 90, 80]
    assert table.extra["rejected_score"] == [40, 5, 70]
    assert table.extra["rejected_model"] == ["model-0", "model-3", "model-0"]
    assert table.extra["chosen_model"] == ["model-2", "model-2", "model-1"]
    assert table.extra["conversation_id"] == ["c7"] * 3
    assert table.extra["turn"] == [0, 0, 1]
    assert table.context is None
    shuffled = [rows[i] for i in (5, 3, 0, 4, 2, 1)]
    assert sorted(load_prism(shuffled).train.rejected) == sorted(table.rejected)
    assert set(load_prism(shuffled).train.prompt) == set(table.prompt)


def test_prism_goes_by_the_choice_not_by_the_order() -> None:
    rows = [prism_row(0, 0, 90, True), prism_row(0, 1, 10, False)]
    assert load_prism(rows).train.chosen == load_prism(rows[::-1]).train.chosen == ["Answer 0.0 of c7"]


def test_prism_same_text_and_two_chosen_rows_are_ties() -> None:
    rows = [
        prism_row(0, 0, 90, True, model_response="Same."),
        prism_row(0, 1, 80, False, model_response="Same."),
        prism_row(0, 2, 70, True),
        prism_row(0, 3, 60, False),
    ]
    table = load_prism(rows).train
    assert (table.chosen, table.rejected) == (["Same."], ["Answer 0.3 of c7"])


def test_prism_marks_choices_that_the_scores_contradict() -> None:
    rows = [prism_row(0, 0, 50, True), prism_row(0, 1, 80, False), prism_row(0, 2, 20, False)]
    table = load_prism([*rows, *prism_talk(talk="c8")]).train
    assert table.chosen[:2] == ["Answer 0.0 of c7"] * 2
    assert table.rejected[:2] == ["Answer 0.1 of c7", "Answer 0.2 of c7"]
    assert table.extra["choice_below_score"] == [True, False, False, False, False]
    assert sum(table.extra["choice_below_score"]) == 1


def test_prism_splits_by_person() -> None:
    rows = [row for i in range(10) for row in prism_talk(user=f"user{i % 5}", talk=f"c{i}")]
    loaded = load_prism(rows, test_size=0.4, random_state=1)
    assert not set(loaded.train.group) & set(loaded.test.group)
    assert len(set(loaded.test.group)) == 2
    assert len(loaded.train) + len(loaded.test) == 30
    assert load_prism(rows).test is None


def test_prism_conversations_with_a_gap() -> None:
    unchosen = [prism_row(0, 0, 90, False), prism_row(0, 1, 10, False)]
    with pytest.raises(
        MalformedRowError, match=r"row 0: .*expected one chosen answer in turn 0 of its conversation, got none"
    ):
        load_prism(unchosen)
    later = [prism_row(1, 0, 90, True), prism_row(1, 1, 10, False)]
    with pytest.raises(
        MalformedRowError, match=r"row 0: .*expected all earlier turns .*, got turn 1 after an incomplete one"
    ):
        load_prism(later)
    with pytest.warns(UserWarning, match="2 of 10 rows are left out; the first is row 0"):
        table = load_prism([*unchosen, *later, *prism_talk(talk="c8")], skip_bad=True).train
    assert table.extra["conversation_id"] == ["c8"] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"if_chosen": None}, "expected true or false.*got None in column 'if_chosen'"),
        ({"turn": 0.5}, "expected an integer that is not negative, got 0.5 in column 'turn'"),
        ({"turn": -1}, "expected an integer that is not negative, got -1 in column 'turn'"),
        ({"score": "good"}, "expected a number.*got 'good' in column 'score'"),
        ({"score": True}, "expected a number.*got True in column 'score'"),
        ({"model_response": ""}, ".*expected text, got an empty one in column 'model_response'"),
    ],
)
def test_prism_bad_cells(changes: dict, message: str) -> None:
    with pytest.raises(MalformedRowError, match=f"row 0: {message}"):
        load_prism([prism_row(0, 0, 90, True) | changes, prism_row(0, 1, 10, False)])


# -------------------------------------------------------------------------------------------- PersonalRewardBench


def test_personal_reward_bench_divides_each_persons_pairs() -> None:
    splits = {
        "train": [personal_row("train", "ann"), personal_row("test", "ann"), personal_row("val", "ann")],
        "test": [personal_row("train", "bob"), personal_row("test", "bob")],
    }
    loaded = load_personal_reward_bench({name: hf_datasets.Dataset.from_list(rows) for name, rows in splits.items()})
    assert loaded.train.chosen == ["Listen to her (train, ann).", "Listen to her (train, bob)."]
    assert loaded.train.rejected == ["Forbid it (train, ann).", "Forbid it (train, bob)."]
    assert list(loaded.train.group) == ["ann", "bob"]
    assert loaded.validation.chosen == ["Listen to her (val, ann)."]
    assert loaded.test.chosen == ["Listen to her (test, ann).", "Listen to her (test, bob)."]
    assert loaded.test.extra == {"user_split": ["train", "test"]}
    assert set(loaded.train.prompt) == {"user: Gauges?\n\nassistant: Which ones?\n\nuser: In ears — är det farligt?"}
    assert loaded.train.context is None
    assert repr(loaded).startswith("PreferenceSet('PersonalRewardBench (prism)', rows: train 2, validation 1, test 2, ")


def test_personal_reward_bench_speeches() -> None:
    """Answers as one message, as a list of one, or as text; conversations of one question."""
    rows = [
        personal_row(context=[{"role": "user", "content": "Hej?"}]),
        personal_row(context="Hej?", chosen="Listen.", rejected=[{"role": "assistant", "content": "Forbid."}]),
    ]
    table = load_personal_reward_bench(rows).train
    assert table.prompt == ["Hej?", "Hej?"]
    assert table.chosen == ["Listen to her (train, user9).", "Listen."]
    assert table.rejected == ["Forbid it (train, user9).", "Forbid."]
    assert load_personal_reward_bench(rows).test is None


def test_personal_reward_bench_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        hf_datasets, "load_dataset", lambda path: asked.append(path) or hf_datasets.Dataset.from_list([personal_row()])
    )
    loaded = load_personal_reward_bench(part="chatbot_arena")
    assert asked == ["MichaelR207/chatbot_arena_personalized_0125"]
    assert loaded.licence.startswith("unknown; made from Chatbot Arena")
    with pytest.raises(ValueError, match="expected part to be 'prism' or 'chatbot_arena', got 'arena'"):
        load_personal_reward_bench(part="arena")


# -------------------------------------------------------------------------------------------------- UltraFeedback


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


# -------------------------------------------------------------------------------------------------------- HH-RLHF


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


# ---------------------------------------------------------------------------------------------------- RewardBench


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
