"""Which kernel path computes what, as the dispatcher would choose it here, and what the environment says to it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from micropref._arrays.backend import Array
from micropref._installation.devices import Devices
from micropref._support.optional import require
from micropref.kernels._dispatch import WORTH_COMPILED, path_for

__all__ = ["Choice", "choices", "environment"]

# Variables that decide how many threads compute, on which device, or by which compiler.
_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE"),
    *("TRITON_INTERPRET", "TRITON_CACHE_DIR", "NUMBA_DISABLE_JIT", "NUMBA_CACHE_DIR"),
    *("HF_HOME", "HF_HUB_OFFLINE", "MICROPREF_DATA"),
)


@dataclass(frozen=True)
class Choice:
    """A path for a kind of rows.

    Attributes
    ----------
    rows : str
    path : str
    """

    rows: str
    path: str


def choices(devices: Devices) -> list[Choice]:
    """One line for every kind of rows that can exist here."""
    number = np.zeros((), dtype=np.float32)
    small, large = (np.broadcast_to(number, (n, 1)) for n in (1, WORTH_COMPILED))
    millions = f"{WORTH_COMPILED / 1e6:.1f} million numbers"
    found: list[tuple[str, Array]] = [
        (f"NumPy arrays and CPU tensors, below {millions}", small),
        (f"NumPy arrays and CPU tensors, from {millions}", large),
    ]
    if devices.torch_cards:
        torch = require("torch", "Choosing a path")
        found += [
            ("CUDA tensors in half and single precision", torch.empty((1, 1), device="cuda")),
            ("CUDA tensors in double precision", torch.empty((1, 1), device="cuda", dtype=torch.float64)),
        ]
    return [Choice(rows, path_for(X)) for rows, X in found]


def environment() -> dict[str, str]:
    """Variables that are set and change what is computed where."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}
