"""Products of contexts and differences, row by row: functions of arrays of NumPy or torch that know no transformer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import Array, like, namespace, to_numpy

__all__ = [
    "Axes",
    "Layout",
    "axis_moments",
    "kind_squares",
    "mean_moments",
    "principal_axes",
    "relative",
    "unit",
    "write_columns",
]

# Sine of the angle to another vector below which what is left of a unit vector is rounding, of half precision too.
_LEAST_SINE = 1e-3
# Eigenvalues of a second moment, relative to the largest, that are rounding.
_LEAST_EIGENVALUE = 1e-10


class Layout(NamedTuple):
    """How the context is cut, and which blocks of new columns there are.

    Attributes
    ----------
    n_context_features : int
    width : int
        Of each block of the context, and of the columns of d that interact.
    given : int or None
        The block that the others are taken relative to.
    n_axes : (int, int)
        Of the context and of d in a bilinear block.
    factors : dict of str to float
        Factor of each kind of new columns, ``"cosine"``, ``"gate"`` and ``"bilinear"``, those that are wanted.
    """

    n_context_features: int
    width: int
    given: int | None
    n_axes: tuple[int, int]
    factors: dict[str, float]

    @property
    def n_blocks(self) -> int:
        """Blocks of the context."""
        return self.n_context_features // self.width

    @property
    def relatives(self) -> list[int]:
        """Blocks of the context other than the one that is given."""
        return [j for j in range(self.n_blocks) if j != self.given]

    @property
    def kinds(self) -> list[str]:
        """The kinds of new columns, in their order; only those that have columns."""
        return [kind for kind in self.factors if kind == "cosine" or self.relatives]

    @property
    def n_columns(self) -> int:
        """Number of all new columns."""
        return len(self.columns())

    def columns(self) -> list[str]:
        """Names of the new columns: the kind, the block of the context, and the axes or the feature."""
        names: list[str] = []
        for kind in self.kinds:
            if kind == "cosine":
                names += [f"cosine_{j}" for j in range(self.n_blocks)]
            elif kind == "gate":
                names += [f"gate_{j}_{i}" for j in self.relatives for i in range(self.width)]
            else:
                axes = [(a, b) for a in range(self.n_axes[0]) for b in range(self.n_axes[1])]
                names += [f"bilinear_{j}_{a}_{b}" for j in self.relatives for a, b in axes]
        return names


class Axes(NamedTuple):
    """What a fit learned of the rows.

    Attributes
    ----------
    mean : ndarray of shape (n_blocks, width)
    context : ndarray of shape (n_blocks, n_axes[0], width)
    difference : ndarray of shape (n_axes[1], width)
    """

    mean: NDArray[np.float64]
    context: NDArray[np.float64]
    difference: NDArray[np.float64]


def unit(rows: Array, least: float = 0.0) -> Array:
    """Rows at unit length, of any size; zeros where they are no longer than `least`."""
    xp = namespace(rows)
    peak = xp.max(xp.abs(rows), axis=1, keepdims=True)
    scaled = rows / xp.where(peak > 0, peak, xp.ones_like(peak))
    norm = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
    found = scaled / xp.where(norm > 0, norm, xp.ones_like(norm))
    return found if not least else xp.where(norm * peak > least, found, xp.zeros_like(found))


def _dot(first: Array, second: Array) -> Array:
    return namespace(first).sum(first * second, axis=1, keepdims=True)


def relative(block: Array, given: Array) -> Array:
    """Unit vectors without their projections on others, at unit length; zeros where both are the same."""
    return unit(block - given * _dot(block, given), _LEAST_SINE)


def blocks(context: Array, layout: Layout) -> Iterator[tuple[int, Array, Array]]:
    """Yield ``(j, c_j, r_j)``: each block of the context at unit length, and relative to the block `given`."""
    width, given = layout.width, None
    if layout.given is not None:
        given = unit(context[:, layout.given * width : (layout.given + 1) * width])
    for j in range(layout.n_blocks):
        block = unit(context[:, j * width : (j + 1) * width])
        # A block says nothing beside itself.
        yield j, block, block if given is None else block * 0 if j == layout.given else relative(block, given)


def centred(rows: Array, mean: NDArray[Any]) -> Array:
    """r̃_j: r_j minus a mean, at unit length; zeros where r_j is zero."""
    xp = namespace(rows)
    stated = xp.any(rows != 0, axis=1, keepdims=True)
    shifted = unit(rows - like(mean, rows, rows.dtype), _LEAST_SINE)
    return xp.where(stated, shifted, xp.zeros_like(shifted))


def _weighted(rows: Array, weight: NDArray[Any] | None) -> tuple[Array, Array]:
    """The rows in double precision, as they are and times their weights."""
    xp = namespace(rows)
    double = xp.astype(rows, xp.float64)
    return double, double if weight is None else double * like(weight, double, xp.float64)[:, None]


def _second_moment(rows: Array, weight: NDArray[Any] | None) -> NDArray[Any]:
    double, weighted = _weighted(rows, weight)
    return to_numpy(double.T @ weighted)


def mean_moments(context: Array, d: Array, weight: NDArray[Any] | None, layout: Layout) -> NDArray[Any]:
    """Sums over rows, flat: of r_j and of the weights of the rows that have one, for each j; and of d dᵀ."""
    sums = []
    for _, _, r in blocks(context, layout):
        stated = np.any(to_numpy(r) != 0, axis=1)
        mass = float(stated.sum() if weight is None else weight[stated].sum())
        sums.append(np.append(to_numpy(_weighted(r, weight)[1].sum(axis=0)), mass))
    return np.concatenate([*sums, _second_moment(d, weight).ravel()])


def axis_moments(context: Array, weight: NDArray[Any] | None, mean: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Sums over rows of r̃_j r̃_jᵀ for each j, flat."""
    return np.concatenate([_second_moment(centred(r, mean[j]), weight).ravel() for j, _, r in blocks(context, layout)])


