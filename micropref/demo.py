"""The demonstration: four hidden tastes, learned from annotators and routed by a few labels or by the reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from micropref._reward.dialogue import Dialogue
from micropref._rows.layout import narrow_context
from micropref._support.optional import require
from micropref._support.text import counted
from micropref.datasets.demo import DemoWorld, load_demo
from micropref.datasets.table import PreferenceTable
from micropref.embed import PairEncoder
from micropref.kernels._pointwise import log_sigmoid
from micropref.metrics import mean_interval
from micropref.metrics._accuracy import tie_half
from micropref.mixture import MixtureBradleyTerry
from micropref.reward import PreferenceModel
from micropref.router import ContextRouter

__all__ = ["BUDGETS", "DemoResult", "DemoRow", "RankedAnswer", "ReaderDemo", "plot_demo", "run_demo"]

BUDGETS = (5, 10, 50)
READER = "you"

# What a taste likes or does without, by attribute of an answer.
_LIKED = {
    "detail": "explanations",
    "warmth": "warm words",
    "evidence": "studies and numbers",
    "playfulness": "jokes",
    "caution": "caveats",
}
# What an answer is like at every level of an attribute; at the lowest of most there is nothing to say.
_LEVELS = {
    "detail": ("short", "plain tips", "tips with reasons", "step by step"),
    "warmth": ("", "warm", "very warm"),
    "evidence": ("", "a study", "two studies"),
    "playfulness": ("", "a joke", "two jokes"),
    "caution": ("", "a caveat"),
}
# In log-odds for one unit of an attribute: less is no taste to speak of.
_LEAST_LIKING = 0.6


@dataclass(frozen=True)
class DemoRow:
    """One line of the table: accuracy and log-loss (nats) with 95 % intervals that resample users.

    Attributes
    ----------
    method : str
    knows : str
        The information that the method uses.
    accuracy, accuracy_low, accuracy_high : float
        The mean and the ends of its interval.
    log_loss, log_loss_low, log_loss_high : float
        Likewise.
    """

    method: str
    knows: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float
    log_loss_low: float
    log_loss_high: float


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found.

    Attributes
    ----------
    rows : list of DemoRow
    n_train, n_annotators, n_test, n_users : int
    alpha, router_alpha, history_temperature : float
        Penalties of the heads and of the router with most labels, and the temperature of votes: all from the data.
    """

    rows: list[DemoRow]
    n_train: int
    n_annotators: int
    n_test: int
    n_users: int
    alpha: float
    router_alpha: float
    history_temperature: float

    def to_dict(self) -> dict[str, Any]:
        """The result in types of JSON.

        Returns
        -------
        values : dict
            With the names of the attributes; `rows` is a list of dicts.
        """
        return asdict(self)


def run_demo(seed: int = 0, report: Callable[[str], None] = lambda step: None) -> DemoResult:
    """Embed the bundled world, fit and route it, and compare every stage with what could be reached.

    Parameters
    ----------
    seed : int, default=0
        Seed of the world and of the fits.
    report : callable, optional
        Called with each step before it starts.

    Returns
    -------
    DemoResult
    """
    report("writing the world")
    world = load_demo(seed=seed)
    report("embedding texts")
    encoder = PairEncoder("hashing", context="auto").fit(world.train).fit_context(world.labelled)
    width = encoder.n_context_features_
    train = encoder.encode_pairs(world.train, parts=())
    history = encoder.encode_pairs(world.history, parts=())
    test, plain = _with_and_without_context(encoder, world)

    report("fitting one reward for all users")
    single = MixtureBradleyTerry(n_components=1).fit(train)
    report("fitting four heads from annotators")
    heads = MixtureBradleyTerry(n_components=len(world.taste_names), random_state=seed)
    heads.fit(train, groups=world.train.group)
    report("routing")
    lines = [
        ("single Bradley-Terry", "nothing", single.decision_function(plain)),
        ("static mixture", "annotators", heads.decision_function(plain)),
        ("best head per taste", "annotators, test labels", _best_head(heads, plain, _tastes(world.test))),
    ]
    for labels in BUDGETS:
        router = ContextRouter(heads).fit(encoder.transform(world.budget(labels)))
        lines.append((f"routed, {labels} labels per taste", "annotators, wish", router.decision_function(test)))
    votes = ContextRouter(heads).partial_fit(history, groups=world.history.group)
    odds = votes.decision_function(plain, groups=world.test.group)
    lines.append(("user history, 10 votes", "annotators, votes", odds))
    blank = np.zeros((len(history), width), dtype=history.dtype)
    router.partial_fit(np.hstack([blank, history]), groups=world.history.group)
    odds = router.decision_function(test, groups=world.test.group)
    lines.append(("routed and history", "annotators, wish, votes", odds))
    report("fitting the oracle")
    lines.append(("supervised oracle", "every taste", _oracle(world, train, plain)))
    truth = np.asarray(world.test.extra["probability"])
    lines.append(("ceiling", "the truth", np.log(truth) - np.log1p(-truth)))
    report("resampling users")
    rows = [_row(method, knows, odds, world.test.group) for method, knows, odds in lines]
    return DemoResult(
        rows,
        n_train=len(world.train),
        n_annotators=_n_groups(world.train),
        n_test=len(world.test),
        n_users=_n_groups(world.test),
        alpha=heads.alpha_,
        router_alpha=router.alpha_,
        history_temperature=router.history_temperature_,
    )


