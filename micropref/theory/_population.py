"""A population of comparisons: what every group would answer, and how common each group is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from micropref._arrays.backend import to_numpy
from micropref._rows.arrays import as_rows
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
        """p̄, the probability that a member of the population prefers the first response."""
        first: np.ndarray = (self.weights * self.probs).sum(axis=1)
        return first

    @property
    def second(self) -> np.ndarray:
        """1 − p̄, summed on its own so that it keeps its digits where p̄ is nearly 1."""
        second: np.ndarray = (self.weights * (1 - self.probs)).sum(axis=1)
        return second

    def rows(self, values: Any, name: str) -> np.ndarray:
        """The entries of a caller's column that belong to the rows kept."""
        array = to_numpy(values)
        if array.shape[:1] != self.kept.shape:
            raise ValueError(f"{name}: expected {len(self.kept)} rows, as component_probs has, got shape {array.shape}")
        kept: np.ndarray = array[self.kept]
        return kept

    def column(self, values: Any, name: str) -> np.ndarray:
        """The same of a column of one dimension."""
        kept = self.rows(values, name)
        if kept.ndim != 1:
            raise ValueError(f"{name}: expected one dimension, got {kept.ndim}")
        return kept


def check_population(weights: ArrayLike, component_probs: ArrayLike, sample_weight: ArrayLike | None) -> Population:
    """Validate and normalise the three arrays; see `error_decomposition`."""
    probs = to_numpy(as_rows(component_probs, "component_probs")).astype(np.float64)
    if 0 in probs.shape:
        raise ValueError(f"component_probs: expected at least one row and one component, got shape {probs.shape}")
    share = np.asarray(to_numpy(weights), dtype=np.float64)
    if share.shape not in (probs.shape, probs.shape[1:]):
        raise ValueError(f"weights: expected shape {probs.shape} or {probs.shape[1:]}, got {share.shape}")
    probs = check_probabilities(probs, "component_probs")
    pi = np.broadcast_to(check_probabilities(share, "weights"), probs.shape)
    total = pi.sum(axis=1)
    wrong = np.flatnonzero(np.abs(total - 1) > _ROUNDING)
    if len(wrong):
        raise ValueError(
            f"weights: expected a sum of 1 over the components, got {total[wrong[0]]:.6g} in row {wrong[0]}"
        )
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
        raise ValueError(f"{name}: expected probabilities between 0 and 1, not scores, got {values[where]} in {place}")
    return np.asarray(np.clip(values, 0.0, 1.0))


def information(population: Population) -> np.ndarray:
    """I(Y; Z) of every row, Σ_k π_k KL(σ_k ‖ p̄), in nats; shape (n,)."""
    tiny = np.finfo(np.float64).tiny  # p̄ of two tiny factors may underflow where π_k σ_k log(σ_k / p̄) is still tiny
    first, second = np.maximum(population.first, tiny)[:, None], np.maximum(population.second, tiny)[:, None]
    probs, weights = population.probs, population.weights
    divergence = relative_entropy(probs, first) + relative_entropy(1 - probs, second)
    # Rounding may leave −1e-17 where all components agree.
    return np.asarray(np.maximum((weights * divergence).sum(axis=1), 0.0))


def relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p log(p / q) elementwise: 0 where p = 0, and infinite where only q = 0."""
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return np.asarray(rel_entr(p, q))
