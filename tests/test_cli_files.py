"""The commands on files as people have them: what they print, what they refuse, and what they leave as it is.

What every command prints for every layout is kept in ``fixtures/files``, a file for each layout. Written anew by:

    python tests/test_cli_files.py
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from layout_cases import BY_NAME, Case, lines, shell_options

from micropref import PreferenceModel, read_preferences
from micropref.cli import main

GOLDEN = Path(__file__).parent / "fixtures" / "files"
QUICK = ("arena", "semicolons", "wide", "mapped")
SUITE = """name = "one"
seeds = [0]
budgets = [0]
n_resamples = 20

[[datasets]]
name = "votes"
kind = "file"
path = "{path}"
test_units = 0.5
new_users = 0.5
min_votes = 1
{options}

[[methods]]
name = "single"
kind = "single"
"""


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(one) for one in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return code, out.getvalue(), err.getvalue()


def suite_of(case: Case) -> str:
    """A suite with the file of a case, whose options have the names of those of `read_preferences`."""
    options = "\n".join(
        f"{name} = {{ {', '.join(f'{json.dumps(k)} = {json.dumps(v)}' for k, v in value.items())} }}"
        if isinstance(value, dict)
        else f"{name} = {json.dumps(value)}"
        for name, value in case.options.items()
    )
    return SUITE.format(path=case.file, options=options)


def session(case: Case) -> str:
    """What every command prints for a case, as in a terminal."""
    options = shell_options(case.options)
    responses = [name for name in ("columns", "encoding") if name in case.options]
    commands = [
        ["fit", case.file, "model", "-k", "1", *options],
        ["fit", case.file, "model", "-k", "1", *options],
        ["route", "model", case.file, "-o", "routed", *options],
        ["evaluate", "model", case.file, *options],
        ["embed", case.file, "store", *options],
        ["theory", "model", case.file, *options],
        ["bench", "suite.toml", "-o", "results"],
        ["score", "model", case.file, *shell_options({name: case.options[name] for name in responses})],
    ]
    shown = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        case.write(Path(folder))
        Path("suite.toml").write_text(suite_of(case), encoding="utf-8")
        for command in commands:
            code, out, err = run(*command)
            shown.append(f"$ micropref {' '.join(command)}\n{err}{out}" + (f"(exit code {code})\n" if code else ""))
    return masked("\n".join(shown))


def masked(text: str) -> str:
    """Without what differs from run to run or from machine to machine: times, sizes, the last digits of figures."""
    text = re.sub(r"\d+\.\d+ s\b", "… s", text)
    text = re.sub(r"\d+\.\d+ MB", "… MB", text)
    text = re.sub(r"-?\d+\.\d{3,}|after \d+ iterations?|p = [\d.e-]+", "…", text)
    return "\n".join(line.rstrip() for line in re.sub(r"[─━]+", "─", re.sub(r" +", " ", text)).splitlines()) + "\n"


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in BY_NAME]
)
def test_what_the_commands_print_is_what_is_kept(name):
    kept = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    found = session(BY_NAME[name])
    assert found == kept
    assert "Traceback" not in found


def test_every_layout_has_its_file():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(BY_NAME)


# ------------------------------------------------------------------------------------------------------------ refusals


ROWS = [
    {"prompt": f"question {i % 4}", "chosen": f"good {i} yes", "rejected": f"bad {i} no", "user": f"u{i % 3}"}
    for i in range(24)
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(lines(*ROWS))
    PreferenceModel.fit(ROWS, n_components=1, n_init=1, random_state=0).route(ROWS).save(tmp_path / "model")
    return tmp_path


def state(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "rows.jsonl", "model"], "users' histories would be lost; .*--force"),
        (["route", "other", "rows.jsonl", "-o", "model"], "users' histories would be lost; .*--force"),
        (["fit", "rows.jsonl", "rows.jsonl"], "expected another file than the data"),
        (["evaluate", "model", "rows.jsonl", "--skip-bad", "--rejected", "rows.jsonl"], "--rejected FILE"),
        (["fit", "rows.jsonl", "new", "--skip-bad", "--rejected", "./rows.jsonl"], "--rejected FILE"),
        (["embed", "rows.jsonl", "rows.jsonl"], "STORE: expected another file than the data"),
        (["score", "model", "rows.jsonl", "-o", "rows.jsonl"], "--output: expected another file than the data"),
        (["theory", "model", "rows.jsonl", "-o", "rows.jsonl"], "--output: expected another file than the data"),
        (["fit", "rows.jsonl", "new", "--column", "prompt=promt"], "--column.*did you mean 'prompt'"),
        (["fit", "rows.jsonl", "new", "--format", "areena"], "did you mean 'arena'"),
        (["fit", "rows.jsonl", "new", "--encoding", "utf-9"], "encoding: expected a text encoding"),
    ],
)
def test_what_would_lose_something_is_refused(here, arguments, message):
    before = state(here)
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert re.search(message, err)
    assert state(here) == before


def test_force_replaces_a_model(here):
    code, _, err = run("fit", "rows.jsonl", "model", "-k", 1, "--force")
    assert (code, err) == (0, "")
    assert PreferenceModel.load("model").router is None


def test_a_column_of_users_without_users_is_none(here):
    Path("plain.jsonl").write_bytes(lines(*({k: v for k, v in row.items() if k != "user"} for row in ROWS)))
    Path("blank.jsonl").write_bytes(lines(*({**row, "user": ""} for row in ROWS)))
    plain, blank = (
        json.loads(run("evaluate", "model", name, "--json")[1])["rows"] for name in ("plain.jsonl", "blank.jsonl")
    )
    assert plain == blank
    rows = PreferenceModel.load("model").evaluate(
        [{**row, "user": "u0" if i % 2 else None} for i, row in enumerate(ROWS)]
    )
    assert rows[0]["accuracy_low"] is not None


def test_responses_are_ranked_within_prompts_of_any_name(here):
    questions = [{"question": f"question {i // 2}", "answer": f"{'good' if i % 2 else 'bad'} {i}"} for i in range(6)]
    Path("r.jsonl").write_bytes(lines(*questions))
    code, out, err = run("score", "model", "r.jsonl")
    assert (code, err) == (0, "micropref: r.jsonl: prompt: question; response: answer\n")
    assert sorted(json.loads(line)["rank"] for line in out.splitlines()) == [1, 1, 1, 2, 2, 2]
    Path("r.csv").write_text("assignment;answer\nName a fruit.;Apple pie.\nName a tree.;Oak.\n")
    code, out, err = run("score", "model", "r.csv")
    assert (code, out) == (1, "")
    assert "--column prompt=assignment" in err
    code, out, err = run("score", "model", "r.csv", "--column", "prompt=assignment")
    assert [json.loads(line)["rank"] for line in out.splitlines()] == [1, 1]


def test_standard_input_is_data(here, monkeypatch):
    by_file = run("evaluate", "model", "rows.jsonl", "--json")[1]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path("rows.jsonl").read_bytes())))
    assert run("evaluate", "model", "-", "--json") == (0, by_file, "")


def test_what_was_left_out_is_said_by_kind(here):
    rows = [*ROWS, {**ROWS[0], "chosen": ""}, {**ROWS[0], "chosen": ROWS[0]["rejected"]}]
    Path("bad.jsonl").write_bytes(lines(*rows))
    code, _, err = run("evaluate", "model", "bad.jsonl", "--skip-bad")
    assert code == 0
    assert "2 of 26 rows are left out; they are kept in bad.jsonl.rejected.jsonl" in err
    assert "by kind: 1 an empty response, 1 the same response twice" in err


def test_labels_of_another_scheme_are_never_skipped(here):
    rows = [{"prompt": "p", "response_a": f"x{i}", "response_b": f"y{i}", "label": i % 3} for i in range(9)]
    Path("labels.jsonl").write_bytes(lines(*rows))
    code, out, err = run("evaluate", "model", "labels.jsonl", "--skip-bad")
    assert (code, out) == (1, "")
    assert "--label" in err
    assert not Path("labels.jsonl.rejected.jsonl").exists()
    options = ["--label", "0=first", "--label", "1=second", "--label", "2=tie"]
    found = json.loads(run("evaluate", "model", "labels.jsonl", *options, "--json")[1])
    table = read_preferences("labels.jsonl", labels={0: "first", 1: "second", 2: "tie"})
    assert found["rows"][0]["n"] == len(table) == 12
    assert np.all([one[0] in "xy" for one in table.chosen])


def test_evaluate_by_takes_the_name_that_a_column_has_in_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BY_NAME["arena"].write(tmp_path)
    assert run("fit", BY_NAME["arena"].file, "model", "-k", 1)[0] == 0
    shown = [run("evaluate", "model", BY_NAME["arena"].file, "--by", name, "--json") for name in ("judge", "group")]
    rows = [json.loads(out)["rows"] for _, out, _ in shown]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 1


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "160")
    for one in BY_NAME.values():
        (GOLDEN / f"{one.name}.txt").write_text(session(one), encoding="utf-8")