def _with_and_without_context(encoder: PairEncoder, world: DemoWorld) -> tuple[np.ndarray, np.ndarray]:
    test = encoder.transform(world.test)
    return test, narrow_context(test, encoder.n_context_features_, 0)


def _n_groups(table: PreferenceTable) -> int:
    assert table.group is not None
    return len(set(table.group))


def _tastes(table: Any) -> np.ndarray:
    return np.array(table.extra["taste"])


def _best_head(heads: MixtureBradleyTerry, X: np.ndarray, taste: np.ndarray) -> np.ndarray:
    """For every taste the head that is right most often on its test rows, which are not known in practice."""
    margins = heads.component_scores(X)
    odds = np.empty(len(X))
    for name in np.unique(taste):
        rows = taste == name
        odds[rows] = margins[rows, np.argmax(tie_half(margins[rows]).mean(axis=0))]
    return odds


def _oracle(world: DemoWorld, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """One Bradley-Terry model per taste, fitted to the comparisons that express it."""
    learned, asked = _tastes(world.train), _tastes(world.test)
    odds = np.empty(len(test))
    for name in world.taste_names:
        model = MixtureBradleyTerry(n_components=1).fit(train[learned == name])
        odds[asked == name] = model.decision_function(test[asked == name])
    return odds


def _row(method: str, knows: str, log_odds: np.ndarray, users: Any) -> DemoRow:
    accuracy = mean_interval(tie_half(log_odds), users)
    log_loss = mean_interval(-log_sigmoid(log_odds.astype(np.float64)), users)
    return DemoRow(method, knows, *accuracy, *log_loss)


def plot_demo(result: DemoResult, path: str | os.PathLike[str]) -> Path:
    """Draw the accuracies with their intervals.

    Parameters
    ----------
    result : DemoResult
    path : path
        Image file to write.

    Returns
    -------
    path : Path
    """
    figure_module = require("matplotlib.figure", "drawing the figure of the demonstration")
    figure = figure_module.Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(result.rows))[::-1]
    for place, row in zip(places, result.rows, strict=True):
        reference = row.method in ("supervised oracle", "ceiling", "best head per taste")
        color = "0.6" if reference else "#9c3d3d" if row.method.startswith(("single", "static")) else "#2b6ca3"
        axes.plot([row.accuracy_low, row.accuracy_high], [place, place], color=color, linewidth=2)
        axes.plot(row.accuracy, place, "o", color=color, markersize=6)
        axes.annotate(
            f"{row.accuracy:.3f}", (row.accuracy_high, place), (5, -3.5), textcoords="offset points", fontsize=8
        )
    axes.axvline(0.5, color="0.8", linewidth=1, zorder=0)
    axes.set_yticks(places, [row.method for row in result.rows])
    axes.set_xlabel("accuracy on new questions by new users (95 % interval, users resampled)")
    axes.set_xlim(0.42, 1.0)
    taught = f"{counted(result.n_annotators, 'annotator')}, {counted(result.n_train, 'comparison')}"
    axes.set_title(f"Four hidden tastes, {taught}", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


@dataclass(frozen=True)
class RankedAnswer:
    """An answer to a new question, with its place in two rankings.

    Attributes
    ----------
    answer : str
    description : str
        What it is like, in words.
    for_reader, for_all : int
        Places in the ranking for the reader and in that of one reward for all users; 1 is best.
    """

    answer: str
    description: str
    for_reader: int
    for_all: int


class ReaderDemo:
    """The demonstration with the reader as the user: questions, the taste found, and two rankings.

    Parameters
    ----------
    seed : int, default=0
        Seed of the world and of the fits.
    report : callable, optional
        Called with each step before it starts.

    Attributes
    ----------
    dialogue : Dialogue
        Questions to the reader about comparisons of the world; what it learns changes all that follows.
    question : str
        A question that occurs in no comparison learned or asked.
    """

    def __init__(self, seed: int = 0, report: Callable[[str], None] = lambda step: None):
        report("writing the world")
        self._world = world = load_demo(seed=seed)
        report("embedding texts")
        encoder = PairEncoder("hashing", context="auto").fit(world.train)
        X = encoder.encode_pairs(world.train, parts=())
        report("fitting one reward for all users")
        self._for_all = PreferenceModel(encoder, MixtureBradleyTerry(n_components=1).fit(X))
        report("fitting four heads from annotators")
        heads = MixtureBradleyTerry(n_components=len(world.taste_names), random_state=seed)
        self._model = PreferenceModel(encoder, heads.fit(X, groups=world.train.group))
        candidates = replace(world.labelled, context=None, extra={})
        self.dialogue = Dialogue(self._model, candidates, READER, random_state=seed)
        self._taste_of_head = self._named_heads()
        self.question = world.test.prompt[0]

    def tastes(self) -> dict[str, float]:
        """How probable each taste is for the reader, by the answers so far.

        Returns
        -------
        tastes : dict of str to float
            Probabilities by name, the largest first.
        """
        found = dict.fromkeys(self._world.taste_names, 0.0)
        for taste, weight in zip(self._taste_of_head, self.dialogue.weights().tolist(), strict=True):
            found[self._world.taste_names[taste]] += weight
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def likings(self) -> tuple[list[str], list[str]]:
        """What the reader is expected to like and to do without, in words.

        Returns
        -------
        liked, unwanted : list of str
            The strongest first.
        """
        expected = self.dialogue.weights() @ self._world.taste_weights[self._taste_of_head]
        liked: list[str] = []
        unwanted: list[str] = []
        for i in np.argsort(-np.abs(expected), kind="stable"):
            name = self._world.attribute_names[i]
            if expected[i] <= -_LEAST_LIKING and name == "detail":
                liked.append("short answers")
            elif abs(expected[i]) >= _LEAST_LIKING:
                (liked if expected[i] > 0 else unwanted).append(_LIKED[name])
        return liked, unwanted

    def ranking(self) -> list[RankedAnswer]:
        """Answers to `question`: for every taste the one that suits it best, and the best for all users.

        Returns
        -------
        rows : list of RankedAnswer
            The best for the reader first.
        """
        table = self._world.test
        pairs = zip(table.prompt, table.chosen, table.rejected, strict=True)
        texts = dict.fromkeys(text for prompt, *both in pairs if prompt == self.question for text in both)
        answers = list(texts)
        best = [*self._world.rewards(answers).argmax(axis=0), self._for_all.rank(self.question, answers)[0]]
        some = [answers[i] for i in dict.fromkeys(best)]
        places = [
            np.argsort(model.rank(self.question, some, user=user)) + 1
            for model, user in ((self._model, READER), (self._for_all, None))
        ]
        rows = [
            RankedAnswer(answer, self._described(answer), int(for_reader), int(for_all))
            for answer, for_reader, for_all in zip(some, *places, strict=True)
        ]
        return sorted(rows, key=lambda row: row.for_reader)

    def _described(self, answer: str) -> str:
        levels = zip(self._world.attribute_names, self._world.attributes[answer], strict=True)
        return ", ".join(word for name, level in levels if (word := _LEVELS[name][level]))

    def _named_heads(self) -> list[int]:
        """The taste that every head is like: the one whose true rewards go with the head's, over the candidates."""
        table = self.dialogue.table
        truth = self._world.rewards(table.chosen) - self._world.rewards(table.rejected)
        margins = self._model.mixture.component_scores(self._model.stage_one_rows(table)[0])
        n_heads = margins.shape[1]
        return [int(taste) for taste in np.corrcoef(margins.T, truth.T)[:n_heads, n_heads:].argmax(axis=1)]
