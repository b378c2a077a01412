"""Penalties that know the data: what ``alpha="auto"`` means.

A penalty ½ α ‖w‖² beside the mean log-likelihood is a Gaussian prior w ~ N(0, I / (α Ω)) beside the likelihood itself,
Ω the total weight of the rows. A prior is stated best in the units of what it is about: with

    α = mean_ω ‖x‖² / (s² Ω)

the product wᵀx with an input x of the usual norm has the prior standard deviation s, in nats, whatever the scale of the
features, their number, and the amount of data. A repeated row equals a row of weight 2, as everywhere.

An estimator with a penalty calls `check_penalty` when it checks its parameters, `head_penalty` or `gate_penalty` once
the rows are known, keeps the number as `alpha_`, and solves with it:

    self.alpha_ = head_penalty(self.alpha, rows.norms[1], rows.total_weight)
"""

from __future__ import annotations

from micropref._engine.gates import Gate, GatePenalty

__all__ = ["GATE_DEVIATION", "HEAD_DEVIATION", "gate_penalty", "head_penalty"]

# Prior standard deviations, in nats: of a head's margin on a pair, and of the log-odds of a gate in a context. Both are
# from training rows of four sets, see docs/defaults.md.
HEAD_DEVIATION = 1.75
GATE_DEVIATION = 5.5


def head_penalty(
    alpha: float | str, difference_norm: float, total_weight: float, deviation: float = HEAD_DEVIATION
) -> float:
    """The L2 penalty of a reward head.

    Parameters
    ----------
    alpha : float or "auto"
        A number stands for itself.
    difference_norm : float
        Root mean square norm of the differences, `Comparisons.norms[1]`.
    total_weight : float
        Ω; of all ranks, and in a stream of all rows so far.
    deviation : float, optional
        s, where it is chosen.
    """
    return _penalty(alpha, difference_norm, deviation, total_weight)


def gate_penalty(alpha: float | str, gate: Gate, context_norm: float, total_weight: float) -> GatePenalty:
    """The L2 penalties of a gate's weights.

    Weights of hidden units get a prior of their own: rescaled contexts rescale the weights that multiply them, and
    leave the hidden units, whose usual square is one, as they are.

    Parameters
    ----------
    alpha : float or "auto"
        A number stands for itself, in all layers.
    gate : Gate
    context_norm : float
        Root mean square norm of the contexts, `Comparisons.norms[0]`.
    total_weight : float
        As in `head_penalty`.
    """
    hidden_norm = float(gate.hidden_units) ** 0.5
    return GatePenalty(
        _penalty(alpha, context_norm, GATE_DEVIATION, total_weight),
        _penalty(alpha, hidden_norm, GATE_DEVIATION, total_weight),
    )


def _penalty(alpha: float | str, norm: float, deviation: float, total_weight: float) -> float:
    if isinstance(alpha, str):
        return (norm / deviation) ** 2 / total_weight
    return float(alpha)
