"""Users scattered around the heads of a planted world: their draws, and what is true of one who is not known."""

from __future__ import annotations

from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from micropref.kernels._pointwise import sigmoid

# Nodes of the trapezoid rule reach this many standard deviations to both sides; the tails hold less than 1e-18.
_REACH = 9.0
# Margins times nodes that are held at a time.
_BLOCK = 1 << 20


class Scatter(NamedTuple):
    """Σ_k = τ_k² I + F_k F_kᵀ.

    Attributes
    ----------
    tau : ndarray of shape (n_components,)
    factors : ndarray of shape (n_components, n_features, rank)
    """

    tau: np.ndarray
    factors: np.ndarray

    @classmethod
    def of(
        cls, spread: np.ndarray, rank_spread: np.ndarray, rank: int, n_features: int, rng: np.random.RandomState
    ) -> Scatter:
        """Draw the factors; a margin wᵀd of standard normal d varies by `spread` and, in the mean, `rank_spread`."""
        factors = rng.normal(size=(len(spread), n_features, rank)) if rank else np.zeros((len(spread), n_features, 0))
        return cls(
            spread / np.sqrt(n_features), factors * (rank_spread / np.sqrt(n_features * max(rank, 1)))[:, None, None]
        )

    @property
    def is_none(self) -> bool:
        """Whether all users of a component have the same weights."""
        return not (self.tau.any() or self.factors.any())

    def draw(self, components: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Deviations w_u − w_k of users of these components, (n_users, n_features)."""
        n_features, rank = self.factors.shape[1:]
        deviation: np.ndarray = rng.normal(size=(len(components), n_features)) * self.tau[components, None]
        along = rng.normal(size=(len(components), rank))
        for k, factor in enumerate(self.factors):
            of_k = components == k
            deviation[of_k] += along[of_k] @ factor.T
        return deviation

    def variances(self, difference: np.ndarray) -> np.ndarray:
        """dᵀ Σ_k d of every row and component, (n_rows, n_components)."""
        square = np.square(difference).sum(axis=1)
        low_rank = [np.square(difference @ factor).sum(axis=1) for factor in self.factors]
        variances: np.ndarray = square[:, None] * np.square(self.tau) + np.stack(low_rank, axis=1)
        return variances


class People(NamedTuple):
    """Who compares: users, their components and weights; and the coins that they toss.

    Attributes
    ----------
    mixture_weights : ndarray of shape (n, n_components)
    components, user : ndarray of int of shape (n,)
    redrawn : ndarray of bool of shape (n,)
    user_coef : ndarray of shape (n_users, n_features)
    scatter : Scatter
    coins : ndarray of shape (3, n)
        Uniform numbers for the label, a wrong label, and a tie.
    """

    mixture_weights: np.ndarray
    components: np.ndarray
    user: np.ndarray
    redrawn: np.ndarray
    user_coef: np.ndarray
    scatter: Scatter
    coins: np.ndarray

    @classmethod
    def draw(
        cls,
        unit_of_row: np.ndarray,
        unit_weights: np.ndarray,
        coef: np.ndarray,
        spreads: tuple[np.ndarray, np.ndarray, int],
        drift: float,
        rng: np.random.RandomState,
    ) -> People:
        components, mixture_weights = _draw(unit_weights, rng)[unit_of_row], unit_weights[unit_of_row]
        coins = rng.random_sample((3, len(unit_of_row)))
        # What follows is drawn last and only if asked for, so that a seed gives the world that it gave before.
        redrawn = np.zeros(len(unit_of_row), dtype=bool)
        if drift > 0:
            components, redrawn = _drift(components, mixture_weights, unit_of_row, drift, rng)
        user = unit_of_row + np.cumsum(redrawn)
        of_user = components[starts(user)]
        scatter = Scatter.of(*spreads, coef.shape[1], rng)
        user_coef = coef[of_user]
        if not scatter.is_none:
            user_coef += scatter.draw(of_user, rng)
        return cls(mixture_weights, components, user, redrawn, user_coef, scatter, coins)


def _drift(
    components: np.ndarray,
    mixture_weights: np.ndarray,
    unit_of_row: np.ndarray,
    drift: float,
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Components of rows whose groups draw anew with probability `drift`, and before which rows they did."""
    n_samples = len(components)
    is_first = np.concatenate(([True], unit_of_row[1:] != unit_of_row[:-1]))
    redrawn = (rng.random_sample(n_samples) < drift) & ~is_first
    fresh = _draw(mixture_weights, rng)
    # A row has the component of the last draw at or before it.
    drawn = np.where(redrawn, fresh, components)
    return drawn[np.maximum.accumulate(np.where(is_first | redrawn, np.arange(n_samples), 0))], redrawn


def _draw(weights: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """One component for each row of weights."""
    # The last cumulative weight may fall short of 1 by rounding; no draw may pass it.
    below = weights[:, :-1].cumsum(axis=1) <= rng.random_sample((len(weights), 1))
    components: np.ndarray = below.sum(axis=1)
    return components


def starts(number: np.ndarray) -> np.ndarray:
    """First row of every run of equal numbers."""
    return np.flatnonzero(np.diff(number, prepend=-1))


def mean_probability(margins: np.ndarray, variances: np.ndarray) -> np.ndarray:
    r"""E σ(m + √v z) for standard normal z, by the trapezoid rule, to about 1e-12.

    σ(m + √v z) has its nearest poles at a distance of π/√v from the real axis, so that the error of a step h falls as
    exp(−2π² / (h √v)); the step is chosen by the largest v.
    """
    deviation = np.sqrt(variances)
    largest = float(deviation.max(initial=0.0))
    if largest == 0:
        certain: np.ndarray = sigmoid(margins)
        return certain
    step = min(0.25, 2 * np.pi**2 / (28 * largest))
    half = int(np.ceil(_REACH / step))
    nodes = step * np.arange(-half, half + 1)
    weights = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    flat, spread = margins.ravel(), deviation.ravel()
    found = np.empty_like(flat)
    size = max(1, _BLOCK // len(nodes))
    for start in range(0, len(flat), size):
        rows = slice(start, start + size)
        found[rows] = sigmoid(flat[rows, None] + spread[rows, None] * nodes) @ weights
    return found.reshape(margins.shape)


def check_spreads(
    spread: float | ArrayLike, rank: int, rank_spread: float | ArrayLike, n_components: int, n_features: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both spreads, one for each component; the second is above 0 if and only if there is a rank."""
    isotropic = _check_spread("spread", spread, n_components)
    low_rank = _check_spread("rank_spread", rank_spread, n_components)
    if not isinstance(rank, Integral) or not 0 <= rank <= n_features:
        raise ValueError(f"expected rank to be an integer from 0 to n_features={n_features}, got {rank!r}")
    if (rank > 0) != bool(low_rank.any()):
        raise ValueError(
            "expected rank and rank_spread to be both 0 or both above 0, got "
            f"rank={rank!r}, rank_spread={rank_spread!r}"
        )
    return isotropic, low_rank


def _check_spread(name: str, spread: float | ArrayLike, n_components: int) -> np.ndarray:
    try:
        checked = np.asarray(spread, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected {name} to be a number or one for each component, got {spread!r}") from None
    if checked.shape not in ((), (n_components,)):
        raise ValueError(
            f"expected {name} to be a number or an array of shape ({n_components},), one for each component, got shape "
            f"{checked.shape}"
        )
    if not (np.isfinite(checked).all() and (checked >= 0).all()):
        raise ValueError(f"expected {name} to be finite and not negative, got {spread!r}")
    return np.broadcast_to(checked, (n_components,)).astype(np.float64)


class Criteria(NamedTuple):
    """Stated criteria: "I look for X" and "I avoid X".

    Attributes
    ----------
    topics : ndarray of shape (n_topics, n_features)
        Unit vectors x.
    polarity : ndarray of shape (n_features,)
        Unit vector p of what distinguishes looking for from avoiding.
    topic : ndarray of int of shape (n_rows,)
    sign : ndarray of shape (n_rows,)
        +1: resembling the topic is good; −1: it is bad.
    """

    topics: np.ndarray
    polarity: np.ndarray
    topic: np.ndarray
    sign: np.ndarray

    @classmethod
    def draw(cls, n_features: int, n_topics: int, unit_of_row: np.ndarray, rng: np.random.RandomState) -> Criteria:
        """One criterion for each unit, stated in all its rows."""
        polarity = _unit(rng.normal(size=(1, n_features)))
        topics = rng.normal(size=(n_topics, n_features))
        topics = _unit(topics - topics @ polarity.T * polarity)
        n_units = int(unit_of_row[-1]) + 1
        topic, sign = rng.randint(n_topics, size=n_units), np.where(rng.random_sample(n_units) < 0.5, -1.0, 1.0)
        return cls(topics, polarity[0], topic[unit_of_row], sign[unit_of_row])

    def context(self) -> np.ndarray:
        """Vectors that state the criteria, (x + sign p)/√2."""
        stated: np.ndarray = (self.topics[self.topic] + self.sign[:, None] * self.polarity) / np.sqrt(2)
        return stated

    def margins(self, difference: np.ndarray, scale: float) -> np.ndarray:
        """What the criteria add to the margins of rows, scale · sign · xᵀd."""
        added: np.ndarray = scale * self.sign * (difference * self.topics[self.topic]).sum(axis=1)
        return added


def _unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def check_criteria(criterion_scale: float, n_topics: int, n_features: int) -> None:
    """A scale that is not negative, and features that have room for topics beside the polarity."""
    if not isinstance(criterion_scale, Real) or not np.isfinite(criterion_scale) or criterion_scale < 0:
        raise ValueError(f"expected criterion_scale to be finite and not negative, got {criterion_scale!r}")
    if not isinstance(n_topics, Integral) or n_topics < 1:
        raise ValueError(f"expected n_topics to be an integer of at least 1, got {n_topics!r}")
    if criterion_scale > 0 and n_features < 2:
        raise ValueError(f"expected at least 2 features with stated criteria, got n_features={n_features}")
