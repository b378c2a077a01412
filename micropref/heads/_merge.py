"""Heads that say the same, made into one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from micropref._arrays.backend import Array, compute_dtype, like, precision, to_numpy
from micropref._engine.gate_objective import GateObjective
from micropref._engine.gate_solvers import MAX_ITER, TOL
from micropref._engine.gates import Gate, flatten, unflatten
from micropref._engine.scaling import gate_scale
from micropref._engine.solvers import lbfgs
from micropref._rows.comparisons import Comparisons
from micropref.heads._rebuilt import fitted_mixture, gate_of, mean_weights, rebuilt
from micropref.mixture import MixtureBradleyTerry

# Correlations that differ by rounding are equal.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class HeadMerge:
    """Result of `merge_heads`.

    Attributes
    ----------
    mixture : MixtureBradleyTerry
        The new mixture, the most frequent head first.
    members : tuple of tuple of int
        For each of its heads, the old heads that it was made of; more than one where heads were merged.
    correlation : ndarray of shape (n_components, n_components)
        Correlation of the predictions of the old heads.
    divergence : float
        Mean over the rows of KL(wanted ‖ new) of the mixture weights, in nats, where wanted are the sums of the old
        weights. 0 but for rounding where the merged weights are exact.
    """

    mixture: MixtureBradleyTerry
    members: tuple[tuple[int, ...], ...]
    correlation: np.ndarray
    divergence: float


def merge_heads(
    mixture: Any, X: Array, *, threshold: float = 0.95, sample_weight: ArrayLike | None = None
) -> HeadMerge:
    """Merge heads whose predictions on held-out pairs are correlated.

    The prediction of head k for a pair is 2 σ(w_kᵀ d) − 1, which changes its sign when the pair is swapped. Over all
    pairs in both orders its mean is 0, and the correlation of two heads is the cosine of their predictions. Heads are
    merged by complete linkage: within a merged set *every* two are correlated by the threshold or more.

    A set S becomes one head, w = Σ_{k∈S} π̄_k w_k / Σ_{k∈S} π̄_k with π̄ the mean mixture weights over X. Its weight is
    to be Σ_{k∈S} π_k(c) in every context:

    - **exact** for static weights, where the offset is log Σ_{k∈S} exp b_k, and for a gate whose merged rows differ by
      their offsets alone;
    - **approximate** for other gates: the sum of softmax terms is in general no softmax of that form. The gate is then
      fitted anew to the wanted weights by the smallest cross-entropy over X. At its minimum the mean of every weight
      over X is what it was; how far single contexts are off is `HeadMerge.divergence`.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Fitted; it is not changed.
    X : array of shape (n_samples, n_columns)
        Pairs on which heads are compared, best held out; labels are not needed.
    threshold : float, default=0.95
        Smallest correlation, in (0, 1], of heads to be merged.
    sample_weight : array-like of shape (n_samples,), optional

    Returns
    -------
    merge : HeadMerge
        Where nothing is merged, its mixture has the old parameters. ``objective_`` and ``n_iter_`` are of the fit that
        the heads came from; ``converged_`` is False, because no J was minimised with the merged heads.

    Raises
    ------
    TypeError
        If the estimator is no MixtureBradleyTerry.
    ValueError
        For a threshold outside (0, 1], and bad rows as in `MixtureBradleyTerry.fit`.

    References
    ----------
    Shen et al., "MiCRo: Mixture Modeling and Context-aware Routing for Personalized Preference Learning", EMNLP 2025,
    arXiv:2505.24846, appendix, on redundant heads.

    Examples
    --------
    Four heads, kept equally common by `balance`, for two kinds of annotators.

    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> rng = np.random.default_rng(0)
    >>> X, annotator = rng.normal(size=(1200, 2)), np.arange(1200) // 4
    >>> y = (X[:, 0] * np.where(annotator % 3 == 0, -3, 3) > 0).astype(int)
    >>> mixture = MixtureBradleyTerry(n_components=4, balance=0.1, random_state=0).fit(X, y, groups=annotator)
    >>> merge = merge_heads(mixture, rng.normal(size=(500, 2)))
    >>> merge.members, merge.mixture.weights_.round(1)
    (((1, 2, 3), (0,)), array([0.7, 0.3]))
    """
    mixture = fitted_mixture(mixture)
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold in (0, 1], got {threshold!r}")
    rows = Comparisons.read(mixture, X, sample_weight=sample_weight, first=False)
    margins = to_numpy(mixture.component_scores(rows.reader.X)).astype(np.float64)
    correlation = _correlation(margins, rows.dense_weight)
    label = _sets(correlation, threshold)
    n_sets = int(label.max()) + 1
    common = mean_weights(mixture, rows)
    into = np.zeros((n_sets, len(label)))
    into[label, np.arange(len(label))] = 1.0
    # A head that is never used still has a place in its set.
    share = into * np.maximum(common, np.finfo(float).tiny)
    share /= share.sum(axis=1, keepdims=True)
    gate_parameters, divergence = mixture.gate_parameters_, 0.0
    if 1 < n_sets < len(label):
        gate_parameters, divergence = _merged_gate(mixture, rows, into, share)
    weights = into @ common if mixture.n_context_features else into @ mixture.weights_
    order = np.argsort(-weights, kind="stable")
    if n_sets > 1:
        gate_parameters = gate_of(order, gate_parameters)
    merged = rebuilt(mixture, (share @ mixture.coef_)[order], gate_parameters, weights[order])
    members = [tuple(np.flatnonzero(label == one).tolist()) for one in order]
    return HeadMerge(merged, tuple(members), correlation, divergence)


def _correlation(margins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Cosines of the predictions tanh(m / 2) of every two heads; heads without an opinion agree with each other."""
    predictions = np.tanh(margins / 2) * np.sqrt(weight)[:, None]
    length = np.linalg.norm(predictions, axis=0)
    silent = length == 0
    predictions = predictions / np.where(silent, 1.0, length)
    cosines: np.ndarray = np.clip(predictions.T @ predictions, -1.0, 1.0)
    cosines[np.ix_(silent, silent)] = 1.0
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _sets(correlation: np.ndarray, threshold: float) -> np.ndarray:
    """Number of the set of every head, sets in the order of their first heads."""
    if len(correlation) == 1:
        return np.zeros(1, dtype=np.intp)
    distance = 1.0 - (correlation + correlation.T) / 2
    np.fill_diagonal(distance, 0.0)
    found = fcluster(linkage(squareform(distance), "complete"), 1.0 - threshold + _ROUNDING, "distance")
    _, first, label = np.unique(found, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))
    return number[label]


