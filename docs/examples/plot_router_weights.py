"""
Which head is used where
========================

On the bundled texts, four tastes disagree about answers to everyday questions. Heads are learned from annotators who
answer a few pairs each and whose tastes are not known. Then a router reads wishes such as "keep it short". The figures
correspond to Figure 3, Tables 7-8 and Figure 4 of the paper; each is drawn by a single call.
"""

import numpy as np

from micropref import ContextRouter, MixtureBradleyTerry, PairEncoder
from micropref.datasets import load_demo
from micropref.plotting import CalibrationDisplay, HeadsByAttributeDisplay, LabelBudgetDisplay, RouterWeightsDisplay

world = load_demo()
encoder = PairEncoder(context="auto").fit(world.train).fit_context(world.labelled)
width = encoder.n_context_features_
X_labelled, X_test = (encoder.transform(table) for table in (world.labelled, world.test))
heads = MixtureBradleyTerry(4, random_state=0).fit(
    encoder.encode_pairs(world.train, parts=()), groups=world.train.group
)
router = ContextRouter(heads, n_context_features=width).fit(X_labelled)
labelled, tested = (np.array(table.extra["taste"]) for table in (world.labelled, world.test))

# %%
# Every head is right for one taste and wrong for others.
display = HeadsByAttributeDisplay.from_estimator(heads, X_test[:, width:], attributes=tested)
for taste, row in zip(display.attributes, display.accuracy, strict=True):
    print(f"{taste}: best head {row.argmax()}, accuracy {row.max():.2f}")

# %%
# The next figure shows the router's weights on new questions, with wishes that it has not seen before.
print(
    f"accuracy of one reward {MixtureBradleyTerry(1).fit(encoder.encode_pairs(world.train, parts=())).score(X_test[:, width:], None):.3f}"
)
print(f"routed {router.score(X_test, None):.3f}")
RouterWeightsDisplay.from_estimator(router, X_test, tested)

# %%
# How many labelled wishes does this take? The figure shows five draws.
best = float(np.mean([display.accuracy[i].max() for i in range(len(display.attributes))]))
LabelBudgetDisplay.from_estimator(
    router,
    X_labelled,
    contexts=labelled,
    X_test=X_test,
    budgets=(1, 2, 5, 10, 20, 50),
    references={"best head of every taste": best},
)

# %%
# Calibration: are predictions right as often as their probabilities say?
CalibrationDisplay.from_estimator(router, X_test)
