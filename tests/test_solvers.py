"""Solvers on functions whose minima are known."""

from __future__ import annotations

import dataclasses

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult, rosen, rosen_der

from micropref import MixtureBradleyTerry
from micropref._engine import solvers
from micropref._engine.gates import Gate
from micropref._engine.scaling import RunningNorms, gate_scale, gate_step, head_scale, head_step, with_penalties
from micropref._engine.solvers import Adam, lbfgs


def quadratic(target, curvature):
    return lambda x: (0.5 * float(curvature @ (x - target) ** 2), curvature * (x - target))


def test_lbfgs_finds_the_minimum():
    found = lbfgs(lambda x: (rosen(x), rosen_der(x)), np.full(5, -1.0), max_iter=500, tol=1e-8)
    np.testing.assert_allclose(found.vector, 1.0, atol=1e-6)
    assert found.converged
    assert found.value < 1e-12
    assert 5 < found.n_iter < 500


def test_lbfgs_reports_when_it_did_not_arrive():
    found = lbfgs(lambda x: (rosen(x), rosen_der(x)), np.full(5, -1.0), max_iter=3, tol=1e-8)
    assert not found.converged
    assert found.n_iter == 3
    assert "ITERATIONS" in found.message


@given(st.integers(0, 100), st.sampled_from([1e-12, 1.0, 1e12]))
def test_lbfgs_takes_the_same_steps_in_any_units(seed, unit):
    """A problem stated in other units, with the scale that says so, has the same minimum after as many iterations."""
    rng = np.random.default_rng(seed)
    target, curvature = rng.normal(size=4), rng.uniform(0.5, 3, size=4)
    usual = lbfgs(quadratic(target, curvature), np.zeros(4), max_iter=50, tol=1e-6)
    other = lbfgs(quadratic(target / unit, curvature * unit**2), np.zeros(4), scale=unit, max_iter=50, tol=1e-6)
    assert other.n_iter == usual.n_iter
    np.testing.assert_allclose(other.vector * unit, usual.vector, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(usual.vector, target, atol=1e-5)


def test_lbfgs_without_parameters_and_with_a_callback():
    found = lbfgs(lambda x: (7.0, x), np.empty(0), max_iter=5, tol=1e-5)
    assert (found.value, found.n_iter, found.converged) == (7.0, 0, True)
    seen = []
    found = lbfgs(lambda x: (rosen(x), rosen_der(x)), np.zeros(3), max_iter=100, tol=1e-6, callback=seen.append)
    assert len(seen) == found.n_iter
    assert seen[-1] == pytest.approx(found.value)


@pytest.mark.parametrize(
    ("slope", "precision", "arrived"), [(1e-6, 1e-10, True), (1e-6, 2e-16, False), (1.0, 1e-10, False)]
)
def test_a_line_search_that_finds_nothing_better(slope, precision, arrived, monkeypatch):
    """Where the gradient is below the noise of the objective that is convergence; where it is steep it is not."""
    gave_up = OptimizeResult(
        x=np.ones(2), fun=3.0, jac=np.array([0.0, -slope]), nit=4, status=2, success=False, message="ABNORMAL"
    )
    monkeypatch.setattr(solvers, "minimize", lambda *args, **options: gave_up)
    found = lbfgs(lambda x: (0.0, x), np.ones(2), max_iter=50, tol=1e-8, precision=precision)
    assert found.converged is arrived
    assert (found.value, found.n_iter, found.message) == (3.0, 4, "ABNORMAL")


def test_adam_walks_to_the_minimum():
    rng = np.random.default_rng(0)
    target = rng.normal(size=4)
    adam, x = Adam(0.05), np.zeros(4)
    for _ in range(2000):
        x = adam.step(x, quadratic(target, np.ones(4))(x)[1], 1.0)
    np.testing.assert_allclose(x, target, atol=1e-3)
    assert adam.count == 2000


def test_adam_is_the_published_rule():
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    adam, x = Adam(0.1), np.zeros(3)
    m, v, plain = np.zeros(3), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, start=1):
        x = adam.step(x, g, 1.0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        plain = plain - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-12)
        np.testing.assert_allclose(x, plain, rtol=1e-12)


@given(st.sampled_from([1e-20, 1e-3, 1e20]))
def test_adam_takes_the_same_steps_in_any_units(unit):
    gradients = np.random.default_rng(1).normal(size=(6, 3))
    usual, other = Adam(0.1), Adam(0.1)
    x, z = np.ones(3), np.ones(3) / unit
    for g in gradients:
        x, z = usual.step(x, g, 1.0), other.step(z, g * unit, unit)
    np.testing.assert_allclose(z * unit, x, rtol=1e-9)


