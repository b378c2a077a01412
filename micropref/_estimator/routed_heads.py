"""RoutedHeads: what heads answer whose weights depend on a context and on a user's own votes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, namespace, to_numpy
from micropref._engine.gates import Gate
from micropref._engine.prediction import gate_log_weights, head_margins
from micropref._estimator.base import PersonalPreferenceClassifier
from micropref._estimator.fitting import predicting
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref._rows.matrix import check_block, check_matrix
from micropref._users.history import UserHistory
from micropref._users.neighbors import NeighborGate
from micropref.kernels._pointwise import log_odds, log_softmax

__all__ = ["RoutedHeads"]

# Log-odds beyond which a user's votes are as good as certain.
_CERTAIN = 1e30


class RoutedHeads(PersonalPreferenceClassifier):
    """Base of the models that weight heads by context and user: every answer follows from what they have learned.

    A learner sets the attributes below, `classes_` and `n_features_in_`.
    """

    mixture_: Any
    n_context_features_: int
    gate_parameters_: list[NDArray[np.float64]]
    history_: UserHistory
    _neighbors: NeighborGate | None
    history_temperature_: float

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
        margins = head_margins(reader, self.mixture_.coef_)
        prior = self._log_prior(reader)
        if self._neighbors is not None:
            contexts = to_numpy(X[:, : self.n_context_features_])
            log_weights = like(self._neighbors.log_weights(contexts, to_numpy(prior)), margins, margins.dtype)
        else:
            contexts = X[:, : self.n_context_features_]
            gate = Gate.of(self.gate_parameters_, self.n_context_features_, len(self.mixture_.coef_))
            log_weights = gate_log_weights(contexts, gate, self.gate_parameters_, prior)
        if users is not None:
            with np.errstate(over="ignore"):
                votes = self.history_.evidence(users.ids.tolist(), users.index) / self.history_temperature_
            votes = np.maximum(votes, -_CERTAIN)
            updated = log_softmax(log_weights + like(votes, margins, margins.dtype))
            # A user without evidence gets the prior to the last bit, which normalising again might not leave.
            has_evidence = like(np.asarray(np.any(votes, axis=0)), margins)
            log_weights = namespace(updated).where(has_evidence, updated, log_weights)
        return margins, log_weights

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "history_")
