"""A population of users: heads, a gate, and how users scatter around the heads; its evidence, and EM."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._engine.gate_objective import GateObjective
from micropref._engine.gates import Gate, GatePenalty, flatten, unflatten
from micropref._engine.gaussian_users import PASSES, Beliefs, Scatter, filter_votes
from micropref._engine.logistic_normal import moments
from micropref._engine.prediction import gate_log_weights
from micropref._engine.priors import gate_penalty
from micropref._engine.solvers import lbfgs
from micropref._engine.user_votes import UserVotes
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.kernels._pointwise import log_sigmoid, log_sum_exp

__all__ = [
    "EMFit",
    "Population",
    "Shape",
    "beliefs_of",
    "evidence",
    "evidence_of_first_votes",
    "expectation_maximisation",
    "head_variance",
    "log_prior",
    "resized",
    "shaped",
    "unscaled",
]

Floats = NDArray[np.float64]

# A component that has less than this of a user has nothing to learn from.
_LEAST_USERS = 1e-3
_GATE_STEPS = 15
_LEAST_PRECISION = 1e-8
# Steps of EM grow by this factor as long as they gain (Salakhutdinov and Roweis, 2003).
_GROWTH = 1.5
_LARGEST_STRETCH = 10.0


@dataclass(frozen=True)
class Population:
    """K heads with a gate, and the scatter of users around them.

    Attributes
    ----------
    heads : ndarray of shape (K, d)
        In units of the features.
    gate : Gate
    gate_parameters : list of ndarray
    scatter : Scatter
        In units of `UserVotes`: lengths are relative to the root mean square norm of the differences.
    """

    heads: Floats
    gate: Gate
    gate_parameters: list[Floats]
    scatter: Scatter

    @property
    def n_components(self) -> int:
        return len(self.heads)


@dataclass(frozen=True)
class Shape:
    """What EM may do to the covariances S_k.

    Attributes
    ----------
    rank : int
        Directions along which S_k is larger than τ_k²; 0 leaves τ_k² I.
    shrinkage : float
        Number of users, all scattered alike in every direction as all users are on average, with which every S_k is
        averaged; infinite where all S_k are one τ² I.
    tau : float, optional
        The standard deviation τ_k of the other directions, where it is given.
    outside : bool, default=False
        Whether directions outside the basis have the variance τ_k², too.
    diagonal : bool, default=False
        Whether users differ along the axes of the basis independently: q numbers cannot take as much noise for taste
        as q(q + 1)/2.
    """

    rank: int
    shrinkage: float = 0.0
    tau: float | None = None
    outside: bool = False
    diagonal: bool = False

    def to_json(self) -> dict[str, Any]:
        """Its fields; JSON knows no infinity."""
        return {**asdict(self), "shrinkage": None if math.isinf(self.shrinkage) else self.shrinkage}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Shape:
        """What `to_json` took."""
        return cls(**{**fields, "shrinkage": math.inf if fields["shrinkage"] is None else fields["shrinkage"]})


@dataclass(frozen=True)
class EMFit:
    """Where EM stopped: the population, its penalised log-likelihood in nats per row, and whether it had converged."""

    population: Population
    value: float
    n_iter: int
    converged: bool


def log_prior(votes: UserVotes, population: Population) -> Floats:
    """log π_k of every user's mean context, (K, n_users)."""
    log_weights = gate_log_weights(votes.contexts, population.gate, population.gate_parameters)
    return np.asarray(log_weights, np.float64)


def beliefs_of(votes: UserVotes, population: Population, compiled: bool | None = None, passes: int = PASSES) -> Beliefs:
    """Beliefs about all users after their votes."""
    scatter = population.scatter
    z, outside = votes.coordinates(scatter)
    beliefs = Beliefs.prior(scatter, votes.n_users)
    variance = scatter.residual[:, None] * outside
    margins = votes.margins(population.heads)
    filter_votes(beliefs, votes.rounds, margins, z, variance, weight=votes.weight, compiled=compiled, passes=passes)
    return beliefs


