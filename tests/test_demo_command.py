"""The demonstration: what its table says, and the figure beside it."""

from __future__ import annotations

import io
import json
import sys
from copy import deepcopy

import pytest

from micropref import demo
from micropref.cli import main
from micropref.demo import DemoResult, DemoRow, ReaderDemo, plot_demo, run_demo

METHODS = [
    "single Bradley-Terry",
    "static mixture",
    "best head per taste",
    "routed, 5 labels per taste",
    "routed, 10 labels per taste",
    "routed, 50 labels per taste",
    "user history, 10 votes",
    "routed and history",
    "supervised oracle",
    "ceiling",
]


@pytest.fixture(scope="module")
def result() -> DemoResult:
    return run_demo()


@pytest.fixture
def command(result, monkeypatch, tmp_path, capsys):
    """The command with the result above, in an empty folder."""
    seeds = []

    def run(seed, report):
        seeds.append(seed)
        report("working")
        return result

    monkeypatch.setattr(demo, "run_demo", run)
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main(["demo", *arguments])
        assert not leaving.value.code
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    command.seeds = seeds
    return command


def test_the_stages_stand_in_the_order_that_the_theory_predicts(result):
    rows = {row.method: row for row in result.rows}
    assert list(rows) == METHODS
    accuracy = {method: row.accuracy for method, row in rows.items()}
    log_loss = {method: row.log_loss for method, row in rows.items()}
    single, static, best, five, ten, fifty, history, both, oracle, ceiling = METHODS

    # One reward for everybody is a coin here, and more of them without knowing who asks hardly better.
    assert abs(accuracy[single] - 0.5) < 0.05
    assert accuracy[single] < accuracy[static] + 0.1 < accuracy[five]
    assert accuracy[five] <= accuracy[ten] <= accuracy[fifty] < accuracy[oracle] + 0.02
    assert abs(accuracy[best] - accuracy[oracle]) < 0.03
    assert accuracy[history] > 0.75
    assert accuracy[both] > accuracy[fifty]
    assert all(accuracy[method] < rows[ceiling].accuracy_high for method in METHODS[:-1])
    assert accuracy[ceiling] == max(accuracy.values())

    assert log_loss[ceiling] == min(log_loss.values())
    assert log_loss[oracle] < log_loss[fifty] < log_loss[five] < log_loss[static]
    for row in result.rows:
        assert row.accuracy_low < row.accuracy < row.accuracy_high
        assert row.log_loss_low < row.log_loss < row.log_loss_high
        assert row.accuracy_high - row.accuracy_low < 0.1
    assert (result.n_train, result.n_annotators, result.n_test, result.n_users) == (3200, 400, 1200, 100)


def test_the_same_seed_gives_the_same_table(monkeypatch):
    load_demo, seeds = demo.load_demo, []

    def small_world(seed):
        seeds.append(seed)
        return load_demo(n_annotators=40, seed=seed)

    monkeypatch.setattr(demo, "load_demo", small_world)
    steps: list[str] = []
    assert run_demo(3, steps.append) == run_demo(3)
    assert seeds == [3, 3]
    assert len(steps) == len(set(steps)) > 4


def test_the_table_is_whole_in_a_pipe(result, command):
    out = command()
    for row in result.rows:
        (line,) = [line for line in out.splitlines() if line.startswith(f"│ {row.method} ")]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells == [
            row.method,
            row.knows,
            f"{row.accuracy:.3f}",
            f"{row.accuracy_low:.3f} – {row.accuracy_high:.3f}",
            f"{row.log_loss:.3f}",
            f"{row.log_loss_low:.3f} – {row.log_loss_high:.3f}",
        ]
    assert "1200 comparisons by 100 new users" in out
    assert "3200 comparisons by 400 annotators, without knowing the tastes." in out
    assert "Figure: micropref-demo.png\n" in out


def test_json(result, command, tmp_path):
    found = json.loads(command("--json", "--seed", "5"))
    assert command.seeds == [5]
    assert found["rows"] == [vars(row) for row in result.rows]
    assert {name: found[name] for name in ("n_train", "n_annotators", "n_test", "n_users")} == {
        "n_train": 3200,
        "n_annotators": 400,
        "n_test": 1200,
        "n_users": 100,
    }
    assert found["figure"] == "micropref-demo.png"
    assert found["seconds"] >= 0
    assert (tmp_path / "micropref-demo.png").exists()


def test_the_figure(result, tmp_path):
    path = plot_demo(result, tmp_path / "made" / "figure.png")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) > 20_000
    width, height = (int.from_bytes(data[start : start + 4]) for start in (16, 20))
    assert (width, height) == (1080, 630)


