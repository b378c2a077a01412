"""How good a model of preferences is: a scorer that knows annotators, and intervals that know clusters."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import sklearn
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRequest

from micropref._backend import Array
from micropref._validation import check_groups, check_sample_weight

_METADATA = ("groups", "sample_weight")
_RESAMPLED_ROWS = 1 << 20


class GroupedLogLikelihood:
    """Scorer for scikit-learn's ``scoring=``: mean log-likelihood per row, in nats, larger is better.

    On held-out annotators this is what can choose the number of components; the accuracy on pairs cannot, where every
    pair is preferred one way by some and the other way by others. Annotators reach the scorer by metadata routing.

    Use the instance `grouped_log_likelihood`.

    Examples
    --------
    >>> import numpy as np, sklearn
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from micropref import MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(800, 2))
    >>> annotator = np.arange(800) // 4
    >>> y = (X[:, 0] * np.where(annotator % 2 == 0, -3, 3) > 0).astype(int)
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     scores = [
    ...         cross_val_score(
    ...             MixtureBradleyTerry(k, random_state=0).set_fit_request(groups=True),
    ...             X,
    ...             y,
    ...             cv=GroupKFold(4),
    ...             scoring=grouped_log_likelihood.set_score_request(groups=True),
    ...             params={"groups": annotator},
    ...         ).mean()
    ...         for k in (1, 2)
    ...     ]
    >>> bool(scores[1] > scores[0] + 0.3)
    True
    """

    def __init__(self) -> None:
        self._request = MetadataRequest(owner=type(self).__name__)

    def __call__(
        self,
        estimator: Any,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator with `log_likelihood`
            Or a Pipeline that ends in one, or a search that found one.
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            Annotators of the rows.

        Returns
        -------
        log_likelihood : float
            In nats per row.

        Raises
        ------
        TypeError
            If the estimator has no `log_likelihood`.
        """
        if hasattr(estimator, "log_likelihood"):
            return estimator.log_likelihood(X, y, sample_weight=sample_weight, groups=groups)
        if isinstance(estimator, Pipeline):
            for _, step in estimator.steps[:-1]:
                X = X if step in (None, "passthrough") else step.transform(X)
            return self(estimator[-1], X, y, sample_weight, groups)
        if hasattr(estimator, "best_estimator_"):
            return self(estimator.best_estimator_, X, y, sample_weight, groups)
        raise TypeError(
            f"{type(estimator).__name__} has no log_likelihood; use a MixtureBradleyTerry or a ContextRouter"
        )

    def set_score_request(self, **requests: bool | str | None) -> Self:
        """A new scorer that asks for metadata; this one stays as it is.

        Parameters
        ----------
        **requests : {True, False, None} or str
            For `groups` and `sample_weight`: whether they are passed on, or under which other name.

        Returns
        -------
        scorer : GroupedLogLikelihood

        Raises
        ------
        RuntimeError
            If metadata routing is off, so that the request would be ignored.
        TypeError
            If another name is requested.
        """
        if not sklearn.get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "requests are heard only under sklearn.set_config(enable_metadata_routing=True), or inside "
                "sklearn.config_context(enable_metadata_routing=True)"
            )
        scorer = type(self)()
        for name in _METADATA:
            alias = requests.pop(name, self._request.score.requests.get(name))
            scorer._request.score.add_request(param=name, alias=alias)
        if requests:
            raise TypeError(f"unknown metadata: {', '.join(requests)}; this scorer takes {' and '.join(_METADATA)}")
        return scorer

    def get_metadata_routing(self) -> MetadataRequest:
        """The metadata that this scorer asks for."""
        return self._request

    def __repr__(self) -> str:
        asked = {name: alias for name, alias in self._request.score.requests.items() if alias}
        call = f".set_score_request({', '.join(f'{name}={alias!r}' for name, alias in asked.items())})" if asked else ""
        return f"grouped_log_likelihood{call}"


grouped_log_likelihood = GroupedLogLikelihood()


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> Interval:
    """Mean with a percentile bootstrap interval that resamples whole clusters.

    Rows of one user, or of one prompt, are not independent: an interval from single rows would be too narrow.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
    clusters : array-like of shape (n_samples,), optional
        Cluster of every row, such as its user or prompt; None, NaN or -1 for a row on its own.
    sample_weight : array-like of shape (n_samples,), optional
    level : float, default=0.95
        Probability that the interval is to have.
    n_resamples : int, default=1000
    random_state : int, RandomState instance or None, default=0

    Returns
    -------
    interval : Interval
        ``(mean, low, high)``, in the units of `values`.

    Raises
    ------
    ValueError
        If values are not finite, lengths do not agree, or fewer than two clusters have weight.

    Examples
    --------
    Ten users, each either always right or always wrong: what looks like 1 000 rows is 10.

    >>> correct = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 100)
    >>> mean_interval(correct)
    Interval(mean=0.7, low=0.671, high=0.727)
    >>> mean_interval(correct, clusters=np.arange(1000) // 100)
    Interval(mean=0.7, low=0.4, high=0.9)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must have shape (n_samples,) with at least one row; got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values contain NaN or infinity in row {int(np.argmin(np.isfinite(values)))}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1; got {n_resamples!r}")
    weight = check_sample_weight(sample_weight, len(values))
    weight = np.ones(len(values)) if weight is None else weight
    total, mass = _cluster_sums(values, clusters, weight)
    n_clusters = len(total)
    if n_clusters < 2:
        raise ValueError(f"an interval needs at least two clusters with positive weight; got {n_clusters}")
    random = check_random_state(random_state)
    means = np.empty(n_resamples)
    size = max(1, _RESAMPLED_ROWS // n_clusters)
    for start in range(0, n_resamples, size):
        count = min(size, n_resamples - start)
        drawn = random.randint(n_clusters, size=(count, n_clusters), dtype=np.int32)
        means[start : start + count] = total[drawn].sum(axis=1) / mass[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(total.sum() / mass.sum()), float(low), float(high))


def _cluster_sums(values: np.ndarray, clusters: ArrayLike | None, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ ω v and Σ ω of every cluster that has weight."""
    members = check_groups(clusters, len(values))
    total, mass = values * weight, weight
    if members is not None:
        alone = members.index < 0
        index = members.index[~alone]
        total, mass = (
            np.concatenate([np.bincount(index, each[~alone], members.n_groups), each[alone]]) for each in (total, mass)
        )
    return total[mass > 0], mass[mass > 0]


def accuracy_interval(
    correct: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> Interval:
    """Share of correct rows with a percentile bootstrap interval that resamples whole clusters.

    Parameters
    ----------
    correct : array-like of bool of shape (n_samples,)
        Whether the preferred response of each row was predicted.
    clusters, level, n_resamples, random_state
        As in `mean_interval`.

    Returns
    -------
    interval : Interval
        ``(mean, low, high)``.

    Raises
    ------
    ValueError
        If an entry is neither true nor false, and as in `mean_interval`.
    """
    correct = np.asarray(correct)
    strange = ~np.isin(correct, (0, 1))
    if strange.any():
        raise ValueError(f"correct must hold True and False only; got {correct[strange][0]!r}")
    return mean_interval(correct, clusters, level=level, n_resamples=n_resamples, random_state=random_state)
