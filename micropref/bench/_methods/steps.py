"""What all methods share: fits that are made once, and predictions after more and more labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from micropref._rows.groups import check_groups
from micropref.bench._tasks import MethodInputs
from micropref.metrics._asking import asked_copies, asking

# Of so many rows of a context or user, drawn anew for every draw, those to label are chosen.
ASKED_FROM = 200
_NO_TARGET = ("no", "target")


class NotApplicable(Exception):
    """The data set lacks what the method needs."""


class Stages:
    """Fits that several methods of one task share, each made once, and the time that each took."""

    def __init__(self) -> None:
        self._fitted: dict[Hashable, tuple[Any, float]] = {}
        self.seconds = 0.0
        #: Arrays that a method leaves beside its log-odds, for figures; kept with them.
        self.kept: dict[str, np.ndarray] = {}

    def get(self, key: Hashable, fit: Callable[[], Any]) -> Any:
        """The fit of that key. Its whole time is added to `seconds` of every caller, as if each had made it."""
        if key not in self._fitted:
            start = time.perf_counter()
            self._fitted[key] = (fit(), time.perf_counter() - start)
            self.seconds -= self._fitted[key][1]
        self.seconds += self._fitted[key][1]
        return self._fitted[key][0]


# Log-odds (n_draws, n_budgets, n_test) that the first response is preferred.
Run = Callable[[MethodInputs, Mapping[str, Any], Stages], np.ndarray]


def fit_with_annotators(
    inputs: MethodInputs, model: Any, key: Hashable, stages: Stages, *, contexts: bool = False
) -> Any:
    """The model fitted to all training rows, with their annotators as groups where they are known."""
    X = inputs.train.pairs() if contexts else inputs.train.difference
    groups = inputs.annotators if inputs.has_annotators else None
    return stages.get(key, lambda: model.fit(X, inputs.train.y, sample_weight=inputs.train.weight, groups=groups))


def predict_without_labels(inputs: MethodInputs, odds: np.ndarray) -> np.ndarray:
    """The same log-odds in every draw and at every budget."""
    return np.broadcast_to(odds, (len(inputs.ranks), len(inputs.budgets), len(odds)))


def predict_after_labels(
    inputs: MethodInputs, start: Callable[[], Any], *, contexts: bool = False, unknown: np.ndarray | None = None
) -> np.ndarray:
    """Log-odds of a model that learns the labels of each target in steps.

    `unknown` are the log-odds before the first label, for a model that cannot predict then.
    """
    test = inputs.test.pairs() if contexts else inputs.test.difference
    if inputs.asked:
        return _after_questions(inputs, start, test, contexts=contexts, unknown=unknown)
    found = []
    for draw in range(len(inputs.ranks)):
        model, has_labels = start(), False
        for step in inputs.steps(draw):
            if len(step):
                has_labels = True
                labels = inputs.pool.select(step)
                X = labels.pairs() if contexts else labels.difference
                model.partial_fit(X, labels.y, sample_weight=labels.weight, groups=inputs.pool_target[step])
            if unknown is not None and not has_labels:
                found.append(unknown)
            else:
                found.append(model.decision_function(test, groups=inputs.test_target))
    return np.reshape(found, (len(inputs.ranks), len(inputs.budgets), len(test)))


def _after_questions(
    inputs: MethodInputs, start: Callable[[], Any], test: np.ndarray, *, contexts: bool, unknown: np.ndarray | None
) -> np.ndarray:
    """Log-odds of a model that asks for its labels, by its own rule, each after the answer to the one before."""
    X, pool = inputs.pool.pairs() if contexts else inputs.pool.difference, inputs.pool
    judged = check_groups(inputs.test_target, len(test))
    found = []
    for draw, ranks in enumerate(inputs.ranks):
        model = start()
        if not hasattr(model, "classes_"):
            # A router starts with a vote; of one who is no target it uses nothing.
            model.partial_fit(X[:1], np.ones(1, dtype=int), groups=[_NO_TARGET])
        members = check_groups(np.where(ranks < ASKED_FROM, inputs.pool_target, -1), len(X))
        assert members is not None
        assert judged is not None
        copies = asked_copies(
            model,
            asking(model, inputs.asked, ASKED_FROM),
            (X, pool.y, members),
            inputs.budgets,
            judged,
            np.random.RandomState(inputs.seed * 1000 + draw),
            pool.weight,
        )
        for budget, (adapted, _) in zip(inputs.budgets, copies, strict=True):
            if unknown is not None and not budget:
                found.append(unknown)
            else:
                found.append(adapted.decision_function(test, groups=inputs.test_target))
    return np.reshape(found, (len(inputs.ranks), len(inputs.budgets), len(test)))
