"""One scale for each part of X, agreed on by all ranks, so that default penalties fit embeddings of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from micropref._rows.layout import measure, root_mean_square
from micropref._rows.ranges import NORMS, check_range
from micropref.distributed import Communicator

_DEFAULT_NORMS = {"response": 3.0, "prompt": 0.3, "context": 1.5, "length": 1.0, "clauses": 3.0}


class Measured(NamedTuple):
    """What the texts of one rank say.

    Attributes
    ----------
    kind : str
        What must be the same on all ranks.
    norms : dict of str to (float, int)
        Root mean square norm and number of rows of each part.
    n_truncated : int
        Texts that were longer than the encoder reads.
    """

    kind: str
    norms: dict[str, tuple[float, int]]
    n_truncated: int


def checked_norms(norms: Mapping[str, float] | None) -> dict[str, float]:
    """The norms that parts shall have, with defaults for those that are not given; a ValueError for unusable ones."""
    checked = {**_DEFAULT_NORMS, **(norms or {})}
    if len(checked) > len(_DEFAULT_NORMS):
        expected, got = ", ".join(_DEFAULT_NORMS), ", ".join(map(repr, checked))
        raise ValueError(f"expected norms with the keys {expected}, got {got}")
    for part, norm in checked.items():
        if not NORMS[0] <= norm <= NORMS[1]:
            raise ValueError(f"norms[{part!r}]: expected a number between {NORMS[0]:g} and {NORMS[1]:g}, got {norm!r}")
    return checked


def mean_norm(vectors: np.ndarray) -> float:
    """Root mean square Euclidean norm of the rows; a ValueError where they are beyond the range of the computation."""
    sizes = measure(vectors, 0)
    check_range(vectors, 0, sizes)
    return float(sizes.norms[1])


def scale_to(norm: float, found: float) -> float:
    """The factor that gives vectors of a root mean square norm another one; 1 where all are zeros."""
    return norm / found if found > 0 else 1.0


def agree(ranks: Communicator, measured: Measured) -> Sequence[Measured]:
    """What all ranks measured, in their order; a ValueError if they measured different kinds of vectors."""
    everywhere: list[Measured] = ranks.exchange(measured)
    for rank, other in enumerate(everywhere):
        if other.kind != everywhere[0].kind:
            raise ValueError(
                f"expected the same on all ranks, got {everywhere[0].kind} on rank 0 and {other.kind} on rank {rank}"
            )
    return everywhere


def common_scales(everywhere: Sequence[Measured], norms: Mapping[str, float]) -> dict[str, float]:
    """Factor of each part, for the rows of all ranks together."""
    scales = {}
    for part in everywhere[0].norms:
        found, n_rows = np.transpose([one.norms[part] for one in everywhere])
        scales[part] = scale_to(norms[part], root_mean_square(found, n_rows))
    return scales
