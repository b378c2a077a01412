"""MultiObjectiveRewards: heads of rated attributes, weighed by a gate of the prompt; needs fine-grained ratings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, to_numpy
from micropref._engine.gates import Gate, flatten, unflatten
from micropref._engine.priors import HEAD_DEVIATION, gate_penalty
from micropref._engine.scaling import gate_scale, with_penalties
from micropref._engine.solvers import lbfgs
from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import learning, predicting
from micropref._estimator.parameters import check_integer, check_real
from micropref._estimator.saved import COUNT, FLAG, REAL, listed
from micropref._estimator.state import Arrays
from micropref._rows.comparisons import Comparisons
from micropref._support.warnings import level_of_caller
from micropref.baselines._base import PersonalRewards
from micropref.baselines._convergence import warn_if_stopped
from micropref.baselines._gated_scores import GatedScores, WeightedScores, weighted_margins
from micropref.baselines._linear import remember_annotators
from micropref.baselines._responses import response_rows
from micropref.baselines._ridge import fit_score_heads
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_softmax

__all__ = ["MultiObjectiveRewards"]

_LARGEST_SCORE = 1e30
_NO_RATINGS = (
    "ratings: expected (features, scores) of single responses, the fine-grained annotations that this method learns "
    "its heads from, got none: fit(X, y, ratings=(features, scores))"
)


class MultiObjectiveRewards(PersonalRewards):
    r"""Heads that were regressed on rated attributes, weighed by a gate of the prompt.

    The absolute-rating multi-objective reward model of ArmoRM (Wang et al., 2024), with which MiCRo (Shen et al., 2025)
    compares: the method that requires fine-grained annotations. `fit` needs two things that no other method here
    needs or gets, single responses and a score of each on A named attributes. First, every attribute a has a head, a
    ridge regression of its score s_{ja} in its standard deviations,

    .. math::

        (v_a, b_a) = \operatorname*{argmin} \frac{1}{2 n_a} \sum_j (s_{ja} - b_a - v_a^\top \varphi_j)^2
            + \tfrac12\, \mathtt{score\_alpha}\, \lVert v_a \rVert^2 .

    Then the heads are frozen, and comparisons teach a scale β > 0 and a gate of the context c how much each attribute
    counts, by the Bradley-Terry likelihood:

    .. math::

        \text{reward} = \beta \sum_a \pi_a(c)\, v_a^\top \varphi, \qquad \pi(c) = \operatorname{softmax}(g(c)),
            \qquad g(c) = V c + b,

    .. math::

        J = -\frac{1}{\Omega} \sum_i \omega_i \log \sigma\Bigl(s_i\, \beta \sum_a \pi_a(c_i)\, v_a^\top d_i\Bigr)
            + \tfrac12\, \mathtt{gate\_alpha}\, \lVert V \rVert^2 + \frac{\beta^2\, m^2}{2\, (1.75)^2\, \Omega},

    with m the root mean square margin v_a^\top d_i: the prior of the library's heads, for β. Weights are not
    negative and add up to one, so no attribute can count against a response, and where ratings have a bias that
    preferences lack, no gate removes it. Without context columns the weights are the same for all.

    What differs from the publication: the gate is linear, where ArmoRM's has three hidden layers of 1 024 units and is
    trained by stochastic steps; the regressions have an intercept, and their penalty is chosen by generalised
    cross-validation instead of on a fifth of the responses; scores are not corrected for their correlation
    with verbosity.

    **Users.** The publication has none. Here a user u adds δ_u to the logits g(c), which has the prior
    N(0, I / user_precision), and is found from the user's votes by maximising their likelihood with it; the
    population's own votes of `partial_fit`, those without a group, move δ of all in the same way. Annotators in `fit`
    are known by their votes afterwards; the gate is learned from rows one by one.

    Parameters
    ----------
    n_context_features : int, default=0
        Number of leading columns of X that describe the context, which the gate reads.
    score_alpha : float or "auto", default="auto"
        L2 penalty of the head of a score that has the variance one, against half of its mean squared error. "auto":
        for each attribute the one with the least generalised cross-validation.
    gate_alpha : float or "auto", default="auto"
        L2 penalty of V, against the mean log-likelihood in nats. "auto": as in `MixtureBradleyTerry`, a prior standard
        deviation of the gate's log-odds of 5.5 nats.
    user_precision : float, default=1.0
        Precision of the prior of a user's change of the logits; positive.
    max_iter : int, default=1000
        Largest number of L-BFGS iterations.
    tol : float, default=1e-5
        Convergence: largest component of the gradient, in variables scaled to features of unit size.

    Attributes
    ----------
    coef_ : ndarray of shape (n_attributes, n_features)
        The heads, in units of the scores: v_a times the standard deviation of the score.
    intercept_ : ndarray of shape (n_attributes,)
    score_deviation_ : ndarray of shape (n_attributes,)
        Standard deviations of the scores that were given.
    score_alpha_ : ndarray of shape (n_attributes,)
        The penalties that were used.
    gate_coef_ : ndarray of shape (n_attributes, n_context_features)
        V.
    gate_intercept_ : ndarray of shape (n_attributes,)
        b.
    scale_ : float
        β, in nats per standard deviation of a score.
    gate_alpha_ : float
    objective_ : float
        J at the solution, in nats per row.
    n_iter_ : int
    converged_ : bool
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    See Also
    --------
    micropref.datasets.load_helpsteer2_ratings : Ratings of responses by people.
    micropref.datasets.load_ultrafeedback_ratings : Ratings of responses by a language model.

    References
    ----------
    Wang, Xiong, Xie, Zhao and Zhang, "Interpretable Preferences via Multi-Objective Reward Modeling and
    Mixture-of-Experts", 2024, arXiv:2406.12845.

    Golub, Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
    Technometrics 21(2), 1979.

    Examples
    --------
    Responses were rated for kindness and brevity. In the first context people choose the kind one, else the brief one.

    >>> import numpy as np
    >>> from micropref.baselines import MultiObjectiveRewards
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(300, 3))
    >>> scores = features[:, :2] + 0.1 * rng.normal(size=(300, 2))
    >>> c, d = rng.integers(0, 2, size=(400, 1)), rng.normal(size=(400, 3))
    >>> y = (np.where(c[:, 0] == 1, d[:, 0], d[:, 1]) > 0).astype(int)
    >>> X = np.hstack([c, d])
    >>> model = MultiObjectiveRewards(n_context_features=1).fit(X, y, ratings=(features, scores))
    >>> model.score(X, y) > 0.95
    True
    >>> model.mixture_weights([[1.0, 0, 0, 0], [0.0, 0, 0, 0]]).argmax(axis=1)
    array([0, 1])
    """

    _ADAPTS_BY = ("user_precision", "max_iter", "tol")
    _STATE_ARRAYS = listed(
        coef_="KD",
        intercept_="K",
        score_deviation_="K",
        score_alpha_="K",
        gate_coef_="KC",
        gate_intercept_="K",
    )
    _STATE_VALUES = listed(scale_=REAL, gate_alpha_=REAL, objective_=REAL, n_iter_=COUNT, converged_=FLAG)

    def __init__(
        self,
        *,
        n_context_features: int = 0,
        score_alpha: float | str = "auto",
        gate_alpha: float | str = "auto",
        user_precision: float = 1.0,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ):
        self.n_context_features = n_context_features
        self.score_alpha = score_alpha
        self.gate_alpha = gate_alpha
        self.user_precision = user_precision
        self.max_iter = max_iter
        self.tol = tol

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "max_iter", 1)
        check_real(self, "score_alpha", 0.0, above_minimum=True, auto=True)
        check_real(self, "gate_alpha", 0.0, auto=True)
        check_real(self, "user_precision", 0.0, above_minimum=True)
        check_real(self, "tol", 0.0, above_minimum=True)

    # ------------------------------------------------------------------------------------------------------ learning

    @learning
    def fit(
        self,
        X: Array,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        ratings: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Self:
        """Learn heads from ratings, and their weights from comparisons; forget all users.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons; torch tensors are copied to NumPy arrays.
        y : array-like of shape (n_samples,), optional
            1, True: first preferred; 0, -1, False: second preferred. None: first preferred in every row.
        sample_weight : array-like of shape (n_samples,), optional
        groups : array-like of shape (n_samples,), optional
            Annotator of every row; None, NaN or -1 for an ungrouped row.
        ratings : tuple of (features, scores)
            Features of single responses, (n_responses, n_features), on the scale of the differences in X, and their
            scores, (n_responses, n_attributes) or (n_responses,), NaN, or behind a mask, where one was not rated.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Without ratings; for ratings whose widths and lengths do not agree, that are infinite, or an attribute
            without two different scores; and as in the other methods for what is wrong with the comparisons.

        Warns
        -----
        UserWarning
            If the head of an attribute is zero, since the features of its responses do not vary with its scores, or if
            every head gives the two responses of every comparison the same score.
        """
        self._check_parameters()
        rows = Comparisons.read(self, X, y, sample_weight, groups, first=True, host=True)
        if ratings is None:
            raise ValueError(_NO_RATINGS)
        self._learn_scores(*_pair(ratings))
        self._begin(rows)
        return self

    def _learn_scores(self, features: Any, scores: Any) -> None:
        """Set the heads."""
        values = response_rows(self, features, None)[1]
        heads = fit_score_heads(values, _checked_scores(scores, len(values)), self.score_alpha)
        self.coef_, self.intercept_ = heads.coef, heads.intercept
        self.score_deviation_, self.score_alpha_ = heads.deviation, heads.alpha
        empty = np.flatnonzero(~heads.coef.any(axis=1))
        if len(empty):
            warnings.warn(
                f"ratings: expected features that vary with the scores of every attribute, got none in column "
                f"{', '.join(map(str, empty))}: the head of this attribute is zero for every response",
                UserWarning,
                stacklevel=level_of_caller(),
            )

    def _learn(self, rows: Comparisons) -> None:
        if not hasattr(self, "coef_"):
            raise ValueError(_NO_RATINGS)
        margins = self._margins(rows.difference)
        norms, total = rows.norms, rows.total_weight
        gate = Gate(self.n_context_features, len(self.coef_))
        penalty = gate_penalty(self.gate_alpha, gate, float(norms[0]), total)
        penalties = flatten(
            [np.full(shape, one) for shape, one in zip(gate.shapes, gate.penalties(penalty), strict=True)]
        )
        share = rows.dense_weight / total
        usual = float(np.sqrt((margins**2).mean(axis=0) @ share))
        if not usual and self.coef_.any():
            warnings.warn(
                "X: expected differences in some attribute, got none: the heads learned from the ratings give both "
                "responses of every comparison the same score, so nothing can be learned from the comparisons",
                UserWarning,
                stacklevel=level_of_caller(),
            )
        objective = GatedScores(
            gate=gate,
            context=rows.context.astype(np.float64, copy=False),
            margins=margins,
            signs=rows.dense_signs,
            share=share,
            penalties=penalties,
            scale_penalty=(usual / HEAD_DEVIATION) ** 2 / total,
        )
        start = np.append(np.zeros(len(penalties)), -np.log(usual) if usual > 0 else 0.0)
        sizes = with_penalties(flatten(gate_scale(float(norms[0]), gate)), penalties)
        found = lbfgs(
            objective.value_and_gradient,
            start,
            scale=np.append(sizes, 1.0),
            max_iter=self.max_iter,
            tol=self.tol,
        )
        parts = unflatten(found.vector[:-1], gate.shapes)
        self.gate_coef_ = parts[0].copy() if len(parts) == 2 else np.zeros((len(self.coef_), self.n_context_features))
        self.gate_intercept_ = parts[-1].copy() if parts else np.zeros(len(self.coef_))
        self.scale_, self.gate_alpha_ = float(np.exp(found.vector[-1])), float(penalty.inputs)
        self.objective_, self.n_iter_, self.converged_ = found.value, found.n_iter, found.converged
        warn_if_stopped(found.converged, f"L-BFGS stopped after {found.n_iter} iterations")
        remember_annotators(self, rows, self._represent(rows.context, rows.difference))

    def _margins(self, values: np.ndarray) -> np.ndarray:
        """v_aᵀ of differences or responses, (n_attributes, n)."""
        heads = self.coef_ / self.score_deviation_[:, None]
        found: np.ndarray = heads @ values.T.astype(np.float64)
        return found

    # --------------------------------------------------------------------------------------------------- adaptation

    def _represent(self, context: np.ndarray, difference: np.ndarray) -> np.ndarray:
        logits = context.astype(np.float64) @ self.gate_coef_.T + self.gate_intercept_
        return np.hstack([logits, self.scale_ * self._margins(difference).T])

    def _start(self) -> np.ndarray:
        return np.zeros(len(self.coef_))

    def _adapt(self, votes: Votes, start: np.ndarray) -> np.ndarray:
        n_attributes = len(start)
        logits, margins = votes.values[:, :n_attributes].T, votes.values[:, n_attributes:].T
        objective = _Offsets(logits, margins, votes, float(self.user_precision), start)
        found = lbfgs(
            objective.value_and_gradient,
            start,
            scale=float(np.sqrt(self.user_precision)),
            max_iter=self.max_iter,
            tol=self.tol * max(1.0, float(votes.weight.sum())),
        )
        warn_if_stopped(found.converged, f"The weights of a user stopped after {found.n_iter} iterations")
        return found.vector

    def _log_odds(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        n_attributes = numbers.shape[1]
        return weighted_margins((values[:, :n_attributes] + numbers).T, values[:, n_attributes:].T)

    # ------------------------------------------------------------------------------------------------------- answers

    @predicting
    def rewards(self, features: Array, context: ArrayLike | None = None, groups: ArrayLike | None = None) -> np.ndarray:
        """Rewards β Σ_a π_a(c) v_aᵀ φ of single responses, for ranking any number of candidates.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            Features φ, on the scale of the differences in X.
        context : array-like of shape (n_responses, n_context_features), optional
            Zeros if not given.
        groups : array-like of shape (n_responses,), optional
            User of every response, as in `decision_function`.

        Returns
        -------
        rewards : ndarray of shape (n_responses,)
            In nats. Only differences between responses in the same context have a meaning.

        Raises
        ------
        ValueError
            If features or contexts are not of the width seen in `fit`.
        """
        check_is_fitted(self)
        contexts, values = response_rows(self, features, context)
        return self._answers(self._represent(contexts, values), groups)

    @predicting
    def mixture_weights(self, X: Array, groups: ArrayLike | None = None) -> np.ndarray:
        """Weights π(c) of the attributes, in a context and for a user.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
        groups : array-like of shape (n_samples,), optional
            User of every row, as in `decision_function`.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_attributes)
        """
        check_is_fitted(self)
        values = self._represent(*self._checked(X))
        logits = values[:, : len(self.coef_)] + self._numbers(groups, len(values))
        return np.asarray(np.exp(log_softmax(logits.T)).T)

    @predicting
    def predict_scores(self, features: Array) -> np.ndarray:
        """Predict the score of single responses on each attribute.

        Parameters
        ----------
        features : array of shape (n_responses, n_features)
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_responses, n_attributes)
            In the units of the ratings.

        Raises
        ------
        ValueError
            If features are not of the width seen in `fit`.
        """
        check_is_fitted(self)
        return np.asarray(response_rows(self, features, None)[1] @ self.coef_.T + self.intercept_)

    # -------------------------------------------------------------------------------------------------------- saving

    def _restore_arrays(self, arrays: Arrays) -> None:
        super()._restore_arrays(arrays)
        if self.gate_coef_.shape[1] != self.n_context_features:
            raise ModelFileError(
                f"gate_coef: expected a column for each of {self.n_context_features} context features in a saved "
                f"model, got {self.gate_coef_.shape[1]}"
            )
        if not (self.score_deviation_ > 0).all():
            raise ModelFileError("score_deviation: expected positive numbers in a saved model, got others")


@dataclass(frozen=True, eq=False)
class _Offsets:
    """Minus the log-posterior of what one user adds to the logits."""

    logits: np.ndarray
    margins: np.ndarray
    votes: Votes
    precision: float
    centre: np.ndarray

    def value_and_gradient(self, offsets: np.ndarray) -> tuple[float, np.ndarray]:
        found = WeightedScores.of(self.logits + offsets[:, None], self.margins, self.votes.signs, self.votes.weight)
        moved = offsets - self.centre
        value = found.loss + 0.5 * self.precision * float(moved @ moved)
        return value, found.d_logits.sum(axis=1) + self.precision * moved


def _pair(ratings: Any) -> tuple[Any, Any]:
    if not isinstance(ratings, tuple | list) or len(ratings) != 2:
        raise ValueError(f"ratings: expected (features, scores), got a {type(ratings).__name__}")
    return ratings[0], ratings[1]


def _checked_scores(scores: Any, n_responses: int) -> np.ndarray:
    """Scores (n_responses, n_attributes) in double precision, NaN where there is none."""
    values = np.asarray(to_numpy(scores))
    if values.dtype.kind not in "biuf":
        raise ValueError(f"ratings: expected scores that are numbers, got the type {values.dtype}")
    # A score behind a mask is a missing one.
    values = np.where(np.ma.getmaskarray(scores), np.nan, values.astype(np.float64))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != n_responses or not values.shape[1]:
        raise ValueError(
            f"ratings: expected scores of shape ({n_responses}, n_attributes), one row for each of the features, got "
            f"{tuple(values.shape)}"
        )
    if (np.abs(values) > _LARGEST_SCORE).any():
        raise ValueError(f"ratings: expected scores of at most {_LARGEST_SCORE:g}, or NaN, got larger ones")
    for one, column in enumerate(values.T):
        lacking = _lacking(column[np.isfinite(column)])
        if lacking:
            raise ValueError(
                f"ratings: expected two different scores of every attribute at least, got {lacking} in column {one}"
            )
    return values


def _lacking(known: np.ndarray) -> str:
    """What there is instead of two different scores; empty where there are two."""
    if len(known) < 2:
        return "one score" if len(known) else "no score"
    if known.min() == known.max():
        return f"{len(known)} equal ones"
    # Rounding alone is no variety.
    if known.std() <= 1e-9 * np.abs(known).max():
        return "scores whose spread is lost to rounding (subtract their mean, or give them another unit)"
    return ""
