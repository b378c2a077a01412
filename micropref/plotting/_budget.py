"""How many labels a router needs: accuracy against the number of labelled comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from micropref._rows.arrays import take_rows
from micropref.plotting._style import axes_for, style, tidy


class LabelBudgetDisplay:
    """Lines of accuracy against labels per context, with intervals (cf. Figure 4 of Shen et al., 2025).

    Parameters
    ----------
    budgets : sequence of int
        Labels per context.
    curves : mapping of str to array of shape (n_draws, n_budgets)
        Accuracy of every method, for every draw of the labelled rows.
    references : mapping of str to float, optional
        Accuracies that need no labels, drawn as level lines.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        budgets: Sequence[int],
        curves: Mapping[str, ArrayLike],
        references: Mapping[str, float] | None = None,
    ):
        self.budgets = np.asarray(budgets)
        self.curves = {name: np.atleast_2d(np.asarray(curve, dtype=float)) for name, curve in curves.items()}
        self.references = dict(references or {})
        for name, curve in self.curves.items():
            if curve.shape[1] != len(self.budgets):
                raise ValueError(
                    f"curve {name!r}: expected {len(self.budgets)} values, one for each budget, got {curve.shape[1]}"
                )

    @classmethod
    def from_estimator(
        cls,
        router: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        contexts: ArrayLike,
        X_test: Any,
        y_test: ArrayLike | None = None,
        budgets: Sequence[int] = (1, 2, 5, 10, 20, 50),
        n_draws: int = 5,
        random_state: int | np.random.RandomState | None = 0,
        references: Mapping[str, float] | None = None,
        ax: Any = None,
    ) -> Self:
        """Fit copies of a router to few labels per context, judge them on the test rows, and draw the curve.

        Parameters
        ----------
        router : ContextRouter
            With ``prefit=True``; it is not changed.
        X : array of shape (n_samples, n_features)
            Rows from which the labelled ones are drawn.
        y : array-like of shape (n_samples,), optional
        contexts : array-like of shape (n_samples,)
            Name of every row's context; the same number of labels is drawn for each.
        X_test : array of shape (n_test, n_features)
        y_test : array-like of shape (n_test,), optional
        budgets : sequence of int, default=(1, 2, 5, 10, 20, 50)
            Labels per context.
        n_draws : int, default=5
            Draws of the labelled rows; larger budgets of a draw contain the smaller ones.
        random_state : int, RandomState or None, default=0
        references : mapping of str to float, optional
        ax : matplotlib Axes, optional

        Returns
        -------
        display : LabelBudgetDisplay

        Raises
        ------
        ValueError
            For a budget above the rows of some context.
        """
        names = np.asarray(contexts)
        unique, index = np.unique(names, return_inverse=True)
        least = int(np.bincount(index).min())
        if max(budgets) > least or min(budgets) < 1:
            fewest = unique[np.argmin(np.bincount(index))]
            raise ValueError(
                f"budgets: expected numbers between 1 and {least}, the rows of context {fewest!r}, got {list(budgets)}"
            )
        labels = None if y is None else np.asarray(y)
        random = check_random_state(random_state)
        found = np.empty((n_draws, len(budgets)))
        for draw in range(n_draws):
            order = [random.permutation(np.flatnonzero(index == i)) for i in range(len(unique))]
            for j, budget in enumerate(budgets):
                rows = np.sort(np.concatenate([one[:budget] for one in order]))
                copy = type(router)(**router.get_params(deep=False))
                copy.fit(take_rows(X, rows), None if labels is None else labels[rows])
                found[draw, j] = copy.score(X_test, y_test)
        return cls(budgets, {type(router).__name__: found}, references).plot(ax)

    @classmethod
    def from_predictions(
        cls,
        budgets: Sequence[int],
        curves: Mapping[str, ArrayLike],
        references: Mapping[str, float] | None = None,
        *,
        ax: Any = None,
    ) -> Self:
        """Draw accuracies measured elsewhere.

        Parameters
        ----------
        budgets, curves, references
            As in the class.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : LabelBudgetDisplay
        """
        return cls(budgets, curves, references).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (5.2, 3.6))
        places = np.arange(len(self.budgets))
        for i, (name, curve) in enumerate(self.curves.items()):
            mean, look = curve.mean(axis=0), style(i)
            ax.plot(places, mean, label=name, markersize=5, **look)
            if len(curve) > 1:
                ax.fill_between(
                    places, curve.min(axis=0), curve.max(axis=0), color=look["color"], alpha=0.2, linewidth=0
                )
        for i, (name, level) in enumerate(self.references.items()):
            ax.axhline(level, color="0.35", linestyle=("--", ":", "-.")[i % 3], linewidth=1.2, label=name)
        ax.set_xticks(places, [str(budget) for budget in self.budgets])
        ax.set_xlabel("labelled comparisons per context")
        ax.set_ylabel("accuracy (band: all draws)")
        ax.legend(loc="best", frameon=False, fontsize=8)
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
