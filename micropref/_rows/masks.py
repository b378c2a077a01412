"""Masked arrays: most functions of NumPy and scikit-learn read what is behind the mask."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["refuse_masked"]


def refuse_masked(values: Any, name: str) -> None:
    """A ValueError that names the first entry behind a mask; arrays without one pass.

    Parameters
    ----------
    values : object
    name : str
        Of the argument.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return
    hidden = np.argwhere(np.ma.getmaskarray(values))
    if len(hidden):
        place = ", ".join(f"{what} {i}" for what, i in zip(("row", "column"), hidden[0].tolist(), strict=False))
        raise ValueError(f"{name}: expected an array without masked entries, got one in {place}; leave such rows out")
