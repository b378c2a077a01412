"""Comparisons drawn from a mixture of Bradley-Terry models of which everything is known. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import expit, softmax
from sklearn.utils import check_random_state

from micropref.pairs import make_pairs


@dataclass(frozen=True, eq=False)
class PlantedPreferences:
    """Comparisons, and the truth they were drawn from.

    The two rows of a tie, one in each order, are adjacent, both with label 1.

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
        The hidden component z of each row.
    coef : ndarray of shape (n_components, n_features)
        Heads.
    gate_coef : ndarray of shape (n_components, n_context_features)
        Gate: log-odds of the components are ``context @ gate_coef.T``.
    probabilities : ndarray of shape (n_rows,)
        Probability that the first response is preferred given the context, Σ_k π_k(c) σ(w_kᵀd), before `noise`.
    component_probabilities : ndarray of shape (n_rows, n_components)
        The same given the component, σ(w_kᵀd).
    mixture_weights : ndarray of shape (n_rows, n_components)
        Probabilities π_k(c) with which the component of the row was drawn; in groups c is the group's mean context.
    n_context_features : int
        Number of leading context columns of `X`.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    sample_weight: np.ndarray | None
    components: np.ndarray
    coef: np.ndarray
    gate_coef: np.ndarray
    probabilities: np.ndarray
    component_probabilities: np.ndarray
    mixture_weights: np.ndarray
    n_context_features: int


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
    dtype: DTypeLike = np.float64,
    random_state: int | np.random.RandomState | None = None,
) -> PlantedPreferences:
    """Draw comparisons from a planted mixture of Bradley-Terry models.

    Contexts c and differences d are standard normal, heads w_k ~ N(0, scale²/n_features) and gate rows
    v_k ~ N(0, gate_scale²/n_context_features) per coordinate. Each row, or each group once, draws its component z from
    π(c) = softmax(v_1ᵀc, ..., v_Kᵀc), and each row its label from σ(w_zᵀd).

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
    for name, count, least in (
        ("n_samples", n_samples, 1),
        ("n_features", n_features, 1),
        ("n_components", n_components, 1),
        ("n_context_features", n_context_features, 0),
        ("pairs_per_group", 1 if pairs_per_group is None else pairs_per_group, 1),
    ):
        if not isinstance(count, Integral) or count < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {count!r}")
    for name, rate in (("tie_rate", tie_rate), ("noise", noise)):
        if not isinstance(rate, Real) or not 0 <= rate <= 1:
            raise ValueError(f"{name} must be from 0 to 1; got {rate!r}")
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise ValueError(f"dtype must be floating; got {dtype}")
    static_weights = _check_weights(weights, n_components, n_context_features)

    rng = check_random_state(random_state)
    coef = rng.normal(scale=scale / np.sqrt(n_features), size=(n_components, n_features))
    gate_spread = gate_scale / np.sqrt(max(n_context_features, 1))
    gate_coef = rng.normal(scale=gate_spread, size=(n_components, n_context_features))
    # Rounded to dtype before any probability is taken from them, so that the truth holds for the stored rows.
    difference = rng.normal(size=(n_samples, n_features)).astype(dtype)
    context = rng.normal(size=(n_samples, n_context_features)).astype(dtype)

    width = 1 if pairs_per_group is None else pairs_per_group
    unit_of_row = np.arange(n_samples) // width
    rows_of_unit = np.bincount(unit_of_row)
    mean_context = np.add.reduceat(context, np.arange(0, n_samples, width), axis=0, dtype=np.float64)
    mean_context /= rows_of_unit[:, None]
    unit_weights = softmax(mean_context @ gate_coef.T + np.log(static_weights), axis=1)
    # The last cumulative weight may fall short of 1 by rounding; no draw may pass it.
    unit_component = (unit_weights[:, :-1].cumsum(axis=1) <= rng.random_sample((len(unit_weights), 1))).sum(axis=1)

    components, mixture_weights = unit_component[unit_of_row], unit_weights[unit_of_row]
    margins = difference.astype(np.float64) @ coef.T
    preferred = rng.random_sample(n_samples) < expit(margins[np.arange(n_samples), components])
    y = (preferred ^ (rng.random_sample(n_samples) < noise)).astype(np.int64)
    is_tie = rng.random_sample(n_samples) < tie_rate

    row = np.repeat(np.arange(n_samples), np.where(is_tie, 2, 1))
    order = np.where(np.concatenate(([False], row[1:] == row[:-1])), -1, 1).astype(dtype)[:, None]
    difference = order * difference[row]
    component_probabilities = expit(order * margins[row])
    return PlantedPreferences(
        X=make_pairs(difference, np.zeros_like(difference), context[row] if n_context_features else None),
        y=np.where(is_tie[row], 1, y[row]),
        groups=None if pairs_per_group is None else unit_of_row[row],
        sample_weight=np.where(is_tie[row], 0.5, 1.0) if tie_rate > 0 else None,
        components=components[row],
        coef=coef,
        gate_coef=gate_coef,
        probabilities=(mixture_weights[row] * component_probabilities).sum(axis=1),
        component_probabilities=component_probabilities,
        mixture_weights=mixture_weights[row],
        n_context_features=n_context_features,
    )


def _check_weights(weights: ArrayLike | None, n_components: int, n_context_features: int) -> np.ndarray:
    if weights is None:
        return np.full(n_components, 1 / n_components)
    if n_context_features:
        raise ValueError(f"weights are for n_context_features=0; here the gate sees {n_context_features} features")
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (n_components,):
        raise ValueError(f"weights must have shape ({n_components},), one per component; got {checked.shape}")
    if not (np.isfinite(checked).all() and (checked > 0).all()):
        raise ValueError(f"weights must be positive and finite; got {checked.tolist()}")
    return checked / checked.sum()
