"""What the answer to a question says of a user, in nats.

A question is a pair d of responses. Its answer y depends on a hypothesis h about the user, of which the weights are
known: which head they have (K heads) and, where users scatter around heads, where they stand around it. The information
in the answer about the hypothesis is (Lindley, 1956; "BALD" in Houlsby et al., 2011)

    I(y; h) = H(Σ_h w_h p_h) − Σ_h w_h H(p_h) = Σ_h w_h KL(p_h ‖ Σ_g w_g p_g),        p_h = P(y = 1 | h).

The second form is used, since it keeps its relative accuracy where a user is almost certain: then the first one is the
difference of two equal numbers. A vote that counts 1 / T is σ(m)^(1/T), which normalised over both answers is σ(m / T):
an answer is as noisy as it will be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from micropref.kernels._pointwise import sigmoid

__all__ = ["Hypotheses", "hypotheses_of_normals", "information_of_heads", "information_of_normals"]

Floats = NDArray[np.float64]

# Up to which standard deviation of a margin each rule of integration is used: two of Gauss and Hermite, with so many
# nodes, then equal steps of one nat over so many standard deviations to either side. Their errors are below 1e-5.
_WIDTHS = np.array([0.7, 1.5, 3.0, 6.0, 12.0, 24.0])
_FEW_NODES = (8, 16)
_REACH, _MOST_STEPS = 6.0, 600
# Numbers of a block of rows.
_BLOCK = 1 << 18
# Users that stand for a normal distribution, of all components together and at least of each.
_SAMPLES, _FEWEST_SAMPLES = 256, 32
# Relative differences for which there is a series, to 1e-13 of its value.
_NEAR = 1e-3
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Hypotheses:
    """What may hold of a user, and what each hypothesis says of the answers to n questions.

    Attributes
    ----------
    weights : ndarray of shape (n_hypotheses, n) or (n_hypotheses, 1)
        They sum to one in every column; one column where all questions have the same.
    first, second : ndarray of shape (n_hypotheses, n)
        Probabilities that the first response is preferred, and that the second one is.
    """

    weights: Floats
    first: Floats
    second: Floats

    @classmethod
    def of_margins(cls, weights: Floats, margins: Floats) -> Hypotheses:
        """Hypotheses under which pairs have these margins, (n_hypotheses, n)."""
        if weights.shape[1] > 1 and np.array_equal(weights, np.broadcast_to(weights[:, :1], weights.shape)):
            weights = weights[:, :1]
        return cls(weights, sigmoid(margins), sigmoid(-margins))

    @property
    def n_questions(self) -> int:
        return int(self.first.shape[1])

    def part(self, rows: NDArray[np.intp]) -> Hypotheses:
        """Some of the questions."""
        weights = self.weights if self.weights.shape[1] == 1 else self.weights[:, rows]
        return Hypotheses(weights, self.first[:, rows], self.second[:, rows])

    def information(self) -> Floats:
        """Information (n,) in each answer about the hypothesis, in nats."""
        first = (self.weights * self.first).sum(axis=0)
        second = (self.weights * self.second).sum(axis=0)
        gain = _relative_entropy(self.first, first) + _relative_entropy(self.second, second)
        return np.asarray(np.maximum((self.weights * gain).sum(axis=0), 0.0))


def information_of_heads(weights: Floats, margins: Floats, temperature: float = 1.0) -> Floats:
    """Information in each answer about which head a user has.

    Parameters
    ----------
    weights : ndarray of shape (K, n)
        Weights of the heads for the user and the context of every row.
    margins : ndarray of shape (K, n)
    temperature : float, default=1.0
        Of the user's votes.

    Returns
    -------
    information : ndarray of shape (n,)
        In nats, between 0 and ln 2; swapping a pair changes no bit of it.
    """
    return Hypotheses.of_margins(weights, margins / temperature).information()


def information_of_normals(
    weights: Floats, means: Floats, variances: Floats, noise: Floats, temperature: float = 1.0
) -> Floats:
    """Information in each answer about component and reward of a user who scatters around heads.

    The margin of a pair is normal in every component, so that the integral over rewards is one over a line.

    Parameters
    ----------
    weights, means : ndarray of shape (K, n)
    variances : ndarray of shape (K, n)
        Of the margins, as far as votes can reduce them.
    noise : ndarray of shape (K, n)
        The rest of their variance, which is new for every vote; of it an answer says nothing.
    temperature : float, default=1.0

    Returns
    -------
    information : ndarray of shape (n,)
        As of `information_of_heads`, to which it is equal without variance and noise.
    """
    deviations = np.sqrt(variances)
    found = np.empty(means.shape[1])
    width = np.searchsorted(_WIDTHS, deviations.max(axis=0))
    for kind in np.unique(width):
        rule = _normal_rule(int(kind))
        step = max(1, _BLOCK // (len(means) * len(rule[0])))
        same = np.flatnonzero(width == kind)
        for start in range(0, len(same), step):
            rows = same[start : start + step]
            scale = _shrinkage(noise[:, rows], temperature) / temperature
            found[rows] = _along_margins(weights[:, rows], means[:, rows] * scale, deviations[:, rows] * scale, rule)
    return found


def _along_margins(weights: Floats, means: Floats, deviations: Floats, rule: tuple[Floats, Floats]) -> Floats:
    """I(y; h) of margins that are normal under every component, by the entropies themselves."""
    nodes, shares = rule
    margins = means[:, None] + deviations[:, None] * nodes[:, None]
    size = np.abs(margins)
    small = np.exp(-size)
    wrong = small / (1.0 + small)
    noise = np.einsum("kgn,g,kn->n", np.log1p(small) + size * wrong, shares, weights)
    first = np.einsum("kgn,g,kn->n", np.where(margins > 0, 1.0 - wrong, wrong), shares, weights)
    return np.asarray(np.maximum(entr(first) + entr(1.0 - first) - noise, 0.0))


def hypotheses_of_normals(
    weights: Floats,
    margins: Floats,
    noise: Floats,
    coordinates: Floats,
    beliefs: tuple[Floats, Floats],
    *,
    temperature: float,
    random: np.random.RandomState,
) -> Hypotheses:
    """Users drawn from what is believed of one who scatters around heads, with weights that make up for the numbers.

    Parameters
    ----------
    weights : ndarray of shape (K, n)
        Of the components, for the user and the context of every row.
    margins, noise : ndarray of shape (K, n)
        Margins w_kᵀd of the heads; variance that is new for every vote.
    coordinates : ndarray of shape (n, q)
        z, so that a user at u has the margin w_kᵀd + zᵀu.
    beliefs : tuple of ndarray of shapes (K, q) and (K, q, q)
        Means and covariances of u under each component.
    temperature : float
    random : RandomState
    """
    k, n = margins.shape
    half = max(_FEWEST_SAMPLES, _SAMPLES // k) // 2
    q = coordinates.shape[1]
    normal = random.standard_normal((half, q))
    # Pairs of opposite draws have the mean of the distribution.
    normal = np.concatenate([normal, -normal])
    if 2 * half > 2 * q > 0:
        # And, spread by the root of their own covariance, its covariance.
        normal = np.linalg.solve(np.linalg.cholesky(normal.T @ normal / len(normal)), normal.T).T
    drawn = np.empty((k, len(normal), n))
    for component, (mean, covariance) in enumerate(zip(*beliefs, strict=True)):
        values, axes = np.linalg.eigh(covariance)
        users = mean + normal @ (axes * np.sqrt(np.maximum(values, 0.0))).T
        drawn[component] = margins[component] + users @ coordinates.T
    drawn *= _shrinkage(noise[:, None], temperature) / temperature
    shares = np.broadcast_to(weights[:, None] / len(normal), drawn.shape)
    return Hypotheses.of_margins(shares.reshape(-1, n), drawn.reshape(-1, n))


def _shrinkage(noise: Floats, temperature: float = 1.0) -> Floats:
    """Factor of a margin under noise: E σ((m + ε) / T) ≈ σ(factor · m / T), ε ~ N(0, noise) (MacKay, 1992)."""
    return np.asarray(1.0 / np.sqrt(1.0 + (np.pi / 8.0) * noise / temperature**2))


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """p log(p / q) − p + q: over both answers they sum to the relative entropy, and each is small where p ≈ q."""
    q = np.maximum(q, _TINY)
    t = (p - q) / q
    near = np.abs(t) < _NEAR
    small = np.where(near, t, 0.0)
    series = q * small * small * (0.5 - small * (1 / 6 - small * (1 / 12 - small / 20)))
    exact = p * np.log(np.where(near, 1.0, np.maximum(p / q, _TINY))) - p + q
    return np.asarray(np.where(near, series, exact))


@lru_cache(maxsize=16)
def _normal_rule(kind: int) -> tuple[Floats, Floats]:
    """Nodes and weights of E f(x), x ~ N(0, 1), for functions that vary over 1 / `_WIDTHS`[kind]."""
    if kind < len(_FEW_NODES):
        nodes, shares = np.polynomial.hermite_e.hermegauss(_FEW_NODES[kind])
    else:
        # The rule of equal steps is the better one where the function is steeper than the density.
        steps = int(np.ceil(_REACH * _WIDTHS[kind])) if kind < len(_WIDTHS) else _MOST_STEPS
        nodes = np.linspace(-_REACH, _REACH, 2 * steps + 1)
        shares = np.exp(-0.5 * nodes**2)
    return nodes, shares / shares.sum()
