"""Comparisons drawn from a mixture of Bradley-Terry models of which everything is known. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import entr, softmax
from sklearn.utils import check_random_state

from micropref.datasets._tastes import (
    Criteria,
    People,
    check_criteria,
    check_spreads,
    mean_probability,
    starts,
)
from micropref.kernels._pointwise import sigmoid
from micropref.pairs import make_pairs

__all__ = ["PlantedPreferences", "make_preferences"]


@dataclass(frozen=True, eq=False)
class PlantedPreferences:
    """Comparisons, and the truth they were drawn from.

    The two rows of a tie, one in each order, are adjacent, both with label 1. Rows of a group are in order of time.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_context_features + n_features)
        ``[context | difference]``.
    y : ndarray of shape (n_rows,)
        1 where the first response is preferred, else 0.
    groups : ndarray of shape (n_rows,) or None
        Integer id of the group (the annotator) of each row.
    sample_weight : ndarray of shape (n_rows,) or None
        ½ for the two rows of a tie, else 1; None without ties.
    components : ndarray of shape (n_rows,)
        The hidden component z of each row, at the time of the row.
    redrawn : ndarray of shape (n_rows,), dtype bool
        Whether the row's group drew its component anew before this row, be it the same as before.
    coef : ndarray of shape (n_components, n_features)
        Heads w_k: what people want, without a bias for length.
    gate_coef : ndarray of shape (n_components, n_context_features)
        Gate: log-odds of the components are ``context @ gate_coef.T``.
    tau : ndarray of shape (n_components,)
        Isotropic standard deviation τ_k of the weights of users around head k, for each feature.
    factors : ndarray of shape (n_components, n_features, rank)
        F_k: users of component k have weights w_u ~ N(w_k, τ_k² I + F_k F_kᵀ).
    user_coef : ndarray of shape (n_users, n_features)
        Weights w_u. A user is a group, or a row where there are no groups; after every new draw of its component, a
        drifting group is another one.
    user : ndarray of int of shape (n_rows,)
        Row of `user_coef` that each row was answered by.
    known_user_probabilities : ndarray of shape (n_rows,)
        Probability that the first response is preferred for one who knows the user, σ(w_uᵀd + b d_length + stated),
        before `noise`; b is `length_bias`, stated what the criterion adds.
    probabilities : ndarray of shape (n_rows,)
        The same given the context alone, Σ_k π_k(c) E σ(wᵀd + b d_length + stated) over w ~ N(w_k, Σ_k).
    component_probabilities : ndarray of shape (n_rows, n_components)
        The same given the component, E σ(wᵀd + b d_length + stated); σ(w_kᵀd + ...) where users do not scatter.
    unbiased_probabilities : ndarray of shape (n_rows,)
        `probabilities` without the bias for length.
    unbiased_component_probabilities : ndarray of shape (n_rows, n_components)
        `component_probabilities` without the bias for length.
    mixture_weights : ndarray of shape (n_rows, n_components)
        Probabilities π_k(c) with which the component of the row was drawn; in groups c is the group's mean context.
    n_context_features : int
        Number of leading context columns of `X`.
    length_bias : float
        What is added to the margin for one standard deviation of length, b, in nats.
    noise, tie_rate : float
        Probability that a label is flipped, and that a comparison is a tie.
    topic : ndarray of int of shape (n_rows,), or None
        Topic of the stated criterion; None where nothing is stated.
    criterion_sign : ndarray of shape (n_rows,), or None
        +1 where the criterion looks for its topic, −1 where it avoids it.
    topics : ndarray of shape (n_topics, n_features), or None
        Unit vectors of the topics.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    sample_weight: np.ndarray | None
    components: np.ndarray
    redrawn: np.ndarray
    coef: np.ndarray
    gate_coef: np.ndarray
    tau: np.ndarray
    factors: np.ndarray
    user_coef: np.ndarray
    user: np.ndarray
    known_user_probabilities: np.ndarray
    probabilities: np.ndarray
    component_probabilities: np.ndarray
    unbiased_probabilities: np.ndarray
    unbiased_component_probabilities: np.ndarray
    mixture_weights: np.ndarray
    n_context_features: int
    length_bias: float
    noise: float
    tie_rate: float
    topic: np.ndarray | None
    criterion_sign: np.ndarray | None
    topics: np.ndarray | None

    @property
    def known_user_nats(self) -> float:
        """Least expected log-loss, in nats per comparison, of a predictor that knows the weights of every user."""
        return self._least_nats(self.known_user_probabilities)

    @property
    def unknown_user_nats(self) -> float:
        """Least expected log-loss, in nats per comparison, of one that knows the population and no user."""
        return self._least_nats(self.probabilities)

    def _least_nats(self, probabilities: np.ndarray) -> float:
        """Entropy of the labels; ½ of each order for a tie, which no predictor can see coming."""
        decided = probabilities * (1 - self.noise) + (1 - probabilities) * self.noise
        stated = decided * (1 - self.tie_rate) + 0.5 * self.tie_rate
        return float(np.average(entr(stated) + entr(1 - stated), weights=self.sample_weight))


