"""What a person sees on a terminal of 80 columns: whole numbers, plain nouns, next steps, and what a model is."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table
from test_cli import fitted, here, run, world  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from micropref import MixtureBradleyTerry, __version__, make_preferences
from micropref.baselines import UserRewards
from micropref.cli import app, main
from micropref.cli._app import print_table
from micropref.cli._demo import _table
from micropref.datasets import read_preferences
from micropref.demo import DemoResult, DemoRow
from micropref.persistence import save
from micropref.plotting import ErrorDecompositionDisplay
from micropref.reward import PreferenceModel
from micropref.theory import sweep_error

NUMBER = r"(?<![\w.])-?\d+\.\d{3,4}(?![\w.])"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of so many columns; returns what was written there, without its colours."""

    def opened(columns=80):
        stream = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", stream)
        return lambda: re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())

    return opened


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert not left.value.code


def assert_fits(text, columns):
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text


# ------------------------------------------------------------------------------------------------------ whole numbers


def demo_result():
    names = [("single Bradley-Terry", "nothing"), ("best head per taste", "annotators, test labels")]
    names += [(f"routed, {labels} labels per taste", "annotators, wish, votes") for labels in (5, 10, 50)]
    rng = np.random.default_rng(0)
    rows = [DemoRow(method, knows, *rng.uniform(0, 1, 6)) for method, knows in names]
    return DemoResult(rows, 3200, 400, 1200, 100, 0.001, 0.001, 1.0)


@pytest.mark.parametrize("columns", [64, 80, 100, 113, 160])
def test_the_table_of_the_demonstration_keeps_its_numbers(terminal, columns):
    result, shown = demo_result(), terminal(columns)
    print_table(_table(result), _table(result, stacked=True))
    text = shown()
    assert_fits(text, columns)
    numbers = {f"{value:.3f}" for row in result.rows for value in vars(row).values() if isinstance(value, float)}
    assert set(re.findall(NUMBER, text)) == numbers
    for row in result.rows:
        assert row.method in text
        assert row.knows in text


@pytest.mark.parametrize("sweep", ["diversity", "n_groups", "informativeness"])
def test_a_sweep_keeps_its_numbers_on_80_columns(terminal, sweep):
    shown = terminal()
    command("theory", "--sweep", sweep)
    assert_fits(shown(), 80)
    exact = sweep_error(sweep)
    numbers = [value for found in (exact.terms, exact.bounds) for one in found for value in vars(one).values()]
    rhos = {f"{bounds.diversity:.4f}" for bounds in exact.bounds}
    assert {f"{value:.4f}" for value in numbers} - rhos <= set(re.findall(NUMBER, shown()))
    for name in ("label noise", "hidden group", "misspecification", "error", "pairwise", "averaged", "Theorem 3.2"):
        assert name in shown()


@pytest.mark.parametrize("columns", [10, 30, 60, 90, 200])
def test_a_table_that_does_not_fit_loses_words_per_line_but_no_digit(terminal, columns):
    """Numbers stay in one piece even where the table must then be wider than the terminal."""
    table = Table()
    for name in ("what it is", "a long heading", "95 % interval"):
        table.add_column(name, justify="left" if name == "what it is" else "right", no_wrap=True)
    table.add_row("some words that can go on in the next line", "123456.7891", "0.1234 – 0.5678")
    shown = terminal(columns)
    print_table(table)
    assert "123456.7891" in shown()
    assert "0.1234 – 0.5678" in shown()
    if columns >= 60:
        assert_fits(shown(), columns)


