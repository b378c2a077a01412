"""One row of a mixture: what margins and logits are worth, in nats, and their derivatives, over the array API.

Arrays are component-first, (n_components, n_rows): reductions over the few components then run along long rows.
"""

from __future__ import annotations

from micropref._arrays.backend import Array, namespace


def log_sigmoid(margins: Array) -> Array:
    """log σ(m) without overflow for margins of any size."""
    xp = namespace(margins)
    return xp.minimum(margins, xp.zeros_like(margins)) - xp.log1p(xp.exp(-xp.abs(margins)))


def log_sigmoids(margins: Array) -> tuple[Array, Array]:
    """log σ(m) and log σ(−m), which have a logarithm in common."""
    xp = namespace(margins)
    common, zero = xp.log1p(xp.exp(-xp.abs(margins))), xp.zeros_like(margins)
    return xp.minimum(margins, zero) - common, xp.minimum(-margins, zero) - common


def sigmoid(margins: Array) -> Array:
    """σ(m) without overflow for margins of any size."""
    xp = namespace(margins)
    small = xp.exp(-xp.abs(margins))
    return xp.where(margins < 0, small, xp.ones_like(small)) / (1 + small)


def log_sum_exp(values: Array) -> Array:
    """log Σ_k exp(v_k) over the first axis."""
    xp = namespace(values)
    peak = xp.max(values, axis=0)
    return peak + xp.log(xp.sum(xp.exp(values - peak[None, :]), axis=0))


def log_softmax(logits: Array) -> Array:
    """Logarithms of the mixture weights, log π_k = g_k − log Σ_j exp g_j."""
    return logits - log_sum_exp(logits)[None, :]


def posterior(log_weights: Array, evidence: Array) -> tuple[Array, Array]:
    """Log-likelihoods ℓ_u (n_units,) and responsibilities r_uk = π_uk exp(e_uk − ℓ_u) (n_components, n_units)."""
    joint = log_weights + evidence
    log_likelihood = log_sum_exp(joint)
    return log_likelihood, namespace(joint).exp(joint - log_likelihood[None, :])


def log_odds(log_weights: Array, margins: Array) -> Array:
    """log p̄ − log(1 − p̄) of p̄ = Σ_k π_k σ(m_k), exactly odd in the margins."""
    return log_sum_exp(log_weights + log_sigmoid(margins)) - log_sum_exp(log_weights + log_sigmoid(-margins))


def unit_terms(logits: Array, evidence: Array, outer: Array, mass: Array, balance: float) -> tuple[float, Array, Array]:
    """Sum of the loss over units, its gradient with respect to the logits, and the responsibilities.

    ∂ℓ/∂g_k = r_k − π_k, and ∂(Σ_j π_j log π_j)/∂g_k = π_k (log π_k − Σ_j π_j log π_j).
    """
    xp = namespace(logits)
    log_weights = log_softmax(logits)
    log_likelihood, responsibilities = posterior(log_weights, evidence)
    weights = xp.exp(log_weights)
    loss = -float(xp.sum(outer * log_likelihood, dtype=xp.float64))
    d_logits = outer[None, :] * (weights - responsibilities)
    if balance:
        negative_entropy = xp.sum(weights * log_weights, axis=0)
        loss += balance * float(xp.sum(mass * negative_entropy, dtype=xp.float64))
        d_logits = d_logits + (balance * mass)[None, :] * weights * (log_weights - negative_entropy[None, :])
    return loss, d_logits, responsibilities