def make_preferences(
    n_samples: int = 10_000,
    *,
    n_features: int = 64,
    n_components: int = 3,
    n_context_features: int = 32,
    pairs_per_group: int | None = None,
    weights: ArrayLike | None = None,
    scale: float = 3.0,
    gate_scale: float = 3.0,
    tie_rate: float = 0.0,
    noise: float = 0.0,
    drift: float = 0.0,
    length_bias: float = 0.0,
    spread: float | ArrayLike = 0.0,
    rank: int = 0,
    rank_spread: float | ArrayLike = 0.0,
    shared_context: bool = False,
    criterion_scale: float = 0.0,
    n_topics: int = 20,
    dtype: DTypeLike = np.float64,
    random_state: int | np.random.RandomState | None = None,
) -> PlantedPreferences:
    r"""Simulate comparisons by a known mixture of Bradley-Terry models.

    Contexts c and differences d are standard normal, heads w_k ~ N(0, scale²/n_features) and gate rows
    v_k ~ N(0, gate_scale²/n_context_features) per coordinate. Each row, or each group once, draws its component z from
    π(c) = softmax(v_1ᵀc, ..., v_Kᵀc), and each row its label from σ(w_uᵀd), where the weights of a user are

    .. math:: w_u \sim N(w_z, \Sigma_z), \qquad \Sigma_k = \tau_k^2 I + F_k F_k^\top

    With `spread` and `rank_spread` 0, which is the default, tastes are discrete: w_u = w_z. With one component and a
    spread they are continuous, and with several mixed. A user is a group, or a row where there are no groups.

    With `drift` people change their minds: before each of its rows but the first a group draws its component anew with
    that probability, from the same π. So a component lasts 1 / `drift` rows in the mean before the next draw, the
    weights of the components stay as they are at all times, and `mixture_weights` is true of every row. With
    `length_bias` the last feature is the length of a response, and every annotator adds that much, b, to the margin
    for each standard deviation (which is 1) by which the first is longer: labels are drawn from σ(w_uᵀd + b d_length).

    With `criterion_scale` every row (every group where `shared_context`) states a criterion, "I look for X" or "I avoid
    X", in `n_features` more context columns, (x + a p)/√2: x is one of `n_topics` unit vectors, p a unit vector at
    right angles to all of them, a is 1 or −1. It acts on the response and not on the choice of a component: the margin
    gains criterion_scale · a · xᵀd.

    Parameters
    ----------
    n_samples : int, default=10_000
        Number of comparisons.
    n_features, n_components : int, default=64, 3
        Width of the differences and number of heads.
    n_context_features : int, default=32
        Width of the contexts; with 0 the components have the same `weights` in every row.
    pairs_per_group : int, optional
        Comparisons per group (the last group may have fewer). The component of a group is drawn from the gate at the
        mean context of its rows.
    weights : array-like of shape (n_components,), optional
        Probabilities of the components where there is no context; uniform by default. Scaled to sum to 1.
    scale, gate_scale : float, default=3.0
        Standard deviation of w_kᵀd and of v_kᵀc.
    tie_rate : float, default=0.0
        Probability that a comparison is a tie: it takes two adjacent rows, one in each order, of weight ½.
    noise : float, default=0.0
        Probability that the label of a row is flipped. Ties have no label that could be.
    drift : float, default=0.0
        Probability that a group draws its component anew before a comparison. It needs `pairs_per_group`: without
        groups, every row draws its own component anyway.
    length_bias : float, default=0.0
        Nats by which one standard deviation of length, the last feature, is overvalued; negative if undervalued.
    spread : float or array-like of shape (n_components,), default=0.0
        Standard deviation among the users of a component of (w_u − w_k)ᵀd that comes from the isotropic part of Σ_k,
        τ_k = spread/√n_features.
    rank : int, default=0
        Columns of F_k, whose entries are drawn from N(0, rank_spread²/(n_features · rank)).
    rank_spread : float or array-like of shape (n_components,), default=0.0
        As `spread`, from the low-rank part, in the mean over draws of F_k. Above 0 if and only if `rank` is.
    shared_context : bool, default=False
        Whether all rows of a group have the same context, as a user's profile. It needs `pairs_per_group`.
    criterion_scale : float, default=0.0
        Standard deviation of what a stated criterion adds to the margin; 0: nothing is stated.
    n_topics : int, default=20
        Number of topics that criteria are about.
    dtype : dtype, default=float64
        Floating dtype of `X`; labels are drawn at the values it holds.
    random_state : int, RandomState or None
        Seed of every draw.

    Returns
    -------
    PlantedPreferences

    Examples
    --------
    >>> data = make_preferences(1000, n_components=2, pairs_per_group=5, random_state=0)
    >>> data.X.shape, data.coef.shape, len(set(data.groups))
    ((1000, 96), (2, 64), 200)

    Users that scatter around one head, and how well one can predict who knows them or does not:

    >>> data = make_preferences(1000, n_components=1, pairs_per_group=10, spread=3.0, random_state=0)
    >>> data.user_coef.shape, bool(data.known_user_nats < data.unknown_user_nats)
    ((100, 64), True)
    """
    _check_counts(1, n_samples=n_samples, n_features=n_features, n_components=n_components)
    _check_counts(0, n_context_features=n_context_features)
    _check_rates(pairs_per_group, shared_context, tie_rate=tie_rate, noise=noise, drift=drift)
    dtype = _check_numbers(length_bias, dtype)
    static_weights = _check_weights(weights, n_components, n_context_features)
    spreads = check_spreads(spread, rank, rank_spread, n_components, n_features)
    check_criteria(criterion_scale, n_topics, n_features)

    rng = check_random_state(random_state)
    coef = _draw_rows(n_components, n_features, scale, rng)
    gate_coef = _draw_rows(n_components, n_context_features, gate_scale, rng)
    # Rounded to dtype before any probability is taken from them, so that the truth holds for the stored rows.
    difference = rng.normal(size=(n_samples, n_features)).astype(dtype)
    context = rng.normal(size=(n_samples, n_context_features)).astype(dtype)
    unit_of_row = np.arange(n_samples) // (1 if pairs_per_group is None else pairs_per_group)
    if shared_context:
        context = context[starts(unit_of_row)][unit_of_row]
    weights_of_unit = softmax(_unit_means(context, unit_of_row) @ gate_coef.T + np.log(static_weights), axis=1)
    people = People.draw(unit_of_row, weights_of_unit, coef, (*spreads, rank), drift, rng)
    criteria = None
    if criterion_scale > 0:
        criteria = Criteria.draw(n_features, n_topics, unit_of_row if shared_context else np.arange(n_samples), rng)
        context = np.hstack([context, criteria.context().astype(dtype)])
        gate_coef = np.pad(gate_coef, ((0, 0), (0, n_features)))
    truth = _Truth.of(difference, coef, people, length_bias, criteria, criterion_scale)
    rows = _Rows.of(people.coins[2] < tie_rate)
    return PlantedPreferences(
        **_observed(rows, people, truth, difference, context, noise),
        tie_rate=float(tie_rate),
        sample_weight=np.where(rows.is_tie, 0.5, 1.0) if tie_rate > 0 else None,
        groups=None if pairs_per_group is None else unit_of_row[rows.row],
        coef=coef,
        gate_coef=gate_coef,
        n_context_features=context.shape[1],
        length_bias=float(length_bias),
        **_stated(criteria, rows.row),
    )


