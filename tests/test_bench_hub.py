"""Suites of published sets: encoders of every kind, texts embedded once, and what goes wrong on the way."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets as hf_datasets
import numpy as np
import pytest
from bench_cases import assert_filled, config, table, toml
from causal_cases import save_llama
from datasets.exceptions import DatasetGenerationCastError, DatasetNotFoundError
from hub_cases import LOADERS
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.utils import logging
from rank_cases import on_ranks

from micropref._support.hub import hub_faults
from micropref.bench import load_suite, run_suite
from micropref.bench._loading import embed_data, load_data
from micropref.bench._tasks import make_task
from micropref.cli import main
from micropref.datasets.stand_ins import RPR_CATEGORIES, make_stand_in
from micropref.embed import (
    EmbeddingStore,
    HashingEncoder,
    HTTPEncoder,
    LastTokenEncoder,
    SentenceTransformerEncoder,
    StaticEncoder,
    resolve_encoder,
)
from micropref.embed.last_token import SEPARATOR

ROOT = Path(__file__).parents[1]
TARGETS = {"rpr": "category", "helpsteer2": "attribute", "ultrafeedback": "aspect", "hh_rlhf": "subset"}
TARGETS["reward_bench"] = "subset"


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr("micropref.bench._suite.find_spec", lambda name: None)


def published(loader: str, n: int = 40, **more):
    contexts = {"protocol": "contexts", "target": TARGETS[loader]} if loader in TARGETS else {}
    return {
        "name": loader.replace("_", "-"),
        "kind": "hub",
        "loader": loader,
        "stand_in": n,
        "parameters": {"n_components": 2},
        **contexts,
        **more,
    }


def spec_of(dataset):
    return load_suite(config("single", datasets=[dataset])).datasets[0]


# ------------------------------------------------------------------------------------------------------------- loaders


@pytest.mark.parametrize("loader", [name.removeprefix("load_") for name in LOADERS])
def test_every_loader_in_a_suite(loader, tmp_path):
    spec = spec_of(published(loader))
    data = load_data(spec, tmp_path)
    task = make_task(data, spec, seed=0, budgets=(0, 1), n_draws=1)
    assert len(task.weight) >= 3
    assert "0 left out" in data.reading
    assert "embedded by" not in data.reading  # hashing needs no store
    assert list(tmp_path.iterdir()) == []


def test_the_split_of_the_publisher_and_a_revision(monkeypatch):
    spec = spec_of(published("rpr", split="given"))
    assert load_data(spec, None).given_test.sum() == 20
    asked = []

    def load_dataset(path, revision=None):
        asked.append((path, revision))
        return hf_datasets.DatasetDict(
            {split: hf_datasets.Dataset.from_list(rows) for split, rows in make_stand_in("rpr", 40).items()}
        )

    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    found = load_data(replace(spec, stand_in=0, revision="abc"), None)
    assert asked == [("microsoft/rpr", "abc")]
    assert found.hash == load_data(spec, None).hash


def write_copy(folder, loader, n=60):
    """A copy of a set, as its files lie on the hub."""
    (folder / loader).mkdir(parents=True)
    for split, records in make_stand_in(loader, n).items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / loader / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def test_a_copy_beside_the_data_is_read_before_the_hub_is_asked(tmp_path):
    """Of the set itself, and of sets whose ratings it names."""
    write_copy(tmp_path, "helpsteer2")
    write_copy(tmp_path, "rpr")
    spec = spec_of(published("rpr", stand_in=0, ratings=["helpsteer2"]))
    found = load_data(spec, tmp_path)
    expected = load_data(spec_of(published("rpr", stand_in=60)), None)
    np.testing.assert_array_equal(found.difference, expected.difference)
    assert found.ratings_hash


def test_a_stand_in_beside_a_source():
    with pytest.raises(ValueError, match=r"rpr: stand_in: expected no source beside it, got 'x\.jsonl'"):
        load_data(spec_of(published("rpr", loader_settings={"source": "x.jsonl"})), None)


@pytest.mark.parametrize("key", ["colour", "skip_bad", "Source"])
@pytest.mark.parametrize("loader", sorted({name.removeprefix("load_") for name in LOADERS}))
def test_a_setting_that_a_loader_does_not_have_is_named(loader, key):
    known = list(inspect.signature(LOADERS[f"load_{loader}"]).parameters)
    spec = spec_of(published(loader, loader_settings={key: 1}))
    message = rf"{spec.name}: loader_settings: expected keys among source, .*got '{key}'"
    with pytest.raises(ValueError, match=message) as e:
        load_data(spec, None)
    assert set(known) - {"skip_bad"} == set(re.search("among (.*), got", str(e.value))[1].split(", "))


def test_only_some_targets(tmp_path):
    names = list(RPR_CATEGORIES)[:3]
    whole, some = (load_data(spec_of(published("rpr", 200, **more)), None) for more in ({}, {"targets": names}))
    table = LOADERS["load_rpr"](make_stand_in("rpr", 200))
    n = sum(name in names for part in (table.train, table.test) for name in part.extra["category"])
    assert len(some.weight) == n < len(whole.weight)
    assert sorted(set(some.target)) == [0, 1, 2]
    assert some.reading.endswith("left out, of 3 targets")
    few = load_data(spec_of(published("ultrafeedback", 30, n_units=12)), None)
    assert len(set(few.unit)) == 12
    assert few.reading.endswith(", of at most 12 units")
    with pytest.raises(ValueError, match=r"rpr: targets: expected values of 'category' \('.*, …\), got 'Brevity'"):
        load_data(spec_of(published("rpr", targets=["Brevity"])), None)
    with pytest.raises(ValueError, match=r"targets: expected only for the protocol 'contexts', got 'users'"):
        spec_of(published("prism", targets=["x"]))


# ------------------------------------------------------------------------------------------------------------ encoders


@pytest.mark.parametrize(
    ("described", "encoder"),
    [
        ({"kind": "hashing", "n_features": 32, "ngram_range": [1, 2]}, HashingEncoder(32, ngram_range=(1, 2))),
        ({"kind": "sentence", "model": "a/b", "revision": "v1"}, SentenceTransformerEncoder("a/b", revision="v1")),
        (
            {"kind": "last_token", "model": "a/b", "chat_template": True, "dtype": "float16", "max_length": 9},
            LastTokenEncoder("a/b", dtype="float16", max_length=9),
        ),
        ({"kind": "last-token", "model": "a/b", "chat_template": False}, LastTokenEncoder("a/b", chat=False)),
        ({"kind": "last_token", "model": "a/b", "chat_template": "x"}, LastTokenEncoder("a/b", chat_template="x")),
        ("last-token:a/b", LastTokenEncoder("a/b")),
        ({"kind": "http", "url": "http://h:1", "model": "m"}, HTTPEncoder("http://h:1", "m")),
        ({"kind": "static", "model": "a/b"}, StaticEncoder("a/b")),
    ],
)
def test_a_table_describes_an_encoder(described, encoder):
    found = resolve_encoder(described)
    assert type(found) is type(encoder)
    assert found.get_params() == encoder.get_params()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "kind: expected one of 'hashing', 'http', 'sentence', 'last_token', 'static', got nothing"),
        ({"kind": "bert", "model": "a"}, "kind: expected one of .*, got 'bert'"),
        ({"kind": "sentence"}, "model: expected text, got None"),
        *(
            ({"kind": kind, "model": ""}, "model: expected text, got ''")
            for kind in ("static", "sentence", "last_token")
        ),
        ({"kind": "static", "model": " "}, "model: expected text, got ' '"),
        ({"kind": "http", "url": "http://h:1", "model": ""}, "model: expected text, got ''"),
        *(
            (
                {"kind": "last_token", "model": "a", "chat_template": one, "chat": two},
                "expected chat_template or chat, got",
            )
            for one, two in ((True, False), (False, True), (True, None))
        ),
        ({"kind": "sentence", "model": "a", "chat_template": True}, "expected keys among kind, .*got 'chat_template'"),
        ({"kind": "last_token", "model": "a", "dtype": "int8"}, "dtype: expected one of float32.*got 'int8'"),
        ({"kind": "last_token", "model": "a", "trust_remote_code": True}, "trust_remote_code: expected an"),
    ],
)
def test_tables_that_describe_none(described, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        resolve_encoder(described)
    # Before any other data set is read.
    datasets = [{"name": "absent", "kind": "folder", "path": "absent"}, published("rpr", encoder=described)]
    with pytest.raises(ValueError, match=f"^rpr: encoder: {message}"):
        run_suite(config("single", datasets=datasets), tmp_path)


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    sets = [make_stand_in(name, 40) for name in ("helpsteer2", "rpr")]
    cells = [str(cell) for one in sets for rows in one.values() for row in rows for cell in row.values()]
    words = sorted(set(" ".join(cells).lower().replace(".", " ").replace("?", " ").split()))
    return save_llama(tmp_path_factory.mktemp("models") / "llama", words=[*words, *map(str.capitalize, words)])


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Every text that a causal model was asked for; the one by which it measures its width is left out."""
    asked: list[str] = []
    right = LastTokenEncoder._embed

    def embed(self, texts, advance):
        asked.extend(text for text in texts if text != "dimension")
        return right(self, texts, advance)

    monkeypatch.setattr(LastTokenEncoder, "_embed", embed)
    return asked


