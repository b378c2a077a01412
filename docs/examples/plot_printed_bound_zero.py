"""
Why the bound of Theorem 3.2 is zero for exchangeable pairs
===========================================================

Theorem 3.2 takes, for every prompt, the average probability with which each group prefers the first response,
and measures how these averages differ between groups. If a data set lists the two responses of a pair in random order, the
average is ½ for every group, whatever its taste: the bound is zero although the groups disagree.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref.plotting import BoundsDisplay
from micropref.theory import irreducible_error_bounds

rng = np.random.default_rng(0)
margins = rng.normal(scale=2, size=(200, 2))  # of two groups, for ten pairs of each of 20 prompts
margins[:, 0] = np.abs(margins[:, 0])  # the first group always prefers the first response
probs = 1 / (1 + np.exp(-margins))
prompt = np.repeat(np.arange(20), 10)

# %%
# Every pair is now listed twice, once in each order. Nothing about the groups has changed.
both_probs = np.vstack([probs, 1 - probs])
both_prompt = np.concatenate([prompt, prompt])
as_listed = irreducible_error_bounds([0.5, 0.5], probs, prompt)
exchangeable = irreducible_error_bounds([0.5, 0.5], both_probs, both_prompt)
for name in ("information", "pairwise", "averaged", "theorem_3_2"):
    print(f"{name:12} as listed {getattr(as_listed, name):.4f}   both orders {getattr(exchangeable, name):.4f} nats")

# %%
# Information and the pairwise bound do not change, because they treat each pair separately. The step that averages over
# the pairs of a prompt loses everything.
figure, axes = plt.subplots(2, 1, figsize=(6.4, 5.6), layout="constrained")
BoundsDisplay(as_listed).plot(axes[0])
axes[0].set_title("as listed", fontsize=10)
BoundsDisplay(exchangeable).plot(axes[1])
axes[1].set_title("both orders", fontsize=10)
