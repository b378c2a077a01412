"""The CUDA path: Triton kernels for likelihood and gradient.

Every program takes every P-th tile of rows, in order, and adds their gradients to sums of its own; the sums of the P
programs are then added in a fixed order, so that the same call gives the same bits. `_launches` has the rule that
chooses a kernel; docs/kernels.md says what was measured and tried.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton

from micropref.kernels._launches import Shape, launch_for
from micropref.kernels._problem import Posterior, Problem, Sums
from micropref.kernels._triton_pointwise import GRADIENTS, NO_ROWS, POSTERIORS
from micropref.kernels._triton_rows import rows
from micropref.kernels._triton_tiles import tiles

KERNELS = {"rows": rows, "tiles": tiles}
_INTERPRETED_PROGRAMS = 3


def _tensor(problem: Problem) -> torch.Tensor:
    X = problem.X
    if not isinstance(X, torch.Tensor) or X.dtype == torch.float64:
        got = f"a tensor of {X.dtype}" if isinstance(X, torch.Tensor) else f"a {type(X).__name__}"
        raise ValueError(f"X: expected a tensor of float16, bfloat16 or float32 for the triton path, got {got}")
    return X.detach()


def sums(problem: Problem, row_gradients: bool = False) -> Sums:
    """Sums of loss and gradients over all rows; with `row_gradients` also those of margins and logits."""
    n, k = problem.n_rows, problem.n_components
    out = _tensor(problem).new_empty((n, 2 * k) if row_gradients else (0,), dtype=torch.float32)
    loss, heads, gate, offsets = _launch(problem, GRADIENTS if row_gradients else NO_ROWS, out)
    return Sums(
        loss,
        heads,
        None if problem.gate_weights is None else gate,
        offsets,
        *((out[:, :k], out[:, k:]) if row_gradients else ()),
    )


def posteriors(problem: Problem) -> Posterior:
    """Log-likelihood and responsibilities of every row."""
    out = _tensor(problem).new_empty((problem.n_rows, 1 + problem.n_components), dtype=torch.float32)
    _launch(problem, POSTERIORS, out)
    return Posterior(out[:, 0], out[:, 1:])


def _launch(problem: Problem, kind: Any, out: torch.Tensor) -> list[torch.Tensor]:
    X, k, c = _tensor(problem), problem.n_components, problem.n_context_features
    n, d = problem.n_rows, X.shape[1] - c
    gate = problem.gate_weights
    n_gate = 0 if gate is None else c
    launch = launch_for(Shape(n_gate, d, k, X.element_size()))
    n_tiles = triton.cdiv(n, launch.rows)
    n_programs = min(n_tiles, _n_programs(X.device, launch.programs))

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=X.device)

    partial = [zeros(n_programs), zeros(n_programs, k, d), zeros(n_programs, k, n_gate), zeros(n_programs, k)]
    given = [
        zeros(k) if problem.offsets is None else problem.offsets,
        *(out if a is None else a for a in (problem.logits, problem.sample_weight, problem.signs)),
    ]
    given = [a.detach().contiguous() for a in given]
    heads = problem.heads.detach().contiguous()
    gate_weights = heads if gate is None else gate.detach().contiguous()
    with _on(X.device):
        KERNELS[launch.kernel][(n_programs,)](
            X, X.stride(0), X.stride(1), n, c, d, k, n_tiles,
            heads, gate_weights, *given, float(problem.balance), *partial, out, zeros(n_programs * launch.scratch),
            HAS_GATE=gate is not None, HAS_LOGITS=problem.logits is not None,
            HAS_WEIGHT=problem.sample_weight is not None, HAS_SIGNS=problem.signs is not None,
            HAS_BALANCE=problem.balance != 0, OUT=kind.value, **launch.constants,
            # The coming default of Triton would take a multiplication and an addition for each multiply-add.
            num_warps=launch.warps, num_stages=launch.stages, enable_fp_fusion=True,
        )  # fmt: skip
    return [part.sum(0, dtype=torch.float64) for part in partial]


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)


@cache
def _n_programs(device: torch.device, of_each: int) -> int:
    """Programs that run at a time, `of_each` multiprocessor; the interpreter runs them one after the other."""
    if device.type != "cuda":
        return _INTERPRETED_PROGRAMS
    return of_each * torch.cuda.get_device_properties(device).multi_processor_count
