"""How many heads: held-out likelihood of annotators against the number of components."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from micropref.plotting._style import COLORS, axes_for, legend_above, tidy
from micropref.selection import ComponentSelection, select_n_components


class ComponentsDisplay:
    """Held-out log-likelihood in nats per comparison against the number of heads, relative to the fewest.

    Beside the number that was chosen, a second line shows the fewest heads whose mean is within one standard error of
    the best, where that is another number: the rule "one_se", the default of `micropref.select_n_components`.

    Parameters
    ----------
    selection : ComponentSelection
        Of `micropref.select_n_components`.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, selection: ComponentSelection):
        self.selection = selection

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike | None = None, *, groups: ArrayLike, ax: Any = None, **options: Any
    ) -> Self:
        """Choose the number of heads on held-out annotators, and draw the likelihoods.

        Parameters
        ----------
        estimator : MixtureBradleyTerry
        X, y, groups
            As in `micropref.select_n_components`.
        ax : matplotlib Axes, optional
        **options
            More arguments of that function.

        Returns
        -------
        display : ComponentsDisplay
            Its `selection` has the fitted estimator.
        """
        return cls(select_n_components(estimator, X, y, groups=groups, **options)).plot(ax)

    @classmethod
    def from_selection(cls, selection: ComponentSelection, *, ax: Any = None) -> Self:
        """Draw the likelihoods of a finished choice.

        Parameters
        ----------
        selection : ComponentSelection
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ComponentsDisplay
        """
        return cls(selection).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (4.8, 3.4))
        found = self.selection
        order = np.argsort(found.candidates)
        numbers = found.candidates[order]
        # Folds differ more from each other than numbers of heads do: what counts are differences within folds.
        gain = (found.fold_log_likelihood - found.fold_log_likelihood[order[0]])[order]
        n_folds = gain.shape[1]
        error = gain.std(axis=1, ddof=1) / np.sqrt(n_folds) if n_folds > 1 else np.zeros(len(gain))
        ax.errorbar(numbers, gain.mean(axis=1), yerr=error, color=COLORS[0], marker="o", capsize=3)
        ax.axhline(0, color="0.7", linewidth=1, zorder=0)
        ax.axvline(
            found.n_components, color=COLORS[5], linestyle="--", linewidth=1, label=f"K = {found.n_components} chosen"
        )
        best = int(np.argmax(found.mean_log_likelihood))
        enough = found.mean_log_likelihood >= found.mean_log_likelihood[best] - found.standard_error
        fewest = int(found.candidates[enough | (np.arange(len(enough)) == best)].min())
        if fewest != found.n_components:
            label = f"K = {fewest} fewest within one standard error of the best"
            ax.axvline(fewest, color=COLORS[2], linestyle=":", linewidth=1.5, label=label)
        ax.set_xticks(numbers)
        ax.set_xlabel("number of heads K")
        ax.set_ylabel(f"held-out gain over K = {numbers[0]}\n(nats per comparison, ± standard error)")
        legend_above(ax, 1)
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
