"""Which questions to ask together: greedily, by what each answer adds to those of the questions before it.

With S the questions that are chosen, the next one is that of the largest

    information   I(y_j; h | y_S) = Σ_{y_S} P(y_S) H(P(y_j | y_S)) − Σ_h w_h H(p_hj), or of
    epig          mean over targets t of I(y_j; y_t | y_S), what the answer says of the answers to other pairs
                  (expected predictive information gain: Bickford Smith et al., 2023).

The first is submodular in S, so that greedy choices have at least 1 − 1/e of the largest joint information (Krause and
Guestrin, 2005). The answers y_S are enumerated while there are at most 2⁹ of them, that is for ten questions; beyond,
they are drawn, by a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from micropref._engine.questions import Hypotheses

__all__ = ["EXACT_ANSWERS", "choose_questions", "expected_answers_information", "joint_information", "pick"]

Floats = NDArray[np.float64]

#: Combinations of answers to earlier questions up to which they are all counted.
EXACT_ANSWERS = 512
# Hypotheses times combinations of answers, and the combinations that are kept where targets are asked for.
_LARGEST_TABLE = 1 << 16
_TARGET_ANSWERS = 8
# Gains whose difference is rounding, relative to the largest and in nats.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-13
# Questions whose gains are computed at a time, and those whose gain for targets is brought up to date.
_BLOCK_ROWS, _LIKELY_ROWS = 256, 512
_TINY = np.finfo(np.float64).tiny


class _Answers:
    """Combinations of answers to the questions so far, and their likelihood under every hypothesis."""

    def __init__(self, hypotheses: Hypotheses, limit: int, random: np.random.RandomState):
        self.likelihood = np.ones((hypotheses.weights.shape[0], 1))
        # By which each combination counts; not 1 once some of them have been drawn.
        self.factor = np.ones(1)
        self._mean_weights = hypotheses.weights.mean(axis=1)
        self._limit, self._random = limit, random

    def ask(self, first: Floats, second: Floats) -> None:
        """Add a question whose answers have these probabilities under the hypotheses."""
        if 2 * len(self.factor) > self._limit:
            self._draw(self._limit // 2)
        both = self.likelihood * first[:, None], self.likelihood * second[:, None]
        self.likelihood, self.factor = np.concatenate(both, axis=1), np.concatenate([self.factor, self.factor])

    def _draw(self, number: int) -> None:
        """Keep some combinations in proportion to their probability, of which every estimate stays unbiased."""
        share = self.factor * (self._mean_weights @ self.likelihood)
        total = share.sum()
        edges = np.cumsum(share / total)
        points = (np.arange(number) + self._random.random_sample()) / number
        counts = np.bincount(np.minimum(np.searchsorted(edges, points), len(edges) - 1), minlength=len(edges))
        kept = np.flatnonzero(counts)
        self.factor = self.factor[kept] * counts[kept] * total / (number * share[kept])
        self.likelihood = self.likelihood[:, kept]


def choose_questions(
    hypotheses: Hypotheses,
    n_queries: int,
    random: np.random.RandomState,
    *,
    first_gain: Floats | None = None,
    targets: Hypotheses | None = None,
) -> NDArray[np.intp]:
    """Questions to ask together, the first one first.

    Parameters
    ----------
    hypotheses : Hypotheses
        Of the candidates, all different.
    n_queries : int
        At most the number of candidates.
    random : RandomState
        Chooses among equal ones, and draws answers where they are too many.
    first_gain : ndarray of shape (n,), optional
        Information in single answers, where it is known more exactly than from the hypotheses.
    targets : Hypotheses, optional
        Of the pairs whose answers are asked for ("epig").

    Returns
    -------
    rows : ndarray of int of shape (n_queries,)
    """
    n_hypotheses = hypotheses.weights.shape[0]
    limit = min(EXACT_ANSWERS, max(2, _LARGEST_TABLE // n_hypotheses)) if targets is None else _TARGET_ANSWERS
    answers = _Answers(hypotheses, limit, random)
    gain, rounding = first_gain, 0.0
    if gain is None:
        gain = hypotheses.information() if targets is None else expected_answers_information(hypotheses, targets)
    gain = gain.copy()
    chosen: list[int] = []
    while True:
        chosen.append(pick(gain, random, rounding))
        if len(chosen) == n_queries:
            return np.array(chosen, dtype=np.intp)
        gain[chosen[-1]] = -np.inf
        answers.ask(hypotheses.first[:, chosen[-1]], hypotheses.second[:, chosen[-1]])
        rounding = _ABSOLUTE
        if targets is None:
            _renew(gain, lambda rows: _information_gain(hypotheses.part(rows), answers))
        else:
            _renew_likely(gain, lambda rows: _target_gain(hypotheses.part(rows), answers, targets))


def pick(gain: Floats, random: np.random.RandomState, rounding: float = 0.0) -> int:
    """The row of the largest gain; one of those that are as large, drawn, where there are several."""
    best = np.flatnonzero(gain >= gain.max() * (1 - _RELATIVE) - rounding)
    return int(best[random.randint(len(best))] if len(best) > 1 else best[0])


def _renew(gain: Floats, compute: Callable[[NDArray[np.intp]], Floats]) -> None:
    """Bring gains up to date, in place, as far as the largest one needs it.

    A gain that was computed after fewer questions is a bound of the present one, since information is submodular
    (lazy greedy: Minoux, 1978).
    """
    order = np.argsort(-gain, kind="stable")
    order = order[: np.count_nonzero(np.isfinite(gain))]
    best, start, size = -np.inf, 0, _BLOCK_ROWS
    while start < len(order) and gain[order[start]] >= best * (1 - _RELATIVE) - _ABSOLUTE:
        rows = order[start : start + size]
        gain[rows] = compute(rows)
        best = max(best, float(gain[rows].max()))
        start += size
    # What is left is out of date, and smaller than the largest.
    stale = order[start:]
    gain[stale] = np.minimum(gain[stale], best * (1 - 2 * _RELATIVE) - 2 * _ABSOLUTE)


def _renew_likely(gain: Floats, compute: Callable[[NDArray[np.intp]], Floats]) -> None:
    """As `_renew`, where there is no bound: of those alone that were best before."""
    order = np.argsort(-gain, kind="stable")
    rows = order[: min(_LIKELY_ROWS, np.count_nonzero(np.isfinite(gain)))]
    gain[rows] = compute(rows)
    others = np.setdiff1d(np.flatnonzero(np.isfinite(gain)), rows)
    gain[others] = np.minimum(gain[others], gain[rows].max() * (1 - 2 * _RELATIVE) - 2 * _ABSOLUTE)


def joint_information(hypotheses: Hypotheses) -> float:
    """I(y_1, …, y_n; h), in nats, by enumeration of all 2ⁿ answers; the weights must be those of every column."""
    weights = hypotheses.weights[:, 0]
    table = np.ones((len(weights), 1))
    for first, second in zip(hypotheses.first.T, hypotheses.second.T, strict=True):
        table = np.concatenate([table * first[:, None], table * second[:, None]], axis=1)
    return float(-xlogy(weights @ table, weights @ table).sum() + weights @ xlogy(table, table).sum(axis=1))


def expected_answers_information(hypotheses: Hypotheses, targets: Hypotheses) -> Floats:
    """Mean over targets t of I(y_j; y_t), (n,), in nats, under the weights of the candidate's column."""
    return _target_gain(hypotheses, _Answers(hypotheses, 1, np.random.RandomState(0)), targets)


