"""Progress of a fit: silent by default, lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from micropref import MixtureBradleyTerry, make_preferences
from micropref._support.progress import FitProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def data():
    return make_preferences(200, n_features=3, n_components=2, n_context_features=0, random_state=0)


def test_silent_by_default(data, capfd):
    MixtureBradleyTerry(n_components=2, n_init=2, random_state=0).fit(data.X, data.y)
    assert capfd.readouterr() == ("", "")


def test_a_line_per_start_and_per_iteration_in_a_pipe(data, capfd):
    model = MixtureBradleyTerry(n_components=2, n_init=2, random_state=0, verbose=2).fit(data.X, data.y)
    out, err = capfd.readouterr()
    assert err == ""
    assert out.count("start 1 of 2") == out.count("start 2 of 2") == 1
    assert out.count("  objective ") >= model.n_iter_
    assert f"objective {model.objective_:.6f}" in out


def test_a_bar_and_no_lines_on_a_terminal(data, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    MixtureBradleyTerry(n_components=2, n_init=2, random_state=0, verbose=1).fit(data.X, data.y)
    assert "start 1 of 2" in sys.stderr.getvalue()
    assert capfd.readouterr().out == ""


def test_the_bar_says_where_the_fit_is(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with FitProgress(1, 2, 10) as progress:
        (task,) = progress._bar.tasks
        progress.iteration(0.7)
        assert (task.description, task.completed, task.total) == ("start 1 of 2, objective 0.7000", 1, 20)
        progress.start_ended(0.6, 4)
        assert (task.description, task.completed) == ("start 2 of 2", 10)


def test_the_bar_is_taken_down_when_the_fit_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = FitProgress(1, 2, 10)
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert progress._bar.finished is False
    assert not progress._bar.live.is_started
