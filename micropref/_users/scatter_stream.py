"""What a hierarchical model's `partial_fit` remembers of annotators between batches, and its steps."""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from micropref._engine.gates import flatten, unflatten
from micropref._engine.gaussian_users import Beliefs, Scatter, filter_votes, margin_moments
from micropref._engine.logistic_normal import moments
from micropref._engine.population import Population, Shape, gate_objective, log_prior, shaped
from micropref._engine.priors import head_penalty
from micropref._engine.scaling import gate_scale, gate_step, head_scale, head_step
from micropref._engine.solvers import Adam
from micropref._engine.user_votes import UserVotes
from micropref._rows.comparisons import Comparisons
from micropref._users.evidence import EvidenceTable
from micropref.kernels._pointwise import log_sum_exp
from micropref.kernels._products import linear_gradient

__all__ = ["ScatterStream"]

Floats = NDArray[np.float64]

# Rows of one step, and its size relative to heads whose margins are of order one.
_STEP_ROWS = 512
_STEP_RATE = 0.03
# The part of a step in what is known of the scatter: its part of all visits, to this power. Below 1 the first visits,
# which are short, fade (Cappé and Moulines, 2009).
_FADING = 0.6
# Of the size of the scatter, between one step and the next.
_LARGEST_FACTOR = 4.0
# Part of the mean variance that every direction has at least: what votes add to a prior is told from it by its inverse.
_RIDGE = 1e-6


