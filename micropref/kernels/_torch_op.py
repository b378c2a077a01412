"""The loss as an operator of torch: its gradient is computed with it, and multiplied by whatever comes from above."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micropref._support.optional import require
from micropref.kernels import _dispatch
from micropref.kernels._functions import mean
from micropref.kernels._problem import Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", "the operator micropref::mixture_nll")
    Tensor = torch.Tensor


@torch.library.custom_op("micropref::mixture_nll", mutates_args=())
def _mixture_nll(
    X: Tensor,
    W: Tensor,
    V: Tensor | None,
    b: Tensor | None,
    logits: Tensor | None,
    sample_weight: Tensor | None,
    n_context_features: int,
    row_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, its gradients with respect to W, V and b, and, where asked for, to the margins and logits of every row."""
    problem = Problem.check(X, W, V, b, n_context_features, logits=logits, sample_weight=sample_weight)
    result = mean(problem, _dispatch.sums(problem, row_gradients))
    heads, offsets, loss = result.heads, result.offsets, result.loss
    gate = heads.new_zeros(W.shape[0], n_context_features) if result.gate_weights is None else result.gate_weights
    # Operators may return no views of one another.
    d_margins, d_logits = (
        heads.new_zeros(0, W.shape[0]) if not row_gradients or part is None else part.contiguous()
        for part in (result.d_margins, result.d_logits)
    )
    return loss, heads, gate, offsets, d_margins, d_logits


@_mixture_nll.register_fake
def _(
    X: Tensor,
    W: Tensor,
    V: Tensor | None,
    b: Tensor | None,
    logits: Tensor | None,
    sample_weight: Tensor | None,
    n_context_features: int,
    row_gradients: bool,
) -> tuple[Tensor, ...]:
    dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
    n, k = X.shape[0] if row_gradients else 0, W.shape[0]
    shapes = ((), W.shape, (k, n_context_features), (k,), (n, k), (n, k))
    return tuple(X.new_empty(shape, dtype=dtype) for shape in shapes)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    X, W, V, b, logits, _, ctx.n_context_features, _ = inputs
    _, *gradients = output
    ctx.mark_non_differentiable(*gradients)
    ctx.dtypes = [None if t is None else t.dtype for t in (X, W, V, b, logits)]
    ctx.save_for_backward(W, V, *gradients)


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    W, V, d_heads, d_gate, d_offsets, d_margins, d_logits = ctx.saved_tensors
    d_X = None
    if ctx.needs_input_grad[0]:
        d_difference = d_margins @ W.to(d_margins.dtype)
        if V is None:
            d_context = d_difference.new_zeros((d_difference.shape[0], ctx.n_context_features))
        else:
            d_context = d_logits @ V.to(d_logits.dtype)
        d_X = torch.cat([d_context, d_difference], dim=1)
    gradients = (d_X, d_heads, d_gate, d_offsets, d_logits)
    found = [
        (upstream * gradient).to(dtype) if needed else None
        for gradient, dtype, needed in zip(gradients, ctx.dtypes, ctx.needs_input_grad[:5], strict=True)
    ]
    return *found, None, None, None


_mixture_nll.register_autograd(_backward, setup_context=_remember)


def mixture_nll(
    X: Tensor,
    W: Tensor,
    V: Tensor | None = None,
    b: Tensor | None = None,
    n_context_features: int = 0,
    sample_weight: Tensor | None = None,
    *,
    logits: Tensor | None = None,
) -> Tensor:
    """The loss of `mixture_nll_and_grad` as a differentiable function of X, W, V, b and logits.

    Works under ``torch.compile(fullgraph=True)``. Only first derivatives exist; weights have none.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_context_features + n_features)
    W : Tensor of shape (n_components, n_features)
    V : Tensor of shape (n_components, n_context_features), optional
    b : Tensor of shape (n_components,), optional
    n_context_features : int, default=0
    sample_weight : Tensor of shape (n_samples,), optional
        All as in `mixture_nll_and_grad`.
    logits : Tensor of shape (n_samples, n_components), optional
        Logits of the gate, instead of V and b.

    Returns
    -------
    loss : Tensor of shape ()
        In nats; float64 for float64 X, float32 for all else.

    Examples
    --------
    >>> import torch
    >>> W = torch.zeros(1, 2, requires_grad=True)
    >>> mixture_nll(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), W).backward()
    >>> W.grad.tolist()
    [[-0.5, -0.25]]
    """
    row_gradients = X.requires_grad or (logits is not None and logits.requires_grad)
    loss: Tensor = _mixture_nll(X, W, V, b, logits, sample_weight, n_context_features, row_gradients)[0]
    return loss
