"""The number of components, chosen on held-out annotators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed

from micropref._arrays.backend import Array
from micropref._engine.dead_heads import dead_heads
from micropref._estimator.dead_heads import candidate_fits
from micropref._rows.groups import check_groups
from micropref._rows.units import number_units
from micropref._rows.weights import check_sample_weight
from micropref.distributed import Communicator, active_communicator
from micropref.heads import mask_heads
from micropref.metrics import grouped_log_likelihood
from micropref.mixture import MixtureBradleyTerry

__all__ = ["ComponentSelection", "select_n_components"]

_RULES = ("one_se", "best")
_FIRST_CANDIDATES = (1, 2, 3, 4)
_N_FOLDS = 5
# Annotators for every head of the largest candidate.
_LEAST_ANNOTATORS = 5


@dataclass(frozen=True)
class ComponentSelection:
    """Result of `select_n_components`.

    Attributes
    ----------
    n_components : int
        The number chosen.
    candidates : ndarray of int of shape (n_candidates,)
    mean_log_likelihood : ndarray of shape (n_candidates,)
        Mean over the folds of the held-out log-likelihood, in nats per row.
    standard_error : ndarray of shape (n_candidates,)
        Standard error of the difference between this mean and the best mean. Differences are taken within folds,
        because folds differ more from each other than numbers of heads do. 0 for the best.
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
    candidates: Sequence[int] | None = None,
    cv: Any = _N_FOLDS,
    n_jobs: int | None = None,
    rule: str = "one_se",
) -> ComponentSelection:
    """Choose the number of components by the log-likelihood of held-out annotators.

    No annotator is on both sides of a split, and the rows of an annotator are evaluated together, because more
    components gain by predicting the other answers of an annotator from one answer. A head with less than 2 % of the
    weight is dead, and is not counted, if held-out annotators are predicted no worse without it: a candidate stands for
    the number of its living heads.

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
    candidates : sequence of int, optional
        None: 1, 2, 3 and 4, and then 6, 8, 12, 16 and so on as long as the largest is the best, with at least five
        annotators per head.
    cv : int or splitter, default=5
        Number of folds of `GroupKFold`, or a splitter that takes groups.
    n_jobs : int, optional
        Fits that run at the same time.
    rule : {"one_se", "best"}, default="one_se"
        The fewest components within one standard error (of the difference) of the best; or "best", the number with the
        largest mean.

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
    numbers = list(np.array(_FIRST_CANDIDATES if candidates is None else candidates, dtype=int).tolist())
    if not numbers:
        raise ValueError(f"candidates: expected a sequence of at least one number, got {candidates!r}")
    n_samples = len(X)
    data = _Data(X, y, _as_array(groups), check_sample_weight(sample_weight, n_samples))
    parameter = _number_parameter(estimator)
    ranks = active_communicator()
    splits, n_units = ranks.together(lambda: _splits(cv, data, groups))
    largest = int(ranks.reduce(np.array([float(n_units)]))[0]) // _LEAST_ANNOTATORS

    def tried(number: int) -> list[_Fold]:
        fits = (delayed(_try)(_with(estimator, parameter, number), data, *fold) for fold in splits)
        return [_of_all_ranks(fold, ranks) for fold in Parallel(n_jobs=n_jobs)(fits)]

    found = [tried(number) for number in numbers]
    while candidates is None and (following := _next(numbers, found)) and following <= largest:
        numbers.append(following)
        found.append(tried(following))
    chosen, folds, error = _choose(numbers, found, rule)
    final = _fit(_with(estimator, parameter, chosen), data)
    return ComponentSelection(chosen, np.array(numbers), folds.mean(axis=1), error, folds, final)


class _Data(NamedTuple):
    """Arguments of `fit`."""

    X: Array
    y: ArrayLike | None
    groups: np.ndarray
    weight: np.ndarray | None

    def part(self, rows: np.ndarray) -> _Data:
        parts: list[Any] = [None if one is None else _safe_indexing(one, rows) for one in self]
        return _Data(*parts)


class _Fold(NamedTuple):
    """What annotators held out say of one fit.

    Attributes
    ----------
    log_likelihood, without_dead : float
        Mean nats per row of the fit, and of the same without its dead heads.
    weight : float
        Ω of the rows held out.
    n_dead : int
    """

    log_likelihood: float
    without_dead: float
    weight: float
    n_dead: int


def _splits(cv: Any, data: _Data, groups: Any) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Rows of the folds, and the number of annotators."""
    n_samples = len(data.groups)
    unit, n_units = number_units(check_groups(groups, n_samples), n_samples)
    splitter = GroupKFold(cv) if isinstance(cv, int) else cv
    if "groups" not in splitter.get_metadata_routing().split.requests:
        raise TypeError(f"cv: expected a number or a splitter that takes groups, got {type(splitter).__name__}")
    splits = list(splitter.split(data.X, data.y, unit))
    if len(splits) < 2:
        raise ValueError(f"cv: expected at least 2 folds, got {len(splits)}: one alone has no standard error")
    return splits, n_units


