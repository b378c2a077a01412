"""
A worker's history on real votes
================================

3 801 workers voted on which of two arguments is more convincing (UKPConvArg1, Habernal and Gurevych, 2016). Two heads
are learned from the votes and the ids of the workers. Then the earlier votes of each worker show which head applies to
this worker. The lesson reads the votes from the folder in the environment variable ``MICROPREF_DATA``; without them, it
shows the figure of an earlier run.
"""

import csv
import gzip
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry, make_pairs

folder = Path(os.environ.get("MICROPREF_DATA", "")) / "ukpconvarg1"
present = (folder / "votes.csv.gz").exists()
if not present:
    print(
        "The real votes are not here: set MICROPREF_DATA to a folder that holds ukpconvarg1. Nothing below is computed."
    )

# %%
# Votes on a fifth of the pairs are held out. Gains are averaged over all votes of workers with 30 votes or more.
gains = {}
if present:
    with gzip.open(folder / "texts.jsonl.gz", "rt", encoding="utf-8") as file:
        lengths = np.log1p([len(json.loads(line)) for line in file])
    features = np.hstack([5 * np.load(folder / "embeddings.npy").astype(np.float32), lengths[:, None]])
    with gzip.open(folder / "votes.csv.gz", "rt", encoding="utf-8") as file:
        votes = list(csv.DictReader(file))
    chosen, rejected = (features[[int(vote[key]) for vote in votes]] for key in ("chosen", "rejected"))
    _, worker, count = np.unique([vote["worker"] for vote in votes], return_inverse=True, return_counts=True)
    pair = np.array([vote["pair"] for vote in votes])
    rng = np.random.default_rng(0)
    names = rng.permutation(np.unique(pair))
    test = np.isin(pair, names[: len(names) // 5])
    probe = test & (count[worker] >= 30)
    X = make_pairs(chosen, rejected)
    print(f"{len(votes)} votes by {len(count)} workers; {probe.sum()} held-out votes are judged")

    def loss(log_odds):
        return np.logaddexp(0, -log_odds[probe])

    one = loss(MixtureBradleyTerry(1).fit(X[~test]).decision_function(X))
    for name, who in (("their own votes", worker), ("votes of permuted workers", rng.permutation(worker))):
        heads = MixtureBradleyTerry(2, n_init=1, random_state=0).fit(X[~test], groups=who[~test])
        for temperature in (1, 10):
            router = ContextRouter(heads, history_temperature=temperature).partial_fit(X[~test], groups=who[~test])
            gain = one - loss(router.decision_function(X, groups=who))
            gains[f"{name}, τ_h = {temperature}"] = gain
            print(f"{name}, τ_h = {temperature}: gains {gain.mean():+.4f} nats per vote over one reward")

# %%
# The gain is small, because these workers agree much more than they differ; with permuted workers there is no gain.
# Intervals are twice the standard error, with votes treated as independent.

# sphinx_gallery_thumbnail_path = '_static/worker_history.png'
figure, ax = plt.subplots(figsize=(6.0, 2.6), layout="constrained")
if gains:
    values = list(gains.values())
    error = [2 * gain.std() / len(gain) ** 0.5 for gain in values]
    ax.errorbar([gain.mean() for gain in values], range(len(gains)), xerr=error, fmt="o", color="#0072B2", capsize=3)
    ax.set_yticks(range(len(gains)), list(gains), fontsize=8)
    ax.axvline(0, color="0.7", linewidth=1, zorder=0)
    ax.invert_yaxis()
    ax.set_xlabel("gain over one reward for all workers (nats per vote)")
else:
    drawn = Path("../_static/worker_history.png")
    if drawn.exists():
        ax.imshow(plt.imread(drawn))
    else:
        ax.text(0.5, 0.5, "needs the real votes (MICROPREF_DATA)", ha="center", va="center")
    ax.set_axis_off()
