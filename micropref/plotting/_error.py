"""The three terms of a single reward's error, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from micropref.plotting._style import COLORS, HATCHES, axes_for, legend_above, tidy
from micropref.theory import (
    ErrorDecomposition,
    ErrorSweep,
    IrreducibleErrorEstimate,
    error_decomposition,
    estimate_irreducible_error,
)

_TERMS = {
    "label_noise": "label noise",
    "group_information": "hidden group",
    "misspecification": "misspecification",
}
SWEPT = {
    "diversity": "weight ρ of the smallest group",
    "n_groups": "number of groups",
    "pairs_per_group": "pairs per annotator",
    "informativeness": "informativeness of the context",
}


class ErrorDecompositionDisplay:
    """Bars of label noise, hidden group and misspecification, in nats.

    Parameters
    ----------
    terms : sequence of ErrorDecomposition or IrreducibleErrorEstimate
        One bar each; estimates carry intervals.
    labels : sequence of str
        Names of the bars.
    xlabel : str, default=""
        What the bars differ in.
    ylabel : str
        Of what the terms are the error.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        terms: Sequence[ErrorDecomposition | IrreducibleErrorEstimate],
        labels: Sequence[str],
        xlabel: str = "",
        ylabel: str = "error of one reward (nats per comparison)",
    ):
        if not len(terms) or len(terms) != len(labels):
            raise ValueError(
                f"labels: expected one for each of at least one term, got {len(terms)} terms and {len(labels)} labels"
            )
        self.terms = list(terms)
        self.labels = [str(label) for label in labels]
        self.xlabel = xlabel
        self.ylabel = ylabel

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Estimate the terms on your own data and draw them with their intervals.

        Parameters
        ----------
        estimator : MixtureBradleyTerry
            Fitted to these rows.
        X, y, groups
            As in `micropref.theory.estimate_irreducible_error`.
        ax : matplotlib Axes, optional
        **options
            More arguments of that function.

        Returns
        -------
        display : ErrorDecompositionDisplay
        """
        return cls([estimate_irreducible_error(estimator, X, y, groups, **options)], ["these data"]).plot(ax)

    @classmethod
    def from_predictions(
        cls, weights: ArrayLike, component_probs: ArrayLike, single_probs: ArrayLike, *, ax: Any = None
    ) -> Self:
        """Draw the exact terms of a known population.

        Parameters
        ----------
        weights, component_probs, single_probs
            As in `micropref.theory.error_decomposition`.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ErrorDecompositionDisplay
        """
        return cls([error_decomposition(weights, component_probs, single_probs)], ["population"]).plot(ax)

    @classmethod
    def from_sweep(cls, sweep: ErrorSweep, *, ax: Any = None) -> Self:
        """Draw one bar for every value of a sweep.

        Parameters
        ----------
        sweep : ErrorSweep
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ErrorDecompositionDisplay
        """
        who = "a fitted mixture" if sweep.parameter == "pairs_per_group" else "one reward"
        labels = [f"{value:g}" for value in sweep.values]
        ylabel = f"error of {who} (nats per comparison)"
        return cls(sweep.terms, labels, SWEPT[sweep.parameter], ylabel).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (max(3.6, 1.2 + 0.7 * len(self.terms)), 3.6))
        places, below = np.arange(len(self.terms)), np.zeros(len(self.terms))
        for i, (name, label) in enumerate(_TERMS.items()):
            height = np.array([getattr(term, name) for term in self.terms])
            bars = {"color": COLORS[i], "hatch": HATCHES[i], "edgecolor": "white", "linewidth": 0.5}
            ax.bar(places, height, 0.7, bottom=below, label=label, **bars)
            for place, start, term, value in zip(places, below, self.terms, height, strict=True):
                interval = getattr(term, f"{name}_interval", None)
                if interval is not None:
                    # Side by side, so that the intervals of neighbouring terms do not lie over each other.
                    reach = [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]
                    x = place + 0.15 * (i - 1)
                    ax.errorbar(x, start + value, yerr=reach, color="black", capsize=3, linewidth=1)
            below += height
        return self._finished(ax, self.ylabel)

    def plot_zoomed(self, ax: Any = None) -> Self:
        """Draw the small terms side by side on their own scale, each with its number.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (max(3.6, 1.2 + 0.9 * len(self.terms)), 3.6))
        places = np.arange(len(self.terms))
        for i, name in enumerate(_TERMS):
            if name == "label_noise":
                continue
            x = places + 0.4 * (i - 1.5)
            height = np.array([getattr(term, name) for term in self.terms])
            bars = {"color": COLORS[i], "hatch": HATCHES[i], "edgecolor": "white", "linewidth": 0.5}
            ax.bar(x, height, 0.36, label=_TERMS[name], **bars)
            for place, term, value in zip(x, self.terms, height, strict=True):
                low, high = getattr(term, f"{name}_interval", (value, value))
                if high > low:
                    reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
                    ax.errorbar(place, value, yerr=reach, color="black", capsize=3, linewidth=1)
                ax.annotate(
                    f"{value:.4f}", (place, max(high, value)), (0, 3), textcoords="offset points", ha="center",
                    va="bottom", fontsize=7, rotation=90 if len(self.terms) > 3 else 0,
                )  # fmt: skip
        ax.margins(y=0.2)
        ax.set_ylim(bottom=0)
        return self._finished(ax, "the small terms alone (nats per comparison)")

    def _finished(self, ax: Any, ylabel: str) -> Self:
        ax.set_xticks(range(len(self.terms)), self.labels)
        ax.set_xlim(-0.6, len(self.terms) - 0.4)
        ax.set_xlabel(self.xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax, 3 if len(self.terms) > 3 else 1)
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