def _merged_gate(
    mixture: MixtureBradleyTerry, rows: Comparisons, into: np.ndarray, share: np.ndarray
) -> tuple[list[np.ndarray], float]:
    """Gate of the merged heads, and how far its weights are from the sums of the old ones."""
    hidden, output = mixture.gate_parameters_[:-2], mixture.gate_parameters_[-2:]
    offsets = np.stack([np.logaddexp.reduce(output[-1][row > 0]) for row in into])
    start = [*hidden, *(share @ weights for weights in output[:-1]), offsets]
    if not mixture.n_context_features:
        return start, 0.0
    gate = Gate.create(mixture.gate, mixture.n_context_features, len(into), mixture.hidden_units)
    old = np.exp(to_numpy(mixture.context_log_weights(rows.context)).astype(np.float64))
    wanted = into @ old
    wanted /= wanted.sum(axis=0)
    X, weight = rows.reader.X, rows.dense_weight
    nothing = like(np.zeros(wanted.shape), X, compute_dtype(X))
    objective = GateObjective(rows, gate, evidence=nothing, offset=nothing)
    found = lbfgs(
        partial(objective.cross_entropy, targets=like(wanted, X, objective.dtype)),
        flatten(start),
        scale=flatten(gate_scale(rows.norms[0], gate)),
        max_iter=MAX_ITER,
        tol=TOL,
        precision=max(precision(rows.context), gate.precision),
        blas=bool(gate.hidden_units),
    )
    entropy = -weight @ (wanted * np.log(np.maximum(wanted, np.finfo(float).tiny))).sum(axis=0) / weight.sum()
    parameters = [p.copy() for p in unflatten(found.vector, gate.shapes)]
    return parameters, max(0.0, found.value - float(entropy))
