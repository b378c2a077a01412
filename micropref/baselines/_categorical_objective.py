"""Loss and gradient of a categorical distribution of differences in utility, in nats, and its terms."""

from __future__ import annotations

import numpy as np

from micropref._engine.gates import flatten, unflatten
from micropref._rows.comparisons import Comparisons
from micropref.kernels._pointwise import log_sigmoid, log_sum_exp

__all__ = ["CategoricalObjective", "atom_terms", "both_signs", "log_unnormalised"]


class CategoricalObjective:
    """J of `CategoricalRewards` as a function of one flat vector: W, then b."""

    def __init__(self, rows: Comparisons, atoms: np.ndarray, alpha: float, of_offsets: float):
        self.rows = rows
        self.atoms = atoms
        width = rows.difference.shape[1]
        self.shapes: tuple[tuple[int, ...], ...] = ((len(atoms), width), (len(atoms),))
        self.penalties = np.repeat([alpha, of_offsets], [len(atoms) * width, len(atoms)])

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J in nats and its gradient."""
        heads, offsets = unflatten(vector, self.shapes)
        D, signs, weight = self.rows.difference, self.rows.dense_signs, self.rows.dense_weight
        likelihood, d_scores, d_offsets = atom_terms(signs * (heads.astype(D.dtype) @ D.T), offsets, self.atoms)
        gradient = (
            -flatten([(weight * signs * d_scores).astype(D.dtype) @ D, d_offsets @ weight]) / self.rows.total_weight
        )
        penalised = self.penalties * vector
        value = -float(weight @ likelihood) / self.rows.total_weight + 0.5 * float(penalised @ vector)
        return value, gradient + penalised


def atom_terms(scores: np.ndarray, offsets: np.ndarray, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood (n,) of rows whose label has the scores (n_atoms, n); derivatives by scores and by offsets."""
    logits = both_signs(scores, offsets)
    joint = logits + _log_chosen(atoms)
    normaliser, total = log_sum_exp(logits), log_sum_exp(joint)
    change = np.exp(joint - total) - np.exp(logits - normaliser)
    positive, negative = change[: len(atoms)], change[len(atoms) :]
    return total - normaliser, positive - negative, positive + negative


def both_signs(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Logits (2 n_atoms, n) of the positive and then of the negative values."""
    return np.concatenate([offsets[:, None] + scores, offsets[:, None] - scores])


def _log_chosen(atoms: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = log_sigmoid(np.concatenate([atoms, -atoms]))[:, None]
    return chosen


def log_unnormalised(scores: np.ndarray, offsets: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """log Σ_j q_j σ(v_j) up to the normaliser of q, (n,), of rows with the scores (n_atoms, n)."""
    total: np.ndarray = log_sum_exp(both_signs(scores, offsets) + _log_chosen(atoms))
    return total