def evidence(votes: UserVotes, population: Population, compiled: bool | None = None, passes: int = PASSES) -> Floats:
    """ℓ_u = log Σ_k π_k Z_uk of every user, not multiplied by their weights."""
    found = beliefs_of(votes, population, compiled, passes).evidence
    return np.asarray(log_sum_exp(log_prior(votes, population) + found))


def evidence_of_first_votes(votes: UserVotes, population: Population) -> Floats:
    """Σ_i ω_i log Σ_k π_k E σ(wᵀd_i) of every user: their votes, each as if nothing else were known of them."""
    margins = votes.margins(population.heads)
    each = log_sigmoid(margins)
    if population.scatter.n_directions:
        each = moments(margins, population.scatter.prior_variance(*votes.coordinates(population.scatter)))[0]
    found = np.asarray(log_sum_exp(log_prior(votes, population)[:, votes.index] + each), np.float64)
    weighted = found if votes.weight is None else found * votes.weight
    return np.bincount(votes.index, weighted, votes.n_users).astype(np.float64)


def expectation_maximisation(
    votes: UserVotes,
    start: Population,
    shape: Shape,
    *,
    alpha: float = 0.0,
    gate_alpha: float | str = 0.0,
    max_iter: int,
    tol: float,
    compiled: bool | None = None,
    passes: int = PASSES,
) -> EMFit:
    """Fit weights, heads within the basis, and S_k, to the filtered moments of all users.

    Parameters
    ----------
    votes : UserVotes
    start : Population
        Its basis and its residual stay.
    shape : Shape
    alpha : float
        Penalty of the heads, in nats per row. It is a prior N(0, I / (α Ω)); beside users who scatter more than that,
        the prior is wider by their covariance, N(0, I / (α Ω) + S_k), which is worth one user at most.
    gate_alpha : float or "auto"
        Penalty of the gate's weights, in nats per row, as `gate_penalty` reads it.
    max_iter : int
    tol : float
        Stop once an iteration gains less, in nats per row.
    compiled, passes
        As in `filter_votes`.
    """
    state = _Filtered(votes, start, alpha, compiled, passes)
    # The start need not have the shape; after a first step the population has.
    best = state.at(state.maximised(state.at(start), shape, gate_alpha))
    stretch, n_iter, converged = 1.0, 1, False
    while n_iter < max_iter:
        n_iter += 1
        plain = state.maximised(best, shape, gate_alpha)
        found = state.at(_stretched(best.population, plain, stretch))
        if stretch > 1.0 and found.value < best.value:
            stretch = 1.0
            found = state.at(plain)
        gain = found.value - best.value
        if gain < tol and stretch == 1.0:
            # The filter is no exact likelihood: a step may lose a little where there is nothing left to gain.
            best, converged = max(best, found, key=lambda one: one.value), True
            break
        best, stretch = found, min(_GROWTH * stretch, _LARGEST_STRETCH) if gain >= tol else 1.0
    return EMFit(best.population, best.value, n_iter, converged)


def head_variance(votes: UserVotes, alpha: float) -> float:
    """Prior variance of heads that are penalised by alpha, before that of users is added, in units of the votes.

    With no penalty at all they are as good as free.
    """
    return float(votes.norm**2 / max(alpha * votes.mass, _LEAST_PRECISION * votes.norm**2))


@dataclass(frozen=True)
class _Expected:
    """A population, its penalised log-likelihood in nats per row, beliefs about users, and shares of components."""

    population: Population
    value: float
    beliefs: Beliefs
    share: Floats


