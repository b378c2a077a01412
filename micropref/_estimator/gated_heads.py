"""GatedHeads: what K linear heads with a gate answer, however they were learned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, namespace
from micropref._engine.gates import Gate, flatten
from micropref._engine.gaussian_users import Scatter
from micropref._engine.mixture_objective import MixtureObjective
from micropref._engine.prediction import gate_log_weights, head_margins
from micropref._estimator.base import PreferenceClassifier
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import predicting
from micropref._estimator.saved import check_gate, check_tensors
from micropref._estimator.state import Arrays, gathered, numbered
from micropref._estimator.uncertainty import HeadUncertainty
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref._rows.matrix import check_block, check_matrix
from micropref.kernels._pointwise import log_odds, log_sigmoid, posterior

__all__ = ["GatedHeads", "fitted_gate", "refuse_scatter"]


class GatedHeads(PreferenceClassifier):
    """Base of the models that are K heads w_k and a gate π(c): every answer follows from these parameters.

    A learner sets `coef_`, `gate_parameters_`, `classes_` and `n_features_in_`.
    """

    coef_: NDArray[np.float64]
    gate_parameters_: list[NDArray[np.float64]]
    # How users scatter around the heads; None where they sit on them.
    scatter_: Scatter | None = None
    # One reward, by which users are answered who have not voted; None where they are answered by all heads.
    new_user_coef_: NDArray[np.float64] | None = None
    #: Sampling distribution of the heads, where it was estimated.
    uncertainty_: HeadUncertainty | None = None

    @predicting
    def decision_function(self, X: Array) -> Array:
        """Log-odds that the first response is preferred, log p̄ − log(1 − p̄).

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        log_odds : array of shape (n_samples,)
            In nats; changes its sign exactly when the two responses are swapped.
        """
        reader = self._reader(X)
        if self.new_user_coef_ is not None:
            return self._new_user_log_odds(reader)
        margins, log_weights = self._forward(reader)
        return log_odds(log_weights, self._shrunken(reader, margins))

    @predicting
    def component_scores(self, X: Array) -> Array:
        """Margins w_kᵀ d of every head.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        margins : array of shape (n_samples, n_components)
            Log-odds, in nats, that the first response is preferred by an annotator of that component.
        """
        return self._forward(self._reader(X))[0].T

    @predicting
    def mixture_weights(self, X: Array) -> Array:
        """Weights π_k(c) of the components in the context of every row.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        weights : array of shape (n_samples, n_components)
        """
        log_weights = self._forward(self._reader(X))[1]
        return namespace(log_weights).exp(log_weights).T

    @predicting
    def responsibilities(self, X: Array, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Array:
        """Posterior probabilities of the components given the labels.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        responsibilities : array of shape (n_samples, n_components) or (n_units, n_components)
            One row for every row of X; with `groups`, first one for every group in ascending order of its id (in order
            of appearance where ids have no order), then one for every ungrouped row.
        """
        rows = self._rows(X, y, None, groups)
        if rows.groups is not None:
            return MixtureObjective(rows, fitted_gate(self)).responsibilities(self._parameters()).T
        margins, log_weights = self._forward(rows.reader)
        margins = self._shrunken(rows.reader, margins)
        if rows.signs is not None:
            margins = margins * like(rows.signs, margins, margins.dtype)
        return posterior(log_weights, log_sigmoid(margins))[1].T

    @predicting
    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean log-likelihood per row, in nats.

        With `groups`, (1/Ω) (Σ_u ℓ_u + Σ_{ungrouped i} ω_i ℓ_i). This, on held-out groups, is what chooses the number
        of components: accuracy on pairs cannot, where every pair divides the annotators into halves.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            All as in `fit`.

        Returns
        -------
        log_likelihood : float
        """
        if self.new_user_coef_ is not None and groups is None:
            return self._mean_log_likelihood(self.decision_function(X), y, sample_weight)
        rows = self._rows(X, y, sample_weight, groups)
        return -MixtureObjective(rows, fitted_gate(self)).value_and_gradient(self._parameters())[0]

    @predicting
    def rewards(self, features: Array) -> Array:
        """Rewards w_kᵀ φ of single responses, for ranking any number of candidates.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.

        Returns
        -------
        rewards : array of shape (n_responses, n_components)
            Only differences between responses to the same prompt have a meaning.
        """
        check_is_fitted(self)
        width = self.coef_.shape[1]
        meaning = f"(n_responses, {width}), the features of single responses without context"
        features = check_block(features, width, "features", meaning)
        return head_margins(PairReader(features, 0), self.coef_).T

    @predicting
    def context_log_weights(self, context: Array) -> Array:
        """Logarithms of the mixture weights given contexts, component-first: the starting point of a router.

        Parameters
        ----------
        context : array of shape (n_samples, n_context_features)

        Returns
        -------
        log_weights : array of shape (n_components, n_samples)
        """
        width = self.n_context_features_
        context = check_block(context, width, "context", f"(n_samples, {width}), the context columns alone")
        return gate_log_weights(context, fitted_gate(self), self.gate_parameters_)

    @property
    def n_context_features_(self) -> int:
        """Number of context columns of X in the fit of the mixture.

        Returns
        -------
        n_context_features : int
        """
        return int(self.n_features_in_ - self.coef_.shape[1])

    def _shrunken(self, reader: PairReader, margins: Array) -> Array:
        """Margins that have the probabilities of a user of each component."""
        return margins

    def _new_user_log_odds(self, reader: PairReader) -> Array:
        """Log-odds by the one reward that answers users who have not voted; only where there is one."""
        assert self.new_user_coef_ is not None
        return head_margins(reader, self.new_user_coef_[None])[0]

    def _parameters(self) -> NDArray[np.float64]:
        return flatten([self.coef_, *self.gate_parameters_])

    def _rows(self, X: Array, y: Any, sample_weight: Any, groups: Any) -> Comparisons:
        """Labelled rows of which the fitted parameters are asked."""
        check_is_fitted(self)
        width = self.n_context_features_
        return Comparisons.read(
            self, X, y, sample_weight, groups, first=False, n_context_features=width, classes=self.classes_
        )

    def _reader(self, X: Array) -> PairReader:
        check_is_fitted(self)
        return PairReader(check_matrix(self, X, reset=False), self.n_context_features_)

    def _forward(self, reader: PairReader) -> tuple[Array, Array]:
        """Margins and log-weights of every row, both (n_components, n_samples)."""
        margins = head_margins(reader, self.coef_)
        contexts = reader.X[:, : reader.n_context_features]
        return margins, gate_log_weights(contexts, fitted_gate(self), self.gate_parameters_)

    def _restore_heads(self, arrays: Arrays) -> None:
        """Heads, gate and mean weights from saved tensors; a ModelFileError for those that are not of this model.

        Parameters and `n_features_in_` have been restored.
        """
        width, n_context = self.n_features_in_, self.n_context_features
        check_tensors(arrays, {"coef": (None, width - n_context)})
        k = len(arrays["coef"])
        check_tensors(arrays, {"weights": (k,)})
        if k < 1 or width <= n_context:
            raise ModelFileError(f"coef: expected heads in a saved model, got a tensor of {arrays['coef'].shape}")
        self.coef_, self.weights_ = arrays["coef"], arrays["weights"]
        self.gate_parameters_ = gathered("gate", arrays)
        check_gate("gate", self.gate_parameters_, fitted_gate(self))
        if "new_user" in arrays:
            check_tensors(arrays, {"new_user": (width - n_context,)})
            self.new_user_coef_ = arrays["new_user"]

    def _export_heads(self) -> Arrays:
        """Tensors that `_restore_heads` takes back."""
        arrays = {"coef": self.coef_, "weights": self.weights_, **numbered("gate", self.gate_parameters_)}
        return arrays if self.new_user_coef_ is None else {**arrays, "new_user": self.new_user_coef_}


def fitted_gate(estimator: GatedHeads) -> Gate:
    """The gate that was learned."""
    return Gate.of(estimator.gate_parameters_, estimator.n_context_features_, len(estimator.coef_))


def refuse_scatter(estimator: Any, what: str) -> None:
    """A TypeError where users scatter around the heads, for what is defined only where they are K points."""
    if getattr(estimator, "scatter_", None) is not None:
        raise TypeError(
            f"expected users on their heads, as of a MixtureBradleyTerry, since {what} knows of no others, got a "
            f"{type(estimator).__name__} whose users scatter around its heads"
        )
