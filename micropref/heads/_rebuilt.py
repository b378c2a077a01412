"""A fitted mixture with other heads than those it was fitted with."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from micropref._engine import prediction
from micropref._estimator.fitting import fitted
from micropref._estimator.gated_heads import GatedHeads, fitted_gate, refuse_scatter
from micropref._estimator.saveable import pack, unpack
from micropref._estimator.state import numbered
from micropref._rows.comparisons import Comparisons
from micropref.mixture import MixtureBradleyTerry


def fitted_mixture(mixture: Any) -> MixtureBradleyTerry:
    """The mixture as it was fitted, taken out of a FrozenEstimator; an error unless it is a fitted one."""
    mixture = fitted(mixture) if isinstance(mixture, GatedHeads | FrozenEstimator) else mixture
    refuse_scatter(mixture, "the upkeep of heads")
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


def mean_weights(mixture: MixtureBradleyTerry, rows: Comparisons) -> np.ndarray:
    """Mean mixture weights (n_components,) over rows, in float64."""
    return prediction.mean_weights(rows.context, fitted_gate(mixture), mixture.gate_parameters_, rows.weight)
