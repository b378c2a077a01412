"""`micropref ask`: what it asks, learns, shows and saves, from a terminal and from a pipe."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

import micropref
from micropref import HierarchicalBradleyTerry, PairEncoder, PreferenceModel, load_demo
from micropref._reward.dialogue import Dialogue
from micropref._support.files import briefly_locked
from micropref.cli import main
from micropref.embed import HashingEncoder
from micropref.router import ContextRouter

MAIN = [sys.executable, "-c", "from micropref.cli import main; main()"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(micropref.__file__).parents[1]),
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONIOENCODING": "utf-8",
    "TERM": "xterm",
}
ENVIRONMENT.pop("COLUMNS", None)
# Long enough for a machine that is busy; what is tested is not how long it takes.
PATIENCE = 120


@pytest.fixture(scope="module")
def world():
    return load_demo(n_annotators=60)


@pytest.fixture(scope="module")
def fitted(world, tmp_path_factory) -> Path:
    """A model of heads in `model`, one that contexts route in `routed`, and candidates without labels."""
    folder = tmp_path_factory.mktemp("ask")
    model = PreferenceModel.fit(world.train, encoder=HashingEncoder(256), n_components=4, n_init=2, random_state=0)
    model.save(folder / "model")
    model.route(world.labelled).save(folder / "routed")
    rows = [
        {"prompt": p, "response_a": a, "response_b": b}
        for p, a, b in zip(world.labelled.prompt, world.labelled.chosen, world.labelled.rejected, strict=True)
    ]
    write(folder / "candidates.jsonl", rows[:60])
    return folder


@pytest.fixture
def here(fitted, tmp_path, monkeypatch) -> Path:
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Done:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def ask(capsys, monkeypatch):
    """Run the command in this process, with lines of answers in a pipe."""

    def ask(*arguments, answers="") -> Done:
        monkeypatch.setattr(sys, "stdin", answers if hasattr(answers, "readline") else io.StringIO(answers))
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main(["ask", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(leaving.value.code or 0, captured.out, captured.err)

    return ask


def knows(folder, user) -> bool:
    router = PreferenceModel.load(folder).router
    return router is not None and user in router.history_


def log_odds(folder, user):
    """Of the candidates, for a user of a saved model."""
    rows = [json.loads(line) for line in Path("candidates.jsonl").read_text().splitlines()]
    table = {
        "prompt": [row["prompt"] for row in rows],
        "chosen": [row["response_a"] for row in rows],
        "rejected": [row["response_b"] for row in rows],
        "group": [user] * len(rows),
    }
    return PreferenceModel.load(folder).log_odds(table)


def vote(answer: dict) -> list[dict]:
    """The rows that an answer of the JSON document stands for, in a layout of any reader."""
    row = json.loads(Path("candidates.jsonl").read_text().splitlines()[answer["row"]])
    label = {"first": 1, "second": 0, "neither": "tie"}[answer["answer"]]
    return [{**row, "label": label, "user": "ann"}]


# ------------------------------------------------------------------------------------------------------------ answers


def test_answers_from_a_pipe_are_learned_as_votes(here, ask):
    done = ask("model", "candidates.jsonl", "--user", "ann", "--json", answers="1\n2\nn\n1\n")
    assert (done.code, done.json["stopped"], done.json["n_learned"], done.json["n_skipped"]) == (
        0,
        "end_of_input",
        4,
        0,
    )
    assert done.json["model"] == "model"
    assert [answer["answer"] for answer in done.json["answers"]].count("neither") == 1
    model = PreferenceModel.load(here.parent / here.name / "model")
    expected = PreferenceModel(model.encoder, model.mixture)
    for answer in done.json["answers"]:
        expected.route(vote(answer))
    expected.save("expected")
    np.testing.assert_allclose(log_odds("model", "ann"), log_odds("expected", "ann"), rtol=1e-12)
    assert np.abs(log_odds("model", "ann") - log_odds("model", "bob")).max() > 0.5


def test_neither_is_two_votes_of_half_the_weight(world, fitted):
    dialogue = Dialogue(PreferenceModel.load(fitted / "model"), world.labelled[:20], "ann")
    question = dialogue.next()
    dialogue.reply(question, "neither")
    votes = dialogue.votes()
    assert votes.weight.tolist() == [0.5, 0.5]
    assert votes.chosen == votes.rejected[::-1] == list(question.responses)


def test_what_is_skipped_teaches_nothing_and_is_not_asked_again(here, ask):
    rows = [json.loads(line) for line in Path("candidates.jsonl").read_text().splitlines()][:3]
    # The same pairs again, the other way round.
    swapped = [{**row, "response_a": row["response_b"], "response_b": row["response_a"]} for row in rows]
    write(here / "six.jsonl", rows + swapped)
    before = (here / "model" / "model.json").read_bytes()
    done = ask("model", "six.jsonl", "--user", "ann", "--json", "--min-information", 0, answers="s\n" * 9)
    assert (done.json["stopped"], done.json["n_learned"], done.json["n_skipped"]) == ("no_question_left", 0, 3)
    assert len({answer["row"] % 3 for answer in done.json["answers"]}) == 3
    assert (done.json["model"], done.json["certainty"]) == (None, done.json["certainty_before"])
    assert (here / "model" / "model.json").read_bytes() == before


def test_what_is_expected_is_of_the_responses_as_they_are_shown(fitted, world):
    model = PreferenceModel.load(fitted / "model")
    dialogue, swapped = Dialogue(model, world.labelled[:12], "ann"), set()
    for _ in range(8):
        question = dialogue.next()
        swapped.add(question.is_swapped)
        router = dialogue._router()
        odds = router.decision_function(dialogue._X[[question.row]], groups=["ann"])[0]
        table = dialogue.table
        order = table.chosen[question.row], table.rejected[question.row]
        assert question.responses == (order[::-1] if question.is_swapped else order)
        expected = 1 / (1 + np.exp(odds if question.is_swapped else -odds))
        assert question.probability == pytest.approx(expected, rel=1e-6)
        dialogue.reply(question, "first")
    assert swapped == {True, False}


def test_a_pair_is_not_asked_twice_where_vectors_depend_on_the_batch(fitted, world, monkeypatch):
    """As those of neural encoders do, in their last digits."""
    encode = PairEncoder.encode_pairs

    def inexact(self, X, parts=None):
        rows = encode(self, X, parts)
        return rows * (1 + 1e-6 * len(rows))

    monkeypatch.setattr(PairEncoder, "encode_pairs", inexact)
    dialogue = Dialogue(PreferenceModel.load(fitted / "model"), world.labelled[:6], "ann")
    asked = []
    while (question := dialogue.next()) is not None:
        asked.append(question.row)
        dialogue.reply(question, "first" if len(asked) % 2 else "neither")
    assert sorted(asked) == list(range(6))


def test_what_was_answered_is_not_asked_again_in_the_next_dialogue(here, ask):
    rows = [json.loads(line) for line in Path("candidates.jsonl").read_text().splitlines()][:3]
    write(here / "three.jsonl", rows)
    options = ["--user", "ann", "--json", "--min-information", 0]
    first = ask("model", "three.jsonl", *options, answers="1\n2\n").json["answers"]
    second = ask("model", "three.jsonl", *options, answers="1\n2\n").json
    assert (second["stopped"], second["n_learned"], second["next_information"]) == ("no_question_left", 1, None)
    assert {answer["row"] for answer in first + second["answers"]} == {0, 1, 2}


def test_lines_that_are_no_answers_are_asked_for_again(here, ask):
    done = ask("model", "candidates.jsonl", "--user", "ann", answers="\n3\n12\nyes\x1b[31m\n 2 \nQUIT\n")
    assert done.out.count("expected 1, 2, n, s or q, got ") == 4
    assert "\x1b" not in done.out
    assert "1 answer learned, saved to model" in done.out
    assert "Question 2 of at most 10" in done.out
    assert "Stopped." in done.out


@pytest.mark.parametrize(
    ("options", "answers", "stopped"),
    [
        ([], "q\n", "quit"),
        ([], "", "end_of_input"),
        (["--questions", 1], "s\n1\n", "questions"),
        (["--min-information", 0.7], "1\n", "information"),  # no answer says more than ln 2
    ],
)
def test_nothing_learned_changes_nothing(options, answers, stopped, here, ask):
    before = {path: path.stat().st_mtime_ns for path in (here / "model").iterdir()}
    done = ask("model", "candidates.jsonl", "--user", "ann", "--json", *options, answers=answers)
    assert (done.code, done.json["stopped"], done.json["model"]) == (0, stopped, None)
    assert {path: path.stat().st_mtime_ns for path in (here / "model").iterdir()} == before
    ask("model", "candidates.jsonl", "--user", "ann", "-o", "copy", *options, answers=answers)
    np.testing.assert_array_equal(log_odds("copy", "ann"), log_odds("model", "ann"))


def test_it_stops_where_the_next_answer_would_say_too_little(here, ask):
    options = ["--user", "ann", "--json", "--questions", 60]
    done = ask("model", "candidates.jsonl", *options, "--min-information", 0.2, answers="n\n" * 99)
    assert done.json["stopped"] == "information"
    assert done.json["next_information"] < 0.2 <= min(one["information"] for one in done.json["answers"])


def test_one_reward_for_all_users_leaves_nothing_to_ask(world, here, ask):
    PreferenceModel.fit(world.train, encoder=HashingEncoder(64), users="one").save("one")
    done = ask("one", "candidates.jsonl", "--user", "ann", answers="1\n")
    assert "The next answer would tell 0.000 nats about the user, less than 0.01." in done.out
    assert "0 answers learned, the model is unchanged" in done.out


# ------------------------------------------------------------------------------------------------------ order, context


def test_the_order_is_drawn_and_labels_are_not_read(here, ask, world):
    """A user who always prefers the shorter response gives the same answers, whichever is shown first."""
    found = []
    world.labelled[:60].to_jsonl("labelled.jsonl")
    for source, *options in (["labelled.jsonl", "--in-order"], ["candidates.jsonl", "--seed", "1"]):
        answers = Reader(source, options, prefers=lambda texts: min(texts, key=len))
        done = ask("model", source, "--user", "ann", "--json", "-o", source[:4], *options, answers=answers)
        found.append([(one["row"], one["answer"]) for one in done.json["answers"]])
        shown = {one["shown_first"] for one in done.json["answers"]}
        assert shown == ({"first"} if options == ["--in-order"] else {"first", "second"})
    assert found[0] == found[1]
    np.testing.assert_allclose(log_odds("labe", "ann"), log_odds("cand", "ann"), rtol=1e-9)


class Reader:
    """A user who reads standard error, where the questions are."""

    def __init__(self, source, options, prefers):
        self._prefers = prefers
        table = [json.loads(line) for line in Path(source).read_text().splitlines()]
        first = [row.get("response_a", row.get("chosen")) for row in table]
        second = [row.get("response_b", row.get("rejected")) for row in table]
        self._texts = list(zip(first, second, strict=True))
        model = PreferenceModel.load("model")
        seed = int(options[1]) if "--seed" in options else 0
        self._twin = Dialogue(model, source, "ann", in_order="--in-order" in options, random_state=seed)

    def isatty(self):
        return False

    def readline(self):
        question = self._twin.next()
        answer = "first" if self._prefers(question.responses) == question.responses[0] else "second"
        self._twin.reply(question, answer)
        return "1\n" if answer == "first" else "2\n"


def test_contexts_go_with_the_votes(fitted, world):
    model = PreferenceModel.load(fitted / "routed")
    own = Dialogue(model, world.labelled[:30], "ann")
    own.reply(own.next(), "first")
    row = own.replies[0].question.row
    assert own.votes().context == [world.labelled.context[row]] == [own.replies[0].question.context]
    given = Dialogue(model, world.labelled[:30], "ann", context="Show me the evidence.")
    given.reply(given.next(), "neither")
    assert given.votes().context == ["Show me the evidence."] * 2
    assert own.next().information != given.next().information


def test_a_stated_context_changes_what_is_expected(here, ask):
    certain = [
        ask("routed", "candidates.jsonl", "--user", "ann", "--json", *options).json["certainty"]
        for options in ([], ["--context", "Just the short answer please, no explanations."])
    ]
    assert certain[1] > certain[0] + 0.05


def test_a_known_user_is_greeted_as_one(here, ask):
    new = ask("model", "candidates.jsonl", "--user", " 7", "-o", "new", answers="1\n1\n")
    assert " 7 is new to the model; 60 comparisons to choose from." in new.out
    # An id in digits is the integer, as in files.
    assert "7 is new" in ask("model", "candidates.jsonl", "--user", "7", "-o", "model", answers="1\n1\n").out
    known = ask("model", "candidates.jsonl", "--user", "7", "--json")
    assert known.json["user"] == 7
    assert "7 is known to the model" in known.err
    assert known.json["certainty_before"] > 0.6
    assert knows("model", 7)


# --------------------------------------------------------------------------------------------------------- certainty


def test_a_user_who_contradicts_themself_is_not_locked_in(fitted, world):
    """Answers after one taste, then twice as many after another."""
    dialogue = Dialogue(PreferenceModel.load(fitted / "model"), world.labelled, "ann")
    certainty, likes = [dialogue.certainty()], []
    for taste, n in (("brief", 4), ("warm", 8)):
        column = world.taste_names.index(taste)
        for _ in range(n):
            question = dialogue.next()
            first, second = world.rewards(question.responses)[:, column]
            dialogue.reply(question, "first" if first > second else "second")
            certainty.append(dialogue.certainty())
            likes.append(int(dialogue.weights().argmax()))
    assert certainty[4] > certainty[0] + 0.1
    assert min(certainty[5:]) < certainty[4] - 0.03
    assert likes[3] != likes[-1]
    # A contradiction makes another answer worth asking for.
    assert dialogue.replies[3].question.information < max(one.question.information for one in dialogue.replies[4:])


def test_words_and_bar_go_with_the_certainty(here, ask):
    done = ask("model", "candidates.jsonl", "--user", "ann", answers="1\n1\n1\nn\ns\n2\n")
    lines = re.findall(
        r"^(a guess|a first idea|fairly sure|sure|very sure) +([█░]{16})  predicts (\d+) of 100", done.out, re.M
    )
    assert len(lines) == 8  # the first, one after each answer, and the last
    names = ["a guess", "a first idea", "fairly sure", "sure", "very sure"]
    for word, cells, number in lines:
        assert abs(cells.count("█") / 16 - (int(number) - 50) / 50) < 0.05
        assert abs((int(number) - 45) / 10 - 0.5 - names.index(word)) < 0.7 or word == "a guess"
    assert len({number for _, _, number in lines}) > 2


# -------------------------------------------------------------------------------------------------------------- saving


def test_what_another_process_saved_meanwhile_is_kept(here, ask):
    class Late(io.StringIO):
        def readline(self, *args):
            if not self.tell():
                row = json.loads(Path("candidates.jsonl").read_text().splitlines()[0])
                PreferenceModel.load("model").route([{**row, "label": 1, "user": "bob"}]).save("model")
            return super().readline(*args)

    done = ask("model", "candidates.jsonl", "--user", "ann", answers=Late("1\n2\n"))
    assert done.code == 0
    assert knows("model", "ann")
    assert knows("model", "bob")


def test_no_other_dialogue_looks_at_a_model_while_one_is_saved(here, ask, monkeypatch):
    save, waited = PreferenceModel.save, []

    def saves(self, path):
        with pytest.raises(TimeoutError), briefly_locked(here / "model" / "ask.lock", 0.0):
            pass
        waited.append(path)
        return save(self, path)

    monkeypatch.setattr(PreferenceModel, "save", saves)
    assert ask("model", "candidates.jsonl", "--user", "ann", answers="1\n").code == 0
    assert len(waited) == 1
    assert sorted(path.suffix for path in Path("model").iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_answers_are_kept_whatever_ends_the_dialogue(error, here, monkeypatch, capsys):
    route, calls = PreferenceModel.route, []

    def breaks(self, data, **parameters):
        calls.append(data)
        if len(calls) == 3:
            raise error("while learning")
        return route(self, data, **parameters)

    monkeypatch.setattr(PreferenceModel, "route", breaks)
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n2\n1\n1\n"))
    with pytest.raises(RuntimeError if error is RuntimeError else SystemExit):
        main(["ask", "model", "candidates.jsonl", "--user", "ann"])
    out = capsys.readouterr().out
    assert ("Interrupted." in out, "2 answers learned, saved to model" in out) == (error is KeyboardInterrupt,) * 2
    monkeypatch.undo()
    monkeypatch.chdir(here)
    expected = PreferenceModel.load("model")
    assert "ann" in expected.router.history_
    fresh = PreferenceModel(expected.encoder, expected.mixture)
    for data in calls[:2]:
        fresh.route(data)
    fresh.save("expected")
    np.testing.assert_allclose(log_odds("model", "ann"), log_odds("expected", "ann"), rtol=1e-12)


def test_a_model_that_is_there_is_not_replaced_without_force(here, ask):
    before = (here / "routed" / "model.json").read_bytes()
    done = ask("model", "candidates.jsonl", "--user", "ann", "-o", "routed", answers="1\n")
    assert (done.code, "--force" in done.err, "Question" in done.out) == (1, True, False)
    assert (here / "routed" / "model.json").read_bytes() == before
    assert ask("model", "candidates.jsonl", "--user", "ann", "-o", "routed", "--force", answers="1\n").code == 0
    assert knows("routed", "ann")


def test_a_model_that_cannot_be_written_is_said_and_the_old_one_stays(here, ask, monkeypatch):
    before = (here / "model" / "model.json").read_bytes()

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreferenceModel, "save", full)
    done = ask("model", "candidates.jsonl", "--user", "ann", answers="1\n")
    assert (done.code, "No space left on device" in done.err) == (1, True)
    assert "saved to" not in done.out
    assert (here / "model" / "model.json").read_bytes() == before


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "candidates.jsonl", "--user", "ann"], "nowhere: expected a saved model"),
        (["model", "nowhere.jsonl", "--user", "ann"], "nowhere.jsonl: expected a file, got none"),
        (["model", "responses.jsonl", "--user", "ann"], "responses.jsonl, line 1: expected chosen and rejected"),
        (["model", "empty.jsonl", "--user", "ann"], "empty.jsonl: expected rows of comparisons, got an empty source"),
        (["model", "candidates.jsonl", "--user", ""], "user: expected an id, got ''"),
        (["model", "candidates.jsonl", "--user", "-1"], "user: expected an id, got '-1'"),
        (["model", "candidates.jsonl", "--user", "a", "-o", "candidates.jsonl"], "expected another file than the data"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, message, here, ask):
    write(here / "responses.jsonl", [{"prompt": "Tea?", "response": "Yes."}])
    (here / "empty.jsonl").touch()
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = ask(*arguments, answers="1\n")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("micropref: error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Missing option '--user'"),
        (["--user", "ann", "--questions", "0"], "Invalid value for '--questions'"),
        (["--user", "ann", "--min-information", "-1"], "Invalid value for '--min-information'"),
        (["--user", "ann", "--min-information", "nan"], "--min-information"),
        (["--user", "ann", "--min-information", "inf"], "expected a finite number, got inf"),
    ],
)
def test_bad_usage(options, message, here, ask):
    done = ask("model", "candidates.jsonl", *options)
    assert (done.code, done.out) == (2, "")
    assert message in re.sub(r"[\s│]+", " ", done.err)


def test_standard_input_cannot_hold_the_candidates(here, ask):
    done = ask("model", "-", "--user", "ann", answers="1\n")
    assert (done.code, done.out) == (2, "")
    assert "standard input gives the answers" in re.sub(r"[\s│]+", " ", done.err)


def test_other_columns_and_encodings(here, ask):
    text = "frage;besser;schlechter\n" + "".join(f"Wie {i}?;Schön {i}.;Übel {i}.\n" for i in range(9))
    (here / "german.csv").write_text(text.replace(";", ","), encoding="cp1252")
    columns = [part for name in ("prompt=frage", "chosen=besser", "rejected=schlechter") for part in ("--column", name)]
    options = ["--user", "ann", "--min-information", 0, "--encoding", "cp1252"]
    done = ask("model", "german.csv", *options, *columns, answers="q\n")
    assert (done.code, done.err) == (0, "")
    assert "Schön" in done.out


def test_bad_rows_are_skipped_on_request(here, ask):
    rows = [json.loads(line) for line in Path("candidates.jsonl").read_text().splitlines()][:3]
    write(here / "bad.jsonl", [*rows, {**rows[0], "response_b": rows[0]["response_a"]}])
    done = ask("model", "bad.jsonl", "--user", "ann", answers="q\n")
    assert (done.code, "bad.jsonl, line 4: expected two different responses" in done.err) == (1, True)
    done = ask("model", "bad.jsonl", "--user", "ann", "--json", "--skip-bad", "--rejected", "out.jsonl", answers="q\n")
    assert (done.code, done.json["n_rejected"]) == (0, 1)
    assert len(Path("out.jsonl").read_text().splitlines()) == 1


def test_bytes_that_are_no_text_are_no_answer(here, ask):
    answers = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n1\n"), encoding="utf-8")
    done = ask("model", "candidates.jsonl", "--user", "ann", answers=answers)
    assert (done.code, "1 answer learned" in done.out) == (0, True)


def test_texts_cannot_act_on_the_terminal(here, ask):
    rows = [{"prompt": "a\x1b[2Jb", "response_a": "c\x07\x9b1md\r\n\tx", "response_b": "e\u202ef\x00\n[bold]g :smile:"}]
    write(here / "bad.jsonl", rows)
    out = ask("model", "bad.jsonl", "--user", "a\x1b[1mn", "--min-information", 0, answers="q\n").out
    assert not set(out) & set("\x1b\x07\x9b\r\t\x00\u202e")
    assert "[bold]g :smile:" in out


# ------------------------------------------------------------------------------------------------------------ terminal


class Terminal:
    """The command on a pseudo-terminal of 80 columns, with its own session: Ctrl-C reaches it as from a keyboard."""

    def __init__(self, *arguments, columns=80):
        self.master, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

        def take_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # Tests that run in the background ignore these, and children would inherit that.
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)

        self.process = subprocess.Popen(
            [*MAIN, *map(str, arguments)],
            env=ENVIRONMENT,
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(end)
        self.shown = ""
        self._seen = 0

    def wait_for(self, text: str) -> None:
        """Read until a text is shown that was not there at the last wait."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < end, self.shown
            if not self._read():
                pytest.fail(f"ended before {text!r}: {self.shown}")
        self._seen = self.shown.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """The exit code, once the command has ended."""
        while self._read():
            pass
        os.close(self.master)
        return self.process.wait(timeout=PATIENCE)

    def hang_up(self) -> int:
        os.close(self.master)
        return self.process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        if not select.select([self.master], [], [], PATIENCE)[0]:
            self.process.kill()
            pytest.fail(f"silent: {self.shown}")
        try:
            read = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;]*m", "", read.decode(errors="replace"))
        return bool(read)


