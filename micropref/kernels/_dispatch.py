"""Which path computes: chosen by where X lies, how large it is, and what is installed.

=========== ===================================== ================================================================
path        takes                                 chosen for
=========== ===================================== ================================================================
triton      tensors on CUDA, not float64          those, where triton 3.3 or newer is
numba       NumPy arrays, tensors on the CPU      large X, where numba is installed
blas        NumPy arrays, tensors on the CPU      small X, or without numba
reference   anything                              everything else
=========== ===================================== ================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from micropref._arrays.backend import Array, is_torch, namespace, zeros
from micropref._support.optional import require
from micropref.kernels._problem import Posterior, Problem, Sums

PATHS = ("triton", "numba", "blas", "reference")
# Importing numba and its compiled functions costs about a second, once: more than a fit of few rows takes with BLAS.
WORTH_COMPILED = 1 << 21

_forced: ContextVar[str | None] = ContextVar("micropref_kernel_path", default=None)


@contextmanager
def use_path(path: str) -> Iterator[None]:
    """Force one computation path inside a ``with`` block, for comparisons and measurements.

    Parameters
    ----------
    path : {"triton", "numba", "blas", "reference"}
        "triton" runs on CPU tensors too where triton was imported with ``TRITON_INTERPRET=1``.

    Yields
    ------
    None

    Raises
    ------
    ValueError
        If there is no such path.
    """
    if path not in PATHS:
        raise ValueError(f"path: expected one of {', '.join(map(repr, PATHS))}, got {path!r}")
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    if problem.n_rows == 0:
        return _no_rows(problem)
    path = path_for(problem.X)
    result = implementation(path).sums(_on_host(problem) if path in ("numba", "blas") else problem, row_gradients)
    loss, *gradients = result
    return Sums(loss, *(_back(value, problem) for value in gradients))


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    if problem.n_rows == 0:
        return Posterior(zeros((0,), problem.heads), zeros((0, problem.n_components), problem.heads))
    path = path_for(problem.X)
    result = implementation(path).posteriors(_on_host(problem) if path in ("numba", "blas") else problem)
    return Posterior(*(_back(value, problem) for value in result))


def path_for(X: Array) -> str:
    forced = _forced.get()
    if forced is not None:
        return forced
    device = X.device.type if is_torch(X) else "cpu"
    if device == "cpu":
        large = X.shape[0] * X.shape[1] >= WORTH_COMPILED
        return "numba" if large and _installed("numba") else "blas"
    single = X.dtype != namespace(X).float64
    return "triton" if device == "cuda" and single and _installed("triton") and _knows_tuples() else "reference"


def wants_compiled(n_operations: int) -> bool:
    """Whether a loop of so many operations, which NumPy takes in many small steps, should be a compiled one."""
    forced = _forced.get()
    return forced == "numba" if forced is not None else n_operations >= WORTH_COMPILED and _installed("numba")


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


@cache
def _knows_tuples() -> bool:
    """Whether the kernels can be compiled: they use tuples, which Triton's language has from 3.3 on (torch 2.7)."""
    try:
        numbers = re.findall(r"\d+", version("triton"))
    except PackageNotFoundError:
        return True
    return [int(number) for number in numbers[:2]] >= [3, 3]


def implementation(path: str, part: str = "") -> Any:
    if path in ("triton", "numba"):
        require(path, f'the kernel path "{path}"')
    return import_module(f"micropref.kernels._{path}{part}")


def host_rows(X: Array) -> tuple[np.ndarray, bool]:
    """X as a NumPy array over the same memory, and whether it holds the bits of bfloat16, which NumPy does not know."""
    if not is_torch(X):
        return X, False
    torch = require("torch", "fitting torch tensors")
    if X.device.type != "cpu":
        raise ValueError(f"X: expected a tensor on the CPU for the numba or blas path, got one on {X.device}")
    X = X.detach()
    if X.dtype == torch.bfloat16:
        return X.view(torch.int16).numpy().view(np.uint16), True
    return X.numpy(), False


def _on_host(problem: Problem) -> Problem:
    """The same memory as NumPy arrays."""
    if not is_torch(problem.X):
        return problem
    rows, bfloat16_bits = host_rows(problem.X)
    arrays = {f.name: getattr(problem, f.name) for f in fields(problem)}
    host = {name: value.detach().numpy() for name, value in arrays.items() if is_torch(value) and name != "X"}
    return replace(problem, X=rows, bfloat16_bits=bfloat16_bits, **host)


def _back(value: Any, problem: Problem) -> Any:
    """A result as an array of the kind of X."""
    if value is None or not is_torch(problem.X) or is_torch(value):
        return value
    return namespace(problem.X).asarray(value)


def _no_rows(problem: Problem) -> Sums:
    gate = problem.gate_weights
    rows = zeros((0, problem.n_components), problem.heads)
    return Sums(
        zeros((), problem.heads),
        zeros(tuple(problem.heads.shape), problem.heads),
        None if gate is None else zeros(tuple(gate.shape), problem.heads),
        zeros((problem.n_components,), problem.heads),
        rows,
        rows,
    )
