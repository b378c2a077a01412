"""A shared-base ensemble with equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref.baselines.shared_base import SharedBaseEnsemble
from micropref.bench._methods.steps import Stages, fit_with_annotators, predict_without_labels
from micropref.bench._tasks import MethodInputs


def fit_ensemble(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> Any:
    """The ensemble of all training rows."""
    chosen = {name: settings[name] for name in ("n_components", "alpha", "prior_margin")}
    model = SharedBaseEnsemble(**chosen, random_state=inputs.seed)
    return fit_with_annotators(inputs, model, ("ensemble", *sorted(chosen.items())), stages)


def run_ensemble(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """The ensemble before any label."""
    ensemble = fit_ensemble(inputs, settings, stages)
    return predict_without_labels(inputs, ensemble.decision_function(inputs.test.difference))
