"""A small mixture of Bradley-Terry heads, and its likelihood and gradient in plain NumPy and double precision.

The equations are written out here on their own: kernels are compared with them, so they share nothing with any kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Example", "example", "truth"]

_N_CONTEXT, _N_FEATURES = 5, 24


class Example(NamedTuple):
    """Rows ``[context | difference]`` with parameters, in float64.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_context + n_features)
    W : ndarray of shape (n_components, n_features)
    V : ndarray of shape (n_components, n_context)
    b : ndarray of shape (n_components,)
    weight : ndarray of shape (n_rows,)
    n_context : int
    """

    X: np.ndarray
    W: np.ndarray
    V: np.ndarray
    b: np.ndarray
    weight: np.ndarray
    n_context: int


def example(n_rows: int, n_components: int) -> Example:
    """Random rows whose margins and logits are about 1; the same in every call."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, _N_CONTEXT + _N_FEATURES))
    W = rng.normal(size=(n_components, _N_FEATURES)) / _N_FEATURES**0.5
    V = rng.normal(size=(n_components, _N_CONTEXT)) / _N_CONTEXT**0.5
    return Example(X, W, V, rng.normal(size=n_components), rng.uniform(0.5, 2.0, n_rows), _N_CONTEXT)


def truth(given: Example) -> list[np.ndarray]:
    """Negative log-likelihood in nats, and its gradients with respect to W, V and b."""
    context, difference = given.X[:, : given.n_context], given.X[:, given.n_context :]
    margins = difference @ given.W.T
    logits = context @ given.V.T + given.b
    log_weights = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    joint = log_weights - np.logaddexp(0.0, -margins)
    rows = np.logaddexp.reduce(joint, axis=1, keepdims=True)
    responsibilities = np.exp(joint - rows)
    share = (given.weight / given.weight.sum())[:, None]
    d_margins = -share * responsibilities * np.exp(-np.logaddexp(0.0, margins))
    d_logits = share * (np.exp(log_weights) - responsibilities)
    return [-np.sum(share * rows), d_margins.T @ difference, d_logits.T @ context, d_logits.sum(axis=0)]