def test_the_figure_shows_every_row_where_it_is(result, tmp_path, monkeypatch):
    """Drawn without the global state of pyplot, which would open windows and leak figures."""
    import matplotlib.figure

    drawn = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, *args, **kwargs: drawn.append(self))
    plot_demo(result, tmp_path / "figure.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == METHODS
    places = dict(zip(METHODS, axes.get_yticks(), strict=True))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    for row, point in zip(result.rows, points, strict=True):
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (row.accuracy, places[row.method])
    left, right = axes.get_xlim()
    assert all(left < row.accuracy_low and row.accuracy_high < right for row in result.rows)


def test_the_figure_goes_where_it_is_told(command, tmp_path):
    assert "Figure: pictures/of it/micropref-demo.png\n" in command("--output", "pictures/of it")
    assert (tmp_path / "pictures" / "of it" / "micropref-demo.png").exists()


def test_a_figure_that_cannot_be_written_costs_nothing_else(command, tmp_path):
    (tmp_path / "file").touch()
    out = command("-o", "file")
    assert "│ ceiling " in out
    assert "No figure: [Errno" in out
    assert json.loads(command("-o", "file", "--json"))["figure"] is None


def test_without_matplotlib(command, result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = command()
    assert "No figure: pip install 'micropref[plot]' draws one.\n" in out
    assert "│ ceiling " in out
    assert json.loads(command("--json"))["figure"] is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImportError, match=r"figure of the demonstration needs matplotlib.* 'micropref\[plot\]'"):
        plot_demo(result, tmp_path / "figure.png")


def test_rows_are_plain_numbers(result):
    """json.dumps refuses NumPy's single precision."""
    for row in result.rows:
        assert isinstance(row, DemoRow)
        assert {type(value) for value in vars(row).values()} == {str, float}


# ------------------------------------------------------------------------------------------------------- the reader


@pytest.fixture(scope="module")
def reader() -> ReaderDemo:
    return ReaderDemo()


@pytest.mark.parametrize(
    ("taste", "likes", "does_without"),
    [
        ("brief", ["short answers"], ["studies and numbers", "jokes", "warm words"]),
        ("warm", ["warm words", "explanations"], ["studies and numbers"]),
        ("evidence", ["studies and numbers", "explanations", "caveats"], ["jokes", "warm words"]),
        ("playful", ["jokes"], ["caveats", "studies and numbers"]),
    ],
)
def test_five_answers_find_the_taste_of_the_reader(taste, likes, does_without, reader):
    demonstration, world = deepcopy(reader), demo.load_demo()
    column = world.taste_names.index(taste)
    for _ in range(5):
        question = demonstration.dialogue.next()
        first, second = world.rewards(question.responses)[:, column]
        demonstration.dialogue.reply(question, "first" if first > second else "second")
    tastes = demonstration.tastes()
    assert next(iter(tastes)) == taste
    assert tastes[taste] > 0.9
    assert sum(tastes.values()) == pytest.approx(1)
    assert demonstration.likings() == (likes, does_without)
    ranking = demonstration.ranking()
    assert [row.for_reader for row in ranking] == [1, 2, 3, 4, 5]
    assert sorted(row.for_all for row in ranking) == [1, 2, 3, 4, 5]
    truth = world.rewards([row.answer for row in ranking])[:, column]
    assert truth.argmax() == 0


def test_the_question_that_is_ranked_was_never_learned_or_asked(reader):
    world = demo.load_demo()
    assert reader.question not in {*world.train.prompt, *reader.dialogue.table.prompt}


@pytest.fixture
def ask_me(reader, monkeypatch, tmp_path, capsys):
    """The command with the fit above, in an empty folder, and its answers in a pipe."""
    monkeypatch.setattr(demo, "ReaderDemo", lambda seed, report: deepcopy(reader))
    monkeypatch.chdir(tmp_path)

    def ask_me(answers, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        with pytest.raises(SystemExit) as leaving:
            main(["demo", "--me", *options])
        assert not leaving.value.code
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr()

    return ask_me


def test_the_dialogue_with_the_reader(ask_me):
    out = ask_me("1\n2\n2\nn\ns\n").out
    assert out.count("of at most 5") == 5
    assert "4 answers learned, 1 skipped." in out
    assert out.count(" %\n") == 4
    assert "│ you │ all │ answer" in out.replace("┃", "│")
    assert max(map(len, out.splitlines())) <= 80
    assert "Your taste: " in out


def test_a_reader_who_leaves_is_told_no_taste(ask_me):
    out = ask_me("s\nq\n").out
    assert "0 answers learned, 1 skipped." in out
    assert "Your taste" not in out


def test_the_answers_of_the_reader_as_json(ask_me):
    captured = ask_me("1\n2\n1\n1\n2\n", "--json")
    found = json.loads(captured.out)
    assert found["stopped"] == "questions"
    assert len(found["answers"]) == 5
    assert sum(found["tastes"].values()) == pytest.approx(1, abs=1e-5)
    assert [row["for_reader"] for row in found["ranking"]] == [1, 2, 3, 4, 5]
    assert "Question 5 of at most 5" in captured.err
