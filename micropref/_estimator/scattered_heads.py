"""ScatteredHeads: what heads answer around which users scatter, however they were learned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, like, to_numpy
from micropref._engine.gaussian_users import Scatter
from micropref._engine.logistic_normal import expected_log_odds
from micropref._engine.population import Population, beliefs_of, log_prior
from micropref._engine.prediction import scatter_coordinates
from micropref._engine.user_votes import UserVotes
from micropref._estimator.fitting import predicting
from micropref._estimator.gated_heads import GatedHeads, fitted_gate
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.kernels._pointwise import posterior

__all__ = ["ScatteredHeads"]


class ScatteredHeads(GatedHeads):
    """Base of the models that are heads, a gate, and a scatter of users; answers are those of users not yet heard.

    A learner sets `scatter_` besides what `GatedHeads` needs.
    """

    tau_: NDArray[np.float64]
    rank_: int

    @predicting
    def responsibilities(self, X: Array, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Array:
        """Posterior probabilities of the components given the labels, the scatter of users included.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
            As in `fit`.
        groups : array-like of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        responsibilities : array of shape (n_samples, n_components) or (n_units, n_components)
            One row for every row of X; with `groups`, first one for every group in ascending order of its id (in order
            of appearance where ids have no order), then one for every ungrouped row.
        """
        if self.scatter_ is None:
            return super().responsibilities(X, y, groups)
        return like(self._evidence(self._votes(X, y, None, groups))[1].T, X, None)

    @predicting
    def log_likelihood(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> float:
        """Mean evidence per row, in nats: (1/Ω) (Σ_u ℓ_u + Σ_{ungrouped i} ω_i ℓ_i) of whole groups.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        y : array-like of shape (n_samples,), optional
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            All as in `fit`.

        Returns
        -------
        log_likelihood : float
        """
        if self.scatter_ is None:
            return super().log_likelihood(X, y, sample_weight, groups)
        votes = self._votes(X, y, sample_weight, groups)
        return float(votes.outer @ self._evidence(votes)[0]) / votes.mass

    def _votes(self, X: Array, y: Any, sample_weight: Any, groups: Any) -> UserVotes:
        check_is_fitted(self)
        width = self.n_context_features_
        kind: dict[str, Any] = {"first": False, "n_context_features": width, "classes": self.classes_, "host": True}
        return UserVotes(Comparisons.read(self, X, y, sample_weight, groups, **kind), 1.0)

    def _shrunken(self, reader: PairReader, margins: Array) -> Array:
        """Margins that heads without scatter would need for the same probabilities of a new user."""
        scatter = self.scatter_
        if scatter is None:
            return margins
        variance = scatter.prior_variance(*scatter_coordinates(reader, scatter))
        return like(expected_log_odds(to_numpy(margins), variance), margins, margins.dtype)

    def _population(self) -> Population:
        k, d = self.coef_.shape
        scatter = Scatter.none(k, d) if self.scatter_ is None else self.scatter_
        return Population(self.coef_, fitted_gate(self), self.gate_parameters_, scatter)

    def _evidence(self, votes: UserVotes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood of every user, and the responsibilities (K, n_users)."""
        population = self._population()
        found = posterior(log_prior(votes, population), beliefs_of(votes, population).evidence)
        return np.asarray(found[0]), np.asarray(found[1])

    def _set_scatter(self, scatter: Scatter) -> None:
        """Set the scatter, in units of the features, and what is said of it."""
        self.scatter_ = scatter if scatter.n_directions else None
        self.tau_, self.rank_ = _isotropic_part(scatter)


def _isotropic_part(scatter: Scatter) -> tuple[NDArray[np.float64], int]:
    """τ_k of every component, and the number of directions along which one of them has more variance than τ_k²."""
    q, d = scatter.n_directions, len(scatter.basis)
    if not q:
        return np.sqrt(scatter.residual), 0
    values = np.linalg.eigvalsh(scatter.covariances)
    least = values[:, 0] if q == d else scatter.residual
    least = np.maximum(least, 0.0)
    return np.sqrt(least), int((values > least[:, None] + 1e-9 * values[:, -1:]).sum(axis=1).max())
