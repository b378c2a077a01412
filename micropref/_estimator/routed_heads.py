"""RoutedHeads: what heads answer whose weights depend on a context and on a user's own votes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, namespace
from micropref._engine.prediction import head_margins
from micropref._estimator.base import PersonalPreferenceClassifier
from micropref._estimator.context_gates import ContextGate
from micropref._estimator.fitting import predicting
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref._rows.matrix import check_block, check_matrix
from micropref._users.store import Pairs, UserStore
from micropref.kernels._pointwise import log_odds, log_sigmoid, log_softmax

__all__ = ["RoutedHeads"]


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
        """The penalty of g's weights that was used.

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

    @predicting
    def decision_function(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Log-odds that the first response is preferred, in this context and by this user.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            User of every row; an unknown user, None, NaN or -1 gets what the context says.

        Returns
        -------
        log_odds : array of shape (n_samples,)
            In nats.
        """
        margins, log_weights = self._forward(X, groups)
        return log_odds(log_weights, margins)

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
        log_weights = self._forward(X, groups)[1]
        return namespace(log_weights).exp(log_weights).T

    @predicting
    def rewards(self, features: Array, context: Array | None = None, groups: ArrayLike | None = None) -> Array:
        """Rewards Σ_k f_k(c) w_kᵀ φ of single responses, in this context and for this user.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array of shape (n_responses, n_context_features), optional
            Needed if the router has a context.
        groups : array-like of shape (n_responses,), optional
            As in `decision_function`.

        Returns
        -------
        rewards : array of shape (n_responses,)
            Only differences between responses to the same prompt have a meaning.
        """
        check_is_fitted(self, "history_")
        if context is None and self.n_context_features_:
            raise ValueError(
                f"context: expected the {self.n_context_features_} context features, got none; pass context=..."
            )
        each = self.mixture_.rewards(features)
        xp = namespace(each)
        X = check_block(features, self.mixture_.coef_.shape[1], "features", "single responses")
        if context is not None:
            width = self.n_context_features_
            meaning = f"(n_responses, {width}), the context columns alone"
            X = xp.concat([like(check_block(context, width, "context", meaning), X), X], axis=1)
        return xp.sum(each * xp.exp(self._answer(X, groups)[1]).T, axis=1)

    def _log_prior(self, reader: PairReader) -> Array:
        """log f⁰ of every row, (n_components, n_samples)."""
        return self.mixture_.context_log_weights(reader.X[:, : self.mixture_.n_context_features_])

    def _forward(self, X: Array, groups: ArrayLike | None) -> tuple[Array, Array]:
        """Margins and log-weights of every row, both (n_components, n_samples)."""
        check_is_fitted(self, "history_")
        return self._answer(check_matrix(self, X, reset=False), groups)

    def _answer(self, X: Array, groups: ArrayLike | None) -> tuple[Array, Array]:
        """As `_forward`, of rows that are checked already."""
        users = check_groups(groups, X.shape[0])
        reader = PairReader(X, self.n_context_features_)
        pairs = Pairs(head_margins(reader, self.mixture_.coef_))
        log_weights = self._context_gate.log_weights(X[:, : self.n_context_features_], self._log_prior(reader))
        if users is None:
            return pairs.margins, log_weights
        found = self.history_.answer(users.ids.tolist(), users.index, pairs, self.history_temperature_)
        updated = log_softmax(log_weights + like(found.evidence, log_weights, log_weights.dtype))
        # A user without evidence gets the prior to the last bit, which normalising again might not leave.
        has_evidence = like(np.any(found.evidence, axis=0), log_weights)
        return found.margins, namespace(updated).where(has_evidence, updated, log_weights)

    def _evidence(self, rows: Comparisons) -> Array:
        """−L_ik of every row, (n_components, n_samples)."""
        margins = head_margins(rows.reader, self.mixture_.coef_)
        if rows.signs is not None:
            margins = margins * like(rows.signs, margins, margins.dtype)
        return log_sigmoid(margins)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")
