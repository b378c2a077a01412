"""Do predicted preferences come true as often as they say?"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import to_numpy
from micropref._rows.labels import check_labels
from micropref.metrics._accuracy import tie_half
from micropref.metrics._calibration import bin_sums
from micropref.plotting._style import axes_for, style, tidy


class CalibrationDisplay:
    """Share of right predictions against their probability, for the response that each prediction prefers.

    The same whichever response is called first: a probability p of the first is one of 1 − p of the second.

    Parameters
    ----------
    confidence : ndarray of shape (n_bins,)
        Mean probability of the preferred response in every bin that is not empty.
    accuracy : ndarray of shape (n_bins,)
    n_rows : ndarray of int of shape (n_bins,)
    name : str, default=""

    Attributes
    ----------
    error : float
        Expected calibration error: mean distance of accuracy from confidence, bins weighted by their rows.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, confidence: np.ndarray, accuracy: np.ndarray, n_rows: np.ndarray, name: str = ""):
        self.confidence, self.accuracy, self.n_rows, self.name = confidence, accuracy, n_rows, name
        self.error = float(n_rows @ np.abs(accuracy - confidence) / n_rows.sum())

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
        n_bins: int = 10,
        name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Predict, count and draw.

        Parameters
        ----------
        estimator : fitted estimator
        X : array of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            None: the first response is preferred in every row.
        groups : array-like of shape (n_samples,), optional
            Users whose history a router knows.
        n_bins : int, default=10
        name : str, optional
            Name in the legend, by default that of the class.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : CalibrationDisplay
        """
        more = {} if groups is None else {"groups": groups}
        probs = to_numpy(estimator.predict_proba(X, **more))[:, 1]
        signs, _ = check_labels(y, len(probs), classes=estimator.classes_)
        first = np.ones(len(probs)) if signs is None else signs
        return cls.from_predictions(probs, first, n_bins=n_bins, name=name or type(estimator).__name__, ax=ax)

    @classmethod
    def from_predictions(
        cls, probs: ArrayLike, y: ArrayLike | None = None, *, n_bins: int = 10, name: str = "", ax: Any = None
    ) -> Self:
        """Count and draw.

        Parameters
        ----------
        probs : array-like of shape (n_samples,)
            Probabilities that the first response is preferred.
        y : array-like of shape (n_samples,), optional
            None: the first response is preferred in every row.
        n_bins : int, default=10
            Bins of the same width between ½ and 1.
        name : str, default=""
        ax : matplotlib Axes, optional

        Returns
        -------
        display : CalibrationDisplay
        """
        p = np.asarray(to_numpy(probs), dtype=float)
        if p.ndim != 1 or not len(p):
            raise ValueError(f"probs: expected shape (n_samples,) with at least one row, got shape {p.shape}")
        outside = ~((p >= 0) & (p <= 1))
        if outside.any():
            row = int(outside.argmax())
            raise ValueError(f"probs: expected probabilities in [0, 1], got {p[row]} in row {row}")
        signs, _ = check_labels(y, len(p))
        right = tie_half(p - 0.5, signs)
        confident = np.maximum(p, 1 - p)
        count, confidence, truth = (sums[0] for sums in bin_sums(confident, right, n_bins))
        kept = count > 0
        mean, share = confidence[kept] / count[kept], truth[kept] / count[kept]
        return cls(mean, share, count[kept].astype(int), name).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, keeping its contents, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        ax = axes_for(ax, (4.4, 4.2))
        if not ax.lines:
            ax.plot([0.5, 1], [0.5, 1], color="0.6", linestyle=":", label="as often as said")
        # Wilson's interval of a share.
        z, n, p = 1.96, self.n_rows, self.accuracy
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        reach = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        errors = np.maximum(0, [p - (centre - reach), (centre + reach) - p])
        label = f"{self.name} (calibration error {self.error:.3f})".strip()
        look = style((len(ax.lines) - 1) // 3)  # a line and two caps for each method drawn before
        ax.errorbar(self.confidence, p, yerr=errors, capsize=2, linewidth=1.2, markersize=5, label=label, **look)
        ax.set_xlabel("predicted probability of the preferred response")
        ax.set_ylabel("share that prefers it (95 % interval)")
        ax.legend(loc="lower right", frameon=False, fontsize=8)
        tidy(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
