"""A mixture's likelihood unit by unit (a group, or an ungrouped row), with the scores of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import to_numpy
from micropref._rows.groups import check_groups
from micropref._rows.labels import check_labels
from micropref._rows.weights import check_sample_weight
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.pairs import split_pairs

BLOCK_ROWS = 2048


def check_smooth(estimator: Any) -> None:
    """Refuse a mixture that is not fitted, or whose fit has other scores than those of this module."""
    check_is_fitted(estimator)
    if len(estimator.gate_parameters_) > 2 or estimator.balance != 0:
        raise ValueError(
            "expected a mixture with static weights or a linear gate, and balance=0, got "
            f"gate={estimator.gate!r}, balance={estimator.balance!r}"
        )


def units_of_rows(groups: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of the unit of every row, groups first, and whether the row is a unit of its own."""
    members = check_groups(groups, n)
    unit = np.full(n, -1) if members is None else members.index.astype(np.int64)
    alone = unit < 0
    unit[alone] = unit.max(initial=-1) + 1 + np.arange(alone.sum())
    return unit, alone


@dataclass(frozen=True)
class Rows:
    """Rows with weight, those of one unit (a group, or an ungrouped row) next to each other."""

    context: np.ndarray
    difference: np.ndarray
    signs: np.ndarray
    weight: np.ndarray
    unit: np.ndarray
    alone: np.ndarray  # of each unit: is it an ungrouped row?

    @classmethod
    def create(cls, estimator: Any, X: Any, y: Any, groups: Any, sample_weight: Any) -> Rows:
        context, difference = (np.asarray(to_numpy(part)) for part in split_pairs(X, estimator.n_context_features))
        n = len(difference)
        if difference.shape[1] != estimator.coef_.shape[1]:
            raise ValueError(
                f"X: expected {estimator.n_features_in_} features, as in the estimator's fit, "
                f"got {difference.shape[1] + context.shape[1]}"
            )
        signs, _ = check_labels(y, n, classes=estimator.classes_)
        signs = np.ones(n) if signs is None else signs.astype(np.float64)
        weight = check_sample_weight(sample_weight, n)
        weight = np.ones(n) if weight is None else weight
        key, single = units_of_rows(groups, n)
        order = np.argsort(key, kind="stable")
        order = order[weight[order] > 0]
        _, first, unit = np.unique(key[order], return_index=True, return_inverse=True)
        return cls(context[order], difference[order], signs[order], weight[order], unit, single[order][first])

    @property
    def n_units(self) -> int:
        return len(self.alone)

    @property
    def largest_group(self) -> int:
        return int(np.bincount(self.unit).max())

    @property
    def outer(self) -> np.ndarray:
        """What each unit's ℓ_u is multiplied by: an ungrouped row's weight, 1 for a group."""
        return np.where(self.alone, np.bincount(self.unit, self.weight), 1.0)

    def inner(self, rows: slice) -> np.ndarray:
        """What each row counts inside its unit: 1 for an ungrouped row, its weight in a group."""
        return np.where(self.alone[self.unit[rows]], 1.0, self.weight[rows])

    def unit_starts(self, rows: slice) -> np.ndarray:
        """First row of every unit of a block, counted from the start of the block."""
        return np.flatnonzero(np.diff(self.unit[rows], prepend=-1))

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
        k, width = estimator.coef_.shape[0], estimator.n_context_features
        *gate, offset = estimator.gate_parameters_ or [np.zeros(k)]
        gate_weights = gate[0] if gate else np.zeros((k, width))
        return cls(estimator.coef_, gate_weights, offset, estimator.alpha, estimator.gate_alpha)

    @property
    def penalties(self) -> np.ndarray:
        return np.concatenate(
            [
                np.full(self.coef.size, self.alpha),
                np.full(self.gate.size, self.gate_alpha),
                np.zeros(self.offset.size),
            ]
        )

    def unit_log_joint(self, data: Rows, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the units of a block: log π_k(c̄_u), the log joint of k and the answers; margins of the rows; c̄_u."""
        starts = data.unit_starts(rows)
        weight = data.weight[rows]
        margins = data.signs[rows, None] * (data.difference[rows].astype(float) @ self.coef.T)
        mean_context = np.add.reduceat(weight[:, None] * data.context[rows].astype(float), starts)
        mean_context /= np.add.reduceat(weight, starts)[:, None]
        log_weights = log_softmax(mean_context @ self.gate.T + self.offset, axis=1)
        joint = log_weights + np.add.reduceat(data.inner(rows)[:, None] * log_sigmoid(margins), starts)
        return log_weights, joint, margins, mean_context

    def unit_scores(self, data: Rows, rows: slice) -> np.ndarray:
        """Gradients (n_units, n_parameters) of ℓ_u for a block of whole units."""
        log_weights, joint, margins, mean_context = self.unit_log_joint(data, rows)
        starts, difference = data.unit_starts(rows), data.difference[rows].astype(float)
        responsibilities = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        of_row = responsibilities[data.unit[rows] - data.unit[rows.start]]
        slope = of_row * (data.inner(rows) * data.signs[rows])[:, None] * sigmoid(-margins)
        heads = [np.add.reduceat(one[:, None] * difference, starts) for one in slope.T]
        d_logits = responsibilities - np.exp(log_weights)
        gates = (d_logits[:, :, None] * mean_context[:, None, :]).reshape(len(joint), -1)
        return np.hstack([*heads, gates, d_logits])

    def unit_log_likelihood(self, data: Rows) -> np.ndarray:
        """ℓ_u of every unit, in nats; an ungrouped row's is not multiplied by its weight."""
        return np.concatenate([logsumexp(self.unit_log_joint(data, rows)[1], axis=1) for rows in data.blocks()])

    def at(self, draws: np.ndarray, data: Rows, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """π and σ, both (n_draws, n_rows, K), at this model and at every draw added to it."""
        k, d, c = self.coef.shape[0], self.coef.shape[1], self.gate.shape[1]
        theta = np.concatenate([self.coef.ravel(), self.gate.ravel(), self.offset])
        theta = np.vstack([theta, theta + draws])
        coef, gate = theta[:, : k * d].reshape(-1, d), theta[:, k * d : k * d + k * c].reshape(len(theta) * k, c)
        difference, context = data.difference[rows].astype(float), data.context[rows].astype(float)
        n = len(difference)
        probs = sigmoid((difference @ coef.T).reshape(n, -1, k)).swapaxes(0, 1)
        logits = (context @ gate.T).reshape(n, -1, k).swapaxes(0, 1) + theta[:, None, k * d + k * c :]
        return np.exp(log_softmax(logits, axis=2)), probs
