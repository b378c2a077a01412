"""Scores by group, intervals that resample clusters, and tests of differences between methods."""

from micropref.metrics._adjust import adjust_p_values
from micropref.metrics._agreement import HeadAgreement, head_agreement
from micropref.metrics._budget import BudgetCurve, budget_curve
from micropref.metrics._groups import GroupMetrics, PreferenceScores, group_metrics
from micropref.metrics._heads import BestHeads, best_head_per_group
from micropref.metrics._intervals import Interval, accuracy_interval, mean_interval
from micropref.metrics._paired import McNemarTest, PairedDifference, mcnemar, paired_bootstrap
from micropref.metrics._reward_bench import RewardBenchScore, reward_bench_score
from micropref.metrics._scorer import GroupedLogLikelihood, grouped_log_likelihood

__all__ = [
    "BestHeads",
    "BudgetCurve",
    "GroupMetrics",
    "GroupedLogLikelihood",
    "HeadAgreement",
    "Interval",
    "McNemarTest",
    "PairedDifference",
    "PreferenceScores",
    "RewardBenchScore",
    "accuracy_interval",
    "adjust_p_values",
    "best_head_per_group",
    "budget_curve",
    "group_metrics",
    "grouped_log_likelihood",
    "head_agreement",
    "mcnemar",
    "mean_interval",
    "paired_bootstrap",
    "reward_bench_score",
]
