"""Mixtures of Bradley-Terry heads that no label changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref.bench._methods.steps import NotApplicable, Stages, predict_without_labels
from micropref.bench._tasks import MethodInputs
from micropref.mixture import MixtureBradleyTerry


def fit_mixture(
    inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages, n_components: int | None = None
) -> Any:
    """Heads from all training rows, with their annotators as groups unless there is one head alone."""
    k = settings["n_components"] if n_components is None else n_components
    gated = bool(settings.get("training_contexts")) and k > 1
    if gated and not inputs.has_contexts:
        raise NotApplicable("no contexts")
    grouped = k > 1 and not gated
    groups = inputs.annotators if grouped and inputs.has_annotators else None
    width = inputs.train.context.shape[1] if gated else 0
    key = ("mixture", k, settings["alpha"], gated, None if groups is None else groups.tobytes())

    def fit() -> MixtureBradleyTerry:
        model = MixtureBradleyTerry(
            n_components=k, n_context_features=width, alpha=settings["alpha"], random_state=inputs.seed
        )
        X = inputs.train.pairs() if gated else inputs.train.difference
        return model.fit(X, inputs.train.y, sample_weight=inputs.train.weight, groups=groups)

    return stages.get(key, fit)


def run_single(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """One head for all users."""
    head = fit_mixture(inputs, settings, stages, 1)
    return predict_without_labels(inputs, head.decision_function(inputs.test.difference))


def run_static(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Several heads with the weights that training found."""
    heads = fit_mixture(inputs, settings, stages)
    X = inputs.test.pairs() if heads.n_context_features else inputs.test.difference
    return predict_without_labels(inputs, heads.decision_function(X))
