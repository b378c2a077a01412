"""How many kinds of preference there are: the number of components, chosen on annotators held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from micropref._arrays.backend import Array
from micropref._rows.groups import check_groups
from micropref._rows.units import number_units
from micropref._rows.weights import check_sample_weight
from micropref.metrics import grouped_log_likelihood

__all__ = ["ComponentSelection", "select_n_components"]

_RULES = ("best", "one_se")


@dataclass(frozen=True)
class ComponentSelection:
    """What `select_n_components` found.

    Attributes
    ----------
    n_components : int
        The number chosen.
    candidates : ndarray of int of shape (n_candidates,)
    mean_log_likelihood : ndarray of shape (n_candidates,)
        Mean over the folds of the held-out log-likelihood, in nats per row.
    standard_error : ndarray of shape (n_candidates,)
        Standard error of that mean.
    fold_log_likelihood : ndarray of shape (n_candidates, n_folds)
    estimator : estimator
        Fitted to all rows with the number chosen.
    """

    n_components: int
    candidates: np.ndarray
    mean_log_likelihood: np.ndarray
    standard_error: np.ndarray
    fold_log_likelihood: np.ndarray
    estimator: Any


def select_n_components(
    estimator: BaseEstimator,
    X: Array,
    y: ArrayLike | None = None,
    *,
    groups: ArrayLike,
    sample_weight: ArrayLike | None = None,
    candidates: Sequence[int] = (1, 2, 3, 4, 6, 8),
    cv: Any = 5,
    n_jobs: int | None = None,
    rule: str = "best",
) -> ComponentSelection:
    """Choose the number of components by the log-likelihood of annotators held out.

    No annotator is on both sides of a split, and each one's rows are judged together: how well one answer tells what
    the others are is what more components can gain.

    Parameters
    ----------
    estimator : MixtureBradleyTerry
        Or a Pipeline that ends in one.
    X : array of shape (n_samples, n_features)
    y : array-like of shape (n_samples,), optional
        None: the first response is preferred in every row.
    groups : array-like of shape (n_samples,)
        Annotator of every row; None, NaN or -1 for a row on its own.
    sample_weight : array-like of shape (n_samples,), optional
    candidates : sequence of int, default=(1, 2, 3, 4, 6, 8)
    cv : int or splitter, default=5
        Number of folds of `GroupKFold`, or a splitter that takes groups.
    n_jobs : int, optional
        Fits that run at the same time.
    rule : {"best", "one_se"}, default="best"
        The largest mean; or the fewest components whose mean is within one standard error of it.

    Returns
    -------
    selection : ComponentSelection

    Raises
    ------
    ValueError
        If there are no candidates or fewer annotators than folds.
    TypeError
        If the estimator has no number of components or takes no groups.

    Examples
    --------
    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(800, 2))
    >>> annotator = np.arange(800) // 4
    >>> y = (X[:, 0] * np.where(annotator % 2 == 0, -3, 3) > 0).astype(int)
    >>> found = select_n_components(MixtureBradleyTerry(random_state=0), X, y, groups=annotator, candidates=(1, 2))
    >>> found.n_components
    2
    """
    if rule not in _RULES:
        raise ValueError(f"rule: expected one of {', '.join(map(repr, _RULES))}, got {rule!r}")
    numbers = np.array(candidates, dtype=int)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"candidates: expected a sequence of at least one number, got {candidates!r}")
    n_samples = len(X)
    weight = check_sample_weight(sample_weight, n_samples)
    parameter = _number_parameter(estimator)
    splits, _ = number_units(check_groups(groups, n_samples), n_samples)
    annotators = _as_array(groups)
    metadata = {"groups": splits, "annotators": annotators} | ({} if weight is None else {"sample_weight": weight})
    weighted = None if weight is None else True
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            _with_requests(estimator, weighted),
            {parameter: numbers.tolist()},
            scoring=grouped_log_likelihood.set_score_request(groups="annotators", sample_weight=weighted),
            cv=GroupKFold(cv) if isinstance(cv, int) else cv,
            n_jobs=n_jobs,
            refit=False,
            error_score="raise",
        ).fit(X, y, **metadata)
    if search.n_splits_ < 2:
        raise ValueError(f"cv: expected at least 2 folds, got {search.n_splits_}: one alone has no standard error")
    folds = np.stack([search.cv_results_[f"split{i}_test_score"] for i in range(search.n_splits_)], axis=1)
    mean = folds.mean(axis=1)
    error = folds.std(axis=1, ddof=1) / np.sqrt(folds.shape[1])
    best = int(np.argmax(mean))
    chosen = int(numbers[mean >= mean[best] - error[best]].min() if rule == "one_se" else numbers[best])
    final = _fit_all(clone(estimator).set_params(**{parameter: chosen}), X, y, annotators, weight)
    return ComponentSelection(chosen, numbers, mean, error, folds, final)


def _as_array(groups: Any) -> np.ndarray:
    """Groups that can be cut into folds, every id as it was."""
    if isinstance(groups, np.ndarray):
        return groups
    array = np.empty(len(groups), dtype=object)
    array[:] = list(groups)
    return array


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    """Steps of a Pipeline with the prefix of their parameters; any other estimator is its only step."""
    return (
        [(f"{name}__", step) for name, step in estimator.steps]
        if isinstance(estimator, Pipeline)
        else [("", estimator)]
    )


def _takes(step: Any, metadata: str) -> bool:
    return hasattr(step, "get_metadata_routing") and metadata in step.get_metadata_routing().fit.requests


def _number_parameter(estimator: Any) -> str:
    prefix, last = _steps(estimator)[-1]
    with config_context(enable_metadata_routing=True):
        if "n_components" not in last.get_params() or not _takes(last, "groups"):
            raise TypeError(
                "expected an estimator with n_components that takes groups, a MixtureBradleyTerry or a Pipeline that "
                f"ends in one, got {type(last).__name__}"
            )
    return f"{prefix}n_components"


def _with_requests(estimator: Any, weighted: bool | None) -> Any:
    """A clone whose steps are handed annotators and weights."""
    routed = clone(estimator)
    for _, step in _steps(routed):
        asked = {"groups": "annotators", "sample_weight": weighted}
        requests = {name: alias for name, alias in asked.items() if _takes(step, name)}
        if requests:
            step.set_fit_request(**requests)
    return routed


def _fit_all(estimator: Any, X: Array, y: ArrayLike | None, groups: np.ndarray, weight: np.ndarray | None) -> Any:
    """Fitted to all rows, by the prefixes of a Pipeline rather than by requests, which would stay in the estimator."""
    metadata = {"groups": groups} | ({} if weight is None else {"sample_weight": weight})
    with config_context(enable_metadata_routing=True):
        passed = {
            prefix + name: value
            for prefix, step in _steps(estimator)
            for name, value in metadata.items()
            if _takes(step, name)
        }
    with config_context(enable_metadata_routing=False):
        return estimator.fit(X, y, **passed)
