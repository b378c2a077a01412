"""A population of comparisons: what every group would answer, and how common each group is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from micropref._rows.weights import check_sample_weight

_ROUNDING = 1e-5  # single precision, summed over the components


@dataclass(frozen=True)
class Population:
    """Rows with positive weight only, in float64.

    Parameters
    ----------
    weights : ndarray of shape (n, n_components)
        Mixture weights π_k; rows sum to 1.
    probs : ndarray of shape (n, n_components)
        σ_k, the probability that component k prefers the first response.
    share : ndarray of shape (n,)
        Sample weights, summing to 1.
    kept : ndarray of bool of shape (n_samples,)
        Which of the caller's rows these are.
    """

    weights: np.ndarray
    probs: np.ndarray
    share: np.ndarray
    kept: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """p̄, the probability that somebody prefers the first response."""
        return (self.weights * self.probs).sum(axis=1)

    @property
    def second(self) -> np.ndarray:
        """1 − p̄, summed on its own so that it keeps its digits where p̄ is nearly 1."""
        return (self.weights * (1 - self.probs)).sum(axis=1)

    def rows(self, values: Any, name: str) -> np.ndarray:
        """The entries of a caller's column that belong to the rows kept."""
        values = np.asarray(values)
        if values.shape[:1] != self.kept.shape:
            raise ValueError(f"{name} has shape {values.shape}; component_probs has {len(self.kept)} rows")
        return values[self.kept]


def check_population(weights: ArrayLike, component_probs: ArrayLike, sample_weight: ArrayLike | None) -> Population:
    """Validate and normalise the three arrays; see `error_decomposition`."""
    probs = np.asarray(component_probs, dtype=np.float64)
    if probs.ndim != 2 or 0 in probs.shape:
        raise ValueError(f"component_probs has shape {probs.shape}; expected (n_samples, n_components), neither empty")
    share = np.asarray(weights, dtype=np.float64)
    if share.shape not in (probs.shape, probs.shape[1:]):
        raise ValueError(f"weights has shape {share.shape}; expected {probs.shape} or {probs.shape[1:]}")
    probs = check_probabilities(probs, "component_probs")
    pi = np.broadcast_to(check_probabilities(share, "weights"), probs.shape)
    total = pi.sum(axis=1)
    wrong = np.flatnonzero(np.abs(total - 1) > _ROUNDING)
    if len(wrong):
        raise ValueError(f"weights must sum to 1 over the components; row {wrong[0]} sums to {total[wrong[0]]:.6g}")
    omega = check_sample_weight(sample_weight, len(probs))
    omega = np.ones(len(probs)) if omega is None else omega
    kept = omega > 0
    return Population((pi / total[:, None])[kept], probs[kept], omega[kept] / omega[kept].sum(), kept)


def check_probabilities(values: np.ndarray, name: str) -> np.ndarray:
    """Values in [0, 1]; what rounding puts outside is put back."""
    inside = (values >= -_ROUNDING) & (values <= 1 + _ROUNDING)  # false for NaN
    if not inside.all():
        where = tuple(int(i) for i in np.argwhere(~inside)[0])
        place = f"row {where[0]}" + (f", column {where[1]}" if len(where) > 1 else "")
        raise ValueError(f"{name} must be probabilities between 0 and 1, not scores; {place} has {values[where]}")
    return np.clip(values, 0.0, 1.0)


def information(population: Population) -> np.ndarray:
    """I(Y; Z) of every row, Σ_k π_k KL(σ_k ‖ p̄), in nats; shape (n,)."""
    tiny = np.finfo(np.float64).tiny  # p̄ of two tiny factors may underflow where π_k σ_k log(σ_k / p̄) is still tiny
    first, second = np.maximum(population.first, tiny)[:, None], np.maximum(population.second, tiny)[:, None]
    probs, weights = population.probs, population.weights
    divergence = relative_entropy(probs, first) + relative_entropy(1 - probs, second)
    # Rounding may leave −1e-17 where all components agree.
    return np.maximum((weights * divergence).sum(axis=1), 0.0)


def relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p log(p / q) elementwise: 0 where p = 0, and infinite where only q = 0."""
    from scipy.special import rel_entr

    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return rel_entr(p, q)