def test_a_dialogue_on_a_terminal(here):
    terminal = Terminal("ask", "model", "candidates.jsonl", "--user", "ann", "--questions", 3)
    terminal.wait_for("loading the model ...")
    terminal.wait_for("ann is new to the model")
    for answer in ("1\n", "what\n", "s\n", "n\n"):
        terminal.wait_for("1, 2, n, s or q: ")
        terminal.type(answer)
    assert terminal.end() == 0
    shown = terminal.shown
    assert "expected 1, 2, n, s or q, got 'what'" in shown
    assert "Question 1 of at most 3  (expected information 0." in shown
    assert "3 questions asked; expected information of the next answer: 0." in shown
    assert "2 answers learned, 1 skipped, saved to model" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert shown.count("╭─ 1 ─") == shown.count("╭─ 2 ─") == 3
    assert knows("model", "ann")


def test_an_interrupt_between_questions_keeps_what_was_learned(here):
    terminal = Terminal("ask", "model", "candidates.jsonl", "--user", "ann", columns=60)
    terminal.wait_for("1, 2, n, s or q: ")
    terminal.type("1\n")
    terminal.wait_for("1, 2, n, s or q: ")
    terminal.type("\x03")
    assert terminal.end() == 0
    assert "Interrupted." in terminal.shown
    assert "1 answer learned, saved to model" in terminal.shown
    assert max(len(line) for line in terminal.shown.splitlines()) <= 60
    assert knows("model", "ann")


