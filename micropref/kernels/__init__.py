"""The mixture likelihood fused with its gradient, so that X is read once: on CUDA, on the CPU, and inside torch models.

`mixture_nll_and_grad`, `mixture_nll_and_grad_from_logits` and `mixture_posterior` take NumPy arrays and torch tensors.
`mixture_nll` and `MixtureNLL` are the same loss for torch's autograd and ``torch.compile``. Importing this package
imports neither torch nor triton nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from micropref.kernels._dispatch import use_path
from micropref.kernels._functions import (
    mixture_nll_and_grad,
    mixture_nll_and_grad_from_logits,
    mixture_posterior,
    mixture_sums,
)
from micropref.kernels._problem import Posterior, Sums

if TYPE_CHECKING:
    from micropref.kernels._module import MixtureNLL
    from micropref.kernels._torch_op import mixture_nll

__all__ = [
    "MixtureNLL",
    "Posterior",
    "Sums",
    "mixture_nll",
    "mixture_nll_and_grad",
    "mixture_nll_and_grad_from_logits",
    "mixture_posterior",
    "mixture_sums",
    "use_path",
]

_NEEDS_TORCH = {"mixture_nll": "_torch_op", "MixtureNLL": "_module"}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
