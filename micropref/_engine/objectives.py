"""Loss and gradient of mixtures of Bradley-Terry models, in nats: pure functions over the array API.

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

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from micropref._arrays.backend import Array, add_at, compute_dtype, index_like, is_torch, like, namespace, to_numpy
from micropref._arrays.blocks import row_blocks, shared_mapping, stored_blocks
from micropref._engine.gates import Gate, flatten, unflatten
from micropref._rows.layout import PairReader
from micropref._rows.validation import Groups
from micropref.distributed import Communicator
from micropref.distributed._communicator import ALONE
from micropref.kernels import Sums, mixture_sums
from micropref.kernels._pointwise import log_odds as log_odds
from micropref.kernels._pointwise import log_sigmoid, log_softmax, sigmoid, unit_terms
from micropref.kernels._pointwise import log_sum_exp as log_sum_exp
from micropref.kernels._pointwise import posterior as posterior
from micropref.kernels._products import linear_gradient, linear_products

# Margins of all rows are kept between the two passes of a grouped evaluation up to this size, and computed twice above.
_MARGIN_BYTES = 1 << 26
_CONTEXT_BYTES = 1 << 26
# Margins, and a handful of arrays of their shape, of the rows taken at once.
_PRODUCT_BYTES = 1 << 23


# -------------------------------------------------------------------------------------------------------------- units


@dataclass(frozen=True)
class Units:
    """The units of grouped data: first all groups, then every ungrouped row as a unit of its own.

    Attributes
    ----------
    index : ndarray of int32 of shape (n_samples,)
        Unit of every row.
    outer : ndarray of shape (n_units,)
        a_u: weight of the unit's log-likelihood.
    mass : ndarray of shape (n_units,)
        Ω_u: weight of the unit's rows.
    n_groups : int
    """

    index: np.ndarray
    outer: np.ndarray
    mass: np.ndarray
    n_groups: int

    @classmethod
    def create(cls, groups: Groups, sample_weight: np.ndarray | None) -> Units:
        index = groups.index.copy()
        alone = index < 0
        n_alone = int(alone.sum())
        index[alone] = np.arange(groups.n_groups, groups.n_groups + n_alone, dtype=index.dtype)
        mass = np.bincount(index, weights=sample_weight, minlength=groups.n_groups + n_alone).astype(np.float64)
        outer = mass.copy()
        # A group without weight says nothing, whatever evidence it has from before.
        outer[: groups.n_groups] = mass[: groups.n_groups] > 0
        return cls(index, outer, mass, groups.n_groups)

    @property
    def n_units(self) -> int:
        return len(self.mass)

    def inner(self, rows: slice, sample_weight: np.ndarray | None) -> np.ndarray | None:
        """Weight of every row inside its unit: ω_i in a group, 1 for an ungrouped row; None where all are 1."""
        if sample_weight is None:
            return None
        return np.where(self.index[rows] < self.n_groups, sample_weight[rows], 1.0)

    def mean_contexts(self, reader: PairReader, sample_weight: np.ndarray | None) -> Array:
        """c̄_u, the weighted mean context of every unit, of shape (n_units, n_context_features).

        For a memory-mapped X the result is spilled to a temporary file once it outgrows a fixed budget.
        """
        X, width = reader.X, reader.n_context_features
        dtype = compute_dtype(X)
        if is_torch(X):
            total = namespace(X).zeros((width, self.n_units), dtype=dtype, device=X.device)
        elif shared_mapping(X) is not None and 4 * self.n_units * width > _CONTEXT_BYTES:
            with tempfile.TemporaryFile() as file:  # the mapping outlives the closed and nameless file
                total = np.memmap(file, dtype=dtype, mode="w+", shape=(self.n_units, width)).T
        else:
            total = np.zeros((self.n_units, width), dtype=dtype).T
        if width == 0:
            return total.T
        share = np.divide(1.0, self.mass, out=np.zeros_like(self.mass), where=self.mass > 0)
        for rows, context, _ in reader:
            units = self.index[rows]
            weight = share[units] if sample_weight is None else share[units] * sample_weight[rows]
            part = context * like(weight, context, dtype)[:, None]
            if is_torch(X):
                add_at(total, index_like(units, context), part.T)
            else:
                np.add.at(total.T, units, part)
        return total.T


# --------------------------------------------------------------------------------------------------------- objectives


def gate_pass(
    gate: Gate,
    parameters: list[Array],
    contexts: Array,
    evidence: Array,
    outer: np.ndarray,
    mass: np.ndarray,
    balance: float = 0.0,
    offset: Array | None = None,
    out: Array | None = None,
) -> tuple[float, list[np.ndarray], Array]:
    """Loss over all units with their evidence given; gradients of the gate's parameters; responsibilities.

    `offset` (n_components, n_units) is added to the logits of the gate. `out` takes the responsibilities; it may be the
    evidence itself where that is not needed any more.
    """
    gradients = [np.zeros(shape) for shape in gate.shapes]
    responsibilities = namespace(evidence).empty_like(evidence) if out is None else out
    loss = 0.0
    for rows, context in row_blocks(contexts):
        logits, hidden = gate.logits(parameters, context)
        block_loss, d_logits, responsibilities[:, rows] = unit_terms(
            logits if offset is None else logits + offset[:, rows],
            evidence[:, rows],
            like(outer[rows], evidence, evidence.dtype),
            like(mass[rows], evidence, evidence.dtype),
            balance,
        )
        loss += block_loss
        # Evidence may be in double precision where contexts are in single; torch multiplies no mixed matrices.
        d_logits = namespace(context).astype(d_logits, context.dtype, copy=False)
        for total, part in zip(gradients, gate.gradient(parameters, context, hidden, d_logits), strict=True):
            total += to_numpy(part)
    return loss, gradients, responsibilities


class MixtureObjective:
    """J of the module's docstring as a function of one flat vector: the K heads, then the parameters of the gate.

    Parameters
    ----------
    reader : PairReader
        The comparisons.
    gate : Gate
    signs : ndarray of int8 of shape (n_samples,), optional
        s_i; None means +1 everywhere.
    sample_weight : ndarray of shape (n_samples,), optional
        ω_i; None means 1 everywhere.
    groups : Groups, optional
    alpha, gate_alpha, balance : float
        Penalties of the heads and of the gate's weights, in nats, and the weight of the balance term.
    prior_evidence : ndarray of shape (n_components, n_groups), optional
        Evidence that the groups bring from rows seen before.
    communicator : Communicator, optional
        The ranks over which the rows are spread; every one evaluates the same vectors in the same order.
    total_weight : float, optional
        Ω of all rows, where `reader` has those of one rank only.
    """

    def __init__(
        self,
        reader: PairReader,
        gate: Gate,
        *,
        signs: np.ndarray | None = None,
        sample_weight: np.ndarray | None = None,
        groups: Groups | None = None,
        alpha: float = 0.0,
        gate_alpha: float = 0.0,
        balance: float = 0.0,
        prior_evidence: np.ndarray | None = None,
        communicator: Communicator = ALONE,
        total_weight: float | None = None,
    ):
        self.reader = reader
        self.gate = gate
        self.signs = signs
        self.sample_weight = sample_weight
        self.units = None if groups is None else Units.create(groups, sample_weight)
        self.alpha = alpha
        self.gate_alpha = gate_alpha
        self.balance = balance
        self.prior_evidence = prior_evidence
        self.communicator = communicator
        own_weight = float(reader.n_samples if sample_weight is None else sample_weight.sum())
        self.total_weight = own_weight if total_weight is None else total_weight
        self.dtype = compute_dtype(reader.X)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters in the flat vector."""
        return ((self.gate.n_components, self.reader.n_features), *self.gate.shapes)

    @property
    def penalties(self) -> np.ndarray:
        """Penalty of every parameter in the flat vector."""
        values = [self.alpha, *self.gate.penalties(self.gate_alpha)]
        return flatten([np.full(shape, value) for shape, value in zip(self.shapes, values, strict=True)])

    @cached_property
    def _unit_contexts(self) -> Array:
        assert self.units is not None
        return self.units.mean_contexts(self.reader, self.sample_weight)

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J in nats and its gradient, both float64."""
        parameters = unflatten(vector, self.shapes)
        if self.communicator.world_size == 1:
            loss, gradients = self._sums(parameters)
        else:
            total = self.communicator.sum(lambda: _one_vector(*self._sums(parameters)), 1 + vector.size, vector)
            loss, gradients = float(total[0]), unflatten(total[1:], self.shapes)
        penalties = [self.alpha, *self.gate.penalties(self.gate_alpha)]
        return _penalised(loss / self.total_weight, gradients, parameters, penalties, self.total_weight)

    def _sums(self, parameters: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """Loss and gradients of these rows, without penalties."""
        heads, *gate = (like(p, self.reader.X, self.dtype) for p in parameters)
        return self._rows(heads, gate) if self.units is None else self._groups(heads, gate)

    def responsibilities(self, vector: np.ndarray) -> Array:
        """r_uk of every unit, of shape (n_components, n_units), for grouped data."""
        assert self.units is not None
        heads, *gate = (like(p, self.reader.X, self.dtype) for p in unflatten(vector, self.shapes))
        contexts, units = self._unit_contexts, self.units
        return gate_pass(self.gate, gate, contexts, self.evidence(heads), units.outer, units.mass)[2]

    def _signed(self, rows: slice, margins: Array) -> Array:
        return margins if self.signs is None else margins * like(self.signs[rows], margins, self.dtype)[None, :]

    @cached_property
    def _row_signs(self) -> Array | None:
        return None if self.signs is None else like(self.signs, self.reader.X)

    @cached_property
    def _row_weights(self) -> Array | None:
        return None if self.sample_weight is None else like(self.sample_weight, self.reader.X, self.dtype)

    def _rows(self, heads: Array, gate: list[Array]) -> tuple[float, list[np.ndarray]]:
        """Every row its own unit: one pass over X."""
        return self._behind_hidden_layer(heads, gate) if self.gate.hidden_units else self._linear(heads, gate)

    def _kernel(self, block: Array, rows: slice, heads: Array, **gate: Any) -> Sums:
        return mixture_sums(
            block,
            heads,
            n_context_features=self.reader.n_context_features,
            sample_weight=None if self._row_weights is None else self._row_weights[rows],
            signs=None if self._row_signs is None else self._row_signs[rows],
            balance=self.balance,
            **gate,
        )

    def _linear(self, heads: Array, gate: list[Array]) -> tuple[float, list[np.ndarray]]:
        weights, offsets = gate[0] if len(gate) == 2 else None, gate[-1] if gate else None
        loss = 0.0
        gradients = [np.zeros(shape) for shape in self.shapes]
        for rows, block in stored_blocks(self.reader.X):
            sums = self._kernel(block, rows, heads, V=weights, b=offsets)
            loss += float(sums.loss)
            parts = [part for part in (sums.heads, sums.gate_weights, sums.offsets) if part is not None]
            for total, part in zip(gradients, parts, strict=False):  # a single component has offsets without use
                total += to_numpy(part)
        return loss, gradients

    def _behind_hidden_layer(self, heads: Array, gate: list[Array]) -> tuple[float, list[np.ndarray]]:
        loss = 0.0
        gradients = [np.zeros(shape) for shape in self.shapes]
        for rows, context, _ in self.reader:
            logits, hidden = self.gate.logits(gate, context)
            sums = self._kernel(self.reader.X[rows], rows, heads, logits=logits.T, row_gradients=True)
            loss += float(sums.loss)
            assert sums.d_logits is not None
            parts = [sums.heads, *self.gate.gradient(gate, context, hidden, sums.d_logits.T)]
            for total, part in zip(gradients, parts, strict=True):
                total += to_numpy(part)
        return loss, gradients

    def _groups(self, heads: Array, gate: list[Array]) -> tuple[float, list[np.ndarray]]:
        """Two passes over X: the evidence of all units has to be known before any row has a gradient."""
        units, X = self.units, self.reader.X
        assert units is not None
        keep = 4 * units.index.size * self.gate.n_components <= _MARGIN_BYTES
        kept: list[Array] = []
        evidence = self.evidence(heads, kept if keep else None)
        loss, gate_gradients, responsibilities = gate_pass(
            self.gate, gate, self._unit_contexts, evidence, units.outer, units.mass, self.balance, out=evidence
        )
        xp = namespace(X)
        d_heads = np.zeros(self.shapes[0])
        first, width = self.reader.n_context_features, self.reader.n_features
        for block, (rows, X_rows) in enumerate(self._evidence_blocks()):
            margins = kept[block] if keep else self._signed(rows, linear_products(X_rows, heads, first))
            # Taken, not indexed: the result lies in row order, as the margins and the block of X do.
            taken = xp.take(responsibilities, index_like(units.index[rows], X), axis=1)
            outer = like(units.outer[units.index[rows]], X, self.dtype)
            d_margins = -outer[None, :] * xp.astype(taken, self.dtype) * sigmoid(-margins)
            inner = units.inner(rows, self.sample_weight)
            if inner is not None:
                d_margins = d_margins * like(inner, X, self.dtype)[None, :]
            d_heads += linear_gradient(self._signed(rows, d_margins), X_rows, first, width)
        return loss, [d_heads, *gate_gradients]

    def _evidence_blocks(self) -> Iterator[tuple[slice, Array]]:
        return stored_blocks(self.reader.X, max_rows=max(1, _PRODUCT_BYTES // (4 * self.gate.n_components)))

    def evidence(self, heads: Array, keep_margins: list[Array] | None = None) -> Array:
        """e_uk of every unit, of shape (n_components, n_units), evidence from before included."""
        units, X = self.units, self.reader.X
        assert units is not None
        total = np.zeros((self.gate.n_components, units.n_units))
        if self.prior_evidence is not None:
            total[:, : units.n_groups] = self.prior_evidence
        # Groups may have thousands of rows: their sums are kept in double precision.
        total = like(total, X)
        for rows, X_rows in self._evidence_blocks():
            margins = self._signed(rows, linear_products(X_rows, heads, self.reader.n_context_features))
            if keep_margins is not None:
                keep_margins.append(margins)
            parts = log_sigmoid(margins)
            inner = units.inner(rows, self.sample_weight)
            if inner is not None:
                parts = parts * like(inner, X, self.dtype)[None, :]
            xp = namespace(parts)
            add_at(total, index_like(units.index[rows], X), xp.astype(parts, xp.float64))
        return total


class GateObjective:
    """J_τ of the router with frozen heads: the same objective with the evidence of every row given.

        J_τ(f) = −(1/Ω) Σ_i ω_i log Σ_k f_k(c_i) exp(−L_ik / τ) + ½ α ‖gate weights‖²,   f(c) = softmax(o(c) + g(c))

    (Eq. 5 of Shen et al., 2025), where the offset o is where learning starts: the logarithm of the mixture's own
    weights.

    Parameters
    ----------
    reader : PairReader
    gate : Gate
    evidence : array of shape (n_components, n_samples)
        −L_ik / τ.
    offset : array of shape (n_components, n_samples)
        o(c_i).
    sample_weight : ndarray of shape (n_samples,), optional
    alpha : float
    """

    def __init__(
        self,
        reader: PairReader,
        gate: Gate,
        *,
        evidence: Array,
        offset: Array,
        sample_weight: np.ndarray | None = None,
        alpha: float = 0.0,
    ):
        self.contexts = reader.X[:, : reader.n_context_features]
        self.gate = gate
        self.evidence = evidence
        self.offset = offset
        self.sample_weight = np.ones(reader.n_samples) if sample_weight is None else sample_weight
        self.alpha = alpha
        self.total_weight = float(self.sample_weight.sum())
        self.dtype = compute_dtype(reader.X)

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """J_τ in nats and its gradient, both float64."""
        loss, gradients, _ = self._pass(vector, self.evidence)
        parameters = unflatten(vector, self.gate.shapes)
        penalties = self.gate.penalties(self.alpha)
        return _penalised(loss / self.total_weight, gradients, parameters, penalties, self.total_weight)

    def targets(self, vector: np.ndarray) -> Array:
        """Targets of a step of Hedge, t_ik ∝ f_k(c_i) exp(−L_ik / τ), of shape (n_components, n_samples)."""
        return self._pass(vector, self.evidence)[2]

    def cross_entropy(self, vector: np.ndarray, targets: Array) -> tuple[float, np.ndarray]:
        """−(1/Ω) Σ_i ω_i Σ_k t_ik log f_k(c_i) + ½ α ‖gate weights‖², a step of Hedge, and its gradient."""
        parameters = self._unpack(vector)
        gradients = [np.zeros(shape) for shape in self.gate.shapes]
        loss = 0.0
        for rows, context in row_blocks(self.contexts):
            xp = namespace(context)
            logits, hidden = self.gate.logits(parameters, context)
            log_weights = log_softmax(logits + self.offset[:, rows])
            weight = like(self.sample_weight[rows], context, self.dtype)[None, :]
            loss -= float(xp.sum(weight * targets[:, rows] * log_weights, dtype=xp.float64))
            d_logits = weight * (xp.exp(log_weights) - targets[:, rows])
            for total, part in zip(gradients, self.gate.gradient(parameters, context, hidden, d_logits), strict=True):
                total += to_numpy(part)
        parameters = unflatten(vector, self.gate.shapes)
        penalties = self.gate.penalties(self.alpha)
        return _penalised(loss / self.total_weight, gradients, parameters, penalties, self.total_weight)

    def _unpack(self, vector: np.ndarray) -> list[Array]:
        return [like(p, self.contexts, self.dtype) for p in unflatten(vector, self.gate.shapes)]

    def _pass(self, vector: np.ndarray, evidence: Array) -> tuple[float, list[np.ndarray], Array]:
        weight = self.sample_weight
        return gate_pass(self.gate, self._unpack(vector), self.contexts, evidence, weight, weight, offset=self.offset)


def _one_vector(loss: float, gradients: list[np.ndarray]) -> np.ndarray:
    return flatten([np.array([loss]), *gradients])


def _penalised(
    value: float,
    gradients: list[np.ndarray],
    parameters: list[np.ndarray],
    penalties: list[float],
    total_weight: float,
) -> tuple[float, np.ndarray]:
    """A mean loss and its summed gradients, with ½ penalty ‖p‖² of every parameter added."""
    for i, (parameter, penalty) in enumerate(zip(parameters, penalties, strict=True)):
        if penalty:  # zero times a square that overflowed is NaN
            value += 0.5 * penalty * float(np.vdot(parameter, parameter))
        gradients[i] = gradients[i] / total_weight + penalty * parameter
    return value, flatten(gradients)