def test_adam_step_size_is_per_parameter():
    moved = Adam(0.1).step(np.zeros(3), np.ones(3), 1.0, np.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(moved, [-0.1, -0.2, 0.0])


def test_running_norms_are_the_norms_of_all_batches():
    rng = np.random.default_rng(0)
    norms, weights = rng.exponential(size=(6, 2)), rng.exponential(size=6)
    running = RunningNorms()
    for pair, weight in zip(norms, weights, strict=True):
        running.observe(pair, weight)
    expected = np.sqrt(np.average(norms**2, axis=0, weights=weights))
    np.testing.assert_allclose([running.context, running.difference], expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_running_norms_of_extreme_sizes(size):
    running = RunningNorms()
    for norm in (3.0, 4.0):
        running.observe(np.array([norm, 2 * norm]) * size, 5.0)
    np.testing.assert_allclose([running.context, running.difference], size * np.sqrt([12.5, 50.0]), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ extreme numbers


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_scales_with_penalties_of_extreme_sizes(size):
    found = with_penalties(np.array([3.0, 3.0, 0.0]) * size, np.array([0.0, 16.0, 16.0]))
    np.testing.assert_allclose(found, [3 * size, max(3 * size, 4.0), 4.0], rtol=1e-12)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200])
def test_adam_takes_a_step_against_gradients_of_any_size(size):
    """Such as a penalty's where features are tiny and parameters large."""
    adam, x = Adam(0.1), np.zeros(3)
    for _ in range(3):
        moved = adam.step(x, np.array([1.0, -2.0, 0.0]) / size, size)
        assert np.isfinite(moved).all()
        assert (np.sign(moved - x) == ([-1, 1, 0] if size < 1 else [0, 0, 0])).all()
        x = moved


@pytest.mark.parametrize("power", [-98, -50, 50, 98])
@pytest.mark.parametrize("n_components", [1, 2])
def test_a_fit_in_extreme_units_is_the_fit_in_usual_ones(power, n_components):
    rng = np.random.default_rng(0)
    D = rng.normal(size=(200, 3))
    y = D[:, 0] * np.where(np.arange(200) % 8 < 4, -3, 3) + rng.logistic(size=200) > 0
    fits = []
    for X in (D, np.ldexp(D, round(power * np.log2(10)))):
        model = MixtureBradleyTerry(n_components, alpha=0.0, random_state=0)
        fits.append((model.fit(X, y, groups=np.arange(200) // 4), model.predict_proba(X)))
    (usual, expected), (other, found) = fits
    assert other.objective_ == pytest.approx(usual.objective_, rel=1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ read-only state


def test_adam_read_from_a_file_that_must_not_change_steps_on(tmp_path):
    gradients = np.random.default_rng(0).normal(size=(3, 200_000))
    adam, x = Adam(0.1), np.zeros(200_000)
    for gradient in gradients[:2]:
        x = adam.step(x, gradient, 1.0)
    joblib.dump(adam, tmp_path / "adam")
    mapped = joblib.load(tmp_path / "adam", mmap_mode="r")
    assert not mapped.first.flags.writeable
    assert not mapped.second.flags.writeable
    np.testing.assert_array_equal(mapped.step(x, gradients[2], 1.0), adam.step(x, gradients[2], 1.0))


def test_a_copy_of_adam_keeps_its_own_state():
    adam = Adam(0.1)
    adam.step(np.zeros(3), np.ones(3), 1.0)
    shallow = dataclasses.replace(adam)
    before = shallow.first.copy(), shallow.second.copy()
    adam.step(np.zeros(3), -np.ones(3), 1.0)
    np.testing.assert_array_equal((shallow.first, shallow.second), before)


def test_running_norms_that_are_read_only_go_on():
    running, other = RunningNorms(), RunningNorms()
    for each in (running, other):
        each.observe(np.array([1.0, 2.0]), 3.0)
    running.norms.flags.writeable = False
    for each in (running, other):
        each.observe(np.array([5.0, 1.0]), 2.0)
    np.testing.assert_array_equal(running.norms, other.norms)


def test_scales_are_usual_sizes_of_features():
    assert np.unique(head_scale(6.0, (2, 9))).tolist() == [2.0]
    assert np.unique(head_step((2, 4))).tolist() == [0.5]
    gate = Gate.create("mlp", 4, 3, 9)
    assert [np.unique(s).tolist() for s in gate_scale(10.0, gate)] == [[5.0], [1.0], [1.0], [1.0]]
    assert [np.unique(s).tolist() for s in gate_scale(0.0, gate)] == [[1.0]] * 4
    assert gate_scale(10.0, Gate.create("linear", 4, 1, 9)) == []
    weights, offsets = gate_step(Gate.create("linear", 4, 3, 9))
    assert np.unique(weights).tolist() == [0.5]
    assert np.unique(offsets).tolist() == [0.1]
    np.testing.assert_allclose(with_penalties(np.array([3.0, 0.0]), np.array([16.0, 0.25])), [5.0, 0.5])
