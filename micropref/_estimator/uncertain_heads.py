"""UncertainHeads: standard errors of what a mixture has learned, and of the rewards that follow from it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, to_numpy
from micropref._engine.information import covariance_of_reward
from micropref._estimator.bootstrap import bootstrapped_heads
from micropref._estimator.fitting import fitted, lock_of, predicting
from micropref._estimator.gated_heads import GatedHeads
from micropref._estimator.saved import check_tensors, refused
from micropref._estimator.state import Arrays
from micropref._estimator.uncertainty import ARRAYS, HeadUncertainty
from micropref._rows.comparisons import Comparisons

__all__ = ["UncertainHeads"]

_KINDS = ("model", "sandwich", "bootstrap")


class UncertainHeads(GatedHeads):
    """Heads with a sampling distribution, once `estimate_uncertainty` has been called.

    A learner drops `uncertainty_` when it learns.
    """

    def estimate_uncertainty(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        kind: str = "bootstrap",
        n_resamples: int = 100,
        random_state: Any = None,
    ) -> Self:
        r"""Estimate the sampling error of the heads; heads and predictions do not change.

        Afterwards `standard_errors_` has the standard errors of `coef_`, and ``rewards(..., return_std=True)`` those of
        rewards, here, in a `ContextRouter` on these heads that is fitted later, and in what is saved.

        For one head, with the Fisher information :math:`H = \sum_i \omega_i\,
        \sigma(m_i)\, \sigma(-m_i)\, d_i d_i^\top` and :math:`A = H + \mathtt{alpha}\, \Omega I`:

        model
            :math:`A^{-1}`: the inverse information if ``alpha=0``, the posterior's covariance by Laplace's method
            otherwise. Both hold for a model that is right, with independent comparisons.
        sandwich
            :math:`q A^{-1} (\sum_u g_u g_u^\top) A^{-1}` from the gradients :math:`g_u` of the log-likelihood of whole
            groups. It is right where answers of one annotator depend on each other, or where the model does not hold.
            For G groups and N rows, :math:`q = \frac{G}{G - 1} \cdot \frac{N - 1}{N - \operatorname{rank} A}`. With a
            positive ``alpha`` it is the spread of the penalised estimate, and does not contain its bias.

        For any number of heads the group bootstrap fits samples of whole groups, drawn with replacement, each from the
        fitted heads on. It, too, is the spread of the penalised estimate. Where a reward is not determined, as that of
        a player without a reference, its standard error is infinite; those of differences are not.

        Parameters
        ----------
        X, y, sample_weight, groups
            What the heads were fitted on. Ungrouped rows are groups of one; a "sandwich" counts each ω_i times.
        kind : {"bootstrap", "model", "sandwich"}, default="bootstrap"
            The last two are for one head.
        n_resamples : int, default=100
            Samples of the bootstrap, at least 2. Heads of all are kept, in single precision.
        random_state : int, RandomState instance or None, default=None
            Seed of the bootstrap; None: that of the mixture.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is more than one head for "model" or "sandwich", the likelihood has no maximum, there are fewer
            than two groups, and for bad rows as in `fit`.

        References
        ----------
        Liang and Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73(1), 1986.
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
        """
        check_is_fitted(self)
        if kind not in _KINDS:
            raise ValueError(f"kind: expected one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
        if not isinstance(n_resamples, int | np.integer) or isinstance(n_resamples, bool) or n_resamples < 2:
            raise ValueError(f"n_resamples: expected an integer of at least 2, got {n_resamples!r}")
        with lock_of(self):
            known = fitted(self)
            rows = known._rows(X, y, sample_weight, groups)
            rows.refuse_all_zero()
            if kind == "bootstrap":
                seed = getattr(known, "random_state", None) if random_state is None else random_state
                deviations = bootstrapped_heads(known, rows, int(n_resamples), seed, **known._penalties_of_fit())
                self.uncertainty_ = HeadUncertainty(kind, deviations=deviations)
            else:
                self.uncertainty_ = _of_one_head(known, rows, kind)
        return self

    @property
    def standard_errors_(self) -> NDArray[np.float64]:
        """Standard errors of `coef_`, after `estimate_uncertainty`.

        Returns
        -------
        standard_errors : ndarray of shape (n_components, n_features)
            Infinite where the data do not determine a coefficient.

        Raises
        ------
        AttributeError
            If they have not been estimated.
        """
        if self.uncertainty_ is None:
            raise AttributeError("standard_errors_: call estimate_uncertainty on the rows of the fit first")
        return _known_uncertainty(self).standard_errors(self.coef_.shape[1])

    @predicting
    def rewards(self, features: Array, *, return_std: bool = False) -> Any:
        """Rewards w_kᵀ φ of single responses, for ranking any number of candidates.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        return_std : bool, default=False
            Also return standard errors, after `estimate_uncertainty`. That of a difference of two rewards is that of
            the reward of the features' difference.

        Returns
        -------
        rewards : array of shape (n_responses, n_components)
            Only differences between responses to the same prompt have a meaning.
        std : array of shape (n_responses, n_components)
            In nats; only if `return_std`.

        Raises
        ------
        ValueError
            If standard errors are asked for and have not been estimated.
        """
        found = super().rewards(features)
        if not return_std:
            return found
        variances = _known_uncertainty(self).variances(to_numpy(features))
        return found, like(np.sqrt(variances.T), found, found.dtype)

    def _penalties_of_fit(self) -> dict[str, Any]:
        """The penalties of the fit, where its parameters left them to be chosen."""
        names = ("alpha", "gate_alpha")
        return {name: getattr(self, f"{name}_") for name in names if hasattr(self, f"{name}_")}

    def _export_uncertainty(self) -> tuple[Arrays, str | None]:
        known = self.uncertainty_
        if known is None:
            return {}, None
        return {f"uncertainty.{name}": array for name, array in known.export().items()}, known.kind

    def _restore_uncertainty(self, arrays: Arrays, kind: str | None) -> None:
        if kind is not None:
            if kind not in _KINDS:
                raise refused("uncertainty", f"one of {', '.join(_KINDS)}", kind)
            (k, d), most = self.coef_.shape, None
            shapes: dict[str, tuple[int | None, ...]] = {"covariance": (d, d), "unidentified": (d, most), "scale": (d,)}
            if kind == "bootstrap":
                shapes = {"deviations": (most, k, d)}
            check_tensors(arrays, {f"uncertainty.{name}": shape for name, shape in shapes.items()})
            self.uncertainty_ = HeadUncertainty(kind, **{name: arrays.get(f"uncertainty.{name}") for name in ARRAYS})


def _of_one_head(estimator: UncertainHeads, rows: Comparisons, kind: str) -> HeadUncertainty:
    if len(estimator.coef_) != 1:
        raise ValueError(f"kind={kind!r}: expected a mixture of one head, got {len(estimator.coef_)}; use 'bootstrap'")
    alpha = float(estimator._penalties_of_fit().get("alpha", getattr(estimator, "alpha", 0.0)))
    found = covariance_of_reward(rows, estimator.coef_[0], alpha, sandwich=kind == "sandwich")
    return HeadUncertainty(kind, found.matrix, found.unidentified, found.scale)


def _known_uncertainty(estimator: UncertainHeads) -> HeadUncertainty:
    check_is_fitted(estimator)
    if estimator.uncertainty_ is None:
        raise ValueError(
            "expected heads whose uncertainty was estimated, got none; call estimate_uncertainty on the rows of the fit"
        )
    return estimator.uncertainty_
