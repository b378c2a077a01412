"""Groups: which rows were answered by the same annotator, or are asked for the same user."""

from __future__ import annotations

from contextlib import suppress
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_consistent_length

from micropref._arrays.backend import is_torch, to_numpy

__all__ = ["Groups", "check_groups"]

UNGROUPED = -1
_CHUNK = 1 << 20
_FLOAT_IDS = np.float64(2**63)
# Of those that can be shifted within int64.
_LARGEST_ID = 1 << 62


class Groups(NamedTuple):
    """Which rows were answered by the same group (annotator).

    Attributes
    ----------
    ids : ndarray of shape (n_groups,)
        The distinct group ids.
    index : ndarray of int32 of shape (n_samples,)
        Position of every row's id in `ids`, or -1 for an ungrouped row.
    """

    ids: np.ndarray
    index: np.ndarray  # type: ignore[assignment]

    @property
    def n_groups(self) -> int:
        return len(self.ids)

    def part(self, rows):
        index = self.index[rows]
        present = np.unique(index[index >= 0])
        if not len(present):
            return None
        position = np.full(self.n_groups, -1, dtype=np.int32)
        position[present] = np.arange(len(present), dtype=np.int32)
        return Groups(self.ids[present], np.where(index >= 0, position[index], np.int32(-1)))


def check_groups(groups: ArrayLike | None, n_samples: int) -> Groups | None:
    """Groups of the rows, or None where every row is ungrouped.

    None, NaN, -1 and missing values mean ungrouped. Ids may be integers, strings, or any hashable objects.
    """
    if groups is None:
        return None
    values = to_numpy(groups) if is_torch(groups) else np.asarray(groups)
    if values.dtype.kind == "U" and values.ndim == 1 and not isinstance(groups, np.ndarray):
        raw = np.array(groups, dtype=object)
        if not all(isinstance(value, str) for value in raw):
            values = raw  # NumPy had made "7" of 7 beside "ann", and "nan" of NaN
    if values.ndim != 1:
        raise ValueError(f"groups must have shape (n_samples,); got {values.ndim} dimension(s)")
    if values.shape[0] != n_samples:
        check_consistent_length(np.empty(n_samples), values)
    if values.dtype.kind in "iub":
        grouped = values != UNGROUPED
    elif values.dtype.kind == "f":
        grouped = ~np.isnan(values) & (values != UNGROUPED)
    else:
        # An id that is not equal to itself is a NaN, whatever its type; pandas.NA has no truth value.
        grouped = np.array([not _is_missing(value) for value in values.tolist()], dtype=bool)
    if not grouped.any():
        return None
    if n_samples == 1 and values.dtype.kind in "iuU":  # one vote at a time, as in a running service
        return Groups(values.copy(), np.zeros(1, dtype=np.int32))
    index = np.full(n_samples, -1, dtype=np.int32)
    if values.dtype.kind in "iu":
        low, high = int(values[grouped].min()), int(values[grouped].max())
        if high - low <= 4 * n_samples and low >= -_LARGEST_ID and high <= _LARGEST_ID:
            return _index_by_table(values, grouped, low, high - low + 1, index)
    if values.dtype.kind in "iubfU":
        ids, index[grouped] = np.unique(values[grouped], return_inverse=True)
        if values.dtype.kind == "f" and (np.abs(ids) < _FLOAT_IDS).all() and (ids == np.round(ids)).all():
            ids = ids.astype(np.int64)  # ids that passed through a column with gaps: 7.0 is the group 7
        return Groups(ids, index)
    present = values[grouped].tolist()
    known = list(dict.fromkeys(present))
    with suppress(TypeError):  # ids of several types may have no order
        known = sorted(known)
    position = {value: i for i, value in enumerate(known)}
    index[grouped] = [position[value] for value in present]
    ids = np.empty(len(known), dtype=object)
    ids[:] = known
    return Groups(ids, index)


def _index_by_table(values: np.ndarray, grouped: np.ndarray, low: int, span: int, index: np.ndarray) -> Groups:
    """Integer ids without gaps worth sorting for; np.unique would need five arrays of the length of the data."""
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(values), _CHUNK)]
    seen = np.zeros(span, dtype=bool)
    for rows in chunks:
        seen[values[rows][grouped[rows]].astype(np.int64) - low] = True
    position = np.cumsum(seen, dtype=np.int32) - 1
    for rows in chunks:
        index[rows][grouped[rows]] = position[values[rows][grouped[rows]].astype(np.int64) - low]
    return Groups(np.flatnonzero(seen) + low, index)


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, Real) and not isinstance(value, bool) and value == UNGROUPED):
        return True
    try:
        return bool(value != value)
    except TypeError:
        return True
