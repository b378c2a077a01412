"""The error of a saved model that cannot be read."""

from __future__ import annotations

__all__ = ["ModelFileError"]


class ModelFileError(ValueError):
    """A saved model is incomplete, altered, or not a model of micropref."""
