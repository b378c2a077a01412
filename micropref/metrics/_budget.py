"""How good an estimator is for a user, by the number of labels of that user that it has seen."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, to_numpy
from micropref._rows.arrays import take_rows
from micropref._rows.groups import Groups, check_groups
from micropref._rows.labels import check_labels
from micropref.kernels._pointwise import log_sigmoid
from micropref.metrics._accuracy import tie_half
from micropref.metrics._asking import asked_copies, asking
from micropref.metrics._groups import check_log_odds
from micropref.metrics._intervals import Interval, mean_interval

_SHORT = ("use_all", "raise")


@dataclass(frozen=True)
class BudgetCurve:
    """Result of `budget_curve`.

    Attributes
    ----------
    budgets : tuple of int
        Labels per group that were asked for.
    mean_labels, min_labels : ndarray of shape (n_budgets,)
        Labels that the groups of the test rows got: their mean and smallest number, each group counted once.
    accuracy : tuple of Interval
        Share of test rows whose preferred response was predicted, log-odds of 0 counting one half; mean over the draws,
        with an interval over the clusters of the test rows.
    log_loss : tuple of Interval
        In nats per row, likewise.
    draw_accuracy, draw_log_loss : ndarray of shape (n_draws, n_budgets)
        The same of every draw: how much depends on which labels were drawn.
    """

    budgets: tuple[int, ...]
    mean_labels: np.ndarray
    min_labels: np.ndarray
    accuracy: tuple[Interval, ...]
    log_loss: tuple[Interval, ...]
    draw_accuracy: np.ndarray
    draw_log_loss: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """One dict for every budget, as for a table.

        Returns
        -------
        rows : list of dict
            Keys "budget", "mean_labels", "min_labels", "accuracy", "accuracy_low", "accuracy_high", "log_loss",
            "log_loss_low", "log_loss_high".
        """
        return [
            {
                "budget": budget,
                "mean_labels": float(self.mean_labels[j]),
                "min_labels": int(self.min_labels[j]),
                **{
                    f"{name}{end}": value
                    for name, interval in (("accuracy", self.accuracy[j]), ("log_loss", self.log_loss[j]))
                    for end, value in zip(("", "_low", "_high"), interval, strict=True)
                },
            }
            for j, budget in enumerate(self.budgets)
        ]


def budget_curve(
    estimator: Any,
    X: Array,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    budgets: Sequence[int] = (0, 1, 2, 5, 10, 20, 50),
    X_test: Array,
    y_test: ArrayLike | None = None,
    groups_test: ArrayLike,
    n_draws: int = 5,
    short: str = "use_all",
    strategy: str = "random",
    pool: int = 200,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> BudgetCurve:
    """Measure accuracy and log-loss against the number of labels seen from each user.

    For each draw every group's rows are put in an order. For each budget b a copy of the estimator learns from the
    first b of every group by `partial_fit`, and predicts the test rows. A larger budget of a draw contains the smaller
    ones. The order is random, or the estimator asks: `suggest` chooses one row after the other from those of the group,
    and `partial_fit` learns its label before the next.

    Parameters
    ----------
    estimator : fitted estimator
        Anything with ``partial_fit(X, y, groups=...)`` and ``decision_function(X, groups=...)``, such as a
        `ContextRouter` or one of `micropref.baselines`. It is not changed. Budget 0 is the unchanged estimator, with
        anything that it already knows about the test groups.
    X : array-like of shape (n_samples, n_features)
        Rows from which labels are taken. Those that are drawn are learned in the order of these rows, which is taken to
        be that of time; those that are asked for, in the order of the questions.
    y : array-like of shape (n_samples,), optional
        None: the first response is preferred in every row.
    groups : array-like of shape (n_samples,)
        User of every row; rows with None, NaN or -1 are never drawn.
    budgets : sequence of int, default=(0, 1, 2, 5, 10, 20, 50)
        Labels per group.
    X_test : array-like of shape (n_test, n_features)
        Other rows than those of X.
    y_test : array-like of shape (n_test,), optional
    groups_test : array-like of shape (n_test,)
        User of every row; a user without rows in X has no labels to draw.
    n_draws : int, default=5
    short : {"use_all", "raise"}, default="use_all"
        If a group of the test rows has fewer labels than the budget: use all of them and report the actual numbers, or
        raise a ValueError.
    strategy : str, default="random"
        "random"; "information": what ``estimator.suggest`` asks, by its own rule if it is one of
        `micropref.baselines`; or another strategy of that method, such as "epig" of a `ContextRouter`.
    pool : int, default=200
        If the estimator asks: the largest number of rows of a group to choose from, drawn again for every draw.
    clusters : array-like of shape (n_test,), optional
        What intervals resample as a whole, such as the prompt of every test row; None: the users of `groups_test`.
    level : float, default=0.95
    n_resamples : int, default=1000
    random_state : int, RandomState instance or None, default=0
        The drawn rows depend on it and on their positions in X, but not on the names of the groups, on `budgets`, or on
        the number of draws. It is also the seed of the intervals.

    Returns
    -------
    curve : BudgetCurve
        For a figure, hand ``curve.budgets`` and ``{name: curve.draw_accuracy}`` to
        `micropref.plotting.LabelBudgetDisplay.from_predictions`.

    Raises
    ------
    ValueError
        For budgets that are not whole numbers of at least 0, fewer than two test clusters, groups that do not fit the
        rows, an unknown strategy, and with ``short="raise"`` for a group that is short.
    TypeError
        If the estimator should ask and has no `suggest`.

    Examples
    --------
    >>> from micropref import ContextRouter, MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X, user = rng.normal(size=(1200, 2)), np.arange(1200) // 6
    >>> y = (X[:, 0] * np.where(user % 2 == 0, -3, 3) > 0).astype(int)
    >>> heads = MixtureBradleyTerry(n_components=2, random_state=0).fit(X, y, groups=user)
    >>> votes = np.arange(1200) % 6 < 3
    >>> curve = budget_curve(
    ...     ContextRouter(heads).fit(X[:6], y[:6]), X[votes], y[votes], user[votes],
    ...     X_test=X[~votes], y_test=y[~votes], groups_test=user[~votes], budgets=(0, 3), n_draws=2,
    ... )
    >>> curve.accuracy[1].low > curve.accuracy[0].high, curve.min_labels.tolist()
    (True, [0, 3])
    """
    numbers = _check_numbers(budgets, n_draws, short)
    check_is_fitted(estimator)
    asks = None if strategy == "random" else asking(estimator, strategy, pool)
    members, judged = check_groups(groups, len(X)), check_groups(groups_test, len(X_test))
    if members is None or judged is None:
        where = "groups" if members is None else "groups_test"
        raise ValueError(f"{where}: expected the user of every row, got None, NaN or -1 in every row")
    if short == "raise":
        _refuse_short(_available(members, judged), judged, max(numbers))
    labels = None if y is None else np.asarray(to_numpy(y))
    check_labels(labels, len(X), classes=estimator.classes_)
    signs, _ = check_labels(y_test, len(X_test), classes=estimator.classes_)
    random = check_random_state(random_state)
    margins = np.empty((n_draws, len(numbers), len(X_test)))
    got = np.zeros((n_draws, len(numbers), judged.n_groups))
    for draw in range(n_draws):
        rows = X, labels, members
        copies = (
            _drawn_copies(estimator, rows, numbers, random)
            if asks is None
            else asked_copies(estimator, asks, rows, numbers, judged, random)
        )
        for j, (adapted, count) in enumerate(copies):
            got[draw, j] = [count.get(user, 0) for user in judged.ids.tolist()]
            if draw and not numbers[j]:
                margins[draw, j] = margins[0, j]
                continue
            odds = check_log_odds(adapted.decision_function(X_test, groups=groups_test))
            margins[draw, j] = odds if signs is None else odds * signs
    over = groups_test if clusters is None else clusters
    seed = check_random_state(random_state).randint(2**31 - 1)
    settings = {"level": level, "n_resamples": n_resamples, "random_state": seed}
    return _curve(numbers, margins, got, over, settings)


def _curve(
    numbers: list[int], margins: np.ndarray, got: np.ndarray, over: Any, settings: dict[str, Any]
) -> BudgetCurve:
    """The curve of margins (n_draws, n_budgets, n_test) and of numbers of labels (n_draws, n_budgets, n_groups)."""
    right, loss = tie_half(margins), -log_sigmoid(margins)
    accuracies, losses = (
        tuple(mean_interval(values, over, **settings) for values in figure.mean(axis=0)) for figure in (right, loss)
    )
    return BudgetCurve(
        tuple(numbers),
        got.mean(axis=(0, 2)),
        got.min(axis=(0, 2)).astype(int),
        accuracies,
        losses,
        right.mean(axis=2),
        loss.mean(axis=2),
    )


def _check_numbers(budgets: Sequence[int], n_draws: int, short: str) -> list[int]:
    numbers = list(budgets)
    if not numbers or not all(isinstance(b, Integral) and not isinstance(b, bool) and b >= 0 for b in numbers):
        raise ValueError(f"budgets: expected at least one whole number, none below 0, got {numbers}")
    if not isinstance(n_draws, Integral) or isinstance(n_draws, bool) or n_draws < 1:
        raise ValueError(f"n_draws: expected an integer of at least 1, got {n_draws!r}")
    if short not in _SHORT:
        raise ValueError(f"short: expected one of {', '.join(map(repr, _SHORT))}, got {short!r}")
    return [int(b) for b in numbers]


def _refuse_short(available: np.ndarray, judged: Groups, budget: int) -> None:
    """A ValueError where a group has fewer rows than the budget."""
    fewest = int(available.argmin())
    if budget > available[fewest]:
        raise ValueError(
            f"budgets: expected at most {available[fewest]}, the labelled rows of group "
            f"{judged.ids.tolist()[fewest]!r}, got {budget}; use smaller budgets, or short='use_all'"
        )


def _available(members: Groups, judged: Groups) -> np.ndarray:
    """Rows from which labels of every test group can be drawn."""
    count = dict(zip(members.ids.tolist(), np.bincount(members.index[members.index >= 0]).tolist(), strict=True))
    return np.array([count.get(user, 0) for user in judged.ids.tolist()])


def _ranks(members: Groups, random: np.random.RandomState) -> np.ndarray:
    """Place of every row in the random order of its group's rows.

    A row's key depends on its place alone: groups of other names draw the same rows.
    """
    order = np.lexsort((random.random_sample(len(members.index)), members.index))
    start = np.searchsorted(members.index[order], members.index[order])
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order)) - start
    return rank


def _drawn_copies(
    estimator: Any,
    rows: tuple[Array, np.ndarray | None, Groups],
    budgets: Sequence[int],
    random: np.random.RandomState,
) -> Iterator[tuple[Any, dict[Hashable, int]]]:
    """For each budget a copy that has learned from the first rows of a random order, and the rows of every group."""
    X, labels, members = rows
    rank = _ranks(members, random)
    for budget in budgets:
        drawn = np.flatnonzero((rank < budget) & (members.index >= 0))
        count = np.bincount(members.index[drawn], minlength=members.n_groups).tolist()
        adapted = _adapted(estimator, X, labels, members, drawn)
        yield adapted, dict(zip(members.ids.tolist(), count, strict=True))


def _adapted(estimator: Any, X: Array, labels: np.ndarray | None, members: Groups, rows: np.ndarray) -> Any:
    """A copy that has learned from some rows; the estimator itself where there are none."""
    if not len(rows):
        return estimator
    adapted = deepcopy(estimator)
    users = members.ids[members.index[rows]]
    return adapted.partial_fit(take_rows(X, rows), None if labels is None else labels[rows], groups=users)
