"""Users who scatter around heads: Gaussian beliefs about each of them, updated vote by vote.

The reward of a user of component k is w_k + B u with u ~ N(0, S_k), and for a pair with difference d it has the margin
w_kᵀd + zᵀu + ε with z = Bᵀd and ε ~ N(0, residual_k ‖d − Bz‖²), drawn anew for every vote: what no direction of B says
is expected of users, and never learned of one. A belief about a user is, for every k, the evidence log Z of their
votes, and mean and covariance of u. A vote for the margin m turns it into the normal distribution that has the first
two moments of the posterior (assumed-density filtering: Opper, 1998; Minka, 2001), with the moments of
`logistic_normal` at m + zᵀmean and zᵀVz + Var ε:

    h = V z        log Z += log E σ        mean += slope · h        V −= curvature · h hᵀ

That is exact for one vote, up to the mixture of normals. Of several, each was judged by what was known before it:
votes that are filtered together are therefore judged again, in a second pass, by what all others say (expectation
propagation: Minka, 2001). A vote i is remembered as exp(c_i + r_i s − ½ p_i s²) of s = zᵀu, what it has said is taken
out of the belief and of log Z, and the moments at what is left give its new (c, r, p). Votes that come one at a time
cannot be judged again: what is kept of a user does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from micropref._engine.logistic_normal import SCALES, WEIGHTS, expected_log_odds, moments
from micropref._support.cached import cached_property
from micropref.kernels._dispatch import wants_compiled

__all__ = [
    "Beliefs",
    "Scatter",
    "VoteRounds",
    "discounted",
    "filter_votes",
    "filter_work",
    "margin_moments",
    "shrunken_margins",
]

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# A vote of a larger weight counts as these many votes and a last one of all the weight that is left.
MOST_REPEATS = 64
# Times that votes which are filtered together are judged. A third moves log-odds no further.
PASSES = 2
# Rows whose beliefs are gathered at once.
_ROWS = 1 << 12
# What is left of a variance without one vote, at least.
_LEAST = 1e-12


@dataclass(frozen=True)
class Scatter:
    """How users scatter around the heads.

    Attributes
    ----------
    basis : ndarray of shape (d, q)
        Orthonormal columns, the directions in which users differ; q may be 0.
    covariances : ndarray of shape (K, q, q)
        S_k, the covariance of u among the users of each component.
    residual : ndarray of shape (K,)
        Variance of a user's reward along each unit direction outside the basis.
    """

    basis: Floats
    covariances: Floats
    residual: Floats

    @classmethod
    def none(cls, n_components: int, n_features: int) -> Scatter:
        """No scatter: every user of a component has its head."""
        return cls(np.zeros((n_features, 0)), np.zeros((n_components, 0, 0)), np.zeros(n_components))

    @property
    def n_components(self) -> int:
        return len(self.covariances)

    @property
    def n_directions(self) -> int:
        """q."""
        return int(self.basis.shape[1])

    def coordinates(self, differences: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Coordinates z = Bᵀd (n, q) of differences (n, d), and the squared lengths (n,) outside the basis."""
        differences = np.asarray(differences, np.float64)
        n_features, q = self.basis.shape
        z = differences @ self.basis
        if q == n_features or not self.residual.any():
            return z, np.zeros(len(z))
        square = np.einsum("ij,ij->i", differences, differences) - np.einsum("ij,ij->i", z, z)
        return z, np.maximum(square, 0.0)

    def prior_variance(self, coordinates: Floats, outside: Floats) -> Floats:
        """Variance dᵀΣ_k d of the margins of users never heard, (K, n)."""
        inside = np.einsum("ni,kij,nj->kn", coordinates, self.covariances, coordinates, optimize=True)
        return np.asarray(inside + self.residual[:, None] * outside)