@dataclass
class ScatterStream:
    """The state of online EM: what the votes of every annotator so far say of them, whatever the population becomes.

    That is, per component, exp(c + ηᵀa − ½ aᵀΛa) of the coordinates a of the annotator's reward: a posterior is its
    product with the prior N(a_k, S_k) of the day, a_k those of head k.

    Attributes
    ----------
    norm : float
        Unit of length.
    shape : Shape
    users, spread : ndarray of shapes (K,) and (K, q, q)
        The number of visits of annotators to each component and the sums of the second moments of u, in which later
        visits count more.
    mass : float
        Weight of all rows so far.
    """

    norm: float
    shape: Shape
    users: Floats
    spread: Floats
    mass: float
    adam: Adam
    table: EvidenceTable

    @classmethod
    def create(cls, population: Population, shape: Shape, *, norm: float, users: Floats, mass: float) -> ScatterStream:
        """The stream that begins with a fit to so many users of each component; their votes are not remembered."""
        k, q = population.n_components, population.scatter.n_directions
        table = EvidenceTable(k * (1 + q + q * (q + 1) // 2))
        spread = population.scatter.covariances * users[:, None, None]
        return cls(norm, shape, users, spread, mass, Adam(_STEP_RATE), table)

    def remember(self, rows: Comparisons, population: Population) -> None:
        """Keep what the annotators of rows said from which the population has already been learned."""
        self._take(UserVotes(rows, self.norm), population)

    def knows(self, annotator: Hashable) -> bool:
        """Whether it has seen votes of an annotator."""
        return annotator in self.table

    def forked(self) -> ScatterStream:
        """The same stream, whose next steps leave this one as it is."""
        return replace(self, adam=copy(self.adam), table=self.table.copy())

    def learn(
        self,
        rows: Comparisons,
        population: Population,
        prior_scale: float | None,
        alpha: float,
        gate_alpha: float | str,
    ) -> tuple[Population, float]:
        """The population after one step for every 512 rows, and the evidence of the last of them, in nats per row."""
        value = np.nan
        for begin in range(0, rows.n_samples, _STEP_ROWS):
            part = rows.part(slice(begin, begin + _STEP_ROWS))
            if part.total_weight == 0:
                continue
            votes = UserVotes(part, self.norm)
            self.mass += votes.mass
            if prior_scale is not None:
                alpha = head_penalty("auto", self.norm, self.mass, prior_scale)
            population, value = self._step(votes, population, alpha, gate_alpha)
        return population, value

    def _step(
        self, votes: UserVotes, population: Population, alpha: float, gate_alpha: float | str
    ) -> tuple[Population, float]:
        beliefs = self._take(votes, population)
        joint = log_prior(votes, population) + beliefs.evidence
        of_user = np.asarray(log_sum_exp(joint))
        share = np.exp(joint - of_user) * votes.outer
        vector = flatten([population.heads, *population.gate_parameters])
        gradient = flatten(
            [
                self._head_gradient(votes, population, beliefs, share) + alpha * population.heads,
                self._gate_gradient(votes, population, beliefs.evidence, gate_alpha),
            ]
        )
        norms, gate = votes.rows.norms, population.gate
        scale = flatten([head_scale(self.norm, population.heads.shape), *gate_scale(norms[0], gate)])
        size = flatten([head_step(population.heads.shape), *gate_step(gate)])
        vector = self.adam.step(vector, gradient, scale, size)
        heads, *parameters = unflatten(vector, (population.heads.shape, *gate.shapes))
        self._count(share, beliefs, _ridged(population.scatter))
        scatter = population.scatter
        if self.shape.tau is None or self.shape.rank:
            scatter = replace(scatter, covariances=shaped(self.spread, self.users, self.shape))
        heads, parameters = heads.copy(), [p.copy() for p in parameters]
        population = Population(heads, gate, parameters, scatter)
        return population, float(votes.outer @ of_user) / votes.mass

    def _count(self, share: Floats, beliefs: Beliefs, prior: Floats) -> None:
        """Add visits of annotators, to each component in shares (K, U), to `users` and `spread`."""
        second = np.einsum("ku,kuij->kij", share, beliefs.covariances)
        second += np.einsum("ku,kui,kuj->kij", share, beliefs.means, beliefs.means)
        before, now = float(self.users.sum()), float(share.sum())
        rate = (now / (before + now)) ** _FADING
        old, new = (before + now) * (1.0 - rate) / before, (before + now) * rate / now
        self.users = old * self.users + new * share.sum(axis=1)
        self.spread = (old * self.spread + new * second) * _said_of_size(share, beliefs, prior) ** rate

    def _head_gradient(self, votes: UserVotes, population: Population, beliefs: Beliefs, share: Floats) -> Floats:
        """Of −(1/Ω) Σ_u ℓ_u in the heads, by Fisher's identity: E σ(−m) under the belief about each user."""
        margins = votes.margins(population.heads)
        z, outside = votes.coordinates(population.scatter)
        variance = population.scatter.residual[:, None] * outside
        mean, variance = margin_moments(beliefs, votes.index, margins, z, variance, population.scatter)
        per_row = share[:, votes.index] * np.exp(moments(-mean, variance)[0])
        if votes.weight is not None:
            per_row = per_row * votes.weight
        if votes.rows.signs is not None:
            per_row = per_row * votes.rows.signs
        reader = votes.rows.reader
        X = np.asarray(reader.X)
        found = linear_gradient(per_row.astype(X.dtype), X, reader.n_context_features, reader.n_features)
        return -np.asarray(found, np.float64) / votes.mass

    def _gate_gradient(
        self, votes: UserVotes, population: Population, found: Floats, gate_alpha: float | str
    ) -> Floats:
        if not population.gate.shapes:
            return np.zeros(0)
        objective = gate_objective(votes, population.gate, found, gate_alpha, self.mass)
        gradient = objective.value_and_gradient(flatten(population.gate_parameters))[1]
        return np.asarray(gradient * (objective.total_weight / votes.mass))

    def _take(self, votes: UserVotes, population: Population) -> Beliefs:
        """Beliefs after the votes, those of earlier batches included, and the table brought up to date."""
        scatter = population.scatter
        k, q = scatter.n_components, scatter.n_directions
        prior = _ridged(scatter)
        centre = self.norm * population.heads @ scatter.basis
        ids: list[Hashable] = [] if votes.rows.groups is None else votes.rows.groups.ids.tolist()
        stored = np.zeros((votes.n_users, self.table.n_components))
        stored[: len(ids)] = self.table.get(self.table.rows(ids))
        said = _unpacked(stored, k, q)
        beliefs = _posterior(said, centre, prior)
        z, outside = votes.coordinates(scatter)
        variance = scatter.residual[:, None] * outside
        filter_votes(beliefs, votes.rounds, votes.margins(population.heads), z, variance, weight=votes.weight)
        if ids:
            own = Beliefs(*(part[:, : len(ids)] for part in (beliefs.evidence, beliefs.means, beliefs.covariances)))
            self.table.set(self.table.rows(ids, insert=True), _packed(_said(own, centre, prior)))
        return beliefs


def _ridged(scatter: Scatter) -> Floats:
    """Covariances of the scatter that have an inverse."""
    q = scatter.n_directions
    ridge = _RIDGE * np.trace(scatter.covariances, axis1=1, axis2=2)[:, None, None] / max(q, 1) * np.eye(q)
    return np.asarray(scatter.covariances + np.where(ridge > 0, ridge, _RIDGE * np.eye(q)))


def _said_of_size(share: Floats, beliefs: Beliefs, prior: Floats) -> float:
    """How much larger the scatter is than the prior: Σ uᵀS⁻¹u of posterior means over Σ (q − tr S⁻¹V).

    Both have the same expectation under the right prior (MacKay, 1992). Second moments alone say little where votes
    are few: they are then those of the prior, whatever it is.
    """
    inverse = np.linalg.inv(prior)
    said = float(np.einsum("ku,kui,kij,kuj->", share, beliefs.means, inverse, beliefs.means, optimize=True))
    left = float(np.einsum("ku,kij,kuji->", share, inverse, beliefs.covariances, optimize=True))
    known = beliefs.means.shape[-1] * float(share.sum()) - left
    return min(max(said / known, 1.0 / _LARGEST_FACTOR), _LARGEST_FACTOR) if known > 0 else 1.0


def _posterior(said: tuple[Floats, Floats, Floats], centre: Floats, prior: Floats) -> Beliefs:
    """Beliefs (K, U), relative to the heads at `centre` (K, q), from what votes have said."""
    constant, shift, precision = said
    q = centre.shape[1]
    a = centre[:, None]
    moved = shift - np.matmul(precision, a[..., None])[..., 0]
    mixed = np.eye(q) + np.matmul(precision, prior[:, None])
    covariances = np.matmul(prior[:, None], np.linalg.inv(mixed))
    covariances = 0.5 * (covariances + covariances.swapaxes(-1, -2))
    means = np.matmul(covariances, moved[..., None])[..., 0]
    return Beliefs(constant + _remainder(said, a, moved, means, mixed), means, covariances)


def _said(beliefs: Beliefs, centre: Floats, prior: Floats) -> tuple[Floats, Floats, Floats]:
    """What votes have said: the inverse of `_posterior`."""
    q = centre.shape[1]
    a = centre[:, None]
    inverse = np.linalg.inv(beliefs.covariances)
    precision = inverse - np.linalg.inv(prior)[:, None]
    precision = 0.5 * (precision + precision.swapaxes(-1, -2))
    moved = np.matmul(inverse, beliefs.means[..., None])[..., 0]
    shift = moved + np.matmul(precision, a[..., None])[..., 0]
    mixed = np.eye(q) + np.matmul(precision, prior[:, None])
    constant = beliefs.evidence - _remainder((beliefs.evidence, shift, precision), a, moved, beliefs.means, mixed)
    return constant, shift, precision


def _remainder(said: tuple[Floats, Floats, Floats], a: Floats, moved: Floats, means: Floats, mixed: Floats) -> Floats:
    """log Z − c: the logarithm of ∫ N(a'; a, S) exp(ηᵀa' − ½ a'ᵀΛa') da'."""
    _, shift, precision = said
    at_head = (shift * a).sum(axis=-1) - 0.5 * (a * np.matmul(precision, a[..., None])[..., 0]).sum(axis=-1)
    return np.asarray(at_head + 0.5 * (moved * means).sum(axis=-1) - 0.5 * np.linalg.slogdet(mixed)[1])


def _packed(said: tuple[Floats, Floats, Floats]) -> NDArray[np.float32]:
    """Rows of the table, (U, K(1 + q + q(q + 1)/2)); of the constants only differences between components matter."""
    constant, shift, precision = said
    i, j = np.triu_indices(shift.shape[-1])
    constant = constant - constant.max(axis=0)
    numbers = np.concatenate([constant[..., None], shift, precision[..., i, j]], axis=-1)
    return numbers.swapaxes(0, 1).reshape(constant.shape[1], -1).astype(np.float32)


def _unpacked(rows: NDArray[np.float64], k: int, q: int) -> tuple[Floats, Floats, Floats]:
    """What `_packed` took, of shapes (K, U), (K, U, q) and (K, U, q, q)."""
    numbers = rows.reshape(len(rows), k, -1).swapaxes(0, 1)
    precision = np.empty((k, len(rows), q, q))
    i, j = np.triu_indices(q)
    precision[..., i, j] = precision[..., j, i] = numbers[..., 1 + q :]
    return numbers[..., 0], numbers[..., 1 : 1 + q], precision
