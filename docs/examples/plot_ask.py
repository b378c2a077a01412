"""
Ask the right question
======================

A new user answers a few comparisons before a model serves this user well. Which comparisons should you ask about?
`ContextRouter.suggest` takes the pair whose answer is expected to be the most informative about the user. This lesson
compares it with pairs drawn at random: in a planted world where it saves most of the answers, in another where it saves
none, and on real comparisons, which it reads from the folder in the environment variable ``MICROPREF_DATA`` if that is
set.
"""

import gzip
import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry, make_pairs
from micropref.metrics import budget_curve

n_features, n_teachers, n_new, n_pool, n_asked = 6, 250, 80, 100, 20
rng = np.random.default_rng(0)
base = 1.5 * rng.normal(size=n_features)
worlds = {
    "four tastes": 2.0 * rng.normal(size=(4, n_features)),
    "nearly one taste": base + 0.3 * rng.normal(size=(4, n_features)),
}


def answers(rewards, n):
    """Differences of the features of n pairs per person, the preferred response first, and the person of each."""
    pairs = rng.normal(size=(len(rewards), n, n_features))
    margins = np.einsum("unf,uf->un", pairs, rewards)
    first = rng.random(margins.shape) < 1 / (1 + np.exp(-margins))
    D = np.where(first, 1, -1)[..., None] * pairs
    return D.reshape(-1, n_features), np.repeat(np.arange(len(rewards)), n)


# %%
# Heads are learned from annotators who answer twenty random pairs each. New users then answer one pair after the other,
# out of 100 candidates each: either random pairs, or the pairs that the router suggests. Accuracy is measured on 20
# other pairs of each user. Intervals, and the paired test of the difference, resample users.
budgets = (0, 1, 2, 3, 5, 10)
curves = {}


def compare(name, heads, candidates, user, test, test_user, n_draws):
    """Curves of both ways, and what asking gains at every number of answers."""
    router = ContextRouter(heads).partial_fit(candidates[:1], groups=["another user"])
    rows = {"groups": user, "X_test": test, "groups_test": test_user, "budgets": budgets, "n_draws": n_draws}
    both = {how: budget_curve(router, candidates, strategy=how, **rows) for how in ("random", "information")}
    curves[name] = both
    print(name)
    for j, budget in enumerate(budgets):
        random, asked = (both[how].accuracy[j] for how in ("random", "information"))
        print(
            f"  {budget:2d} answers: random {random.mean:.3f} ({random.low:.3f} to {random.high:.3f}), "
            f"asked {asked.mean:.3f} ({asked.low:.3f} to {asked.high:.3f})"
        )


for name, kinds in worlds.items():
    taught, teacher = answers(kinds[rng.integers(4, size=n_teachers)], 20)
    heads = MixtureBradleyTerry(4 if name == "four tastes" else 2, random_state=0).fit(taught, groups=teacher)
    new = kinds[rng.integers(4, size=n_new)]
    compare(name, heads, *answers(new, n_pool), *answers(new, n_asked), n_draws=2)

# %%
# If tastes differ, two well-chosen questions are worth as much as ten random ones. One question is not enough: its
# answer separates two groups of tastes, not four, and the second question is chosen in the light of this answer. After
# ten answers, choosing the questions gains nothing more. If tastes hardly differ, it gains nothing at all, because no
# answer is informative.
#
# The real comparisons are answers to questions, each judged by one of several criteria (data set dsp). The criterion is
# hidden. Three heads are learned from annotators with five comparisons each, and every new user has one criterion.
folder = Path(os.environ.get("MICROPREF_DATA", "")) / "dsp"
present = (folder / "pairs.jsonl.gz").exists()
if not present:
    print(
        "The real comparisons are not here: set MICROPREF_DATA to a folder that holds dsp. Nothing below was computed."
    )


def lines(name):
    with gzip.open(folder / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# %%
# Heads, candidates and test rows come from different queries.
if present:
    vectors = np.load(folder / "embeddings.npy").astype(np.float32)
    row_of = {text: row for row, text in enumerate(lines("texts.jsonl.gz"))}
    pairs = lines("pairs.jsonl.gz")
    chosen, rejected = (vectors[[row_of[pair[side]] for pair in pairs]] for side in ("chosen", "rejected"))
    D = 10 * make_pairs(chosen, rejected)
    query, criterion = (np.array([pair[key] for pair in pairs]) for key in ("query_id", "context"))
    part = dict(zip(np.unique(query), rng.permutation(np.arange(len(np.unique(query)))), strict=True))
    place = np.array([part[one] for one in query])
    is_taught, is_candidate, is_test = place >= 500, place < 300, (place >= 300) & (place < 500)

    teacher = np.full(len(pairs), -1)
    for name in np.unique(criterion):
        own = rng.permutation(np.flatnonzero(is_taught & (criterion == name)))
        teacher[own] = teacher.max() + 1 + np.arange(len(own)) // 5
    # Of four heads one would find no annotators: two of the four criteria agree on most of these rows.
    heads = MixtureBradleyTerry(3, random_state=0).fit(D[is_taught], groups=teacher[is_taught])

    wanted = np.repeat(np.unique(criterion), 15)
    drawn = {"candidates": (is_candidate, 100), "test": (is_test, 30)}
    rows, users = {}, {}
    for use, (is_part, n) in drawn.items():
        own = [rng.choice(np.flatnonzero(is_part & (criterion == name)), n, replace=False) for name in wanted]
        rows[use], users[use] = np.concatenate(own), np.repeat(np.arange(len(wanted)), n)
    sides = (D[rows["candidates"]], users["candidates"], D[rows["test"]], users["test"])
    compare("answers to questions (dsp)", heads, *sides, n_draws=1)

# %%
# Points are means over users, and bars are 95 % intervals.
figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), layout="constrained", sharey=True)
for ax, name in zip(axes, (*worlds, "answers to questions (dsp)"), strict=True):
    ax.set_title(name, fontsize=10)
    if name not in curves:
        ax.text(0.5, 0.5, "needs MICROPREF_DATA", ha="center", va="center", fontsize=8)
        ax.set_xticks([])
        continue
    for how, color, shift in (("random", "0.5", -0.08), ("information", "#0072B2", 0.08)):
        found = curves[name][how].accuracy
        mean = np.array([one.mean for one in found])
        error = [mean - [one.low for one in found], [one.high for one in found] - mean]
        label = "asked" if how == "information" else "random"
        ax.errorbar(np.arange(len(budgets)) + shift, mean, error, fmt="o-", color=color, capsize=2, label=label)
    ax.set_xticks(range(len(budgets)), budgets)
    ax.set_xlabel("answers of a new user")
axes[0].set_ylabel("accuracy on other pairs")
axes[0].legend(fontsize=8)

# %%
# The questions only separate the *heads*, so they do not help with a user who is unlike any head. If users scatter
# around heads, as in :doc:`plot_points_or_clouds`, use a router on a `HierarchicalBradleyTerry`, which also asks about
# the scatter. In a terminal, ``micropref ask`` runs this dialogue with a user, and ``micropref demo --me`` runs it with
# you.
