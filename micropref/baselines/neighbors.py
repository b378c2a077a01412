"""ContextNeighbors: the reward that holds around a context."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from micropref._engine.priors import head_penalty
from micropref._estimator.errors import ModelFileError
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._estimator.state import Arrays
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._linear import LinearRewards, bradley_terry, remember_annotators, shrunk_reward
from micropref.baselines._nearest_rows import MOST_ROWS, NearestRows, nearest_shares
from micropref.baselines._rowspace import deviations, row_basis
from micropref.baselines._utility import boxed
from micropref.baselines._votes import Votes
from micropref.kernels._threads import blas_threads

__all__ = ["ContextNeighbors"]

# Rows gathered around the queries taken at once.
_GATHERED_BYTES = 1 << 26


class ContextNeighbors(LinearRewards):
    r"""Local Bradley-Terry rewards: the labelled rows with the nearest contexts decide.

    This method has no heads and no mixture. Let N(c) be the labelled rows nearest to context c in Euclidean distance δ,
    as many as have the total weight `n_neighbors` (those at the last distance δ_c share the remaining weight). Around
    c,

    .. math::

        w(c) &= w_0 + \operatorname*{argmin}_v \Bigl[ -\sum_{j \in N(c)} \kappa_j \omega_j \log \sigma\bigl(s_j (w_0 +
            v)^\top d_j\bigr)
            + \tfrac12\, \mathtt{local\_alpha}\, \lVert v \rVert^2 \Bigr], \\
        \kappa_j &= e^{-2 \delta_j^2 / \delta_c^2}

    with w_0 the Bradley-Terry reward of all rows: logistic regression, locally weighted as in Loader (1999), shrunk
    towards the global fit. Every query is a separate problem with at most as many variables as neighbours,
    solved by Newton's method. It is a rival for all methods that summarise rows in a few heads; it comes from no paper.

    Without context columns (``n_context_features=0``) every row is as near as any other: this is then the plain
    Bradley-Terry model w_0, shifted by a user's own votes as in `UserRewards`.

    **Users.** A user's own votes are neighbours of theirs wherever they were cast: the nearest ones, of total weight up
    to `n_neighbors`, are added with κ = 1 to the nearest rows of all. Annotators in `fit` are known by their
    votes. Rows without a group in `partial_fit` join the labelled rows; w_0 stays. The model and its pickles carry one
    copy of all labelled rows.

    At most 4 `n_neighbors` rows are considered around a query, however small their weights; if more rows are equally
    near, only some of them are used. Contexts that repeat often, such as a handful of criteria, need `n_neighbors` of
    the size of their repetitions.

    Parameters
    ----------
    n_neighbors : int, default=50
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    local_alpha : float or "auto", default="auto"
        Precision of the prior of local rewards around w_0; positive. "auto": mean_ω ‖d‖², with which local margins have
        a standard deviation of one nat about the common ones.
    alpha : float or "auto", default="auto"
        L2 penalty of w_0, against the mean log-likelihood in nats; positive. "auto": as in `MixtureBradleyTerry`, a
        prior standard deviation of its margins of 1.75 nats.
    max_iter : int, default=300
        Largest number of L-BFGS iterations for w_0.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        The global reward w_0.
    alpha_, local_alpha_ : float
        The penalties that were used.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Loader, "Local Regression and Likelihood", Springer, 1999.

    Examples
    --------
    The context turns the taste around.

    >>> import numpy as np
    >>> from micropref import make_pairs
    >>> from micropref.baselines import ContextNeighbors
    >>> rng = np.random.default_rng(0)
    >>> D, angle = 3 * rng.normal(size=(1500, 2)), rng.uniform(0, 2 * np.pi, size=1500)
    >>> context = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> y = ((D * context).sum(axis=1) > 0).astype(int)
    >>> X = make_pairs(D, 0 * D, context=context)
    >>> model = ContextNeighbors(n_context_features=2, local_alpha=1.0).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.95
    True
    >>> model.rewards([[1.0, 0.0], [-1.0, 0.0]], context=[[1.0, 0.0]] * 2) > 0
    array([ True, False])
    """

    _SHAPE = ("n_context_features", "n_neighbors")
    _ADAPTS_BY = ("local_alpha",)
    _STATE_VALUES = listed(alpha_=REAL, local_alpha_=REAL, n_iter_=COUNT, converged_=FLAG)
    _STATE_VOTES = ("_votes_of_all", "_labelled")

    def __init__(
        self,
        n_neighbors: int = 50,
        *,
        n_context_features: int = 0,
        local_alpha: float | str = "auto",
        alpha: float | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-5,
    ):
        self.n_neighbors = n_neighbors
        self.n_context_features = n_context_features
        self.local_alpha = local_alpha
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_neighbors", "max_iter"):
            check_integer(self, name, 1)
        for name in ("local_alpha", "alpha"):
            check_real(self, name, 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        norm = float(rows.norms[1])
        self.alpha_ = head_penalty(self.alpha, norm, rows.total_weight)
        self.local_alpha_ = norm**2 if isinstance(self.local_alpha, str) else float(self.local_alpha)
        found = bradley_terry(
            Votes(rows.difference, rows.dense_signs, rows.dense_weight),
            self.alpha_,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self.coef_, self.n_iter_, self.converged_ = found.vector, found.n_iter, found.converged
        warn_if_stopped(found.converged, f"L-BFGS stopped after {found.n_iter} iterations")
        ungrouped = self.n_context_features > 0
        values = self._represent(rows.context, rows.difference)
        labelled = remember_annotators(self, rows, values, ungrouped=ungrouped)
        if ungrouped:
            self._labelled = labelled
            self._collect_labelled()

    def _remember(self, votes: Votes, users: Groups | None) -> None:
        before = self._votes_of_all
        super()._remember(votes, users)
        if self.n_context_features and self._votes_of_all is not before:
            self._collect_labelled()

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        model = super()._restore(arrays, description)
        if model.n_context_features:
            if model._labelled is None:
                raise ModelFileError("votes: expected the labelled rows of the fit in a saved model, got none")
            model._collect_labelled()
        return model

    def _collect_labelled(self) -> None:
        """Those of `fit` and those without a group that came later."""
        self._collect(self._labelled if self._votes_of_all is None else self._labelled + self._votes_of_all)

    def _collect(self, votes: Votes) -> None:
        """Take rows as those among which neighbours are looked for."""
        self._pool = votes
        self._nearest = NearestRows(votes.values[:, : self.n_context_features], votes.weight, self.n_neighbors)

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        return np.hstack([context, difference]) if self.n_context_features else difference

    def _start(self) -> np.ndarray:
        return boxed(None) if self.n_context_features else self.coef_

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        if not self.n_context_features:
            return shrunk_reward(votes, start, self._in_force("local_alpha"))
        # Those of no user are labelled rows, and not the votes of a user.
        return start if votes is self._votes_of_all else boxed(votes)

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        if not self.n_context_features:
            return super()._log_odds(values, numbers)
        owners = numbers[:, 0].tolist()
        limit = MOST_ROWS * self.n_neighbors
        most_own = max((min(len(votes), limit) for votes in owners if votes is not None), default=0)
        row_bytes = 8 * values.shape[1] * (self._nearest.n_candidates + most_own)
        size = max(1, _GATHERED_BYTES // row_bytes)
        result = np.empty(len(values))
        with blas_threads(False):
            for first in range(0, len(values), size):
                block = slice(first, first + size)
                result[block] = self._local(values[block], owners[block], most_own)
        return result

    def _local(self, values: np.ndarray, owners: list[Votes | None], most_own: int) -> np.ndarray:
        """Log-odds of a few queries, each with its neighbours and then its owner's votes."""
        n_context = self.n_context_features
        index, weight = self._nearest.around(values[:, :n_context])
        n, width = index.shape
        rows = np.zeros((n, width + most_own, values.shape[1] - n_context))
        signs, weights = np.ones(rows.shape[:2]), np.zeros(rows.shape[:2])
        rows[:, :width] = self._pool.values[index, n_context:]
        signs[:, :width], weights[:, :width] = self._pool.signs[index], weight
        for query, votes in enumerate(owners):
            if votes is None:
                continue
            if len(votes) > 1:
                apart = votes.values[:, :n_context].astype(np.float64) - values[query, :n_context]
                distance = np.einsum("nc,nc->n", apart, apart)
                near = np.argsort(distance, kind="stable")[:most_own]
                taken = nearest_shares(distance[None, near], votes.weight[None, near], self.n_neighbors)[0]
                votes = Votes(votes.values[near], votes.signs[near], taken[0])
            added = slice(width, width + len(votes))
            rows[query, added] = votes.values[:, n_context:]
            signs[query, added], weights[query, added] = votes.signs, votes.weight
        basis, root = row_basis(rows)
        found = deviations(root, rows @ self.coef_, signs, weights, self._in_force("local_alpha"))
        warn_if_stopped(found.converged, "Newton's method around a context stopped")
        difference = values[:, n_context:]
        own = np.einsum("nd,ndr,nr->n", difference, basis, found.variables, optimize=True)
        odds: np.ndarray = difference @ self.coef_ + own
        return odds