def _with(estimator: Any, parameter: str, number: int) -> Any:
    return clone(estimator).set_params(**{parameter: number})


def _try(estimator: Any, data: _Data, train: np.ndarray, test: np.ndarray) -> _Fold:
    """Fit to some rows and judge by the others."""
    with candidate_fits():
        fitted = _fit(estimator, data.part(train))
    held_out = data.part(test)
    weight = float(len(test) if held_out.weight is None else held_out.weight.sum())
    own = _log_likelihood(fitted, held_out)
    last = _steps(fitted)[-1][1]
    dead = dead_heads(last.weights_) if isinstance(last, MixtureBradleyTerry) else np.zeros(1, dtype=bool)
    if not dead.any():
        return _Fold(own, own, weight, 0)
    living = mask_heads(last, dead)
    rest = Pipeline([*fitted.steps[:-1], ("living", living)]) if isinstance(fitted, Pipeline) else living
    return _Fold(own, _log_likelihood(rest, held_out), weight, int(dead.sum()))


def _log_likelihood(fitted: Any, data: _Data) -> float:
    return grouped_log_likelihood(fitted, data.X, data.y, sample_weight=data.weight, groups=data.groups)


def _of_all_ranks(fold: _Fold, ranks: Communicator) -> _Fold:
    """The fold over the rows of all ranks, whose fits are one."""
    if ranks.world_size == 1:
        return fold
    total = ranks.reduce(np.array([fold.log_likelihood * fold.weight, fold.without_dead * fold.weight, fold.weight]))
    return _Fold(float(total[0] / total[2]), float(total[1] / total[2]), float(total[2]), fold.n_dead)


def _n_living(number: int, folds: list[_Fold]) -> int:
    """Heads of a candidate, without those that die in most of its folds and are no loss."""
    loss = np.mean([fold.log_likelihood - fold.without_dead for fold in folds])
    return number - (int(np.median([fold.n_dead for fold in folds])) if loss <= 0 else 0)


def _next(numbers: list[int], found: list[list[_Fold]]) -> int:
    """The number to try after these; 0 where the largest is not the best, or has dead heads."""
    means = [np.mean([fold.log_likelihood for fold in folds]) for folds in found]
    largest = numbers[-1]
    if int(np.argmax(means)) < len(means) - 1 or _n_living(largest, found[-1]) < largest:
        return 0
    power = 1 << (largest.bit_length() - 1)
    return power + power // 2 if largest == power else 2 * power


def _choose(numbers: list[int], found: list[list[_Fold]], rule: str) -> tuple[int, np.ndarray, np.ndarray]:
    """The number chosen; log-likelihoods (n_candidates, n_folds); standard errors of what they are behind the best."""
    folds = np.array([[fold.log_likelihood for fold in each] for each in found])
    living = np.array([_n_living(number, each) for number, each in zip(numbers, found, strict=True)])
    best = int(np.argmax(folds.mean(axis=1)))
    behind = folds[best] - folds
    error = behind.std(axis=1, ddof=1) / np.sqrt(folds.shape[1])
    enough = behind.mean(axis=1) <= error
    return int(living[enough].min() if rule == "one_se" else living[best]), folds, error


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


def _fit(estimator: Any, data: _Data) -> Any:
    """Fitted, by the prefixes of a Pipeline rather than by requests, which would stay in the estimator."""
    metadata = {"groups": data.groups} | ({} if data.weight is None else {"sample_weight": data.weight})
    with config_context(enable_metadata_routing=True):
        passed = {
            prefix + name: value
            for prefix, step in _steps(estimator)
            for name, value in metadata.items()
            if _takes(step, name)
        }
    with config_context(enable_metadata_routing=False):
        return estimator.fit(data.X, data.y, **passed)
