"""PairScaler: contexts and differences, each brought to a usual size by one number."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, compute_dtype, is_torch, namespace, to_numpy
from micropref._estimator.fitting import learning, predicting
from micropref._estimator.parameters import check_real
from micropref._rows.layout import PairReader, measure, non_finite, root_mean_square
from micropref._rows.matrix import check_matrix
from micropref._rows.ranges import NORMS, check_range
from micropref._rows.weights import check_sample_weight
from micropref.distributed import active_communicator

__all__ = ["PairScaler"]


class PairScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Scale contexts and differences to given root-mean-square norms, each by one factor.

    The penalties of the estimators are stated for features of a usual size; this brings embeddings of any size there.
    One scale per block keeps the geometry of the embedding, and differences are never centred: a shift
    introduces a position bias, so that swapping two responses would no longer swap their probabilities.

    Parameters
    ----------
    n_context_features : int, default=0
        Number of leading context columns.
    context_norm : float, default=1.0
        Root mean square Euclidean norm of the scaled contexts, between 1e-10 and 1e10.
    difference_norm : float, default=3.0
        Root mean square Euclidean norm of the scaled differences, between 1e-10 and 1e10.

    Attributes
    ----------
    scale_ : ndarray of shape (2,)
        Factors of the contexts and of the differences; 1 for a block without columns or with zeros only.
    n_features_in_ : int
        Number of columns seen in `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[3.0, 4.0], [-3.0, 4.0]])
    >>> PairScaler(difference_norm=10.0).fit_transform(X)
    array([[ 6.,  8.],
           [-6.,  8.]])
    """

    def __init__(self, n_context_features: int = 0, *, context_norm: float = 1.0, difference_norm: float = 3.0):
        self.n_context_features = n_context_features
        self.context_norm = context_norm
        self.difference_norm = difference_norm

    @learning
    def fit(self, X: Array, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Measure the two norms.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons; a memory-mapped file is read in blocks.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        self
        """
        ranks = active_communicator()
        everywhere = ranks.exchange(ranks.together(lambda: self._measure(X, sample_weight)))
        weights = np.array([weight for _, weight in everywhere])
        norms = np.array([root_mean_square(np.array([one[i] for one, _ in everywhere]), weights) for i in (0, 1)])
        target = np.array([self.context_norm, self.difference_norm])
        self.scale_ = np.divide(target, norms, out=np.ones(2), where=norms > 0)
        return self

    def _measure(self, X: Array, sample_weight: ArrayLike | None) -> tuple[np.ndarray, float]:
        """The two norms and the weight of these rows."""
        for name in ("context_norm", "difference_norm"):
            check_real(self, name, *NORMS)
        X = check_matrix(self, X, reset=True)
        weight = check_sample_weight(sample_weight, X.shape[0])
        sizes = measure(X, self.n_context_features, weight)
        check_range(X, self.n_context_features, sizes)
        return sizes.norms, float(X.shape[0] if weight is None else weight.sum())

    @predicting
    def transform(self, X: Array) -> Array:
        """Scale comparisons.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)

        Returns
        -------
        X : array of the same shape
            float64 for float64 input, float32 for all else.
        """
        check_is_fitted(self)
        X = check_matrix(self, X, reset=False)
        xp = namespace(X)
        dtype = compute_dtype(X)
        kind = {"device": X.device} if is_torch(X) else {}
        scaled = xp.empty(tuple(X.shape), dtype=dtype, **kind)
        for rows, context, difference in PairReader(X, self.n_context_features):
            if not bool(xp.all(xp.isfinite(context))) or not bool(xp.all(xp.isfinite(difference))):
                raise non_finite(X, rows)
            with np.errstate(over="ignore"):
                scaled[rows, : self.n_context_features] = context * float(self.scale_[0])
                scaled[rows, self.n_context_features :] = difference * float(self.scale_[1])
            if not bool(xp.all(xp.isfinite(scaled[rows]))):
                raise _beyond(scaled[rows], rows.start)
        return scaled

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _beyond(scaled: Array, first_row: int) -> ValueError:
    row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(to_numpy(scaled))))
    return ValueError(
        f"expected features of the size seen in fit, got one that is beyond the largest number of {scaled.dtype} when "
        f"it is scaled: row {first_row + row}, column {column}"
    )
