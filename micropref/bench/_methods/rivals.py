"""Rivals that are fitted with the annotators and then learn the labels of each context or user; knows none of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from micropref.bench._methods.steps import NotApplicable, Stages, fit_with_annotators, predict_after_labels
from micropref.bench._tasks import MethodInputs


def run_rival(
    estimator: type,
    inputs: MethodInputs,
    settings: Mapping[str, Any],
    stages: Stages,
    *,
    contexts: bool = False,
    **fixed: Any,
) -> np.ndarray:
    """An estimator with these settings and those that are `fixed` for its kind of method."""
    if contexts and not inputs.has_contexts:
        raise NotApplicable("no contexts")
    chosen = {**settings, **fixed}
    seeded = {"random_state": inputs.seed} if "random_state" in inspect.signature(estimator).parameters else {}
    width = {"n_context_features": inputs.train.context.shape[1]} if contexts else {}
    model = estimator(**chosen, **seeded, **width)
    key = (estimator.__name__, *sorted(chosen.items()))
    fitted = fit_with_annotators(inputs, model, key, stages, contexts=contexts)
    return predict_after_labels(inputs, lambda: deepcopy(fitted), contexts=contexts)
