"""Whether heads that were learned are those that were planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from micropref._arrays.backend import to_numpy


@dataclass(frozen=True)
class HeadAgreement:
    """Result of `head_agreement`.

    Attributes
    ----------
    permutation : ndarray of int of shape (n_planted,)
        The head matched to every planted one, so that ``coef[permutation]`` are in the planted order; -1 where there
        are too few.
    cosines : ndarray of shape (n_planted,)
        Cosine of each planted head with its match; 0 where it has none.
    mean : float
        Mean of `cosines`: a planted head that was not found counts as 0.
    similarity : ndarray of shape (n_heads, n_planted)
        Cosines of all heads with all planted ones.
    """

    permutation: np.ndarray
    cosines: np.ndarray
    mean: float
    similarity: np.ndarray


def head_agreement(coef: ArrayLike, planted_coef: ArrayLike, X: ArrayLike | None = None) -> HeadAgreement:
    """Agreement of learned with planted heads, under the best matching.

    The matching has the largest sum of cosines among all one-to-one matchings (the assignment problem). A cosine
    ignores how large a head is; with a head that is zero it is 0.

    Parameters
    ----------
    coef : array-like of shape (n_heads, n_features)
        Learned heads, as in `MixtureBradleyTerry.coef_`.
    planted_coef : array-like of shape (n_planted, n_features)
        True heads; their number may differ from that of the learned ones.
    X : array-like of shape (n_samples, n_features), optional
        Differences. With them the cosines are those of the margins X w, so that predictions on these pairs are
        compared: directions in which pairs hardly differ count little. They do not change if pairs are swapped.

    Returns
    -------
    agreement : HeadAgreement

    Raises
    ------
    ValueError
        If an array is empty or not finite, or widths do not agree.

    Examples
    --------
    >>> found = head_agreement([[0.0, 2.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> found.permutation.tolist(), found.mean
    ([1, 0], 1.0)
    """
    heads, planted = _matrix(coef, "coef"), _matrix(planted_coef, "planted_coef")
    if heads.shape[1] != planted.shape[1]:
        raise ValueError(f"planted_coef: expected {heads.shape[1]} features, as coef has, got {planted.shape[1]}")
    if X is not None:
        rows = _matrix(X, "X")
        if rows.shape[1] != heads.shape[1]:
            raise ValueError(f"X: expected {heads.shape[1]} columns, without context, got {rows.shape[1]}")
        heads, planted = heads @ rows.T, planted @ rows.T
    similarity = np.clip(_unit(heads) @ _unit(planted).T, -1.0, 1.0)
    row, column = linear_sum_assignment(-similarity)
    permutation, cosines = np.full(len(planted), -1), np.zeros(len(planted))
    permutation[column], cosines[column] = row, similarity[row, column]
    return HeadAgreement(permutation, cosines, float(cosines.mean()), similarity)


def _matrix(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(to_numpy(values), dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected a matrix with at least one row and column, got shape {array.shape}")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}: expected finite numbers, got {array[row, column]} in row {row}, column {column}")
    return array


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of zeros stays as it is."""
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(float).tiny)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    return unit
