"""Comparisons: the rows that a fit or a likelihood is about, read and checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micropref._arrays.backend import Array, place, precision, to_numpy
from micropref._rows.groups import Groups, check_groups
from micropref._rows.labels import check_labels, distinct_labels
from micropref._rows.layout import PairReader, Sizes, measure
from micropref._rows.matrix import check_matrix
from micropref._rows.ranges import check_range, check_weight_range
from micropref._rows.units import Units
from micropref._rows.weights import check_sample_weight
from micropref._support.cached import cached_property

__all__ = ["ALL_ZERO", "Comparisons", "covering_classes"]

# The log-likelihood of a group is of the order of its weight, and known to the precision of 1.
_LEAST_GROUP = 1e-8
ALL_ZERO = "every difference is zero: the two responses have equal features in every row"


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Rows of X with what is said about them; every entry is finite and every array is as long as X.

    `read` is the one way from a user's arguments to rows. The constructor takes what is known to be right already.

    Parameters
    ----------
    reader : PairReader
        X, ``[context | difference]``.
    signs : ndarray of int8 of shape (n_samples,), optional
        s_i: +1 where the first response is preferred, −1 where the second is; None means +1 everywhere.
    weight : ndarray of float64 of shape (n_samples,), optional
        ω_i; None means 1 everywhere.
    groups : Groups, optional
        Who answered; None means that every row is ungrouped.
    group_weight : ndarray of float64 of shape (n_samples,), optional
        What multiplies the log-likelihood of the row's group, or of an ungrouped row besides its own weight; None means
        1 everywhere.
    classes : ndarray of shape (2,), optional
        Labels that mean "second preferred" and "first preferred".
    labels : ndarray, optional
        Distinct labels, where the rows are one rank's share and the classes are still to be agreed on.
    """

    reader: PairReader
    signs: NDArray[np.int8] | None = None
    weight: NDArray[np.float64] | None = None
    groups: Groups | None = None
    classes: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    _y: Any = None
    group_weight: NDArray[np.float64] | None = None

    @classmethod
    def read(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        first: bool,
        n_context_features: int | Callable[[int], int] | None = None,
        classes: ArrayLike | None = None,
        device: Any = None,
        is_share: bool = False,
        host: bool = False,
        weight_may_be_zero: bool = False,
    ) -> Comparisons:
        """Read the arguments of `fit`, `partial_fit` or a likelihood.

        Parameters
        ----------
        estimator : estimator
            Its `n_features_in_` and `feature_names_in_` are set if `first`, and compared otherwise.
        X, y, sample_weight, groups
            As users pass them to `MixtureBradleyTerry.fit`.
        first : bool
            Whether this is the first that the estimator sees of X.
        n_context_features : int or callable, optional
            Leading context columns, or a function that gives them for a number of columns and refuses a wrong one.
            None: the estimator's own parameter.
        classes : array-like of shape (2,), optional
            The labels of "second preferred" and of "first preferred", where they are known.
        device : str or torch.device, optional
            Where X goes, as a torch tensor; None: where it is.
        is_share : bool, default=False
            One rank of several reads its rows: they may be none, and one label alone is judged beside those of others.
        host : bool, default=False
            X as a NumPy array in the type of computation, for methods that are written for nothing else.
        weight_may_be_zero : bool, default=False
            Allow weights that are zero in every row.

        Raises
        ------
        ValueError
            For whatever is ambiguous, not finite, or out of the range of the type of computation; it names row and
            column, or the line that resolves it.
        """
        X = place(check_matrix(estimator, X, reset=first, min_rows=0 if is_share else 1), device)
        if host:
            X = to_numpy(X)
            X = X.astype(np.float32) if X.dtype == np.float16 else X
        n_samples = int(X.shape[0])
        width = estimator.n_context_features if n_context_features is None else n_context_features
        width = width(int(X.shape[1])) if callable(width) else width
        if is_share:
            signs, known, labels = None, None, distinct_labels(y, n_samples)
        else:
            (signs, known), labels = check_labels(y, n_samples, classes=classes), None
        rows = cls(
            PairReader(X, width),
            signs,
            check_sample_weight(sample_weight, n_samples, may_be_zero=is_share or weight_may_be_zero),
            check_groups(groups, n_samples),
            known,
            labels,
            y if is_share else None,
        )
        check_range(X, width, rows._sizes)
        check_weight_range(rows.weight, X)
        return rows

    def with_group_weight(self, group_weight: ArrayLike | None) -> Comparisons:
        """The rows with weights of their groups, the same in every row of a group.

        Raises
        ------
        ValueError
            If a group has two weights, and for what is no weight.
        """
        weight = check_sample_weight(group_weight, self.n_samples, name="group_weight")
        if weight is None:
            return self
        if self.groups is not None:
            grouped = np.flatnonzero(self.groups.index >= 0)
            index = self.groups.index[grouped]
            first = np.empty(self.groups.n_groups)
            first[index[::-1]] = weight[grouped[::-1]]
            other = weight[grouped] != first[index]
            if other.any():
                row = int(grouped[np.argmax(other)])
                of_group = self.groups.index[row]
                name = self.groups.ids.tolist()[of_group]
                raise ValueError(
                    f"group_weight: expected one weight for all rows of a group, got {first[of_group]:g} and "
                    f"{weight[row]:g} for group {name!r} (row {row}); weights of single rows are sample_weight"
                )
        if self.groups is None:  # rows are their own respondents
            weighted = replace(self, weight=self.dense_weight * weight)
        else:
            weighted = replace(self, group_weight=weight)
        if weighted.total_weight == 0:
            raise ValueError("expected a row with positive weight in a group with positive weight, got none")
        check_weight_range(weighted.outer_weight, self.reader.X)
        return weighted

    # ------------------------------------------------------------------------------------------------------- totals

    @property
    def n_samples(self) -> int:
        return self.reader.n_samples

    @cached_property
    def total_weight(self) -> float:
        """Ω, the weights of groups included."""
        if self.group_weight is not None:
            return float(self.outer_weight.sum())
        return float(self.n_samples if self.weight is None else self.weight.sum())

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Root mean square norms of contexts and differences; an entry that is not finite is an error that names it."""
        return self._sizes.norms

    @cached_property
    def _sizes(self) -> Sizes:
        weight = self.weight if self.group_weight is None else self.outer_weight
        return measure(self.reader.X, self.reader.n_context_features, weight)

    @property
    def precision(self) -> float:
        """Relative precision of a mean over these rows."""
        return precision(self.reader.X)

    def refuse_all_zero(self) -> None:
        """A ValueError where no row with weight has a difference."""
        if self.norms[1] == 0:
            raise ValueError(ALL_ZERO)

    # -------------------------------------------------------------------------------------------------------- parts

    def with_classes(self, classes: NDArray[Any] | None) -> Comparisons:
        """One rank's rows, with the classes on which the ranks agreed."""
        signs, known = check_labels(self._y, self.n_samples, classes=classes)
        return replace(self, signs=signs, classes=known, labels=None, _y=None)

    def part(self, rows: slice | NDArray[Any]) -> Comparisons:
        """Some of the rows; of the groups, those that have one among them."""
        return replace(
            self,
            reader=self.reader.part(rows),
            signs=None if self.signs is None else self.signs[rows],
            weight=None if self.weight is None else self.weight[rows],
            groups=None if self.groups is None else self.groups.part(rows),
            group_weight=None if self.group_weight is None else self.group_weight[rows],
        )

    def units(self) -> Units | None:
        """What draws one component; None where every row does so by itself."""
        if self.groups is None:
            return None
        units = Units.create(self.groups, self.weight, self.group_weight)
        mean = float(units.mass[: units.n_groups].mean())
        if 0.0 < mean < _LEAST_GROUP:
            raise ValueError(
                f"expected groups whose weights add up to at least {_LEAST_GROUP:g} on average, got {mean:g}: a weight "
                "in a group is a number of answers; multiply all of them by one number"
            )
        return units

    # --------------------------------------------------------------------------------- without gaps, for rivals

    @property
    def context(self) -> Array:
        return self.reader.X[:, : self.reader.n_context_features]

    @property
    def difference(self) -> Array:
        return self.reader.X[:, self.reader.n_context_features :]

    @cached_property
    def dense_signs(self) -> NDArray[np.float64]:
        """s_i as floats, ones where no label was given."""
        return np.ones(self.n_samples) if self.signs is None else self.signs.astype(np.float64)

    @cached_property
    def dense_weight(self) -> NDArray[np.float64]:
        """ω_i, ones where no weight was given."""
        return np.ones(self.n_samples) if self.weight is None else self.weight

    @cached_property
    def outer_weight(self) -> NDArray[np.float64]:
        """ω_i times the weight of the row's group."""
        return self.dense_weight if self.group_weight is None else self.dense_weight * self.group_weight


def covering_classes(known: NDArray[Any], y: Any) -> NDArray[Any] | None:
    """Known classes where they say more of these labels than the labels do: which of two means "first preferred"."""
    if y is None or known.tolist() in ([0, 1], [-1, 1]):
        return None
    labels = set(np.asarray(to_numpy(y), dtype=object).ravel().tolist())
    return known if labels <= set(known.tolist()) else None