def _observed(
    rows: _Rows, people: People, truth: _Truth, difference: np.ndarray, context: np.ndarray, noise: float
) -> dict[str, Any]:
    """What is seen of the comparisons, and what is true of them, by the names of `PlantedPreferences`."""
    coin, flip, _ = people.coins
    preferred = coin < sigmoid(truth.known)
    return {
        "X": rows.pairs(difference, context),
        "y": np.where(rows.is_tie, 1, (preferred ^ (flip < noise)).astype(np.int64)[rows.row]),
        "components": people.components[rows.row],
        "redrawn": people.redrawn[rows.row] & (rows.order > 0),
        **people.scatter._asdict(),
        "user_coef": people.user_coef,
        "user": people.user[rows.row],
        **truth.probabilities(rows, people.mixture_weights),
        "noise": float(noise),
    }


def _stated(criteria: Criteria | None, row: np.ndarray) -> dict[str, Any]:
    if criteria is None:
        return {"topic": None, "criterion_sign": None, "topics": None}
    return {"topic": criteria.topic[row], "criterion_sign": criteria.sign[row], "topics": criteria.topics}


class _Rows(NamedTuple):
    """Which comparison each row holds, and in which order: a tie has two rows, one in each order."""

    row: np.ndarray
    order: np.ndarray
    is_tie: np.ndarray

    @classmethod
    def of(cls, is_tie: np.ndarray) -> _Rows:
        row = np.repeat(np.arange(len(is_tie)), np.where(is_tie, 2, 1))
        is_second = np.concatenate(([False], row[1:] == row[:-1]))
        return cls(row, np.where(is_second, -1, 1), is_tie[row])

    def pairs(self, difference: np.ndarray, context: np.ndarray) -> np.ndarray:
        """X of the rows, in the dtype of the differences."""
        oriented = self.order.astype(difference.dtype)[:, None] * difference[self.row]
        context_of_row = context[self.row] if context.shape[1] else None
        X: np.ndarray = make_pairs(oriented, np.zeros_like(oriented), context_of_row)
        return X


