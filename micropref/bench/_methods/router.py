"""A router over frozen heads: labels train a gate of contexts, or are the history of their context or user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref.bench._methods.mixture import fit_mixture
from micropref.bench._methods.steps import NotApplicable, Stages, predict_after_labels
from micropref.bench._tasks import MethodInputs
from micropref.router import ContextRouter


def run_context(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Labels train a gate of the context; with `history` they are also the history of their context or user."""
    if not inputs.has_contexts:
        raise NotApplicable("no contexts")
    heads = fit_mixture(inputs, settings, stages)
    test, unrouted = inputs.test.pairs(), inputs.test.pairs(heads.n_context_features)
    found, weights = [], []
    for ranks in inputs.ranks:
        for budget in inputs.budgets:
            labelled = np.flatnonzero(ranks < budget)
            if not len(labelled):
                found.append(heads.decision_function(unrouted))
                continue
            labels = inputs.pool.select(labelled)
            X = labels.pairs()
            router = ContextRouter(
                heads,
                gate=settings["gate"],
                alpha=settings["gate_alpha"],
                history_temperature=settings["history_temperature"],
                random_state=inputs.seed,
            ).fit(X, labels.y, sample_weight=labels.weight)
            groups = None
            if settings["history"]:
                targets = inputs.pool_target[labelled]
                router.partial_fit(X, labels.y, sample_weight=labels.weight, groups=targets)
                groups = inputs.test_target
            found.append(router.decision_function(test, groups=groups))
            if budget == inputs.budgets[-1]:
                weights.append(router.mixture_weights(test, groups=groups))
    if weights:
        # Mean weights of the heads in each context, by the most labels.
        mean = np.mean(weights, axis=0)
        targets = np.unique(inputs.test_target)
        stages.kept["weights"] = np.array([mean[inputs.test_target == one].mean(axis=0) for one in targets])
    return np.reshape(found, (len(inputs.ranks), len(inputs.budgets), len(test)))


def run_history(inputs: MethodInputs, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Labels are the history of their context or user; `permute` makes controls of it."""
    if settings["permute"] == "annotators":
        if not inputs.has_annotators:
            raise NotApplicable("no annotators to permute")
        inputs = inputs.with_permuted_annotators()
    elif settings["permute"] == "labels":
        plain = {**settings, "permute": ""}
        return np.concatenate([run_history(one, plain, stages) for one in inputs.with_permuted_labels()])
    elif settings["permute"]:
        raise ValueError(f"permute: expected 'annotators', 'labels' or '', got {settings['permute']!r}")
    heads = fit_mixture(inputs, settings, stages)
    return predict_from_history(inputs, heads, history_temperature=settings["history_temperature"])


def predict_from_history(inputs: MethodInputs, heads: Any, **settings: Any) -> np.ndarray:
    """Log-odds of a first stage that is routed by the labels of each context or user alone."""
    contexts = bool(heads.n_context_features)

    def start() -> ContextRouter:
        return ContextRouter(heads, random_state=inputs.seed, **settings)

    unknown = heads.decision_function(inputs.test.pairs(heads.n_context_features))
    return predict_after_labels(inputs, start, contexts=contexts, unknown=unknown)
