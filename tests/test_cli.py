"""The command: what it prints where, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import micropref
from micropref import PreferenceModel, load_demo
from micropref._support.text import counted
from micropref.cli import app, main
from micropref.datasets import PreferenceTable
from micropref.embed import HashingEncoder, PairEncoder

COMMANDS = ("demo", "fit", "route", "ask", "score", "evaluate")
BRIEF_WISH = "Keep it short, please, just the essentials."
SHORT = "Same bedtime every night. Phone out of the room."
LONG = (
    "First, keep the same bedtime every night, since habit helps. Then leave the phone in another room. Finally, read."
)


@pytest.fixture(scope="module")
def world():
    return load_demo(n_annotators=60)


@pytest.fixture(scope="module")
def fitted(world, tmp_path_factory) -> Path:
    """Data files, a model of heads alone in `heads`, and a routed one in `routed`."""
    folder = tmp_path_factory.mktemp("cli")
    world.train.to_jsonl(folder / "train.jsonl")
    world.labelled.to_jsonl(folder / "labelled.jsonl")
    world.history.to_jsonl(folder / "history.jsonl")
    world.test[:240].to_jsonl(folder / "test.jsonl")
    model = PreferenceModel.fit(
        folder / "train.jsonl", encoder=HashingEncoder(256), n_components=4, n_init=2, random_state=0
    )
    model.save(folder / "heads")
    model.route(world.labelled).route(world.history).save(folder / "routed")
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch) -> Path:
    """A folder of one's own with those files, to work in."""
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Done:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capsys):
    """Run the command in this process."""

    def run(*arguments) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(leaving.value.code or 0, captured.out, captured.err)

    return run


