"""The figure of the home page: accuracies of one reward and of four heads, for each taste of the bundled world."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from micropref import MixtureBradleyTerry, PairEncoder, load_demo

# Of text and of the surface behind it, in the two modes of the theme.
INK = {"light": "#1a1a1a", "dark": "#e6e6e6"}
PAPER = {"light": "#ffffff", "dark": "#14181e"}


def accuracies() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Tastes, and for each of them the accuracy of one reward and of every head on new questions."""
    world = load_demo()
    encoder = PairEncoder().fit(world.train)
    X, X_test = encoder.encode_pairs(world.train, parts=()), encoder.encode_pairs(world.test, parts=())
    heads = MixtureBradleyTerry(4, random_state=0).fit(X, groups=world.train.group)
    one = MixtureBradleyTerry(1).fit(X)
    taste = np.array(world.test.extra["taste"])
    tastes = sorted(set(taste))
    by_head = np.array([(heads.component_scores(X_test)[taste == name] > 0).mean(axis=0) for name in tastes])
    by_one = np.array([(one.component_scores(X_test)[taste == name] > 0).mean(axis=0) for name in tastes])
    order = [int(np.argmax(row)) for row in by_head]  # the head that serves each taste, on the diagonal
    if len(set(order)) == len(order):
        by_head = by_head[:, order]
    return tastes, by_one, by_head


def draw(path: Path, mode: str, tastes: list[str], by_one: np.ndarray, by_head: np.ndarray) -> None:
    """Two tables of one row per taste, coloured by accuracy."""
    ink, paper = INK[mode], PAPER[mode]
    colours = LinearSegmentedColormap.from_list("accuracy", ["#d98c3f", paper, "#2f87c8"])
    with mpl.rc_context({"svg.hashsalt": "micropref", "svg.fonttype": "path", "font.size": 12.5, "text.color": ink}):
        figure = Figure(figsize=(6.2, 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(1, 2, width_ratios=[1, by_head.shape[1]], sharey=True)
        titles = ("One reward", "Four heads, found without\nknowing the tastes")
        for axis, table, title in zip(axes, (by_one, by_head), titles, strict=True):
            axis.imshow(table, cmap=colours, vmin=0, vmax=1, aspect="auto")
            for (i, j), value in np.ndenumerate(table):
                axis.text(j, i, f"{value:.0%}", ha="center", va="center", weight="bold" if value > 0.7 else "normal")
            axis.set_title(title, color=ink, fontsize=12.5, pad=8)
            axis.set_yticks(range(len(tastes)), tastes, color=ink)
            axis.set_xticks(
                range(table.shape[1]),
                ["all users"] if table.shape[1] == 1 else [f"head {k + 1}" for k in range(table.shape[1])],
                color=ink,
            )
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        if path.suffix == ".png":  # a page that may be dark behind it knows no second mode
            figure.savefig(path, dpi=150, facecolor=PAPER[mode], metadata={"Software": None})
        else:
            figure.savefig(path, metadata={"Date": None})


def main(folder: Path) -> None:
    """Draw both modes, unless the figures are younger than this script."""
    paths = {mode: folder / f"home-{mode}.svg" for mode in INK}
    script = Path(__file__).stat().st_mtime
    if all(path.exists() and path.stat().st_mtime > script for path in paths.values()):
        return
    found = accuracies()
    for mode, path in paths.items():
        draw(path, mode, *found)


if __name__ == "__main__":
    # A folder, or the picture of the README: python docs/figures/home.py docs/_static/heads_by_taste.png
    target = Path(sys.argv[1])
    if target.suffix == ".png":
        draw(target, "light", *accuracies())
    else:
        main(target)
