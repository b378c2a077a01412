"""GroupRewards: the ceiling, one reward for each known group."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from micropref._engine.priors import head_penalty
from micropref._engine.solvers import Minimum
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._estimator.state import Arrays
from micropref._rows.comparisons import Comparisons
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._linear import LinearRewards, bradley_terry, remember_annotators
from micropref.baselines._votes import Votes

__all__ = ["GroupRewards"]


class GroupRewards(LinearRewards):
    r"""One Bradley-Terry reward per given group: the supervised oracle.

    `groups` in `fit` name the true criterion, attribute or population of every row, which other methods must discover.
    With Ω_g the weight of the rows of group g,

    .. math::

        w_g = \operatorname*{argmin}_w \Bigl[ -\frac{1}{\Omega_g} \sum_{i \in g} \omega_i \log \sigma(s_i w^\top d_i)
            + \tfrac12\, \mathtt{alpha}\, \lVert w \rVert^2 \Bigr],

    independently of all other groups. A row of no known group gets the pooled reward w_0, fitted to all rows in the
    same way. A group of few rows then learns little, and a method that shares what groups have in common can do better:
    this is a ceiling only if every group has enough rows. With ``pooling > 0``, groups share it here, too,

    .. math::

        w_g = \operatorname*{argmin}_w \Bigl[ -\sum_{i \in g} \omega_i \log \sigma(s_i w^\top d_i)
            + \tfrac12\, \mathtt{pooling}\, \lVert w - w_0 \rVert^2 \Bigr],

    which is the prior N(w_0, I / pooling) of `UserRewards`, but with w_0 fixed.

    `partial_fit` adds votes to those of their group and fits its reward again; a group that was not in `fit` is learned
    from its votes (and the prior) alone, and rows without a group are added to the pooled ones. For this, the model and
    its pickles carry one copy of all training rows.

    This is the per-attribute Bradley-Terry model (Bradley and Terry, 1952) that papers on pluralistic rewards report as
    their upper bound; `pooling` is ours. Context columns of X are not used.

    Parameters
    ----------
    alpha : float or "auto", default="auto"
        L2 penalty of every reward, against the mean log-likelihood of its own rows in nats; positive. With pooling, of
        the pooled reward alone. "auto": mean_ω ‖d‖² / (s² Ω_g) with s = 1.75, the prior standard deviation of margins
        in nats, and the mean over all rows of `fit`.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    pooling : float, default=0.0
        Precision of the prior of groups' rewards around the pooled one; not negative. 0: every group for itself.
    max_iter : int, default=300
        Largest number of L-BFGS iterations for each reward.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    groups_ : list
        Ids of the groups seen in `fit`.
    coef_ : ndarray of shape (n_groups, n_features)
        Their rewards as learned in `fit`.
    pooled_coef_ : ndarray of shape (n_features,)
        The reward of all rows together.
    n_iter_ : int
        Largest number of iterations over all rewards, in `fit`.
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Bradley and Terry, "Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons", Biometrika
    39(3/4), 1952.

    Examples
    --------
    >>> import numpy as np
    >>> from micropref.baselines import GroupRewards
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> criterion = np.where(np.arange(400) % 2 == 0, "short", "kind")
    >>> y = (np.where(criterion == "short", X[:, 0], X[:, 1]) > 0).astype(int)
    >>> model = GroupRewards().fit(X, y, groups=criterion)
    >>> model.score(X, y, groups=criterion) > 0.95
    True
    >>> model.rewards(np.eye(2), groups=["kind", "kind"]).argmax()
    np.int64(1)
    """

    # Root mean square norm of the differences in `fit`; models of version 0.1, whose alpha is a number, have none.
    _norm: float = 1.0

    _ADAPTS_BY = ("alpha", "pooling", "max_iter", "tol")
    _STATE_ARRAYS = listed(coef_="KD", pooled_coef_="D")
    _STATE_VALUES = listed(_norm=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        alpha: float | str = "auto",
        *,
        n_context_features: int = 0,
        pooling: float = 0.0,
        max_iter: int = 300,
        tol: float = 1e-5,
    ):
        self.alpha = alpha
        self.n_context_features = n_context_features
        self.pooling = pooling
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "max_iter", 1)
        check_real(self, "alpha", 0.0, above_minimum=True, auto=True)
        check_real(self, "tol", 0.0, above_minimum=True)
        check_real(self, "pooling", 0.0)

    def _learn(self, rows: Comparisons) -> None:
        self._norm = float(rows.norms[1])
        # These rows are read again when votes come.
        self._votes_of_all = remember_annotators(self, rows, rows.difference, ungrouped=True)
        pooled = self._solved(self._votes_of_all, self._start())
        found = {name: self._solved(votes, pooled.vector) for name, votes in self._votes_of.items()}
        self._keep(None, pooled.vector)
        for name, minimum in found.items():
            self._keep(name, minimum.vector)
        self.pooled_coef_, self.groups_ = pooled.vector, list(found)
        self.coef_ = np.reshape([minimum.vector for minimum in found.values()], (-1, rows.difference.shape[1]))
        minima = [pooled, *found.values()]
        self.n_iter_ = max(minimum.n_iter for minimum in minima)
        self.converged_ = all(minimum.converged for minimum in minima)

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        model = super()._restore(arrays, description)
        model.groups_ = list(model._votes_of)[: len(model.coef_)]  # others came later
        return model

    def _start(self) -> np.ndarray:
        assert self._votes_of_all is not None  # those of `fit`, at least
        return np.zeros(self._votes_of_all.values.shape[1])

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        return self._solved(votes, start).vector

    def _solved(self, votes: Votes, start: np.ndarray) -> Minimum:
        shrunk = self.pooling > 0 and votes is not self._votes_of_all
        total = float(votes.weight.sum())
        alpha = self.pooling / total if shrunk else head_penalty(self.alpha, self._norm, total)
        centre = start if shrunk else None
        found = bradley_terry(votes, alpha, max_iter=self.max_iter, tol=self.tol, start=start, centre=centre)
        warn_if_stopped(found.converged, f"The reward of a group stopped after {found.n_iter} iterations")
        return found