def causal(model: Path, **more):
    return {"kind": "last_token", "model": str(model), "dtype": "float32", "device": "cpu", **more}


def two_sets(model: Path, **more):
    shared = {"encoder": causal(model), "difference_norm": 3.0, "response_scale": 1.0, **more}
    return [published("helpsteer2", **shared), published("rpr", **shared)]


def test_a_reward_model_by_name_reads_whole_exchanges(reward_model, tmp_path, encoded):
    spec = spec_of(published("rpr", 8, encoder=f"last-token:{reward_model}"))
    load_data(spec, tmp_path)
    table = LOADERS["load_rpr"](make_stand_in("rpr", 8)).train
    assert {f"{p}{SEPARATOR}{r}" for p, r in zip(table.prompt, table.chosen, strict=True)} <= set(encoded)


def test_texts_are_embedded_once_for_all_methods_seeds_and_sets(reward_model, tmp_path, encoded, monkeypatch):
    suite = config("single", "static", datasets=two_sets(reward_model), seeds=[0, 1])
    result = run_suite(suite, tmp_path / "out", tmp_path)
    assert result.failed == []
    assert_filled(table(tmp_path / "out" / "results.csv"))
    assert max(Counter(encoded).values()) == 1
    loaded = LOADERS["load_helpsteer2"](make_stand_in("helpsteer2", 40)).train
    assert {f"{p}{SEPARATOR}{r}" for p, r in zip(loaded.prompt, loaded.chosen, strict=True)} <= set(encoded)
    assert set(loaded.context) | set(loaded.prompt) <= set(encoded)
    (store,) = (tmp_path / "embeddings").iterdir()
    assert store.name.startswith("last-token-llama-")
    assert len(EmbeddingStore(store)) == len(encoded)
    assert {row["reading"].partition("; ")[2][:36] for row in result.rows} == {"texts embedded by last-token(model='"}

    # Another suite takes them from the store, without the model.
    monkeypatch.setattr(LastTokenEncoder, "_load", None)
    again = run_suite({**suite, "seeds": [2]}, tmp_path / "other", tmp_path)
    assert again.failed == []
    assert again.n_run == 4


