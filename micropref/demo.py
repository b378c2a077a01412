"""The demonstration: four hidden tastes, learned from annotators and routed by a few labels, in one table."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from micropref._rows.layout import narrow_context
from micropref._support.optional import require
from micropref.datasets.demo import DemoWorld, load_demo
from micropref.datasets.table import PreferenceTable
from micropref.embed import PairEncoder
from micropref.kernels._pointwise import log_sigmoid
from micropref.metrics import mean_interval
from micropref.metrics._accuracy import tie_half
from micropref.mixture import MixtureBradleyTerry
from micropref.router import ContextRouter

__all__ = ["BUDGETS", "DemoResult", "DemoRow", "plot_demo", "run_demo"]

BUDGETS = (5, 10, 50)


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
    axes.set_title(f"Four hidden tastes, {result.n_annotators} annotators, {result.n_train} comparisons", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
