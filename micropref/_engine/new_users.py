"""A population whose users without votes are answered as one reward answers them.

Heads, and the scatter around them, are what makes the votes of the users who taught most likely, all votes of a user
together. Votes that many users cast on the same pairs count in this with the noise of every user, so that the heads can
be wrong about other pairs in a way that one reward for all is not. What users differ in is not in doubt: the heads stay
where they are around their mean w̄ = Σ_k π_k w_k, and so does the scatter; the mean moves to c times the one reward w,

    w_k ← c w + (w_k − w̄),    c = argmin_c Σ_i ω_i KL(σ(wᵀd_i) ‖ Σ_k π_k E σ(c wᵀd_i + (w_k − w̄)ᵀd_i + x_ik)),

with x_ik ~ N(0, d_iᵀ S_k d_i). Labels have no part in c. A user who has not voted is then answered as by w, but for how
much the difference of heads and the variance of users vary from pair to pair.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from micropref._engine.logistic_normal import moments
from micropref._engine.population import Population, log_prior
from micropref._engine.user_votes import UserVotes
from micropref.kernels._pointwise import log_sum_exp, sigmoid

__all__ = ["answering_like"]

# Of c: users whose variance takes more than this from a margin agree on nothing.
_LARGEST = 100.0
# Relative to c.
_TOLERANCE = 1e-7


def answering_like(votes: UserVotes, population: Population, single: Population) -> Population:
    """The population moved so that users without votes are answered as by the head of `single`.

    Where contexts say which head applies, no one reward answers as the population does, which stays as it is.
    """
    if votes.rows.reader.n_context_features:
        return population
    log_weights = log_prior(votes, population)[:, 0]
    around = population.heads - np.exp(log_weights) @ population.heads
    margins = votes.margins(np.concatenate([single.heads, around]))
    variance = np.zeros(1)
    if population.scatter.n_directions:
        variance = population.scatter.prior_variance(*votes.coordinates(population.scatter))
    weight = votes.outer[votes.index] * (1.0 if votes.weight is None else votes.weight)
    return replace(population, heads=_length(margins, variance, log_weights, weight) * single.heads + around)


def _length(margins: NDArray[Any], variance: NDArray[Any], log_weights: NDArray[Any], weight: NDArray[Any]) -> float:
    """c, not negative; margins of the one reward in the first row, and of the heads around it in the others."""
    centre, around = margins[0], margins[1:]
    if not np.any(weight * centre):
        return 1.0
    wanted = sigmoid(centre)

    def divergence(log_length: float) -> float:
        mean = np.exp(log_length) * centre + around
        right, wrong = (log_sum_exp(log_weights[:, None] + moments(sign * mean, variance)[0]) for sign in (1.0, -1.0))
        return -float(weight @ (wanted * right + (1.0 - wanted) * wrong))

    bounds = (-np.log(_LARGEST), np.log(_LARGEST))
    found = minimize_scalar(divergence, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    return float(np.exp(found.x))
