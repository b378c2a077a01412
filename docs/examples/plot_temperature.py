"""
The temperature, from Bayes to argmax
=====================================

A router learns from labelled contexts which head applies. The evidence of one comparison for a head is the likelihood of
its label, raised to 1/τ. At τ = 1 this is Bayes' rule: a head that is slightly better gains slightly. As τ goes to 0, the
head that wins a comparison takes all of its weight, even if it won by noise.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry

rng = np.random.default_rng(0)
truth = np.array([[1.5, 0, 0, 0, 0, 0], [0, 1.5, 0, 0, 0, 0], [0, 0, 1.5, 0, 0, 0]])
centres = rng.normal(size=(3, 10))


def sample(n, pairs_per_person=1):
    kind = rng.integers(3, size=n // pairs_per_person).repeat(pairs_per_person)
    context = centres[kind] + 0.8 * rng.normal(size=(n, 10))
    difference = rng.normal(size=(n, 6))
    margin = (difference * truth[kind]).sum(axis=1)
    return np.hstack([context, difference]), rng.random(n) < 1 / (1 + np.exp(-margin))


X, y = sample(6000, pairs_per_person=10)
heads = MixtureBradleyTerry(3, random_state=0).fit(X[:, 10:], y, groups=np.arange(6000) // 10)
X_test, y_test = sample(4000)

temperatures, budgets = [1e-3, 0.01, 0.1, 0.3, 1, 3], (30, 300)
losses = {budget: np.empty((10, len(temperatures))) for budget in budgets}
for budget in budgets:
    for draw in range(10):
        X_few, y_few = sample(budget)
        for j, temperature in enumerate(temperatures):
            router = ContextRouter(heads, n_context_features=10, temperature=temperature, alpha=1e-2).fit(X_few, y_few)
            p = router.predict_proba(X_test)[np.arange(len(y_test)), y_test.astype(int)]
            losses[budget][draw, j] = -np.log(p).mean()
for budget, loss in losses.items():
    best = temperatures[int(np.argmin(loss.mean(axis=0)))]
    print(
        f"{budget} labels: {loss.mean(axis=0)[4]:.3f} nats at τ = 1, {loss.mean(axis=0)[0]:.3f} at 0.001; best at τ = {best:g}"
    )

# %%
# The bands show the range over ten draws of the labels.
figure, ax = plt.subplots(figsize=(5.4, 3.6), layout="constrained")
for (budget, loss), color, marker in zip(losses.items(), ("#0072B2", "#E69F00"), "os", strict=True):
    ax.plot(temperatures, loss.mean(axis=0), marker=marker, color=color, label=f"{budget} labelled comparisons")
    ax.fill_between(temperatures, loss.min(axis=0), loss.max(axis=0), color=color, alpha=0.2, linewidth=0)
ax.axvline(1, color="0.7", linewidth=1, zorder=0)
ax.set_xscale("log")
ax.set_xlabel("temperature τ (1: Bayes' rule; towards 0: who wins a comparison)")
ax.set_ylabel("held-out log-loss (nats)")
ax.legend(frameon=False, fontsize=8)
