"""Comparisons drawn from a mixture of Bradley-Terry models of which everything is known. Arrays only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import softmax
from sklearn.utils import check_random_state

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
    probabilities : ndarray of shape (n_rows,)
        Probability that the first response is preferred given the context, Σ_k π_k(c) σ(w_kᵀd + b d_length), before
        `noise`; b is `length_bias`.
    component_probabilities : ndarray of shape (n_rows, n_components)
        The same given the component, σ(w_kᵀd + b d_length).
    unbiased_probabilities : ndarray of shape (n_rows,)
        `probabilities` without the bias for length, Σ_k π_k(c) σ(w_kᵀd).
    unbiased_component_probabilities : ndarray of shape (n_rows, n_components)
        `component_probabilities` without the bias for length, σ(w_kᵀd).
    mixture_weights : ndarray of shape (n_rows, n_components)
        Probabilities π_k(c) with which the component of the row was drawn; in groups c is the group's mean context.
    n_context_features : int
        Number of leading context columns of `X`.
    length_bias : float
        What is added to the margin for one standard deviation of length, b, in nats.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    sample_weight: np.ndarray | None
    components: np.ndarray
    redrawn: np.ndarray
    coef: np.ndarray
    gate_coef: np.ndarray
    probabilities: np.ndarray
    component_probabilities: np.ndarray
    unbiased_probabilities: np.ndarray
    unbiased_component_probabilities: np.ndarray
    mixture_weights: np.ndarray
    n_context_features: int
    length_bias: float


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
    dtype: DTypeLike = np.float64,
    random_state: int | np.random.RandomState | None = None,
) -> PlantedPreferences:
    """Draw comparisons from a planted mixture of Bradley-Terry models.

    Contexts c and differences d are standard normal, heads w_k ~ N(0, scale²/n_features) and gate rows
    v_k ~ N(0, gate_scale²/n_context_features) per coordinate. Each row, or each group once, draws its component z from
    π(c) = softmax(v_1ᵀc, ..., v_Kᵀc), and each row its label from σ(w_zᵀd).

    With `drift` people change their minds: before each of its rows but the first a group draws its component anew with
    that probability, from the same π. So a component lasts 1 / `drift` rows in the mean before the next draw, the
    weights of the components stay as they are at all times, and `mixture_weights` is true of every row. With
    `length_bias` the last feature is the length of a response, and every annotator adds that much, b, to the margin
    for each standard deviation (which is 1) by which the first is longer: labels are drawn from σ(w_zᵀd + b d_length).

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
    """
    _check_counts(
        {"n_samples": n_samples, "n_features": n_features, "n_components": n_components},
        {"n_context_features": n_context_features},
        {} if pairs_per_group is None else {"pairs_per_group": pairs_per_group},
    )
    _check_rates(pairs_per_group, tie_rate=tie_rate, noise=noise, drift=drift)
    dtype = _check_numbers(length_bias, dtype)
    static_weights = _check_weights(weights, n_components, n_context_features)

    rng = check_random_state(random_state)
    coef = _draw_rows(n_components, n_features, scale, rng)
    gate_coef = _draw_rows(n_components, n_context_features, gate_scale, rng)
    # Rounded to dtype before any probability is taken from them, so that the truth holds for the stored rows.
    difference = rng.normal(size=(n_samples, n_features)).astype(dtype)
    context = rng.normal(size=(n_samples, n_context_features)).astype(dtype)

    unit_of_row = np.arange(n_samples) // (1 if pairs_per_group is None else pairs_per_group)
    log_odds = _unit_means(context, unit_of_row) @ gate_coef.T + np.log(static_weights)
    unit_weights = softmax(log_odds, axis=1)
    components, mixture_weights = _draw(unit_weights, rng)[unit_of_row], unit_weights[unit_of_row]
    coin, flip, tie = rng.random_sample(n_samples), rng.random_sample(n_samples), rng.random_sample(n_samples)
    # Drawn last and only if asked for, so that a seed gives the world that it gave before there was a drift.
    redrawn = np.zeros(n_samples, dtype=bool)
    if drift > 0:
        components, redrawn = _drift(components, mixture_weights, unit_of_row, drift, rng)

    unbiased = difference.astype(np.float64) @ coef.T
    margins = unbiased + length_bias * difference[:, -1:].astype(np.float64) if length_bias else unbiased
    preferred = coin < sigmoid(margins[np.arange(n_samples), components])
    rows = _Rows.of(tie < tie_rate)
    return PlantedPreferences(
        X=rows.pairs(difference, context),
        y=np.where(rows.is_tie, 1, (preferred ^ (flip < noise)).astype(np.int64)[rows.row]),
        groups=None if pairs_per_group is None else unit_of_row[rows.row],
        sample_weight=np.where(rows.is_tie, 0.5, 1.0) if tie_rate > 0 else None,
        components=components[rows.row],
        redrawn=redrawn[rows.row] & (rows.order > 0),
        coef=coef,
        gate_coef=gate_coef,
        **rows.probabilities(margins, unbiased, mixture_weights),
        n_context_features=n_context_features,
        length_bias=float(length_bias),
    )


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

    def probabilities(
        self, margins: np.ndarray, unbiased: np.ndarray, mixture_weights: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is true of the rows, from margins of the comparisons with and without the bias for length."""
        weights = mixture_weights[self.row]
        biased, fair = (sigmoid(self.order[:, None] * one[self.row]) for one in (margins, unbiased))
        return {
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


def _check_counts(
    from_one: Mapping[str, object], from_zero: Mapping[str, object], optional: Mapping[str, object]
) -> None:
    for counts, least in ((from_one, 1), (from_zero, 0), (optional, 1)):
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


def _check_rates(pairs_per_group: int | None, **rates: float) -> None:
    for name, rate in rates.items():
        if not isinstance(rate, Real) or not 0 <= rate <= 1:
            raise ValueError(f"expected {name} to be from 0 to 1, got {rate!r}")
    if rates["drift"] > 0 and pairs_per_group is None:
        raise ValueError(
            f"expected pairs_per_group where there is a drift within groups, got drift={rates['drift']!r} only"
        )


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


def _check_weights(weights: ArrayLike | None, n_components: int, n_context_features: int) -> np.ndarray:
    if weights is None:
        return np.full(n_components, 1 / n_components)
    if n_context_features:
        raise ValueError(
            f"expected weights=None with n_context_features={n_context_features}, where the gate has them, "
            f"got {weights!r}"
        )
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_components,):
        raise ValueError(f"expected weights of shape ({n_components},), one per component, got {checked.shape}")
    if not (np.isfinite(checked).all() and (checked > 0).all()):
        raise ValueError(f"expected weights that are positive and finite, got {checked.tolist()}")
    normalized: np.ndarray = checked / checked.sum()
    return normalized
