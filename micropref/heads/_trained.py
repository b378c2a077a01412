"""A mixture from heads that were trained elsewhere, as the last layer of a torch model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.saveable import unpack
from micropref._estimator.state import numbered
from micropref.mixture import MixtureBradleyTerry

__all__ = ["mixture_of"]


def mixture_of(
    coef: NDArray[np.floating],
    gate_weights: NDArray[np.floating] | None,
    offsets: NDArray[np.floating],
    *,
    balance: float,
    X: NDArray[np.floating] | None,
) -> MixtureBradleyTerry:
    """A fitted mixture with these heads, and a linear gate.

    Parameters
    ----------
    coef : ndarray of shape (n_components, n_features)
    gate_weights : ndarray of shape (n_components, n_context_features), or None without context
    offsets : ndarray of shape (n_components,)
    balance : float
        With which the heads were trained.
    X : ndarray of shape (n_rows, n_context_features + n_features), or None
        Rows of which the mean mixture weights and the objective are kept.

    Returns
    -------
    MixtureBradleyTerry
    """
    k, n_features = coef.shape
    n_context = 0 if gate_weights is None else gate_weights.shape[1]
    gate = [] if k == 1 else [offsets] if gate_weights is None else [gate_weights, offsets]
    parameters = MixtureBradleyTerry(k, n_context_features=n_context, balance=float(balance)).get_params(deep=False)
    shares = np.exp(offsets - offsets.max())
    state = {
        "n_features_in_": n_context + n_features,
        # Trained without the penalties of an estimator.
        **dict.fromkeys(("alpha_", "gate_alpha_", "objective_"), 0.0),
        "history_temperature_": 1.0,
        "n_iter_": 0,
        "converged_": False,
        "_seen": [0.0, 0.0, 0.0],
    }
    mixture: MixtureBradleyTerry = unpack(
        {"coef": coef, "weights": shares / shares.sum(), **numbered("gate", gate)},
        {
            "estimator": "MixtureBradleyTerry",
            "parameters": parameters,
            "classes": {"dtype": "<i8", "values": [0, 1]},
            "feature_names": None,
            "state": state,
            "uncertainty": None,
        },
        dtype=coef.dtype,
    )
    if X is not None and len(X):
        mixture.weights_ = mixture.mixture_weights(X).mean(axis=0)
        mixture.objective_ = -float(mixture.log_likelihood(X))
    return mixture