@dataclass
class Beliefs:
    """What is believed of U users under each of K components.

    Attributes
    ----------
    evidence : ndarray of shape (K, U)
        log Z of their votes, in nats; log π_k is not included.
    means : ndarray of shape (K, U, q)
    covariances : ndarray of shape (K, U, q, q)
    """

    evidence: Floats
    means: Floats
    covariances: Floats

    @classmethod
    def prior(cls, scatter: Scatter, n_users: int) -> Beliefs:
        """Of users who have not voted."""
        k, q = scatter.n_components, scatter.n_directions
        covariances = np.broadcast_to(scatter.covariances[:, None], (k, n_users, q, q))
        return cls(np.zeros((k, n_users)), np.zeros((k, n_users, q)), covariances.copy())

    @property
    def n_users(self) -> int:
        return int(self.evidence.shape[1])


class VoteRounds:
    """The order in which votes are filtered: round t takes the t-th vote of every user who has that many.

    Parameters
    ----------
    index : ndarray of int of shape (n,)
        The user of every vote, the votes of each in their order.
    n_users : int
    """

    def __init__(self, index: NDArray[np.integer], n_users: int):
        self.n_users = n_users
        self.counts: Indices = np.bincount(index, minlength=n_users)
        #: Votes sorted by user, each user's in their order.
        self.order: Indices = np.argsort(index, kind="stable")
        self.starts: Indices = np.cumsum(self.counts) - self.counts

    @property
    def n_votes(self) -> int:
        return len(self.order)

    @cached_property
    def _by_count(self) -> Indices:
        """Users, those with most votes first."""
        return np.argsort(-self.counts, kind="stable")

    def __iter__(self) -> Iterator[tuple[Indices, Indices]]:
        """Users and rows of every round; no user twice in one round."""
        falling = -self.counts[self._by_count]
        for t in range(int(self.counts.max(initial=0))):
            users = self._by_count[: np.searchsorted(falling, -t)]
            yield users, self.order[self.starts[users] + t]


def filter_votes(
    beliefs: Beliefs,
    rounds: VoteRounds,
    margins: Floats,
    coordinates: Floats,
    outside_variance: Floats,
    *,
    weight: Floats | None = None,
    decay: float = 1.0,
    prior: Floats | None = None,
    compiled: bool | None = None,
    passes: int = PASSES,
) -> None:
    """Take votes into beliefs, in place.

    Parameters
    ----------
    beliefs : Beliefs
    rounds : VoteRounds
    margins : ndarray of shape (K, n)
        Margins w_kᵀd of the heads, positive where they agree with the vote.
    coordinates : ndarray of shape (n, q)
        z, with the sign of the margins.
    outside_variance : ndarray of shape (K, n)
        Variance of the margins outside the basis.
    weight : ndarray of shape (n,), optional
        A vote of weight 2 equals two votes. A fraction of a vote has that fraction of its log Z, and of the precision
        and precision-weighted mean that it would add (power EP: Minka, 2004).
    decay : float, default=1.0
        Before each vote of a user all earlier ones are discounted by it: the evidence, and what the votes added to the
        natural parameters of the prior. With decay there is one pass: votes have an order.
    prior : ndarray of shape (K, q, q), optional
        Covariances of the prior; only for ``decay`` below 1.
    compiled : bool, optional
        Whether to filter in a compiled loop, where numba is installed; None: where there are enough votes for it.
    passes : int, default=2
        Times that every vote is judged.
    """
    if decay < 1.0 and prior is None:
        raise ValueError(f"expected the covariances of the prior to decay towards, got prior=None with decay={decay!r}")
    k, _, q = beliefs.means.shape
    arrays = (beliefs.evidence, beliefs.means, beliefs.covariances)
    plain = decay == 1.0 and all(array.flags.c_contiguous for array in arrays)
    passes = passes if decay == 1.0 and q else 1
    if plain and (wants_compiled(filter_work(rounds.n_votes, k, q)) if compiled is None else compiled):
        order = rounds.order, rounds.starts, rounds.counts
        votes = margins, coordinates, outside_variance
        path = import_module("micropref.kernels._numba_users")
        path.filter_votes(arrays, order, votes, weight, (SCALES, WEIGHTS), MOST_REPEATS, passes)
        return
    casts = _Casts(rounds, weight)
    sites = np.zeros((3, k, len(casts.rows)))
    for again in range(passes):
        for users, places in casts.rounds:
            if again:
                # A single vote was judged exactly. What is left of a weight beyond all repeats is many votes, of which
                # none is known without the others.
                more = (casts.rounds.counts[users] > 1) & (casts.share[places] <= 1.0)
                users, places = users[more], places[more]
            rows = casts.rows[places]
            if decay < 1.0:
                assert prior is not None
                first = users[casts.first[places]]
                _discount(beliefs, first, decay, prior)
            some = margins[:, rows], coordinates[rows], outside_variance[:, rows], casts.share[places]
            sites[:, :, places] = _judged(beliefs, users, some, sites[:, :, places] if again else None)


