"""One linear reward per user: its Bradley-Terry fit, and the shared methods of the estimators that give one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, precision
from micropref._engine.gates import Gate
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.scaling import head_scale, with_penalties
from micropref._engine.solvers import Minimum, lbfgs
from micropref._estimator.fitting import predicting
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.baselines._base import PersonalRewards
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._responses import response_rows
from micropref.baselines._rowspace import deviations, row_basis
from micropref.baselines._votes import Votes
from micropref.kernels._threads import blas_threads

__all__ = ["LinearRewards", "bradley_terry", "remember_annotators", "shrunk_reward"]

# A penalty beyond this holds a reward where it is as firmly, and its products stay finite.
_STIFFEST = 1e100


def bradley_terry(
    votes: Votes,
    alpha: float,
    *,
    max_iter: int,
    tol: float,
    start: np.ndarray | None = None,
    centre: np.ndarray | None = None,
) -> Minimum:
    """The reward w (d,) that minimises −(1/Ω) Σ_i ω_i log σ(s_i wᵀd_i) + ½ alpha ‖w − centre‖², d_i the votes' values.

    Parameters
    ----------
    votes : Votes
        Differences as values; their total weight Ω must be positive.
    alpha : float
        Positive.
    max_iter, tol
        As in `MixtureBradleyTerry`, whose fit with one component this is.
    start : ndarray of shape (d,), optional
        Zero if not given.
    centre : ndarray of shape (d,), optional
        Zero if not given.
    """
    alpha = min(alpha, _STIFFEST)
    rows = Comparisons(PairReader(votes.values, 0), votes.signs.astype(np.int8), votes.weight)
    objective = MixtureObjective(rows, Gate(0, 1), Penalties(alpha))
    width = votes.values.shape[1]
    pull = np.zeros(width) if centre is None else alpha * centre
    constant = 0.0 if centre is None else 0.5 * float(pull @ centre)

    def value_and_gradient(reward: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(reward)
        return value - float(pull @ reward) + constant, gradient - pull

    return lbfgs(
        value_and_gradient,
        np.zeros(width) if start is None else start,
        scale=with_penalties(head_scale(rows.norms[1], (1, width)).ravel(), objective.stiffness),
        max_iter=max_iter,
        tol=tol,
        precision=precision(votes.values),
    )


def shrunk_reward(votes: Votes, common: np.ndarray, penalty: float) -> np.ndarray:
    """The reward (d,) of a user with these votes under the prior N(common, I / penalty)."""
    rows = votes.values.astype(np.float64)
    with blas_threads(False):
        basis, root = row_basis(rows[None])
        found = deviations(root, (rows @ common)[None], votes.signs[None], votes.weight[None], penalty)
    warn_if_stopped(found.converged, "Newton's method for one user stopped")
    reward: np.ndarray = common + basis[0] @ found.variables[0]
    return reward


def remember_annotators(
    estimator: PersonalRewards, rows: Comparisons, values: np.ndarray, *, ungrouped: bool = False
) -> Votes:
    """Let an estimator know every annotator of its training rows, in the order of ids, by their votes.

    Returns
    -------
    votes : Votes
        Those of annotators, and `ungrouped` ones if wanted, with one copy of `values`. What the estimator knows are
        parts of it. Rows without weight were never cast.
    """
    index = np.full(len(rows.dense_signs), -1) if rows.groups is None else rows.groups.index
    kept = np.flatnonzero((rows.dense_weight > 0) & (ungrouped | (index >= 0)))
    order = kept[np.argsort(index[kept], kind="stable")]
    everything = Votes(values, rows.dense_signs, rows.dense_weight).of(order)
    if rows.groups is not None:
        cuts = np.searchsorted(index[order], np.arange(rows.groups.n_groups + 1)).tolist()
        for name, (first, end) in zip(rows.groups.ids.tolist(), pairwise(cuts), strict=True):
            estimator._know(name, everything.part(first, end))
    return everything


class LinearRewards(PersonalRewards):
    """Base of the methods under which every user's log-odds are linear in the difference, in a given context."""

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        return difference

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        odds: np.ndarray = np.einsum("nd,nd->n", values, numbers)
        return odds

    @predicting
    def rewards(self, features: Array, context: ArrayLike | None = None, groups: ArrayLike | None = None) -> np.ndarray:
        """Rewards of single responses for a user; their differences are the log-odds of comparisons.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array-like of shape (n_responses, n_context_features), optional
            Context of every response; zeros if not given.
        groups : array-like of shape (n_responses,), optional
            User of every response, as in `decision_function`.

        Returns
        -------
        rewards : ndarray of shape (n_responses,)
            In nats. Only differences between responses in the same context and to the same user have a meaning.

        Raises
        ------
        ValueError
            If features or contexts are not of the width seen in `fit`.
        """
        check_is_fitted(self)
        contexts, values = response_rows(self, features, context)
        return self._answers(self._represent(contexts, values), groups)
