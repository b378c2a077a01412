"""J of a mixture of Bradley-Terry models and its gradient, in nats: pure functions over the array API.

Every function runs unchanged on NumPy arrays and on torch tensors of any device, and differentiates by hand. Arrays are
component-first, (n_components, n_rows): reductions over the few components then run along long rows.

A *unit* is what draws one component: a group (annotator) with all its rows, or one ungrouped row. Its evidence for
component k is e_uk = Σ_{i∈u} ω_i log σ(m_ik) for a group and log σ(m_ik) for a row, whose weight then stands outside:

    ℓ_u = log Σ_k π_k(c_u) exp(e_uk)

    J = −(1/Ω) Σ_u a_u ℓ_u + balance · (1/Ω) Σ_u Ω_u Σ_k π_k(c_u) log π_k(c_u) + ½ α ‖W‖² + ½ α_gate ‖gate weights‖²

with margins m_ik = s_i w_kᵀ d_i, Ω_u the weight of the unit's rows, Ω = Σ_u Ω_u, and a_u = 1 for a group, ω_i for a row
(Eq. 1-4 of Shen et al., 2025, and their extension to annotators who answer more than once).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, add_at, compute_dtype, index_like, like, namespace, to_numpy
from micropref._arrays.blocks import shared_mapping, stored_blocks
from micropref._engine.gate_pass import gate_pass, penalised
from micropref._engine.gates import Gate, GatePenalty, flatten, unflatten
from micropref._engine.mean_contexts import mean_contexts
from micropref._engine.pair_votes import PairVotes
from micropref._rows.comparisons import Comparisons
from micropref._rows.distinct_pairs import DistinctPairs, distinct_pairs, merged_repetitions
from micropref._support.cached import cached_property
from micropref.distributed._communicator import ALONE, Communicator
from micropref.kernels import Sums, mixture_sums
from micropref.kernels._pointwise import log_sigmoid, sigmoid
from micropref.kernels._products import linear_gradient, linear_products
from micropref.kernels._stacked import stacked_sums, stacks
from micropref.kernels._units import RowUnits

__all__ = ["MixtureObjective", "Penalties"]

# Margins of all rows are kept between the two passes of a grouped evaluation up to this size, and computed twice above.
_MARGIN_BYTES = 1 << 26
# Margins, and a handful of arrays of their shape, of the rows taken at once.
_PRODUCT_BYTES = 1 << 23
# Rows of a unit that stay with one thread, at least and at most; in between an eighth of all rows.
_UNIT_ROWS = 1 << 12, 1 << 16
# A mapped file up to this size is read in any order; of a larger one, rows that lie apart are not held together.
_SCATTERED_BYTES = 1 << 26


@dataclass(frozen=True)
class Penalties:
    """What J adds to the likelihood: L2 penalties of heads and of the gate's weights, and the weight of the balance."""

    alpha: float = 0.0
    gate_alpha: GatePenalty | float = 0.0
    balance: float = 0.0


