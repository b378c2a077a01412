"""Transformers of X that estimators can follow in a pipeline."""

from __future__ import annotations

from micropref.features.interactions import ContextInteractions
from micropref.features.scaler import PairScaler

__all__ = ["ContextInteractions", "PairScaler"]
