"""What the ranks of a distributed fit must agree on before its first evaluation, all of it from one exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from micropref._rows.labels import check_labels
from micropref._rows.layout import root_mean_square


@dataclass(frozen=True)
class Share:
    """What the rows of one rank add to it.

    Attributes
    ----------
    n_samples, n_columns : int
    settings : dict
        Parameters of the estimator that have to be the same everywhere.
    labels : ndarray or None
        Distinct labels; None where no labels were given.
    norms : ndarray of shape (2,)
        Root mean square norms of contexts and differences.
    weight : float
        Ω of these rows.
    precision : float
        Relative precision of the objective.
    hashes : ndarray of uint64
        Of the ids of the groups.
    random_state : tuple or None
        State of the generator of random starts; that of rank 0 counts.
    """

    n_samples: int
    n_columns: int
    settings: dict[str, Any]
    labels: np.ndarray | None
    norms: np.ndarray
    weight: float
    precision: float
    hashes: np.ndarray
    random_state: Any = None


@dataclass(frozen=True)
class Whole:
    """What all ranks know of all rows.

    Attributes
    ----------
    n_samples : int
    classes : ndarray of shape (2,), or None
        None where the rank that is alone finds them in its labels.
    norms : ndarray of shape (2,)
    weight : float
    precision : float
    """

    n_samples: int
    classes: np.ndarray | None
    norms: np.ndarray
    weight: float
    precision: float

    @classmethod
    def of(cls, shares: list[Share]) -> Whole:
        """The whole of some shares; a ValueError, the same on all ranks, where they do not fit together."""
        _check_equal("column(s)", [share.n_columns for share in shares])
        for name in shares[0].settings:
            _check_equal(f"for {name}", [share.settings[name] for share in shares])
        norms = [np.array([share.norms[which] for share in shares]) for which in (0, 1)]
        weights = np.array([share.weight for share in shares])
        if not weights.any():
            raise ValueError("sample_weight is zero in every row of every rank; at least one weight must be positive")
        return cls(
            sum(share.n_samples for share in shares),
            _classes([share.labels for share in shares if share.labels is not None]) if len(shares) > 1 else None,
            np.array([root_mean_square(norm, weights) for norm in norms]),
            float(weights.sum()),
            max(share.precision for share in shares),
        )


def _classes(labels: list[np.ndarray]) -> np.ndarray:
    seen = [part for part in labels if len(part)]
    if not seen:
        return check_labels(None, 0)[1]
    if {part.dtype.kind for part in seen} > {"U"} or any(part.dtype == object for part in seen):
        # NumPy would make "1" of 1 beside a text.
        mixed = np.empty(sum(map(len, seen)), dtype=object)
        mixed[:] = [label for part in seen for label in part.tolist()]
        seen = [mixed]
    every = np.concatenate(seen)
    return check_labels(every, len(every))[1]


def _check_equal(what: str, values: list[Any]) -> None:
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ValueError(f"found {values[0]!r} {what} on rank 0 and {value!r} on rank {rank}, wanted the same")