def filter_work(n_votes: int, n_components: int, n_directions: int) -> int:
    """Operations of `filter_votes`, by which to choose between its paths."""
    return n_votes * n_components * (n_directions**2 + 16)


class _Casts:
    """Votes as often as their weights say: each a whole vote, the last of its row perhaps a share of one.

    Attributes
    ----------
    rounds : VoteRounds
        Of the casts.
    rows, first, share : ndarray of shape (n_casts,)
        The row of each, whether it is the first of its row, and how much of a vote it is.
    """

    def __init__(self, rounds: VoteRounds, weight: Floats | None):
        n = rounds.n_votes
        if weight is None:
            self.rounds, self.rows = rounds, np.arange(n)
            self.first, self.share = np.ones(n, bool), np.ones(n)
            return
        whole = np.minimum(np.floor(weight), MOST_REPEATS)
        rest = weight - whole
        times = (whole + (rest > 0)).astype(np.intp)
        self.rows = np.repeat(np.arange(n), times)
        place = np.arange(len(self.rows)) - np.repeat(np.cumsum(times) - times, times)
        self.first, self.share = place == 0, np.where(place < whole[self.rows], 1.0, rest[self.rows])
        index = np.empty(n, np.intp)
        index[rounds.order] = np.repeat(np.arange(rounds.n_users), rounds.counts)
        self.rounds = VoteRounds(index[self.rows], rounds.n_users)


def _judged(
    beliefs: Beliefs, users: Indices, votes: tuple[Floats, Floats, Floats, Floats], before: Floats | None
) -> Floats:
    """Take one vote of each of these users into their beliefs; what it says, (c, r, p), of shape (3, K, n).

    `before` is what it said in the last pass, which is taken out.
    """
    margins, z, outside, share = votes
    means, covariances = beliefs.means[:, users], beliefs.covariances[:, users]
    h = np.matmul(covariances, z[None, :, :, None])[..., 0]
    variance, mean = np.maximum((h * z).sum(axis=-1), 0.0), (means * z).sum(axis=-1)
    constant, shift, precision = np.zeros((3, *margins.shape)) if before is None else before
    # Of the belief without this vote.
    left = np.maximum(1.0 - precision * variance, _LEAST)
    aside, centre = variance / left, (mean - shift * variance) / left
    log_z, slope, curvature = moments(margins + centre, aside + outside)
    left = np.maximum(1.0 - curvature * aside, _LEAST)
    said = np.empty((3, *margins.shape))
    said[1], said[2] = share * (slope + curvature * centre) / left, share * curvature / left
    said[0] = share * log_z - _log_integral(centre, aside, said[1], said[2])
    taken_out = constant + _log_integral(centre, aside, shift, precision)
    more = said[2] - precision
    shrink = 1.0 / np.maximum(1.0 + more * variance, _LEAST)
    gain = (said[1] - shift - more * mean) * shrink
    beliefs.evidence[:, users] += share * log_z - taken_out
    beliefs.means[:, users] = means + gain[..., None] * h
    beliefs.covariances[:, users] = covariances - ((more * shrink)[..., None] * h)[..., None] * h[..., None, :]
    return said


