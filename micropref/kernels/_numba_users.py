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
# What is left of a variance without one vote, at least.
_LEAST_LEFT = 1e-12
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
def _log_integral(mean, variance, shift, precision):
    """log E exp(r s − ½ p s²) of s ~ N(mean, variance)."""
    scale = 1.0 + precision * variance
    exponent = shift * mean + 0.5 * shift * shift * variance - 0.5 * precision * mean * mean
    return exponent / scale - 0.5 * math.log(scale)


@njit(nogil=True, cache=True)
def _judge(belief, vote, site, h, scales, weights):
    """Take one vote, or a share of one, into a belief, and what it said before out of it; the change of log Z."""
    mean, covariance = belief
    margin, z, outside, share = vote
    q = z.shape[0]
    variance = centre = 0.0
    for i in range(q):
        total = 0.0
        for j in range(q):
            total += covariance[i, j] * z[j]
        h[i] = total
        variance += total * z[i]
        centre += mean[i] * z[i]
    variance = max(variance, 0.0)
    constant, shift, precision = site[0], site[1], site[2]
    left = max(1.0 - precision * variance, _LEAST_LEFT)
    aside = variance / left
    without = (centre - shift * variance) / left
    log_z, slope, curvature = moments(margin + without, aside + outside, scales, weights)
    left = max(1.0 - curvature * aside, _LEAST_LEFT)
    site[1] = share * (slope + curvature * without) / left
    site[2] = share * curvature / left
    site[0] = share * log_z - _log_integral(without, aside, site[1], site[2])
    taken_out = constant + _log_integral(without, aside, shift, precision)
    more = site[2] - precision
    shrink = 1.0 / max(1.0 + more * variance, _LEAST_LEFT)
    gain = (site[1] - shift - more * centre) * shrink
    for i in range(q):
        mean[i] += gain * h[i]
        for j in range(q):
            covariance[i, j] -= more * shrink * h[i] * h[j]
    return share * log_z - taken_out


@njit(nogil=True, cache=True)
def _judge_all(belief, votes, row, share, sites, first, h, normals, most_repeats, again):
    """All casts of one row, whose sites begin with the `first`; the change of log Z and the next one's first site."""
    margins, coordinates, outside = votes
    change = 0.0
    repeats = int(min(math.floor(share), most_repeats))
    rest = share - repeats
    if not again:
        sites[first : first + repeats + 1] = 0.0
    for _ in range(repeats):
        vote = (margins[row], coordinates[row], outside[row], 1.0)
        change += _judge(belief, vote, sites[first], h, normals[0], normals[1])
        first += 1
    if again and rest > 1.0:  # many votes, of which none is known without the others
        first += 1
    elif rest > 0.0:
        vote = (margins[row], coordinates[row], outside[row], rest)
        change += _judge(belief, vote, sites[first], h, normals[0], normals[1])
        first += 1
    return change, first


@njit(nogil=True, cache=True)
def _filter(users, beliefs, rounds, votes, weight, normals, most_repeats, passes):
    evidence, means, covariances = beliefs
    order, starts, counts = rounds
    margins, coordinates, outside = votes
    n_components, q = means.shape[0], means.shape[2]
    most = 0
    for user in range(users[0], users[1]):
        casts = counts[user]
        if weight.shape[0]:
            casts = 0
            for place in range(starts[user], starts[user] + counts[user]):
                share = weight[order[place]]
                repeats = int(min(math.floor(share), most_repeats))
                casts += repeats + (share > repeats)
        most = max(most, casts)
    h, sites = np.zeros(q), np.zeros((most, 3))
    for k in range(n_components):
        of_component = (margins[k], coordinates, outside[k])
        for user in range(users[0], users[1]):
            belief = (means[k, user], covariances[k, user])
            log_z = evidence[k, user]
            casts = 0
            for again in range(passes):
                if again and casts < 2:
                    break
                casts = 0
                for place in range(starts[user], starts[user] + counts[user]):
                    row = order[place]
                    share = weight[row] if weight.shape[0] else 1.0
                    change, casts = _judge_all(
                        belief, of_component, row, share, sites, casts, h, normals, most_repeats, again
                    )  # fmt: skip
                    log_z += change
            evidence[k, user] = log_z


def filter_votes(
    beliefs: tuple[Any, Any, Any],
    rounds: tuple[Any, Any, Any],
    votes: tuple[Any, Any, Any],
    weight: Any,
    normals: tuple[Any, Any],
    most_repeats: int,
    passes: int,
) -> None:
    """`micropref._engine.gaussian_users.filter_votes` of contiguous beliefs, in place, without decay.

    Parameters
    ----------
    beliefs : (evidence, means, covariances)
    rounds : (order, starts, counts) of `VoteRounds`
    votes : (margins, coordinates, outside_variance)
    weight : as there
    normals : (scales, weights) of the logistic function as a mixture
    most_repeats, passes : int
    """
    rounds = tuple(np.ascontiguousarray(a, np.intp) for a in rounds)  # type: ignore[assignment]
    votes = tuple(np.ascontiguousarray(a, np.float64) for a in votes)  # type: ignore[assignment]
    weight = np.ascontiguousarray(np.zeros(0) if weight is None else weight, np.float64)
    k, q = beliefs[1].shape[0], beliefs[1].shape[2]

    def part(some: slice) -> None:
        _filter((some.start, some.stop), beliefs, rounds, votes, weight, normals, most_repeats, passes)

    n_users = len(rounds[2])
    slices = _threads.split(max(n_users, 1), passes * len(rounds[0]) * k * (q * q + _VOTE) // max(n_users, 1))
    _threads.run(part, [some for some in slices if some.start < n_users])
