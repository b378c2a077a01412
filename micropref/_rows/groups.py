"""Which rows belong to which user: the array argument `groups`, read by the rule of `micropref._rows.ids`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length

from micropref._arrays.backend import is_torch
from micropref._rows.ids import float_limit, user_id

__all__ = ["Groups", "check_groups", "ids_array"]

UNGROUPED = -1
_CHUNK = 1 << 20
# Of those that can be shifted within int64.
_LARGEST_IN_TABLE = 1 << 62


class Groups(NamedTuple):
    """Which rows were answered by the same group (user or annotator).

    Attributes
    ----------
    ids : ndarray of shape (n_groups,)
        The distinct ids, as `micropref._rows.ids.user_id` reads them: int64 where all are integers that fit, else
        objects. In ascending order where they have one, else in order of first appearance.
    index : ndarray of int32 of shape (n_samples,)
        Position of every row's id in `ids`, or -1 for an ungrouped row.
    """

    ids: np.ndarray
    index: np.ndarray  # type: ignore[assignment]

    @property
    def n_groups(self) -> int:
        return len(self.ids)

    def part(self, rows: slice | NDArray[Any]) -> Groups | None:
        """The groups of some rows only; None where all of them are ungrouped."""
        index = self.index[rows]
        present = np.unique(index[index >= 0])
        if not len(present):
            return None
        position = np.full(self.n_groups, -1, dtype=np.int32)
        position[present] = np.arange(len(present), dtype=np.int32)
        return Groups(self.ids[present], np.where(index >= 0, position[index], np.int32(-1)))


def check_groups(groups: ArrayLike | None, n_samples: int) -> Groups | None:
    """Groups of the rows, or None where every row is ungrouped.

    Parameters
    ----------
    groups : array-like of shape (n_samples,), or None
        An id for every row: an array, a torch tensor, a column of a table, or a sequence.
    n_samples : int

    Returns
    -------
    Groups or None

    Raises
    ------
    ValueError
        If the shape is another, or a value is no id; names the first such row.
    """
    if groups is None:
        return None
    if n_samples == 1:  # one vote at a time, as in a running service
        if isinstance(groups, list) and len(groups) == 1:
            return _one(groups[0])
        if type(groups) is np.ndarray and groups.shape == (1,) and groups.dtype.kind in "iuUO":
            return _one(groups.item())
    values = _column(groups)
    if len(values) != n_samples:
        check_consistent_length(np.empty(n_samples), np.empty(len(values)))
    if not isinstance(values, np.ndarray):
        return _of_objects(values)
    if values.dtype.kind == "U":
        return _of_texts(values)
    return _of_floats(values) if values.dtype.kind == "f" else _of_integers(values, values != UNGROUPED)


def ids_array(ids: Sequence[Hashable]) -> np.ndarray:
    """Ids as an array: of int64 where all are integers that fit, else of objects.

    Parameters
    ----------
    ids : sequence of n ids
        As `user_id` returns them.

    Returns
    -------
    ndarray of shape (n,)
    """
    if set(map(type, ids)) <= {int}:
        with suppress(OverflowError):
            return np.array(ids, dtype=np.int64)
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


# ------------------------------------------------------------------------------------------------------------ columns


def _column(groups: Any) -> np.ndarray | list[Any]:
    """One value a row: an array of integers or of floats, else the values themselves, which NumPy would make equal."""
    if type(groups) in (list, tuple):
        return list(groups)
    if is_torch(groups):
        return _column_of_tensor(groups)
    if isinstance(groups, np.ndarray):
        return _column_of_array(groups)
    if isinstance(groups, str | bytes | Mapping | Set) or not hasattr(groups, "__len__"):
        raise ValueError(f"groups: expected shape (n_samples,), an id for each row, got a {type(groups).__name__}")
    dtype = getattr(groups, "dtype", getattr(groups, "type", None))
    if isinstance(dtype, np.dtype):
        return _column_of_array(np.asarray(groups))
    if any(kind in str(dtype).lower() for kind in ("float", "double", "half")):
        # How large an id a column of floats may hold depends on their precision.
        own = getattr(dtype, "numpy_dtype", None)
        return np.asarray(groups) if own is None else np.asarray(groups.to_numpy(dtype=own, na_value=np.nan))
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(groups, name):
            return list(getattr(groups, name)())
    return list(groups)


def _column_of_tensor(groups: Any) -> np.ndarray | list[Any]:
    _check_dimensions(groups.ndim)
    values = groups.detach().to_dense().cpu() if groups.is_sparse else groups.detach().cpu()
    if not values.dtype.is_floating_point or values.element_size() > 2:
        return _column_of_array(values.numpy())
    if str(values.dtype) == "torch.float16":
        return values.numpy()  # type: ignore[no-any-return]
    raise ValueError(f"groups: expected ids as integers or strings, got a tensor of {values.dtype}")


def _column_of_array(groups: np.ndarray) -> np.ndarray | list[Any]:
    _check_dimensions(groups.ndim)
    if isinstance(groups, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(groups)
        return [None if is_hidden else value for value, is_hidden in zip(groups.data, hidden, strict=True)]
    kind = groups.dtype.kind
    if kind in "iuU" or (kind == "f" and groups.dtype.itemsize <= 8):
        return groups
    # A time as a list would be an integer; a scalar of NumPy keeps its type.
    return groups.tolist() if kind in "OSTb" else list(groups)


def _check_dimensions(n_dimensions: int) -> None:
    if n_dimensions != 1:
        raise ValueError(f"groups: expected shape (n_samples,), got {n_dimensions} dimension(s)")


# -------------------------------------------------------------------------------------------------------------- kinds


def _one(value: object) -> Groups | None:
    id = _read(value, 0)
    return None if id is None else Groups(ids_array([id]), np.zeros(1, dtype=np.int32))


def _read(value: object, row: int) -> Hashable | None:
    try:
        return user_id(value)
    except ValueError as error:
        raise ValueError(f"groups, row {row}: {error}") from None


def _of_floats(values: np.ndarray) -> Groups | None:
    missing = np.isnan(values) | (values == UNGROUPED)
    good = np.abs(values) < float_limit(values.dtype)
    good &= np.floor(values) == values
    good |= missing
    if not good.all():
        row = int(np.argmin(good))
        _read(values[row], row)
    return _of_integers(np.where(missing, UNGROUPED, values).astype(np.int64), ~missing)


def _of_integers(values: np.ndarray, grouped: np.ndarray) -> Groups | None:
    if not grouped.any():
        return None
    index = np.full(len(values), -1, dtype=np.int32)
    low, high = int(values[grouped].min()), int(values[grouped].max())
    if high - low <= 4 * len(values) and low >= -_LARGEST_IN_TABLE and high <= _LARGEST_IN_TABLE:
        return _index_by_table(values, grouped, low, high - low + 1, index)
    ids, index[grouped] = np.unique(values[grouped], return_inverse=True)
    return Groups(ids.astype(np.int64) if high < 1 << 63 else ids_array(ids.tolist()), index)


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


def _of_texts(values: np.ndarray) -> Groups | None:
    distinct, index = np.unique(values, return_inverse=True)
    with suppress(ValueError):  # raised again below, with the row
        ids = {place: user_id(text) for place, text in enumerate(distinct.tolist())}
        if len({type(id) for id in ids.values()} - {type(None)}) <= 1:
            return _numbered(index, ids)
    return _of_objects(values.tolist())  # integers and texts have no order but that in which they appear


def _of_objects(values: list[Any]) -> Groups | None:
    types = set(map(type, values))
    if types == {int}:
        with suppress(OverflowError):
            integers = np.array(values, dtype=np.int64)
            return _of_integers(integers, integers != UNGROUPED)
    if types == {float}:
        return _of_floats(np.array(values))
    if types <= {str, int, type(None)} or types <= {str, float, type(None)}:
        # Equal values of these types have equal ids. Others do not: as keys True is 1, and ("x", True) is ("x", 1).
        distinct = list(dict.fromkeys(values))
        with suppress(ValueError):  # raised again below, with the row
            return _numbered(values, dict(zip(distinct, map(user_id, distinct), strict=True)))
    ids = [_read(value, row) for row, value in enumerate(values)]
    return _numbered(ids, {id: id for id in ids})


def _numbered(keys: Sequence[Any] | np.ndarray, id_of_key: dict[Any, Hashable | None]) -> Groups | None:
    """Groups of the rows by their keys, of which several may have one id. An array of keys holds 0, 1, 2, ..."""
    known = [id for id in dict.fromkeys(id_of_key.values()) if id is not None]
    if not known:
        return None
    with suppress(TypeError):  # ids of several types may have no order
        known = sorted(known)  # type: ignore[type-var]
    position: dict[Hashable | None, int] = {id: i for i, id in enumerate(known)}
    position[None] = UNGROUPED
    if isinstance(keys, np.ndarray):
        index = np.array([position[id] for id in id_of_key.values()], dtype=np.int32)[keys]
    else:
        position_of_key = {key: position[id] for key, id in id_of_key.items()}
        index = np.fromiter(map(position_of_key.__getitem__, keys), dtype=np.int32, count=len(keys))
    return Groups(ids_array(known), index)
