"""The ceilings: one reward for each true population, and the planted weights of every user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref.baselines.group_rewards import GroupRewards
from micropref.bench._methods.steps import NotApplicable, Stages, predict_without_labels
from micropref.bench._tasks import MethodInputs


def run_oracle(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Rewards fitted and used with the true population of every row."""
    if inputs.truth is None or inputs.test_truth is None:
        raise NotApplicable("true groups unknown")
    truth = inputs.truth
    model = stages.get(
        ("oracle", settings["alpha"]),
        lambda: GroupRewards(settings["alpha"]).fit(
            inputs.train.difference, inputs.train.y, sample_weight=inputs.train.weight, groups=truth
        ),
    )
    return predict_without_labels(inputs, model.decision_function(inputs.test.difference, groups=inputs.test_truth))


def run_planted(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Log-odds of one who knows the weights of every user, where these were planted."""
    if inputs.test_known is None:
        raise NotApplicable("users are not planted")
    return predict_without_labels(inputs, inputs.test_known)
