"""What every kernel takes and gives: checked inputs, and sums over rows."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from micropref._arrays.backend import Array, compute_dtype, is_torch, namespace


@dataclass(frozen=True)
class Problem:
    """A mixture of Bradley-Terry heads over rows ``[context | difference]``, with its parameters.

    The logits of row i are `logits[i]` where those are given, and V c_i + b otherwise; a missing V or b is zero.

    Attributes
    ----------
    X : array of shape (n_rows, n_context_features + n_features)
        float16, bfloat16 (torch), float32 or float64; any strides.
    heads : array of shape (n_components, n_features)
        W, in the dtype of computation, as all other parameters.
    gate_weights : array of shape (n_components, n_context_features), optional
        V.
    offsets : array of shape (n_components,), optional
        b.
    logits : array of shape (n_rows, n_components), optional
    n_context_features : int
    sample_weight : array of shape (n_rows,), optional
        ω_i.
    signs : array of int8 of shape (n_rows,), optional
        s_i; None means +1 everywhere.
    balance : float
        Weight of the negative entropy of the mixture weights.
    bfloat16_bits : bool
        X is a NumPy array of uint16 that holds bfloat16 numbers, which NumPy does not know.
    """

    X: Array
    heads: Array
    gate_weights: Array | None = None
    offsets: Array | None = None
    logits: Array | None = None
    n_context_features: int = 0
    sample_weight: Array | None = None
    signs: Array | None = None
    balance: float = 0.0
    bfloat16_bits: bool = False

    @property
    def n_rows(self) -> int:
        return int(self.X.shape[0])

    @property
    def n_components(self) -> int:
        return int(self.heads.shape[0])

    @property
    def dtype(self) -> Any:
        """The dtype of computation: float64 for float64 rows, float32 for all else."""
        return compute_dtype(self.X)

    @classmethod
    def check(
        cls,
        X: Array,
        W: Array,
        V: Array | None = None,
        b: Array | None = None,
        n_context_features: int = 0,
        *,
        logits: Array | None = None,
        sample_weight: Array | None = None,
        signs: Array | None = None,
        balance: float = 0.0,
    ) -> Problem:
        """The problem of arrays that a caller handed in; what does not fit is a ValueError that names it."""
        _check_matrix(X)
        width = int(X.shape[1])
        if isinstance(n_context_features, bool) or not isinstance(n_context_features, Integral):
            raise ValueError(f"n_context_features: expected an integer, got {n_context_features!r}")
        c = int(n_context_features)
        if not 0 <= c < width:
            raise ValueError(f"n_context_features: expected at least 0 and less than the {width} columns of X, got {c}")
        _check_kind("W", W, X)
        if W.ndim != 2 or W.shape[0] < 1 or W.shape[1] != width - c:
            raise ValueError(
                f"W: expected shape (n_components, {width - c}), the columns of X after its {c} context features, "
                f"got shape {tuple(W.shape)}"
            )
        n, k = int(X.shape[0]), int(W.shape[0])
        if logits is not None and not (V is None and b is None):
            raise ValueError("expected either logits or V and b, the linear gate that they replace, got both")
        dtype = compute_dtype(X)
        V = _checked("V", V, (k, c), X, dtype)
        b = _checked("b", b, (k,), X, dtype)
        logits = _checked("logits", logits, (n, k), X, dtype)
        sample_weight = _checked("sample_weight", sample_weight, (n,), X, dtype)
        return cls(X, _cast(W, dtype), V if c else None, b, logits, c, sample_weight, signs, balance)


class Sums(NamedTuple):
    """Sums over rows, not divided by Ω.

    Attributes
    ----------
    loss : scalar
        −Σ_i ω_i ℓ_i + balance Σ_i ω_i Σ_k π_k log π_k; a 0-dimensional tensor where X is a torch tensor.
    heads : array of shape (n_components, n_features)
        Its gradient with respect to W.
    gate_weights : array of shape (n_components, n_context_features) or None
        Its gradient with respect to V, where there is one.
    offsets : array of shape (n_components,)
        Its gradient with respect to b, whether there is one or not: the sum of the logits' gradients.
    d_margins, d_logits : arrays of shape (n_rows, n_components) or None
        Its gradient with respect to w_kᵀ d_i and to the logits, where these were asked for.
    """

    loss: Any
    heads: Array
    gate_weights: Array | None
    offsets: Array
    d_margins: Array | None = None
    d_logits: Array | None = None


class Posterior(NamedTuple):
    """Log-likelihood and responsibilities of every row under a mixture.

    Attributes
    ----------
    log_likelihood : array of shape (n_rows,)
        ℓ_i = log Σ_k π_k σ(m_ik), in nats.
    responsibilities : array of shape (n_rows, n_components)
        r_ik = π_k σ(m_ik) / exp ℓ_i.
    """

    log_likelihood: Array
    responsibilities: Array


def _check_matrix(X: Array) -> None:
    if not (isinstance(X, np.ndarray) or is_torch(X)):
        raise ValueError(f"X: expected a NumPy array or a torch tensor, got a {type(X).__name__}")
    if X.ndim != 2:
        raise ValueError(f"X: expected two dimensions, (n_rows, n_columns), got shape {tuple(X.shape)}")
    _check_floating("X", X)


def _check_floating(name: str, array: Array) -> None:
    floating = array.dtype.is_floating_point if is_torch(array) else array.dtype in (np.float16, np.float32, np.float64)
    if not floating:
        raise ValueError(f"{name}: expected float16, bfloat16, float32 or float64, got dtype {array.dtype}")


def _check_kind(name: str, array: Array, X: Array) -> None:
    if is_torch(X):
        if not is_torch(array) or array.device != X.device:
            got = f"one on {array.device}" if is_torch(array) else f"a {type(array).__name__}"
            raise ValueError(f"{name}: expected a torch tensor on {X.device}, as X is, got {got}")
    elif not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected a NumPy array, as X is, got a {type(array).__name__}")
    _check_floating(name, array)


def _checked(name: str, array: Array | None, shape: tuple[int, ...], X: Array, dtype: Any) -> Array | None:
    if array is None:
        return None
    _check_kind(name, array, X)
    if tuple(array.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(array.shape)}")
    return _cast(array, dtype)


def _cast(array: Array, dtype: Any) -> Array:
    return namespace(array).astype(array, dtype, copy=False)
