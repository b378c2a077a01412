"""
What moves the error of one reward
==================================

This lesson varies four properties of a population, one at a time: how even its groups are, how many groups there are,
how much contexts reveal, and how many pairs each annotator answers. The results of the first three are exact. For the
last one, a mixture is fitted to 400 annotators and evaluated on new ones.
"""

import matplotlib.pyplot as plt

from micropref.plotting import ErrorDecompositionDisplay
from micropref.theory import sweep_error

figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2), layout="constrained")
names = ("diversity", "n_groups", "informativeness", "pairs_per_group")
for ax, parameter in zip(axes.flat, names, strict=True):
    sweep = sweep_error(parameter)
    ErrorDecompositionDisplay.from_sweep(sweep, ax=ax)
    first, last = sweep.terms[0].group_information, sweep.terms[-1].group_information
    print(f"{parameter}: hidden group {first:.3f} nats at {sweep.values[0]:g}, {last:.3f} at {sweep.values[-1]:g}")

# %%
# The more a context reveals about the group, the smaller is the hidden part. One reward does not read the context, so
# its error stays the same, and the hidden part becomes misspecification, which a mixture with a gate removes. The
# earlier answers of an annotator remove the hidden group without any context.
