"""How the weights of frozen heads depend on the context: the gates of a router, behind one protocol."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from micropref._arrays.backend import Array, like, to_numpy
from micropref._engine.gate_objective import GateObjective
from micropref._engine.gate_solvers import GateFit, initial_gate, parameter_scale, solve_direct, solve_hedge
from micropref._engine.gates import GATES, Gate, GatePenalty, flatten, unflatten
from micropref._engine.prediction import gate_log_weights
from micropref._engine.priors import gate_penalty
from micropref._engine.scaling import RunningNorms, gate_step
from micropref._engine.solvers import Adam
from micropref._estimator.errors import ModelFileError
from micropref._estimator.saveable import arrays_with_prefix
from micropref._estimator.saved import check_gate, check_tensors
from micropref._estimator.state import Arrays, gathered, numbered
from micropref._rows.comparisons import Comparisons
from micropref._rows.matrix import check_block
from micropref._users.cluster_gate import N_STRAY, ClusterGate
from micropref._users.neighbors import NeighborGate

__all__ = ["CONTEXT_GATES", "ContextClusterGate", "ContextGate", "GateSettings", "Labelled", "create_context_gate"]

CONTEXT_GATES = (*GATES, "knn", "cluster")

_STEP_RATE = 0.1


class LabelledContexts(NamedTuple):
    """Contexts (n, c), evidence (K, n), weights (n,), all above 0, and log f⁰ (K, n) of labelled pairs."""

    contexts: NDArray[Any]
    evidence: NDArray[Any]
    weight: NDArray[np.float64]
    log_prior: NDArray[Any]


class Labelled(NamedTuple):
    """Labelled pairs with context, as a gate learns from them.

    Attributes
    ----------
    rows : Comparisons
        Their groups are not used.
    evidence : array of shape (n_components, n_rows)
        −L_ik / τ.
    log_prior : array of shape (n_components, n_rows)
        log f⁰(c_i), where learning starts.
    unlabelled : array of shape (n_contexts, n_context_features), optional
        Further contexts.
    """

    rows: Comparisons
    evidence: Array
    log_prior: Array
    unlabelled: Array | None = None

    def with_weight(self) -> LabelledContexts:
        """Of the pairs that have weight, what a gate remembers."""
        rows = self.rows
        counted = slice(None) if rows.weight is None else rows.weight > 0
        contexts, evidence, prior = (to_numpy(each) for each in (rows.context, self.evidence, self.log_prior))
        return LabelledContexts(contexts[counted], evidence[:, counted], rows.dense_weight[counted], prior[:, counted])


class GateSettings(NamedTuple):
    """Constructor parameters of a router that concern how a gate learns."""

    alpha: float | str
    solver: str
    n_iter: int
    random_state: Any


class ContextGate(Protocol):
    """f(c), learned from labelled pairs."""

    @property
    def parameters(self) -> list[NDArray[np.float64]]:
        """Parameters of g; empty where there are none."""

    @property
    def alpha(self) -> float | None:
        """The penalty with which they were learned; None where there are none."""

    @property
    def is_taught(self) -> bool:
        """Whether labelled pairs have been learned from."""

    def begin(self, rows: Comparisons, settings: GateSettings) -> None:
        """Nothing learned, before the first step of a stream."""

    def fit(self, labelled: Labelled, settings: GateSettings) -> GateFit | None:
        """Learn from all pairs; how the solver ended, where one ran."""

    def step(self, labelled: Labelled, settings: GateSettings) -> float | None:
        """Learn from a batch of a stream, without changing what a shallow copy holds; J_τ before, where it is known."""

    def log_weights(self, contexts: Array, log_prior: Array) -> Array:
        """log f(c) of every row, (n_components, n_rows)."""

    def isolated(self) -> Self:
        """The same gate, whose learning leaves this one as it is."""

    def export(self) -> Arrays:
        """Arrays of what was learned, by names of their own."""

    def restore(self, arrays: Arrays) -> None:
        """Take back what `export` gave; other arrays are left alone."""


def create_context_gate(
    kind: str, n_context_features: int, n_components: int, *, hidden_units: int, n_neighbors: int | None
) -> ContextGate:
    """The gate of one of the `CONTEXT_GATES`, which has learned nothing."""
    if kind == "knn":
        return NearestContexts(NeighborGate(n_context_features, n_components, n_neighbors))
    if kind == "cluster":
        linear = ParametricGate(Gate.create("linear", n_context_features, n_components, hidden_units))
        return ContextClusterGate(linear, ClusterGate(n_context_features, n_components))
    return ParametricGate(Gate.create(kind, n_context_features, n_components, hidden_units))


class ParametricGate:
    """f(c) = softmax(log f⁰(c) + g(c)) with a g of fixed shape."""

    def __init__(self, gate: Gate):
        self.gate = gate
        self.parameters: list[NDArray[np.float64]] = []
        self.alpha: float | None = None
        self._adam = Adam(_STEP_RATE)
        self._norms = RunningNorms()

    @property
    def is_taught(self) -> bool:
        return self.alpha is not None

    def begin(self, rows: Comparisons, settings: GateSettings) -> None:
        penalty = gate_penalty(settings.alpha, self.gate, rows.norms[0], rows.total_weight)
        self._set(self._start(rows.norms[0], penalty, settings)[0])

    def fit(self, labelled: Labelled, settings: GateSettings) -> GateFit:
        penalty = self._observe(labelled.rows, settings)
        start, scale = self._start(labelled.rows.norms[0], penalty, settings)
        objective = self._objective(labelled, penalty)
        if settings.solver == "hedge":
            found = solve_hedge(objective, start, scale, settings.n_iter)
        else:
            found = solve_direct(objective, start, scale)
        self._set(found.vector)
        return found

    def step(self, labelled: Labelled, settings: GateSettings) -> float | None:
        if not self.gate.shapes:
            return None
        self._norms, self._adam = copy(self._norms), copy(self._adam)
        penalty = self._observe(labelled.rows, settings)
        vector = flatten(self.parameters)
        value, gradient = self._objective(labelled, penalty).value_and_gradient(vector)
        scale = parameter_scale(self.gate, self._norms.context, penalty)
        self._set(self._adam.step(vector, gradient, scale, flatten(gate_step(self.gate))))
        return value

    def log_weights(self, contexts: Array, log_prior: Array) -> Array:
        return gate_log_weights(contexts, self.gate, self.parameters, log_prior)

    def isolated(self) -> Self:
        other = copy(self)
        other.parameters = [parameter.copy() for parameter in self.parameters]
        return other

    def export(self) -> Arrays:
        learned = numbered("gate", self.parameters)
        if self.alpha is not None:
            learned["gate_prior"] = np.array([self.alpha, *self._norms.seen])
        return learned

    def restore(self, arrays: Arrays) -> None:
        self.parameters = gathered("gate", arrays)
        if self.parameters:  # none before a label has come
            check_gate("gate", self.parameters, self.gate)
        if "gate_prior" in arrays:  # version 0.1 kept no total of the labelled rows
            check_tensors(arrays, {"gate_prior": (4,)})
            alpha, *seen = arrays["gate_prior"].tolist()
            self.alpha, self._norms = alpha, RunningNorms.of(seen)

    def _observe(self, rows: Comparisons, settings: GateSettings) -> GatePenalty:
        """The penalties for the labelled rows so far, these among them."""
        self._norms.observe(rows.norms, rows.total_weight)
        penalty = gate_penalty(settings.alpha, self.gate, self._norms.context, self._norms.total_weight)
        self.alpha = penalty.inputs
        return penalty

    def _start(
        self, context_norm: float, penalty: GatePenalty, settings: GateSettings
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Parameters of g = 0, and one over the usual size of every parameter."""
        scale = parameter_scale(self.gate, context_norm, penalty)
        return initial_gate(self.gate, scale, check_random_state(settings.random_state)), scale

    def _objective(self, labelled: Labelled, penalty: GatePenalty) -> GateObjective:
        return GateObjective(
            labelled.rows, self.gate, evidence=labelled.evidence, offset=labelled.log_prior, alpha=penalty
        )

    def _set(self, vector: NDArray[np.float64]) -> None:
        self.parameters = [parameter.copy() for parameter in unflatten(vector, self.gate.shapes)]


