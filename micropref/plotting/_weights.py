"""Which heads are used where: mixture weights over prompts or contexts."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref.plotting._style import COLORS, HATCHES, axes_for, legend_above, tidy


class RouterWeightsDisplay:
    """Mean weights of the heads in every context, as bars that add up to one (cf. Figure 3 of Shen et al., 2025).

    Parameters
    ----------
    weights : ndarray of shape (n_contexts, n_components)
        Mean weights.
    contexts : sequence of str
        Names of the contexts.
    n_rows : ndarray of int of shape (n_contexts,)
        Rows that each mean was taken over.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, weights: np.ndarray, contexts: list[str], n_rows: np.ndarray):
        self.weights, self.contexts, self.n_rows = weights, contexts, n_rows

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, contexts: ArrayLike, groups: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Average the weights that a router or a mixture gives in every context, and draw them.

        Parameters
        ----------
        estimator : ContextRouter or MixtureBradleyTerry
        X : array of shape (n_samples, n_features)
        contexts : array-like of shape (n_samples,)
            Name of every row's context.
        groups : array-like of shape (n_samples,), optional
            Users whose history a router knows.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : RouterWeightsDisplay
        """
        more = {} if groups is None else {"groups": groups}
        return cls.from_predictions(to_numpy(estimator.mixture_weights(X, **more)), contexts, ax=ax)

    @classmethod
    def from_predictions(cls, weights: ArrayLike, contexts: ArrayLike, *, ax: Any = None) -> Self:
        """Average given weights over the rows of every context, and draw them.

        Parameters
        ----------
        weights : array-like of shape (n_samples, n_components)
        contexts : array-like of shape (n_samples,)
        ax : matplotlib Axes, optional

        Returns
        -------
        display : RouterWeightsDisplay
        """
        rows, names = np.asarray(to_numpy(weights), dtype=float), np.asarray(contexts)
        if rows.ndim != 2 or len(rows) != len(names) or not len(names):
            raise ValueError(f"weights: expected shape ({len(names)}, n_components), not empty, got {rows.shape}")
        unique, index = np.unique(names, return_inverse=True)
        count = np.bincount(index)
        mean = np.stack([np.bincount(index, column) for column in rows.T], axis=1) / count[:, None]
        return cls(mean, [str(name) for name in unique], count).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (6.0, 1.4 + 0.4 * len(self.contexts)))
        start = np.zeros(len(self.contexts))
        for k, share in enumerate(self.weights.T):
            look = {"color": COLORS[k % len(COLORS)], "hatch": HATCHES[k % len(HATCHES)]}
            ax.barh(self.contexts, share, 0.7, left=start, label=f"head {k}", edgecolor="white", linewidth=0.5, **look)
            for place, (left, width) in enumerate(zip(start, share, strict=True)):
                if width >= 0.12:
                    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
                    ax.text(left + width / 2, place, f"{width:.2f}", ha="center", va="center", fontsize=7, bbox=box)
            start += share
        ax.invert_yaxis()
        ax.set_xlim(0, 1)
        ax.set_xlabel("mean weight of the head")
        legend_above(ax, min(6, self.weights.shape[1]))
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
