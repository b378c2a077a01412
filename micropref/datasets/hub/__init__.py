"""Loaders of published preference sets, one module a set. Code from the hub is never executed."""
