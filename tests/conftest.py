"""Settings of all tests: Triton is interpreted where there is no card; hypothesis has no deadlines, and repeats in CI.

A busy machine is no failure.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# Processes of pytest-xdist are given the width of a terminal that they do not have.
os.environ.pop("COLUMNS", None)

# Triton asks when it is first imported, which tests of trainers do long before those of the kernels.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

# A failure in CI is one that every developer can repeat; runs elsewhere look for new examples, and for more of them.
in_ci = bool(os.environ.get("CI"))
settings.register_profile("micropref", deadline=None, max_examples=30 if in_ci else 40, derandomize=in_ci)
settings.load_profile("micropref")