def principal_axes(moment: NDArray[Any], n_axes: int) -> NDArray[np.float64]:
    """Leading eigenvectors of a second moment as rows, the largest entry of each positive; zeros beyond its rank."""
    from scipy.linalg import eigh

    width = len(moment)
    if not n_axes:
        return np.empty((0, width))
    values, vectors = eigh(moment, subset_by_index=(width - n_axes, width - 1))
    axes = vectors[:, ::-1].T
    axes *= np.sign(axes[np.arange(n_axes), np.abs(axes).argmax(axis=1)])[:, None]
    axes[values[::-1] <= _LEAST_EIGENVALUE * max(values[-1], 0.0)] = 0.0
    return np.ascontiguousarray(axes)


def _parts(context: Array, d: Array, layout: Layout, axes: Axes) -> Iterator[tuple[str, Array | None, Array]]:
    """Yield ``(kind, left, right)``, whose columns are the products of every column of both, in the order of columns.

    The left one depends on the context only, and the right one is linear in d; without a left one, the columns are
    those of the right one.
    """
    xp = namespace(d)
    found = [(r, _dot(block, d)) for _, block, r in blocks(context, layout)]
    for kind in layout.kinds:
        if kind == "cosine":
            yield kind, None, xp.concat([cosine for _, cosine in found], axis=1)
        elif kind == "gate":
            for j in layout.relatives:
                yield kind, *found[j]
        else:
            on_axes = d @ like(axes.difference, d, d.dtype).T
            for j in layout.relatives:
                yield kind, centred(found[j][0], axes.mean[j]) @ like(axes.context[j], d, d.dtype).T, on_axes


def kind_squares(context: Array, d: Array, weight: NDArray[Any] | None, layout: Layout, axes: Axes) -> NDArray[Any]:
    """Sums over rows of the squared norms of each kind of new columns, before any factor."""
    totals = dict.fromkeys(layout.kinds, 0.0)
    for kind, left, right in _parts(context, d, layout, axes):
        squares = to_numpy(_dot(right, right))[:, 0].astype(np.float64)
        if left is not None:
            squares *= to_numpy(_dot(left, left))[:, 0]
        totals[kind] += float(squares.sum() if weight is None else weight @ squares)
    return np.array(list(totals.values()), dtype=np.float64)


def write_columns(context: Array, d: Array, layout: Layout, axes: Axes, out: Array) -> None:
    """Write the new columns of rows."""
    start = 0
    for kind, left, right in _parts(context, d, layout, axes):
        right = right * layout.factors[kind]
        size = right.shape[1] * (1 if left is None else left.shape[1])
        if left is None:
            out[:, start : start + size] = right
        else:
            out[:, start : start + size] = (left[:, :, None] * right[:, None, :]).reshape(len(out), size)
        start += size
