"""What a mixture's `partial_fit` remembers between batches besides the parameters, and its steps."""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import like, to_numpy
from micropref._engine.gates import Gate, flatten, unflatten
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.scaling import RunningNorms, gate_step, head_step
from micropref._engine.solvers import Adam
from micropref._rows.comparisons import ALL_ZERO, Comparisons
from micropref._users.evidence import EvidenceTable

__all__ = ["Stream"]

# Stochastic steps: rows of one step, and the size of a step relative to heads whose margins are of order one.
_STEP_ROWS = 512
_STEP_RATE = 0.1
_EVIDENCE_DISCOUNT = 3
# Age, in batches, of heads that come from `fit`.
_FITTED_BATCHES = 1000
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Stream:
    """State of the stochastic steps, evidence of annotators, norms of the features so far.

    What a call learns of annotators is in `pending` until the next call: a call that is refused leaves no trace in the
    table, which is not copied.
    """

    adam: Adam
    evidence: EvidenceTable
    norms: RunningNorms
    initial_age: int
    pending: dict[Hashable, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def create(cls, n_components: int, *, fitted: RunningNorms | None) -> Stream:
        """A stream that begins with random heads, or with heads fitted to rows of these norms."""
        age = 1 if fitted is None else _FITTED_BATCHES
        norms = RunningNorms() if fitted is None else fitted
        return cls(Adam(_STEP_RATE), EvidenceTable(n_components + 1), norms, age)

    def forked(self) -> Stream:
        """The same stream, whose next steps leave this one's as they are; the table of annotators is shared."""
        if self.pending:
            rows = self.evidence.rows(self.pending, insert=True)
            self.evidence.set(rows, np.stack(list(self.pending.values())))
        return replace(self, adam=copy(self.adam), norms=copy(self.norms), pending={})

    def isolated(self) -> Stream:
        """The same stream with a table of annotators of its own, copied where it changes."""
        other = self.forked()
        return replace(other, evidence=self.evidence.copy())

    def knows(self, annotator: Hashable) -> bool:
        """Whether it has evidence of an annotator."""
        return annotator in self.evidence or annotator in self.pending

    @property
    def age(self) -> int:
        """Batches from which the heads have learned."""
        return self.initial_age + self.adam.count

    @property
    def feature_norms(self) -> NDArray[np.float64]:
        """Root mean square norms of contexts and differences so far."""
        return np.array([self.norms.context, self.norms.difference])

    def observe(self, rows: Comparisons) -> None:
        """Take in the norms of a batch; a ValueError as long as every difference of the stream is zero."""
        if rows.norms[1] == 0 and not (self.adam.count and self.norms.difference):
            raise ValueError(ALL_ZERO)
        self.norms.observe(rows.norms, rows.total_weight)

    def descend(
        self, rows: Comparisons, gate: Gate, penalties: Penalties, vector: NDArray[Any], scale: NDArray[Any]
    ) -> tuple[NDArray[np.float64], float]:
        """The parameters after one step for every 512 rows, and the objective before the last of them."""
        size = flatten([head_step((gate.n_components, rows.reader.n_features)), *gate_step(gate)])
        value = np.nan
        for begin in range(0, rows.n_samples, _STEP_ROWS):
            batch = rows.part(slice(begin, begin + _STEP_ROWS))
            if batch.total_weight == 0:
                continue
            ids = None if batch.groups is None else batch.groups.ids.tolist()
            prior = None if ids is None else self._recall(ids).T
            objective = MixtureObjective(batch, gate, penalties, prior_evidence=prior)
            value, gradient = objective.value_and_gradient(vector)
            vector = self.adam.step(vector, gradient, scale, size)
            if ids is not None:
                heads = like(unflatten(vector, objective.shapes)[0], batch.reader.X, objective.dtype)
                self._record(ids, to_numpy(objective.evidence(heads))[:, : len(ids)].T)
        return vector, float(value)

    def remember(self, rows: Comparisons, gate: Gate, vector: NDArray[Any]) -> None:
        """Keep what the groups of rows said from which these parameters have already been learned."""
        self.norms.observe(rows.norms, rows.total_weight)
        if rows.groups is None:
            return
        objective = MixtureObjective(rows, gate)
        ids = rows.groups.ids.tolist()
        heads = like(unflatten(vector, objective.shapes)[0], rows.reader.X, objective.dtype)
        self._record(ids, to_numpy(objective.evidence(heads))[:, : len(ids)].T)

    def _recall(self, ids: list[Hashable]) -> NDArray[np.float32]:
        """Evidence of groups seen before, (n_groups, n_components), discounted by how little was known then.

        Heads of step t₀ are worth (t₀ / t)³ of today's: without this, annotators who came first are held for ever to
        what heads that had learned nothing thought of them.
        """
        values = self.evidence.get(self.evidence.rows(ids))
        for place, id in enumerate(ids):
            if id in self.pending:
                values[place] = self.pending[id]
        taken_at = values[:, -1:]
        return np.asarray(values[:, :-1] * (taken_at / self.age) ** _EVIDENCE_DISCOUNT)

    def _record(self, ids: list[Hashable], evidence: NDArray[np.float64]) -> None:
        """Keep the evidence of groups, (n_groups, n_components), and when it was taken."""
        taken_at = np.full((len(evidence), 1), self.age)
        # Only differences between heads matter; kept relative to the best, they stay exact in single precision.
        values = np.hstack([evidence - evidence.max(axis=1, keepdims=True), taken_at])
        self.pending.update(zip(ids, np.maximum(values, -_LARGEST).astype(np.float32), strict=True))
