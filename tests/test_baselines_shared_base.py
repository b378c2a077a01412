"""SharedBaseEnsemble: its objective, its diversity, where it must win."""

from __future__ import annotations

import numpy as np
import pytest
from heads_cases import assert_best, compare, drawn_labels, normal, standard, training_rows
from scipy.optimize import check_grad
from scipy.special import expit

from micropref.baselines import SharedBaseEnsemble
from micropref.baselines.shared_base import _EnsembleObjective


def test_gradient_of_the_ensemble():
    data = training_rows(2)
    prior = np.random.default_rng(1).normal(size=(3, 4))
    objective = _EnsembleObjective(data, prior, 0.2)
    vector = np.random.default_rng(2).normal(size=12)
    error = check_grad(
        lambda v: objective.value_and_gradient(v)[0], lambda v: objective.value_and_gradient(v)[1], vector, epsilon=1e-6
    )
    assert error < 1e-5


def test_the_ensemble_stays_diverse_where_the_rows_say_nothing():
    rng = np.random.default_rng(0)
    D = rng.normal(size=(2000, 6)) * [1, 1, 1, 1, 0.01, 0.01]
    y = (rng.random(2000) < expit(2 * D[:, 0])).astype(int)
    model = SharedBaseEnsemble(64, alpha=1e-3, prior_margin=1.0, random_state=0).fit(D, y)
    spread = model.coef_.std(axis=0)
    assert spread[:4].max() < 0.1 * spread[4:].min()
    np.testing.assert_allclose(model.coef_[:, 4:], model.prior_coef_[:, 4:], rtol=0.2, atol=0.05)
    margins = D @ model.prior_coef_.T
    np.testing.assert_allclose(np.sqrt((margins**2).mean(axis=0)), 1, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_shared_base_ensemble_wins_where_training_left_something_open(seed):
    rng = np.random.default_rng(seed)
    shared = np.r_[3 / np.sqrt(12) * rng.normal(size=10), 0, 0]
    X = rng.normal(size=(1500, 12)) * np.r_[np.ones(10), 0.02, 0.02]
    y = drawn_labels(rng, X @ shared)
    own = np.hstack([np.zeros((100, 10)), 2 * rng.normal(size=(100, 2))])
    candidates = standard(seed, X, y, n_components=2)
    candidates["shared"] = SharedBaseEnsemble(64, alpha=1e-3, prior_margin=3.0, random_state=seed).fit(X, y)
    candidates["without priors"] = SharedBaseEnsemble(64, alpha=1e-3, prior_margin=0.0).fit(X, y)
    found = compare(seed, 8, shared + own, normal(12), candidates)
    assert_best(found, "shared", accuracy=0.03, nats=0.05)
