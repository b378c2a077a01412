"""The group bootstrap: heads of samples of whole groups, drawn with replacement."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.utils import check_random_state

from micropref._arrays.backend import index_like, to_numpy
from micropref._rows.comparisons import Comparisons
from micropref._rows.units import number_units

__all__ = ["bootstrapped_heads"]

# Rows by whose margins heads of a sample are matched with the fitted ones.
_MATCHED_ROWS = 2000


def bootstrapped_heads(
    estimator: Any, rows: Comparisons, n_resamples: int, random_state: Any, **parameters: Any
) -> NDArray[np.float32]:
    """Heads (n_resamples, n_components, n_features) of samples of as many groups, less their mean.

    Every sample is fitted from the fitted heads on, and its heads are put into their order, by the smallest squared
    differences of margins. A group that is drawn twice is two groups. Ungrouped rows are groups of one.

    Parameters
    ----------
    estimator : MixtureBradleyTerry
        Fitted.
    rows : Comparisons
    n_resamples : int
    random_state : int, RandomState instance or None
    **parameters
        Of the fits, where they are not the estimator's own.
    """
    random = check_random_state(random_state)
    counted = np.flatnonzero(rows.dense_weight > 0)
    unit = np.unique(number_units(rows.groups, rows.n_samples)[0][counted], return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    if n_units < 2:
        raise ValueError(f"expected at least two groups with weight for a bootstrap, got {n_units}")
    counted = counted[np.argsort(unit, kind="stable")]
    start = np.concatenate([[0], np.cumsum(np.bincount(unit))])
    grouped = np.zeros(n_units, dtype=bool)
    if rows.groups is not None:
        grouped[np.sort(unit, kind="stable")[rows.groups.index[counted] >= 0]] = True
    known = rows.part(counted[:: max(1, len(counted) // _MATCHED_ROWS)])
    compared = to_numpy(known.difference).astype(np.float64)
    reference = compared @ estimator.coef_.T
    heads = []
    for _ in range(n_resamples):
        drawn = random.randint(n_units, size=n_units)
        size = start[drawn + 1] - start[drawn]
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        part = counted[np.repeat(start[drawn], size) + place]
        groups = np.repeat(np.where(grouped[drawn], np.arange(n_units), -1), size)
        heads.append(_matched(_heads_of(estimator, rows, part, groups, parameters), compared, reference))
    found = np.stack(heads)
    return np.asarray(found - found.mean(axis=0), dtype=np.float32)


def _heads_of(
    estimator: Any, rows: Comparisons, part: NDArray[np.intp], groups: NDArray[np.intp], parameters: dict[str, Any]
) -> NDArray[np.float64]:
    """Heads of one sample, learned from the fitted ones on."""
    model = clone(estimator).set_params(warm_start=True, verbose=0, **parameters)
    for name in ("coef_", "weights_", "gate_parameters_"):
        setattr(model, name, getattr(estimator, name))
    X = rows.reader.X[index_like(part, rows.reader.X)]
    weight = None if rows.weight is None else rows.weight[part]
    with warnings.catch_warnings():
        # The fit of all rows has warned of what concerns the model, and one more iteration or less is no matter.
        warnings.simplefilter("ignore", UserWarning)
        model.fit(X, rows.dense_signs[part], sample_weight=weight, groups=groups if (groups >= 0).any() else None)
    return np.asarray(model.coef_)


def _matched(
    heads: NDArray[np.float64], compared: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Heads in the order of those that had the margins `reference` (n, n_components)."""
    margins = compared @ heads.T
    squares = (reference**2).sum(axis=0)[:, None] + (margins**2).sum(axis=0) - 2 * reference.T @ margins
    return np.asarray(heads[linear_sum_assignment(squares)[1]])
