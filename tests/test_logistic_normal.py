"""E σ(x) of normal x and its derivatives, against quadrature and in its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micropref._engine.logistic_normal import SCALES, WEIGHTS, expected_log_odds, moments
from micropref.kernels._pointwise import log_sigmoid, sigmoid

MEANS = st.floats(-60, 60)
VARIANCES = st.floats(1e-8, 1e4)


def by_quadrature(mean: float, variance: float) -> tuple[float, float, float]:
    """log E σ(x) on a fine grid, and its derivatives from the moments of the tilted density."""
    deviation = np.sqrt(variance)
    low, high = min(mean, mean + variance) - 14 * deviation, max(mean, mean + variance) + 14 * deviation
    x = np.linspace(low, high, 200_001)
    log_density = log_sigmoid(x) - 0.5 * (x - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    peak = log_density.max()
    density = np.exp(log_density - peak)
    total = np.trapezoid(density, x)
    centre = np.trapezoid(density * x, x) / total
    spread = np.trapezoid(density * (x - centre) ** 2, x) / total
    return peak + np.log(total), (centre - mean) / variance, 1 / variance - spread / variance**2


@given(MEANS, st.floats(1e-2, 400))
def test_moments_are_those_of_quadrature(mean, variance):
    found = moments(mean, variance)
    wanted = by_quadrature(mean, variance)
    np.testing.assert_allclose(found[0], wanted[0], atol=3e-5)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-4)
    np.testing.assert_allclose(found[2], wanted[2], atol=3e-4)


@given(st.floats(-30, 30), VARIANCES)
def test_derivatives_are_those_of_finite_differences(mean, variance):
    step = 1e-4 * np.sqrt(1 + variance)
    below, here, above = (moments(mean + i * step, variance) for i in (-1, 0, 1))
    # The tilted variable takes over at −variance, where the two approximations differ in their last digits.
    if not mean - step <= -variance <= mean + step:
        np.testing.assert_allclose(here[1], (above[0] - below[0]) / (2 * step), atol=1e-6)
        np.testing.assert_allclose(-here[2], (above[1] - below[1]) / (2 * step), atol=1e-6)


@given(MEANS)
def test_no_variance_is_the_logistic_function_itself(mean):
    log_z, slope, curvature = moments(mean, 0.0)
    np.testing.assert_allclose(log_z, log_sigmoid(np.float64(mean)), rtol=1e-15)
    np.testing.assert_allclose(slope, sigmoid(np.float64(-mean)), rtol=1e-15)
    np.testing.assert_allclose(curvature, sigmoid(np.float64(-mean)) * sigmoid(np.float64(mean)), rtol=1e-14)
    assert expected_log_odds(mean, 0.0) == mean


@given(MEANS, VARIANCES)
def test_log_odds_are_odd_and_shrink_towards_zero(mean, variance):
    odds = expected_log_odds(mean, variance)
    assert expected_log_odds(-mean, variance) == -odds
    assert abs(odds) <= abs(mean) + 1e-4
    np.testing.assert_allclose(odds, moments(mean, variance)[0] - moments(-mean, variance)[0], rtol=1e-4, atol=1e-4)


@given(st.floats(-1e300, 1e300), st.floats(0, 1e300))
def test_extremes_are_numbers(mean, variance):
    log_z, slope, curvature = moments(mean, variance)
    assert np.isfinite([log_z, slope, curvature, expected_log_odds(mean, variance)]).all()
    assert log_z <= 1e-9
    assert 0 <= slope <= 1 + 1e-9
    assert 0 <= curvature <= 1


def test_far_in_the_tail_of_wide_variables():
    """Where Φ underflows; to −t²/2 the mixture's widest normal decides."""
    for mean, variance in ((-2e3, 2.5e3), (-1e4, 1e5), (-4e3, 4.5e3)):
        log_z, slope, _ = moments(mean, variance)
        wanted = by_quadrature(mean, variance)
        np.testing.assert_allclose(log_z, wanted[0], rtol=1e-3)
        np.testing.assert_allclose(slope, wanted[1], rtol=1e-2)


def test_the_normals_are_the_logistic_function():
    from scipy.special import ndtr

    x = np.linspace(-30, 30, 2001)
    found = ndtr(x[:, None] / SCALES) @ WEIGHTS
    np.testing.assert_allclose(found, sigmoid(x), atol=6e-6)
    np.testing.assert_allclose(found[x < 0], sigmoid(x[x < 0]), rtol=6e-5)
    assert WEIGHTS.sum() == pytest.approx(1, abs=1e-15)


def test_shapes_broadcast():
    found = moments(np.zeros((3, 1)), np.ones(4))
    assert [part.shape for part in found] == [(3, 4)] * 3
    assert expected_log_odds(np.zeros((3, 1)), np.ones(4)).shape == (3, 4)
