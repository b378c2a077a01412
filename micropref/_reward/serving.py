"""ServedModel: a model of texts whose users live elsewhere, asked from several threads while their votes come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from micropref._engine.question_batches import pick
from micropref._estimator.fitting import twin
from micropref._rows.layout import PairReader
from micropref._rows.pair_keys import NoQuestionLeftError, pair_keys
from micropref._users.history import UserHistory
from micropref._users.posteriors import UserPosteriors
from micropref._users.store import Pairs, UserStore
from micropref.datasets.table import PreferenceTable
from micropref.router import ContextRouter

__all__ = ["Candidates", "Explained", "Learned", "Rows", "ServedModel", "Suggested", "Vote"]


class Rows(NamedTuple):
    """Responses to be rewarded, column by column."""

    prompts: list[str]
    responses: list[str]
    contexts: list[str]
    users: list[Hashable | None]

    def part(self, start: int, end: int) -> Rows:
        """Some of the rows."""
        return Rows(self.prompts[start:end], self.responses[start:end], self.contexts[start:end], self.users[start:end])


class Vote(NamedTuple):
    """One user preferred one response to another."""

    user: Hashable
    prompt: str
    chosen: str
    rejected: str
    context: str = ""


class Learned(NamedTuple):
    """What votes have made of their users.

    Attributes
    ----------
    users : list of n_users ids
    values : ndarray of shape (n_users, n_numbers), dtype float32
        Their numbers after the votes.
    positions : ndarray of int of shape (n_votes,)
        Position in `users` of who gave each vote.
    pairs : ndarray of uint64 of shape (n_votes,)
        Keys of the pairs.
    """

    users: list[Hashable]
    values: NDArray[np.float32]
    positions: NDArray[np.int64]
    pairs: NDArray[np.uint64]


class Explained(NamedTuple):
    """Rewards of responses to one prompt, and where they come from.

    Attributes
    ----------
    rewards : ndarray of shape (n,)
    weights : ndarray of shape (K,)
        Of the heads, for this user and context.
    heads : ndarray of shape (K, n)
        Rewards of the responses under each head.
    """

    rewards: NDArray[Any]
    weights: NDArray[Any]
    heads: NDArray[Any]


class Suggested(NamedTuple):
    """A pair to ask about: its position among the candidates, and what the answer is expected to say, in nats."""

    row: int
    information: float


class Candidates(NamedTuple):
    """Pairs that a user can be asked about.

    Attributes
    ----------
    X : ndarray of shape (n, n_features_in)
    keys : ndarray of uint64 of shape (n,)
        Of the pairs.
    log_weights : ndarray of shape (K, n)
        What the contexts alone say of the heads.
    pairs : Pairs
        The rows as the heads see them.
    """

    X: NDArray[Any]
    keys: NDArray[np.uint64]
    log_weights: NDArray[Any]
    pairs: Pairs


class _Model(Protocol):
    """What is served of a `PreferenceModel`."""

    encoder: Any
    mixture: Any
    router: ContextRouter | None

    def reward(self, prompts: Any, responses: Any, contexts: Any, users: Any) -> Any: ...

    def _parts(self) -> tuple[str, ...]: ...

    def _pairs(self, table: PreferenceTable, parts: tuple[str, ...]) -> NDArray[Any]: ...

    def _acting(self, contexts: Sequence[str] | None, n: int) -> Sequence[str] | None: ...

    def _asking_router(self, X: NDArray[Any]) -> ContextRouter: ...


class ServedModel:
    """A model of texts that rewards for users whose votes are kept elsewhere.

    The users that the model itself knows are known here, too. What votes make of users is computed apart (`learn`) and
    counts from `adopt` on, so that votes can be written down in between.

    Parameters
    ----------
    model : PreferenceModel
        Stays as it is.
    """

    def __init__(self, model: _Model):
        self._model = twin(model)
        if model.router is None:
            self._model.router = self._new_router(model)
        else:
            self._model.router = model.router._forked()
        self._parts = self._model._parts()

    @staticmethod
    def _new_router(model: _Model) -> ContextRouter:
        """A router that knows of no user."""
        table = PreferenceTable(prompt=[""], chosen=["a"], rejected=["b"], context=[""])
        router = model._asking_router(model._pairs(table, model._parts()))
        router.history_ = _without_users(router.history_)
        return router

    @property
    def _router(self) -> ContextRouter:
        assert self._model.router is not None
        return self._model.router

    @property
    def n_heads(self) -> int:
        """K."""
        return len(self._model.mixture.coef_)

    @property
    def n_numbers(self) -> int:
        """Numbers of a user."""
        return int(self._router.history_.numbers_of([]).shape[1])

    @property
    def is_personal(self) -> bool:
        """Whether users can differ: not where all have one reward."""
        return self.n_heads > 1 or self._router.history_.scatter is not None

    # ------------------------------------------------------------------------------------------------------- judgement

    def reward(self, rows: Rows) -> NDArray[Any]:
        """Rewards of responses, as `PreferenceModel.reward` gives them."""
        return np.asarray(self._model.reward(rows.prompts, rows.responses, rows.contexts, rows.users))

    def explain(self, prompt: str, responses: Sequence[str], context: str, user: Hashable | None) -> Explained:
        """Rewards of responses to one prompt, with the weights of the heads and the rewards under each of them."""
        n, router = len(responses), self._router
        prompts, contexts = [prompt] * n, [context] * n
        users: Any = [user] * n
        features = self._model.encoder.encode_responses(prompts, responses, self._model._acting(contexts, n))
        shown = self._model.encoder.encode_context(prompts, contexts, self._parts)
        weights = router.mixture_weights(np.concatenate([shown, features], axis=1)[:1], groups=users[:1])[0]
        heads = np.asarray(self._model.mixture.rewards(features)).T
        return Explained(np.asarray(router.rewards(features, shown, users)), np.asarray(weights), heads)

    def weights(self, user: Hashable | None, context: str = "") -> NDArray[Any]:
        """Weights of the heads, shape (K,)."""
        return self.explain("", ["a"], context, user).weights

    def candidates(self, prompts: list[str], first: list[str], second: list[str], context: str) -> Candidates:
        """Pairs in one context, for `suggest`."""
        X = self._pairs(prompts, first, second, [context] * len(prompts))
        reader = PairReader(X, self._router.n_context_features_)
        keys = pair_keys(X[:, self._router.n_context_features_ :])
        return Candidates(X, keys, self._router._context_log_weights(reader), self._router._pairs(reader))

    def suggest(self, candidates: Candidates, n_queries: int, user: Hashable | None) -> list[Suggested]:
        """The pairs to ask a user next, the first question first; fewer where fewer are left."""
        router, X = self._router, candidates.X
        left = np.flatnonzero(~np.isin(candidates.keys, router.history_.answered_by(user)))
        n_left = len(np.unique(candidates.keys[left]))
        if not n_left:
            return []
        if n_queries == 1 and n_left == len(left):  # what `ContextRouter.suggest` does, without a second pass
            information = router._information(router._seen_of(candidates.log_weights, candidates.pairs, user))
            row = left[pick(information[left], np.random.RandomState(0))]
            return [Suggested(int(row), float(information[row]))]
        try:
            rows = router.suggest(X, min(n_queries, n_left), user)
        except NoQuestionLeftError:  # answered in this moment
            return []
        information = router._information(router._seen_by(X[rows], user))
        return [Suggested(int(row), float(nats)) for row, nats in zip(rows, information, strict=True)]

    def _pairs(self, prompts: list[str], first: list[str], second: list[str], contexts: list[str]) -> NDArray[Any]:
        """Pairs as rows of X."""
        return self._model._pairs(
            PreferenceTable(prompt=prompts, chosen=first, rejected=second, context=contexts), self._parts
        )

    # ------------------------------------------------------------------------------------------------------------ users

    def learn(self, votes: Sequence[Vote]) -> Learned:
        """What votes, oldest first, make of their users, the same in one call or in many; `adopt` lets it count."""
        router = self._router
        if not votes:
            return Learned(
                [], router.history_.numbers_of([]), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
            )
        users = list(dict.fromkeys(vote.user for vote in votes))
        place = {user: i for i, user in enumerate(users)}
        _, prompts, chosen, rejected, contexts = (list(column) for column in zip(*votes, strict=True))
        X = self._pairs(prompts, chosen, rejected, contexts)
        apart = twin(router)
        apart.history_ = _without_users(router.history_)
        apart.history_.restore(users, router.history_.numbers_of(users))
        groups = np.empty(len(votes), dtype=object)
        groups[:] = [vote.user for vote in votes]
        for rows in self._rounds(groups):
            apart.partial_fit(X[rows], groups=groups[rows])
        index = np.array([place[vote.user] for vote in votes], dtype=np.int64)
        return Learned(users, apart.history_.numbers_of(users), index, pair_keys(X[:, router.n_context_features_ :]))

    def _rounds(self, users: NDArray[Any]) -> list[Any]:
        """Which votes are learned together.

        A posterior judges votes that come together once more in the light of each other. Which votes these are must
        not depend on who else votes at the moment: there, one vote of each user at a time.
        """
        if self._router.history_.scatter is None:
            return [slice(None)]
        rounds: dict[int, list[int]] = {}
        seen: Counter[Hashable] = Counter()
        for row, user in enumerate(users):
            rounds.setdefault(seen[user], []).append(row)
            seen[user] += 1
        return list(rounds.values())

    def adopt(self, learned: Learned) -> None:
        """Let what was learned count."""
        history = self._router.history_
        history.restore(learned.users, learned.values)
        history.remember(learned.users, learned.positions, learned.pairs)

    def restore(
        self, users: Sequence[Hashable], values: NDArray[np.float32], rows: NDArray[Any], pairs: NDArray[np.int64]
    ) -> None:
        """Know these users by their numbers, and which pairs those at these rows of `users` have answered."""
        history = self._router.history_
        history.restore(users, values)
        history.remember(users, rows, pairs.view(np.uint64))

    def numbers(self) -> tuple[list[Hashable], NDArray[np.float32]]:
        """All users and their numbers."""
        users, values = self._router.history_.export()
        return users, values

    def forget(self, users: Sequence[Hashable]) -> None:
        """Remove every trace of users."""
        history = self._router.history_
        for user in users:
            if user in history:
                history.forget(user)

    def without_users(self) -> ServedModel:
        """The same model, which knows of no user."""
        other: ServedModel = twin(self)
        other._model = twin(self._model)
        other._model.router = twin(self._router)
        other._model.router.history_ = _without_users(self._router.history_)
        return other

    def __contains__(self, user: Hashable) -> bool:
        return user in self._router.history_

    def __len__(self) -> int:
        return len(self._router.history_)


def _without_users(history: Any) -> Any:
    """A store of the same kind that knows of no user."""
    users: UserStore
    users = UserHistory(history.numbers_of([]).shape[1]) if history.scatter is None else UserPosteriors(history.scatter)
    return users
