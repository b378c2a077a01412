"""How a command ends when it is interrupted, its output is closed or full, its memory too small, or its input odd."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from micropref import read_preferences
from micropref._support.strict_json import DuplicateKeyError, loads
from micropref.cli import main
from micropref.cli._app import working
from micropref.datasets import MalformedRowError
from micropref.datasets.responses import read_responses

ROOT = Path(__file__).parents[1]
N_INTERRUPTS = 40
COMMAND = [sys.executable, "-m", "micropref"]
ROW = {"prompt": "q", "chosen": "a good answer", "rejected": "bad", "group": "ann"}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(ROW | {"chosen": f"good {i}", "group": f"u{i % 3}"}) + "\n" for i in range(9)))
    return path


def shell(line: str, **more) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "M": " ".join(COMMAND), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=env, **more)


def is_quiet(text: str) -> bool:
    return not any(word in text for word in ("Traceback", "Exception", "Error:"))


# ------------------------------------------------------------------------------------------------- streams and signals


def test_a_pipe_whose_reader_leaves_ends_quietly_and_the_model_is_saved(data, tmp_path):
    done = shell(f"set -o pipefail; $M fit {data} {tmp_path}/model | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("9 comparisons")
    assert (tmp_path / "model" / "model.json").exists()
    done = shell(f"set -o pipefail; $M score {tmp_path}/model - < /dev/null | true; $M theory | true")
    assert is_quiet(done.stderr)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(data, tmp_path, closed):
    done = shell(f"$M fit {data} {tmp_path}/model {closed}; echo $?; $M theory --json {closed}; echo $?")
    assert (done.stdout, done.stderr) == ("0\n0\n", "")
    assert (tmp_path / "model" / "model.json").exists()


def test_a_full_output_is_an_error_without_traceback(data):
    done = shell("$M theory > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "micropref: error: [Errno 28] No space left on device: 'standard output'\n"


def test_standard_input_that_is_closed(tmp_path):
    done = shell(f"$M fit - {tmp_path}/model <&-")
    assert done.returncode == 1
    assert done.stderr.startswith("micropref: error: standard input: expected")


@pytest.mark.parametrize("n", [3, pytest.param(N_INTERRUPTS, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_time_gives_no_traceback(data, tmp_path, n):
    """From the moment on at which Python hands over: imports of the package, of what it needs, the work itself."""
    code = """
