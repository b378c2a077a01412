"""Gates that remember labelled contexts: which there are, how they learn, and what they answer."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, to_numpy
from micropref._rows.comparisons import Comparisons
from micropref._rows.matrix import check_block
from micropref._users.cluster_gate import ClusterGate
from micropref._users.neighbors import NeighborGate

__all__ = ["MEMORY_GATES", "ContextMemory", "LabelledContexts", "answer", "memory_of", "remembering"]

MEMORY_GATES = ("knn", "cluster")

ContextMemory = NeighborGate | ClusterGate


class LabelledContexts(NamedTuple):
    """Rows with weight, as gates remember them.

    Attributes
    ----------
    contexts : ndarray of shape (n, n_context_features)
    evidence, log_prior : ndarray of shape (n_components, n)
        −L/τ and log f⁰, in nats.
    weight : ndarray of shape (n,)
    """

    contexts: NDArray[np.floating]
    evidence: NDArray[np.floating]
    weight: NDArray[np.float64]
    log_prior: NDArray[np.floating]

    @classmethod
    def of(cls, rows: Comparisons, evidence: Array, log_prior: Array) -> LabelledContexts:
        """The rows that have weight."""
        counted = slice(None) if rows.weight is None else rows.weight > 0
        contexts, votes, prior = (to_numpy(each) for each in (rows.context, evidence, log_prior))
        return cls(contexts[counted], votes[:, counted], rows.dense_weight[counted], prior[:, counted])


def memory_of(kind: str, n_context_features: int, n_components: int, n_neighbors: int | None) -> ContextMemory | None:
    """What the gate of this kind remembers, still empty; None for a gate that is its parameters alone."""
    if kind == "knn":
        return NeighborGate(n_context_features, n_components, n_neighbors)
    return ClusterGate(n_context_features, n_components) if kind == "cluster" else None


def remembering(memory: ContextMemory, rows: LabelledContexts, contexts: Array | None = None) -> ContextMemory:
    """The memory with these rows, and with contexts that have no label."""
    if isinstance(memory, NeighborGate):
        memory.add(rows.contexts, rows.evidence, rows.weight)
        return memory
    memory = copy(memory)  # whose arrays are replaced and never written into
    if contexts is not None:
        memory.look_among(_checked(contexts, rows.contexts.shape[1]))
    memory.add(*rows)
    return memory


def answer(memory: ContextMemory, contexts: Array, log_prior: Array, log_linear: Array | None) -> NDArray[np.floating]:
    """Log-weights (n_components, n_queries) in contexts (n_queries, n_context_features).

    Parameters
    ----------
    memory : NeighborGate or ClusterGate
    contexts : array of shape (n_queries, n_context_features)
    log_prior : array of shape (n_components, n_queries)
        log f⁰.
    log_linear : array of shape (n_components, n_queries), optional
        Log-weights of the gate beside the memory, if there is one.
    """
    if isinstance(memory, NeighborGate):
        return memory.log_weights(to_numpy(contexts), to_numpy(log_prior))
    return memory.log_weights(to_numpy(contexts), to_numpy(log_prior), to_numpy(log_linear))


def _checked(contexts: Any, width: int) -> NDArray[np.floating]:
    """Contexts without labels, as an array of finite numbers."""
    meaning = f"(n_contexts, {width}), the context columns alone"
    checked = to_numpy(check_block(contexts, width, "contexts", meaning))
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise ValueError(f"contexts: expected finite numbers, got NaN or infinity in row {int(np.argmin(finite))}")
    return checked
