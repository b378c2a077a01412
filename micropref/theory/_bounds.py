"""The chain of lower bounds that ends in Theorem 3.2."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._estimator.gated_heads import refuse_scatter
from micropref._support.warnings import level_of_caller
from micropref.kernels._pointwise import sigmoid
from micropref.theory._population import Population, check_population, information

_SAME = 1e-6  # weights in single precision that differ by less are the same


@dataclass(frozen=True, init=False)
class IrreducibleErrorBounds:
    """Lower bounds on a single reward's excess error CE − H(Y | X, A, B, Z), in nats, from tight to loose.

    Parameters
    ----------
    information : float
        I(Y; Z | X, A, B), reached by q = p̄.
    pairwise : float
        2 E Var_π(σ_k).
    averaged : float or None
        2 E_x Var_π(E_{a,b|x} σ_k); None without prompts.
    theorem_3_2 : float or None
        2 ρ K E_x Var_unif(E_{a,b|x} σ_k), the right-hand side of Theorem 3.2; None without prompts.
    diversity : float or None
        ρ, the smallest weight of any component for any prompt; None without prompts.
    printed : float, optional
        Deprecated name of `theorem_3_2`, as a parameter and as an attribute.
    """

    information: float
    pairwise: float
    averaged: float | None
    theorem_3_2: float | None
    diversity: float | None

    def __init__(
        self,
        information: float,
        pairwise: float,
        averaged: float | None = None,
        theorem_3_2: float | None = None,
        diversity: float | None = None,
        *,
        printed: float | None = None,
    ):
        if printed is not None:
            if theorem_3_2 is not None:
                raise TypeError("expected theorem_3_2 alone, got its old name printed as well")
            _warn_renamed("printed", "theorem_3_2")
            theorem_3_2 = printed
        values = (information, pairwise, averaged, theorem_3_2, diversity)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def pairwise_slack(self) -> float:
        """Loss from Pinsker's inequality, information − pairwise."""
        return self.information - self.pairwise

    @property
    def averaged_slack(self) -> float | None:
        """Loss from averaging over the pairs of a prompt, pairwise − averaged."""
        return None if self.averaged is None else self.pairwise - self.averaged

    @property
    def theorem_3_2_slack(self) -> float | None:
        """Loss from replacing all weights by the smallest, averaged − theorem_3_2."""
        return None if self.averaged is None or self.theorem_3_2 is None else self.averaged - self.theorem_3_2

    @property
    def printed(self) -> float | None:
        """Deprecated name of `theorem_3_2`."""
        _warn_renamed("printed", "theorem_3_2")
        return self.theorem_3_2

    @property
    def printed_slack(self) -> float | None:
        """Deprecated name of `theorem_3_2_slack`."""
        _warn_renamed("printed_slack", "theorem_3_2_slack")
        return self.theorem_3_2_slack


@cache
def _warn_renamed(old: str, new: str) -> None:
    """Warn once per process; where warnings are errors, every time."""
    warnings.warn(
        f"IrreducibleErrorBounds.{old} was renamed to {new}; the old name will be removed in the next release",
        FutureWarning,
        stacklevel=level_of_caller(),
    )