class NearestContexts:
    """f(c) from the nearest labelled contexts alone."""

    def __init__(self, pairs: NeighborGate):
        self.pairs = pairs
        self.parameters: list[NDArray[np.float64]] = []
        self.alpha: float | None = None

    @property
    def is_taught(self) -> bool:
        return self.pairs.size > 0

    def begin(self, rows: Comparisons, settings: GateSettings) -> None:
        pass

    def fit(self, labelled: Labelled, settings: GateSettings) -> None:
        self.step(labelled, settings)

    def step(self, labelled: Labelled, settings: GateSettings) -> None:
        pairs = labelled.with_weight()
        self.pairs.add(pairs.contexts, pairs.evidence, pairs.weight)

    def log_weights(self, contexts: Array, log_prior: Array) -> Array:
        found = self.pairs.log_weights(to_numpy(contexts), to_numpy(log_prior))
        return like(found, log_prior, log_prior.dtype)

    def isolated(self) -> Self:
        other = copy(self)
        other.pairs = deepcopy(self.pairs)
        return other

    def export(self) -> Arrays:
        return {f"neighbors.{name}": array for name, array in self.pairs.export().items()}

    def restore(self, arrays: Arrays) -> None:
        n_context, k = self.pairs.shape
        check_tensors(
            arrays,
            {
                "neighbors.contexts": (None, n_context),
                "neighbors.evidence": (len(arrays["neighbors.contexts"]), k),
                "neighbors.weight": (len(arrays["neighbors.contexts"]),),
            },
        )
        self.pairs.restore({name: arrays[f"neighbors.{name}"] for name in NeighborGate.ARRAYS})