@pytest.mark.parametrize(
    ("columns", "width"), [("80", 80), ("60", 60), (None, 160), ("", 160), ("0", 160), ("-5", 160), ("wide", 160)]
)
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch, capsys, columns, width):
    """Without a width of its own it takes 160; no line ends with blanks."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in ("one", "a longer name"):
        table.add_row(name, " ".join(["word"] * 100))
    table.add_row("short", "")
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert width - 10 < max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert " ".join(lines).split().count("word") == 200


def test_evaluations_and_estimates_on_80_columns(here, run, terminal):  # noqa: F811
    rows = run("evaluate", "routed", "test.jsonl", "--by", "context", "--json").json["rows"]
    estimate = run("theory", "heads", "train.jsonl", "--json").json
    shown = terminal()
    command("evaluate", "routed", "test.jsonl", "--by", "context")
    assert_fits(shown(), 80)
    for row in rows:
        for name in ("accuracy", "accuracy_low", "accuracy_high", "log_loss", "log_loss_low", "log_loss_high"):
            assert row[name] is None or f"{row[name]:.4f}" in shown()
    shown = terminal()
    command("theory", "heads", "train.jsonl")
    assert_fits(shown(), 80)
    for name in ("label_noise", "group_information", "misspecification", "cross_entropy"):
        low, high = estimate[f"{name}_interval"]
        assert f"{estimate[name]:.4f}" in shown()
        assert f"{low:.4f} – {high:.4f}" in shown()


def test_lines_are_broken_between_words_on_a_terminal_and_not_in_a_pipe(here, run, terminal):  # noqa: F811
    whole = run("theory", "heads", "train.jsonl").out
    advice = next(line for line in whole.splitlines() if line.startswith("Knowing which group"))
    assert len(advice) > 80
    shown = terminal()
    command("theory", "heads", "train.jsonl")
    assert advice in " ".join(line.strip() for line in shown().splitlines())


# ------------------------------------------------------------------------------------------------------------- help

COMMANDS = sorted(one.name or one.callback.__name__ for one in app.registered_commands)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_flags_show_no_value(name):
    text = CliRunner().invoke(app, [*([name] if name else []), "--help"], env={"COLUMNS": "80"}).output
    assert "--help" in text
    assert "bool" not in text.lower()
    assert_fits(text.replace("\n\n", "\n"), 80)


def test_negative_forms_are_named_in_the_text_and_are_heard(here, run):  # noqa: F811
    text = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"}).output
    assert text.count("--no-interactions") == 1
    done = run("fit", "labelled.jsonl", "new", "-k", "1", "--no-interactions", "--json")
    assert not done.json["interactions"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell, monkeypatch):
    words = "micropref the"
    asked = {"COMP_WORDS": words, "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": words}
    asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    asked["_MICROPREF_COMPLETE"] = f"complete_{shell}"
    found = CliRunner().invoke(app, [], env=asked, prog_name="micropref")
    assert "theory" in found.output
    assert "evaluate" not in found.output
    script = CliRunner().invoke(app, [], env={"_MICROPREF_COMPLETE": f"source_{shell}"}, prog_name="micropref")
    assert "_MICROPREF_COMPLETE" in script.output


# --------------------------------------------------------------------------------------------------- nouns, next steps


def test_one_of_each_is_singular(tmp_path, capsys):
    """One text, one comparison, one annotator, one head: no command says "1 texts"."""
    data, more = tmp_path / "one.jsonl", tmp_path / "more.jsonl"
    for path, chosen in ((data, "Tea?"), (more, "Coffee?")):
        row = {"prompt": "Tea?", "chosen": chosen, "rejected": "No.", "user": "ann"}
        path.write_text(json.dumps(row) + "\n")
    store, model = tmp_path / "store", tmp_path / "model"
    command("embed", data, store, "--dry-run")
    command("embed", data, store)
    command("embed", more, store)
    command("fit", data, model, "-k", "1", "--store", store)
    command("route", model, data)
    command("info", model)
    out = capsys.readouterr().out
    assert "1 text embedded" in out
    assert "1 head" in out
    assert not re.findall(r"(?<![\w.])1 (?!of)[a-z]+( [a-z]+)?(?<!s)s\b", out.replace("1 times", ""))


def test_embed_says_the_command_that_fits_with_its_store(here, run, capsys):  # noqa: F811
    """The very words can be given to the shell: same columns, template and store, so that nothing is embedded again."""
    table = read_preferences("test.jsonl")
    rows = [
        {"task": prompt, "better": chosen, "rejected": rejected}
        for prompt, chosen, rejected in zip(table.prompt, table.chosen, table.rejected, strict=True)
    ]
    Path("my data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = run(
        *("embed", "my data.jsonl", "store", "--template", "{prompt}: {response}"),
        *("--column", "prompt=task", "--column", "chosen=better"),
    ).out
    (line,) = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(line)
    assert program == "micropref"
    done = run(*["new" if word == "MODEL" else word for word in words], "-k", "1", "--json")
    assert done.code == 0
    assert done.json["n_comparisons"] == len(rows)
    assert run("embed", *words[1:2], "store", *words[5:], "--json").json["n_new"] == 0


def test_fit_says_what_comes_next(here, run):  # noqa: F811
    out = run("fit", "train.jsonl", "my model", "-k", "1").out
    assert "next: micropref route 'my model' VOTES" in out
    assert "micropref score 'my model' RESPONSES" in out
    assert "next" not in run("fit", "train.jsonl", "other", "-k", "1", "--json").out


# --------------------------------------------------------------------------------------------------------------- info


def test_info_says_what_a_model_is(here, run):  # noqa: F811
    found = run("info", "heads", "--json").json
    model = PreferenceModel.load("heads")
    assert found["model"] == "heads"
    assert found["estimator"] == "MixtureBradleyTerry"
    assert found["n_components"] == len(model.mixture.coef_)
    assert found["weights"] == pytest.approx(model.mixture.weights_.tolist())
    assert found["alpha"] == model.mixture.alpha_
    assert found["encoder"]["fingerprint"] == model.encoder.encoder_.fingerprint
    assert found["encoder"]["interactions"] == (model.encoder.interactions_ is not None)
    assert found["micropref"] == __version__
    assert found["sha256"] == hashlib.sha256(Path("heads/model.json").read_bytes()).hexdigest()
    files = [Path("heads/model.json"), *Path("heads").glob("*.safetensors")]
    assert found["n_bytes"] == sum(file.stat().st_size for file in files)
    assert found["router"] is None
    assert found["n_users"] is None
    shown = run("info", "heads").out
    for value in (str(found["n_components"]), f"{found['weights'][0]:.2f}", __version__, found["sha256"], "hashing"):
        assert value in shown


def test_info_counts_users_and_names_the_gate(here, run):  # noqa: F811
    found = run("info", "routed", "--json").json
    router = PreferenceModel.load("routed").router
    assert found["n_users"] == len(router.history_) > 0
    assert found["router"]["history_temperature"] == router.history_temperature_
    assert f"users known          {found['n_users']}" in run("info", "routed").out


def test_info_needs_no_encoder(here, run, monkeypatch):  # noqa: F811
    def refuse(*arguments, **settings):
        raise AssertionError("the encoder was restored")

    monkeypatch.setattr("micropref.embed.pair_encoder.PairEncoder.from_config", refuse)
    assert run("info", "heads", "--json").json["n_components"] >= 1


@pytest.mark.parametrize("kind", ["mixture", "rival"])
def test_info_of_an_estimator_without_texts(kind, tmp_path, capsys):
    data = make_preferences(200, n_features=3, n_components=2, n_context_features=0, pairs_per_group=5, random_state=0)
    estimator = MixtureBradleyTerry(2, random_state=0) if kind == "mixture" else UserRewards()
    save(estimator.fit(data.X, data.y, groups=data.groups), tmp_path / "m")
    command("info", tmp_path / "m", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["estimator"] == type(estimator).__name__
    assert found["encoder"] is None
    assert found["n_features"] == 3
    assert found["n_users"] == (None if kind == "mixture" else len(set(data.groups)))
    command("info", tmp_path / "m")
    assert type(estimator).__name__ in capsys.readouterr().out


def test_info_of_no_model_and_of_a_damaged_one(here, run):  # noqa: F811
    assert "expected a saved model" in run("info", "nothing").err
    text = Path("heads/model.json").read_text()
    Path("heads/model.json").write_text(text.replace("hashing", "hashinG", 1))
    assert "altered" in run("info", "heads").err


# ------------------------------------------------------------------------------------------------------------- theory


def test_theory_reads_vectors_from_a_store(here, run, monkeypatch):  # noqa: F811
    run("embed", "train.jsonl", "store")
    run("fit", "train.jsonl", "kept", "-k", "2", "--store", "store")
    whole = run("theory", "kept", "train.jsonl", "--store", "store", "--json").json

    def refuse(*arguments):
        raise AssertionError("a text was embedded")

    monkeypatch.setattr("micropref.embed.hashing.HashingEncoder.encode", refuse)
    assert run("theory", "kept", "train.jsonl", "--store", "store", "--json").json == whole


def test_the_small_terms_have_a_panel_of_their_own():
    """Without label noise, so that the largest bar fills the panel; each number is written at its bar."""
    from matplotlib.figure import Figure

    sweep = sweep_error("diversity")
    ax = Figure().add_subplot()
    ErrorDecompositionDisplay.from_sweep(sweep).plot_zoomed(ax)
    heights = [bar.get_height() for bars in ax.containers for bar in bars]
    terms = [*(t.group_information for t in sweep.terms), *(t.misspecification for t in sweep.terms)]
    assert heights == pytest.approx(terms)
    assert ax.get_ylim()[1] < 1.5 * max(terms)
    assert [text.get_text() for text in ax.texts] == [f"{value:.4f}" for value in terms]


def test_the_figure_of_the_command_has_both_panels(tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(
        "micropref.plotting.ErrorDecompositionDisplay.plot_zoomed", lambda self, ax: shown.append(ax) or self
    )
    command("theory", "-o", tmp_path / "terms.png")
    assert len(shown[0].figure.axes) == 2
    assert (tmp_path / "terms.png").stat().st_size > 5000
