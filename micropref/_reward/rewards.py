"""Rewards from features, and how far they may be from what a model says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._engine.normal_mixtures import mean_and_deviation
from micropref._estimator.fitting import frozen
from micropref.mixture import MixtureBradleyTerry
from micropref.router import ContextRouter

__all__ = ["filled", "rewards_of", "with_uncertainty"]


def with_uncertainty(
    mixture: Any, router: ContextRouter | None, rows: tuple[Any, Any, Any], parameters: dict[str, Any]
) -> tuple[Any, ContextRouter | None]:
    """A mixture, and its router, that know the sampling error of their heads from the rows of stage 1."""
    if not isinstance(mixture, MixtureBradleyTerry):
        raise TypeError(
            "expected a MixtureBradleyTerry, since only its sampling error can be estimated, got a "
            f"{type(mixture).__name__}; fit with users='one' or users='heads'"
        )
    X, groups, weight = rows
    mixture = mixture._forked().estimate_uncertainty(X, sample_weight=weight, groups=groups, **parameters)
    if router is None:
        return mixture, None
    router = router._forked()
    router.mixture_ = frozen(mixture)
    return mixture, router


def rewards_of(
    mixture: Any,
    router: ContextRouter | None,
    features: NDArray[Any],
    context: NDArray[Any],
    users: Any,
    *,
    return_std: bool,
) -> Any:
    """Rewards (n,) of responses by their features, and, if asked for, standard deviations of what a user's may be."""
    if not len(features):
        return (np.empty(0), np.empty(0)) if return_std else np.empty(0)
    if return_std:
        return _with_deviations(mixture, router, features, context, users)
    if router is not None:
        return np.asarray(router.rewards(features, context, users))
    weights = np.exp(mixture.context_log_weights(context))
    return np.asarray((mixture.rewards(features) * weights.T).sum(axis=1))


def filled(found: Any, rows: list[int], n: int, empty: float) -> Any:
    """Rewards, with or without deviations, of some rows out of n; the others have the reward of an empty response."""
    if isinstance(found, tuple):
        return filled(found[0], rows, n, empty), filled(found[1], rows, n, np.nan)
    values = np.full(n, empty, dtype=np.float64)
    values[rows] = found
    return values


def _with_deviations(
    mixture: Any,
    router: ContextRouter | None,
    features: NDArray[Any],
    context: NDArray[Any],
    users: Any,
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if len(mixture.coef_) == 1 and mixture.scatter_ is None and mixture.uncertainty_ is None:
        fix = "" if isinstance(mixture, MixtureBradleyTerry) else "fit with users='one', and "
        raise ValueError(
            "expected a model with estimated uncertainty, since all its users share one reward, got a model without; "
            f"{fix}call estimate_uncertainty on the comparisons of the fit"
        )
    if router is not None:
        rewards, std = router.rewards(features, context, users, return_std=True)
        return np.asarray(rewards), np.asarray(std)
    means = mixture.rewards(features).T.astype(np.float64)
    weights = np.exp(mixture.context_log_weights(context)).astype(np.float64)
    scatter, known = mixture.scatter_, mixture.uncertainty_
    variances = np.zeros_like(means) if known is None else known.variances(features)
    if scatter is not None:
        variances = variances + scatter.prior_variance(*scatter.coordinates(features))
    return mean_and_deviation(weights, means, variances)
