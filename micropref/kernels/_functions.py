"""The mixture likelihood as functions of arrays, each one read of X."""

from __future__ import annotations

from typing import Any

import numpy as np

from micropref._arrays.backend import Array, is_torch, namespace, zeros
from micropref.kernels import _dispatch
from micropref.kernels._problem import Posterior, Problem, Sums


def mixture_nll_and_grad(
    X: Array,
    W: Array,
    V: Array | None = None,
    b: Array | None = None,
    n_context_features: int = 0,
    sample_weight: Array | None = None,
) -> tuple[Any, Array, Array | None, Array | None]:
    r"""Negative log-likelihood of a mixture of Bradley-Terry heads with a linear gate, and its gradient.

    .. math::

        J = -\frac{1}{\Omega} \sum_i \omega_i \log \sum_k \pi_k(c_i)\, \sigma(w_k^\top d_i), \qquad
        \pi(c) = \operatorname{softmax}(V c + b), \qquad \Omega = \sum_i \omega_i

    (Eq. 1-2 of Shen et al., 2025) with the preferred response first in every row, without penalties.

    Parameters
    ----------
    X : array of shape (n_samples, n_context_features + n_features)
        Rows ``[c_i | d_i]``: a NumPy array or torch tensor in float16, bfloat16, float32 or float64, with any strides.
        Sums are computed in single precision where X is stored in half precision.
    W : array of shape (n_components, n_features)
        Heads w_k; like all parameters of the kind and on the device of X.
    V : array of shape (n_components, n_context_features), optional
        Weights of the gate. None: the gate does not look at the context.
    b : array of shape (n_components,), optional
        Offsets of the gate; alone, without V, the logits of static mixture weights. None: zero.
    n_context_features : int, default=0
        Number of leading context columns of X.
    sample_weight : array of shape (n_samples,), optional
        Weights ω_i, not negative.

    Returns
    -------
    loss : scalar, or 0-dimensional tensor
        J, in nats. 0 where there is no row, or no weight.
    dW, dV, db : arrays of the shapes of W, V, b
        Gradient of J, in the dtype of computation; None for a V or b that is None.

    Raises
    ------
    ValueError
        For arrays whose shape, dtype, kind or device does not fit; the message names them.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> loss, dW, _, _ = mixture_nll_and_grad(X, np.zeros((1, 2)))
    >>> round(float(loss), 4), dW.tolist()
    (0.6931, [[-0.5, -0.25]])
    """
    problem = Problem.check(X, W, V, b, n_context_features, sample_weight=sample_weight)
    loss, d_heads, d_gate, d_offsets, *_ = mean(problem, _dispatch.sums(problem))
    if V is not None and d_gate is None:
        d_gate = zeros(tuple(V.shape), problem.heads)
    return loss, d_heads, d_gate, None if b is None else d_offsets


def mixture_nll_and_grad_from_logits(
    X: Array, W: Array, logits: Array, n_context_features: int = 0, sample_weight: Array | None = None
) -> tuple[Any, Array, Array]:
    """The same likelihood, and its gradient, for given logits of the gate.

    Parameters
    ----------
    X, W, n_context_features, sample_weight
        As in `mixture_nll_and_grad`; the context columns of X are not read.
    logits : array of shape (n_samples, n_components)
        g_ik: π_ik = exp g_ik / Σ_j exp g_ij.

    Returns
    -------
    loss : scalar, or 0-dimensional tensor
        In nats.
    dW : array of shape (n_components, n_features)
    dlogits : array of shape (n_samples, n_components)
        ∂J/∂g_ik = (ω_i / Ω) (π_ik − r_ik).
    """
    problem = Problem.check(X, W, n_context_features=n_context_features, logits=logits, sample_weight=sample_weight)
    result = mean(problem, _dispatch.sums(problem, row_gradients=True))
    return result.loss, result.heads, result.d_logits


def mixture_posterior(
    X: Array,
    W: Array,
    V: Array | None = None,
    b: Array | None = None,
    n_context_features: int = 0,
    *,
    logits: Array | None = None,
) -> Posterior:
    """Log-likelihood and responsibilities of every row, without a gradient.

    Parameters
    ----------
    X, W, V, b, n_context_features
        As in `mixture_nll_and_grad`.
    logits : array of shape (n_samples, n_components), optional
        Logits of the gate, instead of V and b.

    Returns
    -------
    log_likelihood : array of shape (n_samples,)
        ℓ_i = log Σ_k π_ik σ(w_kᵀ d_i), in nats.
    responsibilities : array of shape (n_samples, n_components)
        r_ik = π_ik σ(w_kᵀ d_i) / exp ℓ_i.
    """
    return _dispatch.posteriors(Problem.check(X, W, V, b, n_context_features, logits=logits))


def mixture_sums(
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
    row_gradients: bool = False,
) -> Sums:
    r"""Sums that estimators add over blocks of rows: loss and gradients, not divided by Ω, with the balance term.

    .. math::

        -\sum_i \omega_i \log \sum_k \pi_{ik}\, \sigma(s_i w_k^\top d_i)
            + \mathtt{balance} \sum_i \omega_i \sum_k \pi_{ik} \log \pi_{ik}

    Parameters
    ----------
    X, W, V, b, n_context_features, logits, sample_weight
        As in the functions above.
    signs : array of int8 of shape (n_samples,), optional
        s_i: −1 where the second response is preferred. X itself is neither copied nor changed.
    balance : float, default=0.0
        Weight of the negative entropy of the mixture weights.
    row_gradients : bool, default=False
        Whether the gradients with respect to w_kᵀ d_i and to the logits are returned too.

    Returns
    -------
    Sums
    """
    problem = Problem.check(
        X, W, V, b, n_context_features, logits=logits, sample_weight=sample_weight, signs=signs, balance=balance
    )
    return _dispatch.sums(problem, row_gradients)


def mean(problem: Problem, sums: Sums) -> Sums:
    """Sums over rows divided by Ω, in the dtype of computation; zero where Ω is."""
    xp = namespace(problem.X)
    place = {"device": problem.X.device} if is_torch(problem.X) else {}
    if problem.sample_weight is None:
        total: Any = max(problem.n_rows, 1)
    else:
        total = xp.sum(problem.sample_weight, dtype=xp.float64)
        total = xp.where(total == 0, xp.asarray(np.inf, dtype=xp.float64, **place), total)

    def divided(value: Any) -> Any:
        return None if value is None else xp.asarray(value / total, dtype=problem.dtype, **place)

    loss, *gradients = sums
    return Sums(divided(loss) if is_torch(problem.X) else float(loss / total), *map(divided, gradients))
