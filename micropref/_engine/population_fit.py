"""How a population is fitted: heads first, then how users scatter around them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from micropref._engine.dead_heads import dead_heads
from micropref._engine.gates import Gate, unflatten
from micropref._engine.gaussian_users import PASSES, Scatter, filter_work
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._engine.outside_basis import isotropic_start, with_refitted_heads
from micropref._engine.population import (
    EMFit,
    Population,
    Shape,
    evidence,
    expectation_maximisation,
    log_prior,
)
from micropref._engine.prediction import mean_weights
from micropref._engine.priors import gate_penalty
from micropref._engine.solvers import Minimum
from micropref._engine.starts import best_minimum, parameter_scale, random_start
from micropref._engine.user_axes import axes_of_differences, axes_of_users
from micropref._engine.user_votes import UserVotes
from micropref.kernels._dispatch import wants_compiled
from micropref.kernels._pointwise import log_sigmoid

__all__ = ["Settings", "fit_heads", "fit_scatter", "without_dead_heads"]

Floats = NDArray[np.float64]

# Standard deviations of margins among users from which EM starts, and of which it takes the likelier.
_STARTS = (0.5, 2.0)
# Of the prior under which axes are looked for.
_REACHES = (1.0, 3.0)
# Variance along every direction, in units of the norm, from which EM starts at least.
_LEAST_START = 0.05
# Turns of EM and of the heads in all directions.
_TURNS, _ITERATIONS = 3, 10
# Of the heads alone, at the end.
_LAST_TURNS = 2
# Passes over all votes that a fit takes, by which it chooses between the compiled filter and NumPy's.
_PASSES = 100


@dataclass(frozen=True)
class Settings:
    """What all fits of one estimator have in common."""

    n_directions: int
    gate: str
    hidden_units: int
    gate_alpha: float | str
    max_iter: int
    tol: float
    heads_max_iter: int = 300
    heads_tol: float = 1e-5
    passes: int = PASSES

    def gate_of(self, votes: UserVotes, n_components: int) -> Gate:
        width = votes.rows.reader.n_context_features
        return Gate.create(self.gate, width, n_components, self.hidden_units)

    def compiled(self, votes: UserVotes, n_components: int) -> bool:
        """Whether a fit is long enough for the compiled filter."""
        return wants_compiled(_PASSES * filter_work(votes.n_votes, n_components, self.n_directions))


def fit_heads(
    votes: UserVotes,
    n_components: int,
    alpha: float,
    settings: Settings,
    *,
    start: Population | None = None,
    random: np.random.RandomState,
    n_starts: int,
    verbose: int = 0,
) -> tuple[Population, Minimum]:
    """Heads and gate on which users sit: the minimum of J of `mixture_objective`, as `MixtureBradleyTerry` finds it."""
    gate = settings.gate_of(votes, n_components)
    of_gate = gate_penalty(settings.gate_alpha, gate, votes.rows.norms[0], votes.mass)
    objective = MixtureObjective.of_fit(votes.rows, gate, Penalties(alpha, of_gate))
    scale = parameter_scale(objective, votes.rows.norms)
    given = None if start is None else np.concatenate([np.ravel(p) for p in (start.heads, *start.gate_parameters)])
    begin: Callable[[], Floats] = (lambda: random_start(objective, scale, random)) if given is None else (lambda: given)
    minimum = best_minimum(
        objective,
        scale,
        begin,
        n_starts=1 if n_components == 1 or given is not None else n_starts,
        max_iter=settings.heads_max_iter,
        tol=settings.heads_tol,
        precision=max(votes.rows.precision, gate.precision),
        verbose=verbose,
    )
    heads, *parameters = (np.array(p, np.float64) for p in unflatten(minimum.vector, objective.shapes))
    return Population(heads, gate, parameters, Scatter.none(n_components, heads.shape[1])), minimum


def without_dead_heads(votes: UserVotes, population: Population) -> Population:
    """The population without the components that are less than 2 % of it."""
    context = votes.rows.context
    weights = mean_weights(context, population.gate, population.gate_parameters, votes.rows.outer_weight)
    alive = ~dead_heads(weights)
    if alive.all():
        return population
    parameters = list(population.gate_parameters)
    # The last two parameters of every gate are its output weights and offsets.
    for i in range(max(0, len(parameters) - 2), len(parameters)):
        parameters[i] = parameters[i][alive]
    gate = replace(population.gate, n_components=int(alive.sum()))
    if gate.n_components == 1:
        gate, parameters = replace(gate, hidden_units=0), []
    scatter = population.scatter
    scatter = Scatter(scatter.basis, scatter.covariances[alive], scatter.residual[alive])
    return Population(population.heads[alive], gate, parameters, scatter)


def fit_scatter(votes: UserVotes, heads: Population, shape: Shape, alpha: float, settings: Settings) -> EMFit:
    """How users scatter around heads, in at most `settings.n_directions` directions.

    With no more features than directions the basis is all of them. With more, it is made of the directions in which
    users differ most, `shape.rank` of them; where the rank is 0 it is the leading axes of the differences. The variance
    of the other directions is that of these, or, where there is a rank, what `outside_basis` finds.
    """
    d, q = votes.rows.reader.n_features, settings.n_directions
    if q >= d:
        start = _isotropic(votes, heads, np.eye(d), shape, settings)
        return _maximised(votes, start, shape, alpha, settings)
    if shape.rank == 0:
        basis = axes_of_differences(votes, q, np.zeros((d, 0)))
        start = isotropic_start(votes, heads, alpha, shape.tau, settings.compiled(votes, heads.n_components))
        return _with_all_variance(votes, _within(start, basis), replace(shape, outside=True), alpha, settings)
    return _in_axes_of_users(votes, heads, shape, alpha, settings)


def _maximised(votes: UserVotes, start: Population, shape: Shape, alpha: float, settings: Settings) -> EMFit:
    """EM in one basis."""
    return expectation_maximisation(
        votes,
        start,
        shape,
        alpha=alpha,
        gate_alpha=settings.gate_alpha,
        max_iter=settings.max_iter,
        tol=settings.tol,
        compiled=settings.compiled(votes, start.n_components),
        passes=settings.passes,
    )


def _with_all_variance(votes: UserVotes, start: Population, shape: Shape, alpha: float, settings: Settings) -> EMFit:
    """EM in a basis that leaves something out, by turns with the heads in all directions and the variance outside.

    If τ is given, so is the variance outside.
    """
    k = start.n_components
    learned = shape.tau is None and not shape.outside
    found = EMFit(start, -math.inf, 0, True)
    n_iter = 0
    some = replace(settings, max_iter=min(settings.max_iter, _ITERATIONS))
    for turn in range(_TURNS):
        found = _maximised(votes, found.population, shape, alpha, some if turn + 1 < _TURNS else settings)
        n_iter += found.n_iter
        population = with_refitted_heads(votes, found.population, alpha, learned, settings.compiled(votes, k))
        found = replace(found, population=population, n_iter=n_iter)
    return found


def _within(start: Population, basis: Floats, least: float = _LEAST_START) -> Population:
    """An `isotropic_start` in a basis, where EM finds at least this variance: from 0 it would not move."""
    variance = np.maximum(start.scatter.residual, least)
    covariances = variance[:, None, None] * np.eye(basis.shape[1])
    return replace(start, scatter=replace(start.scatter, basis=basis, covariances=covariances))


def _isotropic(
    votes: UserVotes,
    heads: Population,
    basis: Floats,
    shape: Shape,
    settings: Settings,
    deviations: tuple[float, ...] = _STARTS,
) -> Population:
    """The likeliest of the populations whose users have margins of these deviations, alike in all directions."""
    k, q = heads.n_components, basis.shape[1]
    z = votes.coordinates(Scatter(basis, np.zeros((k, q, q)), np.zeros(k)))[0]
    weight = votes.rows.outer_weight
    # In units of the usual difference; of no vote, or of votes that say nothing along the basis, it is that.
    total = float(weight @ np.square(z).sum(axis=1))
    size = total / float(weight.sum()) if total > 0 else 1.0
    found: list[tuple[float, Population]] = []
    for deviation in deviations:
        variance = deviation**2 / size if shape.tau is None or shape.rank else shape.tau**2
        residual = np.full(k, variance if shape.outside else 0.0)
        scatter = Scatter(basis, np.repeat(variance * np.eye(q)[None], k, axis=0), residual)
        population = replace(heads, scatter=scatter)
        value = votes.outer @ evidence(votes, population, settings.compiled(votes, k), settings.passes)
        if found and value < found[-1][0]:
            break
        found.append((float(value), population))
    return max(found, key=lambda one: one[0])[1]


def _in_axes_of_users(votes: UserVotes, heads: Population, shape: Shape, alpha: float, settings: Settings) -> EMFit:
    """Scatter along axes that the users choose.

    How far apart they lie along them, the users who chose them say too high: the variances along the axes of one half
    of the users are those of the other half, and both halves choose by turns.
    """
    k, q = heads.n_components, settings.n_directions
    margins = _own_margins(votes, heads)
    half = votes.drawn_parts(2, 0) == 0
    reaches: tuple[float, ...] = _REACHES
    variances, n_iter, converged = np.zeros(shape.rank), 0, True
    start = isotropic_start(votes, heads, alpha, shape.tau, settings.compiled(votes, heads.n_components))
    residual = np.zeros(k)
    for choosers in (half, ~half):
        theirs, others = votes.part(choosers), votes.part(~choosers)
        chosen = margins[choosers[votes.index]]
        found: list[tuple[float, float, Population]] = []
        for reach in reaches:  # by the evidence of those who did not choose the axes
            basis = axes_of_users(theirs, chosen, reach**2, shape.rank)
            population = _isotropic(others, heads, basis, shape, settings)
            compiled = settings.compiled(others, k)
            value = float(others.outer @ evidence(others, population, compiled, settings.passes))
            found.append((value, reach, population))
        best = max(found, key=lambda one: one[0])
        reaches = (best[1],)
        likely = best[2].scatter
        begin = _within(start, likely.basis, likely.covariances[0, 0, 0])
        fit = _with_all_variance(others, begin, replace(shape, shrinkage=0.0, diagonal=True), alpha, settings)
        share = np.exp(log_prior(others, fit.population)).mean(axis=1)
        variances += 0.5 * np.einsum("k,kii->i", share, fit.population.scatter.covariances)
        residual += 0.5 * fit.population.scatter.residual
        n_iter, converged = n_iter + fit.n_iter, converged and fit.converged
    basis = axes_of_users(votes, margins, reaches[0] ** 2, shape.rank)
    if shape.tau:
        variances = np.maximum(variances, shape.tau**2)
        residual[:] = shape.tau**2
        basis = np.hstack([basis, axes_of_differences(votes, q - shape.rank, basis)])
        variances = np.concatenate([variances, np.full(q - shape.rank, shape.tau**2)])
    scatter = Scatter(basis, np.repeat(np.diag(variances)[None], k, axis=0), residual)
    population = replace(start, scatter=scatter)
    for _ in range(_LAST_TURNS):
        population = with_refitted_heads(votes, population, alpha, False, settings.compiled(votes, k))
    return EMFit(population, -math.inf, n_iter, converged)


def _own_margins(votes: UserVotes, heads: Population) -> Floats:
    """Margins of the likeliest head of every vote's user, (n_votes,)."""
    margins = votes.margins(heads.heads)
    joint = log_prior(votes, heads).copy()
    each = log_sigmoid(margins) if votes.weight is None else log_sigmoid(margins) * votes.weight
    for k, of_head in enumerate(each):
        joint[k] += np.bincount(votes.index, weights=of_head, minlength=votes.n_users)
    return np.asarray(margins[joint.argmax(axis=0)[votes.index], np.arange(votes.n_votes)])
