"""Cross-entropy of a single reward = label noise + group information + misspecification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, xlogy

from micropref._arrays.backend import to_numpy
from micropref._rows.arrays import as_rows
from micropref.theory._population import check_population, check_probabilities, information, relative_entropy
from micropref.theory._single import best_single_probs, tabular_design


@dataclass(frozen=True)
class ErrorDecomposition:
    """The three terms of a single reward's error, in nats per comparison.

    Parameters
    ----------
    cross_entropy : float
        Expected log-loss of the single model; the sum of the other three.
    label_noise : float
        H(Y | X, A, B, Z): each group's own indecision. Nothing removes it.
    group_information : float
        I(Y; Z | X, A, B): the information in the group. Only a context or a user's history removes it.
    misspecification : float
        E KL(p̄ ‖ q): the distance of the population's average from the single model. A mixture removes it.
    """

    cross_entropy: float
    label_noise: float
    group_information: float
    misspecification: float


def error_decomposition(
    weights: ArrayLike,
    component_probs: ArrayLike,
    single_probs: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    responses: tuple[ArrayLike, ArrayLike] | Any | None = None,
    features: ArrayLike | None = None,
) -> ErrorDecomposition:
    r"""Decompose the error of a single reward on a population of groups that disagree.

    With :math:`\bar p = \sum_k \pi_k \sigma_k` and any single model q, exactly and in nats,

    .. math:: \mathrm{CE}(q) = H(Y|X,A,B,Z) + I(Y;Z|X,A,B) + E\,\mathrm{KL}(\bar p \,\|\, q)

    (label noise, hidden group, Bradley-Terry misspecification): the chain rule H(Y|·) = H(Y|·,Z) + I(Y;Z|·) and
    CE(q) = H(Y|·) + E KL(p̄ ‖ q). It sharpens Theorem 3.2 of Shen et al. (2025, arXiv 2505.24846).

    Without `single_probs` the best single Bradley-Terry reward is fitted: one free reward for every response where
    their ids are given in `responses`, otherwise linear in `features`.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_components) or (n_components,)
        Mixture weights π_k in every row; they sum to 1 over the components.
    component_probs : array-like of shape (n_samples, n_components)
        Probabilities σ_k (not scores) that component k prefers the first response.
    single_probs : array-like of shape (n_samples,), optional
        Probabilities q of the single model.
    sample_weight : array-like of shape (n_samples,), optional
        Rows of weight 0 play no part.
    responses : tuple of two array-likes of shape (n_samples,), or table of two columns, optional
        Ids of the first and of the second response.
    features : array-like of shape (n_samples, n_features), optional
        Differences φ(first) − φ(second).

    Returns
    -------
    parts : ErrorDecomposition
        Infinite `misspecification` and `cross_entropy` where q is certain and wrong.

    Raises
    ------
    ValueError
        For values outside [0, 1], weights that do not sum to 1, wrong shapes, or if not exactly one of
        `single_probs`, `responses` and `features` is given.

    Examples
    --------
    Two groups of the same size that want the opposite: a single reward can do no better than a coin.

    >>> from micropref.theory import error_decomposition
    >>> parts = error_decomposition([0.5, 0.5], [[0.9, 0.1]], single_probs=[0.5])
    >>> round(parts.label_noise, 3), round(parts.group_information, 3), round(parts.misspecification, 3)
    (0.325, 0.368, 0.0)
    """
    given = [
        name
        for name, value in (("single_probs", single_probs), ("responses", responses), ("features", features))
        if value is not None
    ]
    if len(given) != 1:
        raise ValueError(
            "expected exactly one of single_probs, responses (ids of both) or features (differences), which say what "
            f"the single model is, got {' and '.join(given) or 'none of them'}"
        )
    population = check_population(weights, component_probs, sample_weight)
    first, second, share = population.first, population.second, population.share
    if single_probs is not None:
        q = check_probabilities(population.column(single_probs, "single_probs").astype(np.float64), "single_probs")
    elif responses is not None:
        ids = [population.column(column, "responses") for column in _two_columns(responses)]
        q = best_single_probs(tabular_design(*ids), first, share)
    else:
        assert features is not None
        differences = population.rows(as_rows(features, "features"), "features").astype(np.float64)
        if not np.isfinite(differences).all():
            row, column = np.argwhere(~np.isfinite(differences))[0]
            place = f"row {np.flatnonzero(population.kept)[row]}, column {column}"
            raise ValueError(f"features: expected finite numbers, got {differences[row, column]} in {place}")
        q = best_single_probs(differences, first, share)
    probs = population.probs
    with np.errstate(divide="ignore"):
        cross_entropy = -(xlogy(first, q) + xlogy(second, 1 - q))
    return ErrorDecomposition(
        cross_entropy=float(share @ cross_entropy),
        label_noise=float(share @ (population.weights * (entr(probs) + entr(1 - probs))).sum(axis=1)),
        group_information=float(share @ information(population)),
        # Rounding may leave −1e-17 where q = p̄.
        misspecification=max(0.0, float(share @ (relative_entropy(first, q) + relative_entropy(second, 1 - q)))),
    )


def _two_columns(responses: Any) -> tuple[Any, Any]:
    """Ids of the first and of the second responses, from a pair of columns or a table of two."""
    columns = to_numpy(responses).T if hasattr(responses, "columns") else responses
    if len(columns) != 2:
        raise ValueError(f"responses: expected two columns of ids, first and second, got {len(columns)}")
    return columns[0], columns[1]
