"""Which kernel path computes what, as the dispatcher would choose it here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from micropref._arrays.backend import Array
from micropref._installation.devices import Devices
from micropref._support.optional import require
from micropref.kernels._dispatch import WORTH_COMPILED, path_for

__all__ = ["Choice", "choices"]


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

    @property
    def on_card(self) -> bool:
        """Whether the rows lie on a CUDA card."""
        return self.rows.startswith("CUDA")


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
