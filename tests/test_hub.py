"""What all loaders of published sets share."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets as hf_datasets
import pytest
from hub_cases import FIRST_SPLIT, LOADERS, NEEDED, ROWS, every_loader, first_table, hh_row, personal_row, rpr_row

import micropref.datasets
from micropref.datasets import (
    MalformedRowError,
    PreferenceSet,
    PreferenceTable,
    load_hh_rlhf,
    load_personal_reward_bench,
    load_rpr,
)
from micropref.datasets.hub._open import open_splits


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
    with pytest.raises(
        ValueError, match=rf"^a list: expected a good row, got none; \d+ of {len(rows)} rows are bad, first row 0: "
    ):
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
    with pytest.raises(
        FileNotFoundError, match=r"nothing: expected a file, a folder or the name of a set on the hub, got none"
    ):
        LOADERS[name](tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"^./nothing: expected a file, a folder .*: there is no such file"):
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
