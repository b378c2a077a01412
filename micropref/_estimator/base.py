"""What the estimators of preferences share: from log-odds to labels, probabilities, accuracy and likelihood.

An estimator writes `decision_function`; all else here follows from it. scikit-learn reads from a signature what
metadata a method takes, hence two classes: one for models of a population, and one for models that know users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score

from micropref._arrays.backend import Array, namespace, to_numpy
from micropref._estimator.fitting import predicting
from micropref._rows.labels import check_labels
from micropref._rows.weights import check_sample_weight
from micropref.kernels._pointwise import log_sigmoid, sigmoid

__all__ = ["PersonalPreferenceClassifier", "PreferenceClassifier"]


class _FromLogOdds(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """The arithmetic from log-odds to every other answer."""

    classes_: NDArray[Any]
    n_features_in_: int

    def _known_classes(self, classes: ArrayLike | None) -> ArrayLike | None:
        """The labels of earlier calls, if there were any; a ValueError where this call says others."""
        known: NDArray[Any] | None = getattr(self, "classes_", None)
        if known is None or classes is None:
            return classes if known is None else known
        given = np.asarray(to_numpy(classes))
        if not np.array_equal(given, known):
            raise ValueError(f"expected classes={known.tolist()}, as in the first call, got {given.tolist()}")
        return known

    @staticmethod
    def _probabilities(log_odds: Array) -> Array:
        """Columns 1 − p and p of the probability p that the first response is preferred."""
        return namespace(log_odds).stack([sigmoid(-log_odds), sigmoid(log_odds)], axis=1)

    def _labels(self, log_odds: Array) -> NDArray[Any]:
        """The more likely label of every row."""
        return self.classes_[(to_numpy(log_odds) > 0).astype(np.intp)]

    def _accuracy(self, log_odds: Array, y: ArrayLike | None, sample_weight: ArrayLike | None) -> float:
        first = to_numpy(log_odds) > 0
        signs, _ = check_labels(y, len(first), classes=self.classes_)
        truth = np.ones(len(first), dtype=bool) if signs is None else signs > 0
        return float(accuracy_score(truth, first, sample_weight=check_sample_weight(sample_weight, len(first))))

    def _mean_log_likelihood(self, log_odds: Array, y: ArrayLike | None, sample_weight: ArrayLike | None) -> float:
        odds = to_numpy(log_odds).astype(np.float64)
        weight = check_sample_weight(sample_weight, len(odds))
        signs, _ = check_labels(y, len(odds), classes=self.classes_)
        return float(np.average(log_sigmoid(odds if signs is None else odds * signs), weights=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class PreferenceClassifier(_FromLogOdds):
    """Base of the models of a population: every row gets the answer of all annotators together."""

    @abstractmethod
    def decision_function(self, X: Array) -> Array:
        """Log-odds (n_samples,), in nats, that the first response is preferred."""

    @predicting
    def predict_proba(self, X: Array) -> Array:
        """Probabilities of the two labels, in the order of `classes_`.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        probabilities : array of shape (n_samples, 2)
            Column 1: the first response is preferred.
        """
        return self._probabilities(self.decision_function(X))

    @predicting
    def predict(self, X: Array) -> NDArray[Any]:
        """Predict the label of the response that is more likely to be preferred.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self._labels(self.decision_function(X))

    @predicting
    def score(self, X: Array, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Share of rows for which the preferred response is predicted.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            Labels; None means that the first response is preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        accuracy : float
        """
        return self._accuracy(self.decision_function(X), y, sample_weight)


class PersonalPreferenceClassifier(_FromLogOdds):
    """Base of the models that know users: `groups` says for whom each row is answered."""

    @abstractmethod
    def decision_function(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Log-odds (n_samples,), in nats, that the first response is preferred by this user."""

    @predicting
    def predict_proba(self, X: Array, groups: ArrayLike | None = None) -> Array:
        """Probabilities of the two labels, in the order of `classes_`.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        probabilities : array of shape (n_samples, 2)
            Column 1: the first response is preferred.
        """
        return self._probabilities(self.decision_function(X, groups))

    @predicting
    def predict(self, X: Array, groups: ArrayLike | None = None) -> NDArray[Any]:
        """Predict the label of the response that is more likely to be preferred.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self._labels(self.decision_function(X, groups))

    @predicting
    def score(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Share of rows for which the preferred response is predicted.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            Labels; None means that the first response is preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        accuracy : float
        """
        return self._accuracy(self.decision_function(X, groups), y, sample_weight)

    @predicting
    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean log-probability of the labels per row, in nats, each row on its own.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            As in `score`.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        log_likelihood : float
        """
        return self._mean_log_likelihood(self.decision_function(X, groups), y, sample_weight)
