"""How well data determine one reward: Fisher's information, its inverse, and sandwiches around that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import to_numpy
from micropref._rows.comparisons import Comparisons
from micropref.kernels._pointwise import sigmoid

__all__ = ["Covariance", "covariance_of_reward"]

Floats = NDArray[np.float64]

# Eigenvalues of the information below this share of the largest, in units of the features, are zero.
_SINGULAR = 1e-10
_NEWTON_STEPS = 30
# Relative change of the reward at which it has arrived, and that which a last step may have.
_ARRIVED, _NEARLY_ARRIVED = 1e-10, 1e-6
_BLOCK_ROWS = 2048


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of one reward's coefficients, where data determine them.

    Attributes
    ----------
    matrix : ndarray of shape (n_features, n_features)
        Variances of wᵀφ are φᵀ matrix φ for features φ that are orthogonal to `unidentified`.
    unidentified : ndarray of shape (n_features, n_directions)
        Directions in which the reward may be anything, orthonormal in units of `scale`.
    scale : ndarray of shape (n_features,)
        By which features are multiplied to be of usual size.
    """

    matrix: Floats
    unidentified: Floats
    scale: Floats


def covariance_of_reward(rows: Comparisons, coef: Floats, alpha: float, *, sandwich: bool) -> Covariance:
    """Covariance of the coefficients of one reward.

    With the Fisher information H = Σ_i ω_i σ(m_i) σ(−m_i) d_i d_iᵀ and A = H + α Ω I, at the minimum of J,

        A⁻¹                      the inverse information for α = 0; else the covariance of the posterior under the prior
                                 w ~ N(0, I / (α Ω)) whose mode is w, by Laplace's approximation;
        q A⁻¹ (Σ_u g_u g_uᵀ) A⁻¹   the sandwich, with g_u = Σ_{i∈u} ω_i s_i σ(−m_i) d_i the gradients of the groups, or
                                 of ungrouped rows (of which each counts ω_i times), and, for G of them and N rows,
                                 q = G / (G − 1) · (N − 1) / (N − rank A), the usual correction for few groups.

    Parameters
    ----------
    rows : Comparisons
        Groups are those of the sandwich.
    coef : ndarray of shape (n_features,)
        Where Newton's method begins to look for the minimum of J: the solver's tolerance is too wide for six digits.
    alpha : float
        Penalty, against the mean log-likelihood.
    sandwich : bool

    Raises
    ------
    ValueError
        If the likelihood has no maximum, as where rewards separate the labels, or fewer than two groups have weight.
    """
    at = _minimum(rows, coef, alpha * rows.total_weight)
    information, _ = _derivatives(rows, at)
    inverse = _inverse(information + alpha * rows.total_weight * np.eye(len(at)))
    if not sandwich:
        return inverse
    meat, n_units, n_rows = _squared_gradients(rows, at)
    if n_units < 2:
        raise ValueError(f"expected at least two groups with weight for sandwich errors, got {n_units:g}")
    rank = len(at) - inverse.unidentified.shape[1]
    if n_rows <= rank:
        raise ValueError(f"expected more rows than the {rank} features that they determine, got {n_rows:g}")
    factor = n_units / (n_units - 1) * (n_rows - 1) / (n_rows - rank)
    return replace(inverse, matrix=factor * inverse.matrix @ meat @ inverse.matrix)


def _minimum(rows: Comparisons, coef: Floats, penalty: float) -> Floats:
    """The reward at the minimum of J near to a fitted one."""
    at = np.asarray(coef, dtype=np.float64)
    change = np.inf
    for _ in range(_NEWTON_STEPS):
        information, gradient = _derivatives(rows, at)
        step = _inverse(information + penalty * np.eye(len(at))).matrix @ (gradient - penalty * at)
        with np.errstate(over="ignore", invalid="ignore"):
            change = float(np.linalg.norm(step) / max(np.linalg.norm(at), np.finfo(float).tiny))
        if not np.isfinite(change):
            break
        at = at + step
        if change < _ARRIVED or not at.any():
            return at
    if change < _NEARLY_ARRIVED:
        return at
    raise ValueError(
        "expected comparisons whose likelihood has a maximum, got comparisons that a reward predicts perfectly, or so "
        "nearly that its coefficients grow without bound; use alpha > 0"
    )


def _derivatives(rows: Comparisons, coef: Floats) -> tuple[Floats, Floats]:
    """Information (d, d) and gradient (d,) of the log-likelihood."""
    information, gradient = np.zeros((len(coef), len(coef))), np.zeros(len(coef))
    for block in rows.reader:
        difference = to_numpy(block.difference).astype(np.float64)
        weight, signs = rows.dense_weight[block.rows], rows.dense_signs[block.rows]
        wrong = sigmoid(-signs * (difference @ coef))
        gradient += (weight * signs * wrong) @ difference
        information += (difference * (weight * wrong * (1 - wrong))[:, None]).T @ difference
    return information, gradient


def _inverse(information: Floats) -> Covariance:
    """Inverse in the directions of which there is information, whatever the units of the features."""
    scale = np.sqrt(np.diag(information))
    scale = 1 / np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(information * scale * scale[:, None])
    known = values > _SINGULAR * max(values.max(initial=0.0), np.finfo(float).tiny)
    basis = scale[:, None] * vectors
    matrix = (basis[:, known] / values[known]) @ basis[:, known].T
    return Covariance(matrix, basis[:, ~known], scale)


def _squared_gradients(rows: Comparisons, coef: Floats) -> tuple[Floats, float, float]:
    """Σ_u g_u g_uᵀ, the number of groups and ungrouped rows by weight, and Ω."""
    total, n_units = np.zeros((len(coef), len(coef))), 0.0
    for part, unit, outer in _runs_of_units(rows):
        difference = to_numpy(part.difference).astype(np.float64)
        signs = part.dense_signs
        inner = np.ones(part.n_samples) if part.groups is None else part.dense_weight
        slope = inner * signs * sigmoid(-signs * (difference @ coef))
        gradients = np.zeros((len(outer), len(coef)))
        np.add.at(gradients, unit, slope[:, None] * difference)
        total += (gradients * outer[:, None]).T @ gradients
        n_units += float(outer.sum())
    return total, n_units, rows.total_weight


def _runs_of_units(rows: Comparisons) -> Iterator[tuple[Comparisons, NDArray[np.intp], Floats]]:
    """Rows of some groups, or some ungrouped rows; the unit of each, and how often every unit counts."""
    index = np.full(rows.n_samples, -1) if rows.groups is None else rows.groups.index
    counted = rows.dense_weight > 0
    alone = np.flatnonzero((index < 0) & counted)
    for first in range(0, len(alone), _BLOCK_ROWS):
        part = rows.part(alone[first : first + _BLOCK_ROWS])
        yield part, np.arange(part.n_samples), part.dense_weight
    grouped = np.flatnonzero((index >= 0) & counted)
    grouped = grouped[np.argsort(index[grouped], kind="stable")]
    begin = 0
    while begin < len(grouped):
        # A run ends with a whole group.
        last = index[grouped[min(begin + _BLOCK_ROWS, len(grouped)) - 1]]
        end = int(np.searchsorted(index[grouped], last, "right"))
        unit = np.unique(index[grouped[begin:end]], return_inverse=True)[1]
        yield rows.part(grouped[begin:end]), unit, np.ones(int(unit[-1]) + 1)
        begin = end