def _log_integral(mean: Floats, variance: Floats, shift: Floats, precision: Floats) -> Floats:
    """log E exp(r s − ½ p s²) of s ~ N(mean, variance)."""
    scale = 1.0 + precision * variance
    exponent = shift * mean + 0.5 * shift**2 * variance - 0.5 * precision * mean**2
    return np.asarray(exponent / scale - 0.5 * np.log(scale))


def _discount(beliefs: Beliefs, users: Indices, decay: float, prior: Floats) -> None:
    faded = discounted(beliefs.means[:, users], beliefs.covariances[:, users], decay, prior)
    beliefs.means[:, users], beliefs.covariances[:, users] = faded
    beliefs.evidence[:, users] *= decay


def discounted(means: Floats, covariances: Floats, decay: float, prior: Floats) -> tuple[Floats, Floats]:
    """Means (K, U, q) and covariances (K, U, q, q) after all that votes added to the natural parameters is discounted.

    V'⁻¹ = γ V⁻¹ + (1 − γ) S⁻¹ and V'⁻¹ m' = γ V⁻¹ m, written so that S may be singular.
    """
    q = means.shape[-1]
    if not q:
        return means, covariances
    prior = prior[:, None]
    size = np.trace(prior, axis1=-2, axis2=-1)[..., None, None]
    ridge = np.where(size > 0, 1e-13 * size, 1.0) * np.eye(q)
    mixed = decay * prior + (1.0 - decay) * covariances + ridge
    between = np.linalg.solve(mixed, np.broadcast_to(prior, covariances.shape))
    faded = np.matmul(covariances, between)
    moved = decay * np.matmul(between.swapaxes(-1, -2), means[..., None])[..., 0]
    return moved, 0.5 * (faded + faded.swapaxes(-1, -2))


def margin_moments(
    beliefs: Beliefs,
    index: NDArray[np.integer],
    margins: Floats,
    coordinates: Floats,
    outside_variance: Floats,
    scatter: Scatter | None = None,
) -> tuple[Floats, Floats]:
    """Means and variances (K, n) of the margins of pairs for users of whom this is believed, under each component.

    Parameters
    ----------
    beliefs : Beliefs
    index : ndarray of int of shape (n,)
        The user of every row; −1 for one of whom nothing is known but the `scatter`.
    margins, coordinates, outside_variance
        As in `filter_votes`, of pairs without votes.
    scatter : Scatter, optional
        Needed where an index is −1.
    """
    mean, variance = np.empty_like(margins), np.empty_like(margins)
    unknown = index < 0
    if unknown.any():
        if scatter is None:
            raise ValueError(
                "expected the scatter of users of whom nothing is known, got scatter=None with an index of -1"
            )
        mean[:, unknown] = margins[:, unknown]
        variance[:, unknown] = scatter.prior_variance(coordinates[unknown], np.zeros(int(unknown.sum())))
    known = np.flatnonzero(~unknown)
    for start in range(0, len(known), _ROWS):
        rows = known[start : start + _ROWS]
        users, z = index[rows], coordinates[rows]
        mean[:, rows] = margins[:, rows] + (beliefs.means[:, users] * z).sum(axis=-1)
        h = np.matmul(beliefs.covariances[:, users], z[None, :, :, None])[..., 0]
        variance[:, rows] = np.maximum((h * z).sum(axis=-1), 0.0)
    return mean, variance + outside_variance


def shrunken_margins(
    beliefs: Beliefs,
    index: NDArray[np.integer],
    margins: Floats,
    coordinates: Floats,
    outside_variance: Floats,
    scatter: Scatter | None = None,
) -> Floats:
    """Margins (K, n) that heads without scatter would need to give each user's probabilities E σ under each component.

    The parameters are those of `margin_moments`.
    """
    return expected_log_odds(*margin_moments(beliefs, index, margins, coordinates, outside_variance, scatter))
