"""What all figures share: axes, and colours with hatches and markers that stay apart in grey."""

from __future__ import annotations

from typing import Any

import numpy as np

from micropref._support.optional import require

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555")
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "++", "oo")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def axes_for(ax: Any, size: tuple[float, float]) -> Any:
    """The axes given, or new ones in a figure of this size in inches."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", "drawing a display")
    return pyplot.subplots(figsize=size, layout="constrained")[1]


def tidy(ax: Any) -> None:
    """No frame where nothing is to be read."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def legend_above(ax: Any, columns: int) -> None:
    """A legend that hides no data."""
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, frameon=False, fontsize=8, borderaxespad=0.2)


def style(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th line."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}


def heat_map(ax: Any, values: np.ndarray, rows: list[str], columns: list[str], low: float, high: float) -> Any:
    """A table of shares as shades of grey-blue with its numbers."""
    image = ax.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), columns)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            dark = value > (low + high) / 2 + 0.1 * (high - low)
            text = f"{value:.2f}" if np.isfinite(value) else "–"
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.tick_params(length=0)
    return image
