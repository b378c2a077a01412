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
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import predicting
from micropref._estimator.gated_heads import GatedHeads, fitted_gate
from micropref._estimator.saved import (
    COUNT,
    FLAG,
    REAL,
    RECORDS,
    check_covariances,
    check_tensors,
    record,
    refused,
)
from micropref._estimator.state import Arrays
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.kernels._pointwise import posterior

__all__ = ["SCATTERED_STATE", "ScatteredHeads", "restored_scatter"]

_SHAPE = {"rank": COUNT, "shrinkage": REAL, "tau": REAL, "outside": FLAG, "diagonal": FLAG}
_LEARNED = dict.fromkeys(("norm", "mass", "users", "prior_scale"), REAL)
#: What is saved besides tensors.
SCATTERED_STATE = {
    **dict.fromkeys(("rank_", "n_components_", "n_iter_"), COUNT),
    **dict.fromkeys(("alpha_", "evidence_"), REAL),
    "converged_": FLAG,
    "selection_": RECORDS,
    "_learned": record(
        {**_LEARNED, "shape": record(_SHAPE, optional=("shrinkage", "tau", "diagonal"))},
        optional=("prior_scale", "shape"),
    ),
}


class ScatteredHeads(GatedHeads):
    """Base of the models that are heads, a gate, and a scatter of users; answers are those of users not yet heard.

    A learner sets `scatter_` besides what `GatedHeads` needs.
    """

    _SAVED_ENTRIES, _SAVED_SINCE = (), ()
    _SAVED_TENSORS = r"coef|weights|new_user|tau|evidence|gate\.[0-3]|scatter\.(basis|covariances|residual)"

    tau_: NDArray[np.float64]
    rank_: int
    n_components_: int
    selection_evidence_: NDArray[np.float64]

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
        if self.new_user_coef_ is not None and groups is None:
            return self._mean_log_likelihood(self.decision_function(X), y, sample_weight)
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

    def _restore_scattered(self, arrays: Arrays) -> None:
        """Heads and scatter from saved tensors; a ModelFileError for those that are not of this model."""
        self._restore_heads(arrays)
        k, d = self.coef_.shape
        check_tensors(arrays, {"tau": (k,), "evidence": (None, None)})
        if getattr(self, "n_components_", k) != k:
            raise refused("state.n_components_", f"{k}, the number of heads,", self.n_components_)
        self.tau_, self.selection_evidence_ = arrays["tau"], arrays["evidence"]
        self.scatter_ = restored_scatter(arrays, "scatter", k, d) if "scatter.basis" in arrays else None


def _isotropic_part(scatter: Scatter) -> tuple[NDArray[np.float64], int]:
    """τ_k of every component, and the number of directions along which one of them has more variance than τ_k²."""
    q, d = scatter.n_directions, len(scatter.basis)
    if not q:
        return np.sqrt(scatter.residual), 0
    values = np.linalg.eigvalsh(scatter.covariances)
    least = values[:, 0] if q == d else scatter.residual
    least = np.maximum(least, 0.0)
    return np.sqrt(least), int((values > least[:, None] + 1e-9 * values[:, -1:]).sum(axis=1).max())


def restored_scatter(arrays: Arrays, prefix: str, n_components: int, n_features: int) -> Scatter:
    """A scatter from saved tensors; a ModelFileError where shapes are others, or a variance is negative."""
    basis, covariances, residual = (f"{prefix}.{name}" for name in ("basis", "covariances", "residual"))
    check_tensors(arrays, {basis: (n_features, None), residual: (n_components,)})
    q = arrays[basis].shape[1]
    check_tensors(arrays, {covariances: (n_components, q, q)})
    if q > n_features:
        raise ModelFileError(f"{basis}: expected at most {n_features} directions in a saved model, got {q}")
    check_covariances(covariances, arrays[covariances])
    if arrays[residual].min(initial=0.0) < 0:
        raise ModelFileError(f"{residual}: expected variances in a saved model, got a negative one")
    return Scatter(arrays[basis], arrays[covariances], arrays[residual])
