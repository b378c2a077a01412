"""A fitted mixture with other heads than those it was fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._rows.layout import root_mean_square_norms
from micropref._rows.matrix import check_matrix
from micropref._rows.weights import check_sample_weight
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import split_pairs


def fitted_mixture(mixture: Any) -> MixtureBradleyTerry:
    """The mixture, taken out of a FrozenEstimator; an error unless it is a fitted one."""
    mixture = mixture.estimator if isinstance(mixture, FrozenEstimator) else mixture
    if not isinstance(mixture, MixtureBradleyTerry):
        raise TypeError(f"expected a MixtureBradleyTerry; got a {type(mixture).__name__}")
    check_is_fitted(mixture)
    return mixture


def rebuilt(
    mixture: MixtureBradleyTerry, coef: np.ndarray, gate_parameters: list[np.ndarray], weights: np.ndarray
) -> MixtureBradleyTerry:
    """A new mixture of the same parameters but for the number of heads; what it shares with the old one is copied."""
    new = MixtureBradleyTerry(**{**mixture.get_params(deep=False), "n_components": len(coef)})
    # A single head has nothing to be weighed against, and a gate of no parameters.
    new._set_parameters([coef, *(gate_parameters if len(coef) > 1 else [])])
    new.weights_ = weights / weights.sum()
    new.classes_, new.n_features_in_ = mixture.classes_.copy(), mixture.n_features_in_
    if hasattr(mixture, "feature_names_in_"):
        new.feature_names_in_ = mixture.feature_names_in_.copy()
    new.objective_, new.n_iter_, new.converged_ = mixture.objective_, mixture.n_iter_, False
    new._stream = None
    return new


def checked_rows(mixture: MixtureBradleyTerry, X: Array, sample_weight: Any) -> tuple[Array, np.ndarray]:
    """Rows that the mixture can read, all of them finite, and their weights."""
    X = check_matrix(mixture, X, reset=False)
    weight = check_sample_weight(sample_weight, X.shape[0])
    root_mean_square_norms(X, mixture.n_context_features)  # names the first entry that is not finite
    return X, np.ones(X.shape[0]) if weight is None else weight


def mean_weights(mixture: MixtureBradleyTerry, X: Array, weight: np.ndarray) -> np.ndarray:
    """Mean mixture weights (n_components,) over rows, in float64."""
    total = np.zeros(len(mixture.coef_))
    for rows, context in row_blocks(split_pairs(X, mixture.n_context_features)[0]):
        total += np.exp(to_numpy(mixture.context_log_weights(context)).astype(np.float64)) @ weight[rows]
    return total / total.sum()