MAIN = [sys.executable, "-c", "from micropref.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(micropref.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}


def start(*arguments, **options) -> subprocess.Popen:
    """Run the command in a process of its own."""
    return subprocess.Popen([*MAIN, *map(str, arguments)], env=ENVIRONMENT, **options)


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------------------- help


def help_of(*arguments) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    return re.sub(r"[\s│]+", " ", result.output)


def test_help_lists_the_commands_with_what_they_do():
    text = help_of()
    for command in COMMANDS:
        assert re.search(rf" {command} [A-Z]\w+ ", text)
    assert "micropref demo" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_and_argument(command):
    import typer.main

    text = help_of(command)
    parameters = typer.main.get_command(app).commands[command].params
    assert len(parameters) > 2
    for parameter in parameters:
        if parameter.name == "help":
            continue
        assert len(parameter.help) > 8, parameter.name
        for phrase in re.split(r"\s+", parameter.help)[:4]:
            assert phrase in text
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
        assert shown in text


@pytest.mark.parametrize(
    ("command", "phrases"),
    [
        ("demo", ["Needs no network", "less than half a minute", "micropref-demo.png"]),
        (
            "fit",
            [
                "prompt, chosen, rejected",
                "response_a, response_b, label",
                "annotator of every comparison",
                "hashing",
            ],
        ),
        (
            "route",
            ["Rows without a group", "votes of that user, oldest first", "linear (default), mlp, knn or cluster"],
        ),
        ("score", ["rank (1 is best)", "to the same prompt", "responses, a list"]),
        ("evaluate", ["95 % intervals", "resample users", "such as context"]),
    ],
)
def test_help_says_what_one_needs_to_know(command, phrases):
    text = help_of(command)
    for phrase in phrases:
        assert phrase in text


def test_version(run):
    done = run("--version")
    assert (done.code, done.out, done.err) == (0, f"{micropref.__version__}\n", "")


# --------------------------------------------------------------------------------------------------- the whole way


def test_from_a_file_to_a_judgement(here, run, world):
    done = run("fit", "train.jsonl", "model", "--components", 4, "--restarts", 2)
    assert (done.code, done.err) == (0, "")
    assert "480 comparisons, 60 annotators, 0 texts longer than the encoder reads" in done.out
    assert re.search(
        r"4 heads, 0\.\d{4} nats after \d+ iterations\nalpha 0\.\d+, history temperature \d\S*\n"
        r"weights( 0\.\d\d){4}\nsaved to model \(",
        done.out,
    )

    done = run("route", "model", "labelled.jsonl")
    assert (done.code, done.err) == (0, "")
    assert re.search(
        r"200 labelled contexts, 0 votes; 0 users known\nalpha \S+, history temperature 1\nsaved to model", done.out
    )
    done = run("route", "model", "history.jsonl", "--history-temperature", 2)
    assert "0 labelled contexts, 1000 votes; 100 users known" in done.out

    done = run("evaluate", "model", "test.jsonl", "--json")
    assert (done.code, done.err) == (0, "")
    rows = {row["method"]: row for row in done.json["rows"]}
    assert list(rows) == ["mixture", "routed", "history"]
    assert rows["mixture"]["accuracy"] < rows["routed"]["accuracy"] < rows["history"]["accuracy"]

    by_hand = PreferenceModel.fit(world.train, n_components=4, n_init=2, random_state=0)
    by_hand.route(world.labelled, random_state=0).route(world.history, history_temperature=2.0)
    np.testing.assert_array_equal(
        PreferenceModel.load("model").log_odds(world.test[:240]), by_hand.log_odds(world.test[:240])
    )


def test_fit_options_reach_the_model(here, run):
    done = run(
        "fit", "train.jsonl", "model", "-k", 2, "--template", "{prompt} {response}", "--prompt-gate", "--alpha", 0.5,
        "--restarts", 1, "--seed", 7, "--json",
    )  # fmt: skip
    assert "one head has a weight of less than 2 %" in done.err  # under a penalty this strong
    result = done.json
    assert (result["model"], result["n_comparisons"], result["n_groups"]) == ("model", 480, 60)
    assert (result["n_rejected"], result["n_truncated"], result["converged"]) == (0, 0, True)
    assert result["encoder"].startswith("hashing(")
    assert len(result["weights"]) == 2
    assert {type(result[name]) for name in ("objective", "seconds")} == {float}
    model = PreferenceModel.load("model")
    parameters = model.mixture.get_params()
    wanted = {"n_components": 2, "n_context_features": 768, "alpha": 0.5, "n_init": 1, "random_state": 7}
    assert {name: parameters[name] for name in wanted} == wanted
    assert model.encoder.template == "{prompt} {response}"


@pytest.mark.parametrize(
    ("options", "acts", "warned"),
    [
        ([], True, True),
        (["--interactions", "--clauses", "--length"], True, False),
        (["--no-interactions"], False, False),
    ],
)
def test_contexts_of_the_data_act_unless_they_are_left_out(here, run, options, acts, warned):
    done = run("fit", "labelled.jsonl", "model", "-k", 1, *options)
    assert ("warning: the rows have contexts, so these act on the responses" in done.err) == warned
    assert ("contexts act on the responses" in done.out) == acts
    encoder = PreferenceModel.load("model").encoder
    assert (encoder.interactions_ is not None) == acts
    assert (encoder.clauses, encoder.length) == (len(options) == 3, len(options) == 3)
    scored = {"prompt": "p", "responses": ["a long answer to it", "a short one"], "context": "Keep it short."}
    (here / "answers.jsonl").write_text(json.dumps(scored) + "\n", encoding="utf-8")
    assert len(run("score", "model", "answers.jsonl").out.splitlines()) == 2
    assert run("evaluate", "model", "labelled.jsonl", "--json").json["rows"][0]["accuracy"] > 0.5


def test_clauses_are_embedded_ahead(here, run):
    counts = [
        run("embed", "labelled.jsonl", "store", *more, "--json").json["n_new"] for more in ([], ["--clauses"], [])
    ]
    assert counts[0] > counts[1] > counts[2] == 0


def test_route_options_reach_the_model_and_stay(here, run):
    options = ["--temperature", 0.5, "--history-temperature", 3, "--history-decay", 0.9, "--gate", "knn", "--seed", 4]
    done = run("route", "heads", "labelled.jsonl", "-o", "elsewhere", *options, "--json")
    assert (done.json["model"], done.json["n_labelled"], done.json["n_votes"]) == ("elsewhere", 200, 0)
    assert PreferenceModel.load("heads").router is None
    done = run("route", "elsewhere", "history.jsonl", "--history-temperature", 5, "--json")
    assert (done.json["n_votes"], done.json["n_users"]) == (1000, 100)
    parameters = PreferenceModel.load("elsewhere").router.get_params(deep=False)
    wanted = {"temperature": 0.5, "history_temperature": 5, "history_decay": 0.9, "gate": "knn", "random_state": 4}
    assert {name: parameters[name] for name in wanted} == wanted


def test_votes_cannot_change_the_gate(here, run):
    run("route", "heads", "labelled.jsonl", "--gate", "knn")
    before = run("evaluate", "heads", "test.jsonl").out
    done = run("route", "heads", "history.jsonl", "--gate", "linear")
    assert done.code == 1
    assert "gate: expected 'knn', as when the labelled contexts were learned, got 'linear'" in done.err
    assert run("evaluate", "heads", "test.jsonl").out == before


def test_the_seed_of_a_route_is_zero_unless_given(here, run, world):
    world.labelled[:24].to_jsonl(here / "few.jsonl")
    outcomes = {
        run("route", "heads", "few.jsonl", "-o", f"model{i}", "--gate", "mlp", *seed).code
        or run("evaluate", f"model{i}", "test.jsonl").out
        for i, seed in enumerate([[], ["--seed", 0], ["--seed", 1]])
    }
    assert len(outcomes) == 2


@pytest.mark.parametrize("command", ["fit", "route", "score", "evaluate"])
def test_json_is_all_there_is_on_standard_output(command, here, run):
    responses = write(here / "r.jsonl", [{"prompt": "p", "context": "", "response": "a"}])
    arguments = {
        "fit": ["train.jsonl", "model", "-k", 1],
        "route": ["heads", "labelled.jsonl"],
        "score": ["routed", responses],
        "evaluate": ["routed", "test.jsonl"],
    }
    done = run(command, *arguments[command], "--json")
    assert (done.code, done.err) == (0, "")
    assert isinstance(done.json, dict)
    assert done.out.count("\n") == 1
    assert "NaN" not in done.out


# ----------------------------------------------------------------------------------------------------------- scoring


def score_rows(rows, here, run, *options):
    done = run("score", "routed", write(here / "responses.jsonl", rows), *options)
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_scores_are_rewards_and_ranks_within_prompt_context_and_user(here, run):
    rows = [
        {"prompt": "How do I fall asleep?", "responses": [LONG, SHORT], "context": BRIEF_WISH},
        {"prompt": "How do I fall asleep?", "response": LONG},
        {"prompt": "How do I fall asleep?", "response": SHORT, "user": "user-001"},
        {"prompt": "What is tea?", "response": SHORT, "context": BRIEF_WISH},
        {"prompt": "How do I fall asleep?", "response": "Tea.", "context": BRIEF_WISH},
    ]
    scored = score_rows(rows, here, run)
    assert [line["row"] for line in scored] == [0, 0, 1, 2, 3, 4]
    assert [line["response"] for line in scored] == [LONG, SHORT, LONG, SHORT, SHORT, "Tea."]
    model = PreferenceModel.load("routed")
    rewards = model.reward(
        [rows[line["row"]]["prompt"] for line in scored],
        [line["response"] for line in scored],
        [rows[line["row"]].get("context", "") for line in scored],
        [rows[line["row"]].get("user") for line in scored],
    )
    np.testing.assert_allclose([line["reward"] for line in scored], rewards, atol=1e-6)
    asked = [0, 1, 5]
    best_first = sorted(asked, key=lambda i: -rewards[i])
    assert [scored[i]["rank"] for i in best_first] == [1, 2, 3]
    assert [scored[i]["rank"] for i in (2, 3, 4)] == [1, 1, 1]


def test_equal_rewards_are_ranked_as_they_came(here, run):
    scored = score_rows([{"prompt": "p", "context": "", "responses": [SHORT, SHORT, SHORT]}], here, run)
    assert [line["rank"] for line in scored] == [1, 2, 3]


def test_scores_in_a_file(here, run):
    write(here / "r.jsonl", [{"prompt": "p", "context": "", "responses": ["Thé ☕", "b"]}])
    printed = run("score", "routed", "r.jsonl").out
    done = run("score", "routed", "r.jsonl", "--output", "scores.jsonl")
    assert (done.code, done.out) == (0, "")
    assert done.err == "2 responses scored, written to scores.jsonl\n"
    assert (here / "scores.jsonl").read_text(encoding="utf-8") == printed
    done = run("score", "routed", "r.jsonl", "-o", "scores.json", "--json")
    assert done.out == ""
    assert json.loads((here / "scores.json").read_text())["responses"] == [json.loads(x) for x in printed.splitlines()]


def test_a_file_that_cannot_be_written(here, run):
    write(here / "r.jsonl", [{"prompt": "p", "context": "", "response": "a"}])
    done = run("score", "routed", "r.jsonl", "-o", "nowhere/scores.jsonl")
    assert (done.code, done.out) == (1, "")
    assert "nowhere/scores.jsonl" in done.err


@pytest.mark.parametrize(
    "text", ["[bold]x[/bold] [/red] :smile:", "Ünïcödé 東京 ☕", 'quotes " and \\ and\nlines', "\x1b[31mred"]
)
def test_texts_are_printed_as_they_are(text, here, run):
    (line,) = score_rows([{"prompt": "p", "context": "", "response": text}], here, run)
    assert line["response"] == text
    if "\n" not in text and "\x1b" not in text:
        assert text in run("score", "routed", "responses.jsonl").out


# -------------------------------------------------------------------------------------------------------- evaluation


def test_the_table_of_an_evaluation(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--by", "taste")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(run("evaluate", "routed", "test.jsonl", "--by", "taste", "--json").out)["rows"]
    lines = [line for line in done.out.splitlines() if line.startswith("│")]
    assert len(lines) == len(rows) == 15
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells == [
            row["method"],
            row["subset"],
            str(row["n"]),
            f"{row['accuracy']:.4f}",
            f"{row['accuracy_low']:.4f} – {row['accuracy_high']:.4f}",
            f"{row['log_loss']:.4f}",
            f"{row['log_loss_low']:.4f} – {row['log_loss_high']:.4f}",
        ]


def test_a_table_without_subsets_has_no_column_for_them(here, run):
    out = run("evaluate", "heads", "test.jsonl").out
    (line,) = [line for line in out.splitlines() if line.startswith("│")]
    assert line.count("│") == 7
    assert "240 comparisons" in out


def test_long_and_odd_values_in_a_table_cost_no_figure(here, run, world):
    wishes = ["[bold]short[/] :smile: [/nothing]", "x" * 400, "Ünïcödé"]
    table = world.test[:90]
    PreferenceTable(
        table.prompt, table.chosen, table.rejected, context=[wishes[i % 3] for i in range(90)], group=table.group
    ).to_jsonl(here / "odd.jsonl")
    done = run("evaluate", "routed", "odd.jsonl", "--by", "context")
    rows = json.loads(run("evaluate", "routed", "odd.jsonl", "--by", "context", "--json").out)["rows"]
    for row in rows:
        assert f"{row['accuracy_low']:.4f} – {row['accuracy_high']:.4f}" in done.out
    assert "[bold]short[/] :smile: [/nothing]" in done.out
    assert done.out.count("x") >= 3 * 400
    assert "…" not in done.out


def test_one_user_has_figures_without_intervals(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--by", "group")
    assert done.code == 0
    assert "one cluster" in done.out
    row = json.loads(run("evaluate", "routed", "test.jsonl", "--by", "group", "--json").out)["rows"][-1]
    assert row["accuracy_low"] is None


def test_the_seed_of_the_bootstrap(here, run):
    outputs = [run("evaluate", "routed", "test.jsonl", "--seed", seed).out for seed in (1, 1, 2)]
    assert outputs[0] == outputs[1] != outputs[2]


def test_an_unknown_column_to_evaluate_by(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--by", "colour")
    assert (done.code, done.out) == (1, "")
    assert "expected one of the columns 'prompt', 'context', 'group', 'taste'" in done.err


# ---------------------------------------------------------------------------------------------------------- bad data


BAD = '{"prompt": "p", "chosen": "same", "rejected": "same"}\n'
WORSE = '{"prompt": "p", "chosen":\n'


@pytest.fixture
def spoiled(here) -> Path:
    """The training data with two bad lines, the third and the last."""
    lines = (here / "train.jsonl").read_text().splitlines(keepends=True)
    (here / "spoiled.jsonl").write_text("".join([*lines[:2], BAD, *lines[2:], WORSE]))
    return here


@pytest.mark.parametrize("command", ["fit", "route", "evaluate"])
def test_a_bad_row_stops_with_file_and_line(command, spoiled, run):
    arguments = {"fit": ["spoiled.jsonl", "new"], "route": ["heads", "spoiled.jsonl", "-o", "new"]}
    done = run(command, *arguments.get(command, ["routed", "spoiled.jsonl"]))
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(
        r"micropref: error: spoiled\.jsonl, line 3: expected two different responses, got .*\n", done.err
    )
    assert not (spoiled / "new").exists()


def test_skip_bad_goes_on_and_keeps_the_rows(spoiled, run):
    done = run("fit", "spoiled.jsonl", "new", "-k", 1, "--skip-bad", "--json")
    assert done.code == 0
    assert (done.json["n_comparisons"], done.json["n_rejected"]) == (480, 2)
    assert "micropref: warning: spoiled.jsonl: 2 of 482 rows are left out" in done.err
    assert "spoiled.jsonl.rejected.jsonl; the first is line 3: expected" in done.err
    assert done.err.count("\n") == 1
    kept = [json.loads(line) for line in (spoiled / "spoiled.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in kept] == [3, 483 - 1]
    assert kept[0]["row"] == json.loads(BAD)
    assert "same" in kept[0]["reason"]


@pytest.mark.parametrize("command", ["route", "evaluate"])
def test_skip_bad_with_a_file_of_ones_own(command, spoiled, run):
    done = run(command, "routed", "spoiled.jsonl", "--skip-bad", "--rejected", "bad.jsonl", "--json")
    assert (done.code, done.json["n_rejected"]) == (0, 2)
    assert len((spoiled / "bad.jsonl").read_text().splitlines()) == 2
    assert not (spoiled / "spoiled.jsonl.rejected.jsonl").exists()


def test_what_was_left_out_is_said_even_if_the_rest_fails(spoiled, run):
    lines = (spoiled / "spoiled.jsonl").read_text().splitlines(keepends=True)
    (spoiled / "few.jsonl").write_text("".join(lines[:3]))
    done = run("fit", "few.jsonl", "new", "-k", 4, "--skip-bad")
    assert done.code == 1
    assert re.search(
        r"warning: few\.jsonl: 1 of 3 rows are left out.*\n"
        r"micropref: error: expected at least n_components=.* got n_samples=2",
        done.err,
    )


def test_other_columns(here, run):
    rows = [json.loads(line) for line in (here / "test.jsonl").read_text().splitlines()]
    renamed = {"chosen": "good", "rejected": "bad", "group": "who"}
    write(here / "mine.jsonl", [{renamed.get(name, name): cell for name, cell in row.items()} for row in rows])
    options = [part for name, column in renamed.items() for part in ("--column", f"{name}={column}")]
    mine = run("evaluate", "routed", "mine.jsonl", *options)
    assert mine.code == 0
    assert mine.out == run("evaluate", "routed", "test.jsonl").out
    done = run("evaluate", "routed", "mine.jsonl")
    assert done.code == 1
    assert "mine.jsonl, line 1: expected chosen and rejected" in done.err


@pytest.mark.parametrize("option", ["chosen", "=better", "chosen=", "="])
def test_column_options_that_are_none(option, here, run):
    done = run("evaluate", "routed", "test.jsonl", "--column", option)
    assert (done.code, done.out) == (2, "")
    assert f"expected NAME=COLUMN, got '{option}'" in re.sub(r"[\s│]+", " ", done.err)


LABELS = ("--label", "0=first", "--label", "1=second", "--label", "2=tie")


@pytest.fixture
def numbered(here) -> Path:
    """Those files with two responses and a label: 0 for the first, 1 for the second, 2 for a tie in the last row."""
    for name in ("train", "labelled", "test"):
        rows = [json.loads(line) for line in (here / f"{name}.jsonl").read_text().splitlines()]
        rows.append(rows[0] | {"label": "tie"})
        for i, row in enumerate(rows):
            pair = [row.pop("chosen"), row.pop("rejected")]
            row["response_a"], row["response_b"] = pair if i % 2 else pair[::-1]
            row.setdefault("label", "first" if i % 2 else "second")
        write(here / f"{name}.jsonl", rows)
        labels = {"first": 0, "second": 1, "tie": 2}
        write(here / f"{name}-0-1-2.jsonl", [row | {"label": labels[row["label"]]} for row in rows])
    return here


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "train.jsonl", "new", "-k", 1],
        ["route", "heads", "labelled.jsonl", "-o", "new"],
        ["evaluate", "routed", "test.jsonl"],
        ["embed", "test.jsonl", "store", "--dry-run"],
        ["theory", "heads", "train.jsonl"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_labels_of_another_scheme(arguments, numbered, run):
    mapped = [str(one).replace(".jsonl", "-0-1-2.jsonl") for one in arguments]
    again = ["--force"] if "new" in arguments else []
    by_hand, done = run(*arguments, "--json"), run(*mapped, *LABELS, *again, "--json")
    assert (done.code, done.err) == (0, "")
    timed = {"seconds"}
    assert {name: value for name, value in done.json.items() if name not in timed} == {
        name: value for name, value in by_hand.json.items() if name not in timed
    }
    done = run(*mapped, *LABELS[:4], *again)
    assert (done.code, done.out) == (1, "")
    assert "got the label 2 in column 'label'; say what it means, such as labels={'2': 'first'}" in done.err
    assert "in the shell --label 2=first" in done.err


def test_labels_of_signs(numbered, run):
    rows = [json.loads(line) for line in (numbered / "test.jsonl").read_text().splitlines()]
    signs = {"first": "+", "second": "-", "tie": "="}
    write(numbered / "signs.jsonl", [row | {"label": signs[row["label"]]} for row in rows])
    done = run("evaluate", "routed", "signs.jsonl", "--label", "+=first", "--label", "-=second", "--label", "==tie")
    assert (done.code, done.out) == (0, run("evaluate", "routed", "test.jsonl").out)


@pytest.mark.parametrize("option", ["1", "=first", " =first", "1=", "1=one", "1=First", "=", "first=1", "tie"])
@pytest.mark.parametrize("command", ["fit", "route", "evaluate", "embed"])
def test_label_options_that_are_none(command, option, here, run):
    arguments = {"fit": ["test.jsonl", "new"], "embed": ["test.jsonl", "new"]}
    done = run(command, *arguments.get(command, ["routed", "test.jsonl"]), "--label", option)
    assert (done.code, done.out) == (2, "")
    said = re.sub(r"[\s│]+", " ", done.err)
    assert f"Invalid value for --label: expected VALUE=first, VALUE=second or VALUE=tie, got {option!r}" in said
    assert not (here / "new").exists()


def test_two_meanings_of_one_label(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--label", "1=first", "--label", "1=tie")
    assert (done.code, done.out) == (2, "")
    assert "expected one meaning of '1', got two" in re.sub(r"[\s│]+", " ", done.err)


def test_label_options_for_a_file_without_labels(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--label", "1=first")
    assert (done.code, done.out) == (1, "")
    assert "test.jsonl: expected a column 'label' or 'preference'" in done.err


def test_a_column_that_is_not_there(here, run):
    done = run("evaluate", "routed", "test.jsonl", "--column", "chosen=best")
    assert done.code == 1
    assert "got 'best'; there are only 'prompt', 'chosen'" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.jsonl", "m"], "nowhere.jsonl: expected a file, got none: there is no such file"),
        (["fit", "data.xlsx", "m"], "data.xlsx: expected one of .jsonl"),
        (["fit", "empty.jsonl", "m"], "empty.jsonl: expected rows of comparisons, got an empty source"),
        (["fit", "train.jsonl", "m", "-k", "0"], "n_components: expected an integer of at least 1, got 0"),
        (["fit", "train.jsonl", "m", "--heads", "0"], "n_components: expected an integer of at least 1, got 0"),
        (["fit", "train.jsonl", "m", "-k", "1000"], "n_components=1000 rows, got n_samples=480"),
        (["fit", "train.jsonl", "m", "--alpha", "-1"], "alpha: expected"),
        (["fit", "train.jsonl", "m", "--restarts", "0"], "n_init: expected"),
        (["fit", "train.jsonl", "m", "--template", "{answer}"], "expected a template with {response}"),
        (["fit", "train.jsonl", "m", "--encoder", " "], "got an empty encoder name"),
        (
            ["fit", "train.jsonl", "train.jsonl", "-k", "1"],
            "MODEL: expected another file than the data, got train.jsonl, which would be replaced",
        ),
        (
            ["route", "heads", "labelled.jsonl", "--gate", "bogus"],
            "gate: expected one of 'linear', 'mlp', 'knn', 'cluster'",
        ),
        (["route", "heads", "labelled.jsonl", "--temperature", "0"], "temperature: expected"),
        (["route", "heads", "history.jsonl", "--history-decay", "2"], "history_decay: expected"),
        (
            ["score", "routed", "test.jsonl"],
            "line 1: expected 'response' or 'responses', got the columns 'prompt', 'chosen'",
        ),
        (["score", "routed", "empty.jsonl"], "empty.jsonl: expected at least one response, got none"),
        (["evaluate", "nowhere", "test.jsonl"], "nowhere: expected a saved model"),
        (["evaluate", "train.jsonl", "test.jsonl"], "train.jsonl: expected a saved model"),
        (["evaluate", "features", "test.jsonl"], "estimator without encoder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message, here, run):
    (here / "empty.jsonl").touch()
    (here / "data.xlsx").touch()
    if arguments[1] == "features":
        from micropref.persistence import save

        save(PreferenceModel.load("heads").mixture, here / "features")
    before = sorted(here.rglob("*"))
    done = run(*arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("micropref: error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'"),
        (["fit"], "Missing argument 'DATA'"),
        (["fit", "train.jsonl"], "Missing argument 'MODEL'"),
        (["fit", "train.jsonl", "m", "--components", "many"], "--components"),
        (["fit", "train.jsonl", "m", "--colour"], "No such option"),
    ],
)
def test_bad_usage(arguments, message, here, run):
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in re.sub(r"[\s│]+", " ", done.err)


def test_no_command_at_all_shows_the_help(run):
    done = run()
    assert done.code in (0, 2)
    assert "evaluate" in done.out + done.err


# ------------------------------------------------------------------------------------------------------- bad models


def test_a_model_cut_short_or_altered(here, run):
    (tensors,) = (here / "routed").glob("*.safetensors")
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-10])
    for command in ("evaluate", "route"):
        done = run(command, "routed", "test.jsonl")
        assert (done.code, done.out) == (1, "")
        assert (
            f"{tensors.name}: expected content that has its checksum, got other content: it was cut short or altered"
            in done.err
        )
    tensors.write_bytes(whole)
    description = here / "routed" / "model.json"
    description.write_text(description.read_text().replace('"temperature": 1.0', '"temperature": 2.0'))
    done = run("evaluate", "routed", "test.jsonl")
    assert (done.code, done.out) == (1, "")
    assert "model.json: expected content that has its checksum, got other content: it was altered" in done.err


@pytest.mark.parametrize("command", ["route", "score", "evaluate"])
def test_another_encoder(command, here, run):
    write(here / "r.jsonl", [{"response": "a"}])
    data = "r.jsonl" if command == "score" else "test.jsonl"
    done = run(command, "routed", data, "--encoder", "hashing")
    assert (done.code, done.out) == (1, "")
    assert re.search(
        r"expected the encoder of the fit, hashing\(.*n_features=256.* got the encoder .*n_features=768", done.err
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """A sentence-transformers model of word vectors that reads ten words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[UNK]", "the", "a", "you", "and", "every", "night", "it"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder") / "words"
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=6)], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.mark.slow
def test_an_encoder_that_moved(here, run, words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(words, here / "here")
    done = run("fit", "train.jsonl", "model", "-k", 2, "--encoder", "here", "--json")
    assert (done.code, done.err) == (0, "")
    assert "StaticEmbedding" in done.json["encoder"]
    before = run("evaluate", "model", "test.jsonl")
    assert before.code == 0
    shutil.move(here / "here", here / "there")
    done = run("evaluate", "model", "test.jsonl", "--encoder", "there")
    assert (done.code, done.out) == (0, before.out)


class ShortSighted(HashingEncoder):
    """Reads forty characters."""

    n_truncated_total_ = 0

    def encode(self, texts):
        self.n_truncated_total_ += sum(len(text) > 40 for text in texts)
        return super().encode([text[:40] for text in texts])


def test_truncated_texts_are_counted_on_standard_error(here, run, monkeypatch):
    monkeypatch.setattr("micropref.embed.encoders.HashingEncoder", ShortSighted)
    done = run("fit", "train.jsonl", "model", "-k", 1, "--json")
    assert done.json["n_truncated"] > 400
    assert re.fullmatch(
        r"micropref: warning: \d+ of \d+ distinct texts are longer than the encoder reads; .*\n", done.err
    )


# ---------------------------------------------------------------------------------------------- terminals and pipes


def test_a_process_of_its_own(here):
    done = start("evaluate", "routed", "test.jsonl", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b"")
    lines = out.decode().splitlines()
    assert len(lines) == 8
    assert all("history" in line and "–" in line for line in lines[6:7])
    done = start("fit", "nowhere.jsonl", "model", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out, err) == (
        1,
        b"",
        b"micropref: error: nowhere.jsonl: expected a file, got none: there is no such file\n",
    )


def test_a_long_path_is_not_broken_in_a_pipe(here, run):
    path = here / ("long name " * 12)
    done = run("route", "heads", "labelled.jsonl", "-o", path)
    assert f"saved to {path} (" in done.out
    done = run("evaluate", here / ("nowhere " * 20), "test.jsonl")
    assert done.err.count("\n") == 1


def test_names_of_files_are_printed_as_they_are(here, run):
    done = run("route", "heads", "labelled.jsonl", "-o", "[bold]:smile:")
    assert "saved to [bold]:smile: (" in done.out
    done = run("fit", "[red]:tea:.jsonl", "model")
    assert done.err == "micropref: error: [red]:tea:.jsonl: expected a file, got none: there is no such file\n"


def test_an_interrupt_ends_with_130(here):
    os.mkfifo(here / "pipe.jsonl")
    # Whoever runs the tests in the background ignores interrupts, and children would inherit that.
    process = start(
        *("fit", "pipe.jsonl", "model"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with open(here / "pipe.jsonl", "wb"):  # opens once the command has opened its end
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert not (here / "model").exists()


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_a_reader_that_goes_away_is_no_traceback(command, here):
    write(here / "r.jsonl", [{"prompt": "p", "context": "", "responses": [f"word {i} " * 40 for i in range(200)]}])
    data = "r.jsonl" if command == "score" else "test.jsonl"
    read, written = os.pipe()
    os.close(read)
    process = start(command, "routed", data, stdout=written, stderr=subprocess.PIPE)
    os.close(written)
    _, err = process.communicate(timeout=60)
    # The work is done, and who reads only its beginning has what they wanted.
    assert (process.returncode, err) == (0, b"")


def test_letters_that_a_pipe_cannot_carry(here, monkeypatch):
    write(here / "r.jsonl", [{"prompt": "p", "context": "", "response": "Thé 東京 😀"}])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONIOENCODING", "latin-1")
    done = start("score", "routed", "r.jsonl", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b"")
    assert json.loads(out)["response"] == "Thé 東京 😀"
    done = start("evaluate", "routed", "test.jsonl", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, b"")
    assert re.search(rb"0\.\d{4} \? 0\.\d{4}", out)


def test_a_terminal_is_told_what_is_going_on(here):
    import pty

    terminal, end = pty.openpty()
    process = start("evaluate", "routed", "test.jsonl", stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    out, _ = process.communicate(timeout=60)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    steps = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines()]
    assert steps == ["loading the model ...", "reading test.jsonl ...", "evaluating 240 comparisons ..."]
    assert process.returncode == 0
    assert b"..." not in out


def test_the_fingerprint_of_the_model_is_that_of_its_encoder(fitted):
    description = json.loads((fitted / "routed" / "model.json").read_text())
    assert description["encoder"]["fingerprint"].startswith(HashingEncoder(256).fingerprint)
    assert PairEncoder.from_config(description["encoder"]).encoder_.n_features == 256


def test_scoring_without_the_contexts_that_a_model_wants(here, run):
    write(here / "r.jsonl", [{"prompt": "p", "response": "a"}])
    done = run("score", "routed", "r.jsonl")
    assert done.code == 1
    assert "since this model was routed by contexts, got neither" in done.err


# ------------------------------------------------------------------------------------------------------------ plurals


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(0, "head", "0 heads"), (1, "head", "1 head"), (2, "head", "2 heads"), (1, "process", "1 process"),
     (3, "process", "3 processes"), (1200, "vote", "1200 votes")],
)  # fmt: skip
def test_nouns_agree_with_their_number(n, noun, text):
    assert counted(n, noun) == text


def test_one_of_each(here, run):
    rows = [{"prompt": "Tea?", "chosen": LONG, "rejected": SHORT, "user": "ann"}]
    for name, more in (("one.jsonl", {}), ("labelled.jsonl", {"context": "short"})):
        row = {**rows[0], **more}
        if more:
            del row["user"]
        Path(name).write_text(json.dumps(row) + "\n")
    out = run("fit", "one.jsonl", "m", "-k", "1").out
    assert out.startswith("1 comparison, 1 annotator, 0 texts longer than the encoder reads\n1 head, ")
    assert run("route", "m", "one.jsonl").out.startswith("0 labelled contexts, 1 vote; 1 user known\n")
    assert run("route", "heads", "labelled.jsonl", "-o", "r").out.startswith(
        "1 labelled context, 0 votes; 0 users known\n"
    )
    assert run("evaluate", "m", "one.jsonl").out.split("\n")[0].strip() == "1 comparison"
    Path("responses.jsonl").write_text(json.dumps({"prompt": "p", "response": "Tea."}))
    assert run("score", "m", "responses.jsonl", "-o", "scores").err == "1 response scored, written to scores\n"
