"""A scorer for scikit-learn that knows annotators."""

from __future__ import annotations

from typing import Any, Self

import sklearn
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

from micropref._arrays.backend import Array

_METADATA = ("groups", "sample_weight")


class GroupedLogLikelihood:
    """Scorer for scikit-learn's ``scoring=``: mean log-likelihood per row, in nats; larger is better.

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
            return float(estimator.log_likelihood(X, y, sample_weight=sample_weight, groups=groups))
        if isinstance(estimator, Pipeline):
            for _, step in estimator.steps[:-1]:
                X = X if step in (None, "passthrough") else step.transform(X)
            return self(estimator[-1], X, y, sample_weight, groups)
        if hasattr(estimator, "best_estimator_"):
            return self(estimator.best_estimator_, X, y, sample_weight, groups)
        raise TypeError(
            "expected an estimator with log_likelihood, such as MixtureBradleyTerry or ContextRouter, got "
            f"{type(estimator).__name__}"
        )

    def set_score_request(self, **requests: bool | str | None) -> Self:
        """A new scorer that requests metadata; this one does not change.

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
                "expected metadata routing to be enabled, got it disabled: requests take effect only under "
                "sklearn.set_config(enable_metadata_routing=True), or inside "
                "sklearn.config_context(enable_metadata_routing=True)"
            )
        scorer = type(self)()
        for name in _METADATA:
            alias = requests.pop(name, self._request.score.requests.get(name))
            scorer._request.score.add_request(param=name, alias=alias)
        if requests:
            raise TypeError(f"expected metadata {' or '.join(_METADATA)}, got {', '.join(requests)}")
        return scorer

    def get_metadata_routing(self) -> MetadataRequest:
        """The metadata that this scorer requests.

        Returns
        -------
        request : MetadataRequest
        """
        return self._request

    def __repr__(self) -> str:
        asked = {name: alias for name, alias in self._request.score.requests.items() if alias}
        call = f".set_score_request({', '.join(f'{name}={alias!r}' for name, alias in asked.items())})" if asked else ""
        return f"grouped_log_likelihood{call}"


grouped_log_likelihood = GroupedLogLikelihood()
