"""Dialogue: questions to one user, each chosen after the answer to the one before."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from micropref._rows.ids import user_of
from micropref._rows.pair_keys import NoQuestionLeftError, pair_keys
from micropref.datasets._unoriented import read_unoriented
from micropref.datasets.table import PreferenceTable
from micropref.kernels._pointwise import sigmoid
from micropref.router import ContextRouter

__all__ = ["Answer", "Dialogue", "Question", "Replied"]

#: What a user prefers of the two responses in the order in which they are shown, or that the question is left out.
Answer = Literal["first", "second", "neither", "skip"]


class _Model(Protocol):
    """What a dialogue needs of a `PreferenceModel`."""

    def route(self, data: Any) -> Any: ...

    def _candidates(self, data: Any, context: str | None) -> NDArray[Any]: ...

    def _asking_router(self, X: NDArray[Any]) -> ContextRouter: ...


class Question(NamedTuple):
    """Two responses that a user is asked to compare.

    Attributes
    ----------
    row : int
        Position in the table of candidates.
    prompt, context : str
    responses : tuple of two str
        In the order in which they are shown.
    is_swapped : bool
        Whether the one that the table has first is shown second.
    information : float
        What the answer is expected to say of the user, in nats.
    probability : float
        Of the answer "first", as the model expects it.
    """

    row: int
    prompt: str
    context: str
    responses: tuple[str, str]
    is_swapped: bool
    information: float
    probability: float


@dataclass(frozen=True)
class Replied:
    """A question with its answer.

    Attributes
    ----------
    question : Question
    answer : {"first", "second", "neither", "skip"}
    """

    question: Question
    answer: Answer

    @property
    def probability(self) -> float | None:
        """Of this answer, before it was given; None where neither response was preferred."""
        expected = {"first": self.question.probability, "second": 1.0 - self.question.probability}
        return expected.get(self.answer)


class Dialogue:
    """Questions to one user of a model of texts, which learns every answer before it chooses the next question.

    Which of the two responses is shown first is drawn, so that the order of a file introduces no position bias.

    Parameters
    ----------
    model : PreferenceModel
        Learns the answers.
    data : table of n comparisons
        Candidates, with or without labels, which are not read.
    user : id
    context : str, optional
        The context of all candidates; None: those of the table.
    in_order : bool, default=False
        Show the responses in the order of the table.
    random_state : int, default=0
        Seed of the choice among questions that are equally good, and of which response is shown first.

    Raises
    ------
    ValueError
        If `user` is no id.
    """

    def __init__(
        self,
        model: _Model,
        data: Any,
        user: Hashable,
        *,
        context: str | None = None,
        in_order: bool = False,
        random_state: int = 0,
    ):
        self.user = user_of(user, "user")
        if self.user is None:
            raise ValueError(f"user: expected an id, got {user!r}, which stands for an unknown user")
        self.model = model
        table = read_unoriented(data)
        self.table: PreferenceTable = table
        self._contexts = table.context if context is None else [context] * len(table)
        self._X = model._candidates(table, context)
        self._random = check_random_state(random_state)
        self._swapped = np.zeros(len(table), dtype=bool) if in_order else self._random.random_sample(len(table)) < 0.5
        self._keys = pair_keys(self._X[:, self._router().n_context_features_ :])
        self._askable = np.ones(len(table), dtype=bool)
        self.replies: list[Replied] = []

    @property
    def is_known(self) -> bool:
        """Whether the model has votes of the user."""
        return self.user in self._router().history_

    @property
    def n_learned(self) -> int:
        """Answers that the model has learned."""
        return sum(reply.answer != "skip" for reply in self.replies)

    def next(self) -> Question | None:
        """The question whose answer says most of the user; None where every candidate was answered or left out."""
        rows = np.flatnonzero(self._askable)
        if not len(rows):
            return None
        router, candidates = self._router(), self._X[rows]
        try:
            chosen = int(router.suggest(candidates, 1, self.user, random_state=self._random)[0])
        except NoQuestionLeftError:
            return None
        pair, row = candidates[[chosen]], int(rows[chosen])
        who: Any = [self.user]
        swapped = bool(self._swapped[row])
        odds = float(router.decision_function(pair, groups=who)[0])
        texts = self.table.chosen[row], self.table.rejected[row]
        return Question(
            row,
            self.table.prompt[row],
            "" if self._contexts is None else self._contexts[row],
            (texts[1], texts[0]) if swapped else texts,
            swapped,
            float(router.expected_information(pair, who)[0]),
            float(sigmoid(np.float64(-odds if swapped else odds))),
        )

    def reply(self, question: Question, answer: Answer) -> Replied:
        """Learn an answer; one that is "skip" teaches nothing. In either case the pair is not asked again.

        Parameters
        ----------
        question : Question
        answer : {"first", "second", "neither", "skip"}
            "neither" is a tie: two votes, one in each order, each of half the weight.
        """
        replied = Replied(question, answer)
        if answer != "skip":
            self.model.route(self._votes([replied]))
        self.replies.append(replied)
        # The router remembers votes by their vectors, which some encoders compute differently in another batch.
        self._askable &= self._keys != self._keys[question.row]
        return replied

    def certainty(self) -> float:
        """How many of the user's choices among the candidates the model expects to predict, mean max(p, 1 − p).

        From 0.5; how near it comes to 1 also depends on how much alike the responses are.
        """
        who: Any = [self.user] * len(self._X)
        odds = np.asarray(self._router().decision_function(self._X, groups=who))
        return float(sigmoid(np.abs(odds.astype(np.float64))).mean())

    def weights(self) -> NDArray[np.float64]:
        """Weights of the heads for the user, on average over the candidates, shape (K,)."""
        who: Any = [self.user] * len(self._X)
        found: NDArray[np.float64] = np.asarray(self._router().mixture_weights(self._X, groups=who)).mean(axis=0)
        return found

    def votes(self) -> PreferenceTable | None:
        """All that was learned, as votes of the user, oldest first; None where there is nothing."""
        return self._votes(self.replies) if self.n_learned else None

    def _votes(self, replies: list[Replied]) -> PreferenceTable:
        rows = [
            (reply.question, winner, weight)
            for reply in replies
            for winner, weight in _WINNERS[reply.answer]
        ]  # fmt: skip
        return PreferenceTable(
            prompt=[question.prompt for question, _, _ in rows],
            chosen=[question.responses[winner] for question, winner, _ in rows],
            rejected=[question.responses[1 - winner] for question, winner, _ in rows],
            context=None if self._contexts is None else [question.context for question, _, _ in rows],
            group=[self.user] * len(rows),
            weight=[weight for _, _, weight in rows],
        )

    def _router(self) -> ContextRouter:
        return self.model._asking_router(self._X)


# The response that won, and the weight of the vote.
_WINNERS: dict[Answer, tuple[tuple[int, float], ...]] = {
    "first": ((0, 1.0),),
    "second": ((1, 1.0),),
    "neither": ((0, 0.5), (1, 0.5)),
    "skip": (),
}
