"""What the methods with a handful of linear reward heads share: margins, weights, rewards, and the rule of HyRe."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, compute_dtype
from micropref._estimator.fitting import predicting
from micropref._estimator.parameters import check_choice, check_real
from micropref._rows.comparisons import Comparisons
from micropref.baselines._base import PersonalRewards
from micropref.baselines._responses import response_rows
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_odds, log_sigmoid, log_softmax
from micropref.kernels._products import linear_products

__all__ = ["HeadRewards", "ReweightedHeads", "difference_norm", "diversity", "oriented", "scaled_to_margin", "uniform"]

# Rows whose margins under all heads are held at a time.
_BLOCK = 1 << 13
_AVERAGES = ("rewards", "probabilities")


class HeadRewards(PersonalRewards):
    """Base of methods whose users are weights π_uk of K linear heads w_k.

    A row is represented by its K margins w_kᵀd, a user by K log-weights. `_learn` sets `coef_` and `_log_prior`.
    """

    coef_: np.ndarray
    _log_prior: np.ndarray
    average: str = "rewards"

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        margins: np.ndarray = linear_products(difference, self.coef_.astype(compute_dtype(difference))).T
        return margins

    def _start(self) -> np.ndarray:
        return self._log_prior

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        if self.average == "probabilities":
            odds: np.ndarray = log_odds(numbers.T, values.T.astype(np.float64, copy=False))
            return odds
        return self._mean_reward(values, numbers)

    def _mean_reward(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Σ_k π_uk v_k of every row."""
        rewards: np.ndarray = np.einsum("nk,nk->n", np.exp(numbers), values)
        return rewards

    @predicting
    def component_scores(self, X: Array) -> np.ndarray:
        """Margins w_kᵀ d of every head.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        margins : ndarray of shape (n_samples, n_components)
            In nats: log-odds that the first response is preferred by a user who has that head alone.
        """
        check_is_fitted(self)
        return self._represent(*self._checked(X))

    @predicting
    def mixture_weights(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Weights of the heads for every row.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        weights: np.ndarray = np.exp(self._numbers(groups, len(self._checked(X)[1])))
        return weights

    @predicting
    def rewards(self, features: Array, context: Array | None = None, groups: ArrayLike | None = None) -> np.ndarray:
        """Rewards Σ_k π_uk w_kᵀ φ of single responses for this user, for ranking any number of candidates.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array of shape (n_responses, n_context_features), optional
            Taken so that this can stand for `ContextRouter.rewards`; the weights do not depend on it.
        groups : array-like of shape (n_responses,), optional
            As in `decision_function`.

        Returns
        -------
        rewards : ndarray of shape (n_responses,)
            Only differences between responses to the same prompt have a meaning.

        Raises
        ------
        ValueError
            If the features are not as wide as the differences of X, or an entry is NaN or infinite.
        """
        check_is_fitted(self)
        contexts, values = response_rows(self, features, None)
        return self._mean_reward(self._represent(contexts, values), self._numbers(groups, len(values)))


class ReweightedHeads(HeadRewards):
    """Base of methods that weight fixed heads by the votes of a user, as HyRe does.

        log-weight of head k for user u  =  log π_k + (1/τ) Σ_{i∈u} ω_i log σ(s_i w_kᵀ d_i)  + const.

    (Lee et al., 2024). With `average` "rewards" the heads' rewards are averaged, as in the papers, and the log-odds of
    a row are Σ_k π_uk w_kᵀd; with "probabilities" p = Σ_k π_uk σ(w_kᵀd), the Bayesian prediction, as in
    `ContextRouter`.
    """

    temperature: float

    _ADAPTS_BY = ("temperature",)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_real(self, "temperature", 0.0, above_minimum=True)
        check_choice(self, "average", _AVERAGES)

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        evidence = votes.weight @ log_sigmoid(votes.values.astype(np.float64) * votes.signs[:, None])
        log_weights: np.ndarray = log_softmax((start + evidence / self.temperature)[:, None])[:, 0]
        return log_weights


def uniform(n_components: int) -> np.ndarray:
    """Logarithms of equal weights."""
    return np.full(n_components, -np.log(n_components))


def difference_norm(rows: Comparisons) -> float:
    """Root mean square norm of the differences, summed in double precision whatever that of X.

    Where many heads are learned, the minimum that a solver finds depends on the last digit of its scale.
    """
    squares = np.einsum("nd,nd->n", rows.difference, rows.difference, dtype=np.float64)
    return float(np.sqrt((rows.dense_weight / rows.total_weight) @ squares))


def scaled_to_margin(heads: np.ndarray, rows: Comparisons, margin: float) -> np.ndarray:
    """Each head multiplied so that its margins have this root mean square over rows.

    A head whose margins are all zero stays as it is.
    """
    margins = linear_products(rows.difference, heads.astype(compute_dtype(rows.difference))).astype(np.float64)
    size = np.sqrt((margins * margins) @ rows.dense_weight / rows.total_weight)
    scaled: np.ndarray = heads * np.divide(margin, size, out=np.ones_like(size), where=size > 0)[:, None]
    return scaled


def diversity(heads: np.ndarray, rows: Comparisons) -> float:
    """One less the mean correlation, about zero, of the margins of two heads over the rows; 0 for a single head.

    Near 0 all heads are one, and no vote can tell them apart; 1 is what independent directions have.
    """
    size = len(heads)
    products = np.zeros((size, size))
    for first in range(0, rows.n_samples, _BLOCK):
        block = slice(first, first + _BLOCK)
        difference = rows.difference[block]
        margins = linear_products(difference, heads.astype(compute_dtype(difference))).astype(np.float64)
        products += (margins * (rows.dense_weight[block] / rows.total_weight)) @ margins.T
    norms = np.sqrt(products.diagonal())
    norms = np.where(norms > 0, norms, 1.0)
    cosines = products / norms / norms[:, None]
    return 1.0 - float(cosines.sum() - np.trace(cosines)) / (size * (size - 1)) if size > 1 else 0.0


def oriented(directions: np.ndarray, mean: np.ndarray, size: float) -> np.ndarray:
    """Each direction with the sign that the rows, of this root mean square norm, prefer on average.

    Where they prefer neither, its largest entry is positive.
    """
    agreement = directions @ mean
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)[:, 0]
    tie = np.abs(agreement) <= 1e-12 * size
    return directions * np.where(np.where(tie, largest, agreement) < 0, -1.0, 1.0)[:, None]
