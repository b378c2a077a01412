"""`micropref embed`: every text once, also when it is stopped, or shared among processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from test_cli import ENVIRONMENT, MAIN, run  # noqa: F401  a fixture

from micropref import load_demo
from micropref.embed import EmbeddingStore, HashingEncoder, PairEncoder


@pytest.fixture(scope="module")
def table():
    return load_demo(n_annotators=40).train


@pytest.fixture
def here(table, tmp_path, monkeypatch) -> Path:
    table.to_jsonl(tmp_path / "data.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_texts_are_embedded_once_and_found_again(here, table, run):  # noqa: F811
    first = run("embed", "data.jsonl", "store", "--json")
    assert (first.code, first.err) == (0, "")
    texts = PairEncoder("hashing", context="auto").texts(table)
    assert set(texts) == {*table.prompt, *table.chosen, *table.rejected}
    assert first.json["n_new"] == first.json["n_texts"] == len(texts)
    assert first.json["dtype"] == "float16"
    assert first.json["encoder"] == HashingEncoder().fingerprint
    again = run("embed", "data.jsonl", "store", "--json")
    assert (again.json["n_new"], again.json["n_texts"]) == (0, len(texts))
    plain = run("embed", "data.jsonl", "store")
    assert "0 texts embedded" in plain.out
    assert f"store holds {len(texts)} texts" in plain.out
    np.testing.assert_allclose(EmbeddingStore("store").lookup(texts), HashingEncoder().encode(texts), atol=2e-3)


def test_a_dry_run_writes_nothing_and_counts(here, table, run):  # noqa: F811
    n_texts = len(PairEncoder("hashing", context="auto").texts(table))
    plan = run("embed", "data.jsonl", "store", "--dry-run", "--json").json
    assert (plan["n_comparisons"], plan["n_distinct"], plan["n_cached"]) == (len(table), n_texts, 0)
    assert (plan["n_missing"], plan["n_sampled"]) == (n_texts, 64)
    assert plan["seconds"] > 0
    assert not Path("store").exists()
    table[:20].to_jsonl("part.jsonl")
    run("embed", "part.jsonl", "store")
    half = run("embed", "data.jsonl", "store", "--dry-run")
    assert f"{len(table)} comparisons, {n_texts} distinct texts" in half.out
    kept = len(EmbeddingStore("store"))
    assert f"kept already: {kept}; to be embedded: {n_texts - kept}" in half.out
    assert "longer than the encoder reads: 0" in half.out
    assert len(EmbeddingStore("store")) == kept


def test_the_template_is_filled_in(here, table, run):  # noqa: F811
    run("embed", "data.jsonl", "store", "--template", "{prompt} {response}", "--dtype", "float32")
    store = EmbeddingStore("store")
    assert f"{table.prompt[0]} {table.chosen[0]}" in store
    assert table.chosen[0] not in store
    assert store.info()["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "no field"], "expected a template with"),
        (["--dtype", "int8"], "dtype: expected"),
        (["--shard-size", "0"], "shard_size: expected"),
        (["--encoder", "./nowhere"], "got ./nowhere"),
    ],
)
def test_bad_usage_is_one_line(here, run, arguments, message):  # noqa: F811
    done = run("embed", "data.jsonl", "store", *arguments)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(Path("store").glob("*.safetensors")) if Path("store").exists() else True


def test_another_encoder_is_refused(here, run):  # noqa: F811
    EmbeddingStore("store", HashingEncoder(32)).encode(["x"])
    done = run("embed", "data.jsonl", "store")
    assert done.code == 1
    assert "n_features=32" in done.err
    assert "n_features=768" in done.err


_SLOW = """
    import sys, time
    import micropref.embed.hashing as hashing
    right = hashing.HashingEncoder.encode
    def slow(self, texts):
        print("at work", flush=True)
        time.sleep(0.3)
        return right(self, texts)
    hashing.HashingEncoder.encode = slow
    hashing.HashingEncoder.batch_size = 1
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from micropref.cli import main
    main(["embed", "data.jsonl", "store"])
