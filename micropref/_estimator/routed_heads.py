"""RoutedHeads: what heads answer whose weights depend on a context and on a user's own votes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, namespace, to_numpy
from micropref._engine.logistic_normal import expected_log_odds, moments
from micropref._engine.normal_mixtures import lower_quantile, mean_and_deviation
from micropref._engine.prediction import head_margins, scatter_coordinates
from micropref._estimator.base import PersonalPreferenceClassifier
from micropref._estimator.context_gates import ContextClusterGate, ContextGate
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import frozen, learning, predicting
from micropref._estimator.saveable import arrays_with_prefix
from micropref._estimator.saved import COUNT, FLAG, REAL, REALS, check_covariances, check_tensors, refused
from micropref._estimator.scattered_heads import restored_scatter
from micropref._estimator.state import Arrays, restore_ids
from micropref._rows.groups import Groups, check_groups
from micropref._rows.ids import user_of
from micropref._rows.layout import PairReader
from micropref._rows.matrix import check_block, check_matrix
from micropref._users.clusters import ContextClusters
from micropref._users.history import UserHistory
from micropref._users.merging import merged_users
from micropref._users.posteriors import UserPosteriors
from micropref._users.store import Answer, Pairs, UserStore
from micropref.kernels._pointwise import log_odds, log_sigmoid, log_softmax

__all__ = ["ROUTED_STATE", "RoutedHeads", "restored_users", "restored_width"]

#: What is saved besides tensors, the first stage and the ids of users.
ROUTED_STATE = {
    "history_temperature_": REAL,
    "objective_": REAL,
    "n_iter_": COUNT,
    "converged_": FLAG,
    "n_context_features_": COUNT,
    "loss_curve_": REALS,
}


class RoutedHeads(PersonalPreferenceClassifier):
    """Base of the models that weight heads by context and user: every answer follows from what they have learned.

    A learner sets the attributes below, `classes_` and `n_features_in_`.
    """

    mixture_: Any
    n_context_features_: int
    history_: UserStore
    history_temperature_: float
    _context_gate: ContextGate

    @property
    def gate_parameters_(self) -> list[NDArray[Any]]:
        """Parameters of g.

        Returns
        -------
        gate_parameters : list of ndarray
            Weights (K, c) and offsets (K,) if linear; empty for a gate without parameters.
        """
        return self._context_gate.parameters

    @property
    def alpha_(self) -> float:
        """The penalty that was used on the weights of g.

        Returns
        -------
        alpha : float
            What "auto" chose, or the number that was given.

        Raises
        ------
        AttributeError
            Where no labelled rows have taught a gate with parameters.
        """
        if self._context_gate.alpha is None:
            raise AttributeError("alpha_: expected a gate with parameters that labelled rows have taught, got none")
        return self._context_gate.alpha

    @property
    def clusters_(self) -> ContextClusters | None:
        """The clusters that the "cluster" gate found among the contexts.

        Returns
        -------
        clusters : ContextClusters or None
            None for other gates, and where the contexts have no clusters, so that the linear gate answers.
        """
        return self._context_gate.memory.clusters if isinstance(self._context_gate, ContextClusterGate) else None

    @predicting
    def decision_function(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Log-odds that the first response is preferred, in this context and by this user.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            User of every row; an unknown user, None, NaN or -1 gets what the context says. Where nothing has been
            learned of contexts, and the mixture has a reward of its own for users who have not voted, they get that.

        Returns
        -------
        log_odds : array of shape (n_samples,)
            In nats.
        """
        check_is_fitted(self, "history_")
        X = check_matrix(self, X, reset=False)
        users = check_groups(groups, X.shape[0])
        reader = PairReader(X, self.n_context_features_)
        log_weights, found = self._answer_pairs(reader, self._pairs(reader), users)
        margins = found.margins
        if found.variances is not None:
            margins = like(expected_log_odds(to_numpy(margins), found.variances), log_weights, log_weights.dtype)
        odds = log_odds(log_weights, margins)
        if self.mixture_.new_user_coef_ is None or self._context_gate.is_taught:
            return odds
        voted = self._have_voted(users, len(odds))
        if voted.all():
            return odds
        return namespace(odds).where(like(voted, odds), odds, self.mixture_._new_user_log_odds(reader))

    @predicting
    def mixture_weights(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Weights of the heads for every row.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        weights : array of shape (n_samples, n_components)
        """
        log_weights = self._forward(X, groups)[0]
        return namespace(log_weights).exp(log_weights).T

    @predicting
    def margin_interval(self, X: Array, groups: ArrayLike | None = None, *, level: float = 0.95) -> NDArray[np.float64]:
        """Interval that contains the margin of a pair, w_uᵀ d, with a given probability.

        The margin is the log-odds that this user would prefer the first response, were their reward w_u known;
        `decision_function` averages its σ over what is not known. A user of a mixture has one of K margins, a user of a
        hierarchical model one of a continuum.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.
        level : float, default=0.95
            Posterior probability of the interval; half of what is left lies on either side.

        Returns
        -------
        interval : ndarray of shape (n_samples, 2)
            Lower and upper end, in nats. Swapping the responses negates and swaps them exactly.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level: expected a probability between 0 and 1, got {level!r}")
        differences = check_matrix(self, X, reset=False)[:, self.n_context_features_ :]
        weights, means, variances = self._margin_distribution(differences, *self._forward(X, groups))
        # Of a margin that the comparisons of stage 1 do not determine, nothing is known.
        unbounded = np.isinf(variances).any(axis=0)
        variances = np.where(unbounded, 0.0, variances)
        lower = lower_quantile(weights, means, variances, 0.5 - 0.5 * level)
        upper = -lower_quantile(weights, -means, variances, 0.5 - 0.5 * level)
        # A median of two points that differ in sign may be either.
        interval = np.stack([np.minimum(lower, upper), np.maximum(lower, upper)], axis=1)
        interval[unbounded] = -np.inf, np.inf
        return interval

    @overload
    def rewards(
        self,
        features: Array,
        context: Array | None = None,
        groups: ArrayLike | None = None,
        *,
        return_std: Literal[False] = False,
    ) -> Array: ...

    @overload
    def rewards(
        self,
        features: Array,
        context: Array | None = None,
        groups: ArrayLike | None = None,
        *,
        return_std: bool,
    ) -> Array | tuple[Array, NDArray[np.float64]]: ...

    @predicting
    def rewards(
        self,
        features: Array,
        context: Array | None = None,
        groups: ArrayLike | None = None,
        *,
        return_std: bool = False,
    ) -> Array | tuple[Array, NDArray[np.float64]]:
        """Expected rewards E w_uᵀ φ of single responses, in this context and for this user.

        With the heads of a mixture, Σ_k f_k(c) w_kᵀ φ.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array of shape (n_responses, n_context_features), optional
            Needed if the router has a context.
        groups : array-like of shape (n_responses,), optional
            As in `decision_function`.
        return_std : bool, default=False
            Also return how far w_uᵀ φ may be from its expectation.

        Returns
        -------
        rewards : array of shape (n_responses,)
            In nats of log-odds. Only differences between responses to the same prompt have a meaning.
        std : ndarray of shape (n_responses,)
            Standard deviation of w_uᵀ φ given what is known of the user, in nats; only if `return_std`. The
            sampling error of the heads is in it where the mixture's `estimate_uncertainty` was called before the
            router was fitted; scatter is taken as it was fitted. Two responses depend on one w_u, so that the squares
            of two such deviations do not add up to that of a difference: ask `margin_interval` for a pair.
        """
        check_is_fitted(self, "history_")
        if context is None and self.n_context_features_:
            raise ValueError(
                f"context: expected the {self.n_context_features_} context features, got none; pass context=..."
            )
        n_features = self.mixture_.coef_.shape[1]
        meaning = f"(n_responses, {n_features}), the features of single responses without context"
        X = check_block(features, n_features, "features", meaning)
        if context is not None:
            width = self.n_context_features_
            meaning = f"(n_responses, {width}), the context columns alone"
            X = namespace(X).concat([like(check_block(context, width, "context", meaning), X), X], axis=1)
        log_weights, found = self._answer(X, groups)
        xp = namespace(log_weights)
        rewards = xp.sum(like(found.margins, log_weights, log_weights.dtype) * xp.exp(log_weights), axis=0)
        if not return_std:
            return rewards
        return rewards, mean_and_deviation(*self._margin_distribution(features, log_weights, found))[1]

    @learning
    def forget(self, user: Hashable) -> Self:
        """Forget one user: remove the user's evidence or posterior, and the list of answered pairs.

        Answers for this user are then those for a user who has not voted; all other answers keep their bits. Copies and
        files that were made before keep the user, until they are made again. Where the first stage learns in the same
        stream, what it remembers of annotators between batches is dropped as a whole.

        Parameters
        ----------
        user : id

        Returns
        -------
        self

        Raises
        ------
        KeyError
            If the user is not known.
        """
        check_is_fitted(self, "history_")
        known = user_of(user, "user")
        stream = getattr(self.mixture_, "_stream", None)
        taught = stream is not None and stream.knows(known)
        if known not in self.history_ and not taught:
            raise KeyError(f"expected a user who has voted, got {user!r}, who has no votes in this model")
        if known in self.history_:
            self.history_ = self.history_.copy()
            self.history_.forget(known)
        if stream is not None:
            self.mixture_ = frozen(self.mixture_)
            self.mixture_._stream = None
        return self

    def _margin_distribution(
        self, differences: Array, log_weights: Array, found: Answer
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weights, means and variances (n_components, n_rows) of the normal distributions of the margins."""
        means = to_numpy(found.margins).astype(np.float64)
        variances = np.zeros_like(means) if found.variances is None else found.variances
        if self.mixture_.uncertainty_ is not None:
            variances = variances + self.mixture_.uncertainty_.variances(to_numpy(differences))
        return np.exp(to_numpy(log_weights).astype(np.float64)), means, variances

    def _log_prior(self, reader: PairReader) -> Array:
        """log f⁰ of every row, (n_components, n_samples)."""
        return self.mixture_.context_log_weights(reader.X[:, : self.mixture_.n_context_features_])

    def _forward(self, X: Array, groups: ArrayLike | None) -> tuple[Array, Answer]:
        """Log-weights (n_components, n_samples) of every row, and what is known of its user."""
        check_is_fitted(self, "history_")
        return self._answer(check_matrix(self, X, reset=False), groups)

    def _answer(self, X: Array, groups: ArrayLike | None) -> tuple[Array, Answer]:
        """As `_forward`, of rows that are checked already."""
        users = check_groups(groups, X.shape[0])
        reader = PairReader(X, self.n_context_features_)
        return self._answer_pairs(reader, self._pairs(reader), users)

    def _answer_pairs(self, reader: PairReader, pairs: Pairs, users: Groups | None) -> tuple[Array, Answer]:
        """As `_answer`, of pairs as the heads see them."""
        return self._answer_users(self._context_log_weights(reader), pairs, users)

    def _context_log_weights(self, reader: PairReader) -> Array:
        """What the contexts alone say: log f of every row, (n_components, n_samples)."""
        contexts = reader.X[:, : self.n_context_features_]
        return self._context_gate.log_weights(contexts, self._log_prior(reader))

    def _answer_users(self, log_weights: Array, pairs: Pairs, users: Groups | None) -> tuple[Array, Answer]:
        """As `_answer_pairs`, where it is known what the contexts say."""
        if users is None:
            return log_weights, self._of_population(pairs)
        found = self.history_.answer(users.ids.tolist(), users.index, pairs, self.history_temperature_)
        updated = log_softmax(log_weights + like(found.evidence, log_weights, log_weights.dtype))
        # A user without evidence gets the prior to the last bit, which normalising again might not leave.
        has_evidence = like(np.any(found.evidence, axis=0), log_weights)
        return namespace(updated).where(has_evidence, updated, log_weights), found

    def _have_voted(self, users: Groups | None, n_rows: int) -> NDArray[np.bool_]:
        """Of every row, whether its user has voted."""
        if users is None:
            return np.zeros(n_rows, dtype=bool)
        known = [*(user in self.history_ for user in users.ids.tolist()), False]
        return np.take(known, users.index)  # -1 is the last

    def _pairs(self, reader: PairReader) -> Pairs:
        """The rows as the heads see them."""
        margins = head_margins(reader, self.mixture_.coef_)
        scatter = self.history_.scatter
        return Pairs(margins) if scatter is None else Pairs(margins, *scatter_coordinates(reader, scatter))

    def _of_population(self, pairs: Pairs) -> Answer:
        """What is known of a user who has not voted."""
        if pairs.coordinates is None:
            return Answer(np.zeros(1), pairs.margins)
        return self.history_.answer([], np.full(len(pairs.coordinates), -1), pairs)

    def _evidence(self, pairs: Pairs) -> Array:
        """−L_ik of signed pairs, (n_components, n_pairs): their log-likelihood under each head, of a new user."""
        found = self._of_population(pairs)
        return log_sigmoid(found.margins) if found.variances is None else moments(found.margins, found.variances)[0]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")


def restored_width(description: Mapping[str, Any], mixture: Any) -> int:
    """The number of context columns of a saved router; a ModelFileError where it does not fit X and the first stage."""
    width, columns = (description["state"].get(name) for name in ("n_context_features_", "n_features_in_"))
    least = mixture.n_context_features_
    if type(width) is not int or width < least or width + mixture.coef_.shape[1] != columns:
        raise refused("state.n_context_features_", f"the columns of X before the difference, at least {least},", width)
    return width


def restored_users(arrays: Arrays, description: Mapping[str, Any], mixture: Any) -> UserStore:
    """The users of a saved router; a ModelFileError where their numbers are not of these heads."""
    k, d = mixture.coef_.shape
    users = restore_ids(description["users"], arrays)
    if not description.get("users_scatter", False):
        check_tensors(arrays, {"history": (len(users), k)})
        history = UserHistory(k)
        # Sums of log-likelihoods, which alone are as old as ids that are one user by now, can be added.
        history.restore(*merged_users(users, arrays["history"]))
        return _with_answered(history, arrays)
    scatter = restored_scatter(arrays, "users", k, d) if "users.basis" in arrays else mixture.scatter_
    if scatter is None:
        raise refused("users_scatter", "false where no users scatter", True)
    posteriors = UserPosteriors(scatter)
    check_tensors(arrays, {"history": (len(users), posteriors.n_numbers)})
    posteriors.restore(users, arrays["history"])
    for covariances in posteriors.covariances():
        check_covariances("history", covariances)
    return _with_answered(posteriors, arrays)


def _with_answered(users: UserStore, arrays: Arrays) -> UserStore:
    """Users with the pairs that they have answered, where any are saved."""
    answered = arrays_with_prefix("answered", arrays)
    if answered:
        check_tensors(answered, {"users": (None,), "pairs": (len(answered.get("users", ())),)})
        rows, pairs = answered["users"], answered["pairs"]
        if rows.dtype.kind != "i" or pairs.dtype != np.int64 or not ((rows >= 0) & (rows < len(users))).all():
            raise ModelFileError("answered: expected rows of users and keys of pairs in a saved model, got others")
        users.answered.restore(answered)
    return users
