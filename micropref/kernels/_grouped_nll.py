"""The loss with groups and the balance term, written for torch's autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micropref._support.optional import require
from micropref.kernels._pointwise import log_sigmoid
from micropref.kernels._problem import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional
else:
    torch = require("torch", "MixtureNLL")
    functional = torch.nn.functional

__all__ = ["grouped_nll"]


def grouped_nll(
    X: Tensor,
    parameters: tuple[Tensor, Tensor | None, Tensor],
    n_context_features: int,
    sample_weight: Tensor | None,
    groups: Any,
    balance: float,
) -> Tensor:
    """Mean negative log-likelihood of units that draw one component each, and the balance term.

    A unit u is a group, or an ungrouped row. With weights ω_i of rows, Ω their sum, Ω_u that of a unit, c̄_u its
    ω-weighted mean context, π = softmax(V c + b) and margins m_ik = w_kᵀ d_i,

        ℓ_u = log Σ_k π_k(c̄_u) Π_{i∈u} σ(m_ik)^{ω_i}            of a group
        ℓ_u = ω_i log Σ_k π_k(c_i) σ(m_ik)                        of an ungrouped row i
        J   = −(1/Ω) Σ_u ℓ_u + balance (1/Ω) Σ_u Ω_u Σ_k π_k(c̄_u) log π_k(c̄_u)

    which is what `MixtureBradleyTerry` minimises without its penalties (Shen et al., EMNLP 2025, Eq. 3-4, for groups
    of one).

    Parameters
    ----------
    X : Tensor of shape (n_rows, n_context_features + n_features)
    parameters : W of shape (K, n_features), V of shape (K, n_context_features) or None, b of shape (K,)
    n_context_features : int
    sample_weight : Tensor of shape (n_rows,), optional
    groups : Tensor or array-like of int of shape (n_rows,), optional
        -1 for an ungrouped row.
    balance : float

    Returns
    -------
    loss : Tensor of shape ()
        In nats per row; float64 for float64 X, float32 for all else.
    """
    W, V, b = parameters
    Problem.check(X, W, V, b, n_context_features, sample_weight=sample_weight)
    dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
    with torch.autocast(X.device.type, enabled=False):  # a trainer in mixed precision would halve that of the loss
        X, W, b = X.to(dtype), W.to(dtype), b.to(dtype)
        weight = X.new_ones(len(X)) if sample_weight is None else sample_weight.to(X.device, dtype)
        units = _units(groups, len(X), X.device)
        return _loss(X, (W, V, b), n_context_features, weight, units, balance)


def _loss(
    X: Tensor,
    parameters: tuple[Tensor, Tensor | None, Tensor],
    n_context_features: int,
    weight: Tensor,
    units: tuple[Tensor, Tensor],
    balance: float,
) -> Tensor:
    """J of rows and parameters of one precision."""
    (W, V, b), (unit, is_group) = parameters, units
    n_units = len(is_group)
    mass = X.new_zeros(n_units).index_add(0, unit, weight)
    evidence = log_sigmoid(functional.linear(X[:, n_context_features:], W))
    # Within a group the weight is an exponent, of an ungrouped row it multiplies the logarithm.
    inner = torch.where(is_group[unit], weight, torch.ones_like(weight))
    joint = evidence.new_zeros(n_units, len(W)).index_add(0, unit, inner[:, None] * evidence)
    log_weights = torch.log_softmax(_logits(X[:, :n_context_features], V, b, unit, weight, mass), dim=1)
    # A group without weight says nothing: its sum of weights π is 1 but for rounding.
    outer = torch.where(is_group, (mass > 0).to(X.dtype), mass)
    total = weight.sum().clamp_min(torch.finfo(X.dtype).tiny)
    loss = -(outer * torch.logsumexp(log_weights + joint, dim=1)).sum() / total
    if balance:
        negative_entropy = (log_weights.exp() * log_weights).sum(dim=1)
        loss = loss + balance * (mass * negative_entropy).sum() / total
    return loss


def _logits(context: Tensor, V: Tensor | None, b: Tensor, unit: Tensor, weight: Tensor, mass: Tensor) -> Tensor:
    """Logits of the gate at the mean context of every unit, shape (n_units, K)."""
    if V is None:
        return b.expand(len(mass), -1)
    share = weight / mass.clamp_min(torch.finfo(mass.dtype).tiny)[unit]
    means = context.new_zeros(len(mass), context.shape[1]).index_add(0, unit, share[:, None] * context)
    return functional.linear(means, V.to(context.dtype), b)


def _units(groups: Any, n_rows: int, device: Any) -> tuple[Tensor, Tensor]:
    """The unit of every row, and whether each unit is a group."""
    if groups is None:
        return torch.arange(n_rows, device=device), torch.zeros(n_rows, dtype=torch.bool, device=device)
    try:
        numbers = torch.as_tensor(groups, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"groups: expected integers, one for each row, got what torch cannot take: {error}") from None
    is_integer = not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)
    if numbers.shape != (n_rows,) or not (is_integer or n_rows == 0):
        raise ValueError(
            f"groups: expected integers of shape ({n_rows},), got {numbers.dtype} of shape {tuple(numbers.shape)}; "
            "number the annotators, as numpy.unique(ids, return_inverse=True) does"
        )
    alone = numbers == -1
    distinct, place = torch.unique(numbers[~alone], return_inverse=True)
    unit = torch.empty(n_rows, dtype=torch.long, device=device)
    unit[~alone] = place
    n_alone = int(alone.sum())
    unit[alone] = len(distinct) + torch.arange(n_alone, device=device)
    is_group = torch.arange(len(distinct) + n_alone, device=device) < len(distinct)
    return unit, is_group
