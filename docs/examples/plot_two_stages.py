"""
Two stages, term by term
========================

Each stage of learning removes one term from the error of one reward. A mixture removes misspecification. A router that reads
contexts, or a user's history, removes the hidden group. Label noise remains.
"""

import matplotlib.pyplot as plt
import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry
from micropref.theory import error_decomposition

rng = np.random.default_rng(0)
truth = np.array([[2.5, 0, 0, 0], [0, 2.5, 0, 0], [-1.5, -1.5, 0, 0]])
centres = 1.5 * rng.normal(size=(3, 6))


def sample(n, pairs_per_person):
    kind = rng.integers(3, size=n // pairs_per_person).repeat(pairs_per_person)
    context = centres[kind] + rng.normal(size=(n, 6))
    difference = rng.normal(size=(n, 4))
    probs = 1 / (1 + np.exp(-difference @ truth.T))
    y = rng.random(n) < probs[np.arange(n), kind]
    return np.hstack([context, difference]), y, np.arange(n) // pairs_per_person, kind, probs


X, y, person, _, _ = sample(6000, 6)
X_new, y_new, person_new, kind, probs = sample(6000, 6)
last = np.arange(5, 6000, 6)  # the last comparison of every new person is judged, the five before are history
few = rng.choice(6000, 60, replace=False)

one = MixtureBradleyTerry(1).fit(X[:, 6:], y)
heads = MixtureBradleyTerry(3, random_state=0).fit(X[:, 6:], y, groups=person)
routed = ContextRouter(heads, n_context_features=6, alpha=1e-2).fit(X[few], y[few])
history = ContextRouter(heads)
both = ContextRouter(heads, n_context_features=6, alpha=1e-2).fit(X[few], y[few])
seen = np.setdiff1d(np.arange(6000), last)
history.partial_fit(X_new[seen, 6:], y_new[seen], groups=person_new[seen])
both.partial_fit(X_new[seen], y_new[seen], groups=person_new[seen])

D = X_new[last, 6:]
answers = {
    "one reward": one.predict_proba(D)[:, 1],
    "mixture": heads.predict_proba(D)[:, 1],
    "routed,\n60 labels": routed.predict_proba(X_new[last])[:, 1],
    "history,\n5 votes": history.predict_proba(D, groups=person_new[last])[:, 1],
    "both": both.predict_proba(X_new[last], groups=person_new[last])[:, 1],
}

# %%
# If a method knows neither context nor user, its error is the sum of label noise, hidden group and misspecification,
# with equal weights for the three groups. If it knows them, its error is measured against the group that answers.
population = error_decomposition(np.full(3, 1 / 3), probs[last], single_probs=answers["one reward"])
known = probs[last, kind[last]]
noise = population.label_noise
errors = {name: float(-(known * np.log(p) + (1 - known) * np.log(1 - p)).mean()) for name, p in answers.items()}
for name, error in errors.items():
    print(f"{name.replace(chr(10), ' '):22} {error:.3f} nats, {error - noise:.3f} above the label noise")
print(
    f"hidden group {population.group_information:.3f}, misspecification of one reward {population.misspecification:.3f}"
)

# %%
# Without context or history, no method can get below the dashed line.
figure, ax = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
excess = [error - noise for error in errors.values()]
ax.bar(list(errors), excess, 0.65, color=["#555555", "#009E73", "#0072B2", "#0072B2", "#0072B2"])
for place, value in enumerate(excess):
    ax.text(place, value + 0.002, f"{value:.3f}", ha="center", va="bottom", fontsize=8)
ax.axhline(population.group_information, color="#D55E00", linestyle="--", label="hidden group, I(Y; Z | X, A, B)")
ax.set_ylim(0, 1.15 * max(excess))
ax.set_ylabel("error above the label noise (nats)")
ax.legend(frameon=False, fontsize=8)