import runpy, sys
print("go", flush=True)
del sys.argv[0]
runpy.run_module("micropref", alter_sys=True, run_name="__main__")
"""
    draw = random.Random(0)
    for i in range(n):
        command = [sys.executable, "-c", code, "micropref", "fit", str(data), str(tmp_path / f"model{i}")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05 + draw.uniform(0.0, 2.0) if i else 0.3)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert child.returncode in (130, -signal.SIGINT, 0), said
        assert is_quiet(said), said


@pytest.mark.parametrize(
    ("raised", "code"), [(AttributeError, 130), (ImportError, 130), (SystemError, 130), (OSError, 1), (ValueError, 1)]
)
def test_ctrl_c_in_whose_place_another_error_comes_is_one_still(raised, code, monkeypatch, capsys):
    """What an extension module makes of it has no cause; an error of the work itself is reported all the same."""

    def interrupted(args):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            error = raised("a module that is half imported")
        raise error

    monkeypatch.setattr("micropref.cli.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == code
    assert capsys.readouterr().err == ("" if code == 130 else "micropref: error: a module that is half imported\n")
    assert signal.set_wakeup_fd(-1) == -1  # as it was


def test_an_error_without_ctrl_c_is_none(monkeypatch):
    def broken(args):
        raise AttributeError("a bug")

    monkeypatch.setattr("micropref.cli.app", broken)
    with pytest.raises(AttributeError, match="a bug"):
        main([])


def test_ctrl_c_is_heard_soon():
    """Until `main` runs, Python answers it by a traceback: so what it imports before takes hardly any time."""
    code = "import sys; known = {*sys.modules}; import micropref.__main__; print(*({*sys.modules} - known))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=env)
    found = set(done.stdout.split())
    assert {name for name in found if "micropref" in name} == {"micropref", "micropref.__main__"}
    assert not found & {"typing", "re", "inspect", "contextlib", "numpy", "typer"}


@pytest.mark.parametrize("lines", ["many", "one"])
def test_a_bomb_under_a_limit_of_memory_is_named(tmp_path, lines):
    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        block = (json.dumps(ROW).encode() + b"\n") * 10_000 if lines == "many" else b"a" * 1_000_000
        for _ in range(1000):
            file.write(block)
    done = shell(f"ulimit -v 900000; $M fit {bomb} {tmp_path}/model", timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"micropref: error: {bomb}: expected rows that fit into memory, got more than that\n"


def test_a_warning_is_printed_when_it_comes_and_once(capsys):
    with working():
        for _ in range(2):
            warnings.warn("waiting for the lock", UserWarning, stacklevel=1)
        assert capsys.readouterr().err == "micropref: warning: waiting for the lock\n"
    assert capsys.readouterr().err == ""
    with working(silent=True):
        warnings.warn("of another rank", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


def test_worlds_with_too_many_groups_are_refused():
    for options in ("-k 100000", "-k 100000 --sweep diversity", "-k 65 --sweep pairs_per_group"):
        done = shell(f"$M theory {options}", timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith("micropref: error: number of groups: expected at most")


# ------------------------------------------------------------------------------------------------------------ readers

TWICE = '{"prompt": "q", "chosen": "a", "rejected": "b", "chosen": "c"}'
NESTED = '{"prompt": "q", "chosen": "a", "rejected": "b", "features": {"x": [1, {"y": 1, "z": "\\"y\\":", "y": 2}]}}'


@pytest.mark.parametrize("read", [read_preferences, read_responses])
@pytest.mark.parametrize(("row", "key"), [(TWICE, "chosen"), (NESTED, "y")])
def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path, read, row, key):
    good = json.dumps(ROW | {"response": "a"})
    lines = tmp_path / "data.jsonl"
    lines.write_text(f"{good}\n\n{row}\n")
    with pytest.raises(MalformedRowError, match=rf"data\.jsonl, line 3: expected each key .*'{key}' twice"):
        read(lines)
    for name in ("data.json", "rows.json"):
        document = tmp_path / name
        document.write_text(
            f"[\n{good},\n{row.replace(', ', ',' + chr(10))}]" if name == "data.json" else f"{good}\n{row}"
        )
        with pytest.raises(MalformedRowError, match=rf"{name}, line \d+: expected each key .*'{key}' twice") as error:
            read(document)
        line = int(str(error.value).partition(", line ")[2].partition(":")[0])
        assert f'"{key}"' in document.read_text().splitlines()[line - 1]


def test_rows_with_a_key_twice_can_be_left_out(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{TWICE}\n")
    with pytest.warns(UserWarning, match="a key twice"):
        assert len(read_preferences(path, skip_bad=True)) == 1


def test_messages_as_text_have_no_key_twice_and_responses_may(tmp_path):
    messages = '[{"role": "user", "content": "q", "role": "assistant"}]'
    with pytest.raises(MalformedRowError, match="'role' twice, in messages as text"):
        read_preferences([{"prompt": "q", "chosen": messages, "rejected": messages}])
    answer = '{"a": 1, "a": 2}'
    assert read_preferences([{"prompt": "q", "chosen": answer, "rejected": "b"}]).chosen == [answer]


def test_strict_json_reads_what_json_reads():
    draw = np.random.default_rng(0)

    def value(depth: int):
        kind = draw.integers(6 if depth else 4)
        text = "".join(draw.choice(list('a"{}[]:,\\\n é'), size=draw.integers(4)))
        if kind == 4:
            return [value(depth - 1) for _ in range(draw.integers(4))]
        if kind == 5:
            return {f"{i}{text}": value(depth - 1) for i in range(draw.integers(4))}
        return [text, float(draw.normal()), None, bool(kind)][kind]

    for _ in range(200):
        held = value(4)
        assert loads(json.dumps(held, indent=int(draw.integers(3)))) == held
        document = json.dumps([held, {"k": held, "x": 1}], indent=1).replace('"x": 1', '"k": 2')
        with pytest.raises(DuplicateKeyError, match="'k' twice") as error:
            loads(document)
        assert '"k": 2' in document.splitlines()[error.value.line - 1]


@pytest.mark.parametrize("kind", ["parquet", "feather", "jsonl.gz", "jsonl.zst"])
def test_damaged_files_are_named(tmp_path, kind):
    """Cut and flipped anywhere, a file is read, or an error that names it."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    path, draw = tmp_path / f"data.{kind}", random.Random(0)
    table = pa.table({name: [f"{cell} {i}" for i in range(50)] for name, cell in ROW.items()})
    if kind == "parquet":
        pa.parquet.write_table(table, path)
    elif kind == "feather":
        pa.feather.write_feather(table, path)
    else:
        with pa.CompressedOutputStream(str(path), {"gz": "gzip", "zst": "zstd"}[kind[-3:].strip(".")]) as file:
            file.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    blob = path.read_bytes()
    n_refused = 0
    for i in range(300):
        damaged = bytearray(blob)
        for _ in range(draw.choice((1, 1, 4))):
            damaged[draw.randrange(len(blob))] ^= draw.randrange(1, 256)
        path.write_bytes(damaged[: draw.randrange(len(blob))] if i % 5 == 0 else damaged)
        said = refusal(path)
        n_refused += said is not None
        assert said is None or str(path) in said
    assert n_refused > 50


def refusal(path) -> str | None:
    try:
        read_preferences(path)
    except ValueError as error:
        return str(error)
    return None