class _Filtered:
    """The E-step: what the votes are in one basis, whatever the rest of the population becomes."""

    def __init__(self, votes: UserVotes, start: Population, alpha: float, compiled: bool | None, passes: int):
        self.votes, self.compiled, self.passes = votes, compiled, passes
        self.variance = head_variance(votes, alpha)
        self.z, self.outside = votes.coordinates(start.scatter)
        self.first, self.margins = start.heads, votes.margins(start.heads)
        self.basis = start.scatter.basis

    def at(self, population: Population) -> _Expected:
        votes, scatter = self.votes, population.scatter
        beliefs = Beliefs.prior(scatter, votes.n_users)
        # Heads move within the basis alone.
        shift = (population.heads - self.first) @ self.basis * votes.norm
        variance = scatter.residual[:, None] * self.outside
        filter_votes(
            beliefs,
            votes.rounds,
            self.margins + shift @ self.z.T,
            self.z,
            variance,
            weight=votes.weight,
            compiled=self.compiled,
            passes=self.passes,
        )
        joint = log_prior(votes, population) + beliefs.evidence
        of_user = np.asarray(log_sum_exp(joint))
        share = np.exp(joint - of_user) * votes.outer
        centre = self._centre(population)
        penalty = 0.5 * float((centre * self._prior_solved(population, centre)).sum())
        return _Expected(population, float(votes.outer @ of_user - penalty) / votes.mass, beliefs, share)

    def _centre(self, population: Population) -> Floats:
        """Coordinates (K, q) of the heads among users."""
        return np.asarray(self.votes.norm * population.heads @ self.basis)

    def _prior_solved(self, population: Population, vectors: Floats) -> Floats:
        """Vectors (K, q) times the inverse of the prior covariances of the heads."""
        prior = population.scatter.covariances + self.variance * np.eye(vectors.shape[1])
        return np.asarray(np.linalg.solve(prior, vectors[..., None])[..., 0])

    def maximised(self, at: _Expected, shape: Shape, gate_alpha: float | str) -> Population:
        """The M-step."""
        population = at.population
        mean, covariances = _maximised(at.beliefs, at.share, shape)
        users = np.maximum(at.share.sum(axis=1), _LEAST_USERS)[:, None, None]
        # (N S⁻¹ + C⁻¹) shift = N S⁻¹ mean − C⁻¹ centre with C the prior's covariance, times S, which may be singular.
        before, q = population.scatter.covariances, self.basis.shape[1]
        inside = np.matmul(before, np.linalg.inv(before + self.variance * np.eye(q)))
        pull = np.matmul(inside, self._centre(population)[..., None])
        shift = np.linalg.solve(users * np.eye(q) + inside, users * mean[..., None] - pull)[..., 0]
        return replace(
            population,
            heads=population.heads + shift @ self.basis.T / self.votes.norm,
            gate_parameters=_refitted_gate(self.votes, population, at.beliefs.evidence, at.share, gate_alpha),
            scatter=replace(
                population.scatter, covariances=covariances, residual=_residual(covariances, shape, population.scatter)
            ),
        )


def _residual(covariances: Floats, shape: Shape, before: Scatter) -> Floats:
    return np.asarray(np.linalg.eigvalsh(covariances)[:, 0]) if shape.outside else before.residual


def _stretched(before: Population, after: Population, stretch: float) -> Population:
    """A longer step in the same direction: of the heads, and of the sizes of their covariances on a log scale."""
    if stretch == 1.0 or not after.scatter.n_directions:
        return after
    sizes = [np.trace(one.scatter.covariances, axis1=1, axis2=2) for one in (before, after)]
    growth = np.where(sizes[0] > 0, sizes[1] / np.where(sizes[0] > 0, sizes[0], 1.0), 1.0)
    factor = np.clip(growth ** (stretch - 1.0), 0.25, 4.0)
    return replace(
        after,
        heads=before.heads + stretch * (after.heads - before.heads),
        scatter=replace(
            after.scatter,
            covariances=after.scatter.covariances * factor[:, None, None],
            residual=after.scatter.residual * factor,
        ),
    )


def _maximised(beliefs: Beliefs, share: Floats, shape: Shape) -> tuple[Floats, Floats]:
    """Means (K, q) and covariances (K, q, q) of the users of each component, of whom it has these shares (K, U)."""
    users = np.maximum(share.sum(axis=1), _LEAST_USERS)
    q = beliefs.means.shape[-1]
    mean = np.einsum("ku,kui->ki", share, beliefs.means) / users[:, None]
    centred = beliefs.means - mean[:, None]
    spread = np.einsum("ku,kuij->kij", share, beliefs.covariances)
    spread += np.matmul((centred * share[..., None]).swapaxes(1, 2), centred)
    return mean, shaped(spread, users, shape) if q else spread