def test_where_vectors_are_kept(reward_model, tmp_path, encoded):
    """Beside the data, in the folder that is asked for, or in the one that the data set names."""
    dataset = two_sets(reward_model)[0]
    found = [load_data(spec_of(dataset), tmp_path), load_data(spec_of(dataset), tmp_path, tmp_path / "asked")]
    found.append(load_data(spec_of({**dataset, "store": "own"}), tmp_path, tmp_path / "asked"))
    assert [len(list((tmp_path / name).iterdir())) for name in ("embeddings", "asked", "own")] == [1, 1, 1]
    assert len({one.hash for one in found}) == 1
    # Another parameter, and another model in the same folder, have stores of their own; the batch has not.
    before = len(encoded)
    load_data(spec_of({**dataset, "encoder": causal(reward_model, batch_size=2)}), tmp_path)
    assert len(encoded) == before
    load_data(spec_of({**dataset, "encoder": causal(reward_model, max_length=8)}), tmp_path)
    assert len(encoded) == before * 4 / 3
    assert len(list((tmp_path / "embeddings").iterdir())) == 2


def test_files_take_encoders_too(reward_model, tmp_path, encoded):
    rows = [
        {"prompt": f"How {i}?", "chosen": f"Table {i}.", "rejected": f"River garden {i}.", "user": f"u{i % 4}"}
        for i in range(24)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = {"name": "r", "kind": "file", "path": "rows.jsonl", "prompt_scale": 0.0, "log_length": True}
    plain = causal(reward_model, chat_template=False)
    load_data(spec_of({**dataset, "encoder": plain}), tmp_path)
    assert set(encoded) == {row[name] for row in rows for name in ("chosen", "rejected")}
    load_data(spec_of({**dataset, "encoder": plain, "template": "Q {prompt} A {response}"}), tmp_path)
    assert "Q How 3? A Table 3." in encoded
    with pytest.raises(ValueError, match=r"r: template: expected a template with \{response\}"):
        load_data(spec_of({**dataset, "template": "{answer}"}), tmp_path)
    with pytest.raises(ValueError, match="store: expected only for the kinds file, hub, got kind 'world'"):
        spec_of({"name": "w", "kind": "world", "world": "groups", "store": "x"})


# ------------------------------------------------------------------------------------------------------------- failures


def written(tmp_path: Path, datasets) -> list[str]:
    (tmp_path / "suite.toml").write_text(toml(config("single", datasets=datasets)))
    return ["bench", str(tmp_path / "suite.toml"), "-o", str(tmp_path / "out"), "--data", str(tmp_path)]


def ended(arguments: list[str], capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code, capsys.readouterr().err


def test_an_interrupted_embedding_resumes(reward_model, tmp_path, encoded, capsys, monkeypatch):
    monkeypatch.setattr("micropref.embed._filling._QUICK_SECONDS", 0.0)
    dataset = published("helpsteer2", encoder=causal(reward_model, batch_size=1))  # sixteen texts at once
    arguments = written(tmp_path, [dataset])
    right, calls = LastTokenEncoder.encode, []

    def interrupted(self, texts):
        calls.append(len(texts))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return right(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(LastTokenEncoder, "encode", interrupted)
        code, said = ended(arguments, capsys)
    assert code == 130
    assert f"micropref: stopped after {sum(calls)} texts, kept in " in said
    assert "the same call resumes from there" in said
    assert "Traceback" not in said
    assert len(encoded) == sum(calls) == 48
    assert ended(arguments, capsys)[0] == 0
    assert max(Counter(encoded).values()) == 1
    (store,) = (tmp_path / "embeddings").iterdir()
    assert len(EmbeddingStore(store)) == len(encoded) > 48


def test_a_disk_that_is_full_while_texts_are_embedded(reward_model, tmp_path, encoded, capsys, monkeypatch):
    arguments = written(tmp_path, two_sets(reward_model)[:1])

    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = ended(arguments, capsys)
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith("micropref: ")]
    assert f"expected room for {len(encoded)} vectors more, got a full disk (No space left on device)" in line
    assert "the same call resumes from there" in line
    assert "Traceback" not in said
    assert ended(arguments, capsys)[0] == 0


class ConnectError(Exception):
    """As the clients of the hub have it, whichever they are."""


class ReadTimeout(Exception):
    """As above."""


def _answer(status: int) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={}, request=None)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _gated(status: int) -> Exception:
    gated = GatedRepoError("Cannot access gated repo", response=_answer(status))
    return _caused(DatasetNotFoundError("Dataset 'microsoft/rpr' is a gated dataset on the Hub."), gated)


NO_NETWORK = "expected an answer of the hub, got no connection .*try again with a network.*copy of the set"
FAULTS = {
    "no network": (lambda: _caused(ConnectionError("Couldn't reach it"), ConnectError("refused")), NO_NETWORK),
    "no name server": (lambda: ConnectError("[Errno -3] Temporary failure in name resolution"), NO_NETWORK),
    "offline": (lambda: OfflineModeIsEnabled("HF_HUB_OFFLINE=1"), NO_NETWORK),
    "time out": (lambda: ReadTimeout("late"), NO_NETWORK),
    "gated, unknown": (
        lambda: _gated(401),
        "expected access, got a refusal, because it is gated; accept its terms at http",
    ),
    "gated, refused": (
        lambda: _gated(403),
        "it is gated; .*huggingface.co/datasets/microsoft/rpr and log in with `hf auth",
    ),
    "gated, in words": (lambda: DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."), "it is gated"),
    "refused": (lambda: HfHubHTTPError("403 Forbidden", response=_answer(403)), "expected access, got a refusal .*403"),
    "busy": (lambda: HfHubHTTPError("503 Unavailable", response=_answer(503)), "got a busy server .*; try again"),
    "no such revision": (
        lambda: RevisionNotFoundError("404", response=_answer(404)),
        "expected this name and revision on the hub, got none that you may read",
    ),
    "full disk": (
        lambda: OSError(errno.ENOSPC, "No space left on device"),
        "expected room for its files, got a full disk",
    ),
    "full disk, behind another error": (
        lambda: _caused(RuntimeError("An error occurred while generating the dataset"), OSError(errno.EDQUOT, "Quota")),
        "expected room for its files, got a full disk",
    ),
    "not enough room": (lambda: OSError("Not enough disk space. Needed: 3 GB"), "got a full disk; .*HF_HOME"),
    "files that differ": (
        lambda: DatasetGenerationCastError("All the data files must have the same columns"),
        "expected the same columns in all of its files, got others in some",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_hub_does_ends_in_a_sentence(fault, tmp_path, capsys, monkeypatch):
    make, message = FAULTS[fault]

    def load_dataset(path):
        raise make()

    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    code, said = ended(written(tmp_path, [published("rpr", 0)]), capsys)
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("micropref: error: ")
    assert "microsoft/rpr: expected" in line
    assert re.search(message, line), line


@pytest.mark.parametrize("fails", [True, False])
def test_the_client_of_the_hub_does_not_list_its_retries(fails, monkeypatch, capsys):
    """Retries of the real client, with its own lines, those of other parts of it being kept."""

    def lines():
        for name in ("huggingface_hub.utils._http", "huggingface_hub.hf_api"):
            client = logging.get_logger(name)
            client.warning("'[Errno -3] Temporary failure in name resolution' thrown while requesting HEAD https://x")
            client.warning("Retrying in 2s [Retry 2/5].")
            client.warning("something else")

    monkeypatch.setattr(logging.get_logger("huggingface_hub").handlers[0], "stream", sys.stderr)
    with suppress(ConnectionError), hub_faults("owner/set", "datasets", "give a copy"):
        lines()
        if fails:
            raise ConnectError("refused")
    assert capsys.readouterr().err.splitlines() == ["something else"] * 2
    lines()
    assert len(capsys.readouterr().err.splitlines()) == 6
    with hub_faults("owner/set", "datasets", "give a copy"):
        logging.set_verbosity_debug()
        lines()
        logging.set_verbosity_warning()
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_other_errors_of_the_hub_stay_as_they_are(monkeypatch):
    def load_dataset(path):
        raise ZeroDivisionError("a fault of its own, aggregated")

    monkeypatch.setattr(hf_datasets, "load_dataset", load_dataset)
    with pytest.raises(ZeroDivisionError, match="of its own"):
        load_data(spec_of(published("rpr", 0)), None)


def test_changed_columns_are_named_and_the_right_ones_resume(tmp_path, capsys, monkeypatch):
    rows, renamed = make_stand_in("rpr", 40), "criterion_x"
    old = {split: hf_datasets.Dataset.from_list(of) for split, of in rows.items()}
    new = {split: one.rename_column("criteria_x", renamed) for split, one in old.items()}
    arguments = written(tmp_path, [published("rpr", 0)])
    monkeypatch.setattr(hf_datasets, "load_dataset", lambda path: hf_datasets.DatasetDict(new))
    code, said = ended(arguments, capsys)
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith(
        "micropref: error: microsoft/rpr, split 'train': expected the columns 'prompt', 'response_a', 'response_b', "
        "'criteria_x', 'criteria_y', "
    )
    assert f"'{renamed}'" in line
    assert line.endswith("without 'criteria_x'; if the set has changed, revision= takes an earlier commit of it")
    monkeypatch.setattr(hf_datasets, "load_dataset", lambda path: hf_datasets.DatasetDict(old))
    assert ended(arguments, capsys)[0] == 0


def test_a_model_that_cannot_be_fetched(tmp_path, capsys, monkeypatch):
    def load(self, sentence_transformers):
        raise OSError("We couldn't connect to 'https://huggingface.co'") from OfflineModeIsEnabled("offline")

    monkeypatch.setattr(LastTokenEncoder, "_load", load)
    arguments = written(tmp_path, [published("rpr", encoder={"kind": "last_token", "model": "owner/model"})])
    code, said = ended(arguments, capsys)
    assert code == 1
    (line,) = said.splitlines()
    assert "owner/model: expected an answer of the hub, got no connection" in line
    assert line.endswith("or give the folder of a copy as model")


# ------------------------------------------------------------------------------------------------------------ torchrun


def test_each_process_embeds_its_part(reward_model, tmp_path, encoded):
    spec = spec_of(two_sets(reward_model)[0])
    counts, errors = on_ranks(2, lambda ranks: embed_data(spec, tmp_path, None, ranks))
    assert errors == [None, None]
    assert max(Counter(encoded).values()) == 1
    assert sum(counts) == len(encoded)
    assert min(counts) > len(encoded) / 3
    before = len(encoded)
    shared = load_data(spec, tmp_path)
    assert len(encoded) == before
    alone = load_data(spec, tmp_path, tmp_path / "alone")
    np.testing.assert_allclose(shared.difference, alone.difference, atol=2e-3)  # other batches, stored in float16


@pytest.mark.slow
def test_the_command_under_torchrun(reward_model, tmp_path):
    arguments = written(tmp_path, two_sets(reward_model)[:1])
    (tmp_path / "run.py").write_text("from micropref.cli import main\nmain()\n")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "run.py", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["failed"] == []
    (store,) = (tmp_path / "embeddings").iterdir()
    assert EmbeddingStore(store).info()["n_shards"] == 2
