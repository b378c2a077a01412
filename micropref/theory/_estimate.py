"""The three terms for your own data, from a fitted mixture, with intervals that resample groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.special import entr
from scipy.stats import chi2
from sklearn.base import clone
from sklearn.utils import check_random_state

from micropref._estimator.fitting import fitted
from micropref.kernels._pointwise import sigmoid
from micropref.mixture import MixtureBradleyTerry
from micropref.theory._population import relative_entropy
from micropref.theory._refit import refitted
from micropref.theory._single import best_single_reward
from micropref.theory._units import BLOCK_ROWS, Model, SortedRows, check_smooth

# Enough for a mean: they are paired with one-step draws.
_N_REFITTED = 50
_TERMS = ("label_noise", "group_information", "misspecification")

Interval = tuple[float, float]


@dataclass(frozen=True)
class IrreducibleErrorEstimate:
    """Estimated terms of a single reward's error on your own rows, in nats, each with a 95 % interval.

    Parameters
    ----------
    label_noise, group_information, misspecification, cross_entropy : float
        As in `ErrorDecomposition`, corrected for the bias of plugging in fitted heads.
    label_noise_interval, group_information_interval : tuple of two floats
        Lower and upper end.
    misspecification_interval, cross_entropy_interval : tuple of two floats
        Lower and upper end.
    n_rows : int
        Rows with positive weight.
    n_groups : int
        Groups, and ungrouped rows, that were resampled.
    """

    label_noise: float
    label_noise_interval: Interval
    group_information: float
    group_information_interval: Interval
    misspecification: float
    misspecification_interval: Interval
    cross_entropy: float
    cross_entropy_interval: Interval
    n_rows: int
    n_groups: int

    @property
    def advice(self) -> str:
        """Advice: which term a router or a user's history would recover, and which a mixture."""
        low, high = self.group_information_interval
        gain = f"{self.group_information:.4f} nats per comparison ({low:.4f} to {high:.4f})"
        if low <= 0:
            return (
                f"The data do not show that groups disagree: knowing the group gains {gain}. One reward may be enough."
            )
        return (
            f"Knowing which group answers gains at most {gain}. A router recovers this gain if contexts distinguish "
            "the groups, and a user's history recovers it if users keep their preferences. A mixture alone gains "
            f"{self.misspecification:.4f}."
        )


def estimate_irreducible_error(
    estimator: MixtureBradleyTerry,
    X: Any,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    n_bootstrap: int = 200,
    random_state: int | np.random.RandomState | None = 0,
) -> IrreducibleErrorEstimate:
    r"""Estimate label noise, group information and misspecification on the rows that a mixture was fitted to.

    The fitted heads and gate are put into `error_decomposition`; the single model is the best linear reward for the
    fitted p̄ at the estimator's own `alpha_`. Intervals come from a bootstrap over whole groups, v_u ~ Exp(1) divided by
    their mean: with the score s_u of each group and H = Σ_u s_u s_uᵀ + penalties (the outer-product form of the
    information),

    .. math:: \theta^* = \hat\theta + H^{-1} \sum_u (v_u - 1) s_u

    and every term is computed again at θ*. These draws are linear in the scores: their spread is that of the estimate,
    but they lack its bias, because fitted heads are overconfident by a nonlinear amount. So 50 of the draws are fitted
    to convergence, θ**, by maximising Σ_u v_u ℓ_u − penalties. The bias b = E T(θ**) − T(θ̂) is subtracted, and the
    interval runs from T̂ − b − (q_0.975 − m) to T̂ − b − (q_0.025 − m), with quantiles q and mean m of T(θ*) − T(θ̂).
    Rows are held fixed.

    Parameters
    ----------
    estimator : MixtureBradleyTerry
        Fitted to these rows, with static weights or a linear gate and `balance=0`.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,), optional
        Labels, as in the estimator's `fit`.
    groups : array-like of shape (n_samples,), optional
        As in the estimator's `fit`; resampled whole.
    sample_weight : array-like of shape (n_samples,), optional
    n_bootstrap : int, default=200
        Draws; at least 20.
    random_state : int, RandomState or None, default=0

    Returns
    -------
    estimate : IrreducibleErrorEstimate

    Raises
    ------
    ValueError
        If the data cannot identify the groups: no group has two rows, and K heads explain the rows no better than
        one (likelihood-ratio test at 5 %). Then one reward produces p̄, and any split of p̄ into groups fits
        equally well. Also for MLP gates and `balance` other than 0, for which the scores above are not those of the
        fit.
    """
    if not isinstance(n_bootstrap, int | np.integer) or n_bootstrap < 20:
        raise ValueError(f"n_bootstrap: expected an integer of at least 20, got {n_bootstrap!r}")
    estimator = fitted(estimator)
    check_smooth(estimator)
    data = SortedRows.create(estimator, X, y, groups, sample_weight)
    model = Model.of(estimator)
    if data.largest_group < 2 and len(model.coef) > 1:
        _refuse_flat_likelihood(estimator, X, y, sample_weight, model, data)
    multiplicity = check_random_state(random_state).exponential(size=(data.n_units, n_bootstrap))
    multiplicity /= multiplicity.mean(axis=0)
    information, draws = _one_step_bootstrap(model, data, multiplicity)
    n_refitted = min(_N_REFITTED, n_bootstrap)
    to_the_end = refitted(model, data, multiplicity[:, :n_refitted], information)
    terms = _terms(model, np.vstack([draws, to_the_end]), data, estimator.alpha_)
    terms = np.vstack([terms, terms.sum(axis=0)])
    found: dict[str, Any] = {}
    for name, (plug_in, *others) in zip((*_TERMS, "cross_entropy"), terms.tolist(), strict=True):
        change = np.array(others) - plug_in
        one_step, full = change[:n_bootstrap], change[n_bootstrap:]
        # The mean of all one-step draws, and what the paired refits add to it, vary less than the mean of the refits.
        bias = one_step.mean() + (full - one_step[:n_refitted]).mean()
        low, high = np.quantile(one_step, [0.025, 0.975]) - one_step.mean()
        found[name] = max(0.0, float(plug_in - bias))
        found[f"{name}_interval"] = (max(0.0, float(plug_in - bias - high)), max(0.0, float(plug_in - bias - low)))
    return IrreducibleErrorEstimate(**found, n_rows=len(data.signs), n_groups=data.n_units)


