"""Users who scatter around heads, and the choice between them, heads and one reward; labels are history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref._reward.users import fit_first_stage
from micropref.bench._methods.router import predict_from_history
from micropref.bench._methods.steps import NotApplicable, Stages
from micropref.bench._tasks import MethodInputs
from micropref.hierarchical import HierarchicalBradleyTerry


def run_hierarchical(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Labels are the history of their context or user."""
    chosen = {name: settings[name] for name in ("n_components", "rank")}

    def fit() -> Any:
        model = HierarchicalBradleyTerry(**chosen, random_state=inputs.seed)
        train = inputs.train
        return model.fit(train.difference, train.y, sample_weight=train.weight, groups=inputs.annotators)

    return _run(inputs, ("hierarchical", *sorted(chosen.items())), fit, stages)


def run_hierarchical_permuted(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """The control of it: every context or user has as many labels, of random others."""
    return np.concatenate([run_hierarchical(one, settings, stages) for one in inputs.with_permuted_labels()])


def run_auto(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """What `PreferenceModel` fits with ``users="auto"``; labels are history."""

    def fit() -> Any:
        train = inputs.train
        assert train.y is not None
        preferred_first = train.difference * np.where(train.y == 1, 1, -1).astype(np.float32)[:, None]
        data = preferred_first, train.weight, inputs.annotators
        parameters = {"n_components": settings["n_components"], "random_state": inputs.seed}
        return fit_first_stage("auto", None, parameters, 0, data)[0]

    return _run(inputs, ("auto", settings["n_components"]), fit, stages)


def _run(inputs: MethodInputs, key: tuple[Any, ...], fit: Any, stages: Stages) -> np.ndarray:
    if not inputs.has_annotators:
        raise NotApplicable("no annotators")
    return predict_from_history(inputs, stages.get(key, fit))
