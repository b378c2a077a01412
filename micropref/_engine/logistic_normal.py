"""The logistic function of a normal variable: E σ(x), x ~ N(mean, variance), and the derivatives of its logarithm.

The logistic distribution is a scale mixture of normal ones (Andrews and Mallows, 1974), so that with the few weights
c_j and scales s_j of `WEIGHTS` and `SCALES` (cf. Monahan and Stefanski, 1992)

    σ(x) = Σ_j c_j Φ(x / s_j),        E σ(x) = Σ_j c_j Φ(t_j),  t_j = mean κ_j,  κ_j = 1 / √(s_j² + variance),

at any variance. The first equation holds to 5e-6, and to 5e-5 of σ itself for x > −30. Where the mean lies far below,
the tails of normal variables end too early; there the tilted variable takes over, exactly:

    E σ(x) = exp(mean + variance / 2) E σ(x'),    x' ~ N(−mean − variance, variance).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from micropref.kernels._pointwise import log_sigmoid, sigmoid

__all__ = ["SCALES", "WEIGHTS", "expected_log_odds", "moments"]

Floats = NDArray[np.float64]

#: Scales s_j, and weights c_j with sum 1: the least largest relative error of Σ_j c_j Φ(x / s_j) for x in [-30, 0].
SCALES = np.array(
    [
        0.91879451,
        1.25027573,
        1.64479427,
        2.10376278,
        2.61503376,
        3.16649152,
        3.75777005,
        4.40323826,
        5.13769642,
        6.04853824,
    ]
)
WEIGHTS = np.array(
    [
        *(0.0564039591536454, 0.261866145517159, 0.338914142089006, 0.223271661669639, 0.0911822738266758),
        *(0.0240111059008049, 0.00396526261758107, 3.70067007586e-4, 1.523491656457e-5, 1.470001698066e-7),
    ]
)
WEIGHTS /= WEIGHTS.sum()

_SQUARES = SCALES**2
_DENSITIES = WEIGHTS / np.sqrt(2 * np.pi)
# Below, products of probabilities of the tails would be no normal numbers.
_LEAST = 1e-250
# Beyond, every t is as good as infinite.
_LARGEST = 1e8


def moments(mean: Any, variance: Any) -> tuple[Floats, Floats, Floats]:
    """log E σ(x) of x ~ N(mean, variance), its derivative with respect to the mean, and minus the second one.

    Parameters
    ----------
    mean, variance : array_like
        Of shapes that broadcast; variances are not negative. Where one is 0, the results are those of log σ itself.

    Returns
    -------
    log_z, slope, curvature : ndarray of float64
        In nats; slope in (0, 1], curvature not negative.
    """
    mean, variance = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(variance, np.float64))
    shape = mean.shape
    mean, variance = np.atleast_1d(mean), np.atleast_1d(variance)
    tilted = mean < -variance
    # Of the tilted variable, or of x itself.
    centre = np.where(tilted, -mean - variance, mean)
    log_z, slope, curvature = _of_normals(centre, variance)
    exact = log_sigmoid(mean)
    right, wrong = sigmoid(mean), sigmoid(-mean)
    fixed = variance == 0
    return (
        np.where(fixed, exact, np.where(tilted, mean + 0.5 * variance + log_z, log_z)).reshape(shape),
        np.where(fixed, wrong, np.where(tilted, 1.0 - slope, slope)).reshape(shape),
        np.where(fixed, right * wrong, curvature).reshape(shape),
    )


def expected_log_odds(mean: Any, variance: Any) -> Floats:
    """log E σ(x) − log E σ(−x) of x ~ N(mean, variance): exactly odd in the mean, which it is where the variance is 0.

    The margin that a head without variance would need to give the same probability.

    Parameters
    ----------
    mean, variance : array_like
        As in `moments`.

    Returns
    -------
    log_odds : ndarray of float64
        In nats.
    """
    mean, variance = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(variance, np.float64))
    size = np.abs(mean)
    log_wrong = np.minimum(moments(-size, variance)[0], -np.log(2))
    odds = np.log1p(-np.exp(log_wrong)) - log_wrong
    return np.asarray(np.where(variance == 0, mean, np.copysign(odds, mean)))


def _of_normals(mean: Floats, variance: Floats) -> tuple[Floats, Floats, Floats]:
    """The moments by the mixture of normals alone."""
    inverse = 1.0 / np.sqrt(_SQUARES + variance[..., None])
    t = np.clip(mean[..., None] * inverse, -_LARGEST, _LARGEST)
    density = np.exp(-0.5 * t * t) * (_DENSITIES * inverse)
    z = ndtr(t) @ WEIGHTS
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = density.sum(axis=-1) / z
        curvature = slope * slope + (density * inverse * t).sum(axis=-1) / z
        log_z = np.log(z)
    tail = z < _LEAST
    if tail.any():
        log_z[tail], slope[tail], curvature[tail] = _of_tails(t[tail], inverse[tail])
    return log_z, slope, np.maximum(curvature, 0.0)


def _of_tails(t: Floats, inverse: Floats) -> tuple[Floats, Floats, Floats]:
    """The same where Φ(t_j) underflows, (n,) from (n, J)."""
    parts = np.log(WEIGHTS) + log_ndtr(t)
    log_z = np.logaddexp.reduce(parts, axis=-1)
    share = np.exp(parts - log_z[:, None])
    # φ/Φ, whose difference from −t is left of it in the curvature.
    ratio = np.exp(-0.5 * t * t - 0.5 * np.log(2 * np.pi) - log_ndtr(t))
    slope = (share * inverse * ratio).sum(axis=-1)
    within = (share * inverse**2 * ratio * np.maximum(ratio + t, 0.0)).sum(axis=-1)
    between = (share * (inverse * ratio - slope[:, None]) ** 2).sum(axis=-1)
    return log_z, slope, within - between