def irreducible_error_bounds(
    weights: ArrayLike,
    component_probs: ArrayLike,
    prompt: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> IrreducibleErrorBounds:
    r"""Lower bounds on the error that no single reward can avoid, as a chain of four steps.

    .. math::
        \mathrm{CE} - H(Y|X,A,B,Z) \ge I(Y;Z|X,A,B) \ge 2 E \operatorname{Var}_\pi(\sigma_k)
        \ge 2 E_x \operatorname{Var}_\pi(E_{a,b|x} \sigma_k)
        \ge 2 \rho K E_x \operatorname{Var}_{unif}(E_{a,b|x} \sigma_k)

    1. For any q: the difference is E KL(p̄ ‖ q) ≥ 0, the term `misspecification` of `error_decomposition`.
    2. For any weights: I = E Σ_k π_k KL(σ_k ‖ p̄), and Pinsker's inequality for two outcomes is
       KL(p ‖ q) ≥ 2 (p − q)².
    3. Weights are a function of the prompt: then Var_π is a convex quadratic form of (σ_1, …, σ_K) that is the same
       for all pairs of a prompt, and Jensen's inequality moves the mean over pairs inside.
    4. The same: Var_π(v) = min_m Σ_k π_k (v_k − m)² ≥ ρ min_m Σ_k (v_k − m)² = ρ K Var_unif(v), with
       ρ = min_{x,k} π_k(x).

    The last is Theorem 3.2 of Shen et al. (2025, arXiv 2505.24846). Two corrections to it: its scores must be
    probabilities (with raw scores the right-hand side has no upper limit, whereas I ≤ log K), and where the two
    responses of a pair are exchangeable, E_{a,b|x} σ_k = ½ for every k and its bound is exactly 0.

    Parameters
    ----------
    weights : array-like of shape (n_samples, n_components) or (n_components,)
        Mixture weights π_k in every row; they sum to 1 over the components.
    component_probs : array-like of shape (n_samples, n_components)
        Probabilities σ_k (not scores) that component k prefers the first response.
    prompt : array-like of shape (n_samples,), optional
        Id of the prompt of every row. Without it the last two bounds are None.
    sample_weight : array-like of shape (n_samples,), optional
        Rows of weight 0 play no part.

    Returns
    -------
    bounds : IrreducibleErrorBounds

    Raises
    ------
    ValueError
        For values outside [0, 1], weights that do not sum to 1, wrong shapes, or weights that differ between rows of
        one prompt.

    Examples
    --------
    >>> from micropref.theory import irreducible_error_bounds
    >>> bounds = irreducible_error_bounds([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], prompt=["x", "x"])
    >>> round(bounds.information, 3), round(bounds.pairwise, 3), round(bounds.averaged, 3), bounds.theorem_3_2
    (0.368, 0.32, 0.0, 0.0)
    """
    population = check_population(weights, component_probs, sample_weight)
    share, exact = population.share, float(population.share @ information(population))
    pairwise = 2 * float(share @ _variance(population.weights, population.probs))
    if prompt is None:
        return IrreducibleErrorBounds(exact, pairwise)
    ids = population.column(prompt, "prompt")
    _, start, index = np.unique(ids, return_index=True, return_inverse=True)
    _check_constant(population, ids, start[index])
    mass = np.bincount(index, share)
    pi = population.weights[start]
    mean = np.stack([np.bincount(index, share * column) for column in population.probs.T], axis=1) / mass[:, None]
    rho = float(pi.min())
    return IrreducibleErrorBounds(
        exact,
        pairwise,
        averaged=2 * float(mass @ _variance(pi, mean)),
        theorem_3_2=2 * rho * pi.shape[1] * float(mass @ mean.var(axis=1)),
        diversity=rho,
    )


def bounds_of_fit(estimator: Any, X: Any, prompt: ArrayLike | None = None) -> IrreducibleErrorBounds:
    """Bounds of the population that a fitted mixture describes, without correction for the noise of its fit.

    Parameters
    ----------
    estimator : MixtureBradleyTerry
    X : array-like of shape (n_samples, n_features)
    prompt : array-like of shape (n_samples,), optional
        As in `irreducible_error_bounds`.

    Returns
    -------
    bounds : IrreducibleErrorBounds

    Raises
    ------
    TypeError
        If users scatter around the heads: their groups are not finitely many.
    """
    refuse_scatter(estimator, "a bound with finitely many groups")
    weights = to_numpy(estimator.mixture_weights(X)).astype(np.float64)
    probs = sigmoid(to_numpy(estimator.component_scores(X)).astype(np.float64))
    return irreducible_error_bounds(weights / weights.sum(axis=1, keepdims=True), probs, prompt)


def _variance(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Variance of the values of every row under its weights."""
    mean = (weights * values).sum(axis=1, keepdims=True)
    variance: np.ndarray = (weights * (values - mean) ** 2).sum(axis=1)
    return variance


def _check_constant(population: Population, ids: np.ndarray, first: np.ndarray) -> None:
    """Weights are those of the first row of the same prompt, whose row number is in `first`."""
    varies = np.abs(population.weights - population.weights[first]).max(axis=1) > _SAME
    if varies.any():
        row = int(np.argmax(varies))
        where = np.flatnonzero(population.kept)
        raise ValueError(
            "with prompt: expected weights that are a function of the prompt alone, got different weights for prompt "
            f"{ids[row]!r} in rows {where[first[row]]} and {where[row]}. Without prompt, the bounds `averaged` and "
            "`theorem_3_2` are left out"
        )
