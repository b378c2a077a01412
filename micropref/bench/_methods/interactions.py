"""Contexts that act on the responses: their products with differences, in front of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from micropref.bench._methods.steps import NotApplicable, Stages, predict_without_labels
from micropref.bench._streams import Stream, generator
from micropref.bench._tasks import MethodInputs
from micropref.features.interactions import ContextInteractions
from micropref.mixture import MixtureBradleyTerry


def run_interactions(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """One reward, or several behind a gate, of responses and of their products with the context."""
    if not inputs.has_contexts:
        raise NotApplicable("no contexts")
    if not inputs.width:
        raise NotApplicable("contexts and responses are not of one space")
    width = inputs.train.context.shape[1]

    def products() -> tuple[ContextInteractions, np.ndarray]:
        X = inputs.train.pairs()
        # The first of several blocks is the prompt; a criterion is what it says beyond it.
        given = 0 if width > inputs.width else None
        transform = ContextInteractions(width, width=inputs.width, given=given)
        transform.fit(X, sample_weight=inputs.train.weight)
        return transform, transform.transform(X)

    transform, X = stages.get(("products",), products)
    k, alpha = settings["n_components"], settings["alpha"]

    def fit() -> MixtureBradleyTerry:
        model = MixtureBradleyTerry(k, n_context_features=width, alpha=alpha, random_state=inputs.seed)
        return model.fit(X, inputs.train.y, sample_weight=inputs.train.weight)

    model = stages.get(("interactions", k, alpha), fit)
    return predict_without_labels(inputs, model.decision_function(transform.transform(inputs.test.pairs())))


def run_interactions_permuted(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """The control of it: every test row has the context of a random other one."""
    order = generator(inputs.seed, Stream.CONTROLS).permutation(len(inputs.test))
    test = replace(inputs.test, context=inputs.test.context[order])
    return run_interactions(replace(inputs, test=test), settings, stages)
