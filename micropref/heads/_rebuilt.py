"""A fitted mixture with other heads than those it was fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, to_numpy
from micropref._arrays.blocks import row_blocks
from micropref._rows.layout import root_mean_square_norms
from micropref._rows.validation import check_matrix, check_sample_weight
from micropref._saveable import pack, unpack
from micropref._state import numbered
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import split_pairs


def fitted_mixture(mixture: Any) -> MixtureBradleyTerry:
    """The mixture, taken out of a FrozenEstimator; an error unless it is a fitted one."""
    mixture = mixture.estimator if isinstance(mixture, FrozenEstimator) else mixture
    if not isinstance(mixture, MixtureBradleyTerry):
        raise TypeError(f"expected a MixtureBradleyTerry, got a {type(mixture).__name__}")
    check_is_fitted(mixture)
    return mixture


def rebuilt(
    mixture: MixtureBradleyTerry, coef: np.ndarray, gate_parameters: list[np.ndarray], weights: np.ndarray
) -> MixtureBradleyTerry:
    """A new mixture of the same parameters but for the number of heads; what it shares with the old one is copied."""
    _, description = pack(mixture)
    # A single head has nothing to be weighed against, and a gate of no parameters.
    gate = [parameter.copy() for parameter in gate_parameters] if len(coef) > 1 else []
    new: MixtureBradleyTerry = unpack(
        {"coef": coef, "weights": weights / weights.sum(), **numbered("gate", gate)},
        {
            **description,
            "parameters": {**mixture.get_params(deep=False), "n_components": len(coef)},
            "state": {**description["state"], "converged_": False},
        },
    )
    return new


def gate_of(heads: np.ndarray, gate_parameters: list[np.ndarray]) -> list[np.ndarray]:
    """Parameters of a gate for some of its heads, by mask or in an order of indices."""
    # The last two parameters of every gate are its output weights and offsets.
    hidden, output = gate_parameters[:-2], gate_parameters[-2:]
    return [*hidden, *(parameter[heads] for parameter in output)]


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
    mean: np.ndarray = total / total.sum()
    return mean