def _one_step_bootstrap(model: Model, data: SortedRows, multiplicity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The information (n_parameters, n_parameters), and changes of the parameters, (n_draws, n_parameters)."""
    size = len(model.penalties)
    fisher, total = np.zeros((size, size)), np.zeros((size, multiplicity.shape[1]))
    for rows in data.blocks():
        scores = model.unit_scores(data, rows)
        units = slice(data.unit[rows.start], data.unit[rows.start] + len(scores))
        outer = data.outer[units]
        fisher += scores.T @ (outer[:, None] * scores)
        total += (outer[:, None] * scores).T @ (multiplicity[units] - 1)
    information = fisher + np.diag(model.penalties * data.weight.sum())
    # Adding one number to all offsets changes nothing and has no information; nor has it a score to follow.
    information[np.diag_indices(size)] += 1e-9 * np.trace(fisher) / size
    return information, np.asarray(linalg.solve(information, total, assume_a="pos").T)


def _terms(model: Model, draws: np.ndarray, data: SortedRows, alpha: float) -> np.ndarray:
    """The three terms, (3, 1 + n_draws): at the model, and at every draw."""
    share = data.weight / data.weight.sum()
    first = np.empty((len(draws) + 1, len(share)))
    terms = np.zeros((3, len(draws) + 1))
    for rows in _even_blocks(len(share)):
        weights, probs = model.at(draws, data, rows)
        own = (weights * (entr(probs) + entr(1 - probs))).sum(axis=2)
        p = np.clip((weights * probs).sum(axis=2), 0.0, 1.0)
        first[:, rows] = p
        terms[0] += own @ share[rows]
        terms[1] += (entr(p) + entr(1 - p) - own) @ share[rows]
    difference = data.difference.astype(float)
    reward = best_single_reward(difference, first[0], share, alpha)
    q = sigmoid(difference @ reward)
    curvature = (difference * (share * q * (1 - q))[:, None]).T @ difference
    curvature[np.diag_indices(len(reward))] += alpha + 1e-12 * np.trace(curvature)
    # The reward of every draw by one Newton step, which misses its optimum by the fourth order of the change.
    step = linalg.solve(curvature, difference.T @ (share[:, None] * (first - first[0]).T), assume_a="pos")
    for rows in _even_blocks(len(share)):
        q = sigmoid(difference[rows] @ (reward[:, None] + step)).T
        divergence = relative_entropy(first[:, rows], q) + relative_entropy(1 - first[:, rows], 1 - q)
        terms[2] += divergence @ share[rows]
    return terms


def _even_blocks(n: int) -> list[slice]:
    return [slice(start, min(n, start + BLOCK_ROWS)) for start in range(0, n, BLOCK_ROWS)]


def _refuse_flat_likelihood(
    estimator: MixtureBradleyTerry, X: Any, y: Any, sample_weight: Any, model: Model, data: SortedRows
) -> None:
    single = clone(estimator).set_params(n_components=1, warm_start=False).fit(X, y, sample_weight=sample_weight)
    gain = estimator.log_likelihood(X, y, sample_weight) - single.log_likelihood(X, y, sample_weight)
    ratio = 2 * data.weight.sum() * gain
    extra = (len(model.coef) - 1) * (model.coef.shape[1] + model.gate.shape[1] + 1)
    if ratio <= chi2.isf(0.05, extra):
        raise ValueError(
            "expected data that identify the groups, got no group with two comparisons, and "
            f"{len(model.coef)} heads that explain the rows no better than one (likelihood ratio {ratio:.1f} with "
            f"{extra} more parameters): any split of the population's average would fit. Give groups: the annotator of "
            "every row"
        )
