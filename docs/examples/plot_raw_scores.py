"""
A counterexample for raw scores
===============================

In the theorem, the "score" that a group gives to a pair must be the probability σ(s). With raw scores s, the inequality
is false: the right-hand side grows without limit, but the best single model cannot lose more than log 2 nats on two
groups of the same size.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref.theory import irreducible_error_bounds

scores = np.linspace(0, 3, 31)  # the groups' scores of one pair are +s and -s
with_probabilities, with_raw_scores, truth = [], [], []
for s in scores:
    probs = 1 / (1 + np.exp(-np.array([[s, -s]])))
    bounds = irreducible_error_bounds([0.5, 0.5], probs, prompt=[0])
    truth.append(bounds.information)
    with_probabilities.append(bounds.theorem_3_2)
    with_raw_scores.append(2 * 0.5 * 2 * np.var([s, -s]))  # the same formula, 2 ρ K Var, of the scores themselves
broken = scores[np.argmax(np.array(with_raw_scores) > np.array(truth) + 1e-12)]
print(f"with raw scores the bound is violated from s = {broken:.1f} on")
print(f"at s = 3 it claims {with_raw_scores[-1]:.1f} nats; the truth is {truth[-1]:.3f}, and log 2 = {np.log(2):.3f}")

# %%
# The bound with probabilities stays below the truth everywhere.
figure, ax = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
ax.plot(scores, truth, color="black", label="truth: I(Y; Z)")
ax.plot(scores, with_probabilities, "--", color="#0072B2", label="bound with probabilities σ(s)")
ax.plot(scores, with_raw_scores, ":", color="#D55E00", linewidth=2, label="“bound” with raw scores s")
ax.axhline(np.log(2), color="0.7", linewidth=1)
ax.text(0.02, np.log(2) + 0.02, "log 2", fontsize=8)
ax.set_ylim(0, 1.5)
ax.set_xlabel("score s of one group (the other: −s)")
ax.set_ylabel("nats")
ax.legend(frameon=False, fontsize=8, loc="upper right")
