"""ChoosingModel: which of several responses a model of texts prefers, for whom."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.fitting import predicting
from micropref._reward.judging import JudgingModel
from micropref._reward.relabelling import check_margin, relabelled
from micropref._reward.served import ids_of_rows, served
from micropref.datasets._asked import listed_rows, read_contexts
from micropref.datasets._unoriented import read_unoriented
from micropref.datasets.table import PreferenceTable

__all__ = ["ChoosingModel"]

# Responses that `best_of` scores at once: their features, not their vectors alone, are in memory together.
_AT_ONCE = 1 << 13


class ChoosingModel(JudgingModel):
    """Orders, best answers and relabelled comparisons: a base of `PreferenceModel`."""

    @predicting
    def rank(
        self,
        prompt: Any,
        responses: Sequence[Any],
        context: Any = "",
        user: Hashable | None = None,
        *,
        empty: float | None = None,
    ) -> NDArray[Any]:
        """Rank candidate responses to one prompt, the best first.

        Parameters
        ----------
        prompt : str or conversation
        responses : sequence of n texts or conversations
        context : str or conversation, default=""
        user : id, optional
        empty : float, optional
            As in `reward`; ``-numpy.inf`` puts empty responses last.

        Returns
        -------
        order : ndarray of int of shape (n,)
            ``responses[order[0]]`` is the best.
        """
        candidates = listed_rows(responses, "responses")
        n = len(candidates)
        users = None if user is None else [user] * n
        rewards = self.reward([prompt] * n, candidates, [context] * n, users, empty=_comparable(empty))
        return np.argsort(-rewards, kind="stable")

    @predicting
    def best_of(
        self,
        prompts: Sequence[Any],
        candidates: Sequence[Sequence[Any]],
        contexts: Sequence[Any] | str | None = None,
        users: Sequence[Hashable] | Hashable | None = None,
        *,
        empty: float | None = None,
    ) -> NDArray[np.intp]:
        """Choose the best of several candidate responses to each prompt.

        Parameters
        ----------
        prompts : sequence of n texts or conversations
        candidates : sequence of n sequences of texts or conversations
            At least one for each prompt; not necessarily as many for all.
        contexts, users
            As in `reward`, for each prompt.
        empty : float, optional
            As in `reward`; ``-numpy.inf`` chooses an empty response only if there is no other.

        Returns
        -------
        indices : ndarray of int of shape (n,)
            ``candidates[i][indices[i]]`` is the best answer to ``prompts[i]``; of several equally good answers, the
            first.

        Raises
        ------
        ValueError
            If the numbers of prompts, candidates, contexts and users differ, or if a prompt has no candidate.

        Examples
        --------
        >>> from micropref import PreferenceModel, load_demo
        >>> world = load_demo()
        >>> model = PreferenceModel.fit(world.train, n_components=4, random_state=0).route(world.labelled)
        >>> short = "Same bedtime every night. Phone out of the room."
        >>> long = (
        ...     "First, keep the same bedtime every night, since habit helps. "
        ...     "Then leave the phone in another room. Finally, read."
        ... )
        >>> model.best_of(["How do I fall asleep?"], [[long, short]], contexts="Keep it short, just the essentials.")
        array([1])
        """
        questions, lists = listed_rows(prompts, "prompts"), listed_rows(candidates, "candidates")
        if len(questions) != len(lists):
            raise ValueError(
                "expected a list of candidates for every prompt, "
                f"got {len(questions)} prompts and {len(lists)} lists of candidates"
            )
        answers = [listed_rows(each, f"candidates[{i}]") for i, each in enumerate(lists)]
        for i, each in enumerate(answers):
            if not each:
                raise ValueError(f"candidates[{i}]: expected at least one candidate, got none")
        stated, ids = read_contexts(contexts, len(answers)), ids_of_rows(users, len(answers))
        reward = _comparable(empty)
        best = np.zeros(len(answers), dtype=np.intp)
        for rows in _together([len(each) for each in answers]):
            places = [i for i in rows for _ in answers[i]]
            rewards = self.reward(
                [questions[i] for i in places],
                [answer for i in rows for answer in answers[i]],
                None if stated is None else [stated[i] for i in places],
                None if ids is None else [ids[i] for i in places],
                empty=reward,
            )
            ends = np.cumsum([len(answers[i]) for i in rows])
            best[rows] = [int(np.argmax(part)) for part in np.split(rewards, ends[:-1])]
        return best

    @predicting
    def relabel(
        self,
        data: Any,
        *,
        users: Sequence[Hashable] | Hashable | None = None,
        contexts: Sequence[Any] | str | None = None,
        min_margin: float = 0.0,
    ) -> PreferenceTable:
        """Decide comparisons as a user or a context would: preference data for DPO.

        Parameters
        ----------
        data : table of n comparisons
            With or without labels, which are not read.
        users : sequence of n ids, or one str or int for all rows, optional
            Users who decide; by default an unknown user.
        contexts : sequence of n texts or conversations, or one str for all rows, optional
            Instead of those of the table.
        min_margin : float, default=0.0
            Leave out rows whose log-odds are closer to zero than this, in nats.

        Returns
        -------
        table : PreferenceTable
            The preferred response of each row as `chosen`. Extra columns are ``margin``, the log-odds in nats, ``row``,
            the position in `data`, and ``turned``, whether the two responses changed places. `n_rejected` is the number
            of rows left out; ``print(table.report)`` also shows how many were turned.

        Raises
        ------
        ValueError
            If `min_margin` is not a number of at least 0; and as in `log_odds`.

        Examples
        --------
        >>> from micropref import PreferenceModel, load_demo
        >>> world = load_demo()
        >>> model = PreferenceModel.fit(world.train, n_components=4, random_state=0).route(world.history)
        >>> table = model.relabel(world.test, users=world.history.group[0], min_margin=1.0)
        >>> len(table) + table.n_rejected == len(world.test), min(table.extra["margin"]) >= 1.0
        (True, True)
        """
        check_margin(min_margin)
        # Those who answered are not those who are served.
        table = served(replace(read_unoriented(data), group=None), users, contexts)
        if not len(table):
            return relabelled(table, np.empty(0), min_margin)
        return relabelled(table, self.log_odds(table).astype(np.float64), min_margin)


def _comparable(empty: float | None) -> float | None:
    """The reward of an empty response, which must be comparable with others."""
    if empty is not None and np.isnan(empty):
        raise ValueError("empty: expected a number that can be compared with rewards, got nan")
    return empty


def _together(counts: list[int]) -> Iterator[list[int]]:
    """Positions of lists, as many at a time as are scored at once, at least one."""
    rows: list[int] = []
    total = 0
    for i, count in enumerate(counts):
        if rows and total + count > _AT_ONCE:
            yield rows
            rows, total = [], 0
        rows.append(i)
        total += count
    if rows:
        yield rows
