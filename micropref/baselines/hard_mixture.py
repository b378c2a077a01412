"""HardMixture: every annotator belongs to one head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from micropref._engine.priors import head_penalty
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import Groups
from micropref._rows.units import Units
from micropref._support.renamed import moved
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._linear import LinearRewards, bradley_terry, remember_annotators
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_sigmoid

__all__ = ["HardMixture"]

__getattr__ = moved(__name__)

_HEAD_ITERATIONS = 300
# Standard deviation of the margins at a random start.
_START_MARGIN = 0.3


class HardMixture(LinearRewards):
    r"""Clusters of annotators, one Bradley-Terry head each, by expectation-maximisation with hard assignments.

    Algorithm 1 of MaxMin-RLHF (Chakraborty et al., 2024): alternately, every annotator u goes to the head under which
    their rows are most likely, and every head is fitted to the rows of its annotators,

    .. math::

        z_u &= \operatorname*{argmax}_k \sum_{i \in u} \omega_i \log \sigma(s_i w_k^\top d_i), \\
        W &= \operatorname*{argmin}_W J, \qquad
        J = -\frac{1}{\Omega} \sum_i \omega_i \log \sigma(s_i w_{z(i)}^\top d_i) + \tfrac12\, \mathtt{alpha}\, \lVert
            W \rVert^2,

    until no annotator moves. J never increases. Of `n_init` random starts the one with the smallest J is kept. Rows
    without a group are annotators of their own.

    A head without annotators falls back to zero, the minimum of its penalty. It then takes, in the next round, those
    annotators whom a coin describes better than their own head does, and stays empty where there are none.

    A new user belongs to the head under which their votes are most likely, and it alone predicts; where heads are
    equally likely, to the one that the population gets: the most frequent head, or, after rows without a group in
    `partial_fit`, the head under which these are most likely.

    Differences from the paper: heads are linear on frozen features and each is refitted until it has converged, not by
    a few gradient steps on a language model; a start draws heads, from which the first assignment follows, so that
    neither the order nor the names of annotators matter. The paper's second part, a policy for the worst-off cluster,
    is not about predicting preferences. Context columns of X are not used.

    Parameters
    ----------
    n_components : int, default=4
        Number K of heads.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    alpha : float or "auto", default="auto"
        L2 penalty of the heads, against the mean log-likelihood in nats; positive. "auto": as in `MixtureBradleyTerry`,
        a prior standard deviation of their margins of 1.75 nats.
    max_iter : int, default=100
        Largest number of rounds of each start.
    tol : float, default=1e-5
        Convergence of a head: largest component of the gradient, in variables scaled to features of unit size.
    n_init : int, default=4
        Number of random starts; one is enough for one component.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts.

    Attributes
    ----------
    coef_ : ndarray of shape (n_components, n_features)
        The heads, the most frequent one first.
    weights_ : ndarray of shape (n_components,)
        Shares of the annotators; rows without a group count with their weights.
    alpha_ : float
        The penalty that was used.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
        Rounds of the start that was kept.
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Chakraborty et al., "MaxMin-RLHF: Alignment with Diverse Human Preferences", ICML 2024, arXiv:2402.08925.

    Examples
    --------
    Two annotators out of three like the first feature, the third dislikes it; each compares four pairs.

    >>> import numpy as np
    >>> from micropref.baselines import HardMixture
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1200, 2))
    >>> annotator = np.arange(1200) // 4
    >>> y = (X[:, 0] * np.where(annotator % 3 == 0, -3, 3) > 0).astype(int)
    >>> model = HardMixture(n_components=2, random_state=0).fit(X, y, groups=annotator)
    >>> model.weights_.round(2)
    array([0.67, 0.33])
    >>> model.partial_fit(X[:4], y[:4], groups=["ann"] * 4).rewards([[1.0, 0.0]], groups=["ann"]) < 0
    array([ True])
    """

    _SHAPE = ("n_context_features", "n_components")
    _STATE_ARRAYS = listed(coef_="KD", weights_="K")
    _STATE_VALUES = listed(alpha_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        n_components: int = 4,
        *,
        n_context_features: int = 0,
        alpha: float | str = "auto",
        max_iter: int = 100,
        tol: float = 1e-5,
        n_init: int = 4,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_components", "max_iter", "n_init"):
            check_integer(self, name, 1)
        check_real(self, "alpha", 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        random = check_random_state(self.random_state)
        n_rows, width = rows.difference.shape
        ungrouped = Groups(np.empty(0, dtype=int), np.full(n_rows, -1, dtype=np.int32))
        units = Units.create(ungrouped if rows.groups is None else rows.groups, rows.dense_weight)
        norm = rows.norms[1]
        self.alpha_ = float(head_penalty(self.alpha, norm, rows.total_weight))
        size = _START_MARGIN / norm if norm > 0 else 0.0
        best: _Clusters | None = None
        for _ in range(1 if self.n_components == 1 else self.n_init):
            heads = size * random.normal(size=(self.n_components, width))
            found = self._rounds(rows, units, heads)
            if best is None or found.objective < best.objective:
                best = found
        assert best is not None
        count = np.bincount(best.assignment, weights=units.outer, minlength=self.n_components)
        order = np.argsort(-count, kind="stable")
        self.coef_, self.weights_ = best.heads[order], count[order] / count.sum()
        self.objective_, self.n_iter_, self.converged_ = best.objective, best.n_iter, best.converged
        warn_if_stopped(best.converged, f"The best of the starts stopped after {best.n_iter} rounds of assignments")
        remember_annotators(self, rows, self._represent(rows.context, rows.difference))

    def _rounds(self, rows: Comparisons, units: Units, heads: np.ndarray) -> _Clusters:
        """Assign and refit, from heads (K, d), until no annotator moves."""
        inner = units.inner(slice(None), rows.dense_weight)
        votes, total = Votes(rows.difference, rows.dense_signs, rows.dense_weight), rows.dense_weight.sum()
        weighed = rows.dense_weight > 0
        assignment = np.full(units.n_units, -1)
        arrived = np.zeros(len(heads), dtype=bool)
        n_iter, stable = 0, False
        while True:
            loglik = log_sigmoid(rows.dense_signs * (heads.astype(rows.difference.dtype) @ rows.difference.T))
            evidence = np.stack([np.bincount(units.index, inner * row, units.n_units) for row in loglik])
            before, assignment = assignment, evidence.argmax(axis=0)
            stable = np.array_equal(before, assignment)
            if stable or n_iter == self.max_iter:
                break
            n_iter += 1
            heads = heads.copy()
            for k in range(len(heads)):
                # Only annotators who moved into or out of this head change it.
                if n_iter > 1 and arrived[k] and np.array_equal(before == k, assignment == k):
                    continue
                mine = weighed & (assignment[units.index] == k)
                if not mine.any():
                    heads[k], arrived[k] = 0.0, True
                    continue
                found = bradley_terry(
                    votes.of(mine),
                    self.alpha_ * total / float(rows.dense_weight[mine].sum()),
                    max_iter=_HEAD_ITERATIONS,
                    tol=self.tol,
                    start=heads[k],
                )
                heads[k], arrived[k] = found.vector, found.converged
        loss = -(units.outer * evidence[assignment, np.arange(units.n_units)]).sum() / total
        objective = float(loss + 0.5 * self.alpha_ * (heads**2).sum())
        return _Clusters(heads, assignment, objective, n_iter, bool(stable and arrived.all()))

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """Margins (n, K) of every head."""
        margins: np.ndarray = difference @ self.coef_.T
        return margins

    def _start(self) -> np.ndarray:
        return _one_hot(0, len(self.coef_))

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        evidence = votes.weight @ log_sigmoid(votes.signs[:, None] * votes.values)
        head = int(evidence.argmax())
        return start if evidence[start.argmax()] >= evidence[head] else _one_hot(head, len(self.coef_))


def _one_hot(head: int, n_components: int) -> np.ndarray:
    numbers = np.zeros(n_components)
    numbers[head] = 1.0
    return numbers


@dataclass(frozen=True)
class _Clusters:
    """Where one start ended: heads (K, d), head of every unit, J, rounds."""

    heads: np.ndarray
    assignment: np.ndarray
    objective: float
    n_iter: int
    converged: bool
