"""A mixture's likelihood unit by unit (a group, or an ungrouped row), with the scores of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.gated_heads import refuse_scatter
from micropref._rows.comparisons import Comparisons
from micropref._rows.units import number_units
from micropref.kernels._pointwise import log_sigmoid, sigmoid

BLOCK_ROWS = 2048


def check_smooth(estimator: Any) -> None:
    """Refuse a mixture that is not fitted, or whose fit has other scores than those of this module."""
    check_is_fitted(estimator)
    refuse_scatter(estimator, "the decomposition of the error")
    if len(estimator.gate_parameters_) > 2 or estimator.balance != 0:
        raise ValueError(
            "expected a mixture with static weights or a linear gate, and balance=0, got "
            f"gate={estimator.gate!r}, balance={estimator.balance!r}"
        )


@dataclass(frozen=True)
class SortedRows:
    """Rows with weight, those of one unit (a group, or an ungrouped row) next to each other.

    Attributes
    ----------
    context, difference : ndarray of shape (n_samples, n_context_features) and (n_samples, n_features)
    signs, weight : ndarray of float64 of shape (n_samples,)
    inner : ndarray of float64 of shape (n_samples,)
        What each row counts inside its unit: its weight in a group, 1 for an ungrouped row.
    unit : ndarray of int of shape (n_samples,)
        Number of the unit of every row, ascending from 0 without gaps.
    outer : ndarray of float64 of shape (n_units,)
        What each unit's ℓ_u is multiplied by: 1 for a group, an ungrouped row's weight.
    """

    context: np.ndarray
    difference: np.ndarray
    signs: np.ndarray
    weight: np.ndarray
    inner: np.ndarray
    unit: np.ndarray
    outer: np.ndarray

    @classmethod
    def create(cls, estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any) -> SortedRows:
        width = estimator.n_context_features_
        rows = Comparisons.read(
            estimator,
            X,
            y,
            sample_weight,
            groups,
            first=False,
            n_context_features=width,
            classes=estimator.classes_,
            host=True,
        )
        weight, units = rows.dense_weight, rows.units()
        number, _ = number_units(rows.groups, rows.n_samples)
        inner = None if units is None else units.inner(slice(None), weight)
        inner = np.ones(rows.n_samples) if inner is None else inner
        order = np.argsort(number, kind="stable")
        order = order[weight[order] > 0]
        present, unit = np.unique(number[order], return_inverse=True)
        outer = (weight if units is None else units.outer)[present]
        context, difference = np.asarray(rows.context), np.asarray(rows.difference)
        return cls(context[order], difference[order], rows.dense_signs[order], weight[order], inner[order], unit, outer)

    @property
    def n_units(self) -> int:
        return len(self.outer)

    @property
    def largest_group(self) -> int:
        return int(np.bincount(self.unit).max())

    def unit_starts(self, rows: slice) -> np.ndarray:
        """First row of every unit of a block, counted from the start of the block."""
        return np.flatnonzero(np.diff(self.unit[rows], prepend=-1))

    def mean_context(self, rows: slice) -> np.ndarray:
        """c̄_u of the units of a block, weighted."""
        starts, weight = self.unit_starts(rows), self.weight[rows]
        total = np.add.reduceat(weight[:, None] * self.context[rows].astype(float), starts)
        mean: np.ndarray = total / np.add.reduceat(weight, starts)[:, None]
        return mean

    def blocks(self) -> list[slice]:
        """Runs of whole units, of about `BLOCK_ROWS` rows."""
        cuts = [0]
        for start in self.unit_starts(slice(0, len(self.unit))):
            if start - cuts[-1] >= BLOCK_ROWS:
                cuts.append(int(start))
        return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(self.unit)], strict=True)]


@dataclass(frozen=True)
class Model:
    """Heads (K, d), gate weights (K, c) and offsets (K,); the vector of parameters is all of them in this order."""

    coef: np.ndarray
    gate: np.ndarray
    offset: np.ndarray
    alpha: float
    gate_alpha: float

    @classmethod
    def of(cls, estimator: Any) -> Model:
        k, width = estimator.coef_.shape[0], estimator.n_context_features_
        *gate, offset = estimator.gate_parameters_ or [np.zeros(k)]
        gate_weights = gate[0] if gate else np.zeros((k, width))
        return cls(estimator.coef_, gate_weights, offset, estimator.alpha_, estimator.gate_alpha_)

    @property
    def parameters(self) -> np.ndarray:
        return np.concatenate([self.coef.ravel(), self.gate.ravel(), self.offset])

    @property
    def penalties(self) -> np.ndarray:
        return np.concatenate(
            [
                np.full(self.coef.size, self.alpha),
                np.full(self.gate.size, self.gate_alpha),
                np.zeros(self.offset.size),
            ]
        )

    def unit_log_joint(self, data: SortedRows, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the units of a block: log π_k(c̄_u), the log joint of k and the answers; margins of the rows; c̄_u."""
        starts = data.unit_starts(rows)
        margins = data.signs[rows, None] * (data.difference[rows].astype(float) @ self.coef.T)
        mean_context = data.mean_context(rows)
        log_weights = log_softmax(mean_context @ self.gate.T + self.offset, axis=1)
        joint = log_weights + np.add.reduceat(data.inner[rows][:, None] * log_sigmoid(margins), starts)
        return log_weights, joint, margins, mean_context

    def unit_scores(self, data: SortedRows, rows: slice) -> np.ndarray:
        """Gradients (n_units, n_parameters) of ℓ_u for a block of whole units."""
        log_weights, joint, margins, mean_context = self.unit_log_joint(data, rows)
        starts, difference = data.unit_starts(rows), data.difference[rows].astype(float)
        responsibilities = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        of_row = responsibilities[data.unit[rows] - data.unit[rows.start]]
        slope = of_row * (data.inner[rows] * data.signs[rows])[:, None] * sigmoid(-margins)
        heads = [np.add.reduceat(one[:, None] * difference, starts) for one in slope.T]
        d_logits = responsibilities - np.exp(log_weights)
        gates = (d_logits[:, :, None] * mean_context[:, None, :]).reshape(len(joint), -1)
        return np.hstack([*heads, gates, d_logits])

    def unit_log_likelihood(self, data: SortedRows) -> np.ndarray:
        """ℓ_u of every unit, in nats; an ungrouped row's is not multiplied by its weight."""
        return np.concatenate([logsumexp(self.unit_log_joint(data, rows)[1], axis=1) for rows in data.blocks()])

    def at(self, draws: np.ndarray, data: SortedRows, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """π and σ, both (n_draws, n_rows, K), at this model and at every draw added to it."""
        k, d, c = self.coef.shape[0], self.coef.shape[1], self.gate.shape[1]
        theta = np.vstack([self.parameters, self.parameters + draws])
        coef, gate = theta[:, : k * d].reshape(-1, d), theta[:, k * d : k * d + k * c].reshape(len(theta) * k, c)
        difference, context = data.difference[rows].astype(float), data.context[rows].astype(float)
        n = len(difference)
        probs = sigmoid((difference @ coef.T).reshape(n, -1, k)).swapaxes(0, 1)
        logits = (context @ gate.T).reshape(n, -1, k).swapaxes(0, 1) + theta[:, None, k * d + k * c :]
        return np.exp(log_softmax(logits, axis=2)), probs
