"""ContextInteractions: what a context says about the responses themselves, as columns that are linear in d."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, compute_dtype, is_torch, namespace, to_numpy
from micropref._estimator.fitting import learning, predicting
from micropref._estimator.parameters import check_real
from micropref._estimator.saved import COUNT, REAL, check_tensors, record, refused
from micropref._estimator.state import Arrays, describe, recover
from micropref._rows.layout import PairReader, measure, non_finite, root_mean_square
from micropref._rows.matrix import check_context_width, check_matrix
from micropref._rows.ranges import check_range
from micropref._rows.weights import check_sample_weight
from micropref.distributed import active_communicator
from micropref.features._products import (
    Axes,
    Layout,
    axis_moments,
    kind_squares,
    mean_moments,
    principal_axes,
    write_columns,
)

__all__ = ["ContextInteractions"]

_KINDS = ("cosine", "gate", "bilinear")


class ContextInteractions(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Add products of contexts and differences, so that a stated criterion acts on the responses.

    "I avoid X" turns a response that resembles X from good to bad. Heads that are fixed cannot say that, and a gate
    only chooses between them. Here every row ``[context | d]`` becomes ``[context | d, new columns]``. Every new column
    is linear in d, so swapping the responses negates it, and any estimator can follow.

    The context is cut into blocks of the width of φ: the prompt, a criterion, its clauses. For block j, c_j is the
    block at unit length and r_j is c_j without its projection on the block `given`, again at unit length; without
    `given` it is c_j. On principal axes P and Q, p = P r̃_j, where r̃_j is r_j minus its mean, at unit length, and
    q = Q d.

    ==========  ======================  ==============================  ==========================================
    kind        columns                 number                          the reward that weights on them give
    ==========  ======================  ==============================  ==========================================
    cosine      c_jᵀ d                  1 for each j                    a c_jᵀ φ
    gate        r_j (c_jᵀ d)            width, for j ≠ given            (aᵀ r_j) c_jᵀ φ: the context decides whether
                                                                        resembling it counts for or against
    bilinear    p_a q_b                 n_axes[0] · n_axes[1],          φᵀ M r̃_j
                                        for j ≠ given
    ==========  ======================  ==============================  ==========================================

    A block of the context that is empty (all zeros) gives zeros.

    Parameters
    ----------
    n_context_features : int
        Number of leading context columns of X, a multiple of `width`.
    width : int, optional
        Number of features of φ, and so of each block of the context. Only the first `width` columns of d interact; the
        rest, such as a length, pass through. By default all columns of d.
    given : int, optional
        Index of the block that the others are taken relative to, usually that of the prompt. What a criterion shares
        with its prompt says nothing about the criterion.
    cosine, gate, bilinear : float, default=1.0
        All columns of one kind together are scaled to the root mean square norm of d, and then multiplied by this
        number. 0 leaves them out.
    n_axes : (int, int), default=(24, 48)
        Number of principal axes of the contexts and of d in the bilinear block, at most `width` each.

    Attributes
    ----------
    width_ : int
        Number of features of each block.
    mean_ : ndarray of shape (n_blocks, width)
        Mean of r_j over the rows of the fit whose r_j is not zero.
    context_axes_ : ndarray of shape (n_blocks, n_axes[0], width)
        Principal axes P of each block; axes along which the rows of the fit do not vary are zero.
    difference_axes_ : ndarray of shape (n_axes[1], width)
        Principal axes Q of d, about 0.
    scale_ : dict of str to float
        Factors of the new columns: ``"cosine"``, ``"gate"``, ``"bilinear"``, those that are there.
    n_features_in_ : int
        Number of columns seen in `fit`.

    See Also
    --------
    PairEncoder : its parameter `interactions` does this for texts.

    Notes
    -----
    The fit reads contexts, differences up to their sign, and weights; no labels. A row repeated equals weight 2.
    Sums of a fit are in double precision. Blocks of the context nearer to `given` than 1e-3 (sine of the angle) count
    as equal to it: what is left of them would be rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from micropref import ContextInteractions
    >>> X = np.array([[1.0, 0.0, 3.0, 4.0], [0.0, 2.0, -4.0, 3.0]])  # a context of two features, and d
    >>> ContextInteractions(2, gate=0.0, bilinear=0.0).fit_transform(X)[:, 4:].round(3)
    array([[5.],
           [5.]])
    """

    _SAVED_ENTRIES, _SAVED_SINCE = (), ("shapes", "arrays")
    _SAVED_TENSORS = r"mean|context_axes|difference_axes"

    width_: int
    mean_: NDArray[np.float64]
    context_axes_: NDArray[np.float64]
    difference_axes_: NDArray[np.float64]
    scale_: dict[str, float]
    n_features_in_: int

    def __init__(
        self,
        n_context_features: int,
        *,
        width: int | None = None,
        given: int | None = None,
        cosine: float = 1.0,
        gate: float = 1.0,
        bilinear: float = 1.0,
        n_axes: tuple[int, int] = (24, 48),
    ):
        self.n_context_features = n_context_features
        self.width = width
        self.given = given
        self.cosine = cosine
        self.gate = gate
        self.bilinear = bilinear
        self.n_axes = n_axes

    @learning
    def fit(self, X: Array, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the axes and the scales of the new columns.

        Parameters
        ----------
        X : array of shape (n_samples, n_context_features + n_features)
            Comparisons; a memory-mapped file is read in blocks.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the widths do not fit X, or another parameter or an entry of X is not usable.
        """
        ranks = active_communicator()
        X, weight, layout = ranks.together(lambda: self._check(X, sample_weight))
        # Relative to the norm of d, so that no square leaves the range of its type.
        sizes = ranks.exchange(ranks.together(lambda: _norm_and_mass(X, weight, layout)))
        norm, mass = root_mean_square(*np.transpose(sizes)), sum(each for _, each in sizes)

        def total(terms: Callable[..., NDArray[Any]], *more: Any) -> NDArray[Any]:
            rows = _blocks(X, weight, layout, 1.0 / norm if norm > 0 else 1.0)
            return ranks.reduce(ranks.together(lambda: np.sum([terms(*block, *more) for block in rows], axis=0)))

        axes = _learned_axes(total, layout)
        squares = total(lambda c, d, w: kind_squares(c, d, w, layout, axes))
        size = dict(zip(layout.kinds, np.sqrt(squares / mass).tolist(), strict=True))
        self.scale_ = {kind: getattr(self, kind) / size[kind] if size[kind] > 0 else 0.0 for kind in size}
        self.width_ = layout.width
        self.mean_, self.context_axes_, self.difference_axes_ = axes
        return self

    def _check(self, X: Array, sample_weight: ArrayLike | None) -> tuple[Array, NDArray[Any] | None, Layout]:
        """X and weights as they are computed with, and the layout that the parameters give."""
        for name in _KINDS:
            check_real(self, name, 0.0, 1e10)
        X = check_matrix(self, X, reset=True)
        layout = self._layout_for(int(X.shape[1]))
        weight = check_sample_weight(sample_weight, X.shape[0])
        check_range(X, self.n_context_features, measure(X, self.n_context_features, weight))
        return X, weight, layout

    def _layout_for(self, n_columns: int) -> Layout:
        n_context = self.n_context_features
        check_context_width(n_context, n_columns)
        n_features = n_columns - n_context
        width = n_features if self.width is None else self.width
        if not _is_count(width) or not 1 <= width <= n_features:
            raise ValueError(
                f"width: expected an integer between 1 and {n_features}, the number of columns of the difference, got "
                f"{width!r}"
            )
        if n_context == 0 or n_context % width:
            raise ValueError(
                f"n_context_features: expected a positive multiple of the width of a block, {width}, got {n_context}; "
                "pass width=..., the number of features of a response"
            )
        n_blocks = n_context // width
        if self.given is not None and not (_is_count(self.given) and 0 <= self.given < n_blocks):
            raise ValueError(
                f"given: expected None or the index of one of {n_blocks} block(s) of the context, from 0, got "
                f"{self.given!r}"
            )
        given = None if self.given is None else int(self.given)
        factors = {kind: float(getattr(self, kind)) for kind in _KINDS if getattr(self, kind)}
        return Layout(int(n_context), int(width), given, self._axes_for(int(width)), factors)

    def _axes_for(self, width: int) -> tuple[int, int]:
        counts = self.n_axes
        if (
            not isinstance(counts, Sequence | np.ndarray)
            or len(counts) != 2
            or not all(map(_is_count, counts))
            or min(counts) < 1
        ):
            raise ValueError(f"n_axes: expected two integers of at least 1, of the context and of d, got {counts!r}")
        of_context, of_difference = (min(int(count), width) for count in counts)
        return of_context, of_difference

    @predicting
    def transform(self, X: Array) -> Array:
        """Add the new columns.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)

        Returns
        -------
        X : array of shape (n_samples, n_features_out)
            ``[context | d, new columns]``, float64 for float64 input, float32 for all else; a torch tensor on the
            device of X if that is one.

        Raises
        ------
        ValueError
            If X has another number of columns than in `fit`, or an entry is NaN or infinite.
        """
        check_is_fitted(self)
        X = check_matrix(self, X, reset=False)
        xp, layout, axes = namespace(X), self._layout(), self._axes()
        kind = {"device": X.device} if is_torch(X) else {}
        n_columns = int(X.shape[1])
        found = xp.empty((int(X.shape[0]), n_columns + layout.n_columns), dtype=compute_dtype(X), **kind)
        for rows, context, difference in PairReader(X, self.n_context_features):
            found[rows, : self.n_context_features] = context
            found[rows, self.n_context_features : n_columns] = difference
            if not bool(xp.all(xp.isfinite(context))) or not bool(xp.all(xp.isfinite(difference))):
                raise non_finite(X, rows)
            with np.errstate(over="ignore", invalid="ignore"):
                write_columns(context, difference[:, : layout.width], layout, axes, found[rows, n_columns:])
            if not bool(xp.all(xp.isfinite(found[rows, n_columns:]))):
                raise _beyond(found[rows], rows.start)
        return found

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Names of the columns: those of X, and ``cosine_j``, ``gate_j_i``, ``bilinear_j_a_b`` for the new ones.

        j is the block of the context, i a feature of it, and a and b are axes of the context and of d.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features_in_,), optional
            Names of the columns of X; by default those seen in `fit`, or x0, x1, …

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        names = OneToOneFeatureMixin.get_feature_names_out(self, input_features)
        return np.array([*names, *self._layout().columns()], dtype=object)

    def _layout(self) -> Layout:
        n_axes = (self.context_axes_.shape[1], self.difference_axes_.shape[0])
        return Layout(self.mean_.size, self.width_, self.given, n_axes, self.scale_)

    def _axes(self) -> Axes:
        return Axes(self.mean_, self.context_axes_, self.difference_axes_)

    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        check_is_fitted(self)
        arrays = {"mean": self.mean_, "context_axes": self.context_axes_, "difference_axes": self.difference_axes_}
        return arrays, describe(self, ("width_", "scale_"))

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        """The transformer that `_export` described."""
        restored = cls(**{**description["parameters"], "n_axes": tuple(description["parameters"]["n_axes"])})
        scale = description["state"].get("scale_")
        recover(restored, description, {"width_": COUNT, "scale_": record(dict.fromkeys(scale or (), REAL))})
        if type(scale) is not dict or not {*scale} <= {*_KINDS}:
            raise refused("state.scale_", f"factors of {', '.join(_KINDS)}", scale)
        n_context, width = restored.n_context_features, restored.width_
        if type(n_context) is not int or not 0 < width <= n_context <= restored.n_features_in_ - width:
            raise refused("state.width_", "the width of a block of the context and of d", width)
        n_blocks = n_context // width
        if restored.given is not None and not (type(restored.given) is int and 0 <= restored.given < n_blocks):
            raise refused("parameters.given", f"one of {n_blocks} blocks", restored.given)
        shapes = {"mean": (n_blocks, width), "context_axes": (n_blocks, None, width), "difference_axes": (None, width)}
        check_tensors(arrays, shapes)
        restored.mean_, restored.context_axes_ = arrays["mean"], arrays["context_axes"]
        restored.difference_axes_ = arrays["difference_axes"]
        return restored

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scale_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _norm_and_mass(X: Array, weight: NDArray[Any] | None, layout: Layout) -> tuple[float, float]:
    """Root mean square norm of the columns of d that interact, and the weight of the rows."""
    mass = float(X.shape[0] if weight is None else weight.sum())
    columns = layout.n_context_features + layout.width
    return float(measure(X[:, :columns], layout.n_context_features, weight).norms[1]), mass


def _blocks(
    X: Array, weight: NDArray[Any] | None, layout: Layout, factor: float
) -> Iterator[tuple[Array, Array, NDArray[Any] | None]]:
    """Yield context, d times a factor, and weights of blocks of rows."""
    for rows, context, difference in PairReader(X, layout.n_context_features):
        yield context, difference[:, : layout.width] * factor, None if weight is None else weight[rows]


def _learned_axes(total: Callable[..., NDArray[Any]], layout: Layout) -> Axes:
    """Means and principal axes from sums over the rows of all ranks."""
    n_blocks, width = layout.n_blocks, layout.width
    sums = total(lambda c, d, w: mean_moments(c, d, w, layout))
    first, second = sums[: n_blocks * (width + 1)].reshape(n_blocks, width + 1), sums[n_blocks * (width + 1) :]
    mean = first[:, :width] / np.maximum(first[:, width:], np.finfo(np.float64).tiny)
    moments = total(lambda c, d, w: axis_moments(c, w, mean, layout)).reshape(n_blocks, width, width)
    context_axes = np.stack([principal_axes(moment, layout.n_axes[0]) for moment in moments])
    return Axes(mean, context_axes, principal_axes(second.reshape(width, width), layout.n_axes[1]))


def _beyond(found: Array, first_row: int) -> ValueError:
    row = int(np.nonzero(~np.isfinite(to_numpy(found)))[0][0])
    return ValueError(
        f"expected features of the size seen in fit, got a product beyond the largest number of {found.dtype}: row "
        f"{first_row + row}"
    )