"""


def test_ctrl_c_says_how_to_go_on(here, run):  # noqa: F811
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SLOW)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == "at work\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Ctrl-C again to stop at once" in err
    assert "the same call resumes from there" in err
    assert "Traceback" not in err
    kept = len(EmbeddingStore("store"))
    assert kept >= 32
    assert kept % 16 == 0
    rest = run("embed", "data.jsonl", "store", "--json").json
    assert rest["n_new"] == rest["n_texts"] - kept > 0


def test_a_killed_run_goes_on(here, run):  # noqa: F811
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SLOW).replace('"store"', '"store", "--shard-size", "16"')],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    for _ in range(4):
        child.stdout.readline()
    child.kill()
    child.wait()
    kept = len(EmbeddingStore("store", HashingEncoder()))
    assert kept >= 16
    rest = run("embed", "data.jsonl", "store", "--json").json
    assert rest["n_new"] == rest["n_texts"] - kept > 0


def test_processes_that_torchrun_starts_share_the_work(here, table, tmp_path):
    """Each embeds its own part; one store holds all, with the vectors of one process."""
    script = tmp_path / "embed.py"
    script.write_text('from micropref.cli import main\nmain(["embed", "data.jsonl", "store", "--json"])\n')
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shares = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    texts = PairEncoder("hashing", context="auto").texts(table)
    assert len(shares) == 2
    assert sum(share["n_new"] for share in shares) == len(texts)
    assert min(share["n_new"] for share in shares) > len(texts) / 3
    single = EmbeddingStore("single", HashingEncoder())
    np.testing.assert_array_equal(EmbeddingStore("store").lookup(texts), single.encode(texts))


def test_the_help_names_it():
    done = subprocess.run([*MAIN, "embed", "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    for option in ("--dry-run", "--encoder", "--template", "--shard-size", "--dtype", "--skip-bad"):
        assert option in done.stdout


def test_a_reader_beside_a_writer(here, table):
    """A store is read while another process fills it."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SLOW).replace('"store"', '"store", "--shard-size", "16"')],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(Path("store").glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    reader = EmbeddingStore("store", HashingEncoder())
    assert child.poll() is None
    assert len(reader) >= 16
    child.kill()
    child.wait()
    texts = PairEncoder("hashing", context="auto").texts(table)
    there = [text for text in texts if text in reader]
    np.testing.assert_allclose(reader.lookup(there), HashingEncoder().encode(there), atol=2e-3)


def test_models_read_from_a_store(here, run):  # noqa: F811
    """Every command takes vectors from the store, and puts there what is missing."""
    run("fit", "data.jsonl", "plain", "--seed", "1", "-k", "2")
    assert run("fit", "data.jsonl", "model", "--seed", "1", "-k", "2", "--store", "store").code == 0
    n_texts = len(EmbeddingStore("store"))
    assert n_texts > 100
    before, after = (run("evaluate", name, "data.jsonl", "--json").json["rows"] for name in ("plain", "model"))
    assert abs(before[0]["log_loss"] - after[0]["log_loss"]) < 1e-3  # half precision
    kept = run("evaluate", "model", "data.jsonl", "--json", "--store", "store").json["rows"]
    assert abs(kept[0]["log_loss"] - after[0]["log_loss"]) < 1e-3
    assert len(EmbeddingStore("store")) == n_texts
    responses = [{"prompt": "Tea?", "response": "A cup, please."}, {"prompt": "Tea?", "response": "None today."}]
    Path("responses.jsonl").write_text("\n".join(map(json.dumps, responses)))
    assert run("score", "model", "responses.jsonl", "--store", "store").code == 0
    assert "None today." in EmbeddingStore("store")
    refused = run("fit", "data.jsonl", "other", "--store", "store", "--encoder", "./nowhere")
    assert (refused.code, Path("other").exists()) == (1, False)
