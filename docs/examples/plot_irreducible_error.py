"""
The irreducible error in ten lines
==================================

Two groups of people disagree about most answers. No single reward, however large its model, can know which group asks.
Part of its error is therefore the *hidden group*, and the lower bounds of the theorem show how large this part is at
least.
"""

import numpy as np

from micropref.plotting import BoundsDisplay, ErrorDecompositionDisplay
from micropref.theory import error_decomposition, irreducible_error_bounds

weights = [0.6, 0.4]  # shares of the two groups
probs = np.array([[0.9, 0.2], [0.8, 0.3], [0.7, 0.9]])  # of preferring the first answer, for three pairs
prompt = ["x", "x", "y"]  # of two prompts
single = probs @ weights  # the best that a single model can say
terms = error_decomposition(weights, probs, single_probs=single)
bounds = irreducible_error_bounds(weights, probs, prompt)
print(f"error of the best single model  {terms.cross_entropy:.3f} nats")
print(f"  label noise                   {terms.label_noise:.3f}  nothing removes it")
print(
    f"  hidden group                  {terms.group_information:.3f}  at least {bounds.pairwise:.3f} by the pairwise bound"
)

# %%
# The three terms add up to the error exactly. A mixture of rewards has the same error as the best single model here,
# because it predicts the same average. Only information about the group, from a context or from a user's history,
# removes the orange part.
ErrorDecompositionDisplay([terms], ["three pairs"]).plot()

# %%
# The next figure shows the chain of lower bounds on this part. Each bound is weaker than the one before; the hatched
# piece is the loss of its step.
BoundsDisplay(bounds).plot()
