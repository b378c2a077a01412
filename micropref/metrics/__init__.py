"""How good a model of preferences is: scores by group, intervals that know clusters, and tests of differences."""

from micropref.metrics._intervals import Interval, accuracy_interval, mean_interval
from micropref.metrics._scorer import GroupedLogLikelihood, grouped_log_likelihood

__all__ = [
    "GroupedLogLikelihood",
    "Interval",
    "accuracy_interval",
    "grouped_log_likelihood",
    "mean_interval",
]
