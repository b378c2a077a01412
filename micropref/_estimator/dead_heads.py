"""Heads that too few annotators hold to be worth having, and the warning about them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from micropref._engine.dead_heads import dead_heads, least_weight
from micropref._support.warnings import level_of_caller

__all__ = ["candidate_fits", "is_candidate_fit", "is_fit_of_a_caller", "warn_of_dead_heads"]

_kind: ContextVar[str] = ContextVar("kind", default="of a caller")


def warn_of_dead_heads(weights: NDArray[np.float64]) -> None:
    """A UserWarning where a fit has left heads without weight."""
    dead = dead_heads(weights)
    if not dead.any() or not is_fit_of_a_caller():
        return
    n_dead, n_left = int(dead.sum()), int((~dead).sum())
    shown = ", ".join(f"{weight:.2g}" for weight in weights[dead])
    what = "one head has a weight" if n_dead == 1 else f"{n_dead} heads have weights"
    limit = f"{100 * least_weight(len(weights)):.2g} %"
    warnings.warn(
        f"{what} of less than {limit} ({shown}): almost no annotator follows {'it' if n_dead == 1 else 'them'}. "
        f"Use n_components={n_left}, choose the number with micropref.selection.select_n_components, or keep all heads "
        "in use with balance > 0",
        UserWarning,
        stacklevel=level_of_caller(),
    )


def is_fit_of_a_caller() -> bool:
    """Whether the present fit was asked for, and is none of those that only try something out."""
    return _kind.get() == "of a caller"


def is_candidate_fit() -> bool:
    """Whether the present fit only tries out a number of heads: nothing but its likelihood is asked for."""
    return _kind.get() == "candidate"


@contextmanager
def candidate_fits(*, last: bool = False) -> Iterator[None]:
    """Inside of this, fits try out a number of heads and warn of none that is dead.

    Parameters
    ----------
    last : bool, default=False
        The fit may be kept, and needs all that a fit finds.
    """
    token = _kind.set("last candidate" if last else "candidate")
    try:
        yield
    finally:
        _kind.reset(token)
