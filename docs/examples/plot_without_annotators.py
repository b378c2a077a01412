"""
When heads cannot be found without annotators
=============================================

If a population is split evenly on every pair, votes look like coin tosses. No number of votes can distinguish the
heads, unless you know which votes come from the same person: two votes by the same person usually agree with the same
head.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref import MixtureBradleyTerry
from micropref.theory import identifiability_report

rng = np.random.default_rng(0)
n, width = 4000, 6
difference = rng.normal(size=(n, width))
direction = np.eye(width)[0] * 3.0  # one half of the people wants it, the other half its opposite


def votes(pairs_per_annotator):
    annotator = np.arange(n) // pairs_per_annotator
    sign = rng.choice([-1, 1], size=annotator.max() + 1)[annotator]
    return rng.random(n) < 1 / (1 + np.exp(-sign * (difference @ direction))), annotator


def found(heads):
    """Cosine between the better head and the planted direction."""
    norms = np.linalg.norm(heads.coef_, axis=1) * np.linalg.norm(direction)
    return float(np.max(np.abs(heads.coef_ @ direction) / np.maximum(norms, 1e-12)))


per_annotator, with_groups, without = [1, 2, 3, 5, 10], [], []
for m in per_annotator:
    y, annotator = votes(m)
    fits = [MixtureBradleyTerry(2, random_state=0, max_iter=2000) for _ in range(2)]
    with_groups.append(found(fits[0].fit(difference, y, groups=annotator)))
    without.append(found(fits[1].fit(difference, y)))
    print(f"{m:2} pairs per annotator: cosine {with_groups[-1]:.2f} with annotators, {without[-1]:.2f} without")

# %%
# Before any fit, a report says whether annotators answer often enough.
y, annotator = votes(1)
print(identifiability_report(difference, annotator).explanation)

# %%
# All fits use the same 4 000 votes. Two votes per annotator are already enough. One vote per annotator is not enough,
# however many annotators there are.
figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
ax.plot(range(len(per_annotator)), with_groups, "o-", color="#0072B2", label="annotators known")
ax.plot(range(len(per_annotator)), without, "s--", color="#D55E00", label="annotators unknown")
ax.set_xticks(range(len(per_annotator)), per_annotator)
ax.set_ylim(0, 1.05)
ax.set_xlabel("pairs per annotator (4 000 votes in all)")
ax.set_ylabel("cosine of the better head\nwith the planted direction")
ax.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.92))
