"""The method that needs fine-grained annotations: heads of rated attributes behind a gate of the context."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from micropref.baselines.multi_objective import MultiObjectiveRewards
from micropref.bench._methods.steps import NotApplicable, Stages, predict_after_labels
from micropref.bench._tasks import MethodInputs


def run_multi_objective(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """The gate reads the whole context, and so the stated attribute of a row; labels move its weights."""
    if inputs.ratings is None:
        raise NotApplicable("no ratings of single responses")
    if not len(inputs.ratings.scores):
        raise NotApplicable("no ratings of responses to the prompts of training")
    rated, train = inputs.ratings, inputs.train
    width = int(train.context.shape[1])

    def fit() -> MultiObjectiveRewards:
        model = MultiObjectiveRewards(n_context_features=width, **settings)
        ratings = (rated.features, rated.scores)
        return model.fit(train.pairs(), train.y, sample_weight=train.weight, ratings=ratings)

    fitted = stages.get(("multi_objective", *sorted(settings.items())), fit)
    return predict_after_labels(inputs, lambda: deepcopy(fitted), contexts=True)
