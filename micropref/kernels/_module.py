"""The loss as a layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from micropref._support.optional import require
from micropref.kernels._grouped_nll import grouped_nll
from micropref.kernels._torch_op import mixture_nll

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", "MixtureNLL")

# What makes estimators of heads stands above this layer, which is all that imports torch; so it is named.
_ESTIMATORS = "micropref.heads._trained"


class MixtureNLL(torch.nn.Module):
    """Heads and linear gate of a mixture of Bradley-Terry models with their loss, as the last layer of a torch model.

    Parameters
    ----------
    n_components : int
    n_features : int
        Width of the differences.
    n_context_features : int, default=0
        Width of the contexts. 0: static mixture weights.
    balance : float, default=0.0
        Weight of the negative entropy of the mixture weights, the paper's α (Shen et al., EMNLP 2025, Eq. 3-4; 0.5
        there), which keeps all heads in use.
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
        self,
        n_components: int,
        n_features: int,
        n_context_features: int = 0,
        *,
        balance: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if not 0.0 <= balance < float("inf"):
            raise ValueError(f"balance: expected a finite number from 0, got {balance!r}")
        kind = {"device": device, "dtype": dtype}
        self.n_context_features = n_context_features
        self.balance = balance
        self.W = torch.nn.Parameter(torch.randn(n_components, n_features, **kind) * 0.1)
        self.V = (
            torch.nn.Parameter(torch.zeros(n_components, n_context_features, **kind)) if n_context_features else None
        )
        self.b = torch.nn.Parameter(torch.zeros(n_components, **kind))

    def forward(self, X: Tensor, sample_weight: Tensor | None = None, groups: Any = None) -> Tensor:
        """Mean negative log-likelihood of rows whose first response was preferred, and the term of `balance`.

        With groups, the rows of an annotator share one component (`micropref.MixtureBradleyTerry`), which tells heads
        apart that the pairs alone do not. A batch should hold whole annotators: what it has of one is taken for all
        that this annotator said.

        Parameters
        ----------
        X : Tensor of shape (n_rows, n_context_features + n_features)
            ``[context | difference]``.
        sample_weight : Tensor of shape (n_rows,), optional
        groups : Tensor or array-like of int of shape (n_rows,), optional
            Number of the annotator of every row; -1 for an ungrouped row.

        Returns
        -------
        loss : Tensor of shape ()
            In nats per row.

        Raises
        ------
        ValueError
            If shapes do not agree, or groups are no integers.
        """
        if groups is None and not self.balance:
            return mixture_nll(X, self.W, self.V, self.b, self.n_context_features, sample_weight)
        return grouped_nll(X, (self.W, self.V, self.b), self.n_context_features, sample_weight, groups, self.balance)

    def to_estimator(self, X: Any = None) -> Any:
        """The heads and the gate as a fitted estimator, which can be saved, routed, and audited.

        Parameters
        ----------
        X : Tensor or array of shape (n_rows, n_context_features + n_features), optional
            Rows of which `weights_` are the mean mixture weights, and `objective_` is the mean negative log-likelihood.
            Without them, the weights are those of a context of zeros, and the objective is 0.

        Returns
        -------
        mixture : MixtureBradleyTerry
            With copies of the parameters, in single precision at least.

        Raises
        ------
        ValueError
            If a parameter is not finite, as after a training run that diverged.
        """
        for name, parameter in self.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; the training run diverged")
        trained = import_module(_ESTIMATORS)
        parameters = [None if one is None else _array(one) for one in (self.W, self.V, self.b)]
        rows = None if X is None else _array(torch.as_tensor(X))
        return trained.mixture_of(*parameters, balance=self.balance, X=rows)


def _array(tensor: Tensor) -> Any:
    """A copy of a tensor as an array, in single precision at least."""
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.detach().to("cpu", dtype, copy=True).numpy()