class ContextClusterGate:
    """f(c) from the labelled contexts of the same cluster; from a linear gate where contexts have no clusters."""

    def __init__(self, linear: ParametricGate, memory: ClusterGate):
        self.linear = linear
        self.memory = memory

    @property
    def parameters(self) -> list[NDArray[np.float64]]:
        return self.linear.parameters

    @property
    def alpha(self) -> float | None:
        return self.linear.alpha

    @property
    def is_taught(self) -> bool:
        return self.linear.is_taught

    def begin(self, rows: Comparisons, settings: GateSettings) -> None:
        self.linear.begin(rows, settings)

    def fit(self, labelled: Labelled, settings: GateSettings) -> GateFit:
        if labelled.unlabelled is not None:
            self.memory.look_among(_checked_contexts(labelled.unlabelled, labelled.rows.reader.n_context_features))
        self.memory.add(*labelled.with_weight())
        return self.linear.fit(labelled, settings)

    def step(self, labelled: Labelled, settings: GateSettings) -> float | None:
        self.linear, self.memory = copy(self.linear), copy(self.memory)
        self.memory.add(*labelled.with_weight())
        return self.linear.step(labelled, settings)

    def log_weights(self, contexts: Array, log_prior: Array) -> Array:
        of_linear = self.linear.log_weights(contexts, log_prior)
        found = self.memory.log_weights(to_numpy(contexts), to_numpy(log_prior), to_numpy(of_linear))
        return like(found, log_prior, log_prior.dtype)

    def isolated(self) -> Self:
        other = copy(self)
        other.linear, other.memory = self.linear.isolated(), copy(self.memory)
        return other

    def export(self) -> Arrays:
        return {**self.linear.export(), **{f"clusters.{name}": each for name, each in self.memory.export().items()}}

    def restore(self, arrays: Arrays) -> None:
        self.linear.restore(arrays)
        of_memory = arrays_with_prefix("clusters", arrays)
        shapes = _cluster_shapes(of_memory, self.linear.gate)
        check_tensors(of_memory, shapes)
        if of_memory.keys() != shapes.keys():
            raise ModelFileError(
                f"clusters: expected the tensors {', '.join(shapes)}, got {', '.join(of_memory)[:500]}"
            )
        self.memory.restore(of_memory)


def _cluster_shapes(arrays: Arrays, gate: Gate) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the tensors of a `ClusterGate` beside such a gate; the lengths are those of the centres and rows."""
    n_context, k = gate.n_inputs, gate.n_components
    shapes: dict[str, tuple[int | None, ...]] = {}
    level = 0
    while f"{level}.centers" in arrays:
        n = len(arrays[f"{level}.centers"])
        of_level = {"centers": (n, n_context), "spread": (n,), "cut": (2,), "votes": (N_STRAY, n, k), "prior": (n, k)}
        shapes.update({f"{level}.{name}": shape for name, shape in of_level.items()})
        level += 1
    if "next_try" in arrays and "seen.weight" in arrays:
        n = len(arrays["seen.weight"])
        of_rows = {"contexts": (n, n_context), "evidence": (n, k), "weight": (n,), "log_prior": (n, k)}
        shapes.update({f"seen.{name}": shape for name, shape in of_rows.items()})
        shapes["next_try"] = (1,)
    return shapes


def _checked_contexts(contexts: Array, width: int) -> NDArray[Any]:
    """Contexts without labels, as an array of finite numbers."""
    meaning = f"(n_contexts, {width}), the context columns alone"
    checked = to_numpy(check_block(contexts, width, "contexts", meaning))
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise ValueError(f"contexts: expected finite numbers, got NaN or infinity in row {int(np.argmin(finite))}")
    return checked