class _Truth(NamedTuple):
    """Margins of comparisons: of each component's mean without and with what is added to all, of the user, variances.

    Attributes
    ----------
    fair, biased : ndarray of shape (n, n_components)
        Without and with the bias for length; both with what a stated criterion adds.
    known : ndarray of shape (n,)
    variances : ndarray of shape (n, n_components)
        Of the margins among the users of a component.
    """

    fair: np.ndarray
    biased: np.ndarray
    known: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(
        cls,
        difference: np.ndarray,
        coef: np.ndarray,
        people: People,
        length_bias: float,
        criteria: Criteria | None,
        criterion_scale: float,
    ) -> _Truth:
        exact = difference.astype(np.float64)
        stated = np.zeros(len(exact)) if criteria is None else criteria.margins(exact, criterion_scale)
        length = length_bias * exact[:, -1]
        fair = exact @ coef.T + stated[:, None]
        known = (exact * people.user_coef[people.user]).sum(axis=1) + stated + length
        biased = fair + length[:, None] if length_bias else fair
        return cls(fair, biased, known, people.scatter.variances(exact))

    def probabilities(self, rows: _Rows, mixture_weights: np.ndarray) -> dict[str, np.ndarray]:
        """What is true of the rows."""
        weights, variances, order = mixture_weights[rows.row], self.variances[rows.row], rows.order[:, None]
        fair = mean_probability(order * self.fair[rows.row], variances)
        biased = fair if self.biased is self.fair else mean_probability(order * self.biased[rows.row], variances)
        return {
            "known_user_probabilities": sigmoid(rows.order * self.known[rows.row]),
            "probabilities": (weights * biased).sum(axis=1),
            "component_probabilities": biased,
            "unbiased_probabilities": (weights * fair).sum(axis=1),
            "unbiased_component_probabilities": fair,
            "mixture_weights": weights,
        }


def _draw_rows(n_rows: int, width: int, scale: float, rng: np.random.RandomState) -> np.ndarray:
    """Normal rows whose product with a standard normal vector has the standard deviation `scale`."""
    rows: np.ndarray = rng.normal(scale=scale / np.sqrt(max(width, 1)), size=(n_rows, width))
    return rows


def _unit_means(context: np.ndarray, unit_of_row: np.ndarray) -> np.ndarray:
    """Mean context of every unit; the rows of a unit are consecutive."""
    size = np.bincount(unit_of_row)
    total: np.ndarray = np.add.reduceat(context, np.cumsum(size) - size, axis=0, dtype=np.float64)
    return total / size[:, None]


def _check_counts(least: int, **counts: object) -> None:
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < least:
            raise ValueError(f"expected {name} to be an integer of at least {least}, got {count!r}")


def _check_numbers(length_bias: float, dtype: DTypeLike) -> np.dtype[Any]:
    if not isinstance(length_bias, Real) or not np.isfinite(length_bias):
        raise ValueError(f"expected length_bias to be a finite number, got {length_bias!r}")
    floating = np.dtype(dtype)
    if floating.kind != "f":
        raise ValueError(f"expected a floating dtype, got {floating}")
    return floating


def _check_rates(pairs_per_group: int | None, shared_context: bool, **rates: float) -> None:
    if pairs_per_group is not None:
        _check_counts(1, pairs_per_group=pairs_per_group)
    for name, rate in rates.items():
        if not isinstance(rate, Real) or not 0 <= rate <= 1:
            raise ValueError(f"expected {name} to be from 0 to 1, got {rate!r}")
    if rates["drift"] > 0 and pairs_per_group is None:
        raise ValueError(f"expected pairs_per_group with a drift within groups, got drift={rates['drift']!r} only")
    if shared_context and pairs_per_group is None:
        raise ValueError("expected pairs_per_group with shared_context=True, got None")


def _check_weights(weights: ArrayLike | None, n_components: int, n_context_features: int) -> np.ndarray:
    if weights is None:
        return np.full(n_components, 1 / n_components)
    if n_context_features:
        raise ValueError(
            f"expected weights=None with n_context_features={n_context_features}, since a gate sets them, "
            f"got {weights!r}"
        )
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_components,):
        raise ValueError(f"expected weights of shape ({n_components},), one per component, got {checked.shape}")
    if not (np.isfinite(checked).all() and (checked > 0).all()):
        raise ValueError(f"expected weights that are positive and finite, got {checked.tolist()}")
    normalized: np.ndarray = checked / checked.sum()
    return normalized
