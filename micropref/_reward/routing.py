"""What a model of texts gives its router, and what it must be asked with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.gated_heads import GatedHeads
from micropref._reward.deviations import rewards_with_deviations
from micropref.embed import PairEncoder
from micropref.router import ContextRouter

__all__ = ["check_asked", "context_parts", "set_parameters_for_votes", "weighted_rewards"]

_HISTORY_PARAMETERS = ("history_temperature", "history_decay")


def context_parts(encoder: PairEncoder, router: ContextRouter) -> tuple[str, ...]:
    """Context parts that the weights of a router depend on."""
    parts, width = [], 0
    for part, size in encoder.context_parts_.items():
        if width < router.n_context_features_:
            parts.append(part)
            width += size
    return tuple(parts)


def set_parameters_for_votes(router: ContextRouter, parameters: dict[str, Any]) -> None:
    """Set parameters of histories; a ValueError for one that would change what labelled contexts have taught."""
    current = router.get_params(deep=False)
    for name, value in parameters.items():
        if name in current and name not in _HISTORY_PARAMETERS and value != current[name]:
            raise ValueError(
                f"{name}: expected {current[name]!r}, under which labelled contexts were learned, got {value!r} "
                "and votes alone; give the labelled contexts again"
            )
    router.set_params(**parameters)


def check_asked(parts: tuple[str, ...], contexts: Any, users: Any) -> None:
    """A ValueError where a router that reads contexts is given neither contexts nor users."""
    if "context" in parts and contexts is None and users is None:
        raise ValueError(
            "expected contexts or users, since this model was routed by contexts, got neither; "
            "pass a context for every row (empty where there is none), or the users"
        )


def weighted_rewards(
    mixture: GatedHeads,
    router: ContextRouter | None,
    features: NDArray[Any],
    context: NDArray[Any],
    users: Sequence[Hashable] | None,
    *,
    return_std: bool,
) -> Any:
    """Σ_k f_k(c) w_kᵀ φ of single responses, and the standard errors of these where they are asked for."""
    if not len(features):
        return (np.empty(0), np.empty(0)) if return_std else np.empty(0)
    if return_std:
        return rewards_with_deviations(mixture, router, features, context, users)
    if router is None:
        weights = np.exp(mixture.context_log_weights(context))
        return np.asarray((mixture.rewards(features) * weights.T).sum(axis=1))
    groups: Any = users
    return np.asarray(router.rewards(features, context, groups))
