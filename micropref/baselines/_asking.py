"""Which pair to ask a user next, by each rival's own rule: one place for the methods, one class for each rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._engine.question_batches import choose_questions, pick
from micropref._engine.questions import Hypotheses, information_of_heads
from micropref._estimator.fitting import predicting
from micropref._rows.groups import check_groups
from micropref._rows.ids import user_of
from micropref._rows.pair_keys import askable_rows, pair_keys
from micropref.baselines._base import PersonalRewards
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import sigmoid

__all__ = ["AskingRewards", "Disagreement", "Ellipsoid"]

# Relative difference of rows that are the same pair: margins depend in their last digits on the other rows of a batch.
_SAME = 1e-5


class Rule(Protocol):
    """What is known of one user, and how questions to them are judged."""

    def scores(self, values: np.ndarray) -> np.ndarray:
        """How good each question is (n,), from what the method sees of the pairs, (n, n_values)."""

    def choose(self, values: np.ndarray, n_queries: int, random: np.random.RandomState) -> np.ndarray:
        """Rows to ask together, the first question first; all rows are different pairs."""


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """A normal distribution of the numbers θ that describe a user: how uncertain each answer is, to first order.

        score(d) = σ'(m)² gᵀ P⁻¹ g,        g = ∂m/∂θ,        σ' = σ (1 − σ)

    is the variance of p(first preferred) over the ellipsoid of the θ that the votes leave plausible (Shenfeld et al.,
    2025).

    Attributes
    ----------
    weights : ndarray of shape (n_values,)
        Margins are m = valuesᵀ weights.
    precision : ndarray of shape (p, p)
        P, at the mode.
    slopes : ndarray of shape (n_values, p), optional
        ∂weights/∂θ; None: θ are the weights.
    """

    weights: np.ndarray
    precision: np.ndarray
    slopes: np.ndarray | None = None

    def after(self, votes: Votes | None) -> Ellipsoid:
        """With the information of votes: P + Σ_i ω_i σ'(m_i) g_i g_iᵀ."""
        if votes is None:
            return self
        values = votes.values.astype(np.float64)
        gradients = self._gradients(values)
        information = (gradients * (votes.weight * _slope(values @ self.weights))[:, None]).T @ gradients
        return replace(self, precision=self.precision + information)

    def scores(self, values: np.ndarray) -> np.ndarray:
        gradients = self._gradients(values)
        spread = np.einsum("np,np->n", gradients, np.linalg.solve(self.precision, gradients.T).T)
        scores: np.ndarray = _slope(values @ self.weights) ** 2 * np.maximum(spread, 0.0)
        return scores

    def choose(self, values: np.ndarray, n_queries: int, random: np.random.RandomState) -> np.ndarray:
        known, left, chosen = self, np.zeros(len(values)), list[int]()
        for _ in range(n_queries):
            chosen.append(pick(known.scores(values) + left, random))
            left[chosen[-1]] = -np.inf
            # A question counts as answered, whatever the answer.
            known = known.after(Votes(values[chosen[-1:]], np.ones(1), np.ones(1)))
        return np.array(chosen)

    def _gradients(self, values: np.ndarray) -> np.ndarray:
        return values if self.slopes is None else values @ self.slopes


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Weights of heads: how far the heads disagree about an answer, as the information in it about the head, in nats.

    Attributes
    ----------
    log_weights : ndarray of shape (K,)
    temperature : float
        Of votes.
    """

    log_weights: np.ndarray
    temperature: float = 1.0

    def scores(self, values: np.ndarray) -> np.ndarray:
        weights = np.exp(self.log_weights)[:, None]
        return information_of_heads(weights, values.T.astype(np.float64), self.temperature)

    def choose(self, values: np.ndarray, n_queries: int, random: np.random.RandomState) -> np.ndarray:
        weights = np.exp(self.log_weights)[:, None]
        hypotheses = Hypotheses.of_margins(weights, values.T.astype(np.float64) / self.temperature)
        return choose_questions(hypotheses, n_queries, random)


class AskingRewards(PersonalRewards):
    """Base of the methods with a rule for what to ask a user next: a method says which (`_rule`)."""

    @abstractmethod
    def _rule(self, user: Hashable | None) -> Rule:
        """What is known of a user; of the population for None and for an unknown one."""

    @predicting
    def query_scores(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Value of the answer to every row for learning about its user, by the rule of this method.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
            Pairs that could be asked.
        groups : array-like of shape (n_samples,), optional
            User of every row, as in `decision_function`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Not negative; swapping a pair changes nothing.
        """
        check_is_fitted(self)
        values = self._represent(*self._checked(X)).astype(np.float64)
        users = check_groups(groups, len(values))
        index = np.full(len(values), -1) if users is None else users.index
        scores = np.zeros(len(values))
        for position in np.unique(index):
            mine = index == position
            user = None if users is None or position < 0 else users.ids.tolist()[position]
            scores[mine] = self._rule(user).scores(values[mine])
        return scores

    @predicting
    def suggest(
        self, X: Array, n_queries: int = 1, group: Hashable | None = None, *, random_state: Any = 0
    ) -> np.ndarray:
        """Choose the pairs to ask a user next, by `query_scores`.

        Several are chosen one after the other, each as if those before it had been answered, so that no two of them say
        the same. No pair is asked twice, the other way round neither, nor one that the user has answered.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
            Pairs that could be asked.
        n_queries : int, default=1
            Number of questions.
        group : hashable, optional
            The user; None, or one who is not known: a user of the population.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice among questions that are equally good.

        Returns
        -------
        rows : ndarray of int of shape (n_queries,)
            Positions in X, the first question first.

        Raises
        ------
        ValueError
            If `n_queries` is not between 1 and the number of distinct pairs that the user has not answered, or `group`
            is no id.
        """
        check_is_fitted(self)
        user = user_of(group, "group")
        context, difference = self._checked(X)
        values = self._represent(context, difference)
        keys = pair_keys(difference)
        rows = askable_rows(keys, n_queries, keys[_answered(values, self._votes_of.get(user))])
        values = values[rows].astype(np.float64)
        chosen: np.ndarray = rows[self._rule(user).choose(values, int(n_queries), check_random_state(random_state))]
        return chosen


def _slope(margins: np.ndarray) -> np.ndarray:
    slope: np.ndarray = sigmoid(margins) * sigmoid(-margins)
    return slope


def _answered(values: np.ndarray, votes: Votes | None) -> np.ndarray:
    """Which rows are pairs that a user has answered, either way round."""
    answered = np.zeros(len(values), dtype=bool)
    if votes is None:
        return answered
    size = _SAME * np.abs(values).max(axis=1, initial=0.0)
    for vote in votes.values:
        for other in (vote, -vote):
            answered |= np.abs(values - other).max(axis=1, initial=0.0) <= size
    return answered
