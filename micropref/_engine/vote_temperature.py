"""How far the votes of one annotator say what the same annotator votes next: the temperature of a user's history.

With the votes of annotator u but i as evidence,

    p(y_i | the other votes of u) = Σ_k q_k σ(m_ik),    q_k ∝ π_k(c̄_u) exp(Σ_{j∈u, j≠i} ω_j log σ(m_jk) / τ),

and τ is the one under which the votes are most likely. τ = 1 is Bayes' rule, exact where every annotator is faithful to
one head; annotators who lie between heads want more. Heads look more certain of the votes that taught them: half of the
annotators are held out, and the heads learn for a few iterations from the others, starting where the fit ended. That
chose what two full fits choose on three data sets, in a twentieth of the time of a fit from four starts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from micropref._arrays.backend import to_numpy
from micropref._engine.gates import unflatten
from micropref._engine.mean_contexts import mean_contexts
from micropref._engine.mixture_objective import MixtureObjective
from micropref._engine.prediction import gate_log_weights, head_margins
from micropref._engine.scaling import with_penalties
from micropref._engine.solvers import lbfgs
from micropref.distributed._groups import hash_ids
from micropref.kernels._pointwise import log_sigmoid, log_sum_exp

__all__ = ["TEMPERATURES", "vote_temperature"]

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)

# Iterations in which the heads forget the annotators held out.
_FORGETTING = 10
# Fewer annotators who vote twice say nothing.
_LEAST_ANNOTATORS = 20
# Rows of annotators held out from which on more of them change nothing.
_ROWS = 10_000
# Groups of tinier weights have no votes to speak of.
_LEAST_VOTES = 1e-6


def vote_temperature(
    objective: MixtureObjective, vector: NDArray[np.float64], scale: NDArray[np.float64], n_samples: int
) -> float:
    """The temperature under which annotators' votes predict each other best; 1 unless another is clearly better.

    Parameters
    ----------
    objective : MixtureObjective
        Of the fit; every rank of a distributed one calls this.
    vector : ndarray of shape (n_parameters,)
        Where the fit ended.
    scale : ndarray of shape (n_parameters,)
        As `parameter_scale` gives it.
    n_samples : int
        Rows of all ranks.

    Returns
    -------
    temperature : float
        One of `TEMPERATURES`. Another than 1 gains more, over the annotators, than its own standard error.
    """
    ranks, rows = objective.communicator, objective.rows
    hashes = np.empty(0, dtype=np.uint64) if rows.groups is None else _mixed(hash_ids(rows.groups.ids))
    held_out = hashes >= np.uint64(1 << 63)
    votes = np.zeros(0) if objective.units is None else objective.units.mass[: len(hashes)]
    answers = np.zeros(0) if rows.groups is None else np.bincount(rows.groups.index[rows.groups.index >= 0])
    several = (answers > 1) & (votes > 0)
    known = ranks.reduce(np.array([np.sum(several & held_out), np.sum(several & ~held_out), len(votes), votes.sum()]))
    if objective.gate.n_components == 1 or known[:2].min() < _LEAST_ANNOTATORS or known[3] < _LEAST_VOTES * known[2]:
        return 1.0
    learner = _of_the_others(objective, held_out)
    vector = lbfgs(
        learner.value_and_gradient,
        vector,
        scale=with_penalties(scale, objective.stiffness),
        max_iter=_FORGETTING,
        tol=1e-5,
        blas=bool(objective.gate.hidden_units),
    ).vector
    share = min(1.0, 2.0 * _ROWS / n_samples)
    scored = held_out & several & (hashes.astype(np.float64) <= (1.0 + share) * 2.0**63)
    gains = ranks.sum(lambda: _gains(objective, vector, scored), 1 + 2 * len(TEMPERATURES), vector)
    return _clearly_best(gains)


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A step of SplitMix64: all bits of the result depend on all bits of the id."""
    with np.errstate(over="ignore"):
        hashes = (hashes + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
        return hashes ^ (hashes >> np.uint64(31))


def _of_the_others(objective: MixtureObjective, held_out: NDArray[np.bool_]) -> MixtureObjective:
    """The objective without the annotators held out: they have no weight, so that no row is copied."""
    rows, ranks = objective.rows, objective.communicator
    weight = rows.dense_weight
    if rows.groups is not None:
        in_group = rows.groups.index >= 0
        weight = np.where(in_group & np.append(held_out, False)[rows.groups.index], 0.0, weight)
    total = float(ranks.reduce(np.array([weight.sum()]))[0])
    rest = replace(rows, weight=weight)
    return MixtureObjective(
        rest, objective.gate, objective.penalties, communicator=ranks, total_weight=total, pairs=objective.pairs
    )


def _gains(objective: MixtureObjective, vector: NDArray[np.float64], scored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Number of annotators; then for every temperature their summed gains over 1, in nats, and those squared."""
    if not scored.any():
        return np.zeros(1 + 2 * len(TEMPERATURES))
    groups = objective.rows.groups
    assert groups is not None
    rows = objective.rows.part(np.flatnonzero((groups.index >= 0) & np.append(scored, False)[groups.index]))
    alone = MixtureObjective(rows, objective.gate)
    assert alone.units is not None
    assert rows.groups is not None
    heads, *gate = unflatten(vector, alone.shapes)
    own = log_sigmoid(rows.dense_signs * to_numpy(head_margins(rows.reader, heads)).astype(np.float64))
    prior = to_numpy(gate_log_weights(mean_contexts(rows, alone.units), alone.gate, gate)).astype(np.float64)
    unit, weight = rows.groups.index, rows.dense_weight
    votes = np.stack([np.bincount(unit, weights=weight * one) for one in own])
    # A vote of weight 2 is two votes, of which one is left out.
    others = votes[:, unit] - np.minimum(weight, 1.0) * own
    each = []
    for temperature in TEMPERATURES:
        joint = prior[:, unit] + others / temperature
        likelihood = log_sum_exp(joint + own) - log_sum_exp(joint)
        each.append(np.bincount(unit, weights=weight * likelihood))
    gains = np.stack(each) - each[0]
    return np.concatenate([[gains.shape[1]], gains.sum(axis=1), (gains**2).sum(axis=1)])


def _clearly_best(gains: NDArray[np.float64]) -> float:
    """The temperature with the largest gain; 1 where the gain is within its standard error over annotators."""
    n, total, squares = gains[0], *np.split(gains[1:], 2)
    best = int(np.argmax(total))
    spread = max(0.0, squares[best] - total[best] ** 2 / n)
    return TEMPERATURES[best] if total[best] > np.sqrt(spread) else 1.0
