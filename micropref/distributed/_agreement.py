"""What the ranks of a distributed fit must agree on before its first evaluation, all of it from one exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from micropref._rows.comparisons import ALL_ZERO, Comparisons
from micropref._rows.labels import check_labels
from micropref._rows.layout import root_mean_square
from micropref.distributed._communicator import Communicator
from micropref.distributed._groups import hash_ids, refuse_split_groups

__all__ = ["Agreement", "agree"]


@dataclass(frozen=True)
class Share:
    """What the rows of one rank add to all rows.

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
    labels: NDArray[Any] | None
    norms: NDArray[np.float64]
    weight: float
    precision: float
    hashes: NDArray[np.uint64]
    random_state: Any = None


@dataclass(frozen=True)
class Agreement:
    """What all ranks know of all rows.

    Attributes
    ----------
    n_samples : int
    norms : ndarray of shape (2,)
        Root mean square norms of contexts and differences.
    weight : float
        Ω.
    precision : float
        Relative precision of the objective.
    random : RandomState
        The generator of random starts, in the same state on all ranks.
    """

    n_samples: int
    norms: NDArray[np.float64]
    weight: float
    precision: float
    random: np.random.RandomState


def agree(
    rows: Comparisons, settings: dict[str, Any], random_state: Any, communicator: Communicator
) -> tuple[Comparisons, Agreement]:
    """This rank's rows with the classes of all rows, and the totals over all ranks.

    Parameters
    ----------
    rows : Comparisons
        Read with ``is_share=True`` where there are several ranks.
    settings : dict
        What has to be the same on all ranks, by name.
    random_state : int, RandomState or None
        Rank 0's counts.
    communicator : Communicator

    Raises
    ------
    ValueError
        The same on all ranks: where shares do not fit together, a group is on two ranks, no row has weight, or all
        differences are zero.
    """
    is_share = communicator.world_size > 1
    ids = np.empty(0) if rows.groups is None else rows.groups.ids

    def own_share() -> tuple[Share, np.random.RandomState]:
        random = check_random_state(random_state if communicator.rank == 0 else 0)
        share = Share(
            n_samples=rows.n_samples,
            n_columns=int(rows.reader.X.shape[1]),
            settings=settings,
            labels=rows.labels,
            norms=rows.norms,
            weight=rows.total_weight,
            precision=rows.precision,
            hashes=hash_ids(ids) if is_share else np.empty(0, dtype=np.uint64),
            random_state=random.get_state() if is_share and communicator.rank == 0 else None,
        )
        return share, random

    share, random = communicator.together(own_share)
    shares = communicator.exchange(share)
    _check_shares(shares)
    norms, weight = total_norms(shares), float(sum(one.weight for one in shares))
    if norms[1] == 0:
        raise ValueError(ALL_ZERO)
    if is_share:
        refuse_split_groups(ids, share.hashes, [one.hashes for one in shares], communicator)
        classes = common_classes([one.labels for one in shares if one.labels is not None])
        rows = communicator.together(lambda: rows.with_classes(classes))
        if communicator.rank:
            random.set_state(shares[0].random_state)
    precision = max(one.precision for one in shares)
    return rows, Agreement(sum(one.n_samples for one in shares), norms, weight, precision, random)


def total_norms(shares: list[Share]) -> NDArray[np.float64]:
    """Root mean square norms over the rows of all shares."""
    weights = np.array([share.weight for share in shares])
    return np.array([root_mean_square(np.array([share.norms[which] for share in shares]), weights) for which in (0, 1)])


def common_classes(labels: list[NDArray[Any]]) -> NDArray[Any]:
    """The two labels of all ranks; a ValueError, the same on all of them, where they are not two."""
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


def _check_shares(shares: list[Share]) -> None:
    _check_equal("number of columns", [share.n_columns for share in shares])
    for name in shares[0].settings:
        _check_equal(name, [share.settings[name] for share in shares])
    if not any(share.weight for share in shares):
        raise ValueError("expected a positive weight on at least one rank, got zero in every row of every rank")


def _check_equal(what: str, values: list[Any]) -> None:
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ValueError(
                f"expected the same {what} on all ranks, got {values[0]!r} on rank 0 and {value!r} on rank {rank}"
            )
