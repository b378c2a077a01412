"""What the rival methods share: learned once from many annotators, then adapted to one of them by a few labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array
from micropref._estimator.base import PersonalPreferenceClassifier
from micropref._estimator.determined import warn_of_undetermined
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import check_same_parameters, learning, predicting
from micropref._estimator.parameters import AUTO, check_integer
from micropref._estimator.saveable import arrays_with_prefix
from micropref._estimator.saved import Kind, check_tensors, listed
from micropref._estimator.state import Arrays, describe, recover, restore_ids, store_ids
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups, check_groups
from micropref.baselines._votes import Votes, flattened, unflattened

__all__ = ["PersonalRewards", "known_users"]

# Bytes of the users' numbers that are laid out beside the rows at a time.
_NUMBERS_BYTES = 1 << 26
# Of a saved model: users whose numbers are checked at a time, and columns up to which it is asked for an answer.
_CHECKED_USERS, _MOST_COLUMNS = 1 << 10, 1 << 20
# Of a value and a coefficient in a saved model: posteriors work with squares of it, and with products of several.
_MOST_PRODUCT = 1e50


@dataclass(frozen=True, eq=False)
class _Adaptation:
    """Numbers of a user or of the population, with all that they were computed from.

    Computed once they are asked for and kept from then on, by threads that predict while others learn: what a
    prediction computed from old votes must never answer for new ones.

    Attributes
    ----------
    numbers : ndarray of shape (n_numbers,)
    votes : Votes or None
    start : _Adaptation or None
        The population's, from which a user begins; None for the population itself.
    settings : tuple
        Values of the parameters that `_adapt` reads.
    """

    numbers: np.ndarray
    votes: Votes | None
    start: _Adaptation | None
    settings: tuple[Any, ...]

    def is_of(self, votes: Votes | None, start: _Adaptation | None, settings: tuple[Any, ...]) -> bool:
        """Whether the numbers were computed from just this."""
        return self.votes is votes and self.start is start and self.settings == settings


class PersonalRewards(PersonalPreferenceClassifier):
    """Base of the rival methods: the public methods of a two-stage estimator around a few private steps.

    A method says how it is learned from all rows (`_learn`), what an adaptation sees of a row (`_represent`), which
    numbers describe a user with given votes (`_adapt`), and what they make of a row (`_log_odds`). The population
    starts from `_start`; rows without a group adapt the population, rows with one adapt that user from there.
    """

    n_context_features: int
    _votes_of: dict[Hashable, Votes]
    _votes_of_all: Votes | None
    _adaptations: dict[Hashable | None, _Adaptation]

    # Parameters that shape what was learned: `partial_fit` cannot go on with others.
    _SHAPE: ClassVar[tuple[str, ...]] = ("n_context_features",)
    # Parameters that `_start` and `_adapt` read.
    _ADAPTS_BY: ClassVar[tuple[str, ...]] = ()
    # What is saved of a fitted method besides the votes and numbers of users.
    # Arrays by their shapes, in which K is the number of heads or of what a method has instead, and D that of features.
    _STATE_ARRAYS: ClassVar[Mapping[str, str]] = listed(coef_="D")
    _STATE_VALUES: ClassVar[Mapping[str, Kind]] = listed()
    # Votes that are no single user's.
    _STATE_VOTES: ClassVar[tuple[str, ...]] = ("_votes_of_all",)
    _SAVED_ENTRIES: ClassVar[tuple[str, ...]] = ("users",)
    _SAVED_SINCE: ClassVar[tuple[str, ...]] = ()
    _SAVED_TENSORS: ClassVar[str] = r"\w+|votes\.(places|[0-3]\.(values|signs|weight))"

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
        """Numbers (n_numbers,) that describe a user of whom nothing is known."""

    @abstractmethod
    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        """Numbers (n_numbers,) that describe a user with these votes, at least one, who began at `start`."""

    @abstractmethod
    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Log-odds (n,) from values (n, n_values) and the numbers (n, n_numbers) of each row's user."""

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
        self._begin(Comparisons.read(self, X, y, sample_weight, groups, first=True, host=True))
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
        """Adapt to a few labelled rows: rows with a group adapt that user, the others the population.

        What was learned from all annotators stays as it is: parameters that adaptation does not read take effect at
        the next `fit`. Before `fit`, this is `fit`, unless the method was given what it would learn.

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

        Raises
        ------
        ValueError
            As in `fit`; and where labels, width, or a parameter that shapes what was learned are not as they were.
        """
        started = self.__sklearn_is_fitted__()
        check_same_parameters(self, self._SHAPE)
        self._check_parameters()
        rows = Comparisons.read(
            self,
            X,
            y,
            sample_weight,
            groups,
            first=not started,
            classes=self._known_classes(classes),
            host=True,
            weight_may_be_zero=started,
        )
        if not started:
            self._begin(rows)
            if self._learns_first_rows():
                return self
        # Threads that predict meanwhile read the dictionaries of before.
        self._votes_of, self._adaptations = self._votes_of.copy(), self._adaptations.copy()
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
            User of every row; an unknown user, None, NaN or -1 gets the answer of the population.

        Returns
        -------
        log_odds : ndarray of shape (n_samples,)
            In nats.
        """
        check_is_fitted(self)
        context, difference = self._checked(X)
        return self._answers(self._represent(context, difference), groups)

    # -------------------------------------------------------------------------------------------------------- saving

    @predicting
    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        """Arrays, and what JSON can say, of the fitted method and of its users."""
        check_is_fitted(self)
        arrays = {name.strip("_"): getattr(self, name) for name in self._STATE_ARRAYS}
        users, votes = list(self._votes_of), [*self._votes_of.values()]
        shared = [getattr(self, name, None) for name in self._STATE_VOTES]
        self._check_sizes([*votes, *shared])  # what is refused later must not take the place of another model
        arrays.update({f"votes.{name}": array for name, array in flattened([*votes, *shared]).items()})
        # A copy, to which threads that predict meanwhile add nothing. What is no row of numbers follows from the votes.
        kept = self._adaptations.copy()
        plain = {
            user: one.numbers
            for user, one in kept.items()
            if self._kept(kept, user) is one and one.numbers.dtype != object
        }
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
        model._check_parameters()
        recover(model, description, cls._STATE_VALUES)
        for name, kind in cls._STATE_VALUES.items():
            if getattr(model, name, None) is None:
                raise ModelFileError(f"state.{name}: expected {kind.words} in a saved model, got none")
        model._restore_arrays(arrays)
        model._forget()
        model._restore_users(arrays, restore_ids(description["users"], arrays))
        return model

    def _restore_arrays(self, arrays: Arrays) -> None:
        """What was learned, from saved tensors of the shapes that the class lists."""
        lengths: dict[str, int | None] = {"D": self.n_features_in_ - self.n_context_features}
        for name, letters in self._STATE_ARRAYS.items():
            saved = name.strip("_")
            check_tensors(arrays, {saved: tuple(lengths.get(letter) for letter in letters)})
            lengths.update(zip(letters, arrays[saved].shape, strict=True))
            setattr(self, name, arrays[saved])
        if not lengths["D"]:
            raise ModelFileError("state.n_features_in_: expected columns after the context in a saved model, got none")

    def _restore_users(self, arrays: Arrays, users: list[Hashable]) -> None:
        """Votes of users, and the numbers that describe them."""
        nothing = np.zeros((1, self.n_features_in_ if self.n_features_in_ <= _MOST_COLUMNS else 1))
        width = self._represent(*np.split(nothing, [self.n_context_features], axis=1)).shape[1]
        votes = unflattened(arrays_with_prefix("votes", arrays), len(users) + len(self._STATE_VOTES), width)
        if any(one is not None and not len(one) for one in votes):
            raise ModelFileError("votes.places: expected votes of every user who is known in a saved model, got none")
        self._votes_of = {user: one for user, one in zip(users, votes, strict=False) if one is not None}
        for name, shared in zip(self._STATE_VOTES, votes[len(users) :], strict=True):
            setattr(self, name, shared)
        self._check_sizes(votes)
        if "numbers" not in arrays:
            return
        check_tensors(arrays, {"numbers": (None, len(self._start())), "numbers_of": (len(arrays["numbers"]),)})
        rows = arrays["numbers_of"].tolist()
        if len({*rows}) < len(rows) or not {*rows} <= {-1, *range(len(users))}:
            raise ModelFileError("numbers_of: expected rows of users, each once, in a saved model, got others")
        self._check_numbers(arrays["numbers"], width)
        # The population's come first, because those of users depend on them.
        for row, numbers in sorted(zip(rows, arrays["numbers"], strict=True), key=lambda pair: pair[0]):
            self._keep(None if row < 0 else users[row], numbers)

    def _check_sizes(self, votes: Sequence[Votes | None]) -> None:
        """A ModelFileError where what is learned from votes could leave double precision.

        Whatever the unit of features, products of values and coefficients are in nats, and those of a fit are small.
        """
        values = max((_largest(one.values) for one in votes if one is not None), default=0.0)
        for name in self._STATE_ARRAYS:
            if values * _largest(getattr(self, name)) > _MOST_PRODUCT:
                raise ModelFileError(
                    f"{name.strip('_')}: expected a tensor whose products with the values of votes are at most "
                    f"{_MOST_PRODUCT:g} in a saved model, got larger ones"
                )

    def _check_numbers(self, numbers: np.ndarray, width: int) -> None:
        """A ModelFileError unless users with these numbers get finite answers."""
        with np.errstate(all="ignore"):
            for first in range(0, len(numbers), _CHECKED_USERS):
                block = numbers[first : first + _CHECKED_USERS]
                if not np.isfinite(self._log_odds(np.ones((len(block), width)), block)).all():
                    raise ModelFileError("numbers: expected those of users in a saved model, got others")

    # ----------------------------------------------------------------------------------------------------- internals

    def _begin(self, rows: Comparisons) -> None:
        """Learn from the rows of all annotators."""
        rows.refuse_all_zero()
        self._forget()
        self._learn(rows)
        assert rows.classes is not None
        self.classes_ = rows.classes
        # One without a penalty of its own is as one with the usual: items may not meet all the same.
        alpha = getattr(self, "alpha", AUTO)
        warn_of_undetermined(rows, alpha, float(rows.norms[1]), rows.total_weight)

    def _forget(self) -> None:
        self._votes_of = {}
        self._votes_of_all = None
        self._adaptations = {}

    def _remember(self, votes: Votes, users: Groups | None) -> None:
        """Add votes to what is known of the users who cast them, or of the population."""
        counted = votes.weight > 0  # a vote without weight was never cast
        index = np.full(len(votes), -1) if users is None else users.index
        if users is not None:
            # Sorted once, because thousands of annotators may come at a time.
            order = np.flatnonzero(counted & (index >= 0))
            order = order[np.argsort(index[order], kind="stable")]
            ends = np.cumsum(np.bincount(index[order], minlength=users.n_groups))
            for name, rows in zip(users.ids.tolist(), np.split(order, ends[:-1]), strict=True):
                self._know(name, votes.of(rows))
        ungrouped = votes.of(counted & (index < 0))
        if len(ungrouped):
            self._votes_of_all = ungrouped if self._votes_of_all is None else self._votes_of_all + ungrouped
            self._adaptations.clear()  # only to free the memory, as below: none of them is valid

    def _know(self, user: Hashable, votes: Votes) -> None:
        """Add votes to what is known of a user."""
        if len(votes):
            known = self._votes_of.get(user)
            self._votes_of[user] = votes if known is None else known + votes
            self._adaptations.pop(user, None)

    def _answers(self, values: np.ndarray, groups: ArrayLike | None) -> np.ndarray:
        """Log-odds (n,) from values (n, n_values), in blocks: a user's numbers may be as many as features."""
        table, position = self._tables(groups, len(values))
        size = max(1, _NUMBERS_BYTES // (table.itemsize * table.shape[1]))
        if position is None:
            return self._log_odds(values, np.broadcast_to(table[0], (len(values), table.shape[1])))
        blocks = (slice(first, first + size) for first in range(0, len(values), size))
        return np.concatenate([self._log_odds(values[block], table[position[block]]) for block in blocks])

    def _numbers(self, groups: ArrayLike | None, n_rows: int) -> np.ndarray:
        """The numbers of every row's user, (n_rows, n_numbers)."""
        table, position = self._tables(groups, n_rows)
        return np.broadcast_to(table[0], (n_rows, table.shape[1])) if position is None else table[position]

    def _tables(self, groups: ArrayLike | None, n_rows: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers of all users among the rows, (n_users, n_numbers), and each row's position in them (n_rows,).

        Without positions, all rows are the population's.
        """
        users = check_groups(groups, n_rows)
        common = self._describe(None)
        if users is None:
            return common[None], None
        # Position -1, a row without a user, is the population's at the end.
        return np.stack([*map(self._describe, users.ids.tolist()), common]), users.index

    def _describe(self, user: Hashable | None) -> np.ndarray:
        """Numbers of one user; the population's for None and for an unknown user."""
        return self._adaptation(user).numbers

    def _adaptation(self, user: Hashable | None) -> _Adaptation:
        """What describes one user, or the population, computed where it is not known for their present votes."""
        user = user if user in self._votes_of else None
        kept = self._kept(self._adaptations, user)
        if kept is not None:
            return kept
        votes = self._votes(user)
        start = self._start() if user is None else self._describe(None)
        return self._keep(user, start if votes is None else self._adapt(votes, start))

    def _keep(self, user: Hashable | None, numbers: np.ndarray) -> _Adaptation:
        """Keep the numbers that describe a user, or the population, by the present votes."""
        start = None if user is None else self._adaptation(None)
        made = _Adaptation(numbers, self._votes(user), start, self._settings())
        self._adaptations[user] = made
        return made

    def _kept(self, adaptations: dict[Hashable | None, _Adaptation], user: Hashable | None) -> _Adaptation | None:
        """What is kept of a user, or of the population, if it was computed from the votes and parameters of now."""
        start = None
        if user is not None:
            start = self._kept(adaptations, None)
            if start is None:
                return None
        one = adaptations.get(user)
        return one if one is not None and one.is_of(self._votes(user), start, self._settings()) else None

    def _votes(self, user: Hashable | None) -> Votes | None:
        return self._votes_of_all if user is None else self._votes_of[user]

    def _in_force(self, name: str) -> float:
        """A parameter of adaptation as a number: "auto" is what `fit` chose, the attribute with an underscore."""
        value = getattr(self, name)
        return float(getattr(self, f"{name}_") if isinstance(value, str) else value)

    def _settings(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._ADAPTS_BY)

    def _checked(self, X: Array) -> tuple[np.ndarray, np.ndarray]:
        """Context and difference of X as NumPy arrays in the precision of computation."""
        rows = Comparisons.read(self, X, first=False, host=True)
        return rows.context, rows.difference

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_adaptations" in state:
            # Threads that predict may add to it while it is pickled.
            state["_adaptations"] = state["_adaptations"].copy()
        return state

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _largest(array: np.ndarray) -> float:
    return max(-float(array.min()), float(array.max())) if array.size else 0.0


def known_users(estimator: PersonalRewards) -> Sequence[Hashable]:
    """Users that an estimator knows, those of earlier batches first."""
    return list(estimator._votes_of)
