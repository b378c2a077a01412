"""What the rival methods share: learned once from many annotators, then adapted to one of them by a few labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._base import PersonalPreferenceClassifier
from micropref._fitting import fitted, learning, predicting
from micropref._parameters import check_integer
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups, check_groups
from micropref._rows.labels import check_labels
from micropref._saveable import under
from micropref._state import Arrays, describe, recover, restore_ids, store_ids
from micropref.baselines._votes import Votes, flattened, unflattened

# Numbers of who is asked that are laid out beside the rows at a time.
_NUMBERS_BYTES = 1 << 26


class PersonalRewards(PersonalPreferenceClassifier):
    """Base of the rival methods: the public methods of a two-stage estimator around three private steps.

    A method says how it is learned from all rows (`_learn`), what an adaptation sees of a row (`_represent`), which
    numbers describe somebody with given votes (`_adapt`), and what they make of a row (`_log_odds`). Everybody starts
    from `_start`; rows without a group adapt everybody, rows with one adapt that user from there.
    """

    n_context_features: int
    _votes_of: dict[Hashable, Votes]
    _votes_of_all: Votes | None
    _numbers_of: dict[Hashable | None, np.ndarray]

    # What is saved of a fitted method besides the votes and numbers of users.
    _STATE_ARRAYS: ClassVar[tuple[str, ...]] = ("coef_",)
    _STATE_VALUES: ClassVar[tuple[str, ...]] = ()
    # Votes that are no single user's.
    _STATE_VOTES: ClassVar[tuple[str, ...]] = ("_votes_of_all",)

    # --------------------------------------------------------------------------------------------- steps of a method

    def _check_parameters(self) -> None:
        """A ValueError for the first parameter out of range."""
        check_integer(self, "n_context_features", 0)

    def _learns_first_rows(self) -> bool:
        """Whether `partial_fit` before `fit` learns the method from its rows; False where nothing is left to learn."""
        return True

    @abstractmethod
    def _learn(self, rows: Comparisons) -> None:
        """Set what is learned from all annotators; `_know` may take in those of them that are known from then on."""

    @abstractmethod
    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """What adaptation and prediction see of rows, (n, n_values)."""

    @abstractmethod
    def _start(self) -> np.ndarray:
        """Numbers (n_numbers,) that describe somebody of whom nothing is known."""

    @abstractmethod
    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        """Numbers (n_numbers,) that describe somebody with these votes, at least one, who began at `start`."""

    @abstractmethod
    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Log-odds (n,) from values (n, n_values) and the numbers (n, n_numbers) of who is asked."""

    # ------------------------------------------------------------------------------------------------------ learning

    @learning
    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn from the comparisons of all annotators; forget all users.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons; torch tensors are copied to NumPy arrays.
        y : array-like of shape (n_samples,), optional
            1, True: first preferred; 0, -1, False: second preferred. None: first preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            Annotator of every row; None, NaN or -1 for an ungrouped row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For NaN or infinite entries (row and column are named), differences that are all zero, labels that are not
            two, negative or all-zero weights, lengths that do not agree, and parameters out of range.
        """
        self._check_parameters()
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=True, host=True)
        rows.refuse_all_zero()
        self._forget()
        self._learn(rows)
        assert rows.classes is not None
        self.classes_ = rows.classes
        return self

    @learning
    def partial_fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Adapt to a few labelled rows: those with a group adapt that user, the others everybody.

        What was learned from all annotators stays as it is. Before `fit`, this is `fit`, unless the method was given
        what it would learn.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        classes : array-like of shape (2,), optional
            The labels that mean "second preferred" and "first preferred".
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            User of every row; None, NaN or -1 where there is none.

        Returns
        -------
        self
        """
        known = self._known_classes(classes)
        if not self.__sklearn_is_fitted__():
            signs, named = check_labels(y, len(X), classes=known)
            self.fit(X, signs, sample_weight, groups)
            self.classes_ = named
            if self._learns_first_rows():
                return self
        rows = Comparisons.read(
            self,
            X,
            y,
            sample_weight,
            groups,
            first=False,
            n_context_features=self._context_width(),
            classes=self.classes_,
            host=True,
            weight_may_be_zero=True,
        )
        self._votes_of, self._numbers_of = dict(self._votes_of), dict(self._numbers_of)
        votes = Votes(self._represent(rows.context, rows.difference), rows.dense_signs, rows.dense_weight)
        self._remember(votes, rows.groups)
        return self

    # ---------------------------------------------------------------------------------------------------- prediction

    @predicting
    def decision_function(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Log-odds that the first response is preferred, by this user.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            User of every row; an unknown user, None, NaN or -1 stands for anybody.

        Returns
        -------
        log_odds : ndarray of shape (n_samples,)
            In nats.
        """
        check_is_fitted(self)
        context, difference = self._checked(X)
        return self._answers(self._represent(context, difference), groups)

    # -------------------------------------------------------------------------------------------------------- saving

    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted method and of its users."""
        check_is_fitted(self)
        arrays = {name.strip("_"): getattr(self, name) for name in self._STATE_ARRAYS}
        users, votes = list(self._votes_of), [*self._votes_of.values()]
        shared = [getattr(self, name, None) for name in self._STATE_VOTES]
        arrays.update({f"votes.{name}": array for name, array in flattened([*votes, *shared]).items()})
        # Others, which are no plain numbers, follow from the votes.
        plain = {user: numbers for user, numbers in self._numbers_of.items() if numbers.dtype != object}
        if plain:
            row: dict[Hashable | None, int] = {None: -1, **{user: i for i, user in enumerate(users)}}
            arrays["numbers"] = np.stack(list(plain.values()))
            arrays["numbers_of"] = np.array([row[user] for user in plain], dtype=np.int64)
        description = describe(self, self._STATE_VALUES)
        return arrays, {**description, "users": store_ids(users, arrays)}

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The method that `_export` described."""
        model = cls(**description["parameters"])
        for name in cls._STATE_ARRAYS:
            setattr(model, name, arrays[name.strip("_")])
        model._forget()
        users = restore_ids(description["users"], arrays)
        votes = unflattened(under("votes", arrays))
        model._votes_of = {user: one for user, one in zip(users, votes, strict=False) if one is not None}
        for name, shared in zip(cls._STATE_VOTES, votes[len(users) :], strict=True):
            setattr(model, name, shared)
        for row, numbers in zip(arrays.get("numbers_of", ()), arrays.get("numbers", ()), strict=True):
            model._numbers_of[None if row < 0 else users[row]] = numbers
        recover(model, description, cls._STATE_VALUES)
        return model

    # ----------------------------------------------------------------------------------------------------- internals

    def _forget(self) -> None:
        self._votes_of = {}
        self._votes_of_all = None
        self._numbers_of = {}

    def _remember(self, votes: Votes, users: Groups | None) -> None:
        """Add votes to what is known of who cast them."""
        counted = votes.weight > 0  # a vote without weight was never cast
        index = np.full(len(votes), -1) if users is None else users.index
        if users is not None:
            # Sorted once, because thousands of annotators may come at a time.
            order = np.flatnonzero(counted & (index >= 0))
            order = order[np.argsort(index[order], kind="stable")]
            ends = np.cumsum(np.bincount(index[order], minlength=users.n_groups))
            for name, rows in zip(users.ids.tolist(), np.split(order, ends[:-1]), strict=True):
                self._know(name, votes.of(rows))
        everybody = votes.of(counted & (index < 0))
        if len(everybody):
            self._votes_of_all = everybody if self._votes_of_all is None else self._votes_of_all + everybody
            self._numbers_of.clear()

    def _know(self, user: Hashable, votes: Votes) -> None:
        """Add votes to what is known of a user."""
        if len(votes):
            known = self._votes_of.get(user)
            self._votes_of[user] = votes if known is None else known + votes
            self._numbers_of.pop(user, None)

    def _answers(self, values: np.ndarray, groups: ArrayLike | None) -> np.ndarray:
        """Log-odds (n,) from values (n, n_values) by who is asked, in blocks: numbers may be as many as features."""
        table, who = self._who(groups, len(values))
        size = max(1, _NUMBERS_BYTES // (table.itemsize * table.shape[1]))
        if who is None:
            return self._log_odds(values, np.broadcast_to(table[0], (len(values), table.shape[1])))
        blocks = (slice(first, first + size) for first in range(0, len(values), size))
        return np.concatenate([self._log_odds(values[block], table[who[block]]) for block in blocks])

    def _numbers(self, groups: ArrayLike | None, n_rows: int) -> np.ndarray:
        """The numbers of who is asked in every row, (n_rows, n_numbers)."""
        table, who = self._who(groups, n_rows)
        return np.broadcast_to(table[0], (n_rows, table.shape[1])) if who is None else table[who]

    def _who(self, groups: ArrayLike | None, n_rows: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers of everybody who is asked, (n_asked, n_numbers), and positions (n_rows,) in them; None: one is."""
        users = check_groups(groups, n_rows)
        common = self._describe(None)
        if users is None:
            return common[None], None
        # Position -1, a row without a user, is everybody's at the end.
        return np.stack([*map(self._describe, users.ids.tolist()), common]), users.index

    def _describe(self, user: Hashable | None) -> np.ndarray:
        """Numbers of one user; everybody's for None and for who is not known."""
        user = user if user in self._votes_of else None
        if user not in self._numbers_of:
            if user is None:
                start, votes = self._start(), self._votes_of_all
                self._numbers_of[None] = start if votes is None else self._adapt(votes, start)
            else:
                self._numbers_of[user] = self._adapt(self._votes_of[user], self._describe(None))
        return self._numbers_of[user]

    def _context_width(self) -> int:
        """Context columns of X, as they were in `fit`."""
        return int(fitted(self).n_context_features)

    def _checked(self, X: Array, *, reset: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Context and difference of X as NumPy arrays in the precision of computation."""
        rows = Comparisons.read(self, X, first=reset, n_context_features=self._context_width(), host=True)
        return rows.context, rows.difference

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def known_users(estimator: PersonalRewards) -> Sequence[Hashable]:
    """Users that an estimator knows, those of earlier batches first."""
    return list(estimator._votes_of)
