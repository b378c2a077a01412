"""Rival methods for the same X, each implemented from its paper."""

from __future__ import annotations

from micropref.baselines.categorical import CategoricalRewards
from micropref.baselines.decomposed import DecomposedRewards
from micropref.baselines.group_rewards import GroupRewards
from micropref.baselines.hard_mixture import HardMixture
from micropref.baselines.hyre import HypothesisReweighting
from micropref.baselines.low_rank import LowRankRewards
from micropref.baselines.mean_variance import MeanVarianceRewards
from micropref.baselines.multi_objective import MultiObjectiveRewards
from micropref.baselines.neighbors import ContextNeighbors
from micropref.baselines.reward_factorization import RewardFactorization
from micropref.baselines.shared_base import SharedBaseEnsemble
from micropref.baselines.user_rewards import UserRewards

__all__ = [
    "CategoricalRewards",
    "ContextNeighbors",
    "DecomposedRewards",
    "GroupRewards",
    "HardMixture",
    "HypothesisReweighting",
    "LowRankRewards",
    "MeanVarianceRewards",
    "MultiObjectiveRewards",
    "RewardFactorization",
    "SharedBaseEnsemble",
    "UserRewards",
]
