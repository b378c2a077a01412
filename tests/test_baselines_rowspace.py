"""Gradients and inner solvers of the rivals with rewards of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards_cases import training_rows
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from micropref.baselines._categorical_objective import CategoricalObjective
from micropref.baselines._mean_variance_objective import MeanVarianceObjective
from micropref.baselines._profile_objective import ProfileObjective
from micropref.baselines._rowspace import deviations, row_basis


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("objective", "n_parameters"),
    [
        (lambda rows: MeanVarianceObjective(rows, 0, 0.1, 0.2), 8),
        (lambda rows: MeanVarianceObjective(rows, 2, 0.1, 0.2), 16),
        (lambda rows: CategoricalObjective(rows, np.array([0.5, 2.0, 3.0]), 0.1, 0.3), 15),
        (lambda rows: ProfileObjective(rows, 0.1, 1.5), 4),
    ],
    ids=["diagonal", "low rank", "categorical", "profile"],
)
def test_gradients_are_finite_differences(objective, n_parameters, size):
    rng = np.random.default_rng(int(10 * size))
    function = objective(training_rows()).value_and_gradient
    for _ in range(5):
        at, direction = size * rng.normal(size=n_parameters), rng.normal(size=n_parameters)
        step = 1e-5
        slope = (function(at + step * direction)[0] - function(at - step * direction)[0]) / (2 * step)
        assert slope == pytest.approx(function(at)[1] @ direction, rel=1e-5, abs=1e-8)


@given(seed=st.integers(0, 1000), m=st.integers(1, 9), d=st.integers(1, 5), penalty=st.sampled_from([0.01, 1.0, 50.0]))
@settings(max_examples=30, deadline=None)
def test_newton_in_row_space_finds_the_minimum_of_all_features(seed, m, d, penalty):
    rng = np.random.default_rng(seed)
    D, base = 3 * rng.normal(size=(2, m, d)), rng.normal(size=(2, m))
    signs, weight = rng.choice([-1.0, 1.0], size=(2, m)), rng.exponential(size=(2, m))
    weight[1, -1] = 0  # filled up
    D[1, -1] = 0
    basis, root = row_basis(D)
    np.testing.assert_allclose(root @ np.swapaxes(basis, 1, 2), D, atol=1e-12)
    found = deviations(root, base, signs, weight, penalty)
    assert found.converged
    for problem in range(2):

        def slow(v, i=problem):
            margins = signs[i] * (base[i] + D[i] @ v)
            value = -weight[i] @ log_expit(margins) + 0.5 * penalty * v @ v
            return value, penalty * v - (weight[i] * signs[i] * expit(-margins)) @ D[i]

        v = basis[problem] @ found.variables[problem]
        margins = signs[problem] * (base[problem] + D[problem] @ v)
        np.testing.assert_allclose(found.pull[problem], (weight * signs)[problem] * expit(-margins), atol=1e-9)
        assert np.abs(slow(v)[1]).max() < 1e-6 * (1 + penalty)
        assert found.loss[problem] == pytest.approx(slow(v)[0], rel=1e-9)
        twin = minimize(slow, np.zeros(d), jac=True, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(v, twin.x, atol=2e-5)


def test_newton_survives_a_start_from_where_a_whole_step_leads_upwards():
    rng = np.random.default_rng(0)
    D, base = 5 * rng.normal(size=(1, 12, 3)), 30 * rng.normal(size=(1, 12))
    found = deviations(row_basis(D)[1], base, np.ones((1, 12)), np.ones((1, 12)), 1e-3, np.full((1, 3), 40.0))
    again = deviations(row_basis(D)[1], base, np.ones((1, 12)), np.ones((1, 12)), 1e-3)
    assert found.converged
    assert found.loss == pytest.approx(again.loss)