def shaped(spread: Floats, users: Floats, shape: Shape) -> Floats:
    """The covariances S_k of a given shape that best describe summed squares (K, q, q) of so many users (K,)."""
    q = spread.shape[-1]
    if shape.diagonal:
        spread = spread * np.eye(q)
    alike = float(np.trace(spread.sum(axis=0)) / (q * users.sum()))
    if math.isinf(shape.shrinkage):
        found = np.repeat(alike * np.eye(q)[None], len(users), axis=0)
    else:
        found = (spread + shape.shrinkage * alike * np.eye(q)) / (users + shape.shrinkage)[:, None, None]
    if shape.tau is None and (shape.rank >= q or math.isinf(shape.shrinkage)):
        return found
    values, vectors = np.linalg.eigh(found)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    rest = values[:, shape.rank :].mean(axis=1) if shape.tau is None else np.full(len(users), shape.tau**2)
    kept = np.maximum(values - rest[:, None], 0.0) * (np.arange(q) < shape.rank)
    return np.asarray(np.einsum("kij,kj,klj->kil", vectors, kept, vectors) + rest[:, None, None] * np.eye(q))


def gate_objective(
    votes: UserVotes, gate: Gate, found: Floats, gate_alpha: float | str, total_weight: float
) -> GateObjective:
    """What a gate minimises, given the evidence (K, U) of all users: the mean over users of what J has per row.

    `total_weight` is that of all rows, those of earlier batches included.
    """
    contexts = votes.contexts
    # A gate's rows are contexts, and a reader's have a difference besides.
    reader = PairReader(np.column_stack([contexts, np.zeros(len(contexts), contexts.dtype)]), contexts.shape[1])
    rows = Comparisons(reader, weight=votes.outer)
    penalty = gate_penalty(gate_alpha, gate, votes.rows.norms[0], total_weight)
    per_user = GatePenalty(*(one * votes.mass / rows.total_weight for one in penalty))
    return GateObjective(rows, gate, evidence=found, offset=np.zeros_like(found), alpha=per_user)


def _refitted_gate(
    votes: UserVotes, population: Population, found: Floats, share: Floats, gate_alpha: float | str
) -> list[Floats]:
    """Parameters of the gate, given the evidence (K, U) of all users."""
    gate = population.gate
    if gate.n_components == 1:
        return population.gate_parameters
    if not gate.n_inputs:
        users = np.maximum(share.sum(axis=1), _LEAST_USERS)
        return [np.log(users / users.sum())]
    objective = gate_objective(votes, gate, found, gate_alpha, votes.mass)
    start = flatten(population.gate_parameters)
    minimum = lbfgs(objective.value_and_gradient, start, max_iter=_GATE_STEPS, tol=1e-6)
    return [np.array(p) for p in unflatten(minimum.vector, gate.shapes)]


def resized(population: Population, heads: float, users: float, contrast: float = 0.0) -> Population:
    """The population whose heads, and deviations of users from them, are larger by these factors.

    A `contrast` c makes small variances smaller still, and large ones larger: λ becomes λ (λ / λ̄)^c, with the mean λ̄ of
    all eigenvalues of S_k, weighted by themselves. Equal ones stay as they are.
    """
    scatter, square = population.scatter, users**2
    covariances = scatter.covariances
    if contrast != 0.0 and covariances.any():
        values, vectors = np.linalg.eigh(covariances)
        values = np.maximum(values, 0.0)
        usual = np.square(values).sum(axis=1, keepdims=True) / np.maximum(values.sum(axis=1, keepdims=True), 1e-300)
        values = values * np.maximum(values / np.maximum(usual, 1e-300), 1e-12) ** contrast
        covariances = np.matmul(vectors * values[:, None], vectors.swapaxes(1, 2))
    scatter = replace(scatter, covariances=covariances * square, residual=scatter.residual * square)
    return replace(population, heads=population.heads * heads, scatter=scatter)


def unscaled(scatter: Scatter, norm: float) -> Scatter:
    """The scatter in units of the features, whose differences have this root mean square norm."""
    return replace(scatter, covariances=scatter.covariances / norm**2, residual=scatter.residual / norm**2)
