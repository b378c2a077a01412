"""Settings of all tests: hypothesis without deadlines, since a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("micropref", deadline=None, max_examples=40)
settings.load_profile("micropref")
