"""Several mixtures over the same rows in one read of X: S stacked sets of K heads and their gates.

Starts of a fit that advance in lock step ask for all their losses at once. What is computed for one mixture does not
depend on the others: on the compiled path a mixture has the same bits in a stack and alone; BLAS may round otherwise.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, is_torch
from micropref._arrays.blocks import shared_mapping
from micropref.kernels import _dispatch, _threads
from micropref.kernels._units import RowUnits

__all__ = ["Stack", "StackedSums", "added_up", "stacked_sums", "stacks"]

# Sums of so many parts are kept until they are added up.
_WAVE = 64
_MAPPED_BYTES = 1 << 26


@dataclass(frozen=True)
class Stack:
    """S mixtures of K heads over the same rows ``[context | difference]``, all arrays NumPy's.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_context_features + n_features)
        Any strides; bits of bfloat16 where `bfloat16_bits` says so.
    heads : ndarray of shape (S, K, n_features)
        In the dtype of computation, as `gate_weights` and `offsets`.
    gate_weights : ndarray of shape (S, K, n_context_features), optional
    offsets : ndarray of shape (S, K)
    n_context_features : int
    units : RowUnits, optional
        None: every row is a unit, whose context is its own.
    contexts : ndarray of shape (n_units, n_context_features), optional
        c̄_u of units; needed with `gate_weights`.
    prior : ndarray of shape (K, n) with n up to n_units, optional
        Evidence of the first n units from rows seen before.
    weight : ndarray of shape (n_rows,), optional
        ω_i: of a row's log-likelihood, or with `units` of a row inside its unit.
    signs : ndarray of int8 of shape (n_rows,), optional
    balance : float
    bfloat16_bits : bool
    """

    X: NDArray[Any]
    heads: NDArray[Any]
    gate_weights: NDArray[Any] | None
    offsets: NDArray[Any]
    n_context_features: int = 0
    units: RowUnits | None = None
    contexts: NDArray[Any] | None = None
    prior: NDArray[np.float64] | None = None
    weight: NDArray[Any] | None = None
    signs: NDArray[np.int8] | None = None
    balance: float = 0.0
    bfloat16_bits: bool = False


class StackedSums(NamedTuple):
    """Sums over rows for each of S mixtures, not divided by Ω, in double precision.

    Attributes
    ----------
    loss : ndarray of shape (S,)
        −Σ_u a_u ℓ_u + balance Σ_u Ω_u Σ_k π_k log π_k.
    heads : ndarray of shape (S, K, n_features)
    gate_weights : ndarray of shape (S, K, n_context_features) or None
    offsets : ndarray of shape (S, K)
        Whether offsets were given or not: the sums of the logits' gradients.
    """

    loss: NDArray[np.float64]
    heads: NDArray[np.float64]
    gate_weights: NDArray[np.float64] | None
    offsets: NDArray[np.float64]

    @classmethod
    def zeros(cls, stack: Stack) -> StackedSums:
        """Nothing yet."""
        gate = None if stack.gate_weights is None else np.zeros(stack.gate_weights.shape)
        return cls(np.zeros(len(stack.heads)), np.zeros(stack.heads.shape), gate, np.zeros(stack.heads.shape[:2]))


def added_up(
    stack: Stack,
    work: Callable[..., StackedSums],
    parts: list[slice],
    workspace: Callable[[], tuple[Any, ...]] = tuple,
) -> StackedSums:
    """The sums of all parts, always in the same order; pages of a mapped file are handed back on the way.

    `work` and `workspace` are as in `_threads.run`.
    """
    total, mapping = StackedSums.zeros(stack), shared_mapping(stack.X)
    wave = _WAVE
    if mapping is not None:
        wave = max(_threads.available(), len(parts) * _MAPPED_BYTES // max(1, stack.X.nbytes))
    for start in range(0, len(parts), wave):
        for one in _threads.run(work, parts[start : start + wave], workspace):
            for sums, more in zip(total, one, strict=True):
                if sums is not None and more is not None:
                    sums += more
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)
    return total


def stacks(X: Array) -> bool:
    """Whether `stacked_sums` takes X: where it lies in the memory of the CPU and a path for that computes."""
    return _dispatch.path_for(X) in ("numba", "blas")


def stacked_sums(
    X: Array,
    heads: NDArray[Any],
    gate_weights: NDArray[Any] | None = None,
    offsets: NDArray[Any] | None = None,
    n_context_features: int = 0,
    *,
    units: RowUnits | None = None,
    contexts: Array | None = None,
    prior: NDArray[np.float64] | None = None,
    weight: NDArray[Any] | None = None,
    signs: NDArray[np.int8] | None = None,
    balance: float = 0.0,
) -> StackedSums:
    """Losses and gradients of S mixtures in one read of X.

    Parameters
    ----------
    X : array of shape (n_rows, n_context_features + n_features)
        A NumPy array, or a torch tensor on the CPU, in half, single or double precision, with any strides.
    heads, gate_weights, offsets, n_context_features, units, contexts, prior, weight, signs, balance
        As in `Stack`; parameters in any floating dtype, a tensor X may come with a tensor of contexts.

    Returns
    -------
    StackedSums
    """
    dtype = np.float64 if str(X.dtype).endswith("float64") else np.float32
    rows, bits = _dispatch.host_rows(X)
    s, k, _ = heads.shape
    stack = Stack(
        rows,
        np.ascontiguousarray(heads, dtype),
        None if gate_weights is None else np.ascontiguousarray(gate_weights, dtype),
        np.zeros((s, k), dtype) if offsets is None else np.ascontiguousarray(offsets, dtype),
        n_context_features,
        units,
        None if contexts is None else _dispatch.host_rows(contexts)[0] if is_torch(contexts) else contexts,
        prior,
        weight,
        signs,
        balance,
        bits,
    )
    found: StackedSums = _dispatch.implementation(_dispatch.path_for(X), "_stacked").stacked_sums(stack)
    return found
