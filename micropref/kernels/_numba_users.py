"""The compiled filter of users' votes: user after user, each vote under each component, nothing gathered or scattered.

The same arithmetic as `micropref._engine.gaussian_users` and `logistic_normal`, which say what it means. Functions
release the interpreter lock; users are split over threads of the caller's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from micropref.kernels import _threads

_LEAST = 1e-250
_LARGEST = 1e8
_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO_PI = math.sqrt(2 * math.pi)
# Operations of one vote besides those on its covariance, in numbers of X as `_threads.split` counts them.
_VOTE = 64


@njit(nogil=True, cache=True)
def _log_ndtr(t):
    if t > -36.0:
        return math.log(0.5 * math.erfc(-t * _ROOT_HALF))
    u = 1.0 / (t * t)
    return -0.5 * t * t - math.log(-t * _ROOT_TWO_PI) + math.log1p(-u * (1.0 - 3.0 * u * (1.0 - 5.0 * u)))


@njit(nogil=True, cache=True)
def _tails(mean, variance, scales, weights):
    """Moments where Φ underflows under every normal."""
    peak = -np.inf
    for j in range(scales.shape[0]):
        peak = max(peak, math.log(weights[j]) + _log_ndtr(mean / math.sqrt(scales[j] ** 2 + variance)))
    total = slope = within = square = 0.0
    for j in range(scales.shape[0]):
        inverse = 1.0 / math.sqrt(scales[j] ** 2 + variance)
        t = mean * inverse
        log_tail = _log_ndtr(t)
        share = math.exp(math.log(weights[j]) + log_tail - peak)
        ratio = math.exp(-0.5 * t * t - log_tail) / _ROOT_TWO_PI
        total += share
        slope += share * inverse * ratio
        square += share * (inverse * ratio) ** 2
        within += share * inverse * inverse * ratio * max(ratio + t, 0.0)
    slope /= total
    return peak + math.log(total), slope, max(within / total - (square / total - slope * slope), 0.0)


@njit(nogil=True, cache=True)
def _of_normals(mean, variance, scales, weights):
    z = first = second = 0.0
    for j in range(scales.shape[0]):
        inverse = 1.0 / math.sqrt(scales[j] * scales[j] + variance)
        t = min(max(mean * inverse, -_LARGEST), _LARGEST)
        density = weights[j] * inverse * math.exp(-0.5 * t * t)
        z += weights[j] * 0.5 * math.erfc(-t * _ROOT_HALF)
        first += density
        second += density * inverse * t
    if z < _LEAST:
        return _tails(mean, variance, scales, weights)
    slope = first / _ROOT_TWO_PI / z
    return math.log(z), slope, max(slope * slope + second / _ROOT_TWO_PI / z, 0.0)


@njit(nogil=True, cache=True)
def moments(mean, variance, scales, weights):
    """log E σ(x), its slope and its curvature, of one x ~ N(mean, variance)."""
    if variance == 0.0:
        small = math.exp(-abs(mean))
        large = 1.0 / (1.0 + small)
        wrong = small * large if mean >= 0.0 else large
        return min(mean, 0.0) - math.log1p(small), wrong, small * large * large
    if mean < -variance:
        log_z, slope, curvature = _of_normals(-mean - variance, variance, scales, weights)
        return mean + 0.5 * variance + log_z, 1.0 - slope, curvature
    return _of_normals(mean, variance, scales, weights)


@njit(nogil=True, cache=True)
def _vote(mean, covariance, margin, z, outside, share, h, scales, weights):
    """Take one vote, or a share of one, into mean and covariance; its log Z."""
    q = z.shape[0]
    inside = 0.0
    centre = margin
    for i in range(q):
        total = 0.0
        for j in range(q):
            total += covariance[i, j] * z[j]
        h[i] = total
        inside += total * z[i]
        centre += mean[i] * z[i]
    inside = max(inside, 0.0)
    log_z, slope, curvature = moments(centre, inside + outside, scales, weights)
    if share != 1.0:
        left = max(1.0 - curvature * inside, 1e-12)
        shrink = share / (left + share * curvature * inside)
        log_z, slope, curvature = share * log_z, slope * shrink, curvature * shrink
    for i in range(q):
        mean[i] += slope * h[i]
        for j in range(q):
            covariance[i, j] -= curvature * h[i] * h[j]
    return log_z


@njit(nogil=True, cache=True)
def _filter(
    first, last, evidence, means, covariances, order, starts, counts, margins, coordinates, outside, weight,
    scales, weights, most_repeats,
):  # fmt: skip
    n_components, q = means.shape[0], means.shape[2]
    h = np.zeros(q)
    for k in range(n_components):
        for user in range(first, last):
            mean, covariance = means[k, user], covariances[k, user]
            log_z = evidence[k, user]
            for place in range(starts[user], starts[user] + counts[user]):
                row = order[place]
                margin, z, variance = margins[k, row], coordinates[row], outside[k, row]
                share = weight[row] if weight.shape[0] else 1.0
                repeats = min(math.floor(share), most_repeats)
                for _ in range(repeats):
                    log_z += _vote(mean, covariance, margin, z, variance, 1.0, h, scales, weights)
                if share > repeats:
                    log_z += _vote(mean, covariance, margin, z, variance, share - repeats, h, scales, weights)
            evidence[k, user] = log_z


def filter_votes(
    beliefs: tuple[Any, Any, Any],
    rounds: tuple[Any, Any, Any],
    votes: tuple[Any, Any, Any],
    weight: Any,
    normals: tuple[Any, Any],
    most_repeats: int,
) -> None:
    """`micropref._engine.gaussian_users.filter_votes` of contiguous beliefs, in place, without decay.

    Parameters
    ----------
    beliefs : (evidence, means, covariances)
    rounds : (order, starts, counts) of `VoteRounds`
    votes : (margins, coordinates, outside_variance)
    weight : as there
    normals : (scales, weights) of the logistic function as a mixture
    most_repeats : int
    """
    order, starts, counts = (np.ascontiguousarray(a, np.intp) for a in rounds)
    margins, coordinates, outside = (np.ascontiguousarray(a, np.float64) for a in votes)
    weight = np.ascontiguousarray(np.zeros(0) if weight is None else weight, np.float64)
    k, q = beliefs[1].shape[0], beliefs[1].shape[2]

    def part(some: slice) -> None:
        _filter(
            some.start, some.stop, *beliefs, order, starts, counts, margins, coordinates, outside, weight,
            *normals, most_repeats,
        )  # fmt: skip

    n_users = len(counts)
    slices = _threads.split(max(n_users, 1), len(order) * k * (q * q + _VOTE) // max(n_users, 1))
    _threads.run(part, [some for some in slices if some.start < n_users])
