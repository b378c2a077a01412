"""Settings of all tests: hypothesis without deadlines, since a busy machine is no failure, and repeatable in CI."""

from __future__ import annotations

import os

from hypothesis import settings

# A failure in CI is one that every developer can repeat; runs elsewhere look for new examples.
settings.register_profile("micropref", deadline=None, max_examples=40, derandomize=bool(os.environ.get("CI")))
settings.load_profile("micropref")
