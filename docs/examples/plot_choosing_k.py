"""
Choosing the number of heads
============================

The accuracy on pairs cannot choose the number K of heads: if people disagree evenly, every K is as good as a coin toss.
The likelihood of held-out annotators can, if all votes of an annotator are evaluated together.
"""

import numpy as np

from micropref import MixtureBradleyTerry
from micropref.plotting import ComponentsDisplay

rng = np.random.default_rng(0)
n, pairs = 3000, 6
annotator = np.arange(n) // pairs
truth = 2.5 * np.vstack([np.eye(3), np.zeros((5, 3))]).T  # three tastes along three of eight features
truth -= truth.mean(axis=0)
taste = rng.integers(3, size=n // pairs)[annotator]
X = rng.normal(size=(n, 8))
y = rng.random(n) < 1 / (1 + np.exp(-(X * truth[taste]).sum(axis=1)))

display = ComponentsDisplay.from_estimator(
    MixtureBradleyTerry(n_init=2, max_iter=2000, random_state=0),
    X,
    y,
    groups=annotator,
    candidates=(1, 2, 3, 4, 5),
)
found = display.selection
for k, mean, error in zip(found.candidates, found.mean_log_likelihood, found.standard_error, strict=True):
    print(f"K = {k}: {mean:.4f} ± {error:.4f} nats per comparison")
print(f"chosen: K = {found.n_components}; planted: 3")

# %%
# Every K is evaluated on the same five folds of annotators, and differences are taken within a fold. For comparison,
# this is the accuracy on the fitted pairs:
for k in (1, 2, 3):
    model = MixtureBradleyTerry(k, n_init=2, max_iter=2000, random_state=0).fit(X, y, groups=annotator)
    print(f"K = {k}: accuracy {model.score(X, y):.3f}")
