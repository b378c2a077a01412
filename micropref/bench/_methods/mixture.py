"""Mixtures of Bradley-Terry heads that no label changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from micropref.bench._methods.steps import NotApplicable, Stages, predict_without_labels
from micropref.bench._tasks import MethodInputs
from micropref.kernels._pointwise import log_sigmoid
from micropref.mixture import MixtureBradleyTerry


def fit_mixture(
    inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages, n_components: int | None = None
) -> Any:
    """Heads from all training rows, with their annotators as groups unless there is one head alone."""
    k = settings["n_components"] if n_components is None else n_components
    width = _gate_width(inputs, settings) if k > 1 else 0
    grouped = k > 1 and not width
    groups = inputs.annotators if grouped and inputs.has_annotators else None
    key = ("mixture", k, settings["alpha"], width, None if groups is None else groups.tobytes())

    def fit() -> MixtureBradleyTerry:
        model = MixtureBradleyTerry(
            n_components=k, n_context_features=width, alpha=settings["alpha"], random_state=inputs.seed
        )
        return model.fit(inputs.train.pairs(width), inputs.train.y, sample_weight=inputs.train.weight, groups=groups)

    return stages.get(key, fit)


def _gate_width(inputs: MethodInputs, settings: Mapping[str, Any]) -> int:
    """How many context columns the gate of the heads reads: the prompt's, all, or none."""
    if settings.get("prompts"):
        if not inputs.n_prompt:
            raise NotApplicable("no prompts among the contexts")
        return inputs.n_prompt
    if not settings.get("training_contexts"):
        return 0
    if not inputs.has_contexts:
        raise NotApplicable("no contexts")
    return int(inputs.train.context.shape[1])


def run_best_head(
    fit_heads: Callable[[MethodInputs, Mapping[str, Any], Stages], Any],
    inputs: MethodInputs,
    settings: Mapping[str, Any],
    stages: Stages,
) -> np.ndarray:
    """The head that is right about most labels of a context or user, the likelier one of two; before any, all."""
    heads = fit_heads(inputs, settings, stages)
    width = int(heads.n_context_features)
    weights = heads.coef_.T
    pool, test = (rows.difference.astype(np.float64) @ weights for rows in (inputs.pool, inputs.test))
    assert inputs.pool.y is not None
    toward = pool * np.where(inputs.pool.y == 1, 1, -1)[:, None]
    merit = (toward > 0) + 1e-3 * np.clip(log_sigmoid(toward), -100, 0)
    found = []
    for ranks in inputs.ranks:
        for budget in inputs.budgets:
            odds = np.array(heads.decision_function(inputs.test.pairs(width)), dtype=np.float64)
            for target in np.unique(inputs.test_target):
                labelled = (ranks < budget) & (inputs.pool_target == target)
                if labelled.any():
                    best = np.average(merit[labelled], axis=0, weights=inputs.pool.weight[labelled]).argmax()
                    rows = inputs.test_target == target
                    odds[rows] = test[rows, best]
            found.append(odds)
    return np.reshape(found, (len(inputs.ranks), len(inputs.budgets), len(test)))


def run_single(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """One head for all users."""
    head = fit_mixture(inputs, settings, stages, 1)
    return predict_without_labels(inputs, head.decision_function(inputs.test.difference))


def run_static(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Several heads with the weights that training found."""
    heads = fit_mixture(inputs, settings, stages)
    return predict_without_labels(inputs, heads.decision_function(inputs.test.pairs(heads.n_context_features)))
