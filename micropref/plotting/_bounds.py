"""The chain of lower bounds, each with what its step gives away."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike

from micropref.plotting._style import COLORS, axes_for, tidy
from micropref.theory import IrreducibleErrorBounds, irreducible_error_bounds
from micropref.theory._bounds import bounds_of_fit

_STEPS = {
    "information": ("information\nI(Y; Z | X, A, B)", ""),
    "pairwise": ("pairwise\n2 E Var", "Pinsker"),
    "averaged": ("averaged over pairs\n2 E Var E", "Jensen"),
    "theorem_3_2": ("Theorem 3.2\n2 ρ K E Var", "smallest weight"),
}


class BoundsDisplay:
    """Bars of the bounds from tight to loose; the hatched part is the loss of each step.

    Parameters
    ----------
    bounds : IrreducibleErrorBounds

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, bounds: IrreducibleErrorBounds):
        self.bounds = bounds

    @classmethod
    def from_predictions(
        cls, weights: ArrayLike, component_probs: ArrayLike, prompt: ArrayLike | None = None, *, ax: Any = None
    ) -> Self:
        """Compute the bounds of a known population and draw them.

        Parameters
        ----------
        weights, component_probs, prompt
            As in `micropref.theory.irreducible_error_bounds`.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : BoundsDisplay
        """
        return cls(irreducible_error_bounds(weights, component_probs, prompt)).plot(ax)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, prompt: ArrayLike | None = None, *, ax: Any = None) -> Self:
        """Compute the bounds of the population that a fitted mixture describes, without correction for its noise.

        Parameters
        ----------
        estimator : MixtureBradleyTerry
        X : array-like of shape (n_samples, n_features)
        prompt : array-like of shape (n_samples,), optional
            As in `micropref.theory.irreducible_error_bounds`.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : BoundsDisplay
        """
        return cls(bounds_of_fit(estimator, X, prompt)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (6.0, 2.8))
        shown = {name: getattr(self.bounds, name) for name in _STEPS}
        shown = {name: value for name, value in shown.items() if value is not None}
        before, widest = None, max(max(shown.values()), 1e-12)
        for place, (name, value) in enumerate(shown.items()):
            ax.barh(place, value, 0.6, color=COLORS[0])
            end = value
            if before is not None and before > value:
                gap = {"color": "white", "edgecolor": "0.6", "hatch": "///", "linewidth": 0.5}
                ax.barh(place, before - value, 0.6, left=value, **gap)
                end = before
            step = f"   ({_STEPS[name][1]} −{before - value:.3f})" if before is not None else ""
            ax.text(end + 0.015 * widest, place, f"{value:.3f}{step}", va="center", fontsize=8)
            before = value
        ax.set_yticks(range(len(shown)), [_STEPS[name][0] for name in shown], fontsize=8)
        ax.invert_yaxis()
        ax.set_xlim(0, 1.6 * widest)
        ax.set_xlabel("lower bound on the excess error of one reward (nats)")
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
