"""Every rival method on the same X, written from its paper."""

from __future__ import annotations

from micropref.baselines.decomposed import DecomposedRewards
from micropref.baselines.hyre import HypothesisReweighting
from micropref.baselines.low_rank import LowRankRewards
from micropref.baselines.shared_base import SharedBaseEnsemble

__all__ = ["DecomposedRewards", "HypothesisReweighting", "LowRankRewards", "SharedBaseEnsemble"]
