"""The loss as a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micropref._support.optional import require
from micropref.kernels._torch_op import mixture_nll

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", "MixtureNLL")


class MixtureNLL(torch.nn.Module):
    """Heads and linear gate of a mixture of Bradley-Terry models with their loss, as the last layer of a torch model.

    Parameters
    ----------
    n_components : int
    n_features : int
        Width of the differences.
    n_context_features : int, default=0
        Width of the contexts. 0: static mixture weights.
    device, dtype : optional
        Of the parameters.

    Attributes
    ----------
    W : Parameter of shape (n_components, n_features)
        Heads; random directions at first, margins of about 0.1 for differences of unit norm.
    V : Parameter of shape (n_components, n_context_features), or None without context
    b : Parameter of shape (n_components,)
        Weights and offsets of the gate; zero at first, so that all components weigh the same.

    Examples
    --------
    >>> import torch
    >>> layer = MixtureNLL(n_components=2, n_features=3, n_context_features=1)
    >>> hidden = torch.zeros(5, 4, requires_grad=True)
    >>> loss = layer(hidden)
    >>> loss.backward()
    >>> round(loss.item(), 4), tuple(hidden.grad.shape)
    (0.6931, (5, 4))
    """

    def __init__(
        self, n_components: int, n_features: int, n_context_features: int = 0, *, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        kind = {"device": device, "dtype": dtype}
        self.n_context_features = n_context_features
        self.W = torch.nn.Parameter(torch.randn(n_components, n_features, **kind) * 0.1)
        self.V = (
            torch.nn.Parameter(torch.zeros(n_components, n_context_features, **kind)) if n_context_features else None
        )
        self.b = torch.nn.Parameter(torch.zeros(n_components, **kind))

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of rows whose first response was preferred.

        Parameters
        ----------
        X : Tensor of shape (n_rows, n_context_features + n_features)
            ``[context | difference]``.
        sample_weight : Tensor of shape (n_rows,), optional

        Returns
        -------
        loss : Tensor of shape ()
            In nats.
        """
        return mixture_nll(X, self.W, self.V, self.b, self.n_context_features, sample_weight)
