"""CategoricalRewards: the difference in utility takes one of a few values."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from micropref._arrays.backend import precision
from micropref._engine.gates import flatten, unflatten
from micropref._engine.priors import head_penalty
from micropref._engine.scaling import head_scale, with_penalties
from micropref._engine.solvers import lbfgs
from micropref._estimator.fitting import twin
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._rows.comparisons import Comparisons
from micropref._support.renamed import moved
from micropref.baselines._categorical_objective import (
    CategoricalObjective,
    atom_terms,
    both_signs,
    log_unnormalised,
)
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._cross_fitting import adapted_losses, most_cautious
from micropref.baselines._linear import remember_annotators
from micropref.baselines._utility import UtilityDistribution
from micropref.baselines._voters import held_out_users
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_sum_exp

__all__ = ["CategoricalRewards"]

__getattr__ = moved(__name__)

# Where a user's agreement is looked for.
_PRIOR_DEVIATIONS = 4.0
_GRID = 41
# Precisions of users' agreement among which "auto" chooses, and the one that it takes where annotators say nothing.
_PRECISIONS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_USUAL_PRECISION = 30.0
_MOST_USERS = 100


class CategoricalRewards(UtilityDistribution):
    r"""Distributional preference learning with a categorical distribution over fixed differences in utility.

    Siththaranjan, Laidlaw and Hadfield-Menell (2024) let a network give every response a distribution over fixed
    utilities, from which a preference is the larger of two independent draws. Rows of X are differences d = φ(a) − φ(b)
    and hold no single responses, so this is the linear version *for the difference in utility*: it takes the values
    ±v_j with v_j = j · largest / n_atoms, j = 1 … n_atoms, with probabilities

    .. math::

        q_{\pm j}(d) \propto e^{b_j \pm w_j^\top d}, \qquad
        p(\text{first preferred}) = \sum_j q_j(d)\, \sigma(v_j) + q_{-j}(d)\, \sigma(-v_j).

    Swapping the responses mirrors the distribution exactly, q_j(−d) = q_{−j}(d). σ in place of the paper's step lets
    people err, so that values are in nats of log-odds like all other rewards here. The loss is

    .. math::

        J = -\frac{1}{\Omega} \sum_i \omega_i \log p(y_i)
            + \tfrac12\, \mathtt{alpha} \bigl(\lVert W \rVert^2 + \lVert b \rVert^2\bigr),

    minimised by L-BFGS from zero. Rows are judged one by one, as in the paper: annotators play no part in learning. No
    log-odds exceed `largest`, and where a population is split, even the clearest differences end at a small v_j, where
    one Bradley-Terry reward would go on growing. A split and a small difference that all agree on look the same in
    single comparisons; the variance says which values the choices need, not who holds them.

    **Users.** The paper has no users, and by antisymmetry no user can have an offset. A user's votes change one
    number, the user's agreement t with the population,

    .. math::

        q_{\pm j}(d; t) \propto e^{b_j \pm t\, w_j^\top d}, \qquad
        t_u = \operatorname*{argmax}_t \sum_i \omega_i \log p(y_i; t) - \tfrac12\, \mathtt{user\_alpha}\, (t - t_0)^2,

    with t_0 = 1 for the population: t > 1 is surer, 0 indifferent, negative of the opposite opinion; mirrors stay
    exact. The maximum is the best of a grid within four standard deviations of the prior, improved by Brent's method.
    Annotators in `fit` are known by their votes afterwards. Rows without a group in `partial_fit` change the
    population's t_0. Log-odds are not linear in d, so single responses have no rewards. Context columns of X are not
    used.

    Parameters
    ----------
    n_atoms : int, default=4
        Number of positive values.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context.
    largest : float, default=6.0
        Largest difference in utility, in nats; σ(6) = 0.9975.
    alpha : float or "auto", default="auto"
        L2 penalty of W and b, against the mean log-likelihood in nats; positive. "auto": of W as in
        `MixtureBradleyTerry`, a prior standard deviation of its scores of 1.75; of b the same in the units of b.
    user_alpha : float or "auto", default="auto"
        Precision of the prior of a user's agreement; positive. "auto": chosen among 1000, 300, 100, …, 1 by
        cross-fitting. W and b are learned from one half of the annotators, up to 100 of the others get an agreement
        from an eighth and from half of their votes, and the largest precision is taken under which their other votes
        are as likely as under the best, to within a standard error. 30 where annotators are too few.
    max_iter : int, default=500
        Largest number of L-BFGS iterations.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    atoms_ : ndarray of shape (n_atoms,)
        The positive values v_j.
    coef_ : ndarray of shape (n_atoms, n_features)
        W.
    intercept_ : ndarray of shape (n_atoms,)
        b.
    alpha_, user_alpha_ : float
        The penalties that were used: given, or chosen by "auto"; `alpha_` is that of W.
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Siththaranjan, Laidlaw and Hadfield-Menell, "Distributional Preference Learning: Understanding and Accounting for
    Hidden Context in RLHF", ICLR 2024, arXiv:2312.08358.

    Examples
    --------
    Three out of four like the first feature, whatever its size.

    >>> import numpy as np
    >>> from micropref.baselines import CategoricalRewards
    >>> rng = np.random.default_rng(0)
    >>> X = 2 * rng.normal(size=(4000, 2))
    >>> y = ((X[:, 0] > 0) ^ (rng.random(4000) < 0.25)).astype(int)
    >>> model = CategoricalRewards(alpha=1e-4).fit(X, y)
    >>> model.predict_proba([[2.0, 0.0], [6.0, 0.0]])[:, 1].round(1)
    array([0.8, 0.8])
    """

    _SHAPE = ("n_context_features", "n_atoms", "largest")
    _ADAPTS_BY = ("user_alpha",)
    _STATE_ARRAYS = listed(atoms_="K", coef_="KD", intercept_="K")
    _STATE_VALUES = listed(alpha_=REAL, user_alpha_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        n_atoms: int = 4,
        *,
        n_context_features: int = 0,
        largest: float = 6.0,
        alpha: float | str = "auto",
        user_alpha: float | str = "auto",
        max_iter: int = 500,
        tol: float = 1e-5,
    ):
        self.n_atoms = n_atoms
        self.n_context_features = n_context_features
        self.largest = largest
        self.alpha = alpha
        self.user_alpha = user_alpha
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name in ("n_atoms", "max_iter"):
            check_integer(self, name, 1)
        for name in ("alpha", "user_alpha"):
            check_real(self, name, 0.0, above_minimum=True, auto=True)
        for name in ("largest", "tol"):
            check_real(self, name, 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        self.user_alpha_ = self._chosen(rows) if isinstance(self.user_alpha, str) else float(self.user_alpha)
        self._solve(rows)
        warn_if_stopped(self.converged_, f"L-BFGS stopped after {self.n_iter_} iterations")
        remember_annotators(self, rows, self._represent(rows.context, rows.difference))

    def _solve(self, rows: Comparisons) -> None:
        """Set what all annotators share."""
        self.atoms_ = self.largest * np.arange(1, self.n_atoms + 1) / self.n_atoms
        self.alpha_ = float(head_penalty(self.alpha, rows.norms[1], rows.total_weight))
        of_offsets = head_penalty(self.alpha, 1.0, rows.total_weight)
        objective = CategoricalObjective(rows, self.atoms_, self.alpha_, of_offsets)
        usual = flatten([head_scale(rows.norms[1], objective.shapes[0]), np.ones(self.n_atoms)])
        found = lbfgs(
            objective.value_and_gradient,
            np.zeros(usual.size),
            scale=with_penalties(usual, objective.penalties),
            max_iter=self.max_iter,
            tol=self.tol,
            precision=precision(rows.difference),
        )
        self.coef_, self.intercept_ = (part.copy() for part in unflatten(found.vector, objective.shapes))
        self.objective_, self.n_iter_, self.converged_ = found.value, found.n_iter, found.converged

    def _chosen(self, rows: Comparisons) -> float:
        """What "auto" is for these rows."""
        for part in held_out_users(rows, n_folds=1, most_users=_MOST_USERS):
            other = twin(self)
            other._solve(part.teachers)
            return _PRECISIONS[most_cautious(adapted_losses(other, "user_alpha", _PRECISIONS, rows, part))]
        return _USUAL_PRECISION

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """w_jᵀd of every row, (n, n_atoms)."""
        scores: np.ndarray = difference @ self.coef_.T
        return scores

    def _start(self) -> np.ndarray:
        return np.ones(1)

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        scores, precision = (votes.signs[:, None] * votes.values).T, self._in_force("user_alpha")

        def objective(agreement: np.ndarray) -> np.ndarray:
            stacked = (agreement[:, None] * scores[:, None, :]).reshape(len(scores), -1)
            likelihood = atom_terms(stacked, self.intercept_, self.atoms_)[0].reshape(len(agreement), -1)
            loss: np.ndarray = 0.5 * precision * (agreement - start[0]) ** 2 - likelihood @ votes.weight
            return loss

        # More than one agreement may be likelier than all around it.
        grid = start[0] + np.linspace(-_PRIOR_DEVIATIONS, _PRIOR_DEVIATIONS, _GRID) / np.sqrt(precision)
        best, step = grid[np.argmin(objective(grid))], grid[1] - grid[0]
        found = minimize_scalar(
            lambda agreement: float(objective(np.array([agreement]))[0]),
            bounds=(best - step, best + step),
            method="bounded",
            options={"xatol": 1e-9 * step},
        )
        return np.array([found.x])

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        scores = (numbers * values).T
        first, second = (log_unnormalised(sign * scores, self.intercept_, self.atoms_) for sign in (1, -1))
        odds: np.ndarray = first - second
        return odds

    def _moments(self, values: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = both_signs((numbers * values).T, self.intercept_)
        share = np.exp(logits - log_sum_exp(logits))
        atoms = np.concatenate([self.atoms_, -self.atoms_])
        mean = atoms @ share
        return mean, ((atoms[:, None] - mean) ** 2 * share).sum(axis=0)
