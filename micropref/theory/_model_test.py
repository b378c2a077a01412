"""Is one Bradley-Terry reward enough here?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import check_random_state

from micropref._arrays.backend import to_numpy
from micropref._estimator.dead_heads import candidate_fits
from micropref._rows.arrays import as_rows
from micropref._rows.groups import check_groups
from micropref._rows.units import number_units
from micropref._rows.weights import check_sample_weight
from micropref._support.warnings import level_of_caller
from micropref.kernels._pointwise import log_sigmoid
from micropref.mixture import MixtureBradleyTerry
from micropref.theory._single import best_single_reward
from micropref.theory._units import Model, SortedRows, check_smooth

# A gain on held-out comparisons, in nats, that few populations have: a test that needs more tells nothing by not
# rejecting.
_LARGE_GAIN = 0.1
_LEVEL = 0.05
_NEARLY_FREE = 1e-10  # a penalty that bounds the reward of separable answers, and nothing else


@dataclass(frozen=True)
class SingleRewardTest:
    """Held-out likelihood ratio of K heads against one.

    Parameters
    ----------
    gain : float
        Mean gain of log-likelihood, in nats per comparison, on groups that neither fit saw. The value of several heads;
        not part of the test.
    log_evidence : float
        Logarithm of the e-value, in nats: how much better K heads fitted elsewhere explain groups than the best single
        reward fitted to those very groups.
    p_value : float
        Of the hypothesis that a single reward, linear in the features, gave the answers independently of each other:
        min(1, exp(−log_evidence)). A small value is evidence for several rewards, or for a reward that is not linear.
    n_groups : int
        Groups (and ungrouped rows).
    needed_gain : float
        Smallest gain, in nats per comparison, that gives a p-value of 0.05 or less: (log 20 + what the best single
        reward of a half gains by being fitted to it) / comparisons of a half.
    """

    gain: float
    log_evidence: float
    p_value: float
    n_groups: int
    needed_gain: float

    @property
    def has_power(self) -> bool:
        """Whether the test can detect a usual gain, 0.1 nats or less. If not, a large p-value is no evidence."""
        return self.needed_gain <= _LARGE_GAIN


def single_reward_test(
    estimator: MixtureBradleyTerry,
    X: Any,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    random_state: int | np.random.RandomState | None = 0,
) -> SingleRewardTest:
    r"""Test whether one Bradley-Terry reward, linear in the features, can explain these answers.

    The groups are split into two halves. K heads fitted to one half are compared with the best single reward
    *on the other half*, r̂, fitted to it:

    .. math:: L = \prod_u \exp(\ell_u(K) - \ell_u(\hat r))

    If a single reward r that is linear in the features (the class over which r̂ is maximised) gave the answers,
    independently of each other, r̂ is at least as likely as r, and the ratio of any other model to r has mean 1; so L
    has mean at most 1 and P(L ≥ 20) ≤ 5 % by Markov's inequality, whatever K, the penalties and the number of rows
    (universal inference: Wasserman, Ramdas and Balakrishnan, 2020). L is averaged over the two ways to use the halves.
    Without linearity the test can reject a single reward: 3 abs(f), say, if each annotator judges answers of one sign
    of f only. The usual χ² is wrong here, since one head lies on the boundary of K; and a gain on held-out rows alone
    would not do: two heads also hedge where few rows make one overconfident.

    The price is power if there are many features. r̂ is fitted to the rows on which it is judged, and so gains about
    half a nat per feature, while the reward of the other half loses as much; with 768 features and 1 000 comparisons in
    a half, r̂ explains every answer. `needed_gain` is this price, and a warning appears if it is so high that hardly
    any population could be detected. The test needs many times more rows than features. Reducing the features, for
    example to the principal axes of the differences, breaks the linearity as well: the question becomes whether one
    reward *of these axes* gave the answers. If a group judges similar pairs, its answers share the part that the axes
    leave out, and one reward is then mistaken for several (in a simulation with 768 features, ten axes and annotators
    who judge nearly the same pair five times, always).

    Parameters
    ----------
    estimator : MixtureBradleyTerry
        The mixture to try; cloned, not changed. Static weights or a linear gate, `balance=0`.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,), optional
        Labels, as in the estimator's `fit`.
    groups : array-like of shape (n_samples,), optional
        As in the estimator's `fit`. Ungrouped rows are split one by one.
    sample_weight : array-like of shape (n_samples,), optional
        The p-value holds for weights that count repetitions of independent answers.
    random_state : int, RandomState or None, default=0
        Of the split.

    Returns
    -------
    test : SingleRewardTest

    Raises
    ------
    ValueError
        For one component, fewer than four groups, or a mixture with an MLP gate or a balance term.

    Warns
    -----
    UserWarning
        If the p-value is above 0.05 and `needed_gain` above 0.1 nats: the data do not show that one reward is enough.
    """
    if estimator.n_components < 2:
        raise ValueError(f"expected an estimator with n_components of at least 2, got {estimator.n_components}")
    rows_of_X = as_rows(X)
    unit, _ = number_units(check_groups(groups, len(rows_of_X)), len(rows_of_X))
    weight = check_sample_weight(sample_weight, len(rows_of_X))
    present = np.unique(unit if weight is None else unit[weight > 0])
    if len(present) < 4:
        raise ValueError(f"expected at least four groups for two halves, got {len(present)}")
    chosen = np.isin(unit, check_random_state(random_state).permutation(present)[: len(present) // 2])
    halves = np.flatnonzero(chosen), np.flatnonzero(~chosen)

    def part(values: Any, rows: np.ndarray) -> Any:
        return None if values is None else np.asarray(to_numpy(values))[rows]

    log_evidence, gain, price, mass = [], 0.0, 0.0, 0.0
    for train, test in (halves, halves[::-1]):
        likelihood = {}
        for k in (estimator.n_components, 1):
            model = clone(estimator).set_params(n_components=k, warm_start=False)
            with candidate_fits():  # whose dead heads are what the test is about
                model.fit(
                    rows_of_X[train],
                    part(y, train),
                    sample_weight=part(sample_weight, train),
                    groups=part(groups, train),
                )
            check_smooth(model)
            data = SortedRows.create(
                model, rows_of_X[test], part(y, test), part(groups, test), part(sample_weight, test)
            )
            likelihood[k] = float(Model.of(model).unit_log_likelihood(data) @ data.outer)
        gain += likelihood[estimator.n_components] - likelihood[1]
        mass += data.weight.sum()
        best = _best_single_likelihood(data)
        price += best - likelihood[1]
        log_evidence.append(likelihood[estimator.n_components] - best)
    evidence = float(np.logaddexp(log_evidence[0], log_evidence[1]) - np.log(2))
    found = SingleRewardTest(
        gain=gain / mass,
        log_evidence=evidence,
        p_value=float(np.exp(min(0.0, -evidence))),
        n_groups=len(present),
        needed_gain=float((price - 2 * np.log(_LEVEL)) / mass),
    )
    if found.p_value > _LEVEL and not found.has_power:
        _warn_of_no_power(found, data.difference.shape[1], mass)
    return found


def _warn_of_no_power(found: SingleRewardTest, n_features: int, mass: float) -> None:
    more = ""
    if found.gain > 0:
        rows = 10 ** np.ceil(np.log10(mass * found.needed_gain / found.gain))
        more = f"; with the gain of {found.gain:.3g} nats on held-out groups it takes about {rows:,.0f} comparisons"
    warnings.warn(
        f"expected many more comparisons than features for this test to have power, got {mass:,.0f} comparisons and "
        f"{n_features} features: it can only notice a gain of {found.needed_gain:.3g} nats per comparison or more. The "
        f"p-value of {found.p_value:.3g} does not show that one reward is enough{more}",
        UserWarning,
        stacklevel=level_of_caller(),
    )


def _best_single_likelihood(data: SortedRows) -> float:
    """Largest log-likelihood of any single reward on these rows."""
    difference = data.difference.astype(float)
    share = data.weight / data.weight.sum()
    reward = best_single_reward(difference, (data.signs + 1) / 2, share, _NEARLY_FREE)
    return float(data.weight @ log_sigmoid(data.signs * (difference @ reward)))
