"""AskingModel: which comparison of texts to ask a user about next."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.fitting import predicting
from micropref._reward.base import TextModel
from micropref.datasets._unoriented import read_unoriented
from micropref.router import ContextRouter

__all__ = ["AskingModel"]


_ANOTHER_USER = ("another user", "than any who is asked")


class AskingModel(TextModel):
    """What a model of texts asks: a base of `PreferenceModel`."""

    @predicting
    def suggest(
        self,
        data: Any,
        n_queries: int = 1,
        user: Hashable | None = None,
        context: str | None = None,
        *,
        strategy: str = "information",
        target: Any = None,
        random_state: Any = 0,
    ) -> NDArray[np.intp]:
        """Choose the comparisons to ask a user about next.

        Parameters
        ----------
        data : table of n comparisons
            Candidates, with or without labels, which are not read: whatever `read_preferences` takes.
        n_queries : int, default=1
            Number of questions. Several are chosen jointly, so that no two of them ask about the same thing.
        user : id, optional
            User who is asked; None or an unknown id means a new user.
        context : str, optional
            The context of all candidates; None: the contexts of the table.
        strategy : {"information", "epig"}, default="information"
            As in `ContextRouter.suggest`.
        target : table of comparisons, optional
            Comparisons for which the user will be served, as in `ContextRouter.suggest`; in the same context.
        random_state : int, RandomState instance or None, default=0
            As in `ContextRouter.suggest`.

        Returns
        -------
        rows : ndarray of int of shape (n_queries,)
            Positions in the table, the first question first.

        Raises
        ------
        ValueError
            If `n_queries` is not between 1 and the number of distinct comparisons that the user has not answered, and
            for an unknown strategy.

        Examples
        --------
        >>> from micropref import PreferenceModel, load_demo
        >>> world = load_demo()
        >>> model = PreferenceModel.fit(world.train, random_state=0)
        >>> candidates = world.labelled[:20]
        >>> first = model.suggest(candidates, user="me")[0]
        >>> answer = candidates[[first]]
        >>> vote = {"prompt": answer.prompt, "chosen": answer.chosen, "rejected": answer.rejected, "group": ["me"]}
        >>> model = model.route(vote)
        >>> bool(model.suggest(candidates, user="me")[0] != first)
        True
        """
        X = self._candidates(data, context)
        targets = None if target is None else self._candidates(target, context)
        return self._asking_router(X).suggest(X, n_queries, user, strategy, target=targets, random_state=random_state)

    @predicting
    def expected_information(
        self, data: Any, user: Hashable | None = None, context: str | None = None
    ) -> NDArray[np.float64]:
        """Expected information of the answer to each comparison about a user, in nats.

        Parameters
        ----------
        data, user, context
            As in `suggest`.

        Returns
        -------
        information : ndarray of shape (n,)
            From 0 to ln 2, as in `ContextRouter.expected_information`.
        """
        X = self._candidates(data, context)
        groups: Any = None if user is None else [user] * len(X)
        return self._asking_router(X).expected_information(X, groups)

    def _candidates(self, data: Any, context: str | None) -> NDArray[Any]:
        table = read_unoriented(data)
        if context is not None:
            table = replace(table, context=[context] * len(table))
        return self._pairs(table, self._parts())

    def _asking_router(self, X: NDArray[Any]) -> ContextRouter:
        """The router; without one, a router that knows of no user."""
        if self.router is not None:
            return self.router
        # A router starts with rows: a vote of another user than any who is asked changes nothing that it says.
        return self._new_router({}).partial_fit(X[:1], groups=[_ANOTHER_USER])
