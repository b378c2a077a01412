"""A population whose users without votes are answered as one reward answers them.

Users of a population scatter around its head. What EM makes likely are the votes of the users who taught, all of each
user together, and the pairs that many of them judged count in it with the noise of every user: on other pairs the head
that EM ends at, and with it the answers to a user who has not voted, can be worse than one reward for all. How users
scatter around it is not in doubt. So the scatter stays, and the head becomes c times the one reward w, with the c of

    min_c  Σ_i ω_i KL(σ(wᵀd_i) ‖ E σ(c wᵀd_i + x_i)),        x_i ~ N(0, d_iᵀ S d_i),

in which labels have no part. Where the variance is the same for all pairs, both answer alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from scipy.optimize import brentq

from micropref._engine.logistic_normal import moments
from micropref._engine.population import Population
from micropref._engine.user_votes import UserVotes
from micropref.kernels._pointwise import sigmoid

__all__ = ["answering_like"]

# Of c; heads of margins that no variance of users undoes.
_LARGEST = 1e3


def answering_like(votes: UserVotes, population: Population, single: Population) -> Population:
    """The population of one scattered head with the head of `single` in its place, so long that both answer alike.

    Several heads stay as they are: which of them a user has is what their answers are averaged over.
    """
    if population.n_components > 1 or single.n_components > 1:
        return population
    margins = votes.margins(single.heads)[0]
    variance = population.scatter.prior_variance(*votes.coordinates(population.scatter))[0]
    weight = votes.outer[votes.index] * (1.0 if votes.weight is None else votes.weight)
    return replace(population, heads=_length(margins, variance, weight) * single.heads)


def _length(margins: NDArray[Any], variance: NDArray[Any], weight: NDArray[Any]) -> float:
    """c, which is at least 1: variance draws every probability towards one half."""
    wanted = sigmoid(margins)

    def slope(length: float) -> float:
        """Of the divergence, which is convex in c since E σ is log-concave."""
        right, wrong = (moments(sign * length * margins, variance)[1] for sign in (1.0, -1.0))
        return float(weight @ (margins * ((1.0 - wanted) * wrong - wanted * right)))

    if slope(1.0) >= 0:
        return 1.0
    longest = 2.0
    while slope(longest) < 0:
        if longest >= _LARGEST:
            return longest
        longest *= 2.0
    return float(brentq(slope, 1.0, longest, xtol=1e-9))