@pytest.mark.parametrize("end", ["hang up", "terminate"])
def test_a_terminal_that_is_closed_keeps_what_was_learned(end, here):
    terminal = Terminal("ask", "model", "candidates.jsonl", "--user", "ann")
    terminal.wait_for("1, 2, n, s or q: ")
    terminal.type("2\n")
    terminal.wait_for("1, 2, n, s or q: ")
    if end == "hang up":
        terminal.hang_up()
    else:
        terminal.process.terminate()
        assert terminal.end() == 0
    assert knows("model", "ann")


def test_the_end_of_the_input_on_a_terminal(here):
    terminal = Terminal("ask", "model", "candidates.jsonl", "--user", "ann", "--json")
    terminal.wait_for("1, 2, n, s or q: ")
    terminal.type("\x04")
    assert terminal.end() == 0
    document = terminal.shown.strip().splitlines()[-1]
    assert json.loads(document)["stopped"] == "end_of_input"


def test_users_around_heads_are_asked_too(world):
    stage = HierarchicalBradleyTerry(1, n_directions=2, random_state=0)
    model = PreferenceModel.fit(world.train, encoder=HashingEncoder(32), mixture=stage)
    dialogue = Dialogue(model, world.labelled, "ann")
    column = world.taste_names.index("evidence")
    information = [dialogue.next().information]
    for _ in range(5):
        question = dialogue.next()
        first, second = world.rewards(question.responses)[:, column]
        dialogue.reply(question, "first" if first > second else "second")
        information.append(dialogue.next().information)
    assert information == sorted(information, reverse=True)
    assert information[0] > 0.001
    assert len({reply.question.row for reply in dialogue.replies}) == 5
    assert isinstance(model.router, ContextRouter)