class MixtureObjective:
    """J of the module's docstring as a function of one flat vector: the K heads, then the parameters of the gate.

    Parameters
    ----------
    rows : Comparisons
    gate : Gate
    penalties : Penalties, optional
        None: the likelihood alone.
    prior_evidence : ndarray of shape (n_components, n_groups), optional
        Evidence that the groups bring from rows seen before.
    communicator : Communicator, optional
        The ranks over which the rows are spread; every one evaluates the same vectors in the same order.
    total_weight : float, optional
        Ω of all rows, where `rows` are those of one rank only.
    pairs : DistinctPairs, optional
        Of the rows, where each distinct pair is to be scored once; used with units of several rows.
    """

    def __init__(
        self,
        rows: Comparisons,
        gate: Gate,
        penalties: Penalties | None = None,
        *,
        prior_evidence: NDArray[Any] | None = None,
        communicator: Communicator = ALONE,
        total_weight: float | None = None,
        pairs: DistinctPairs | None = None,
    ):
        self.rows = rows
        self.gate = gate
        self.penalties = Penalties() if penalties is None else penalties
        self.units = rows.units()
        self.prior_evidence = prior_evidence
        self.communicator = communicator
        self.total_weight = rows.total_weight if total_weight is None else total_weight
        self.dtype = compute_dtype(rows.reader.X)
        self.pairs = None if self.units is None else pairs

    @classmethod
    def of_fit(cls, rows: Comparisons, gate: Gate, penalties: Penalties, **settings: Any) -> MixtureObjective:
        """The objective of a fit, which is worth a look at whether rows repeat."""
        rows = merged_repetitions(rows)
        pairs = None if rows.units() is None else distinct_pairs(rows.reader)
        return cls(rows, gate, penalties, pairs=pairs, **settings)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters in the flat vector."""
        return ((self.gate.n_components, self.rows.reader.n_features), *self.gate.shapes)

    @property
    def stiffness(self) -> NDArray[np.float64]:
        """L2 penalty of every parameter in the flat vector."""
        values = self._penalty_of_each
        return flatten([np.full(shape, value) for shape, value in zip(self.shapes, values, strict=True)])

    @property
    def _penalty_of_each(self) -> list[float]:
        return [self.penalties.alpha, *self.gate.penalties(self.penalties.gate_alpha)]

    @cached_property
    def _unit_contexts(self) -> Array:
        assert self.units is not None
        return mean_contexts(self.rows, self.units)

    @cached_property
    def shares_reads(self) -> bool:
        """Whether several vectors at once take fewer reads of X than one after the other, on every rank.

        All ranks ask for it at the same time, once: only their rows decide, and they must solve in the same way.
        """
        return all(self.communicator.exchange(self._at_once()))

    def _at_once(self) -> bool:
        return self.pairs is not None or self._in_one_read()

    def values_and_gradients(self, vectors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """J and its gradient at several vectors (S, n_parameters) at once: (S,) and (S, n_parameters).

        X is read once for all of them where no gate has a hidden layer. On the compiled path every vector has the value
        and gradient, to the bit, that it has alone.
        """
        # One sum over the ranks, whichever way each of them comes to its own.
        work = self._stacked if self._at_once() else self._one_by_one
        n, size = len(vectors), 1 + vectors.shape[1]
        total = self.communicator.sum(lambda: work(vectors), n * size, vectors.ravel()).reshape(n, size)
        found = []
        for vector, one in zip(vectors, total, strict=True):
            parameters, gradients = unflatten(vector, self.shapes), unflatten(one[1:], self.shapes)
            found.append(
                penalised(
                    float(one[0] / self.total_weight), gradients, parameters, self._penalty_of_each, self.total_weight
                )
            )
        return np.array([value for value, _ in found]), np.stack([gradient for _, gradient in found])

    def value_and_gradient(self, vector: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        """J in nats and its gradient, both float64."""
        values, gradients = self.values_and_gradients(vector[None])
        return float(values[0]), gradients[0]

    def _one_by_one(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """`_stacked`, a vector at a time."""
        return np.concatenate([_one_vector(*self._sums(unflatten(vector, self.shapes))) for vector in vectors])

    def _sums(self, parameters: list[NDArray[Any]]) -> tuple[float, list[NDArray[Any]]]:
        """Loss and gradients of these rows, without penalties."""
        heads, *gate = (like(p, self.rows.reader.X, self.dtype) for p in parameters)
        return self._rows(heads, gate) if self.units is None else self._groups(heads, gate)

    def responsibilities(self, vector: NDArray[Any]) -> Array:
        """r_uk of every unit, of shape (n_components, n_units), for grouped data."""
        assert self.units is not None
        heads, *gate = (like(p, self.rows.reader.X, self.dtype) for p in unflatten(vector, self.shapes))
        contexts, units = self._unit_contexts, self.units
        return gate_pass(self.gate, gate, contexts, self.evidence(heads), units.outer, units.mass)[2]

    def _signed(self, rows: slice, margins: Array) -> Array:
        signs = self.rows.signs
        return margins if signs is None else margins * like(signs[rows], margins, self.dtype)[None, :]

    @cached_property
    def _row_signs(self) -> Array | None:
        return None if self.rows.signs is None else like(self.rows.signs, self.rows.reader.X)

    @cached_property
    def _row_weights(self) -> Array | None:
        return None if self.rows.weight is None else like(self.rows.weight, self.rows.reader.X, self.dtype)

    @cached_property
    def _row_units(self) -> RowUnits | None:
        return None if self.units is None else RowUnits.of(self.units.index, self.units.outer, self.units.mass)

    def _in_one_read(self) -> bool:
        """Whether a block of whole units can have its evidence and its gradient while it is in a cache."""
        X, units = self.rows.reader.X, self._row_units
        if self.gate.hidden_units or not stacks(X):
            return False
        if units is None:
            return True
        if shared_mapping(X) is not None and X.nbytes > _SCATTERED_BYTES and not units.in_stored_order:
            return False  # rows from all over a file, which may be larger than memory
        least, most = _UNIT_ROWS
        return units.largest <= max(least, min(most, self.rows.reader.n_samples // 8))

    def _stacked(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """Losses and gradients of these rows at several vectors, without penalties: one flat array."""
        if self.pairs is not None:
            return self._on_distinct_pairs(vectors).ravel()
        each = [unflatten(vector, self.shapes) for vector in vectors]
        heads, *gate = (np.stack(parts) for parts in zip(*each, strict=True))
        weights, offsets = gate[0] if len(gate) == 2 else None, gate[-1] if gate else None
        units = self.units
        sums = stacked_sums(
            self.rows.reader.X,
            heads,
            weights,
            offsets,
            self.rows.reader.n_context_features,
            units=self._row_units,
            contexts=None if units is None or weights is None else self._unit_contexts,
            prior=self.prior_evidence,
            weight=self.rows.weight if units is None else self._inner,
            signs=self.rows.signs,
            balance=self.penalties.balance,
        )
        parts = [sums.loss[:, None], sums.heads, sums.gate_weights, sums.offsets if gate else None]
        return np.concatenate([p.reshape(len(vectors), -1) for p in parts if p is not None], axis=1).ravel()

    @cached_property
    def _inner(self) -> NDArray[np.float64] | None:
        assert self.units is not None
        return self.units.inner(slice(None), self.rows.weight)

    @cached_property
    def _pair_votes(self) -> PairVotes:
        assert self.pairs is not None
        assert self.units is not None
        return PairVotes(self.pairs, self.rows, self.units)

    def _on_distinct_pairs(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """The same where every distinct pair is scored once: (S, 1 + n_parameters)."""
        units, k = self.units, self.gate.n_components
        assert units is not None
        each = [[np.asarray(p, self.dtype) for p in unflatten(vector, self.shapes)] for vector in vectors]
        evidence, margins = self._pair_votes.evidence(np.concatenate([heads for heads, *_ in each]))
        found = []
        for start, (_, *gate) in enumerate(each):
            of_start = evidence[k * start : k * (start + 1)]
            if self.prior_evidence is not None:
                of_start[:, : units.n_groups] += self.prior_evidence
            loss, gradients, _ = gate_pass(
                self.gate,
                gate,
                self._unit_contexts,
                of_start,
                units.outer,
                units.mass,
                balance=self.penalties.balance,
                out=of_start,
            )
            found.append((loss, gradients))
        evidence *= units.outer
        d_heads = self._pair_votes.gradient(evidence, margins).reshape(len(each), k, -1)
        return np.stack(
            [_one_vector(loss, [d, *gradients]) for d, (loss, gradients) in zip(d_heads, found, strict=True)]
        )

    def _rows(self, heads: Array, gate: list[Array]) -> tuple[float, list[NDArray[Any]]]:
        """Every row its own unit: one pass over X."""
        return self._behind_hidden_layer(heads, gate) if self.gate.hidden_units else self._linear(heads, gate)

    def _kernel(self, block: Array, rows: slice, heads: Array, **gate: Any) -> Sums:
        return mixture_sums(
            block,
            heads,
            n_context_features=self.rows.reader.n_context_features,
            sample_weight=None if self._row_weights is None else self._row_weights[rows],
            signs=None if self._row_signs is None else self._row_signs[rows],
            balance=self.penalties.balance,
            **gate,
        )

    def _linear(self, heads: Array, gate: list[Array]) -> tuple[float, list[NDArray[Any]]]:
        weights, offsets = gate[0] if len(gate) == 2 else None, gate[-1] if gate else None
        loss = 0.0
        gradients = [np.zeros(shape) for shape in self.shapes]
        for rows, block in stored_blocks(self.rows.reader.X):
            sums = self._kernel(block, rows, heads, V=weights, b=offsets)
            loss += float(sums.loss)
            parts = [part for part in (sums.heads, sums.gate_weights, sums.offsets) if part is not None]
            for total, part in zip(gradients, parts, strict=False):  # a single component has offsets without use
                total += to_numpy(part)
        return loss, gradients

    def _behind_hidden_layer(self, heads: Array, gate: list[Array]) -> tuple[float, list[NDArray[Any]]]:
        loss = 0.0
        gradients = [np.zeros(shape) for shape in self.shapes]
        for rows, context, _ in self.rows.reader:
            logits, hidden = self.gate.logits(gate, context)
            sums = self._kernel(self.rows.reader.X[rows], rows, heads, logits=logits.T, row_gradients=True)
            loss += float(sums.loss)
            assert sums.d_logits is not None
            parts = [sums.heads, *self.gate.gradient(gate, context, hidden, sums.d_logits.T)]
            for total, part in zip(gradients, parts, strict=True):
                total += to_numpy(part)
        return loss, gradients

    def _groups(self, heads: Array, gate: list[Array]) -> tuple[float, list[NDArray[Any]]]:
        """Two passes over X: the evidence of all units has to be known before any row has a gradient."""
        units, X = self.units, self.rows.reader.X
        assert units is not None
        keep = 4 * units.index.size * self.gate.n_components <= _MARGIN_BYTES
        kept: list[Array] = []
        evidence = self.evidence(heads, kept if keep else None)
        loss, gate_gradients, responsibilities = gate_pass(
            self.gate,
            gate,
            self._unit_contexts,
            evidence,
            units.outer,
            units.mass,
            balance=self.penalties.balance,
            out=evidence,
        )
        xp = namespace(X)
        d_heads = np.zeros(self.shapes[0])
        first, width = self.rows.reader.n_context_features, self.rows.reader.n_features
        for block, (rows, X_rows) in enumerate(self._evidence_blocks()):
            margins = kept[block] if keep else self._signed(rows, linear_products(X_rows, heads, first))
            # Taken, not indexed: the result lies in row order, as the margins and the block of X do.
            taken = xp.take(responsibilities, index_like(units.index[rows], X), axis=1)
            outer = like(units.outer[units.index[rows]], X, self.dtype)
            d_margins = -outer[None, :] * xp.astype(taken, self.dtype) * sigmoid(-margins)
            inner = units.inner(rows, self.rows.weight)
            if inner is not None:
                d_margins = d_margins * like(inner, X, self.dtype)[None, :]
            d_heads += linear_gradient(self._signed(rows, d_margins), X_rows, first, width)
        return loss, [d_heads, *gate_gradients]

    def _evidence_blocks(self) -> Iterator[tuple[slice, Array]]:
        return stored_blocks(self.rows.reader.X, max_rows=max(1, _PRODUCT_BYTES // (4 * self.gate.n_components)))

    def evidence(self, heads: Array, keep_margins: list[Array] | None = None) -> Array:
        """e_uk of every unit, of shape (n_components, n_units), evidence from before included."""
        units, X = self.units, self.rows.reader.X
        assert units is not None
        total = np.zeros((self.gate.n_components, units.n_units))
        if self.prior_evidence is not None:
            total[:, : units.n_groups] = self.prior_evidence
        # Groups may have thousands of rows: their sums are kept in double precision.
        total = like(total, X)
        for rows, X_rows in self._evidence_blocks():
            margins = self._signed(rows, linear_products(X_rows, heads, self.rows.reader.n_context_features))
            if keep_margins is not None:
                keep_margins.append(margins)
            parts = log_sigmoid(margins)
            inner = units.inner(rows, self.rows.weight)
            if inner is not None:
                parts = parts * like(inner, X, self.dtype)[None, :]
            xp = namespace(parts)
            add_at(total, index_like(units.index[rows], X), xp.astype(parts, xp.float64))
        return total


def _one_vector(loss: float, gradients: list[NDArray[Any]]) -> NDArray[Any]:
    return flatten([np.array([loss]), *gradients])
