"""Which head serves which attribute: accuracy of every head on the pairs of every attribute."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._rows.labels import check_labels
from micropref.metrics._accuracy import tie_half
from micropref.plotting._style import axes_for, heat_map


class HeadsByAttributeDisplay:
    """A table of accuracies, attributes by heads (cf. Tables 7 and 8 of Shen et al., 2025).

    Parameters
    ----------
    accuracy : ndarray of shape (n_attributes, n_components)
    attributes : sequence of str
    n_rows : ndarray of int of shape (n_attributes,)
        Pairs of every attribute.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, accuracy: np.ndarray, attributes: list[str], n_rows: np.ndarray):
        self.accuracy, self.attributes, self.n_rows = accuracy, attributes, n_rows

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike | None = None, *, attributes: ArrayLike, ax: Any = None
    ) -> Self:
        """Judge every head of a mixture on the pairs of every attribute, and draw the table.

        Parameters
        ----------
        estimator : MixtureBradleyTerry
        X : array of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            None: the first response is preferred in every row.
        attributes : array-like of shape (n_samples,)
            Name of the attribute by which each pair was judged.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : HeadsByAttributeDisplay
        """
        margins = to_numpy(estimator.component_scores(X))
        signs, _ = check_labels(y, len(margins), classes=estimator.classes_)
        signed = margins if signs is None else margins * signs[:, None]
        return cls.from_predictions(signed, attributes=attributes, ax=ax)

    @classmethod
    def from_predictions(cls, margins: ArrayLike, *, attributes: ArrayLike, ax: Any = None) -> Self:
        """Draw the table from margins of the preferred over the other response.

        Parameters
        ----------
        margins : array-like of shape (n_samples, n_components)
            Positive where the head is right; zero counts one half.
        attributes : array-like of shape (n_samples,)
        ax : matplotlib Axes, optional

        Returns
        -------
        display : HeadsByAttributeDisplay
        """
        rows, names = to_numpy(margins), np.asarray(attributes)
        if rows.ndim != 2 or len(rows) != len(names) or not len(names):
            raise ValueError(f"margins: expected shape ({len(names)}, n_components), not empty, got {rows.shape}")
        right = tie_half(rows)
        unique, index = np.unique(names, return_inverse=True)
        count = np.bincount(index)
        share = np.stack([np.bincount(index, column) for column in right.T], axis=1) / count[:, None]
        return cls(share, [str(name) for name in unique], count).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        n_rows, n_heads = self.accuracy.shape
        ax = axes_for(ax, (2.4 + 0.7 * n_heads, 1.2 + 0.35 * n_rows))
        rows = [f"{name} (n = {n})" for name, n in zip(self.attributes, self.n_rows, strict=True)]
        image = heat_map(ax, self.accuracy, rows, [f"head {k}" for k in range(n_heads)], 0.0, 1.0)
        ax.figure.colorbar(image, ax=ax, label="accuracy (0.5 is a coin)")
        self.ax_, self.figure_ = ax, ax.figure
        return self
