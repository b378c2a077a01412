"""HyRe: labels reweight heads that are given, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from micropref.baselines.hyre import HypothesisReweighting
from micropref.bench._methods.steps import Stages, fit_with_annotators, predict_after_labels
from micropref.bench._tasks import MethodInputs


def run_hyre(
    fit_heads: Callable[[MethodInputs, Mapping[str, Any], Stages], Any] | None,
    inputs: MethodInputs,
    settings: Mapping[str, Any],
    stages: Stages,
) -> np.ndarray:
    """HyRe on the heads that `fit_heads` returns; on random heads for None."""
    chosen = {name: settings[name] for name in ("temperature", "average")}
    heads: Any = "random"
    if fit_heads is None:
        chosen["n_components"] = settings["n_components"]
    else:
        heads = fit_heads(inputs, settings, stages)
    model = HypothesisReweighting(heads, **chosen, random_state=inputs.seed)
    key = ("hyre", "random" if fit_heads is None else fit_heads.__qualname__, *sorted(settings.items()))
    fitted = fit_with_annotators(inputs, model, key, stages)
    return predict_after_labels(inputs, lambda: deepcopy(fitted))
