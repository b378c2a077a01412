"""Every rival method on the same X, written from its paper."""

from micropref.baselines.categorical import CategoricalRewards
from micropref.baselines.group_rewards import GroupRewards
from micropref.baselines.hard_mixture import HardMixture
from micropref.baselines.mean_variance import MeanVarianceRewards
from micropref.baselines.neighbors import ContextNeighbors
from micropref.baselines.user_rewards import UserRewards

__all__ = [
    "CategoricalRewards",
    "ContextNeighbors",
    "GroupRewards",
    "HardMixture",
    "MeanVarianceRewards",
    "UserRewards",
]