def _information_gain(some: Hypotheses, answers: _Answers) -> Floats:
    """I(y_j; h | y_S) of some of the questions."""
    # One where all combinations are counted.
    share = (answers.likelihood @ answers.factor)[:, None]
    noise = -(some.weights * share * (_x_log_x(some.first) + _x_log_x(some.second))).sum(axis=0)
    first = (some.weights * some.first).T @ answers.likelihood
    total = some.weights.T @ answers.likelihood
    second = np.maximum(total - first, 0.0)
    entropy = (_x_log_x(total) - _x_log_x(first) - _x_log_x(second)) @ answers.factor
    return np.asarray(np.maximum(entropy - noise, 0.0))


def _target_gain(hypotheses: Hypotheses, answers: _Answers, targets: Hypotheses) -> Floats:
    """Mean over targets of I(y_j; y_t | y_S)."""
    found = np.zeros(hypotheses.n_questions)
    for start in range(0, hypotheses.n_questions, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, hypotheses.n_questions))
        some = hypotheses.part(rows)
        for likelihood, factor in zip(answers.likelihood.T, answers.factor, strict=True):
            weights = some.weights * likelihood[:, None]
            total = weights.sum(axis=0)
            possible = total > 0
            weights = weights / np.where(possible, total, 1.0)
            found[rows] += np.where(possible, factor * total * _shared_information(some, weights, targets), 0.0)
    return found


def _shared_information(some: Hypotheses, weights: Floats, targets: Hypotheses) -> Floats:
    """Mean over targets of I(y_j; y_t) under these weights, (n,)."""
    first, second = weights * some.first, weights * some.second
    both = np.broadcast_to(weights, some.first.shape)
    information = np.zeros((some.n_questions, targets.n_questions))
    for of_target in (targets.first, targets.second):
        information += _x_log_x(first.T @ of_target) + _x_log_x(second.T @ of_target) - _x_log_x(both.T @ of_target)
    mean = information.mean(axis=1) - _x_log_x(first.sum(axis=0)) - _x_log_x(second.sum(axis=0))
    return np.asarray(np.maximum(mean, 0.0))


def _x_log_x(x: Floats) -> Floats:
    return np.asarray(x * np.log(np.maximum(x, _TINY)))
