"""Loaders of published preference sets, one module a set. Code from the hub is never executed."""

from __future__ import annotations

__all__: list[str] = []
